"""What the crystals that wait will cost, and the size of chunks: a chunk becomes one small flow.

Costs are in evaluations: atoms that go through the potential, each time that they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.steps import CrystalSize, costly_steps

if TYPE_CHECKING:
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore

TARGET = 5e6
"""Default bound on the cost of a chunk, in evaluations."""

MAX_CRYSTALS = 256
"""Largest number of crystals in a chunk, however cheap they are."""


@dataclass(frozen=True, slots=True)
class WaitingCrystal:
    """A crystal that waits to be computed: its key, its atoms, and its estimated cost in evaluations."""

    key: str
    natoms: int
    cost: float


def cost(size: CrystalSize, protocol: Protocol) -> float:
    """Estimated cost of a crystal, in evaluations: that of the steps which call the potential."""
    return sum(step.cost(size, protocol) for step in costly_steps(protocol))


def waiting_crystals(store: ResultsStore, crystals: CrystalSet, keys: Sequence[str]) -> list[WaitingCrystal]:
    """The crystals of these keys that are not finished, in the order of the keys."""
    criteria = {"set": crystals.name, "protocol_id": crystals.protocol_id, "status": Status.PENDING.value}
    found = {}
    for row in store.query(criteria, ["key", "nsites", "symmetry_initial.point_group"]):
        size = CrystalSize(row["nsites"], (row.get("symmetry_initial") or {}).get("point_group"))
        found[row["key"]] = WaitingCrystal(row["key"], size.natoms, cost(size, crystals.protocol))
    return [found[key] for key in keys if key in found]
