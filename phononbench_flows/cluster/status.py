"""How far the sets of a store are, and where their fireworks stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from phononbench_flows.outcomes import Status

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from phononbench_flows.store import ResultsStore

RATE_WINDOW = timedelta(hours=1)
"""The rate is that of the last so long."""

_COMPUTED = (Status.STABLE, Status.UNSTABLE, Status.FAILED)


@dataclass(frozen=True)
class SetStatus:
    """How far one set is under one protocol.

    Attributes:
        waiting: crystals to be computed that no worker has begun; of some, an earlier stage is done.
        running: those that a worker has begun and not ended a stage of, be it alive or dead.
        statuses: finished crystals by status.
        reasons: failed ones by reason.
        per_hour: crystals computed per hour, over the last hour or since the first of them; None if there is none.
        seconds_left: until the rest is done at this rate.
        fireworks: number by FireWorks' state; empty without a LaunchPad.
    """

    set: str
    protocol_id: str
    waiting: int
    running: int
    statuses: dict[str, int]
    reasons: dict[str, int]
    per_hour: float | None
    seconds_left: float | None
    fireworks: dict[str, int]


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
    return SetStatus(
        set=name,
        protocol_id=protocol_id,
        waiting=pending - running,
        running=running,
        statuses=statuses,
        reasons=dict(Counter(row["reason"] for row in failed)),
        per_hour=per_hour,
        seconds_left=pending / per_hour * 3600 if per_hour else None,
        fireworks=_fireworks(lp, name, protocol_id) if lp is not None else {},
    )


def _per_hour(store: ResultsStore, mine: dict[str, Any]) -> float | None:
    now = datetime.now(UTC)
    # Times are kept as text that sorts as they do.
    recent = mine | {
        "status": {"$in": [status.value for status in _COMPUTED]},
        "updated_at": {"$gte": (now - RATE_WINDOW).isoformat()},
    }
    times = [datetime.fromisoformat(row["updated_at"]) for row in store.query(recent, ["updated_at"])]
    if not times:
        return None
    return len(times) / max((now - min(times)) / timedelta(hours=1), 1e-6)


def _fireworks(lp: LaunchPad, name: str, protocol_id: str) -> dict[str, int]:
    mine = {"spec.set": name, "spec.protocol_id": protocol_id}
    rows = lp.fireworks.aggregate([{"$match": mine}, {"$group": {"_id": "$state", "n": {"$sum": 1}}}])
    return {row["_id"]: row["n"] for row in rows}
