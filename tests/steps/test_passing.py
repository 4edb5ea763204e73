"""Crystals go through their steps without waiting for each other, and batches are filled with whatever waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pymatgen.core import Structure
from screened import TOY, blank, crystal_set
from toy_potentials import Toy

from phononbench_flows import potentials
from phononbench_flows.engine.batch import Budget
from phononbench_flows.engine.trouble import MachineError, UndeliverableError
from phononbench_flows.outcomes import SCREENED, Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.steps import ALWAYS, StepInput, Tools, find_step
from phononbench_flows.steps.passing import pass_steps

PAPER = PRESETS["paper"]
QUICK = PAPER.model_copy(update={"spectrum": PAPER.spectrum.model_copy(update={"path_points": 11, "mesh": (4, 4, 4)})})
RELAXATION, FORCE_CONSTANTS, SPECTRUM = ALWAYS


@pytest.fixture
def potential():
    return potentials.load(TOY, "cpu")


class Passing:
    """Crystals of a set that pass steps, and what is heard of it."""

    def __init__(self, structures: list[Structure]) -> None:
        self.passed: list[tuple[str, str]] = []
        self.arrays: dict[str, dict] = {}
        self.inputs = [self._input(str(i), structure) for i, structure in enumerate(structures)]

    def _input(self, name: str, structure: Structure) -> StepInput:
        document = blank(crystal_set(protocol=QUICK), name)
        document.stage, document.nsites = SCREENED, len(structure)
        kept = self.arrays.setdefault(document.key, {})
        return StepInput(document, lambda: structure, kept.__getitem__)

    def write(self, document, arrays) -> None:
        self.arrays[document.key].update(arrays)
        self.passed.append((document.id.removeprefix("toys-"), document.stage))

    def run(self, tools: Tools, steps=ALWAYS, crystals=None) -> list[tuple[str, str]]:
        pass_steps(crystals or self.inputs, [find_step(step) for step in steps], tools, self.write)
        return self.passed


def test_a_straggler_holds_nobody_up(potential, fcc, simple_cubic, low_symmetry):
    passing = Passing([low_symmetry, fcc, simple_cubic])
    passed = passing.run(Tools(QUICK, potential))
    assert len(passed) == 9
    # The two that are at rest are judged while the first is still relaxed.
    assert passed.index(("1", SPECTRUM)) < passed.index(("0", RELAXATION))
    assert passed.index(("2", SPECTRUM)) < passed.index(("0", RELAXATION))
    assert [each.document.status for each in passing.inputs] == ["stable", "stable", "unstable"]


def test_batches_are_filled_with_whatever_waits(potential, fcc, cu3au, simple_cubic):
    sizes: list[int] = []
    watched = replace(potential, model=Toy(lambda state: sizes.append(state.n_atoms)))
    strained = [each.copy() for each in [fcc, cu3au, simple_cubic] * 12]
    for number, structure in enumerate(strained):
        structure.apply_strain(0.002 * (number % 7))
    passing = Passing(strained)
    passing.run(Tools(QUICK, watched, Budget(128)))
    assert all(each.document.status != Status.PENDING for each in passing.inputs)
    assert max(sizes) <= 128
    # Not those of the beginning, when nobody is relaxed, and of the end, when nobody new comes.
    middle = sizes[len(sizes) // 8 : -len(sizes) // 4]
    assert sum(middle) / len(middle) > 0.4 * 128


def test_each_goes_on_from_where_it_stands(potential, fcc, simple_cubic):
    passing = Passing([fcc, simple_cubic])
    passing.run(Tools(QUICK, potential), [RELAXATION, FORCE_CONSTANTS], passing.inputs[:1])
    assert passing.inputs[0].document.status == Status.PENDING, "the last of the steps is not the protocol's last"
    passing.passed.clear()
    assert passing.run(Tools(QUICK, potential)) == [
        ("0", SPECTRUM),
        ("1", RELAXATION),
        ("1", FORCE_CONSTANTS),
        ("1", SPECTRUM),
    ]


def test_who_is_not_to_be_begun_yet_comes_later(potential, fcc, simple_cubic):
    passing = Passing([fcc, simple_cubic])

    def one_at_a_time():
        for each in passing.inputs:
            yield each
            while each.document.status == Status.PENDING:
                yield None

    passed = passing.run(Tools(QUICK, potential), crystals=one_at_a_time())
    assert passed == [(name, step) for name in "01" for step in ALWAYS]


def test_spectra_alone_need_no_potential(potential, fcc):
    passing = Passing([fcc])
    passing.run(Tools(QUICK, potential), [RELAXATION, FORCE_CONSTANTS])
    passing.run(Tools(QUICK), [SPECTRUM])
    assert passing.inputs[0].document.status == Status.STABLE


def test_what_nobody_can_take_ends_the_run(potential, fcc):
    passing = Passing([fcc])

    def full(*_):
        raise OSError("the disk is full")

    with pytest.raises(UndeliverableError, match="the disk is full"):
        pass_steps(passing.inputs, [find_step(step) for step in ALWAYS], Tools(QUICK, potential), full)


def test_an_exception_of_a_crystal_asks_for_a_healthy_one(potential, fcc, monkeypatch):
    poisoned = Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords)
    passing = Passing([poisoned, fcc])
    passing.run(Tools(QUICK, potential))
    assert [each.document.status for each in passing.inputs] == ["failed", "stable"]
    monkeypatch.setattr(type(potential), "check", lambda self: 1 / 0)
    broken = Passing([poisoned])
    with pytest.raises(MachineError, match="a healthy crystal fails too"):
        broken.run(Tools(QUICK, potential))
    assert broken.passed == []
