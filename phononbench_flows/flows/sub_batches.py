"""A chunk's crystals in sub-batches: apart from those that may kill the worker, and small enough for the time left.

A worker that begins a sub-batch says so in its crystals' documents, and a crystal that ends a step is free of it again.
So a crystal that is found with attempts was there when a worker was killed. Its neighbours were too, hence each of them
is tried alone from then on: the innocent come through, and one that takes three more workers with it is set aside.

Workers are killed from outside as well: for other people's jobs, by time limits, with their node. That is no crystal's
fault, so the end of a worker that has a witness (see ``witness``) is excused unless it was seen to be of its own
making. Crystals whose attempts are all excused go on together, or a worker that is often killed would compute one
crystal a life. Only where ends add up that nobody has seen are they tried in ever smaller groups, since a crystal might
take the whole node down; who is still there after sixteen is set aside.

An error of the device, which ends a process too, is laid to nobody at first. But a crystal may be what a kernel
stumbles over: from the second such error on, those that were there are tried alone as well, each after a healthy
crystal has shown that the device is sound.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched, groupby
from typing import Any

from phononbench_flows import witness
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.trouble import DeviceError
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows import time_limit
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.store import ResultsStore

MAX_ATTEMPTS = 4
"""Workers that a crystal may take with it: the first, perhaps, in company, and three that had nothing else in work."""

MAX_EXCUSED = 16
"""Workers that may be killed, unseen by anybody, while they compute a crystal: half of a chunk's crystals are apart
from the other half after three, and each is alone after ten."""

_TOGETHER = 3  # so many excused ends separate nobody

# Crystals of the first sub-batch of a step where time is limited and this process has not yet seen how long one takes.
_FIRST = 4

_throughput: dict[tuple[str, ...], float] = {}
"""Cost per second as of the last sub-batch in this process, by step, protocol, potential and device."""


class OutOfTimeError(PhononBenchError):
    """There is no time left to begin anything; run it again."""


@dataclass(frozen=True)
class Waiting:
    """Crystals that wait for a step.

    Attributes:
        store: where they are.
        stage: the one that they have reached: what the step comes after.
    """

    store: ResultsStore
    stage: str

    def criteria(self, keys: Sequence[str]) -> dict[str, Any]:
        """The MongoDB filter of those of these keys that wait."""
        return {"key": {"$in": list(keys)}, "status": Status.PENDING.value, "stage": self.stage}

    def still(self, documents: Sequence[CalculationDocument]) -> list[CalculationDocument]:
        """Those that nobody else has brought further meanwhile.

        A worker that was taken for dead, and given a successor, may wake up: it must not put back what that one has
        done.
        """
        there = {row["key"] for row in self.store.query(self.criteria([d.key for d in documents]), ["key"])}
        return [d for d in documents if d.key in there]


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


def work_through(
    documents: Sequence[CalculationDocument],
    waiting: Waiting,
    compute: Callable[[list[CalculationDocument]], None],
    *,
    cost: Callable[[CalculationDocument], float],
    pace: tuple[str, ...],
) -> bool:
    """Compute crystals in sub-batches; whether all of them were begun, or time ran out before.

    Parameters:
        waiting: what these crystals wait for.
        compute: computes some of the crystals and writes each free of attempts and errors.
        cost: what a crystal costs compared to others.
        pace: what the time per cost depends on: the throughput is kept under it.

    Raises:
        OutOfTimeError: there was no time for even one sub-batch.
    """
    queue = deque(by_suspicion(documents))
    begun = 0
    while queue:
        sub_batch = queue.popleft()
        size = _affordable([cost(d) for d in sub_batch], time_limit.seconds_left(), _throughput.get(pace))
        if not size:
            if not begun:
                raise OutOfTimeError("no time is left to compute anything; run it again to compute what is missing")
            return False
        if size < len(sub_batch):
            queue.appendleft(sub_batch[size:])
        begun += size
        sub_batch = waiting.still(sub_batch[:size])
        if not sub_batch:
            continue
        began = time.monotonic()
        try:
            with _marked(sub_batch, waiting), time_limit.interruptible():
                compute(sub_batch)
        except time_limit.StopNow:
            return False
        _throughput[pace] = sum(map(cost, sub_batch)) / max(time.monotonic() - began, 1e-9)
    return True


def _affordable(costs: Sequence[float], seconds: float, throughput: float | None) -> int:
    """How many crystals of a sub-batch to begin with so many seconds left, at so much cost per second."""
    if seconds <= 0:
        return 0
    if seconds == float("inf"):
        return len(costs)
    if throughput is None:
        return min(_FIRST, len(costs))
    # Half the time, since the estimate is rough; then the clock is looked at again.
    fitting, spent = 0, 0.0
    for cost in costs:
        spent += cost / throughput
        if spent > seconds / 2:
            break
        fitting += 1
    return fitting or int(costs[0] / throughput <= seconds)


@contextmanager
def _marked(sub_batch: Sequence[CalculationDocument], waiting: Waiting) -> Iterator[None]:
    """Count an attempt of these crystals. A worker that lives to see its error takes it back: nothing was killed."""
    seen = witness.is_watching()
    for document in sub_batch:
        document.excused = (document.excused if document.attempts else 0) + seen
        document.attempts += 1
    waiting.store.put(*sub_batch)
    try:
        with witness.watched(waiting.store.spec, [d.key for d in sub_batch]):
            yield
    except BaseException as error:
        unfinished = waiting.still([d for d in sub_batch if d.attempts])
        for document in unfinished:
            document.attempts -= 1
            document.excused -= seen
            document.device_errors += isinstance(error, DeviceError)
        waiting.store.put(*unfinished)
        raise
