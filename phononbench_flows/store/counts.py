"""Crystals counted by all that ``status`` tells of them at once, so that each is counted once and the sums are right.

Every field that is asked for lies in one index, so that no document is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phononbench_flows.stability import PATH_MINIMUM, group_by_published

FIELDS = ("set", "protocol_id", "status", "stage", "reason", "attempts", PATH_MINIMUM, "updated_at")
"""Fields of the index, in its order."""


@dataclass(frozen=True)
class Count:
    """Crystals of a set under a protocol that are alike in what is told of them.

    Attributes:
        begun: whether a worker has begun them and not ended a stage of them.
        above: whether their lowest frequency on the path is above the published threshold; None where it is unknown.
        number: of them.
        recent: number of those written since the time that was asked for.
        first: the first time that one of these was written, if there is one.
    """

    set: str
    protocol_id: str
    status: str
    stage: str
    reason: str | None
    begun: bool
    above: bool | None
    number: int
    recent: int
    first: str | None


def pipeline(criteria: Mapping[str, Any], since: str) -> list[dict[str, Any]]:
    """MongoDB's aggregation for criteria on ``set`` and ``protocol_id``; its rows are for :func:`count_of_row`."""
    written = "$updated_at"
    is_recent = {"$gte": [written, since]}
    alike = {name: f"${name}" for name in ("set", "protocol_id", "status", "stage", "reason")} | {
        "begun": {"$gt": ["$attempts", 0]},
        "above": group_by_published(),
    }
    numbers = {
        "number": {"$sum": 1},
        "recent": {"$sum": {"$cond": [is_recent, 1, 0]}},
        "first": {"$min": {"$cond": [is_recent, written, None]}},
    }
    # Without a condition on its first field the index would not be used.
    return [{"$match": {"set": {"$gt": ""}} | dict(criteria)}, {"$group": {"_id": alike} | numbers}]


def count_of_row(row: Mapping[str, Any]) -> Count:
    """One row of the aggregation."""
    alike = row["_id"]
    return Count(
        **{"reason": None, "above": None} | alike, **{name: row[name] for name in ("number", "recent", "first")}
    )
