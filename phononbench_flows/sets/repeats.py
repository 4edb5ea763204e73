"""Which crystals of a set repeat each other as given, before computing. As relaxed see :mod:`.relaxed`.

The answer is made anew from what is in the store, and depends on nothing else: in whatever order crystals came, and
however many runs they came in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import batched
from typing import TYPE_CHECKING, Any

from phononbench_flows.documents import CalculationDocument, CrystalDocument
from phononbench_flows.outcomes import SCREENED, Status, is_unsettled
from phononbench_flows.protocol import Protocol
from phononbench_flows.structures import Tolerance, originals, shape

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
