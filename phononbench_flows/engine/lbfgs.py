"""Crystals that L-BFGS moves together, as :mod:`phononbench_flows.engine.fire` does: they join and leave at any step.

The coordinates are those of FIRE: positions in the frame of the first cell, and the logarithm of what became of that
cell (torch-sim's Frechet filter). A step is that of Nocedal and Wright, Numerical Optimization, chapter 7, in the
compact form of Byrd, Nocedal and Schnabel (Math. Program. 63, 129, 1994), so that all crystals and all of their memory
take a few calls of the device. There is no line search: steps are bounded, and the first Hessian is not too soft.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pymatgen.core import Structure
from torch_sim.optimizers import CellFireState
from torch_sim.optimizers.cell_filters import compute_cell_forces

from phononbench_flows.engine.batch import FiniteOutputModel
from phononbench_flows.engine.fire import FireBatch, SymmetrizedStructure
from phononbench_flows.engine.matrix_log import matrix_log

_MEMORY = 20  # pairs of steps and changes of the gradient
_STIFFEST, _SOFTEST = 70.0, 10.0  # eV/Å^2, what the first Hessian may be; stiff before anything is known
_MOST = 0.2  # Å, of an atom, or a row of the cell's coordinates, in one step
_MOST_STRAIN = 2.0  # of the logarithm of the cell's deformation, where torch-sim clamps it
_FLAT = 1e-12


class LbfgsBatch(FireBatch):
    """The batch; see :class:`phononbench_flows.engine.fire.FireBatch`."""

    def __init__(self, finite: FiniteOutputModel) -> None:
        super().__init__(finite)
        empty = torch.zeros(0, _MEMORY, 1, 3, dtype=finite.dtype, device=finite.device)
        self._steps, self._changes = empty, empty

    def join(self, starts: Sequence[SymmetrizedStructure]) -> None:
        """Take crystals in, at the end; one call of the potential for them."""
        super().join(starts)
        most = max(self._steps.shape[2], 3 + max(len(start.structure) for start in starts))
        self._steps, self._changes = (_grown(each, len(starts), most) for each in (self._steps, self._changes))

    def leave(self, leaving: Sequence[int]) -> list[Structure]:
        """Take crystals out; gives them as they are now, in the order of the numbers given."""
        stays = [i for i in range(len(self._steps)) if i not in set(leaving)]
        found = super().leave(leaving)
        self._steps, self._changes = self._steps[stays], self._changes[stays]
        return found

    def step(self) -> None:
        """One step of all; one call of the potential."""
        if self._state is None:
            return
        state = self._state
        rows = _rows(state)
        gradient = -_packed(state, state.deform_grad_forces(), state.cell_forces, rows, self._steps.shape[2])
        step = self._bounded(-_inverse_times(self._steps, self._changes, gradient))
        before = _packed(state, state.frac_positions(), state.cell_positions, rows, step.shape[1])
        _move(state, step, rows)
        # What was done is what symmetry has left of the step.
        done = _packed(state, state.frac_positions(), state.cell_positions, rows, step.shape[1]) - before
        output = self._guard(state)
        state.set_constrained_forces(output["forces"])
        state.energy, state.stress = output["energy"], output["stress"]
        compute_cell_forces(output, state)
        after = -_packed(state, state.deform_grad_forces(), state.cell_forces, rows, step.shape[1])
        self._remember(done, after - gradient)
        self._bad = self._guard.bad

    def _bounded(self, step: torch.Tensor) -> torch.Tensor:
        largest = step.norm(dim=2).amax(dim=1)[:, None, None]
        return step * torch.clamp(_MOST / largest.clamp(min=_MOST), max=1.0)

    def _remember(self, step: torch.Tensor, change: torch.Tensor) -> None:
        """Keep a pair; nothing (zeros, which do not count) of a crystal whose curvature was not positive."""
        useful = ((step * change).sum(dim=(1, 2)) > _FLAT)[:, None, None]
        self._steps = torch.cat([self._steps[:, 1:], torch.where(useful, step, 0.0)[:, None]], dim=1)
        self._changes = torch.cat([self._changes[:, 1:], torch.where(useful, change, 0.0)[:, None]], dim=1)


def _grown(memory: torch.Tensor, new: int, most: int) -> torch.Tensor:
    """A memory (n, _MEMORY, rows, 3) with empty rows up to ``most``, and with empty places for new crystals."""
    found = memory.new_zeros(len(memory) + new, _MEMORY, most, 3)
    # The cell's rows come first, so that a larger crystal only adds rows at the end.
    found[: len(memory), :, : memory.shape[2]] = memory
    return found


def _rows(state: CellFireState) -> torch.Tensor:
    """The row of each atom among those of its crystal, behind the three of the cell."""
    firsts = torch.cumsum(state.n_atoms_per_system, dim=0) - state.n_atoms_per_system
    return torch.arange(state.n_atoms, device=state.device) - firsts[state.system_idx] + 3


def _packed(
    state: CellFireState, atoms: torch.Tensor, cells: torch.Tensor, rows: torch.Tensor, most: int
) -> torch.Tensor:
    """Rows of the cells (n, 3, 3) and of the atoms (n_atoms, 3), by crystal; (n, most, 3)."""
    found = atoms.new_zeros(len(cells), most, 3)
    found[:, :3] = cells
    found[state.system_idx, rows] = atoms
    return found


def _move(state: CellFireState, step: torch.Tensor, rows: torch.Tensor) -> None:
    """Take a step (n, most, 3), as far as the symmetry allows it."""
    strain_factor = state.cell_factor.view(-1, 1, 1)
    fractional = state.frac_positions() + step[state.system_idx, rows]
    log = ((state.cell_positions + step[:, :3]) / strain_factor).clamp(-_MOST_STRAIN, _MOST_STRAIN)
    state.set_constrained_cell(torch.matrix_exp(log) @ state.reference_cell, scale_atoms=True)
    state.cell_positions = matrix_log(state.deform_grad()) * strain_factor
    state.set_constrained_positions(state.positions_from_frac(fractional))


def _inverse_times(steps: torch.Tensor, changes: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The inverse Hessian that the memory tells of, times the gradient (n, rows, 3)."""
    s, y, g = (each.flatten(start_dim=-2) for each in (steps, changes, gradient))
    products = s @ y.mT
    upper = torch.triu(products)
    # A place without a pair counts for nothing.
    diagonal = torch.diagonal(products, dim1=1, dim2=2)
    empty = diagonal <= 0
    upper = upper + torch.diag_embed(torch.where(empty, 1.0, 0.0))
    # The last pair says how stiff the crystal is, as in Nocedal and Wright, equation 7.20.
    last = (y[:, -1] * y[:, -1]).sum(dim=1) / diagonal[:, -1].clamp(min=_FLAT)
    stiffness = torch.where(empty[:, -1], _STIFFEST, last).clamp(_SOFTEST, _STIFFEST)[:, None, None]
    inner = torch.diag_embed(torch.where(empty, 0.0, diagonal)) + y @ y.mT / stiffness
    sg, yg = s @ g[:, :, None], y @ g[:, :, None]
    u = torch.linalg.solve_triangular(upper, sg, upper=True)
    first = torch.linalg.solve_triangular(upper.mT, inner @ u - yg / stiffness, upper=False)
    found = g[:, :, None] / stiffness + s.mT @ first - y.mT @ u / stiffness
    return found.reshape(gradient.shape)
