"""Which crystals of a set repeat each other: as given, before computing, and as relaxed, afterwards.

Both answers are made anew from what is in the store, and depend on nothing else: in whatever order crystals came, and
however many runs they came in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import batched
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument, CrystalDocument
from phononbench_flows.outcomes import SCREENED, Status, is_unsettled
from phononbench_flows.protocol import Protocol
from phononbench_flows.statistics import was_relaxed
from phononbench_flows.structures import Tolerance, content_hash, originals, shape

if TYPE_CHECKING:
    from phononbench_flows.store import ResultsStore

_APART = (Status.REJECTED, Status.KNOWN, Status.GONE)  # they neither repeat another crystal nor are repeated
_LOT = 256  # documents rewritten at once
_FIELDS = ["id", "key", "formula_pretty", "status", "stage", "duplicate_of", "content_hash", "symmetry_initial.number"]

Row = Mapping[str, Any]


def settle(store: ResultsStore, mine: Mapping[str, str], protocol: Protocol, formulas: Collection[str]) -> list[str]:
    """Say of every crystal of these formulas which one it repeats, if any; gives the ids of those screened again.

    The original is the first by id. A crystal that becomes or is no longer a duplicate loses what was computed for it.

    Parameters:
        mine: ``set`` and ``protocol_id`` of the calculations.
        formulas: reduced formulas, of the crystals that are new, have changed or are gone.
    """
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in store.query(mine, _FIELDS):
        if row["formula_pretty"] in formulas and row["status"] not in _APART:
            groups[row["formula_pretty"]].append(row)
    again: list[str] = []
    for lot in batched(_unlike(store, protocol, groups.values()), _LOT):
        found = {
            document.key: document for document in store.documents({"key": {"$in": [row["key"] for row, _ in lot]}})
        }
        documents = [_settled(found[row["key"]], original) for row, original in lot]
        store.put(*documents)
        again += [row["id"] for row, _ in lot if not is_unsettled(row["status"], row["stage"])]
    return again


def _unlike(store: ResultsStore, protocol: Protocol, groups: Iterable[list[Row]]) -> Iterator[tuple[Row, str | None]]:
    """The crystals whose documents do not say what they should, with the original that each repeats."""
    tolerance = Tolerance.of(protocol.screening.same_distance, protocol.relaxation.symprec)
    for rows in groups:
        found = _originals(store, rows, tolerance) if len(rows) > 1 else {}
        for row in rows:
            wanted = _repeated(row, found)
            said = row["duplicate_of"] if row["status"] == Status.DUPLICATE else None
            if said != wanted or is_unsettled(row["status"], row["stage"]):
                yield row, wanted


def _originals(store: ResultsStore, rows: Iterable[Row], tolerance: Tolerance) -> dict[str, str]:
    by_id = {row["id"]: row for row in rows}
    shapes = {
        crystal.id: shape(crystal.structure, _group(by_id[crystal.id]), crystal.content_hash or "", tolerance)
        for crystal in store.crystals(by_id)
        if crystal.structure is not None
    }
    return originals(shapes, tolerance)


def _group(row: Row) -> int | None:
    return (row.get("symmetry_initial") or {}).get("number")


def _repeated(row: Row, originals: Mapping[str, str]) -> str | None:
    """Id of the crystal that it repeats; None if it is an original, or was not compared."""
    original = originals.get(row["id"])
    return None if original == row["id"] else original


_FACTS = set(CrystalDocument.model_fields) & set(CalculationDocument.model_fields) - {"updated_at"}
_OF_SCREENING = _FACTS | {"key", "protocol_id", "protocol_name", "potential", "steps", "symmetry_initial"}


def _settled(document: CalculationDocument, original: str | None) -> CalculationDocument:
    """The calculation as after screening, with nothing computed."""
    kept = document.model_dump(include=_OF_SCREENING)
    status = Status.PENDING if original is None else Status.DUPLICATE
    return CalculationDocument(**kept, stage=SCREENED, status=status, duplicate_of=original)


def compare_relaxed(store: ResultsStore, mine: Mapping[str, str], protocol: Protocol) -> int:
    """Write ``same_as`` of every relaxed crystal: the first by id that became the same; gives the number of changes.

    Called again, it changes nothing but what has been computed meanwhile.

    Parameters:
        mine: ``set`` and ``protocol_id`` of the calculations.
    """
    tolerance = Tolerance.of(protocol.screening.same_distance_relaxed, protocol.relaxation.symprec)
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    wrong: dict[str, str | None] = {}
    fields = ["id", "key", "formula_pretty", "status", "stage", "same_as", "symmetry_relaxed.number"]
    for row in store.query(mine, fields):
        if was_relaxed(row["status"], row["stage"]):
            groups[row["formula_pretty"]].append(row)
        elif row.get("same_as") is not None:
            wrong[row["key"]] = None
    for alike in groups.values():
        found = _relaxed_originals(store, alike, tolerance) if len(alike) > 1 else {}
        for each in alike:
            wanted = _repeated(each, found)
            if each.get("same_as") != wanted:
                wrong[each["key"]] = wanted
    for lot in batched(wrong, _LOT):
        documents = list(store.documents({"key": {"$in": list(lot)}}))
        for document in documents:
            document.same_as = wrong[document.key]
        store.put(*documents)
    return len(wrong)


def _relaxed_originals(store: ResultsStore, rows: Iterable[Row], tolerance: Tolerance) -> dict[str, str]:
    groups = {row["key"]: (row.get("symmetry_relaxed") or {}).get("number") for row in rows}
    shapes = {}
    for lot in batched(groups, _LOT):
        for row in store.query({"key": {"$in": list(lot)}}, ["id", "key", "relaxed_structure"]):
            if (plain := row.get("relaxed_structure")) is not None:
                order = content_hash(Structure.from_dict(plain))
                shapes[row["id"]] = shape(plain, groups[row["key"]], order, tolerance)
    return originals(shapes, tolerance)
