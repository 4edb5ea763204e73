"""Repairs on a LaunchPad what killed workers and lost connections leave, and what FireWorks' own maintenance does not.

A round looks at one kind of damage after the other, in an order in which no repair waits for a later one. Each repair
asks again whether it is still called for, may be broken off anywhere, and says what it did; one that fails is said too,
and tried in the next round. A firework whose worker lives is left alone.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from graphlib import TopologicalSorter
from typing import Any

from fireworks import LaunchPad
from fireworks.core.firework import Launch
from fireworks.fw_config import PING_TIME_SECS, RESERVATION_EXPIRATION_SECS, RUN_EXPIRATION_SECS

from phononbench_flows.cluster import slurm
from phononbench_flows.cluster.liveness import has_ended, is_alive
from phononbench_flows.flows.sub_batches import excuse
from phononbench_flows.store import open_store

logger = logging.getLogger(__name__)

IDENTITY = "phononbench_worker"
"""Where in its FWorker's ``env`` a worker leaves its identity: FireWorks copies it into each launch."""

_OPEN = ("WAITING", "READY", "RESERVED", "RUNNING", "FIZZLED")
_PROCESS_GONE = "its process or its Slurm job is gone"
_LOST, _STOPPED, _TRANSIENT, _LASTING = "lost its worker", "was stopped", "met with passing trouble", "failed"
# Slurm's words for jobs that somebody ended, whatever they computed; and for those that a crystal may have ended, too,
# if it hangs or takes the node down.
_CALLED_OFF = frozenset({"PREEMPTED", "CANCELLED", "REVOKED"})
_CUT_OFF = frozenset({"NODE_FAIL", "TIMEOUT", "REQUEUED", "DEADLINE", "BOOT_FAIL"})
# The database was away, or the node's file system or GPU failed; on another node, or later, it goes well.
_PASSING = re.compile(
    r"pymongo\.errors\.(AutoReconnect|NetworkTimeout|ServerSelectionTimeoutError|NotPrimaryError|ConnectionFailure|"
    r"WaitQueueTimeoutError|PrimarySteppedDown)|\[Errno (5|28|103|104|110|111|112|113|116|121|122)\]|"
    r"MachineError|CUDA error|CUDA-capable device|No CUDA GPUs are available|database is locked"
)
_ENDED_IN_ORDER = re.compile(r"^(\S*OutOfTimeError|SystemExit|KeyboardInterrupt)\b", re.MULTILINE)
_READ_AGAIN = "_phononbench_read_again"  # in a firework's spec: how often it was rerun after no worker could read it


@dataclass(frozen=True)
class Limits:
    """How patient the janitor is, in seconds, and how often it tries one firework again.

    Attributes:
        lock: a workflow locked so long without a break is locked by nobody.
        settle: between two writes of one worker.
        ping: without a word from a worker whose process and Slurm job cannot be seen from here.
        reservation: without a start of a job in a queue that cannot be seen from here.
        transient: reruns after passing trouble.
        lost: reruns after a worker was lost or stopped.
    """

    lock: float = 60.0
    settle: float = 60.0
    ping: float = float(RUN_EXPIRATION_SECS)
    reservation: float = float(RESERVATION_EXPIRATION_SECS)
    transient: int = 3
    lost: int = 30


@dataclass(frozen=True)
class Finding:
    """Something out of order: the firework, what it is in a sentence, and what mends it; None where a person has to."""

    fw_id: int
    said: str
    mend: Callable[[], object] | None = field(compare=False)


@dataclass(frozen=True)
class Report:
    """A finding and what became of it: ``mended``, ``left``, or the error that mending met with."""

    fw_id: int
    said: str
    outcome: str


def look_after(lp: LaunchPad, limits: Limits | None = None, *, dry_run: bool = False) -> Iterator[Report]:
    """One round over the LaunchPad; gives what was found as it goes.

    Parameters:
        dry_run: mend nothing.
    """
    limits = limits or Limits()
    jobs = slurm.jobs()
    rules: list[Iterator[Finding]] = [
        dead_locks(lp, limits),
        orphans(lp, limits),
        half_checked_out(lp, limits),
        dead_reservations(lp, limits, jobs),
        lost_runs(lp, limits, jobs),
        inconsistent(lp),
        fizzled(lp, limits),
    ]
    for rule in rules:
        for finding in rule:
            yield _mended(finding, dry_run=dry_run)


def _mended(finding: Finding, *, dry_run: bool) -> Report:
    if finding.mend is None or dry_run:
        return Report(finding.fw_id, finding.said, "left")
    try:
        finding.mend()
    except Exception as error:
        logger.exception("firework %d: %s", finding.fw_id, finding.said)
        return Report(finding.fw_id, finding.said, f"not mended: {type(error).__name__}: {error}")
    return Report(finding.fw_id, finding.said, "mended")


# --------------------------------------------------------------------------------------------------------- rules


def dead_locks(lp: LaunchPad, limits: Limits) -> Iterator[Finding]:
    """Workflows whose lock was taken by a process that is gone. A lock has no time, so it is watched."""
    held = _locked(lp)
    deadline = time.monotonic() + limits.lock
    while held and time.monotonic() < deadline:
        time.sleep(min(1.0, limits.lock))
        now = _locked(lp)
        # A worker that works writes the workflow before it gives the lock back.
        held = {key: updated for key, updated in held.items() if now.get(key) == updated}
    for key in held:
        workflow = lp.workflows.find_one({"_id": key}, {"nodes": 1})
        if workflow:
            said = "its workflow is locked by nobody"
            yield Finding(min(workflow["nodes"]), said, partial(_release, lp, key))


def orphans(lp: LaunchPad, limits: Limits) -> Iterator[Finding]:
    """Fireworks of no workflow: what a worker killed amid a detour had made of it. Whoever took one would stop."""
    rows = lp.fireworks.find({"state": {"$in": list(_OPEN)}}, {"fw_id": 1, "updated_on": 1})
    old = [row["fw_id"] for row in rows if _age(row["updated_on"]) > limits.settle]
    for fw_id in sorted(set(old) - _in_workflows(lp, old)):
        yield Finding(fw_id, "it belongs to no workflow and is archived", partial(_archive, lp, fw_id))


def half_checked_out(lp: LaunchPad, limits: Limits) -> Iterator[Finding]:
    """Fireworks taken by a worker that died before it wrote its launch, and launches that no firework knows of."""
    for row in lp.fireworks.find({"state": "RESERVED"}, {"fw_id": 1, "launches": 1, "updated_on": 1}):
        if _has_launch(lp, row["launches"]):
            continue
        said = "it is reserved without a launch"
        if (age := _age(row["updated_on"])) > limits.settle:
            yield Finding(row["fw_id"], said, partial(_rerun_if, lp, row["fw_id"], "RESERVED"))
        else:
            yield _left_alone(row["fw_id"], f"{said}, which its worker may be about to write", limits.settle - age)
    for launch in _launches(lp, {"state": {"$in": ["RUNNING", "RESERVED"]}}):
        row = lp.fireworks.find_one({"fw_id": launch.fw_id}, {"launches": 1, "archived_launches": 1})
        known = row is not None and launch.launch_id in row["launches"] + row["archived_launches"]
        if not known and _silent(launch) > limits.settle:
            yield Finding(launch.fw_id, "it does not know of a launch of its own", partial(_fizzle, lp, launch))


def _left_alone(fw_id: int, said: str, seconds: float) -> Finding:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return Finding(fw_id, f"{said}; left alone until {until:%H:%M:%S} UTC", None)


def dead_reservations(lp: LaunchPad, limits: Limits, jobs: slurm.Jobs | None) -> Iterator[Finding]:
    """Fireworks reserved for a job that is no longer in the queue, or too long."""
    for launch in _launches(lp, {"state": "RESERVED"}):
        job = next((entry["reservation_id"] for entry in launch.state_history if "reservation_id" in entry), None)
        gone = job is not None and jobs is not None and job not in jobs.restarts
        if gone or _silent(launch) > limits.reservation:
            said = f"it is reserved for the Slurm job {job}, which is gone" if gone else "it was reserved long ago"
            yield Finding(launch.fw_id, said, partial(_cancel, lp, launch.launch_id))
        elif jobs is None:
            said = "it is reserved for a job in a queue that cannot be seen from here"
            yield _left_alone(launch.fw_id, said, limits.reservation - _silent(launch))


def lost_runs(lp: LaunchPad, limits: Limits, jobs: slurm.Jobs | None) -> Iterator[Finding]:
    """Fireworks that run nowhere any more."""
    for launch in _launches(lp, {"state": "RUNNING"}):
        if lp.fireworks.find_one({"fw_id": launch.fw_id, "launches": launch.launch_id}, {"fw_id": 1}):
            end = _end_of_job(launch, jobs)
            why = _lost(lp, launch, limits, jobs, end)
            if why:
                yield Finding(launch.fw_id, f"{_LOST}: {why}", partial(_fizzle, lp, launch, end))
            elif _silent(launch) > limits.ping / 2 and _is_out_of_sight(launch, jobs):
                said = f"its worker on {launch.host} has been silent, and cannot be seen from here"
                yield _left_alone(launch.fw_id, said, limits.ping - _silent(launch))


def inconsistent(lp: LaunchPad) -> Iterator[Finding]:
    """Fireworks whose state is not that of their launches: the end of a launch was written, the rest was not."""
    for row in lp.fireworks.find({"state": {"$in": ["RUNNING", "FIZZLED"]}}, {"fw_id": 1, "state": 1, "launches": 1}):
        states = {launch["state"] for launch in lp.launches.find({"launch_id": {"$in": row["launches"]}}, {"state": 1})}
        ended = "COMPLETED" in states
        if ended or (row["state"] == "RUNNING" and "RUNNING" not in states):
            said = f"it is {row['state']}, but its launch {'has ended' if ended else 'does not run'}"
            yield Finding(row["fw_id"], said, partial(_refresh, lp, row["fw_id"]))


def fizzled(lp: LaunchPad, limits: Limits) -> Iterator[Finding]:
    """Fireworks to run again, so often and not oftener; the others are for a person."""
    for row in lp.fireworks.find({"state": "FIZZLED"}, {"fw_id": 1, "launches": 1, "archived_launches": 1, "spec": 1}):
        fw_id = row["fw_id"]
        launches = list(_launches(lp, {"launch_id": {"$in": row["launches"]}}))
        if any(launch.state != "FIZZLED" for launch in launches):
            continue
        if not launches:
            yield _never_launched(lp, row, limits)
            continue
        kind, last_line = _kind(launches[-1])
        before = [_kind(launch)[0] for launch in _launches(lp, {"launch_id": {"$in": row["archived_launches"]}})]
        allowed = {_LOST: limits.lost, _STOPPED: limits.lost, _TRANSIENT: limits.transient}.get(kind, 0)
        said = f"{kind}: {last_line}" if last_line else kind
        if before.count(kind) < allowed:
            yield Finding(fw_id, said, partial(_rerun_if, lp, fw_id, "FIZZLED"))
        else:
            yield Finding(fw_id, f"{said} ({before.count(kind) + 1} times); set aside", None)


def _never_launched(lp: LaunchPad, row: Mapping[str, Any], limits: Limits) -> Finding:
    """A fizzled firework without a launch: some worker could not read it, or not keep its workflow's books."""
    fw_id, details = row["fw_id"], row["spec"].get("_exception_details") or {}
    if not details:
        return Finding(fw_id, "it fizzled before it was launched", partial(_rerun_if, lp, fw_id, "FIZZLED"))
    tried = row["spec"].get(_READ_AGAIN, 0)
    why = _last_line(details.get("_stacktrace", ""))
    if tried >= limits.transient:
        return Finding(fw_id, f"workers could not read it ({tried + 1} times): {why}; set aside", None)
    try:
        lp.get_fw_by_id(fw_id)
    except Exception as error:  # noqa: BLE001  (whatever the modules that it names do when imported)
        return Finding(fw_id, f"it cannot be read here either: {type(error).__name__}: {error}", None)
    return Finding(fw_id, f"a worker could not read it: {why}", partial(_read_again, lp, fw_id))


def _worker(launch: Launch) -> dict[str, Any] | None:
    """The identity that the worker of a launch left; None of ``rlaunch``."""
    return ((launch.fworker.env if launch.fworker else None) or {}).get(IDENTITY)


def _end_of_job(launch: Launch, jobs: slurm.Jobs | None) -> slurm.End | None:
    """How Slurm says that the job of a launch's worker ended; None if it goes on, or nothing is known."""
    worker = _worker(launch)
    if worker is None or jobs is None or not has_ended(worker, jobs):
        return None
    return slurm.end_of(worker["slurm_job"], worker.get("slurm_restarts", 0))


def _lost(lp: LaunchPad, launch: Launch, limits: Limits, jobs: slurm.Jobs | None, end: slurm.End | None) -> str | None:
    """Why a launch is taken to run nowhere; None if it may."""
    worker = _worker(launch)
    alive = is_alive(worker, jobs) if worker else None
    if worker and alive is False:
        return f"its Slurm job {worker['slurm_job']} ended as {end.word}" if end else _PROCESS_GONE
    if alive is None and _silent(launch) > limits.ping:
        return f"not a word from {launch.host} for {_silent(launch):.0f} s"
    if worker:
        later: dict[str, Any] = {
            f"fworker.env.{IDENTITY}.{name}": worker[name] for name in ("machine", "pid", "started")
        }
        later |= {"launch_id": {"$gt": launch.launch_id}, "host": launch.host}
        if lp.launches.find_one(later, {"launch_id": 1}):
            return "its worker has gone on to another"
    return None


def _is_out_of_sight(launch: Launch, jobs: slurm.Jobs | None) -> bool:
    worker = _worker(launch)
    return worker is None or (
        is_alive(worker, jobs) is None and worker["slurm_job"] not in (jobs.restarts if jobs else ())
    )


def _kind(launch: Launch) -> tuple[str, str]:
    """What a fizzled launch died of, and the last line of its error."""
    if launch.action is None:
        return _LOST, ""
    trace = (launch.action.stored_data.get("_exception") or {}).get("_stacktrace") or ""
    if _ENDED_IN_ORDER.search(trace):
        return _STOPPED, _last_line(trace)
    return (_TRANSIENT if _PASSING.search(trace) else _LASTING), _last_line(trace)


# ------------------------------------------------------------------------------------------------------- repairs


def _release(lp: LaunchPad, key: Any) -> None:
    """Give a dead lock back, and finish what its holder had begun.

    The workflow's own document is written last. So a firework that is COMPLETED but not there was left before what it
    asked for (further fireworks, children) was: it goes back to RUNNING, and refreshing it does all of that again.
    """
    workflow = lp.workflows.find_one({"_id": key, "locked": True})
    if workflow is None:
        return
    recorded = {int(fw_id): state for fw_id, state in workflow["fw_states"].items()}
    halfway = [fw_id for fw_id, state in recorded.items() if state != "COMPLETED"]
    lp.fireworks.update_many({"fw_id": {"$in": halfway}, "state": "COMPLETED"}, {"$set": {"state": "RUNNING"}})
    lp.workflows.update_one({"_id": key, "locked": True}, {"$unset": {"locked": ""}})
    parents: dict[int, set[int]] = {fw_id: set() for fw_id in recorded}
    for parent, children in workflow["links"].items():
        for child in children:
            parents[child].add(int(parent))
    for fw_id in TopologicalSorter(parents).static_order():
        _refresh(lp, fw_id)


def _refresh(lp: LaunchPad, fw_id: int) -> None:
    lp._refresh_wf(fw_id)  # noqa: SLF001  (what `lpad admin refresh` calls; there is no other)


def _archive(lp: LaunchPad, fw_id: int) -> None:
    if not _in_workflows(lp, [fw_id]):
        now = datetime.now(UTC)
        lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "ARCHIVED", "updated_on": now}})


def _rerun_if(lp: LaunchPad, fw_id: int, state: str) -> None:
    row = lp.fireworks.find_one({"fw_id": fw_id, "state": state}, {"launches": 1})
    if row and not (state == "RESERVED" and _has_launch(lp, row["launches"])):
        lp.rerun_fw(fw_id)


def _read_again(lp: LaunchPad, fw_id: int) -> None:
    lp.update_spec([fw_id], {"$inc": {f"spec.{_READ_AGAIN}": 1}}, mongo=True)
    _rerun_if(lp, fw_id, "FIZZLED")


def _cancel(lp: LaunchPad, launch_id: int) -> None:
    if lp.launches.find_one({"launch_id": launch_id, "state": "RESERVED"}, {"launch_id": 1}):
        lp.cancel_reservation(launch_id)


def _fizzle(lp: LaunchPad, launch: Launch, end: slurm.End | None = None) -> None:
    """Give a launch up, unless there was a word of it since: it may just have ended in order."""
    (now,) = _launches(lp, {"launch_id": launch.launch_id})
    if now.state == launch.state and now.state_history[-1] == launch.state_history[-1]:
        # First: whoever takes the firework next looks at the marks.
        if end is not None and _lived_to_see(launch, end):
            _excuse(lp, launch, end.word)
        lp.mark_fizzled(launch.launch_id)


def _lived_to_see(launch: Launch, end: slurm.End) -> bool:
    """Whether a worker was heard of until its job ended; else it may have died long before, of something else."""
    return end.at is None or end.at - _last_word(launch) <= timedelta(seconds=2 * PING_TIME_SECS)


def _excuse(lp: LaunchPad, launch: Launch, word: str) -> None:
    """Hold the end of a worker against no crystal that it had in work, if Slurm says that its job was ended."""
    if word not in _CALLED_OFF | _CUT_OFF:
        return
    firework = lp.fireworks.find_one({"fw_id": launch.fw_id}, {"spec._tasks": 1}) or {}
    for task in (firework.get("spec") or {}).get("_tasks", []):
        job = task.get("job") or {}
        spec = ((job.get("function") or {}).get("@bound") or {}).get("store")
        if spec:
            given = [*job.get("function_args", []), *job.get("function_kwargs", {}).values()]
            keys = [key for each in given if isinstance(each, list) for key in each]
            excuse(open_store(spec), keys, launch.launch_id, forgotten=word in _CALLED_OFF)


# ------------------------------------------------------------------------------------------------------- looking


def _locked(lp: LaunchPad) -> dict[Any, Any]:
    return {row["_id"]: row["updated_on"] for row in lp.workflows.find({"locked": True}, {"updated_on": 1})}


def _in_workflows(lp: LaunchPad, fw_ids: Iterable[int]) -> set[int]:
    rows = lp.workflows.find({"nodes": {"$in": list(fw_ids)}}, {"nodes": 1})
    return {fw_id for row in rows for fw_id in row["nodes"]}


def _launches(lp: LaunchPad, criteria: Mapping[str, Any]) -> Iterator[Launch]:
    """Launches in the order of their ids, with the action that FireWorks may have put apart."""
    for row in list(lp.launches.find(criteria, {"launch_id": 1}).sort("launch_id", 1)):
        yield lp.get_launch_by_id(row["launch_id"])


def _has_launch(lp: LaunchPad, launch_ids: list[int]) -> bool:
    alive = {"launch_id": {"$in": launch_ids}, "state": {"$in": ["RESERVED", "RUNNING"]}}
    return lp.launches.find_one(alive, {"launch_id": 1}) is not None


def _silent(launch: Launch) -> float:
    """Seconds since the last word of a launch."""
    return _age(_last_word(launch))


def _last_word(launch: Launch) -> datetime:
    last = launch.state_history[-1]
    return _moment(last.get("updated_on") or last["created_on"])


def _age(time_: datetime | str) -> float:
    return (datetime.now(UTC) - _moment(time_)).total_seconds()


def _moment(time_: datetime | str) -> datetime:
    """A time as FireWorks writes it: as a date or as text, in UTC."""
    moment = datetime.fromisoformat(time_) if isinstance(time_, str) else time_
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _last_line(trace: str) -> str:
    return (trace.strip().splitlines() or ["no message"])[-1][:300]
