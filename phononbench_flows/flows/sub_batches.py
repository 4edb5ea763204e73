"""Which crystals of a chunk are begun, and when: apart from those that may kill the worker, and while there is time.

A worker that begins a crystal says so in its document, and one that is concluded is free of it again. So a crystal that
is found with attempts was under way when a worker was killed. Its neighbours were too, hence each of them is tried
alone from then on: the innocent come through, and one that takes three more workers with it is set aside.

Workers are killed from outside as well: for other people's jobs, by time limits, with their node. That is no crystal's
fault, so the end of a worker that has a witness (see ``witness``) is excused unless it was seen to be of its own
making; and where Slurm says that somebody ended the job, the janitor takes its word for it (see :func:`excuse`).
Crystals whose attempts are all excused go on together, or a worker that is often killed would compute one crystal a
life. Only where ends add up that nobody has seen are they tried in ever smaller groups, since a crystal might take the
whole node down; who is still there after sixteen is set aside.

An error of the device, which ends a process too, is laid to nobody at first. But a crystal may be what a kernel
stumbles over: from the second such error on, those that were there are tried alone as well, each after a healthy
crystal has shown that the device is sound.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import batched, groupby
from uuid import uuid4

from phononbench_flows import witness
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.trouble import DeviceError
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows import time_limit
from phononbench_flows.flows.launched import Launch, current_launch
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.store import ResultsStore

MAX_ATTEMPTS = 4
"""Workers that a crystal may take with it: the first, perhaps, in company, and three that had nothing else in work."""

MAX_EXCUSED = 16
"""Workers that may be killed, unseen by anybody, while they compute a crystal: half of a chunk's crystals are apart
from the other half after three, and each is alone after ten."""

_TOGETHER = 3  # so many excused ends separate nobody

# Crystals under way at first, where time is limited and this process has not yet seen how long one takes.
_FIRST = 4
_AT_ONCE = 32  # crystals begun with the same few words to the store

_throughput: dict[tuple[str, ...], float] = {}
"""Cost per second as last seen in this process, by protocol, potential and device."""


class OutOfTimeError(PhononBenchError):
    """There is no time left to begin anything; run it again."""


def suspicion(document: CalculationDocument) -> int:
    """How often a crystal was there when a process ended by itself; the first error of the device does not count."""
    return max(0, document.attempts - document.excused) + max(0, document.device_errors - 1)


def set_aside(documents: Sequence[CalculationDocument], store: ResultsStore) -> list[CalculationDocument]:
    """Fail the crystals that have ended their workers too often; gives the others."""
    guilty = [d for d in documents if suspicion(d) >= MAX_ATTEMPTS or d.excused >= MAX_EXCUSED]
    for document in guilty:
        document.status, document.reason = Status.FAILED, Reason.KILLED_WORKER
        document.detail = (
            f"{suspicion(document) - 1} workers ended while they computed it and nothing else"
            if suspicion(document) >= MAX_ATTEMPTS
            else f"{document.attempts} workers were killed while they computed it, the last of them nothing else"
        )
    store.put(*guilty)
    return [d for d in documents if d.status != Status.FAILED]


def by_suspicion(documents: Sequence[CalculationDocument]) -> Iterator[list[CalculationDocument]]:
    """Those that nothing speaks against together, then those that were often there at ends that nobody saw, in groups
    that halve with each, then the suspicious one by one, the least suspicious first.
    """
    clean = [d for d in documents if not suspicion(d)]
    if fresh := [d for d in clean if d.excused < _TOGETHER]:
        yield fresh
    often = sorted((d for d in clean if d.excused >= _TOGETHER), key=lambda d: d.excused)
    for ends, alike in groupby(often, key=lambda d: d.excused):
        yield from map(list, batched(alike, max(1, len(documents) >> (ends - _TOGETHER + 1))))
    yield from ([d] for d in sorted(documents, key=suspicion) if suspicion(d))


def _mark(launch: Launch | None, *, watched: bool) -> str:
    """What a launch, with a witness or without, writes into documents of crystals that it begins."""
    return f"{launch.launch_id if launch else 'no'}-{'watched' if watched else 'alone'}-{uuid4().hex}"


def excuse(store: ResultsStore, keys: Sequence[str], launch_id: int, *, forgotten: bool) -> None:
    """Hold the end of a launch's worker against none of the crystals that it had in work, whoever has seen it or not.

    Those that its witness has laid it to carry its mark no more. May be broken off, and repeated.

    Args:
        forgotten: the attempt counts no more; else it counts among the excused ones, which may add up.
    """
    criteria = {"key": {"$in": list(keys)}, "status": Status.PENDING.value, "begun_by": {"$regex": f"^{launch_id}-"}}
    changes = {}
    for row in store.query(criteria, ["key", "attempts", "excused", "begun_by"]):
        watched = row["begun_by"].split("-")[1] == "watched"
        attempts = row["attempts"] - forgotten
        excused = row["excused"] - watched if forgotten else row["excused"] + (not watched)
        changes[row["key"]] = {"attempts": attempts, "excused": excused, "begun_by": None}
    store.set_fields(changes)


class Admission:
    """Crystals that are begun one after another, for as long as there is time.

    Whoever begins a crystal writes its mark into the document, and writes what is found only where the mark is still
    there: a worker that was taken for dead, and given a successor, may wake up, and must not put back what that one has
    done.

    Attributes:
        begun: how many were begun.
        mine: the MongoDB filter of what is under way here and was not taken over by another worker.
    """

    def __init__(
        self,
        documents: Sequence[CalculationDocument],
        store: ResultsStore,
        cost: Callable[[CalculationDocument], float],
        pace: tuple[str, ...],
    ) -> None:
        self._queue, self._store, self._cost, self._pace = deque(documents), store, cost, pace
        self._under_way: dict[str, float] = {}
        self._began, self._spent = time.monotonic(), 0.0
        self._seen = witness.is_watching()
        self._mark = _mark(current_launch(), watched=self._seen)
        self.begun = 0
        self.mine = {"status": Status.PENDING.value, "begun_by": self._mark}

    @property
    def left(self) -> int:
        """Crystals that were not begun."""
        return len(self._queue)

    def __iter__(self) -> Iterator[list[CalculationDocument]]:
        """Documents of the next crystals to begin; none where those under way have to tell first how long they take."""
        while self._queue and (time_limit.seconds_left() > 0):
            number = self._affordable(time_limit.seconds_left())
            if number:
                yield self._begin([self._queue.popleft() for _ in range(number)])
            elif self._under_way:
                yield []
            else:
                return

    def passed(self, document: CalculationDocument, *, goes_on: bool) -> None:
        """Nothing speaks against a crystal any more, though it stays marked while it goes on.

        Its document is written to, and still has to be saved.
        """
        document.attempts, document.excused, document.device_errors = int(goes_on), int(goes_on and self._seen), 0
        if not goes_on:
            document.begun_by = None
            self._spent += self._under_way.pop(document.key)
            _throughput[self._pace] = self._spent / max(time.monotonic() - self._began, 1e-9)

    def take_back(self, *, device: bool) -> None:
        """Count nothing against those under way: a worker that lives to see its error was not killed.

        Parameters:
            device: the error was one of the device, which counts apart.
        """
        # As they are in the store: what is in memory may be half of a result that could not be written.
        rows = self._store.query(
            {"key": {"$in": list(self._under_way)}} | self.mine, ["key", "attempts", "excused", "device_errors"]
        )
        self._store.set_fields(
            {
                row["key"]: {
                    "attempts": row["attempts"] - 1,
                    "excused": row["excused"] - self._seen,
                    "device_errors": row["device_errors"] + device,
                    "begun_by": None,
                }
                for row in rows
            }
        )

    def _begin(self, documents: Sequence[CalculationDocument]) -> list[CalculationDocument]:
        """Count an attempt of these crystals; gives those that nobody else has brought further meanwhile."""
        self.begun += len(documents)
        criteria = {"key": {"$in": [d.key for d in documents]}, "status": Status.PENDING.value}
        stages = {row["key"]: row["stage"] for row in self._store.query(criteria, ["key", "stage"])}
        waiting = [d for d in documents if stages.get(d.key, "") == d.stage]
        for document in waiting:
            document.excused = (document.excused if document.attempts else 0) + self._seen
            document.attempts, document.begun_by = document.attempts + 1, self._mark
            self._under_way[document.key] = self._cost(document)
        self._store.set_fields(
            {d.key: {"attempts": d.attempts, "excused": d.excused, "begun_by": self._mark} for d in waiting}
        )
        witness.tell(self._store.spec, list(self._under_way))
        return waiting

    def _affordable(self, seconds: float) -> int:
        """How many crystals to begin with so many seconds left."""
        costs = [self._cost(document) for document, _ in zip(self._queue, range(_AT_ONCE), strict=False)]
        if seconds == float("inf"):
            return len(costs)
        if (throughput := _throughput.get(self._pace)) is None:
            return max(0, min(_FIRST - len(self._under_way), len(costs)))
        # Half the time, since the estimate is rough.
        fitting, spent = 0, sum(self._under_way.values())
        for cost in costs:
            spent += cost
            if spent / throughput > seconds / 2:
                break
            fitting += 1
        return fitting or int(not self._under_way and costs[0] / throughput <= seconds)


def work_through(
    documents: Sequence[CalculationDocument],
    store: ResultsStore,
    compute: Callable[[Admission], None],
    *,
    cost: Callable[[CalculationDocument], float],
    pace: tuple[str, ...],
) -> bool:
    """Compute crystals, the suspicious ones each alone; whether all of them were begun, or time ran out before.

    Parameters:
        compute: computes the crystals that an admission gives, tells it of each, and saves what is found.
        cost: what a crystal costs compared to others.
        pace: what the time per cost depends on: the throughput is kept under it.

    Raises:
        OutOfTimeError: there was no time for even one crystal.
    """
    begun = left = 0
    for group in by_suspicion(documents):
        admission = Admission(group, store, cost, pace)
        try:
            with time_limit.interruptible(), witness.until_the_end():
                compute(admission)
        except time_limit.StopNow:
            admission.take_back(device=False)
            return False
        except BaseException as error:
            admission.take_back(device=isinstance(error, DeviceError))
            raise
        begun, left = begun + admission.begun, left + admission.left
    if left and not begun:
        raise OutOfTimeError("no time is left to compute anything; run it again to compute what is missing")
    return not left
