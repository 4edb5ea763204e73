"""How far the sets of a store are, and where their fireworks stand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from phononbench_flows.outcomes import COMPUTED, READ, SCREENED, Status
from phononbench_flows.results.published import Published, published_beside
from phononbench_flows.sets.set_names import is_children_set
from phononbench_flows.steps import Step, StepError, installed_step

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from phononbench_flows.store import Count, ResultsStore

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
    """The sets of a store, or the one of this name, each under every protocol that it was given.

    All of them are counted by one command to the results, and one to the LaunchPad.
    """
    now = datetime.now(UTC)
    found: defaultdict[tuple[str, str], list[Count]] = defaultdict(list)
    for count in store.counts({"set": set_name} if set_name else {}, since=now - RATE_WINDOW):
        found[count.set, count.protocol_id].append(count)
    jobs = _jobs(lp, set_name) if lp is not None else {}
    # Children are handed out before there is any of them.
    for whose in sorted({*found, *(each for each in jobs if is_children_set(each[0]))}):
        yield _status(store, now, whose, found[whose], jobs.get(whose, {}))


def _status(
    store: ResultsStore,
    now: datetime,
    whose: tuple[str, str],
    counts: list[Count],
    jobs: dict[tuple[str, str], int],
) -> SetStatus:
    mine = {"set": whose[0], "protocol_id": whose[1]}
    pending = [each for each in counts if each.status == Status.PENDING]
    running = sum(each.number for each in pending if each.begun)
    waiting = sum(each.number for each in pending) - running
    per_hour = _per_hour(counts, now)
    return SetStatus(
        set=mine["set"],
        protocol_id=mine["protocol_id"],
        waiting=waiting,
        passed=_passed(store, mine, pending),
        running=running,
        statuses=_numbers((each.status, each.number) for each in counts if each.status != Status.PENDING),
        reasons=_numbers((str(each.reason), each.number) for each in counts if each.status == Status.FAILED),
        per_hour=per_hour,
        seconds_left=(waiting + running) / per_hour * 3600 if per_hour else None,
        fireworks=_numbers((state, number) for (state, _), number in jobs.items()),
        needed=_by_category(jobs, {"READY"}),
        at_work=_by_category(jobs, {"RUNNING", "RESERVED"}),
        published=published_beside(store, mine, counts),
    )


def _numbers(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, number in pairs:
        found[name] += number
    return dict(found)


def _passed(store: ResultsStore, mine: dict[str, Any], pending: list[Count]) -> dict[str, int]:
    """Waiting crystals by the last step that they have passed; a step that is not here goes by its name."""
    stages = _numbers((each.stage, each.number) for each in pending if each.stage not in {READ, SCREENED})
    document = next(store.query(mine, ["steps"], limit=1), None) if stages else None
    words = {step.name: step.passed for step in _known(document["steps"] if document else [])}
    return {words.get(stage, stage): number for stage, number in stages.items()}


def _known(references: list[str]) -> Iterator[Step]:
    for reference in references:
        with suppress(StepError):  # a step of a package that only the workers have
            yield installed_step(reference)


def _per_hour(counts: list[Count], now: datetime) -> float | None:
    computed = [each for each in counts if each.status in COMPUTED]
    times = [datetime.fromisoformat(each.first) for each in computed if each.first is not None]
    if not times:
        return None
    return sum(each.recent for each in computed) / max((now - min(times)) / timedelta(hours=1), 1e-6)


def _jobs(lp: LaunchPad, set_name: str | None) -> dict[tuple[str, str], dict[tuple[str, str], int]]:
    """Number of fireworks by state and category, of each set under each protocol."""
    kind = {"set": "$spec.set", "protocol": "$spec.protocol_id", "state": "$state", "category": "$spec._category"}
    # Without a condition on its first field the index would not be used.
    steps = [{"$match": {"spec.set": set_name or {"$gt": ""}}}, {"$group": {"_id": kind, "n": {"$sum": 1}}}]
    found: defaultdict[tuple[str, str], dict[tuple[str, str], int]] = defaultdict(dict)
    for row in lp.fireworks.aggregate(steps):
        of = row["_id"]
        found[of["set"], of["protocol"]][of["state"], of.get("category") or "any"] = row["n"]
    return found


def _by_category(jobs: dict[tuple[str, str], int], states: set[str]) -> dict[str, int]:
    return _numbers((category, number) for (state, category), number in jobs.items() if state in states)
