"""Relaxation: batched FIRE on cells and positions, keeping the symmetry that a crystal has.

The rounds follow the released scripts of PhononBench (ASE FIRE on a FrechetCellFilter with FixSymmetry): each
round finds the symmetry anew, refines the crystal to it, and lets FIRE start afresh. Two things differ, and
``docs/parity.md`` shows what comes of them: a crystal whose last refinement disturbs the forces gets another
round instead of being given up, and the relaxed cell is the refined one, so that phonopy finds the symmetry and
needs no superfluous displacement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure
from torch_sim.constraints import FixSymmetry
from torch_sim.models.interface import ModelInterface
from torch_sim.optimizers import CellFireState
from torch_sim.optimizers.fire import fire_init, fire_step
from torch_sim.symmetrize import refine_and_prep_symmetry

from phononbench_flows.engine.batch import Budget, Failure, Guard, delivering, isolate
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import Relaxation

# Nothing solid is denser or thinner than this (Å^3 per atom). A cell on its way out of these bounds would make the
# neighbour list, and with it the memory of the whole batch, grow without end.
_VOLUME_PER_ATOM = (0.5, 5000.0)


@dataclass(frozen=True)
class Relaxed:
    """A crystal at rest, refined to the space group that the relaxation kept.

    Attributes:
        steps, rounds: FIRE steps over all rounds, and the rounds.
        energy_per_atom: eV; max_force: eV/Å; max_stress: largest component, eV/Å^3; of ``structure`` itself.
        volume_change: relaxed volume over the initial one, less one.
        refined: False where the refinement disturbed the forces in the last round and was left out.
        seconds: this crystal's share of the wall time.
    """

    structure: Structure
    steps: int
    rounds: int
    energy_per_atom: float
    max_force: float
    max_stress: float
    volume_change: float
    refined: bool
    seconds: float


@dataclass(frozen=True)
class _Symmetric:
    """A crystal refined to its symmetry, with the operations that keep it."""

    structure: Structure
    rotations: torch.Tensor
    maps: torch.Tensor


@dataclass
class _Task:
    index: int
    initial: Structure
    start: _Symmetric | None = None
    steps: int = 0
    rounds: int = 0
    seconds: float = 0.0
    current: Structure = field(init=False)
    reached: bool = False

    def __post_init__(self) -> None:
        self.current = self.initial

    def reset(self) -> None:
        """Back to the beginning, after the batch that it was in broke off."""
        self.current, self.start, self.steps, self.rounds, self.reached = self.initial, None, 0, 0, False


@dataclass(frozen=True)
class _Evaluated:
    """Energy (eV), largest force on an atom (eV/Å), largest component of the stress (eV/Å^3), and ``largest``: the
    largest force on an atom or, as ASE's FrechetCellFilter counts it, on the cell (eV/Å); infinite if not finite.
    """

    energy: float
    max_force: float
    max_stress: float
    largest: float


def _ignore(index: int, result: Relaxed | Failure) -> None:
    """Nobody wants to hear of single results."""


def relax(
    structures: Sequence[Structure],
    model: ModelInterface,
    settings: Relaxation,
    *,
    budget: Budget | None = None,
    on_result: Callable[[int, Relaxed | Failure], None] = _ignore,
) -> list[Relaxed | Failure]:
    """Relax many crystals; a result or a Failure in each place.

    Parameters:
        structures: ordered crystals.
        model: float64 torch-sim model with forces and stress.
        settings: targets and limits.
        budget: atoms per batch.
        on_result: called with index and result as soon as a crystal is finished.
    """
    guard, budget = Guard(model), budget or Budget.for_device(model.device)
    results: list[Relaxed | Failure | None] = [None] * len(structures)
    deliver = delivering(on_result)

    def finish(task: _Task, result: Relaxed | Failure) -> None:
        results[task.index] = result
        deliver(task.index, result)

    def compute(batch: list[_Task]) -> None:
        for task in batch:
            task.reset()
        _relax_batch(batch, guard, settings, finish)

    def atoms(task: _Task) -> int:
        return len(task.initial)

    waiting = [_Task(i, s) for i, s in enumerate(structures)]
    while waiting:  # batch by batch, since the budget may shrink on the way
        batch = next(budget.fill(waiting, atoms))
        waiting = waiting[len(batch) :]
        isolate(
            batch,
            compute,
            atoms=atoms,
            budget=budget,
            unfinished=lambda task: results[task.index] is None,
            fail=finish,
        )
    return [r if r is not None else Failure(Reason.EXCEPTION, "no result") for r in results]


def _relax_batch(
    tasks: list[_Task], guard: Guard, settings: Relaxation, finish: Callable[[_Task, Relaxed | Failure], None]
) -> None:
    for task in tasks:
        task.start = _symmetric(task.initial, settings.symprec)
    while tasks:
        alive = _round(tasks, guard, settings, finish)
        tasks = _close_round(alive, guard, settings, finish) if alive else []


def _round(
    tasks: list[_Task], guard: Guard, settings: Relaxation, finish: Callable[[_Task, Relaxed | Failure], None]
) -> list[_Task]:
    """One FIRE run of many crystals; those that fail leave for good, the others come back with where they got."""
    state = _initial_state([t.start for t in tasks if t.start is not None], guard)
    running, alive = list(tasks), []
    for task in tasks:
        task.rounds += 1
    for step in range(settings.steps_per_round + 1):
        began = time.perf_counter()
        largest = torch.maximum(ts.system_wise_max_force(state), state.cell_forces.norm(dim=2).amax(dim=1))
        reached = largest < settings.target_force
        volume = torch.linalg.det(state.cell).abs() / state.n_atoms_per_system
        collapsed = (volume < _VOLUME_PER_ATOM[0]) | (volume > _VOLUME_PER_ATOM[1])
        exploded = largest > settings.max_force
        last = torch.full_like(reached, step == settings.steps_per_round)
        leaving = (reached | guard.bad | exploded | collapsed | last).cpu()
        if leaving.any():
            bad, burst = guard.bad.cpu(), (exploded | collapsed).cpu()
            arrived, stays = reached.cpu(), []
            for i, task in enumerate(running):
                if not leaving[i]:
                    stays.append(task)
                elif bad[i]:
                    finish(task, Failure(Reason.NOT_FINITE, "the potential gave no finite energy, force or stress"))
                elif burst[i]:
                    finish(task, _burst(float(largest[i]), float(volume[i])))
                else:
                    task.current, task.reached = _structure(state, i, task.current), bool(arrived[i])
                    alive.append(task)
            if not stays:
                return alive
            state.pop(torch.nonzero(leaving).flatten().to(state.device))
            running = stays
        state = cast("CellFireState", fire_step(state, guard))
        share = (time.perf_counter() - began) / len(running)
        for task in running:
            task.steps += 1
            task.seconds += share
    return alive


def _burst(force: float, volume: float) -> Failure:
    return Failure(
        Reason.FORCES_EXPLODED, f"the relaxation blew up: largest force {force:.3g} eV/Å, {volume:.3g} Å^3 per atom"
    )


def _close_round(
    tasks: list[_Task], guard: Guard, settings: Relaxation, finish: Callable[[_Task, Relaxed | Failure], None]
) -> list[_Task]:
    """Refine what a round arrived at and look at its forces; give back the crystals that need another round."""
    began = time.perf_counter()
    for task in tasks:
        task.start = _symmetric(task.current, settings.symprec)
    refined = _evaluate([t.start.structure for t in tasks if t.start is not None], guard)
    share = (time.perf_counter() - began) / len(tasks)
    again = []
    for task, evaluated in zip(tasks, refined, strict=True):
        task.seconds += share
        good = evaluated.largest <= settings.accept_force
        last = task.rounds == settings.rounds
        if good and (task.reached or last) and task.start is not None:
            finish(task, _relaxed(task, task.start.structure, evaluated, refined=True))
        elif not last:
            again.append(task)
        else:
            # The refinement spoils it, or it never came to rest: as it stands, without refinement, may still do.
            (plain,) = _evaluate([task.current], guard)
            if plain.largest <= settings.accept_force:
                finish(task, _relaxed(task, task.current, plain, refined=False))
            else:
                text = f"largest force {plain.largest:.4g} eV/Å after {task.steps} steps in {task.rounds} rounds"
                finish(task, Failure(Reason.NOT_CONVERGED, f"{text}; at most {settings.accept_force} is accepted"))
    return again


def _relaxed(task: _Task, structure: Structure, evaluated: _Evaluated, *, refined: bool) -> Relaxed:
    return Relaxed(
        structure=structure,
        steps=task.steps,
        rounds=task.rounds,
        energy_per_atom=evaluated.energy / len(structure),
        max_force=evaluated.max_force,
        max_stress=evaluated.max_stress,
        volume_change=structure.volume / task.initial.volume - 1,
        refined=refined,
        seconds=task.seconds,
    )


def _symmetric(structure: Structure, symprec: float) -> _Symmetric:
    """Find the symmetry at ``symprec`` (Å) and move cell and atoms to where it is exact."""
    cell, positions, rotations, maps = refine_and_prep_symmetry(
        torch.tensor(structure.lattice.matrix, dtype=torch.float64),
        torch.tensor(structure.cart_coords, dtype=torch.float64),
        torch.tensor(structure.atomic_numbers, dtype=torch.int64),
        symprec=symprec,
    )
    if len(rotations) == 1:  # P1: there is nothing to refine, and not moving anything is exact
        return _Symmetric(structure, rotations, maps)
    return _Symmetric(_with_geometry(structure, cell.numpy(), positions.numpy()), rotations, maps)


def _initial_state(starts: list[_Symmetric], guard: Guard) -> CellFireState:
    state = ts.io.structures_to_state([s.structure for s in starts], device=guard.device, dtype=guard.dtype)
    # torch-sim keeps symmetry in a loop over systems: leave out those that have none.
    constrained = [i for i, s in enumerate(starts) if len(s.rotations) > 1]
    if constrained:
        constraint = FixSymmetry(
            [starts[i].rotations.to(state.device) for i in constrained],
            [starts[i].maps.to(state.device) for i in constrained],
            system_idx=torch.tensor(constrained, device=state.device),
        )
        state.constraints = [constraint]
    moving = cast("CellFireState", fire_init(state, guard, cell_filter=ts.CellFilter.frechet))
    moving.set_constrained_forces(moving.forces)
    return moving


def _evaluate(structures: list[Structure], guard: Guard) -> list[_Evaluated]:
    state = ts.io.structures_to_state(structures, device=guard.device, dtype=guard.dtype)
    output = guard(state)
    forces = torch.zeros(len(structures), dtype=guard.dtype, device=guard.device).scatter_reduce(
        0, state.system_idx, output["forces"].norm(dim=1), reduce="amax"
    )
    stress = output["stress"]
    per_atom = torch.linalg.det(state.cell).abs() / state.n_atoms_per_system
    largest = torch.maximum(forces, (stress * per_atom[:, None, None]).norm(dim=2).amax(dim=1))
    largest = torch.where(guard.bad, torch.inf, largest)
    columns = (output["energy"], forces, stress.abs().amax(dim=(1, 2)), largest)
    return [_Evaluated(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _structure(state: ts.SimState, system: int, like: Structure) -> Structure:
    cell = state.row_vector_cell[system].cpu().numpy()
    return _with_geometry(like, cell, state.positions[state.system_idx == system].cpu().numpy())


def _with_geometry(like: Structure, cell: np.ndarray, positions: np.ndarray) -> Structure:
    return Structure(Lattice(cell), like.species, positions, coords_are_cartesian=True)
