"""Crystals that were made of others: their set, their ids, their documents, and which of them repeat a crystal.

Children of a set's crystals are a set of their own, ``NAME.children``, and say in their origin of whom they are. So
they are never among what a generator made: statistics count a set by its name, and those over all sets leave out
whatever has a parent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument, CrystalDocument, Mode, Origin, Strain
from phononbench_flows.outcomes import COUNTED, Status
from phononbench_flows.sets.earlier import leave
from phononbench_flows.sets.ingest import CrystalSet, screened
from phononbench_flows.sets.set_names import children_of, generated_of, is_children_set
from phononbench_flows.structures import Tolerance, content_hash, originals, shape, stored_structure

if TYPE_CHECKING:
    from phonopy.structure.atoms import PhonopyAtoms

    from phononbench_flows.engine.following import Distorted
    from phononbench_flows.protocol import Protocol
    from phononbench_flows.store import ResultsStore

_LONGEST = 128  # an id
_GENERATED, _JUDGED, _WAITING = "0", "1", "2"  # of crystals that are the same, the first of these stays

BORN = {"origin.parent": {"$ne": None}}
"""MongoDB filter of the crystals that were made of others."""


def child_id(parent: CalculationDocument, way: str) -> str:
    """Id of a child: its parent's and the way it was made, and of the first generation the protocol.

    Under another protocol or potential the parent is relaxed to another crystal, and so are its children.
    """
    line = parent.id if parent.origin.parent else f"{parent.id}.{parent.protocol_id[:5]}"
    name = f"{line}.{way}"
    if len(name) <= _LONGEST:
        return name
    return f"{line[: _LONGEST - 50]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def relaxed_hash(document: CalculationDocument) -> str:
    """Content hash of the relaxed crystal of a document."""
    return content_hash(stored_structure(document.relaxed_structure or {}, document.id))


def child_documents(
    parent: CalculationDocument, distorted: Distorted, crystals: CrystalSet
) -> tuple[CrystalDocument, CalculationDocument]:
    """A child and its calculation, which waits for its first step, or is rejected.

    Parameters:
        crystals: the set of the children.
    """
    origin = Origin(
        parent=parent.id,
        root=parent.origin.root or parent.id,
        generation=(parent.origin.generation or 0) + 1,
        sha256=relaxed_hash(parent),
    )
    if distorted.mode is not None:
        origin.mode = Mode(
            q=distorted.mode.q.tolist(),
            frequency=distorted.mode.frequency,
            amplitude=distorted.amplitude,
            degeneracy=distorted.degeneracy,
            energy=distorted.energy,
        )
    if distorted.strain is not None:
        origin.strain = Strain(tensor=distorted.strain.tolist(), modulus=distorted.modulus, energy=distorted.energy)
    crystal = CrystalDocument(
        id=child_id(parent, distorted.name), set=crystals.name, origin=origin, condition=parent.condition
    )
    return crystal, screened(crystal, _structure(distorted.cell), crystals)


def _structure(cell: PhonopyAtoms) -> Structure:
    return Structure(cell.cell, cell.symbols, cell.scaled_positions)


def set_apart(store: ResultsStore, keys: Sequence[str], protocol: Protocol) -> list[str]:
    """Say of each relaxed child that is not judged yet which crystal it became the same as, if any; gives the others.

    It is compared with the relaxed crystals of the set, its parent among them, and with all children.

    Parameters:
        keys: of children.
    """
    waiting = [
        document
        for document in store.documents({"key": {"$in": list(keys)}, "status": Status.PENDING.value})
        if document.relaxed_structure is not None
    ]
    for formula in sorted({str(document.formula_pretty) for document in waiting}):
        mine = [document for document in waiting if document.formula_pretty == formula]
        found = _originals(store, mine, protocol)
        for document in mine:
            original = found.get(document.id, document.id)
            if original != document.id:
                document.status, document.duplicate_of = Status.DUPLICATE, original
                document.detail = "it relaxed to a crystal that is there"
        store.put(*(document for document in mine if document.status == Status.DUPLICATE))
    return [document.key for document in waiting if document.status == Status.PENDING]


def _originals(store: ResultsStore, mine: Sequence[CalculationDocument], protocol: Protocol) -> dict[str, str]:
    """For each of these children, all of one set and formula, the crystal that it is the same as, or itself."""
    first = mine[0]
    tolerance = Tolerance.of(protocol.screening.same_distance_relaxed, protocol.relaxation.symprec)
    among = {
        "set": {"$in": [first.set, generated_of(first.set)]},
        "protocol_id": first.protocol_id,
        "formula_pretty": first.formula_pretty,
        "relaxation": {"$ne": None},
        "status": {"$nin": [Status.GONE.value, Status.DUPLICATE.value]},
    }
    fields = ["id", "set", "status", "relaxed_structure", "symmetry_relaxed.number"]
    shapes, names = {}, {}
    for row in store.query(among, fields):
        name = f"{_rank(row)}{row['id']}"
        plain, group = row["relaxed_structure"], (row.get("symmetry_relaxed") or {}).get("number")
        shapes[name] = shape(plain, group, content_hash(stored_structure(plain, row["id"])), tolerance)
        names[row["id"]] = name
    found = originals(shapes, tolerance)
    return {each.id: found[names[each.id]][1:] for each in mine}


def _rank(row: Mapping[str, Any]) -> str:
    if not is_children_set(row["set"]):
        return _GENERATED
    return _WAITING if row["status"] == Status.PENDING else _JUDGED


def leave_children(store: ResultsStore, parent: CalculationDocument, *, unless: str) -> None:
    """Take what was made of an earlier state of a crystal, and of that in turn, out of what is counted.

    Parameters:
        unless: content hash of the relaxed crystal whose children stay.
    """
    mine = {"protocol_id": parent.protocol_id} | COUNTED
    criteria: dict[str, Any] = mine | {"origin.parent": parent.id, "origin.sha256": {"$ne": unless}}
    while ids := [row["id"] for row in store.query(criteria, ["id"])]:
        leave(store, mine | {"id": {"$in": ids}}, "the crystal that it was made of has changed since")
        criteria = mine | {"origin.parent": {"$in": ids}}


def as_children(crystals: CrystalSet) -> CrystalSet:
    """The set of the children of a set."""
    return replace(crystals, name=children_of(crystals.name))
