"""Ingest: files become documents. Every crystal gets one, also what cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import batched, islice
from pathlib import Path

from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin, PotentialRecord, calculation_key
from phononbench_flows.outcomes import READ, SCREENED, Reason, Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.sets.earlier import come_back, known_calculations, leave, move
from phononbench_flows.sets.identity import crystal_id, source_sha256, storable
from phononbench_flows.sets.repeats import settle
from phononbench_flows.steps import references
from phononbench_flows.store import ResultsStore, can_be_stored
from phononbench_flows.structures import (
    Ignored,
    Parsed,
    RawCrystal,
    Rejection,
    check,
    content_hash,
    load_reference,
    parse_all,
    read_inputs,
    stored_structure,
)
from phononbench_flows.symmetry import symmetry

Condition = Mapping[str, str | float | int | bool]
_LOT = 32  # crystals written at once; so many are read again after a kill


@dataclass(frozen=True)
class CrystalSet:
    """A set of generated crystals under one protocol and potential.

    Attributes:
        name: name of the set; begins every structure id.
        condition: what the generator was asked for.
        protocol: how its crystals are judged.
        potential: what computes.
        find_elements: gives the symbols of the elements that the potential takes, None for any. To ask a checkpoint
            takes seconds, and nobody has to unless there are new crystals.
    """

    name: str
    condition: Condition
    protocol: Protocol
    potential: PotentialRecord
    find_elements: Callable[[], frozenset[str] | None] = lambda: None

    @cached_property
    def elements(self) -> frozenset[str] | None:
        """What ``find_elements`` gives, asked once."""
        return self.find_elements()

    @cached_property
    def protocol_id(self) -> str:
        """Id of the protocol with this potential."""
        return self.protocol.id_with(self.potential.checkpoint_sha256)

    @property
    def mine(self) -> dict[str, str]:
        """What the calculations of this set under this protocol have in common."""
        return {"set": self.name, "protocol_id": self.protocol_id}


@dataclass(frozen=True)
class Ingested:
    """What an ingest found.

    Attributes:
        keys: of the calculations of all crystals of the input, in its order.
        new: how many were not there before.
        changed_ids: crystals whose file has another content than before; what was computed for it counts no more.
        gone_ids: crystals whose file is no longer there.
        again_ids: crystals that were there, and are a duplicate now or no longer.
        ignored: files of the input that are no crystals.
    """

    keys: list[str]
    new: int
    changed_ids: tuple[str, ...] = ()
    gone_ids: tuple[str, ...] = ()
    again_ids: tuple[str, ...] = ()
    ignored: Ignored = field(default_factory=Ignored)

    @property
    def changed(self) -> int:
        """Number of crystals that have changed."""
        return len(self.changed_ids)


def ingest(
    paths: Sequence[Path],
    crystals: CrystalSet,
    store: ResultsStore,
    *,
    reference: Path | None = None,
    limit: int | None = None,
    on_crystal: Callable[[int], None] = lambda _: None,
) -> Ingested:
    """Read, check and screen crystals, and write a document for each; then the set is as if all had come in one run.

    A crystal is known by its id and the hash of its source: if the source has changed, it is screened and computed
    anew. One that an input held before and holds no longer is gone. Whether crystals repeat each other is looked at
    when all are there.

    Parameters:
        paths: folders, files, archives, tables and lists; see ``read_inputs``.
        reference: crystals that count as known.
        limit: take only the first so many crystals; then none is said to be gone from an input.
        on_crystal: called with the number of crystals done.

    Raises:
        InputError: an input that does not exist or holds no crystals.
    """
    there = known_calculations(crystals.mine, store)
    keys: list[str] = []
    seen: set[str] = set()
    changed: list[str] = []
    back: list[str] = []
    moved: dict[str, str] = {}
    ignored = Ignored()
    touched = {known.formula for known in there.values() if known.unsettled}

    def fresh() -> Iterator[RawCrystal]:
        for raw in islice(read_inputs(paths, ignored=ignored), limit):
            name = crystal_id(raw.label, crystals.name)
            keys.append(calculation_key(name, crystals.protocol_id))
            seen.add(name)
            known = there.get(name)
            if known is None:
                yield raw
            elif known.sha256 != source_sha256(raw):
                changed.append(name)
                touched.add(known.formula)
                yield raw
            else:
                if known.status == Status.GONE:
                    back.append(name)
                    touched.add(known.formula)
                if known.source != storable(raw.source):
                    moved[name] = storable(raw.source)
            on_crystal(len(keys))

    screener: _Screener | None = None
    read = 0
    for lot in batched(parse_all(fresh()), _LOT):
        screener = screener or _Screener(crystals, store, reference)
        pairs = screener.documents(lot)
        # A calculation is known by its crystal, which is therefore there first.
        store.put_crystals(*(crystal for crystal, _ in pairs if crystal is not None))
        store.put(*(document for _, document in pairs))
        touched |= {document.formula_pretty for _, document in pairs}
        read += len(pairs)
    gone = [name for name, known in there.items() if name not in seen and known.is_gone(paths, whole=limit is None)]
    touched |= {there[name].formula for name in gone}
    leave(store, crystals.mine | {"id": {"$in": gone}}, "its file is no longer there")
    elsewhere = {"set": crystals.name, "id": {"$in": changed}, "protocol_id": {"$ne": crystals.protocol_id}}
    leave(store, elsewhere, "its file has changed since")
    come_back(store, crystals.mine | {"id": {"$in": back}})
    move(store, crystals.name, moved)
    again = settle(store, crystals.mine, crystals.protocol, {formula for formula in touched if formula})
    return Ingested(keys, read - len(changed), tuple(changed), tuple(gone), tuple(again), ignored)


class _Screener:
    """Turns parsed crystals into documents."""

    def __init__(self, crystals: CrystalSet, store: ResultsStore, reference: Path | None) -> None:
        self.crystals = crystals
        self.store = store
        self.known = load_reference(reference, crystals.protocol) if reference else None

    def documents(
        self, lot: Sequence[tuple[RawCrystal, Parsed | Rejection]]
    ) -> list[tuple[CrystalDocument | None, CalculationDocument]]:
        """Each crystal, unless it is in the store as it is, and its calculation.

        Rejected, known, or waiting to be compared with the others.
        """
        names = [crystal_id(raw.label, self.crystals.name) for raw, _ in lot]
        there = {crystal.id: crystal for crystal in self.store.crystals(names)}
        return [self._pair(raw, parsed, there.get(name)) for name, (raw, parsed) in zip(names, lot, strict=True)]

    def _pair(
        self, raw: RawCrystal, parsed: Parsed | Rejection, there: CrystalDocument | None
    ) -> tuple[CrystalDocument | None, CalculationDocument]:
        if there is not None and there.origin.sha256 == source_sha256(raw) and there.structure is not None:
            # Another protocol's run has put it there, and goes by it.
            return None, self._document(there, stored_structure(there.structure, there.id))
        crystal = CrystalDocument(
            id=crystal_id(raw.label, self.crystals.name),
            set=self.crystals.name,
            origin=Origin(source=storable(raw.source), sha256=source_sha256(raw)),
            condition=dict(self.crystals.condition),
            labels=dict(raw.labels),
        )
        if isinstance(parsed, Rejection):
            return crystal, rejected(calculation(crystal, self.crystals), parsed)
        crystal.notes = list(parsed.notes)
        return crystal, self._document(crystal, parsed.structure)

    def _document(self, crystal: CrystalDocument, structure: Structure) -> CalculationDocument:
        document = screened(crystal, structure, self.crystals)
        if document.status == Status.PENDING:
            found = document.symmetry_initial
            name = self.known.find(structure, found.number if found else None) if self.known is not None else None
            if name is None:
                document.stage = READ
            else:
                document.status, document.known_as = Status.KNOWN, name
        return document


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
    """The calculation of a crystal, which is described as far as it can be: rejected, or waiting for its first step."""
    rejection = check(structure, crystals.protocol.screening, crystals.elements)
    if rejection is None or rejection.reason not in _INDESCRIBABLE:
        describe(crystal, structure)
    if rejection is not None:
        if not can_be_stored(crystal):
            crystal.structure = None
        return rejected(calculation(crystal, crystals), rejection)
    document = calculation(crystal, crystals)
    document.symmetry_initial = symmetry(structure, crystals.protocol.relaxation.symprec)
    document.stage = SCREENED
    return document


# Of these there is no hash, or no element of a site.
_INDESCRIBABLE = (Reason.BAD_NUMBERS, Reason.DISORDERED)


def rejected(document: CalculationDocument, rejection: Rejection) -> CalculationDocument:
    """The same document, of a crystal that cannot be used."""
    document.status, document.reason, document.detail = (
        Status.REJECTED,
        Reason(rejection.reason),
        storable(rejection.detail),
    )
    return document
