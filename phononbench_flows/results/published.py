"""The published rule beside the verdicts of a store: how crystals were judged, and how many it calls stable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phononbench_flows.stability import Stability

if TYPE_CHECKING:
    from phononbench_flows.store import Count, ResultsStore

_ASSESSED = {"status": {"$in": [each.value for each in Stability]}}


@dataclass(frozen=True)
class JudgedAt:
    """How crystals of one protocol were judged.

    Attributes:
        thresholds: fixed ones in THz, the deciding one first; none if nothing was judged.
        exact: whether exact frequencies decide, and the fixed thresholds are for the published rule beside them.
    """

    thresholds: tuple[float, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Published:
    """Judged crystals that the published rule calls stable, and those whose verdict is the opposite of the rule's."""

    stable: int
    disputed: int


def judged_at(store: ResultsStore, criteria: Mapping[str, Any]) -> JudgedAt:
    """How the crystals of a filter were judged, all of which have to be of one protocol."""
    document = next(store.query(dict(criteria) | _ASSESSED, ["assessments"], limit=1), None)
    # Documents of before exact frequencies decided do not say that their thresholds are fixed.
    found = [(each["threshold"], each.get("fixed", True)) for each in document["assessments"]] if document else []
    return JudgedAt(tuple(threshold for threshold, fixed in found if fixed), not all(fixed for _, fixed in found))


def published_beside(
    store: ResultsStore, criteria: Mapping[str, Any], counts: Iterable[Count] | None = None
) -> Published | None:
    """What the published rule says of the crystals of a protocol; None where exact frequencies do not decide.

    Parameters:
        criteria: of ``protocol_id``, and of ``set`` if only one is meant.
        counts: the store's of these crystals, if they are known.
    """
    if not judged_at(store, criteria).exact:
        return None
    stable: Counter[str] = Counter()
    unstable: Counter[str] = Counter()
    for each in store.counts(criteria) if counts is None else counts:
        if each.status in set(Stability) and each.above is not None:
            (stable if each.above else unstable)[each.status] += each.number
    return Published(stable.total(), stable[Stability.UNSTABLE] + unstable[Stability.STABLE])
