"""Ingest: files become documents. Every crystal gets one, also what cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pymatgen.core import Structure

from phononbench_flows.documents import CrystalDocument, PotentialRecord, document_key
from phononbench_flows.outcomes import Reason, Stage, Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import (
    Matcher,
    RawCrystal,
    Rejection,
    check,
    content_hash,
    load_reference,
    parse_all,
    read_inputs,
)
from phononbench_flows.symmetry import symmetry

Condition = Mapping[str, str | float | int | bool]
_REPRESENTED = (Status.PENDING, Status.STABLE, Status.UNSTABLE, Status.FAILED)


@dataclass(frozen=True)
class CrystalSet:
    """A set of generated crystals under one protocol and potential.

    Attributes:
        name: name of the set; begins every structure id.
        condition: what the generator was asked for.
        protocol: how its crystals are judged.
        potential: what computes.
        elements: symbols that the potential takes; None for any.
    """

    name: str
    condition: Condition
    protocol: Protocol
    potential: PotentialRecord
    elements: frozenset[str] | None

    @property
    def protocol_id(self) -> str:
        """Id of the protocol with this potential."""
        return self.protocol.id_with(self.potential.checkpoint_sha256)


@dataclass(frozen=True)
class Ingested:
    """What an ingest found: ``keys`` of all crystals of the input in order; how many were new or changed."""

    keys: list[str]
    new: int
    changed: int


def ingest(
    paths: Sequence[Path],
    crystals: CrystalSet,
    store: ResultsStore,
    *,
    reference: Path | None = None,
    limit: int | None = None,
    on_crystal: Callable[[int], None] = lambda _: None,
) -> Ingested:
    """Read, check and screen crystals, and write a document for each; those already in the store stay as they are.

    A crystal is known by its id and the hash of its source: if the source has changed, it is screened and computed
    anew.

    Parameters:
        paths: folders, files, archives, tables and lists; see ``read_inputs``.
        reference: crystals that count as known.
        limit: take only the first so many crystals.
        on_crystal: called with the number of crystals done.

    Raises:
        InputError: an input that does not exist or holds no crystals.
    """
    there = _already_there(crystals, store)
    keys: list[str] = []
    changed = 0

    def fresh() -> Iterator[RawCrystal]:
        nonlocal changed
        for raw in islice(read_inputs(paths), limit):
            key = document_key(_id(raw, crystals), crystals.protocol_id)
            keys.append(key)
            if key not in there:
                yield raw
            elif there[key] != _sha256(raw):
                changed += 1
                yield raw
            on_crystal(len(keys))

    screener: _Screener | None = None
    new = 0
    for raw, parsed in parse_all(fresh()):
        screener = screener or _Screener(crystals, store, reference)
        store.put(screener.document(raw, parsed))
        new += 1
    return Ingested(keys, new - changed, changed)


class _Screener:
    """Turns parsed crystals into documents, remembering those it has seen."""

    def __init__(self, crystals: CrystalSet, store: ResultsStore, reference: Path | None) -> None:
        self.crystals = crystals
        self.seen = Matcher(crystals.protocol.screening)
        self.known = load_reference(reference, crystals.protocol.screening) if reference else None
        criteria = {
            "set": crystals.name,
            "protocol_id": crystals.protocol_id,
            "status": {"$in": [status.value for status in _REPRESENTED]},
        }
        for row in store.query(criteria, ["id", "structure"]):
            self.seen.add(row["id"], Structure.from_dict(row["structure"]))

    def document(self, raw: RawCrystal, parsed: Structure | Rejection) -> CrystalDocument:
        """The document of one crystal: rejected, duplicate, known, or waiting to be computed."""
        document = self._bare(raw)
        if isinstance(parsed, Rejection):
            return _rejected(document, parsed)
        self._describe(document, parsed)
        rejection = check(parsed, self.crystals.protocol.screening, self.crystals.elements)
        if rejection is not None:
            return _rejected(document, rejection)
        document.symmetry_initial = symmetry(parsed, self.crystals.protocol.relaxation.symprec)
        document.stage = Stage.SCREENED
        if self.known is not None and (name := self.known.find(parsed)) is not None:
            document.status, document.known_as = Status.KNOWN, name
        elif (original := self.seen.find_or_add(document.id, parsed)) not in {None, document.id}:
            # A changed crystal may still match its own former self.
            document.status, document.duplicate_of = Status.DUPLICATE, original
        return document

    def _bare(self, raw: RawCrystal) -> CrystalDocument:
        crystals = self.crystals
        crystal_id = _id(raw, crystals)
        return CrystalDocument(
            key=document_key(crystal_id, crystals.protocol_id),
            id=crystal_id,
            set=crystals.name,
            source=raw.source,
            source_sha256=_sha256(raw),
            condition=dict(crystals.condition),
            protocol_id=crystals.protocol_id,
            protocol_name=crystals.protocol.name,
            potential=crystals.potential,
        )

    @staticmethod
    def _describe(document: CrystalDocument, structure: Structure) -> None:
        document.content_hash = content_hash(structure)
        document.structure = structure.as_dict()
        document.nsites = len(structure)
        document.elements = sorted({s.symbol for s in structure.species})
        document.nelements = len(document.elements)
        document.formula_pretty = structure.composition.reduced_formula
        document.chemsys = "-".join(document.elements)


def _already_there(crystals: CrystalSet, store: ResultsStore) -> dict[str, str | None]:
    criteria = {"set": crystals.name, "protocol_id": crystals.protocol_id}
    return {row["key"]: row["source_sha256"] for row in store.query(criteria, ["key", "source_sha256"])}


def _id(raw: RawCrystal, crystals: CrystalSet) -> str:
    return f"{crystals.name}-{raw.label}"


def _sha256(raw: RawCrystal) -> str | None:
    return hashlib.sha256(raw.data).hexdigest() if raw.data else None


def _rejected(document: CrystalDocument, rejection: Rejection) -> CrystalDocument:
    document.status, document.reason, document.detail = Status.REJECTED, Reason(rejection.reason), rejection.detail
    return document
