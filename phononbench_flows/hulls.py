"""The hull of a set: its references relaxed once with the set's own potential, and each crystal over their hull.

What is found stands in ``results.hull`` of every finished calculation whose elements are known: the energy above the
hull, what it would fall apart into, and which reference crystal it repeats when relaxed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import batched
from pathlib import Path
from typing import Any

from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from phononbench_flows import potentials
from phononbench_flows.documents import CalculationDocument, CrystalDocument, PotentialRecord
from phononbench_flows.engine.hull import AboveHull, Energy, above_hull
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.files import read_regular, replacing
from phononbench_flows.outcomes import SCREENED, Status
from phononbench_flows.potentials import Potential
from phononbench_flows.run import run_here
from phononbench_flows.sets.chunks import waiting_crystals
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.sets.references import PROTOCOL, SET, References, gather
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import ReferenceSet, stored_structure

HULL = "hull"
"""Name of what is found here in a document's ``results``."""

_LOT = 256  # crystals in memory at once
_MOST_BYTES = 500_000_000  # of a file of energies
_UNFINISHED = [Status.PENDING.value, Status.GONE.value]


class HullError(PhononBenchError):
    """Something that no hull can be made of. The message is a sentence."""


@dataclass(frozen=True)
class HullRun:
    """What became of the crystals of some sets.

    Attributes:
        crystals: relaxed crystals.
        with_hull: those of them in a chemical system with a hull.
        bare: those of them over a hull of the elements alone.
        known: those of them that repeat a reference crystal; None where entries alone were given.
        references: reference energies in their chemical systems.
        failed: reference crystals of these systems that could not be computed or relaxed.
        missing: how many crystals miss an element's reference, by element.
        seconds: that all of these references took to relax, in this run or before.
    """

    crystals: int
    with_hull: int
    bare: int
    known: int | None
    references: int
    failed: int
    missing: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class HullWatchers:
    """Who wants to know how far it is: reading, loading the potential, and computing the references."""

    on_crystal: Callable[[int], None] = lambda _: None
    on_read: Callable[[References, int], None] = lambda _found, _waiting: None
    on_load: Callable[[], None] = lambda: None
    computing: Callable[[ResultsStore, CrystalSet], AbstractContextManager[Any]] = lambda _store, _crystals: (
        nullcontext()
    )


@dataclass
class _Known:
    """Reference energies, crystals to compare with, and what became of them."""

    energies: list[Energy] = field(default_factory=list)
    crystals: ReferenceSet | None = None
    failed: int = 0
    seconds: float = 0.0


def find_hulls(
    store: ResultsStore,
    sets: Sequence[str],
    protocol_id: str,
    *,
    references: Sequence[Path] = (),
    kept: Mapping[str, str],
    entries: Path | None = None,
    write_entries: Path | None = None,
    device: str = "auto",
    batch_atoms: int | None = None,
    workers: int = 1,
    watchers: HullWatchers | None = None,
) -> HullRun:
    """Place the relaxed crystals of some sets over the hull of reference crystals; called again, it goes on.

    Args:
        sets: their names.
        protocol_id: of the protocol with the potential that they were judged by.
        references: reference sets, any input that ``run`` takes; crystals of the sets' chemical systems are relaxed.
        kept: spec of the store where relaxed references are kept; opened only if there are reference sets.
        entries: file of ready-made energies of the same potential; see :func:`read_entries`.
        write_entries: file to write the energies to, as ``entries`` are.
        device, batch_atoms, workers: as for :func:`~phononbench_flows.run.judge_folder`.

    Raises:
        PhononBenchError: something cannot be used; RunEndingError: the machine cannot compute. The same call goes on.
    """
    watchers = watchers or HullWatchers()
    mine = {"set": {"$in": list(sets)}, "protocol_id": protocol_id, "status": {"$nin": _UNFINISHED}}
    wanted = ["key", "elements", "formula_pretty", "relaxation.energy_per_atom"]
    rows = [row for row in store.query(mine, wanted) if row["elements"]]
    if not rows:
        raise HullError("none of these crystals is finished, so that there is nothing to place over a hull")
    record = PotentialRecord.model_validate(next(store.query(mine, ["potential"], limit=1))["potential"])
    systems = {frozenset(row["elements"]) for row in rows}
    crystals = CrystalSet(SET, {}, PROTOCOL, record, lambda: potentials.identify(record.name).elements())
    known, sources = _Known(), []
    if references:
        with ResultsStore.open(kept, create=True) as beside:
            found = gather(references, systems, crystals, beside, watchers.on_crystal)
            known = _relaxed(found, crystals, beside, watchers, device, batch_atoms, workers)
        sources += found.sources
    if entries is not None:
        known.energies += read_entries(entries, record)
        sources.append(entries.name)
    if write_entries is not None:
        _write_entries(write_entries, known.energies, record)
    asked = [Energy(row["formula_pretty"], _energy(row) or 0.0) for row in rows]
    placed = dict(zip((row["key"] for row in rows), above_hull(asked, known.energies), strict=True))
    repeats = _put(store, placed, known, sources)
    return _summed(rows, placed, known, repeats)


def _energy(row: Mapping[str, Any]) -> float | None:
    return (row.get("relaxation") or {}).get("energy_per_atom")


def _relaxed(
    found: References,
    crystals: CrystalSet,
    kept: ResultsStore,
    watchers: HullWatchers,
    device: str,
    batch_atoms: int | None,
    workers: int,
) -> _Known:
    """Relax those references that have not been, and read what all of them came to."""
    keys = list(found.names)
    unrelaxed = {row["key"] for row in kept.query(crystals.mine | {"stage": SCREENED}, ["key"])}
    waiting = [each for each in waiting_crystals(kept, crystals, keys) if each.key in unrelaxed]
    watchers.on_read(found, len(waiting))
    if waiting:
        with watchers.computing(kept, crystals):
            run_here(
                waiting,
                crystals,
                kept,
                _loader(crystals.potential, device, watchers),
                device=device,
                batch_atoms=batch_atoms,
                workers=workers,
                until="relaxation",
            )
    known = _Known(crystals=ReferenceSet(PROTOCOL), failed=found.unusable)
    for lot in batched(keys, _LOT):
        documents = list(kept.documents({"key": {"$in": list(lot)}}))
        as_read = {crystal.id: crystal for crystal in kept.crystals([document.id for document in documents])}
        for document in documents:
            _take(known, document, as_read.get(document.id), found.names[document.key])
    return known


def _loader(record: PotentialRecord, device: str, watchers: HullWatchers) -> Callable[[], Potential]:
    @cache
    def load() -> Potential:
        watchers.on_load()
        loaded = potentials.load(record.name, device, record.settings)
        if loaded.checkpoint_sha256 != record.checkpoint_sha256:
            raise HullError(f"the set was judged by another checkpoint of {record.name} than the one that is here")
        return loaded

    return load


def _take(known: _Known, document: CalculationDocument, crystal: CrystalDocument | None, name: str) -> None:
    if known.crystals is not None and crystal is not None and crystal.structure is not None:
        known.crystals.add(name, stored_structure(crystal.structure, crystal.id))
    if document.relaxation is None or document.relaxed_structure is None or document.formula_pretty is None:
        known.failed += 1
        return
    known.energies.append(Energy(document.formula_pretty, document.relaxation.energy_per_atom))
    known.seconds += sum(document.timings.values())
    if known.crystals is not None:
        known.crystals.add(name, stored_structure(document.relaxed_structure, document.id))


def read_entries(path: Path, record: PotentialRecord) -> list[Energy]:
    """Energies that others computed with the same potential: a JSON list of pymatgen's ``ComputedEntry`` as dicts.

    Each says in ``parameters`` what computed it: ``checkpoint_sha256``, or else ``potential``, its name.

    Raises:
        HullError: no such file, or an entry that is not of this potential: energies of two methods have no hull.
    """
    wrong = f"{path} is no JSON list of pymatgen's ComputedEntry"
    try:
        plain = json.loads(read_regular(path, _MOST_BYTES))
        given = [_entry(each) for each in plain]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HullError(f"{wrong}: {type(error).__name__}: {error}") from error
    if not isinstance(plain, list):
        raise HullError(wrong)
    for entry in given:
        said = entry.parameters
        sha256, name = said.get("checkpoint_sha256"), said.get("potential")
        if record.checkpoint_sha256 != sha256 if sha256 else record.name != name:
            raise HullError(
                f"{path}: the entry {entry.composition.reduced_formula} says that it is of {sha256 or name!r}, and not "
                f"of {record.name} ({record.checkpoint_sha256[:12]}), the set's potential: energies of two methods "
                "have no hull"
            )
    return [Energy(entry.composition.reduced_formula, entry.energy_per_atom) for entry in given]


def _entry(plain: Mapping[str, Any]) -> ComputedEntry:
    """An entry from numbers and words alone: its own ``from_dict`` imports and calls whatever class the file names."""
    correction = float(plain["correction"])
    return ComputedEntry(
        Composition(plain["composition"]),
        float(plain["energy"]),
        correction=correction,
        parameters=dict(plain.get("parameters") or {}),
    )


def _write_entries(path: Path, energies: Sequence[Energy], record: PotentialRecord) -> None:
    said = {"potential": record.name, "checkpoint_sha256": record.checkpoint_sha256}
    entries = [
        ComputedEntry(Composition(each.formula), each.per_atom * Composition(each.formula).num_atoms, parameters=said)
        for each in energies
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps([entry.as_dict() for entry in entries]), encoding="utf-8")


def _put(store: ResultsStore, placed: Mapping[str, AboveHull], known: _Known, sources: Sequence[str]) -> set[str]:
    """Write what was found; gives the keys of the relaxed crystals that repeat a reference."""
    repeats = set()
    for lot in batched(placed, _LOT):
        documents = [each for each in store.documents({"key": {"$in": list(lot)}}) if each.status not in _UNFINISHED]
        for document in documents:
            said = _record(document, placed[document.key], known, sources)
            if said.get("known_as"):
                repeats.add(document.key)
            document.results = document.results | {HULL: said}
        store.put(*documents)
    return repeats


def _record(document: CalculationDocument, above: AboveHull, known: _Known, sources: Sequence[str]) -> dict[str, Any]:
    """What is kept of a crystal: that of one which was not relaxed says only whether its system has a hull."""
    relaxed = document.relaxation is not None
    said = {
        "energy_above_hull": above.energy if relaxed else None,
        "decomposition": above.decomposition if relaxed else {},
        "missing": list(above.missing),
        "n_references": above.n_references,
        "n_compounds": above.n_compounds,
        "reference": ", ".join(sources),
    }
    if relaxed and known.crystals is not None and document.relaxed_structure is not None:
        group = document.symmetry_relaxed.number if document.symmetry_relaxed else None
        said["known_as"] = known.crystals.find(stored_structure(document.relaxed_structure, document.id), group)
    return said


def _summed(
    rows: Sequence[Mapping[str, Any]], placed: Mapping[str, AboveHull], known: _Known, repeats: set[str]
) -> HullRun:
    relaxed = [placed[row["key"]] for row in rows if _energy(row) is not None]
    missing = Counter(element for each in relaxed for element in each.missing)
    return HullRun(
        crystals=len(relaxed),
        with_hull=sum(each.energy is not None for each in relaxed),
        bare=sum(each.energy is not None and not each.n_compounds for each in relaxed),
        known=None if known.crystals is None else len(repeats),
        references=len(known.energies),
        failed=known.failed,
        missing=dict(missing.most_common()),
        seconds=known.seconds,
    )
