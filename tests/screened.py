"""Crystals as an ingest leaves them: read, screened, and waiting for their first step."""

from __future__ import annotations

from collections.abc import Mapping

from pymatgen.core import Structure

from phononbench_flows import potentials
from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin, PotentialRecord
from phononbench_flows.protocol import PRESETS, Protocol
from phononbench_flows.sets.ingest import CrystalSet, calculation, describe
from phononbench_flows.sets.ingest import screened as wait
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"


def crystal_set(name: str = "toys", protocol: Protocol = PRESETS["paper"], potential: str = TOY) -> CrystalSet:
    """A set that this potential computes."""
    record = PotentialRecord(name=potential, checkpoint_sha256=potentials.identify(potential).sha256)
    return CrystalSet(name, {}, protocol, record)


def put_waiting(store: ResultsStore, crystals: CrystalSet, structures: Mapping[str, Structure]) -> list[str]:
    """Put crystals of these names into a store, where they wait for their first step; gives their keys."""
    keys = []
    for name, structure in structures.items():
        crystal = described(crystals, name, structure)
        document = wait(crystal, structure, crystals)
        store.put_crystals(crystal)
        store.put(document)
        keys.append(document.key)
    return keys


def described(crystals: CrystalSet, name: str, structure: Structure) -> CrystalDocument:
    """The document of a crystal of a set."""
    crystal = CrystalDocument(
        id=f"{crystals.name}-{name}", set=crystals.name, origin=Origin(source=f"{name}.cif", sha256="0" * 64)
    )
    describe(crystal, structure)
    return crystal


def blank(crystals: CrystalSet, name: str) -> CalculationDocument:
    """The calculation of a crystal of which nothing is known."""
    crystal = CrystalDocument(id=f"{crystals.name}-{name}", set=crystals.name, origin=Origin(source=f"{name}.cif"))
    return calculation(crystal, crystals)
