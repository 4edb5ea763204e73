"""A chunk's crystals in sub-batches: apart from those that may kill the worker, and small enough for the time left.

A worker that begins a sub-batch says so in its crystals' documents, and a crystal that ends a step is free of it again.
So a crystal that is found with attempts was there when a worker was killed. Its neighbours were too, hence each of them
is tried alone from then on: the innocent come through, and one that takes three more workers with it is set aside. It
takes three because workers are killed from outside as well: with one or two, six random kills over two chunks of twenty
crystals put innocent ones aside.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

from phononbench_flows.documents import CrystalDocument
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.flows import time_limit
from phononbench_flows.outcomes import Reason, Stage, Status
from phononbench_flows.store import ResultsStore

MAX_ATTEMPTS = 4
"""Workers that a crystal may take with it: the first, perhaps, in company, and three that had nothing else in work."""

# Crystals of the first sub_batch of a stage where time is limited and this process has not yet seen how long one takes.
_FIRST = 4

_pace: dict[Stage, float] = {}  # seconds per weight, as of the last sub_batch in this process, by the stage before


class OutOfTimeError(PhononBenchError):
    """There is no time left to begin anything; run it again."""


def set_aside(documents: Sequence[CrystalDocument], store: ResultsStore) -> list[CrystalDocument]:
    """Fail the crystals that have killed their workers too often; gives the others."""
    guilty = [d for d in documents if d.attempts >= MAX_ATTEMPTS]
    for document in guilty:
        document.status, document.reason = Status.FAILED, Reason.KILLED_WORKER
        document.detail = f"{document.attempts - 1} workers were killed while they computed it and nothing else"
    store.put(*guilty)
    return [d for d in documents if d.attempts < MAX_ATTEMPTS]


def by_attempts(documents: Sequence[CrystalDocument]) -> Iterator[list[CrystalDocument]]:
    """Those never tried together, then the others one by one, the least tried first."""
    fresh = [d for d in documents if d.attempts == 0]
    if fresh:
        yield fresh
    yield from ([d] for d in sorted(documents, key=attrgetter("attempts")) if d.attempts)


def still_waiting(documents: Sequence[CrystalDocument], store: ResultsStore, since: Stage) -> list[CrystalDocument]:
    """Those that nobody else has brought further since they had completed this stage.

    A worker that was taken for dead, and given a successor, may wake up: it must not put back what that one has done.
    """
    criteria = {"key": {"$in": [d.key for d in documents]}, "status": Status.PENDING.value, "stage": since.value}
    there = {row["key"] for row in store.query(criteria, ["key"])}
    return [d for d in documents if d.key in there]


def work_through(
    documents: Sequence[CrystalDocument],
    store: ResultsStore,
    since: Stage,
    compute: Callable[[list[CrystalDocument]], None],
    weight: Callable[[CrystalDocument], float],
) -> bool:
    """Compute crystals in sub-batches; whether all of them were begun, or time ran out before.

    Parameters:
        since: the stage that these crystals have completed.
        compute: computes some of the crystals and writes each with ``attempts`` back at 0.
        weight: what a crystal costs compared to others.

    Raises:
        OutOfTimeError: there was no time for even one sub_batch.
    """
    waiting = deque(by_attempts(documents))
    begun = 0
    while waiting:
        sub_batch = waiting.popleft()
        size = _affordable([weight(d) for d in sub_batch], time_limit.seconds_left(), _pace.get(since))
        if not size:
            if not begun:
                raise OutOfTimeError("no time is left to compute anything; run it again to compute what is missing")
            return False
        if size < len(sub_batch):
            waiting.appendleft(sub_batch[size:])
        begun += size
        sub_batch = still_waiting(sub_batch[:size], store, since)
        if not sub_batch:
            continue
        began = time.monotonic()
        try:
            with _marked(sub_batch, store, since), time_limit.interruptible():
                compute(sub_batch)
        except time_limit.StopNow:
            return False
        _pace[since] = (time.monotonic() - began) / sum(map(weight, sub_batch))
    return True


def _affordable(weights: Sequence[float], seconds: float, pace: float | None) -> int:
    """How many crystals of a sub_batch to begin with so many seconds left, at so many seconds per weight."""
    if seconds <= 0:
        return 0
    if seconds == float("inf"):
        return len(weights)
    if pace is None:
        return min(_FIRST, len(weights))
    # Half the time, since the estimate is rough; then the clock is looked at again.
    fitting, spent = 0, 0.0
    for weight in weights:
        spent += weight * pace
        if spent > seconds / 2:
            break
        fitting += 1
    return fitting or int(weights[0] * pace <= seconds)


@contextmanager
def _marked(sub_batch: Sequence[CrystalDocument], store: ResultsStore, since: Stage) -> Iterator[None]:
    """Count an attempt of these crystals. A worker that lives to see its error takes it back: nothing was killed."""
    for document in sub_batch:
        document.attempts += 1
    store.put(*sub_batch)
    try:
        yield
    except BaseException:
        unfinished = still_waiting([d for d in sub_batch if d.attempts], store, since)
        for document in unfinished:
            document.attempts -= 1
        store.put(*unfinished)
        raise
