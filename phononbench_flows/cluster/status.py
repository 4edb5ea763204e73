"""How far the sets of a store are, and where their fireworks stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from phononbench_flows.outcomes import COMPUTED, READ, SCREENED, Status
from phononbench_flows.results.published import Published, published_beside
from phononbench_flows.steps import Step, StepError, installed_step

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from phononbench_flows.store import ResultsStore

RATE_WINDOW = timedelta(hours=1)
"""The rate is that of the last so long."""


@dataclass(frozen=True)
class SetStatus:
    """How far one set is under one protocol.

    Attributes:
        waiting: crystals to be computed that no worker has begun; of some, an earlier stage is done.
        passed: those of the waiting ones that have passed a step, by what the step calls them, in the steps' order.
        running: those that a worker has begun and not ended a stage of, be it alive or dead.
        statuses: finished crystals by status.
        reasons: failed ones by reason.
        per_hour: crystals computed per hour, over the last hour or since the first of them; None if there is none.
        seconds_left: until the rest is done at this rate.
        fireworks: number by FireWorks' state; empty without a LaunchPad.
        needed: jobs that a worker could take now, by its category; what comes after them waits for it.
        at_work: jobs that run, by category.
        published: what the published rule says of those judged; None where exact frequencies do not decide.
    """

    set: str
    protocol_id: str
    waiting: int
    passed: dict[str, int]
    running: int
    statuses: dict[str, int]
    reasons: dict[str, int]
    per_hour: float | None
    seconds_left: float | None
    fireworks: dict[str, int]
    needed: dict[str, int]
    at_work: dict[str, int]
    published: Published | None = None


def set_statuses(store: ResultsStore, lp: LaunchPad | None = None, set_name: str | None = None) -> Iterator[SetStatus]:
    """The sets of a store, or the one of this name, each under every protocol that it was given."""
    for name in [set_name] if set_name else sorted(store.distinct("set")):
        for protocol_id in sorted(store.distinct("protocol_id", {"set": name})):
            yield _status(store, lp, name, protocol_id)


def _status(store: ResultsStore, lp: LaunchPad | None, name: str, protocol_id: str) -> SetStatus:
    mine = {"set": name, "protocol_id": protocol_id}
    statuses = store.status_counts(name, protocol_id)
    pending = statuses.pop(Status.PENDING, 0)
    running = store.count(mine | {"status": Status.PENDING.value, "attempts": {"$gt": 0}})
    failed = store.query(mine | {"status": Status.FAILED.value}, ["reason"])
    per_hour = _per_hour(store, mine)
    jobs = _jobs(lp, name, protocol_id) if lp is not None else {}
    return SetStatus(
        set=name,
        protocol_id=protocol_id,
        waiting=pending - running,
        passed=_passed(store, mine),
        running=running,
        statuses=statuses,
        reasons=dict(Counter(row["reason"] for row in failed)),
        per_hour=per_hour,
        seconds_left=pending / per_hour * 3600 if per_hour else None,
        fireworks=_by_state(jobs),
        needed=_by_category(jobs, {"READY"}),
        at_work=_by_category(jobs, {"RUNNING", "RESERVED"}),
        published=published_beside(store, mine),
    )


def _passed(store: ResultsStore, mine: dict[str, Any]) -> dict[str, int]:
    """Waiting crystals by the last step that they have passed; a step that is not here goes by its name."""
    stages = store.stage_counts(mine["set"], mine["protocol_id"])
    document = next(store.query(mine, ["steps"], limit=1), None)
    words = {step.name: step.passed for step in _known(document["steps"] if document else [])}
    return {words.get(stage, stage): number for stage, number in stages.items() if stage not in {READ, SCREENED}}


def _known(references: list[str]) -> Iterator[Step]:
    for reference in references:
        with suppress(StepError):  # a step of a package that only the workers have
            yield installed_step(reference)


def _per_hour(store: ResultsStore, mine: dict[str, Any]) -> float | None:
    now = datetime.now(UTC)
    # Times are kept as text that sorts as they do.
    recent = mine | {
        "status": {"$in": [status.value for status in COMPUTED]},
        "updated_at": {"$gte": (now - RATE_WINDOW).isoformat()},
    }
    times = [datetime.fromisoformat(row["updated_at"]) for row in store.query(recent, ["updated_at"])]
    if not times:
        return None
    return len(times) / max((now - min(times)) / timedelta(hours=1), 1e-6)


def _jobs(lp: LaunchPad, name: str, protocol_id: str) -> dict[tuple[str, str], int]:
    """Number of the set's fireworks by state and category."""
    mine = {"spec.set": name, "spec.protocol_id": protocol_id}
    kind = {"state": "$state", "category": "$spec._category"}
    rows = lp.fireworks.aggregate([{"$match": mine}, {"$group": {"_id": kind, "n": {"$sum": 1}}}])
    return {(row["_id"]["state"], row["_id"].get("category") or "any"): row["n"] for row in rows}


def _by_state(jobs: dict[tuple[str, str], int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (state, _), number in jobs.items():
        found[state] += number
    return dict(found)


def _by_category(jobs: dict[tuple[str, str], int], states: set[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (state, category), number in jobs.items():
        if state in states:
            found[category] += number
    return dict(found)
