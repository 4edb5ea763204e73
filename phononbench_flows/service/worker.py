"""The process that takes uploads, one after the other: reads them, and judges them as ``phononbench run`` judges a set,
or hands them out to a cluster as ``phononbench submit`` does.

It ends with the server that started it, and when there has been nothing to do for a while. What it leaves behind when
it is killed, the next one goes on with.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from phononbench_flows import potentials
from phononbench_flows.engine.batch import RunEndingError
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.potentials import Potential
from phononbench_flows.protocol import load_protocol
from phononbench_flows.run import run_here
from phononbench_flows.service.jobs import Job, Jobs, give_up
from phononbench_flows.service.settings import Judging, Limits
from phononbench_flows.sets.chunks import waiting_crystals
from phononbench_flows.sets.ingest import CrystalSet, ingest
from phononbench_flows.sets.repeats import settle
from phononbench_flows.store import AwayError, ResultsStore

IDLE_SECONDS = 600.0
MOST_ATTEMPTS = 3
_PAUSE = 0.3

_log = logging.getLogger(__name__)


def crystal_set(judging: Judging) -> CrystalSet:
    """The set that uploads become.

    Raises:
        PhononBenchError: the protocol or the potential cannot be had.
    """
    potentials.check_asked(judging.potential, judging.device, judging.settings)
    known = potentials.identify(judging.potential)
    record = known.record(judging.settings)
    return CrystalSet(judging.set_name, {}, load_protocol(judging.protocol), record, known.elements)


Deal = Callable[[Job, list[str]], None]
"""What is done with an upload that was read, and became the calculations of these keys."""


def judging_here(judging: Judging, crystals: CrystalSet, jobs: Jobs, store: ResultsStore) -> Deal:
    """Compute what is missing of an upload in this process."""

    @cache
    def load() -> Potential:
        return potentials.load(judging.potential, judging.device, judging.settings)

    def judge(job: Job, keys: list[str]) -> None:
        waiting = waiting_crystals(store, crystals, keys)
        if waiting:
            run_here(waiting, crystals, store, load, device=judging.device)
        jobs.finish(job)

    return judge


def _read(job: Job, jobs: Jobs, store: ResultsStore, crystals: CrystalSet, limits: Limits) -> list[str]:
    """Take the crystals of an upload into the store; gives their keys."""
    found = ingest([Path(job.file)], crystals, store, limit=limits.crystals)
    jobs.found(job, found.keys)
    if rejected := _reject_large(store, found.keys, limits):
        settle(store, crystals.mine, crystals.protocol, rejected)
    return found.keys


def _reject_large(store: ResultsStore, keys: list[str], limits: Limits) -> set[str]:
    """Reject what is larger than this server takes; gives the formulas, of which smaller ones may be duplicates."""
    rejected: set[str] = set()
    large = {"key": {"$in": keys}, "status": Status.PENDING.value, "nsites": {"$gt": limits.atoms}}
    for document in store.documents(large):
        document.status, document.reason = Status.REJECTED, Reason.TOO_MANY_ATOMS
        document.detail = f"The cell holds {document.nsites} atoms, this server takes {limits.atoms}."
        store.put(document)
        rejected.add(str(document.formula_pretty))
    return rejected


def work(jobs: Jobs, store: ResultsStore, judging: Judging, limits: Limits, idle: float = IDLE_SECONDS) -> None:
    """Take uploads until there has been none for ``idle`` seconds.

    Raises:
        RunEndingError: the machine cannot compute.
        AwayError: the results' server, or the LaunchPad's, does not answer.
    """
    crystals = crystal_set(judging)
    if judging.cluster:
        from phononbench_flows.service.handing_out import handing_out

        deal = handing_out(judging, crystals, jobs, store)
    else:
        deal = judging_here(judging, crystals, jobs, store)

    def take(job: Job) -> None:
        deal(job, _read(job, jobs, store, crystals, limits))

    last = time.monotonic()
    while time.monotonic() - last < idle:
        job = jobs.start()
        if job is None:
            time.sleep(_PAUSE)
            continue
        _take_or_fail(job, take, jobs, store)
        last = time.monotonic()


def _take_or_fail(job: Job, take: Callable[[Job], None], jobs: Jobs, store: ResultsStore) -> None:
    if job.attempts > MOST_ATTEMPTS:
        detail = f"It ended the process that judged it {MOST_ATTEMPTS} times."
        give_up(store, job.keys, detail)
        jobs.fail(job, detail)
        return
    try:
        take(job)
    except RunEndingError:
        raise
    except AwayError:
        # An outage is no upload's fault, however long it lasts.
        jobs.put_back(job)
        raise
    except PhononBenchError as error:
        jobs.fail(job, str(error))
    # One upload must not keep the others from being judged.
    except Exception as error:  # noqa: BLE001 - logged, and told
        _log.exception("upload %s", job.id)
        jobs.fail(job, f"It could not be judged: {type(error).__name__}.")


def _end_with(stream: Any) -> None:
    """The server holds the other end of standard input: when it is gone, so is this process."""
    stream.buffer.read()
    os._exit(0)


def main() -> None:
    """Take uploads; standard input's first line is a JSON object of what the server was started with."""
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    jobs = Jobs(Path(told["folder"]))
    # An older worker may still be about to end.
    with (jobs.folder / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ResultsStore.open(told["spec"]) as store:
            work(jobs, store, Judging(**told["judging"]), Limits(**told["limits"]))


if __name__ == "__main__":
    main()
