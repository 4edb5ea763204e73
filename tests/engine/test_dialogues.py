"""Crystals that ask for forces one after another share calls, and one that fails harms no other."""

from __future__ import annotations

import numpy as np
import pytest
from phonopy.structure.atoms import PhonopyAtoms
from toy_potentials import NAN_ELEMENT, RAISING_ELEMENT, Toy, limited

from phononbench_flows.engine.batch import Budget
from phononbench_flows.engine.dialogues import hold, side_by_side
from phononbench_flows.engine.trouble import Failure, Found, UndeliverableError
from phononbench_flows.outcomes import Reason


def cell(symbol_number: int = 29, shift: float = 0.0) -> PhonopyAtoms:
    positions = [[shift, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return PhonopyAtoms(cell=np.eye(3) * 3.6, numbers=[symbol_number] * 4, scaled_positions=positions)


def asks(*rounds: int, number: int = 29):
    """A dialogue that wants so many cells in each round, and returns all forces on the first atom that it was told."""

    def dialogue():
        told = []
        for wanted in rounds:
            answers = yield [cell(number, 0.01 * (k + 1)) for k in range(wanted)]
            told += [answer.forces[0, 0] for answer in answers]
        return told

    return dialogue


def test_each_is_told_what_it_asked_for_whoever_shares_the_call():
    alone = [hold([asks(*rounds)], Toy())[0].result for rounds in ((1,), (3, 1), (2, 2, 2))]
    sizes = []
    together = hold(
        [asks(1), asks(3, 1), asks(2, 2, 2)], Toy(lambda state: sizes.append(state.n_systems)), budget=Budget(1000)
    )
    assert sizes == [6, 3, 2]
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(found.result, expected, rtol=0, atol=1e-12)
    assert [found.evaluations for found in together] == [4, 16, 24]
    assert all(found.seconds > 0 for found in together)


def test_one_that_ends_at_once_needs_no_call():
    def nothing():
        return "all known"
        yield  # what makes it a dialogue

    calls = []
    [found] = hold([nothing], Toy(calls.append))
    assert (found.result, found.evaluations, calls) == ("all known", 0, [])


@pytest.mark.parametrize("budget", [4, 9, 1000])
def test_one_that_fails_harms_no_other(budget):
    def raises():
        yield [cell()]
        raise ValueError("it does not converge")

    def wants_nothing():
        yield []

    told = []
    found = hold(
        [asks(2), raises, asks(2, number=NAN_ELEMENT), asks(1, number=RAISING_ELEMENT), wants_nothing, asks(1, 1)],
        Toy(),
        budget=Budget(budget),
        on_result=lambda index, result: told.append(index),
    )
    assert [type(each) for each in found] == [Found, Failure, Failure, Failure, Failure, Found]
    assert [each.reason for each in found[1:5]] == [
        Reason.EXCEPTION,
        Reason.NOT_FINITE,
        Reason.EXCEPTION,
        Reason.EXCEPTION,
    ]
    assert "it does not converge" in found[1].detail
    assert sorted(told) == list(range(6))


def test_memory_that_runs_out_halves_the_batches():
    found = hold([asks(3), asks(3)], limited(8), budget=Budget(24))
    assert [len(each.result) for each in found] == [3, 3]
    [alone] = hold([asks(1)], limited(3), budget=Budget(24))
    assert alone.reason == Reason.OUT_OF_MEMORY


def test_a_result_that_nobody_can_take_ends_the_run():
    def refuse(*_):
        raise OSError("the disk is full")

    with pytest.raises(UndeliverableError, match="the disk is full"):
        hold([asks(1)], Toy(), on_result=refuse)


def test_dialogues_side_by_side_are_one():
    def both():
        return (yield from side_by_side([asks(2, 1)(), asks(1)(), asks(1, 1, 1)()]))

    [found] = hold([both], Toy())
    expected = [hold([asks(*rounds)], Toy())[0].result for rounds in ((2, 1), (1,), (1, 1, 1))]
    for one, other in zip(found.result, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
