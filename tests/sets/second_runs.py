"""What a set looks like after a run, to be held against a fresh run of the same files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phononbench_flows.documents import PotentialRecord
from phononbench_flows.outcomes import COUNTED
from phononbench_flows.protocol import PRESETS, Protocol
from phononbench_flows.sets.ingest import CrystalSet, Ingested, ingest
from phononbench_flows.statistics import Funnel, funnel
from phononbench_flows.store import ResultsStore

TIMES = {"created_at", "updated_at"}


def crystal_set(protocol: Protocol = PRESETS["paper"], potential: str = "toy") -> CrystalSet:
    """A set S that takes any element."""
    record = PotentialRecord(name=potential, checkpoint_sha256=potential[0] * 64)
    return CrystalSet("S", {}, protocol, record)


def run(paths: Sequence[Path], store: ResultsStore, crystals: CrystalSet | None = None) -> Ingested:
    """Read and screen."""
    return ingest(paths, crystals or crystal_set(), store)


def documents(store: ResultsStore, crystals: CrystalSet | None = None) -> dict[str, dict[str, Any]]:
    """Calculations that count, by id, without times."""
    mine = (crystals or crystal_set()).mine
    return {found.id: found.model_dump(exclude=TIMES) for found in store.documents(mine | COUNTED)}


def crystals_of(store: ResultsStore) -> dict[str, dict[str, Any]]:
    """Crystals of the calculations that count, by id, without times."""
    return {found.id: found.model_dump(exclude=TIMES) for found in store.crystals(documents(store))}


def counts(store: ResultsStore) -> Funnel:
    """The funnel, which adds up."""
    found = funnel(store.query(crystal_set().mine, ["status", "stage", "same_as"]))
    assert found.adds_up
    return found


def as_fresh(paths: Sequence[Path], store: ResultsStore, empty: Path) -> None:
    """Assert that the store says what a fresh run of these inputs says."""
    with ResultsStore.open(empty, create=True) as fresh:
        run(paths, fresh)
        assert documents(store) == documents(fresh)
        assert crystals_of(store) == crystals_of(fresh)
        assert counts(store).generated == counts(fresh).generated
