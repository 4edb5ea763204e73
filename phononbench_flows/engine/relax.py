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
from dataclasses import dataclass, field
from functools import partial

import torch
from pymatgen.core import Structure
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget, FiniteOutputModel, bisect_failures, delivering
from phononbench_flows.engine.fire import (
    ConvergenceState,
    FireBatch,
    SymmetrizedStructure,
    symmetric,
    symmetric_state,
    without_symmetry,
)
from phononbench_flows.engine.lbfgs import LbfgsBatch
from phononbench_flows.engine.trouble import Failure, Found
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
    """

    structure: Structure
    steps: int
    rounds: int
    energy_per_atom: float
    max_force: float
    max_stress: float
    volume_change: float
    refined: bool


@dataclass(eq=False)
class _Task:
    """A crystal on its way.

    Attributes:
        calls: of the potential, of which each computes all of the crystal's atoms.
        wasted_steps: of an optimizer that gave it up.
    """

    initial: Structure
    tell: Callable[[Found[Relaxed] | Failure], None]
    start: SymmetrizedStructure = field(init=False)
    current: Structure = field(init=False)
    rounds: int = 0
    steps: int = 0
    wasted_steps: int = 0
    steps_of_round: int = 0
    calls: int = 0
    seconds: float = 0.0
    reached: bool = False
    ended: bool = False

    @property
    def natoms(self) -> int:
        return len(self.initial)

    def begin_anew(self) -> None:
        self.rounds = self.steps = 0

    def begin_round(self, symprec: float) -> None:
        if self.rounds == 0:
            self.start = symmetric(self.initial, symprec)
        self.rounds += 1
        self.steps_of_round = 0

    def end(self, result: Relaxed | Failure) -> None:
        self.ended = True
        evaluations = self.calls * self.natoms
        self.tell(result if isinstance(result, Failure) else Found(result, self.seconds, evaluations))


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
    results: dict[int, Relaxed | Failure] = {}
    deliver = delivering(on_result)

    def end(index: int, found: Found[Relaxed] | Failure) -> None:
        results[index] = found if isinstance(found, Failure) else found.result
        deliver(index, results[index])

    relaxation = Relaxation(model, settings, budget or Budget.for_device(model.device))
    waiting = list(enumerate(structures))[::-1]
    while waiting or relaxation.n_crystals:
        while waiting and relaxation.has_room(len(waiting[-1][1])):
            index, structure = waiting.pop()
            relaxation.add(structure, partial(end, index))
        relaxation.advance()
    return [results[index] for index in range(len(structures))]


class Relaxation:
    """Crystals that relax side by side, joined by others at any time.

    Parameters:
        model: float64 torch-sim model with forces and stress.
        settings: targets and limits.
        budget: atoms per batch.
    """

    def __init__(self, model: ModelInterface, settings: RelaxationSettings, budget: Budget) -> None:
        self._finite, self._budget = FiniteOutputModel(model), budget
        self._fire = self._new_relaxer(settings, FireBatch, _Task.end)
        self._relaxers = [self._fire]
        if settings.optimizer == "lbfgs":
            few = settings.model_copy(update={"rounds": min(_LBFGS_ROUNDS, settings.rounds)})
            self._relaxers.insert(0, self._new_relaxer(few, LbfgsBatch, self._end_or_fall_back))

    @property
    def n_crystals(self) -> int:
        """Crystals on their way."""
        return sum(len(each.tasks) for each in self._relaxers)

    @property
    def n_atoms(self) -> int:
        """Their atoms."""
        return sum(task.natoms for each in self._relaxers for task in each.tasks)

    def has_room(self, natoms: int) -> bool:
        """Whether so many atoms find room beside those on their way; one crystal alone always does."""
        return not self.n_crystals or self.n_atoms + natoms <= self._budget.max_atoms

    def add(self, structure: Structure, tell: Callable[[Found[Relaxed] | Failure], None]) -> None:
        """Take a crystal in, at the next step.

        Parameters:
            tell: called with what became of it.
        """
        self._relaxers[0].starting.append(_Task(structure, tell))

    def advance(self) -> None:
        """One step of all crystals on their way."""
        for relaxer in self._relaxers:
            if relaxer.tasks:
                self._advance(relaxer)

    def _advance(self, relaxer: _Relaxer) -> None:
        tasks = relaxer.tasks

        def compute(some: list[_Task]) -> None:
            if some is tasks:
                relaxer.advance()
            else:  # a batch has broken off: its halves begin anew, and take nobody in, or the culprit is never alone
                self._new_relaxer(relaxer.settings, relaxer.new_batch, relaxer.end).run(some)

        bisect_failures(
            tasks,
            compute,
            atoms=lambda task: task.natoms,
            budget=self._budget,
            unfinished=lambda task: not task.ended and task not in self._fire.starting,
            fail=relaxer.end,
        )

    def _new_relaxer(
        self,
        settings: RelaxationSettings,
        new_batch: Callable[[FiniteOutputModel], FireBatch],
        end: Callable[[_Task, Relaxed | Failure], None],
    ) -> _Relaxer:
        return _Relaxer(self._finite, settings, new_batch, end)

    def _end_or_fall_back(self, task: _Task, result: Relaxed | Failure) -> None:
        if isinstance(result, Failure) and result.reason in _GIVEN_UP:
            task.wasted_steps = task.steps
            task.begin_anew()
            self._fire.starting.append(task)
        else:
            task.end(result)


@dataclass
class _Relaxer:
    """Crystals that one optimizer relaxes together, each in its own round."""

    finite: FiniteOutputModel
    settings: RelaxationSettings
    new_batch: Callable[[FiniteOutputModel], FireBatch]
    end: Callable[[_Task, Relaxed | Failure], None]
    active: list[_Task] = field(default_factory=list)
    starting: list[_Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._batch = self.new_batch(self.finite)

    @property
    def tasks(self) -> list[_Task]:
        return self.active + self.starting

    def run(self, tasks: Sequence[_Task]) -> None:
        """Relax crystals from their beginning to their end."""
        for task in tasks:
            task.begin_anew()
        self.starting += tasks
        while self.tasks:
            self.advance()

    def advance(self) -> None:
        """One step; where it raises, nobody is on the way any more."""
        try:
            self._advance()
        except BaseException:
            self._batch, self.active, self.starting = self.new_batch(self.finite), [], []
            raise

    def _advance(self) -> None:
        began = time.perf_counter()
        for task in self.starting:
            task.begin_round(self.settings.symprec)
            task.calls += 1
        if self.starting:
            self._batch.join([task.start for task in self.starting])
        self.active, ended = self._take_out(self.active + self.starting)
        if self.active:
            self._batch.step()
        for task in self.active:
            task.steps, task.steps_of_round, task.calls = task.steps + 1, task.steps_of_round + 1, task.calls + 1
        self.starting = self._closing(ended) if ended else []
        share = (time.perf_counter() - began) / max(1, len(self.active) + len(ended))
        for task in (*self.active, *ended):
            task.seconds += share

    def _take_out(self, active: list[_Task]) -> tuple[list[_Task], list[_Task]]:
        """Take out whose round has ended; gives those that stay, and those that ended. The lost are in neither."""
        staying, ending, lost = [], [], []
        for i, (task, state) in enumerate(zip(active, self._batch.look(), strict=True)):
            task.reached = state.largest < self.settings.target_force
            if failure := _lost(state, self.settings):
                lost.append(i)
                self.end(task, failure)
            elif task.reached or task.steps_of_round == self.settings.steps_per_round:
                ending.append(i)
            else:
                staying.append(task)
        structures = self._batch.leave(ending + lost)
        ended = [active[i] for i in ending]
        for task, structure in zip(ended, structures, strict=False):
            task.current = structure
        return staying, ended

    def _closing(self, ended: list[_Task]) -> list[_Task]:
        """Refine what a round ended at and look at its forces; gives those that need another round."""
        for task in ended:
            task.start, task.calls = symmetric(task.current, self.settings.symprec), task.calls + 1
        again = []
        for task, refined in zip(ended, _evaluate([t.start for t in ended], self.finite), strict=True):
            good = refined.largest <= self.settings.accept_force
            last = task.rounds == self.settings.rounds
            if good and (task.reached or last):
                self.end(task, _relaxed(task, task.start.structure, refined, refined=True))
            elif last:
                self.end(task, self._unrefined(task))
            else:
                again.append(task)
        return again

    def _unrefined(self, task: _Task) -> Relaxed | Failure:
        """The refinement spoils it, or it never came to rest: as it stands, without refinement, may still do."""
        (plain,) = _evaluate([without_symmetry(task.current)], self.finite)
        task.calls += 1
        if plain.largest <= self.settings.accept_force:
            return _relaxed(task, task.current, plain, refined=False)
        text = f"largest force {plain.largest:.4g} eV/Å after {task.steps} steps in {task.rounds} rounds"
        return Failure(Reason.NOT_CONVERGED, f"{text}; at most {self.settings.accept_force} is accepted")


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
        steps=task.wasted_steps + task.steps,
        rounds=task.rounds,
        energy_per_atom=evaluated.energy / len(structure),
        max_force=evaluated.max_force,
        max_stress=evaluated.max_stress,
        volume_change=structure.volume / task.initial.volume - 1,
        refined=refined,
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
