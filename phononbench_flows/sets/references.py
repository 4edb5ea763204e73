"""Crystals of a reference set, kept in a store of their own: relaxed once for each potential, whichever set asks.

They are known by what they are, not by where they lie: a crystal that is in two reference files is relaxed once. Their
store is not that of the generated crystals, so that none of them is ever counted as generated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path

from phononbench_flows.documents import CrystalDocument, Origin, calculation_key
from phononbench_flows.protocol import Protocol, RelaxationSettings
from phononbench_flows.sets.identity import source_sha256, storable
from phononbench_flows.sets.ingest import CrystalSet, screened
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import Parsed, RawCrystal, check, content_hash, parse_all, read_inputs

SET = "reference"
"""Name of the set of all reference crystals in their store."""

PROTOCOL = Protocol(name=SET, relaxation=RelaxationSettings(optimizer="lbfgs"))
"""How they are relaxed: to the forces of every preset, by the optimizer with fewer evaluations."""

_LOT = 32  # crystals written at once
_HASHED = 40  # letters of the content's hash in an id


def reference_spec(spec: Mapping[str, str]) -> dict[str, str]:
    """The store of the reference crystals that belongs to a store of results: within its directory, or beside it."""
    if spec["kind"] == "embedded":
        return dict(spec) | {"path": str(Path(spec["path"]) / "references")}
    return dict(spec) | {"database": f"{spec['database']}-references"}


@dataclass
class References:
    """The reference crystals of some chemical systems.

    Attributes:
        names: what a reference set calls each crystal, by the key of its calculation.
        unusable: crystals of these systems that cannot be computed.
        sources: names of the reference sets, with the hash of what is a single file.
    """

    names: dict[str, str] = field(default_factory=dict)
    unusable: int = 0
    sources: list[str] = field(default_factory=list)


def gather(
    paths: Sequence[Path],
    systems: Collection[frozenset[str]],
    crystals: CrystalSet,
    store: ResultsStore,
    on_crystal: Callable[[int], None] = lambda _: None,
) -> References:
    """Read reference sets, and write a document for each crystal of these chemical systems that is not there yet.

    Args:
        paths: reference sets, any input that ``run`` takes.
        systems: chemical systems, each the symbols of its elements.
        crystals: the set of references under one potential.
        store: where they are kept.
        on_crystal: called with the number of crystals read.

    Raises:
        InputError: an input that does not exist or holds no crystals.
    """
    found = References(sources=[_named(path) for path in paths])
    read = 0
    for lot in batched(parse_all(raw for path in paths for raw in read_inputs([path])), _LOT):
        read += len(lot)
        on_crystal(read)
        fitting = [(raw, parsed) for raw, parsed in lot if isinstance(parsed, Parsed) and _fits(parsed, systems)]
        usable = [pair for pair in fitting if check(pair[1].structure, crystals.protocol.screening, None) is None]
        found.unusable += len(fitting) - len(usable)
        _keep(usable, crystals, store, found)
    return found


def _keep(
    lot: Sequence[tuple[RawCrystal, Parsed]], crystals: CrystalSet, store: ResultsStore, found: References
) -> None:
    given = {_id(parsed): (raw, parsed) for raw, parsed in lot}
    keys = {name: calculation_key(name, crystals.protocol_id) for name in given}
    there = {row["key"] for row in store.query({"key": {"$in": list(keys.values())}}, ["key"])}
    for name, (raw, parsed) in given.items():
        found.names.setdefault(keys[name], raw.label)
        if keys[name] not in there:
            origin = Origin(source=storable(raw.source), sha256=source_sha256(raw))
            crystal = CrystalDocument(id=name, set=crystals.name, origin=origin)
            document = screened(crystal, parsed.structure, crystals)
            store.put_crystals(crystal)  # a calculation is known by its crystal, which is therefore there first
            store.put(document)


def _id(parsed: Parsed) -> str:
    return f"{SET}-{content_hash(parsed.structure)[:_HASHED]}"


def _fits(parsed: Parsed, systems: Collection[frozenset[str]]) -> bool:
    elements = {element.symbol for element in parsed.structure.composition.elements}
    return any(elements <= system for system in systems)


def _named(path: Path) -> str:
    if not path.is_file():
        return path.name
    with path.open("rb") as file:
        return f"{path.name} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
