"""Which crystals are to be confirmed: drawn at random within strata, the same ones whenever it is asked again.

A stratum is a MongoDB filter, so that it can be said later of every crystal which it belongs to. Within it crystals
stand in an order that the seed makes, and the first so many are drawn: to ask for more adds to those drawn before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phononbench_flows.documents import Draw
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Status
from phononbench_flows.results.query import parse_where
from phononbench_flows.stability import MINIMUM, Stability
from phononbench_flows.statistics.corrected import FEWEST_OF_A_KIND
from phononbench_flows.store import ResultsStore

VERDICT, MARGIN = "verdict", "margin"
OTHERS = "others"
"""Stratum of those that no filter holds."""

Strata = dict[str, dict[str, Any]]


class ConfirmationError(PhononBenchError):
    """Crystals that cannot be confirmed, or an answer that cannot be read; the message is a sentence."""


def judged(mine: Mapping[str, Any]) -> dict[str, Any]:
    """MongoDB filter of those of these crystals that were judged."""
    return {**mine, "status": {"$in": [each.value for each in Stability]}}


def strata_by(store: ResultsStore, mine: Mapping[str, Any], by: Sequence[str]) -> Strata:
    """Strata by name, none of which overlap.

    Args:
        store: where the crystals are.
        mine: what they have in common.
        by: ``verdict``; or ``margin``, verdicts in halves by how far the lowest frequency lies from zero; or MongoDB
            filters as JSON, of which the first that holds counts.

    Raises:
        ConfirmationError: a word with others beside it.
        QueryError: what is no filter.
    """
    verdicts: Strata = {each.value: {"status": each.value} for each in Stability}
    if list(by) == [VERDICT]:
        return verdicts
    if list(by) == [MARGIN]:
        return {
            name: part
            for verdict, found in verdicts.items()
            for name, part in _halves(store, {**mine, **found}, verdict).items()
        }
    if {VERDICT, MARGIN} & set(by):
        raise ConfirmationError("strata are by `verdict`, or by `margin`, or by filters: one of the three")
    filters = [parse_where(text) for text in by]
    found = {text: _without(each, filters[:place]) for place, (text, each) in enumerate(zip(by, filters, strict=True))}
    return found | {OTHERS: {"$nor": filters}}


def _without(wanted: dict[str, Any], before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"$and": [wanted, {"$nor": list(before)}]} if before else wanted


def _halves(store: ResultsStore, wanted: Mapping[str, Any], verdict: str) -> Strata:
    """A verdict's crystals by the median distance of their lowest frequency from zero, in THz."""
    rows = store.query(wanted, [MINIMUM])
    lowest = [
        abs(row["minimum"]["frequency"]) for row in rows if (row.get("minimum") or {}).get("frequency") is not None
    ]
    if not lowest:
        return {verdict: {"status": verdict}}
    edge = float(f"{np.median(lowest):.3g}")
    near = {MINIMUM: {"$gt": -edge, "$lt": edge}}
    return {
        f"{verdict}, within {edge:g} THz of zero": {"status": verdict, **near},
        f"{verdict}, further from zero": {"status": verdict, "$nor": [near]},
    }


def draw(
    store: ResultsStore,
    mine: Mapping[str, Any],
    strata: Strata,
    number: int,
    seed: int,
    where: Mapping[str, Any] | None,
) -> dict[str, Draw]:
    """Keys of calculations that are drawn, each with how.

    Args:
        store: where the crystals are.
        mine: what they have in common: set and protocol.
        strata: filters by name; see :func:`strata_by`.
        number: how many in all, or all that there are.
        seed: makes the order within a stratum.
        where: a MongoDB filter that has to hold too; crystals outside are never drawn.

    Raises:
        ConfirmationError: nothing was judged.
    """
    members = {name: _keys(store, _both(judged(mine), part, where)) for name, part in strata.items()}
    members = {name: keys for name, keys in members.items() if keys}
    if not members:
        raise ConfirmationError("none of these crystals was judged: there is nothing to confirm")
    chosen = allocate({name: len(keys) for name, keys in members.items()}, number)
    said = {name: json.dumps(_both(part, where or {}), sort_keys=True) for name, part in strata.items()}
    return {
        key: Draw(seed=seed, stratum=name, strata=said)
        for name, keys in members.items()
        for key in sorted(keys, key=lambda key: _place(seed, key))[: chosen[name]]
    }


def allocate(sizes: Mapping[str, int], number: int) -> dict[str, int]:
    """How many to draw from strata of these sizes: by the root of the size, and where it can be five of each.

    Five of a stratum are needed for a corrected rate; the root lies between equal numbers, which are best where strata
    are as uncertain as each other, and shares, which are best for the rarest mistakes.
    """
    chosen = dict.fromkeys(sizes, 0)
    for _ in range(min(number, sum(sizes.values()))):
        room = [name for name in sizes if chosen[name] < sizes[name]]
        needy = [name for name in room if chosen[name] < FEWEST_OF_A_KIND]
        neediest = min(needy or room, key=lambda name: ((chosen[name] + 0.5) / math.sqrt(sizes[name]), name))
        chosen[neediest] += 1
    return chosen


def stratum_of(store: ResultsStore, mine: Mapping[str, Any], how: Draw) -> dict[str, str]:
    """The stratum of every crystal that could have been drawn, by id."""
    return {
        row["id"]: name
        for name, part in how.strata.items()
        for row in store.query(_both(mine, {"status": {"$ne": Status.GONE.value}}, json.loads(part)), ["id"])
    }


def _both(*filters: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"$and": [dict(each) for each in filters if each] or [{}]}


def _keys(store: ResultsStore, wanted: Mapping[str, Any]) -> list[str]:
    return [row["key"] for row in store.query(wanted, ["key"])]


def _place(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}|{key}".encode()).hexdigest()
