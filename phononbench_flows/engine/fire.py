"""Crystals that FIRE moves together: a batch that crystals join and leave at any step.

The optimizer is torch-sim's (``ase_fire`` on positions and a Frechet cell). A crystal goes the same way whoever
else is in the batch and whenever it joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure
from torch_sim.models.interface import ModelInterface
from torch_sim.optimizers import CellFireState
from torch_sim.optimizers.fire import fire_init, fire_step
from torch_sim.symmetrize import refine_and_prep_symmetry

from phononbench_flows.engine.batch import FiniteOutputModel
from phononbench_flows.engine.matrix_log import batched_logarithms
from phononbench_flows.engine.symmetry_constraint import KeptSymmetry, Projector

# A crystal that joins is at rest. torch-sim halves the time step of whoever is at rest among others that move, so
# give it twice ASE's: its first step is then what it would be alone.
_DT_AT_REST = 2 * 0.1


@dataclass(frozen=True)
class SymmetrizedStructure:
    """A crystal refined to its symmetry, and what keeps it; None where there is none to keep."""

    structure: Structure
    projector: Projector | None


def without_symmetry(structure: Structure) -> SymmetrizedStructure:
    """A crystal as it stands, of which no symmetry is kept."""
    return SymmetrizedStructure(structure, None)


@dataclass(frozen=True)
class ConvergenceState:
    """How one crystal of the batch stands.

    Attributes:
        largest: largest force on an atom or, as ASE's FrechetCellFilter counts it, on the cell, eV/Å.
        volume: Å^3 per atom.
        bad: the potential gave something that is not finite.
    """

    largest: float
    volume: float
    bad: bool


def symmetric(structure: Structure, symprec: float) -> SymmetrizedStructure:
    """Find the symmetry at ``symprec`` (Å) and move cell and atoms to where it is exact."""
    cell, positions, rotations, maps = refine_and_prep_symmetry(
        torch.tensor(structure.lattice.matrix, dtype=torch.float64),
        torch.tensor(structure.cart_coords, dtype=torch.float64),
        torch.tensor(structure.atomic_numbers, dtype=torch.int64),
        symprec=symprec,
    )
    if len(rotations) == 1:  # P1: there is nothing to refine, and not moving anything is exact
        return SymmetrizedStructure(structure, None)
    refined = _with_geometry(structure, cell.numpy(), positions.numpy())
    return SymmetrizedStructure(refined, Projector.of(rotations, maps))


class FireBatch:
    """The batch. Crystals are numbered from 0 in the order in which they joined, without those that left."""

    def __init__(self, finite: FiniteOutputModel) -> None:
        self._guard = finite
        self._structures: list[Structure] = []
        self._state: CellFireState | None = None
        self._bad = torch.zeros(0, dtype=torch.bool, device=finite.device)

    def join(self, starts: Sequence[SymmetrizedStructure]) -> None:
        """Take crystals in, at the end; one call of the potential for them."""
        fresh = _at_rest(starts, self._guard)
        self._bad = torch.cat([self._bad, self._guard.bad])
        self._structures += [start.structure for start in starts]
        self._state = fresh if self._state is None else ts.concatenate_states([self._state, fresh])

    def look(self) -> list[ConvergenceState]:
        """How each crystal stands."""
        if self._state is None:
            return []
        state = self._state
        largest = torch.maximum(ts.system_wise_max_force(state), state.cell_forces.norm(dim=2).amax(dim=1))
        volume = torch.linalg.det(state.cell).abs() / state.n_atoms_per_system
        columns = (largest.tolist(), volume.tolist(), self._bad.tolist())
        return [ConvergenceState(*row) for row in zip(*columns, strict=True)]

    def leave(self, leaving: Sequence[int]) -> list[Structure]:
        """Take crystals out; gives them as they are now, in the order of the numbers given."""
        if self._state is None or not leaving:
            return []
        structures = [_structure(self._state, i, self._structures[i]) for i in leaving]
        stays = [i for i in range(len(self._structures)) if i not in set(leaving)]
        self._structures = [self._structures[i] for i in stays]
        self._bad = self._bad[stays]
        if stays:
            self._state.pop(sorted(leaving))
        else:
            self._state = None
        return structures

    def step(self) -> None:
        """One step of all; one call of the potential."""
        if self._state is not None:
            with batched_logarithms():
                self._state = cast("CellFireState", fire_step(self._state, self._guard))
            self._bad = self._guard.bad


def symmetric_state(starts: Sequence[SymmetrizedStructure], finite: FiniteOutputModel) -> ts.SimState:
    """A state of these crystals, constrained to their symmetries."""
    state = ts.io.structures_to_state([s.structure for s in starts], device=finite.device, dtype=finite.dtype)
    kept = {i: start.projector for i, start in enumerate(starts) if start.projector is not None}
    if kept:
        state.constraints = [KeptSymmetry(list(kept.values()), torch.tensor(list(kept), device=state.device))]
    return state


class _OneCall(ModelInterface):
    """A model that computes once: torch-sim asks for forces, and again for the stress of the same state."""

    def __init__(self, model: ModelInterface) -> None:
        super().__init__()
        self.model = model
        self._device, self._dtype = model.device, model.dtype
        self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces
        self._output: dict[str, torch.Tensor] | None = None

    def forward(self, state: ts.SimState, **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the model gave the first time."""
        if self._output is None:
            self._output = self.model(state, **kwargs)
        return {key: value.clone() for key, value in self._output.items()}


def _at_rest(starts: Sequence[SymmetrizedStructure], finite: FiniteOutputModel) -> CellFireState:
    state = symmetric_state(starts, finite)
    resting = cast(
        "CellFireState", fire_init(state, _OneCall(finite), dt_start=_DT_AT_REST, cell_filter=ts.CellFilter.frechet)
    )
    resting.set_constrained_forces(resting.forces)
    # torch-sim marks the start by NaN, and treats it in another way if all start together.
    resting.velocities = torch.zeros_like(resting.velocities)
    resting.cell_velocities = torch.zeros_like(resting.cell_velocities)
    return resting


def _structure(state: CellFireState, system: int, like: Structure) -> Structure:
    cell = state.row_vector_cell[system].cpu().numpy()
    return _with_geometry(like, cell, state.positions[state.system_idx == system].cpu().numpy())


def _with_geometry(like: Structure, cell: np.ndarray, positions: np.ndarray) -> Structure:
    return Structure(Lattice(cell), like.species, positions, coords_are_cartesian=True)
