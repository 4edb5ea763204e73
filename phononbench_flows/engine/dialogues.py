"""Crystals that ask for forces, look at the answer, and ask again: many of them share the calls of the model.

What to compute next may depend on what was found: each crystal is a generator that yields the cells that it wants
computed, and is sent what the potential says of them. Cells of many crystals go into one call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import isgenerator
from typing import Any, cast

import numpy as np
import torch
import torch_sim as ts
from phonopy.structure.atoms import PhonopyAtoms
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget, FiniteOutputModel, bisect_failures, delivering
from phononbench_flows.engine.trouble import Failure, Found
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
"""Yields cells, is sent an answer for each, and returns what it found, or a Failure."""


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


@dataclass(eq=False)
class _Speaker:
    """A crystal under way, with the cells that wait for an answer."""

    tell: Callable[[Found[Any] | Failure], None]
    dialogue: Dialogue | None = None
    wanted: list[PhonopyAtoms] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    seconds: float = 0.0
    evaluations: int = 0
    ended: bool = False


@dataclass(frozen=True)
class _Item:
    speaker: _Speaker
    number: int

    @property
    def cell(self) -> PhonopyAtoms:
        return self.speaker.wanted[self.number]

    @property
    def is_unfinished(self) -> bool:
        return not self.speaker.ended and self.number not in self.speaker.answers


def _size(item: _Item) -> int:
    return len(item.cell)


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
    talk, deliver = Talk(model, budget or Budget.for_device(model.device)), delivering(on_result)
    results: dict[int, Found[Any] | Failure] = {}

    def end(index: int, result: Found[Any] | Failure) -> None:
        results[index] = result
        deliver(index, result)

    waiting = list(enumerate(dialogues))[::-1]
    while waiting or talk.n_atoms:
        while waiting and not talk.is_full:
            index, begin = waiting.pop()
            talk.begin(begin, partial(end, index))
        talk.compute_batch()
    return [results[index] for index in range(len(dialogues))]


class Talk:
    """Crystals whose cells share batches; they join at any time.

    Parameters:
        model: float64 torch-sim model with forces; None where nobody asks for any.
        budget: atoms per batch.
    """

    def __init__(self, model: ModelInterface | None, budget: Budget) -> None:
        self._model, self._budget = FiniteOutputModel(model) if model is not None else None, budget
        self._speakers: list[_Speaker] = []

    @property
    def n_atoms(self) -> int:
        """Atoms in the cells that wait; none if all crystals have ended."""
        return sum(map(_size, self._items()))

    @property
    def is_full(self) -> bool:
        """Whether a batch's worth of cells waits."""
        return self.n_atoms >= self._budget.max_atoms

    def begin(self, compute: Callable[[], Dialogue | Any], tell: Callable[[Found[Any] | Failure], None]) -> None:
        """Let a crystal say what it wants first.

        Parameters:
            compute: begins its dialogue, or gives what is found without the potential.
            tell: called with what was found, or why nothing was.
        """
        speaker = _Speaker(tell)

        def opened(_: list[_Speaker]) -> None:
            began = time.perf_counter()
            found = compute()
            speaker.seconds += time.perf_counter() - began
            if isgenerator(found):
                speaker.dialogue = cast("Dialogue", found)
                self._advance(speaker, None)
            else:
                self._found(speaker, found)

        self._speakers.append(speaker)
        self._alone(speaker, opened)

    def compute_batch(self) -> None:
        """Compute one batch of what is wanted; crystals that have all their answers go on."""
        items = self._items()
        if not items:
            return
        batch = self._budget.fill(items, _size)
        bisect_failures(
            batch,
            self._compute,
            atoms=_size,
            budget=self._budget,
            unfinished=lambda item: item.is_unfinished,
            fail=lambda item, failure: self._end(item.speaker, failure),
        )
        for speaker in list(self._speakers):
            if len(speaker.answers) == len(speaker.wanted):
                self._alone(speaker, self._answer)

    def _items(self) -> list[_Item]:
        items = (_Item(speaker, number) for speaker in self._speakers for number in range(len(speaker.wanted)))
        return [item for item in items if item.is_unfinished]

    def _compute(self, items: list[_Item]) -> None:
        began = time.perf_counter()
        if self._model is None:
            raise ValueError("forces are asked for without a potential")
        state = ts.initialize_state([item.cell for item in items], self._model.device, self._model.dtype)
        output = self._model(state)
        sizes = list(map(_size, items))
        forces = [each.numpy() for each in torch.split(output["forces"].detach().cpu(), sizes)]
        stresses = output["stress"].detach().cpu().numpy() if "stress" in output else [None] * len(items)
        energies, bads = output["energy"].detach().cpu().tolist(), self._model.bad.tolist()
        share = (time.perf_counter() - began) / sum(sizes)
        for item, size, force, stress, energy, bad in zip(items, sizes, forces, stresses, energies, bads, strict=True):
            item.speaker.seconds += share * size
            item.speaker.evaluations += size
            if bad and not item.speaker.ended:
                self._end(item.speaker, Failure(Reason.NOT_FINITE, "no finite forces in a displaced cell"))
            item.speaker.answers[item.number] = Answer(force, stress, energy)

    def _answer(self, speakers: list[_Speaker]) -> None:
        for speaker in speakers:
            self._advance(speaker, [speaker.answers[number] for number in range(len(speaker.wanted))])

    def _advance(self, speaker: _Speaker, answers: list[Answer] | None) -> None:
        began = time.perf_counter()
        try:
            speaker.wanted, speaker.answers = speaker.dialogue.send(answers), {}  # type: ignore[arg-type, union-attr]
        except StopIteration as end:
            speaker.seconds += time.perf_counter() - began
            self._found(speaker, end.value)
        else:
            speaker.seconds += time.perf_counter() - began
            if not speaker.wanted:
                raise ValueError("a dialogue that wants nothing computed has to end")

    def _alone(self, speaker: _Speaker, compute: Callable[[list[_Speaker]], None]) -> None:
        """Do something for one crystal; what it raises is this crystal's failure."""
        bisect_failures(
            [speaker],
            compute,
            atoms=lambda _: 1,
            budget=self._budget,
            unfinished=lambda each: not each.ended,
            fail=self._end,
        )

    def _found(self, speaker: _Speaker, found: Any) -> None:
        is_failure = isinstance(found, Failure)
        self._end(speaker, found if is_failure else Found(found, speaker.seconds, speaker.evaluations))

    def _end(self, speaker: _Speaker, result: Found[Any] | Failure) -> None:
        self._speakers.remove(speaker)
        speaker.ended = True
        speaker.tell(result)
