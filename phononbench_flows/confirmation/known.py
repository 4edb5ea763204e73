"""What is known of crystals by better methods: which answer counts, and which crystals stand for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phononbench_flows.confirmation.draw import stratum_of
from phononbench_flows.documents import ConfirmationDocument, Draw

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

SAYS = "dft"
"""Key under which calculations keep the verdict of the better method, among their labels."""


def answers(store: ResultsStore, sets: Sequence[str], protocol_id: str) -> dict[str, ConfirmationDocument]:
    """What is known of crystals of these sets, by id.

    Of several answers that for the relaxed crystal of this protocol counts, and among equals the latest.
    """
    found = store.confirmations({"set": {"$in": list(sets)}, "status": "known"})
    mine = [each for each in found if each.protocol_id in {"", protocol_id}]
    return {each.id: each for each in sorted(mine, key=lambda each: bool(each.protocol_id))}


def mark(store: ResultsStore, set_name: str) -> None:
    """Write into the labels of the set's calculations what is known of their crystals."""
    for protocol_id in store.distinct("protocol_id", {"set": set_name}):
        known = answers(store, [set_name], protocol_id)
        rows = store.query({"set": set_name, "protocol_id": protocol_id, "id": {"$in": list(known)}}, _MARKED)
        changes = {row["key"]: {"labels": {**row["labels"], SAYS: known[row["id"]].stability}} for row in rows}
        store.set_fields(changes)


_MARKED = ["key", "id", "labels"]


def confirmed_columns(
    store: ResultsStore, ids: Sequence[str], sets: Sequence[str], protocol_id: str
) -> dict[str, list[Any]]:
    """What tables need of each crystal: ``confirmed``, ``confirmed_published`` and, if drawn from, ``stratum``.

    Labels count only if they are of crystals drawn at random, or if every one of these has one: what others chose to
    compute stands for nothing else. The draws of a set are those of its strata that have brought the most answers.
    """
    known = answers(store, sets, protocol_id)
    strata = dict[str, str]()
    for name in sets:
        draws = [each.draw for each in known.values() if each.set == name and each.draw is not None]
        if draws:
            strata |= stratum_of(store, {"set": name, "protocol_id": protocol_id}, _usual(draws))
    return {
        "confirmed": [_said(known, each, "stability") for each in ids],
        "confirmed_published": [_said(known, each, "published") for each in ids],
        "drawn": [each in known and known[each].draw is not None for each in ids],
        "stratum": [strata.get(each) for each in ids],
    }


def _usual(draws: Sequence[Draw]) -> Draw:
    counts = Counter(tuple(sorted(each.strata.items())) for each in draws)
    most = counts.most_common(1)[0][0]
    return next(each for each in draws if tuple(sorted(each.strata.items())) == most)


def _said(known: Mapping[str, ConfirmationDocument], crystal: str, field: str) -> str | None:
    found = known.get(crystal)
    value = None if found is None else getattr(found, field)
    return None if value is None else str(value)
