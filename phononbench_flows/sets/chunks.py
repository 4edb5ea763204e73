"""What a crystal will cost, and crystals in chunks of bounded size: a chunk becomes one small flow.

Costs are in evaluations: atoms that go through the potential, each time that they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import Protocol

if TYPE_CHECKING:
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore

TARGET = 5e6
"""Default bound on the cost of a chunk, in evaluations."""

MAX_CRYSTALS = 256
"""Largest number of crystals in a chunk, however cheap they are."""

_STEPS = 100  # of a relaxation, roughly, as seen on generated crystals of up to 8 atoms


@dataclass(frozen=True, slots=True)
class Costed:
    """A crystal that waits to be computed: its key and its estimated cost."""

    key: str
    cost: float


def cost(natoms: int, point_group: str | None, protocol: Protocol) -> float:
    """Estimated cost of a crystal: the steps of its relaxation, and its displaced supercells.

    Without symmetry each atom is displaced six times; symmetry spares about as many as there are operations.
    """
    displacements = math.ceil(6 * natoms / (_order(point_group) if point_group else 1))
    return natoms * (_STEPS + math.prod(protocol.force_constants.supercell) * displacements)


@cache
def _order(point_group: str) -> int:
    from pymatgen.symmetry.groups import PointGroup

    return len(PointGroup(point_group).symmetry_ops)


def costed(store: ResultsStore, crystals: CrystalSet, keys: Sequence[str]) -> list[Costed]:
    """The crystals of these keys that are not finished, in the order of the keys."""
    criteria = {"set": crystals.name, "protocol_id": crystals.protocol_id, "status": Status.PENDING.value}
    costs = {
        row["key"]: cost(row["nsites"], (row.get("symmetry_initial") or {}).get("point_group"), crystals.protocol)
        for row in store.query(criteria, ["key", "nsites", "symmetry_initial.point_group"])
    }
    return [Costed(key, costs[key]) for key in keys if key in costs]


def bounded[T](items: Iterable[T], size: Callable[[T], float], limit: float, most: int) -> Iterator[list[T]]:
    """Items, in order, in lists of at most ``limit`` in all and ``most`` in number; a larger item goes alone."""
    taken: list[T] = []
    total = 0.0
    for item in items:
        if taken and (total + size(item) > limit or len(taken) == most):
            yield taken
            taken, total = [], 0.0
        taken.append(item)
        total += size(item)
    if taken:
        yield taken
