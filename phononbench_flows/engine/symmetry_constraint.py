"""The symmetry of many crystals as one constraint of torch-sim: a few calls of the device, however many crystals.

torch-sim's ``FixSymmetry`` goes through the crystals one by one. But what it does to each is linear and does not change
while a crystal relaxes: forces in fractional coordinates are multiplied by one matrix, stress and strain by another.
Both are made once for each crystal, and those of all crystals are applied together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch_sim as ts
from torch_sim.constraints import Constraint, SystemConstraint

_MOST_STRAIN = 0.25  # of a cell in one step, as in ASE's and torch-sim's FixSymmetry


@dataclass(frozen=True)
class Projector:
    """What keeps the symmetry of one crystal, in fractional coordinates.

    Attributes:
        targets, sources: pairs of atoms that operations bring onto each other, (n_pairs,).
        blocks: what the vector of a source adds to that of its target, (n_pairs, 3, 3).
        tensor: what a tensor, as nine numbers, is multiplied by, (9, 9).
    """

    targets: torch.Tensor
    sources: torch.Tensor
    blocks: torch.Tensor
    tensor: torch.Tensor

    @classmethod
    def of(cls, rotations: torch.Tensor, maps: torch.Tensor) -> Projector:
        """The mean over operations.

        Parameters:
            rotations: (n_ops, 3, 3), in fractional coordinates.
            maps: the atom that each operation takes each atom to, (n_ops, n_atoms).
        """
        n_ops, n = maps.shape
        turns = rotations.to(torch.float64)
        places = (maps * n + torch.arange(n)).reshape(-1)  # row by row of the matrix (n, n): target, source
        found, where = torch.unique(places, return_inverse=True)
        repeated = turns[:, None].expand(n_ops, n, 3, 3).reshape(-1, 3, 3)
        blocks = torch.zeros(len(found), 3, 3, dtype=torch.float64).index_add_(0, where, repeated) / n_ops
        # R^T S R, as nine numbers: (R^T x R^T) vec(S), the axes of R^T being those of R in the other order.
        tensor = torch.einsum("nji,nkl->niljk", turns, turns).mean(dim=0).reshape(9, 9)
        return cls(found // n, found % n, blocks, tensor)


class KeptSymmetry(SystemConstraint):
    """Keeps the symmetry of some systems of a state: in forces, steps, stresses and cells."""

    def __init__(self, projectors: Sequence[Projector], system_idx: torch.Tensor) -> None:
        super().__init__(system_idx=system_idx)
        self.projectors = list(projectors)
        device = self.system_idx.device
        counts = torch.tensor([len(each.targets) for each in self.projectors], device=device)
        self._pair_systems = self.system_idx.repeat_interleave(counts)
        self._targets = torch.cat([each.targets for each in self.projectors]).to(device)
        self._sources = torch.cat([each.sources for each in self.projectors]).to(device)
        self._blocks = torch.cat([each.blocks for each in self.projectors]).to(device)
        self._tensors = torch.stack([each.tensor for each in self.projectors]).to(device)

    def adjust_forces(self, state: ts.SimState, forces: torch.Tensor) -> None:
        """Leave of forces (n_atoms, 3) what the symmetry allows, in place."""
        lattice = state.row_vector_cell
        inverse = torch.linalg.inv(lattice)
        ends = torch.cumsum(state.n_atoms_per_system, dim=0)
        firsts = (ends - state.n_atoms_per_system)[self._pair_systems]
        fractional = torch.einsum("ai,aij->aj", forces, inverse[state.system_idx])
        turned = torch.einsum("pij,pj->pi", self._blocks, fractional[firsts + self._sources])
        kept = torch.zeros_like(forces).index_add_(0, firsts + self._targets, turned)
        adjusted = torch.einsum("ai,aij->aj", kept, lattice[state.system_idx])
        constrained = torch.zeros(state.n_systems, dtype=torch.bool, device=forces.device)
        constrained[self.system_idx] = True
        forces.copy_(torch.where(constrained[state.system_idx][:, None], adjusted, forces))

    def adjust_positions(self, state: ts.SimState, new_positions: torch.Tensor) -> None:
        """The same for the steps from the state's positions, in place."""
        steps = new_positions - state.positions
        self.adjust_forces(state, steps)
        new_positions.copy_(state.positions + steps)

    def adjust_stress(self, state: ts.SimState, stress: torch.Tensor) -> None:
        """Leave of stresses (n_systems, 3, 3) what the symmetry allows, in place."""
        stress[self.system_idx] = self._symmetric(state.row_vector_cell[self.system_idx], stress[self.system_idx])

    def adjust_cell(self, state: ts.SimState, cell: torch.Tensor) -> None:
        """Leave of new cells (n_systems, 3, 3; columns are lattice vectors) the strain that the symmetry allows."""
        before, identity = state.row_vector_cell[self.system_idx], torch.eye(3, dtype=cell.dtype, device=cell.device)
        strain = torch.linalg.solve(before, cell[self.system_idx].mT) - identity
        largest = strain.abs().amax(dim=(1, 2), keepdim=True)
        strain = strain * torch.clamp(_MOST_STRAIN / largest.clamp(min=_MOST_STRAIN), max=1.0)
        cell[self.system_idx] = (before @ (self._symmetric(before, strain) + identity)).mT

    def _symmetric(self, lattice: torch.Tensor, tensors: torch.Tensor) -> torch.Tensor:
        """Mean over operations of tensors (n, 3, 3) in the frame of their lattices, whose rows are vectors."""
        inverse = torch.linalg.inv(lattice)
        scaled = (lattice @ tensors @ lattice.mT).reshape(-1, 9, 1)
        return inverse @ (self._tensors @ scaled).reshape(-1, 3, 3) @ inverse.mT

    def get_removed_dof(self, state: ts.SimState) -> torch.Tensor:
        """None: directions are kept, not numbers."""
        return torch.zeros(state.n_systems, dtype=torch.long, device=state.device)

    def reindex(self, atom_offset: int, system_offset: int) -> Self:  # noqa: ARG002 -- the interface is torch-sim's
        """A copy for systems whose numbers are greater by so much."""
        return type(self)(self.projectors, self.system_idx + system_offset)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Self:  # noqa: ARG002
        """A copy on another device."""
        return type(self)(self.projectors, self.system_idx.to(device=device))

    @classmethod
    def merge(cls, constraints: list[Constraint]) -> Self:
        """One constraint for the systems of several."""
        mine = [each for each in constraints if isinstance(each, cls)]
        projectors = [projector for each in mine for projector in each.projectors]
        return cls(projectors, torch.cat([each.system_idx for each in mine]))

    def select_constraint(self, atom_mask: torch.Tensor, system_mask: torch.Tensor) -> Self | None:  # noqa: ARG002
        """The constraint of the systems that stay; None if it constrains none of them."""
        stays = system_mask[self.system_idx]
        kept = stays.nonzero().flatten()
        if not len(kept):
            return None
        numbers = torch.cumsum(system_mask, dim=0) - 1
        return type(self)([self.projectors[k] for k in kept.tolist()], numbers[self.system_idx[kept]])

    def select_sub_constraint(self, atom_idx: torch.Tensor, sys_idx: int) -> Self | None:  # noqa: ARG002
        """The constraint of one system alone; None if it is not constrained."""
        found = (self.system_idx == sys_idx).nonzero().flatten().tolist()
        if not found:
            return None
        return type(self)([self.projectors[found[0]]], torch.zeros(1, dtype=torch.long, device=self.system_idx.device))
