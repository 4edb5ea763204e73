"""Relaxation: batched FIRE or L-BFGS on cells and positions, keeping the symmetry that a crystal has.

The rounds follow the released scripts of PhononBench (ASE FIRE on a FrechetCellFilter with FixSymmetry): each
round finds the symmetry anew, refines the crystal to it, and lets FIRE start afresh. Crystals go through their rounds
independently: who needs another one starts it at once, and who is done makes room for the next. Two things differ, and
``docs/parity.md`` shows what comes of them: a crystal whose last refinement disturbs the forces gets another
round instead of being given up, and the relaxed cell is the refined one, so that phonopy finds the symmetry and
needs no superfluous displacement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from pymatgen.core import Structure
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget, Failure, FiniteOutputModel, bisect_failures, delivering
from phononbench_flows.engine.fire import (
    ConvergenceState,
    FireBatch,
    SymmetrizedStructure,
    symmetric,
    symmetric_state,
    without_symmetry,
)
from phononbench_flows.engine.lbfgs import LbfgsBatch
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import RelaxationSettings

# Nothing solid is denser or thinner than this (Å^3 per atom). A cell on its way out of these bounds would make the
# neighbour list, and with it the memory of the whole batch, grow without end.
_VOLUME_PER_ATOM = (0.5, 5000.0)

_GIVEN_UP = {Reason.NOT_CONVERGED, Reason.FORCES_EXPLODED}
_LBFGS_ROUNDS = 3  # after so many, a crystal starts again with FIRE


@dataclass(frozen=True)
class Relaxed:
    """A crystal at rest, refined to the space group that the relaxation kept.

    Attributes:
        steps, rounds: optimizer steps over all rounds, and the rounds.
        energy_per_atom: eV; max_force: eV/Å; max_stress: largest component, eV/Å^3; of ``structure`` itself, as far as
            its symmetry allows them.
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


@dataclass
class _Task:
    index: int
    initial: Structure
    start: SymmetrizedStructure = field(init=False)
    current: Structure = field(init=False)
    rounds: int = 0
    steps: int = 0
    steps_of_round: int = 0
    seconds: float = 0.0
    reached: bool = False

    def begin_round(self, symprec: float) -> None:
        if self.rounds == 0:
            self.start = symmetric(self.initial, symprec)
        self.rounds += 1
        self.steps_of_round = 0


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
    settings: RelaxationSettings,
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
    finite, budget = FiniteOutputModel(model), budget or Budget.for_device(model.device)
    results: list[Relaxed | Failure | None] = [None] * len(structures)
    deliver = delivering(on_result)
    wasted: dict[int, tuple[int, float]] = {}

    def finish(task: _Task, result: Relaxed | Failure) -> None:
        if isinstance(result, Relaxed) and task.index in wasted:
            steps, seconds = wasted[task.index]
            result = replace(result, steps=result.steps + steps, seconds=result.seconds + seconds)
        results[task.index] = result
        deliver(task.index, result)

    def finish_or_fall_back(task: _Task, result: Relaxed | Failure) -> None:
        if isinstance(result, Failure) and result.reason in _GIVEN_UP:
            wasted[task.index] = task.steps, task.seconds
        else:
            finish(task, result)

    tasks = [_Task(i, s) for i, s in enumerate(structures)]
    if settings.optimizer == "lbfgs":
        few = settings.model_copy(update={"rounds": min(_LBFGS_ROUNDS, settings.rounds)})
        _relax_all(tasks, _Relaxer(finite, few, budget, finish_or_fall_back, LbfgsBatch))
        tasks = [_Task(i, structures[i]) for i in wasted]
    _relax_all(tasks, _Relaxer(finite, settings, budget, finish, FireBatch))
    return [r if r is not None else Failure(Reason.EXCEPTION, "no result") for r in results]


def _relax_all(tasks: Sequence[_Task], relaxer: _Relaxer) -> None:
    """Relax crystals, in batches that the next ones join as others leave."""
    waiting, ended = list(tasks), set[int]()

    def finish(task: _Task, result: Relaxed | Failure) -> None:
        ended.add(task.index)
        relaxer.finish(task, result)

    inner, budget = replace(relaxer, finish=finish), relaxer.budget
    while waiting:  # once, unless a batch breaks off
        batch = budget.fill(waiting, _atoms)
        del waiting[: len(batch)]

        def compute(tasks: list[_Task], whole: list[_Task] = batch) -> None:
            # A half of a batch that broke off takes nobody in, or the culprit in it would never be alone.
            inner.compute(tasks, waiting if tasks is whole else [])

        bisect_failures(
            batch, compute, atoms=_atoms, budget=budget, unfinished=lambda t: t.index not in ended, fail=finish
        )


def _atoms(task: _Task) -> int:
    return len(task.initial)


@dataclass(frozen=True)
class _Relaxer:
    """Crystals relaxed together, each in its own round."""

    finite: FiniteOutputModel
    settings: RelaxationSettings
    budget: Budget
    finish: Callable[[_Task, Relaxed | Failure], None]
    new_batch: Callable[[FiniteOutputModel], FireBatch]

    def compute(self, tasks: list[_Task], waiting: list[_Task]) -> None:
        """Relax ``tasks`` and all of ``waiting`` that find room; ``tasks`` is kept to those on their way."""
        batch, active, starting = self.new_batch(self.finite), list[_Task](), list(tasks)
        for task in starting:
            task.rounds = task.steps = 0  # the batch that it was in may have broken off
        while starting or active:
            began = time.perf_counter()
            if starting:
                for task in starting:
                    task.begin_round(self.settings.symprec)
                batch.join([task.start for task in starting])
                active += starting
            active, ended = self._take_out(batch, active)
            if active:
                batch.step()
                for task in active:
                    task.steps, task.steps_of_round = task.steps + 1, task.steps_of_round + 1
            starting = self._closing(ended) if ended else []
            share = (time.perf_counter() - began) / max(1, len(active) + len(ended))
            for task in (*active, *ended):
                task.seconds += share
            starting += self._admitted(waiting, active + starting)
            tasks[:] = active + starting

    def _take_out(self, batch: FireBatch, active: list[_Task]) -> tuple[list[_Task], list[_Task]]:
        """Take out whose round has ended; gives those that stay, and those that ended. The lost are in neither."""
        staying, ending, lost = [], [], []
        for i, (task, state) in enumerate(zip(active, batch.look(), strict=True)):
            task.reached = state.largest < self.settings.target_force
            if failure := _lost(state, self.settings):
                lost.append(i)
                self.finish(task, failure)
            elif task.reached or task.steps_of_round == self.settings.steps_per_round:
                ending.append(i)
            else:
                staying.append(task)
        structures = batch.leave(ending + lost)
        ended = [active[i] for i in ending]
        for task, structure in zip(ended, structures, strict=False):
            task.current = structure
        return staying, ended

    def _closing(self, ended: list[_Task]) -> list[_Task]:
        """Refine what a round ended at and look at its forces; gives those that need another round."""
        for task in ended:
            task.start = symmetric(task.current, self.settings.symprec)
        again = []
        for task, refined in zip(ended, _evaluate([t.start for t in ended], self.finite), strict=True):
            good = refined.largest <= self.settings.accept_force
            last = task.rounds == self.settings.rounds
            if good and (task.reached or last):
                self.finish(task, _relaxed(task, task.start.structure, refined, refined=True))
            elif last:
                self.finish(task, self._unrefined(task))
            else:
                again.append(task)
        return again

    def _unrefined(self, task: _Task) -> Relaxed | Failure:
        """The refinement spoils it, or it never came to rest: as it stands, without refinement, may still do."""
        (plain,) = _evaluate([without_symmetry(task.current)], self.finite)
        if plain.largest <= self.settings.accept_force:
            return _relaxed(task, task.current, plain, refined=False)
        text = f"largest force {plain.largest:.4g} eV/Å after {task.steps} steps in {task.rounds} rounds"
        return Failure(Reason.NOT_CONVERGED, f"{text}; at most {self.settings.accept_force} is accepted")

    def _admitted(self, waiting: list[_Task], active: list[_Task]) -> list[_Task]:
        """Those waiting that find room beside those active; they are taken out of ``waiting``."""
        room = self.budget.max_atoms - sum(map(_atoms, active))
        admitted: list[_Task] = []
        while waiting and _atoms(waiting[0]) <= room:
            admitted.append(waiting.pop(0))
            room -= _atoms(admitted[-1])
        return admitted


def _lost(state: ConvergenceState, settings: RelaxationSettings) -> Failure | None:
    if state.bad:
        return Failure(Reason.NOT_FINITE, "the potential gave no finite energy, force or stress")
    low, high = _VOLUME_PER_ATOM
    if state.largest <= settings.max_force and low <= state.volume <= high:
        return None
    text = f"largest force {state.largest:.3g} eV/Å, {state.volume:.3g} Å^3 per atom"
    return Failure(Reason.FORCES_EXPLODED, f"the relaxation blew up: {text}")


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


def _evaluate(crystals: list[SymmetrizedStructure], finite: FiniteOutputModel) -> list[_Evaluated]:
    """Energy, forces and stress, of which only what the crystal's symmetry allows counts.

    That is what FIRE sees, and by what the released scripts accept a crystal. A potential may leave more: SevenNet-0 is
    not invariant under reflections, and was seen to leave forces of 0.007 eV/Å across a mirror plane.
    """
    state = symmetric_state(crystals, finite)
    output = finite(state)
    atomic, stress = output["forces"], output["stress"]
    for constraint in state.constraints:
        constraint.adjust_forces(state, atomic)
        constraint.adjust_stress(state, stress)
    forces = torch.zeros(len(crystals), dtype=finite.dtype, device=finite.device).scatter_reduce(
        0, state.system_idx, atomic.norm(dim=1), reduce="amax"
    )
    per_atom = torch.linalg.det(state.cell).abs() / state.n_atoms_per_system
    largest = torch.maximum(forces, (stress * per_atom[:, None, None]).norm(dim=2).amax(dim=1))
    largest = torch.where(finite.bad, torch.inf, largest)
    columns = (output["energy"], forces, stress.abs().amax(dim=(1, 2)), largest)
    return [_Evaluated(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
