"""The local run: a set of crystals through the Makers on this machine, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from jobflow import JobStore
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore

from phononbench_flows.outcomes import Status
from phononbench_flows.sets.chunks import bounded

if TYPE_CHECKING:
    from phononbench_flows.potentials import Potential
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore

# A chunk is relaxed in one batch where memory allows. More crystals would wait for the slowest of them, and
# torch-sim keeps symmetry in a loop over crystals.
_CHUNK_CRYSTALS = 128


@dataclass(frozen=True)
class Work:
    """A crystal that waits to be computed: its key and its number of atoms."""

    key: str
    natoms: int


def waiting(store: ResultsStore, crystals: CrystalSet, keys: Sequence[str]) -> list[Work]:
    """The crystals of these keys that are not finished, in the order of the keys."""
    criteria = {"set": crystals.name, "protocol_id": crystals.protocol_id, "status": Status.PENDING.value}
    natoms = {row["key"]: row["nsites"] for row in store.query(criteria, ["key", "nsites"])}
    return [Work(key, natoms[key]) for key in keys if key in natoms]


def run_here(
    crystals: CrystalSet, keys: Sequence[str], store: ResultsStore, potential: Potential, batch_atoms: int | None = None
) -> None:
    """Compute what is missing of these crystals in this process.

    Each crystal is written as it finishes a stage; killed at any moment, the same call computes the rest.
    """
    from phononbench_flows.engine.batch import Budget
    from phononbench_flows.flows import StabilityFlowMaker

    budget = Budget(batch_atoms) if batch_atoms else Budget.for_device(potential.model.device)
    maker = StabilityFlowMaker.configured(
        store=store.spec,
        protocol=crystals.protocol,
        potential=potential.name,
        device=potential.device,
        batch_atoms=batch_atoms,
    )
    work = waiting(store, crystals, keys)
    for chunk in bounded(work, attrgetter("natoms"), budget.max_atoms, _CHUNK_CRYSTALS):
        flow = maker.make([each.key for each in chunk])
        # The jobs' outputs are keys; they are not wanted once the chunk is done.
        run_locally(flow, store=JobStore(MemoryStore()), log=False, raise_immediately=True)
