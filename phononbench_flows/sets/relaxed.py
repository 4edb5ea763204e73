"""Which crystals of a set have become the same by relaxing.

Workers finish crystals in any order, and none knows when the last is done. So whoever counts has them compared first.
Each crystal says with which others it was compared, and only formulas of which crystals have come or gone since are
compared again.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

from phononbench_flows.protocol import RelaxationSettings, ScreeningSettings
from phononbench_flows.statistics import was_relaxed
from phononbench_flows.store import NotAllowedError
from phononbench_flows.structures import Tolerance, content_hash, originals, shape, stored_structure

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

_LOT = 256  # structures read at once
_FIELDS = ["id", "key", "set", "protocol_id", "formula_pretty", "status", "stage", "same_as", "compared_with"]
_FIELDS += ["symmetry_relaxed.number", "symmetry_relaxed.symprec", "relaxation.same_distance"]


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A relaxed crystal, and what its document says of others.

    Attributes:
        among: set, protocol's id and formula: only crystals that agree in these are compared.
        space_group: number.
        symprec, same_distance: by which the protocol takes crystals for the same, in Å; None where that is not said.
    """

    key: str
    id: str
    among: tuple[str, str, str]
    same_as: str | None
    compared_with: str | None
    space_group: int | None
    symprec: float | None
    same_distance: float | None


def compare_relaxed(store: ResultsStore, criteria: Mapping[str, Any]) -> dict[str, str | None]:
    """Bring ``same_as`` of the relaxed crystals up to date: the first by id that became the same.

    Parameters:
        criteria: MongoDB filter of sets, each of them whole.

    Returns:
        What ``same_as`` is of those crystals of which it was something else, by key; where the store may not be
        written to, it still is.
    """
    return compare(store, _relaxed(store, criteria))


def _relaxed(store: ResultsStore, criteria: Mapping[str, Any]) -> Iterator[Relaxed]:
    for row in store.query(criteria, _FIELDS):
        if was_relaxed(row["status"], row["stage"]) and row["formula_pretty"] is not None:
            found, relaxation = row.get("symmetry_relaxed") or {}, row.get("relaxation") or {}
            yield Relaxed(
                row["key"],
                row["id"],
                (row["set"], row["protocol_id"], row["formula_pretty"]),
                row.get("same_as"),
                row.get("compared_with"),
                found.get("number"),
                found.get("symprec"),
                relaxation.get("same_distance"),
            )


def compare(store: ResultsStore, crystals: Iterable[Relaxed]) -> dict[str, str | None]:
    """The same for all relaxed crystals of some sets, which have been read already."""
    groups: defaultdict[tuple[str, str, str], list[Relaxed]] = defaultdict(list)
    for each in crystals:
        groups[each.among].append(each)
    changed: dict[str, str | None] = {}
    for lot in batched(_compared(store, groups.values()), _LOT):
        # Who may only read has the answer all the same.
        with suppress(NotAllowedError):
            store.set_fields({each.key: said for each, said in lot})
        changed |= {each.key: said["same_as"] for each, said in lot if said["same_as"] != each.same_as}
    return changed


def _compared(
    store: ResultsStore, groups: Iterable[Sequence[Relaxed]]
) -> Iterator[tuple[Relaxed, dict[str, str | None]]]:
    """The crystals of those groups that are not what was compared, with what their documents should say."""
    for group in groups:
        compared_with = _hash(group)
        alone = len(group) == 1
        if all(each.compared_with == compared_with for each in group) and not (alone and group[0].same_as):
            continue
        found = {} if alone else _originals(store, group)
        for each in group:
            original = found.get(each.id, each.id)
            yield each, {"same_as": None if original == each.id else original, "compared_with": compared_with}


def _hash(group: Sequence[Relaxed]) -> str | None:
    ids = sorted(each.id for each in group)
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16] if len(ids) > 1 else None


def _originals(store: ResultsStore, group: Sequence[Relaxed]) -> dict[str, str]:
    tolerance = _tolerance(group)
    groups = {each.key: each.space_group for each in group}
    shapes = {}
    for lot in batched(groups, _LOT):
        for row in store.query({"key": {"$in": list(lot)}}, ["id", "key", "relaxed_structure"]):
            if (plain := row.get("relaxed_structure")) is not None:
                order = content_hash(stored_structure(plain, row["id"]))
                shapes[row["id"]] = shape(plain, groups[row["key"]], order, tolerance)
    return originals(shapes, tolerance)


def _tolerance(group: Sequence[Relaxed]) -> Tolerance:
    """That of the protocol, as documents say it. Older ones do not, and were made by the default."""
    distance = next((each.same_distance for each in group if each.same_distance), None)
    symprec = next((each.symprec for each in group if each.symprec), None)
    return Tolerance.of(distance or ScreeningSettings().same_distance_relaxed, symprec or RelaxationSettings().symprec)
