"""Ingest: files become documents. Every crystal gets one, also what cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched, islice
from pathlib import Path

from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin, PotentialRecord, calculation_key
from phononbench_flows.outcomes import SCREENED, Reason, Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.steps import references
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import (
    Ignored,
    Matcher,
    Parsed,
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
_REPRESENTED = (Status.PENDING, Status.STABLE, Status.UNSTABLE, Status.UNDECIDED, Status.FAILED)
_LOT = 32  # crystals written at once; so many are read again after a kill


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
    """What an ingest found.

    Attributes:
        keys: of all crystals of the input, in order.
        new: how many were not there before.
        changed: how many were there, and have changed since.
        ignored: files of the input that are no crystals.
    """

    keys: list[str]
    new: int
    changed: int
    ignored: Ignored = field(default_factory=Ignored)


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
    ignored = Ignored()

    def fresh() -> Iterator[RawCrystal]:
        nonlocal changed
        for raw in islice(read_inputs(paths, ignored=ignored), limit):
            key = calculation_key(_id(raw, crystals), crystals.protocol_id)
            keys.append(key)
            if key not in there:
                yield raw
            elif there[key] != _sha256(raw):
                changed += 1
                yield raw
            on_crystal(len(keys))

    screener: _Screener | None = None
    new = 0
    for lot in batched(parse_all(fresh()), _LOT):
        screener = screener or _Screener(crystals, store, reference)
        pairs = [screener.documents(raw, parsed) for raw, parsed in lot]
        # A calculation is known by its crystal, which is therefore there first.
        store.put_crystals(*(crystal for crystal, _ in pairs))
        store.put(*(calculation for _, calculation in pairs))
        new += len(pairs)
    return Ingested(keys, new - changed, changed, ignored)


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
        for crystal in store.crystals(row["id"] for row in store.query(criteria, ["id"])):
            if crystal.structure is not None:
                self.seen.add(crystal.id, Structure.from_dict(crystal.structure))

    def documents(self, raw: RawCrystal, parsed: Parsed | Rejection) -> tuple[CrystalDocument, CalculationDocument]:
        """A crystal, and its calculation: rejected, duplicate, known, or waiting to be computed."""
        crystal = CrystalDocument(
            id=_id(raw, self.crystals),
            set=self.crystals.name,
            origin=Origin(source=raw.source, sha256=_sha256(raw)),
            condition=dict(self.crystals.condition),
            labels=dict(raw.labels),
        )
        if isinstance(parsed, Rejection):
            return crystal, rejected(calculation(crystal, self.crystals), parsed)
        structure = parsed.structure
        describe(crystal, structure)
        crystal.notes = list(parsed.notes)
        document = screened(crystal, structure, self.crystals)
        if document.status == Status.PENDING:
            if self.known is not None and (name := self.known.find(structure)) is not None:
                document.status, document.known_as = Status.KNOWN, name
            elif (original := self.seen.find_or_add(document.id, structure)) not in {None, document.id}:
                # A changed crystal may still match its own former self.
                document.status, document.duplicate_of = Status.DUPLICATE, original
        return crystal, document


def describe(crystal: CrystalDocument, structure: Structure) -> None:
    """Write what a crystal's structure says into its document."""
    crystal.content_hash = content_hash(structure)
    crystal.structure = structure.as_dict()
    crystal.nsites = len(structure)
    crystal.elements = sorted({s.symbol for s in structure.species})
    crystal.nelements = len(crystal.elements)
    crystal.formula_pretty = structure.composition.reduced_formula
    crystal.chemsys = "-".join(crystal.elements)


def calculation(crystal: CrystalDocument, crystals: CrystalSet) -> CalculationDocument:
    """The calculation of a crystal of which nothing has been looked at yet."""
    shared = crystal.model_dump(exclude={"structure", "notes", "created_at", "updated_at"})
    return CalculationDocument(
        **shared,
        key=calculation_key(crystal.id, crystals.protocol_id),
        protocol_id=crystals.protocol_id,
        protocol_name=crystals.protocol.name,
        potential=crystals.potential,
        steps=references(crystals.protocol),
    )


def screened(crystal: CrystalDocument, structure: Structure, crystals: CrystalSet) -> CalculationDocument:
    """The calculation of a described crystal: rejected, or waiting for its first step."""
    document = calculation(crystal, crystals)
    rejection = check(structure, crystals.protocol.screening, crystals.elements)
    if rejection is not None:
        return rejected(document, rejection)
    document.symmetry_initial = symmetry(structure, crystals.protocol.relaxation.symprec)
    document.stage = SCREENED
    return document


def _already_there(crystals: CrystalSet, store: ResultsStore) -> dict[str, str | None]:
    criteria = {"set": crystals.name, "protocol_id": crystals.protocol_id}
    return {row["key"]: row["origin"]["sha256"] for row in store.query(criteria, ["key", "origin.sha256"])}


def _id(raw: RawCrystal, crystals: CrystalSet) -> str:
    return f"{crystals.name}-{raw.label}"


def _sha256(raw: RawCrystal) -> str | None:
    return hashlib.sha256(raw.data).hexdigest() if raw.data else None


def rejected(document: CalculationDocument, rejection: Rejection) -> CalculationDocument:
    """The same document, of a crystal that cannot be used."""
    document.status, document.reason, document.detail = Status.REJECTED, Reason(rejection.reason), rejection.detail
    return document
