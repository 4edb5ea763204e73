"""Crystals that ask for forces, look at the answer, and ask again: many of them share the calls of the model.

What to compute next may depend on what was found: each crystal is a generator that yields the cells that it wants
computed, and is sent what the potential says of them. Cells of many crystals go into one call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch_sim as ts
from phonopy.structure.atoms import PhonopyAtoms
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget, Failure, FiniteOutputModel, bisect_failures, delivering
from phononbench_flows.outcomes import Reason


@dataclass(frozen=True)
class Answer:
    """What the potential says of a cell.

    Attributes:
        forces: (n_atoms, 3), eV/Å.
        stress: (3, 3), eV/Å^3, positive under tension; None if the model gives none.
        energy: of the cell, eV.
    """

    forces: np.ndarray
    stress: np.ndarray | None
    energy: float


Dialogue = Generator[list[PhonopyAtoms], list[Answer], Any]
"""Yields cells, is sent an answer for each, and returns what it found."""


@dataclass(frozen=True)
class Found[R]:
    """What a dialogue returned, the crystal's share of the wall time (s), and atoms that the potential computed."""

    result: R
    seconds: float
    evaluations: int


def side_by_side(dialogues: Sequence[Dialogue]) -> Generator[list[PhonopyAtoms], list[Answer], list[Any]]:
    """One dialogue of several that go on together; gives what each returned."""
    results: dict[int, Any] = {}
    wanted: dict[int, list[PhonopyAtoms]] = {}

    def advance(number: int, answers: list[Answer] | None) -> None:
        try:
            wanted[number] = dialogues[number].send(answers)  # type: ignore[arg-type]
        except StopIteration as end:
            wanted.pop(number, None)
            results[number] = end.value

    for number in range(len(dialogues)):
        advance(number, None)
    while wanted:
        answers = iter((yield [cell for cells in wanted.values() for cell in cells]))
        for number, cells in list(wanted.items()):
            advance(number, [next(answers) for _ in cells])
    return [results[number] for number in range(len(dialogues))]


@dataclass
class _Speaker:
    """A crystal under way, with the cells that wait for an answer."""

    index: int
    dialogue: Dialogue
    wanted: list[PhonopyAtoms] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    seconds: float = 0.0
    evaluations: int = 0


@dataclass(frozen=True)
class _Item:
    speaker: _Speaker
    number: int

    @property
    def cell(self) -> PhonopyAtoms:
        return self.speaker.wanted[self.number]


def hold(
    dialogues: Sequence[Callable[[], Dialogue]],
    model: ModelInterface,
    *,
    budget: Budget | None = None,
    on_result: Callable[[int, Found[Any] | Failure], None] = lambda _index, _result: None,
) -> list[Found[Any] | Failure]:
    """Hold the dialogues of many crystals; what each returned or a Failure in each place.

    A crystal that raises, or whose forces are not finite, fails alone.

    Parameters:
        dialogues: begin a crystal's dialogue, each called when its turn has come.
        model: float64 torch-sim model with forces.
        budget: atoms per batch.
        on_result: called with index and result as soon as a crystal is finished.
    """
    talk = _Talk(model, budget or Budget.for_device(model.device), delivering(on_result))
    waiting = list(enumerate(dialogues))[::-1]
    while waiting or talk.speakers:
        while waiting and talk.n_atoms < talk.budget.max_atoms:
            talk.begin(*waiting.pop())
        talk.compute_batch()
    return [talk.results[index] for index in range(len(dialogues))]


class _Talk:
    """Crystals whose cells share batches."""

    def __init__(self, model: ModelInterface, budget: Budget, on_result: Callable[[int, Any], None]) -> None:
        self.model, self.budget, self.on_result = FiniteOutputModel(model), budget, on_result
        self.speakers: list[_Speaker] = []
        self.results: dict[int, Found[Any] | Failure] = {}

    @property
    def n_atoms(self) -> int:
        """Atoms in the cells that wait."""
        return sum(len(item.cell) for item in self._items())

    def begin(self, index: int, open_dialogue: Callable[[], Dialogue]) -> None:
        """Let a crystal say what it wants first."""

        def opened(_: list[int]) -> None:
            speaker = _Speaker(index, open_dialogue())
            self.speakers.append(speaker)
            self._advance(speaker, None)

        self._alone(index, opened)

    def compute_batch(self) -> None:
        """Compute one batch of what is wanted; crystals that have all their answers go on."""
        items = self._items()
        if not items:
            return
        batch = self.budget.fill(items, lambda item: len(item.cell))
        bisect_failures(
            batch,
            self._compute,
            atoms=lambda item: len(item.cell),
            budget=self.budget,
            unfinished=lambda item: item.number not in item.speaker.answers and not self._ended(item.speaker),
            fail=lambda item, failure: self._end(item.speaker.index, failure),
        )
        for speaker in list(self.speakers):
            if len(speaker.answers) == len(speaker.wanted):
                self._alone(speaker.index, partial(self._answer, speaker))

    def _items(self) -> list[_Item]:
        return [
            _Item(speaker, number)
            for speaker in self.speakers
            for number in range(len(speaker.wanted))
            if number not in speaker.answers
        ]

    def _compute(self, items: list[_Item]) -> None:
        began = time.perf_counter()
        state = ts.initialize_state([item.cell for item in items], self.model.device, self.model.dtype)
        output = self.model(state)
        sizes = [len(item.cell) for item in items]
        forces = [each.numpy() for each in torch.split(output["forces"].detach().cpu(), sizes)]
        stresses = output["stress"].detach().cpu().numpy() if "stress" in output else [None] * len(items)
        energies, bads = output["energy"].detach().cpu().tolist(), self.model.bad.tolist()
        share = (time.perf_counter() - began) / sum(sizes)
        for item, size, force, stress, energy, bad in zip(items, sizes, forces, stresses, energies, bads, strict=True):
            item.speaker.seconds += share * size
            item.speaker.evaluations += size
            if bad and not self._ended(item.speaker):
                self._end(item.speaker.index, Failure(Reason.NOT_FINITE, "no finite forces in a displaced cell"))
            item.speaker.answers[item.number] = Answer(force, stress, energy)

    def _answer(self, speaker: _Speaker, _: list[int]) -> None:
        answers = [speaker.answers[number] for number in range(len(speaker.wanted))]
        self._advance(speaker, answers)

    def _advance(self, speaker: _Speaker, answers: list[Answer] | None) -> None:
        began = time.perf_counter()
        try:
            speaker.wanted, speaker.answers = speaker.dialogue.send(answers), {}  # type: ignore[arg-type]
        except StopIteration as end:
            speaker.seconds += time.perf_counter() - began
            self._end(speaker.index, Found(end.value, speaker.seconds, speaker.evaluations))
        else:
            speaker.seconds += time.perf_counter() - began
            if not speaker.wanted:
                raise ValueError("a dialogue that wants nothing computed has to end")

    def _alone(self, index: int, compute: Callable[[list[int]], None]) -> None:
        """Do something for one crystal; what it raises is this crystal's failure."""
        bisect_failures(
            [index],
            compute,
            atoms=lambda _: 1,
            budget=self.budget,
            unfinished=lambda i: i not in self.results,
            fail=self._end,
        )

    def _ended(self, speaker: _Speaker) -> bool:
        return speaker.index in self.results

    def _end(self, index: int, result: Found[Any] | Failure) -> None:
        self.speakers = [speaker for speaker in self.speakers if speaker.index != index]
        self.results[index] = result
        self.on_result(index, result)
