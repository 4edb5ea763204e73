"""Exact frequencies in the smallest cell that holds a q-point, in both ways."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Structure
from toy_potentials import NAN_ELEMENT, Toy

from phononbench_flows.engine import exact
from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.exact import by_displacements, cells_needed, cost, davidson, rayleigh, smallest_supercell
from phononbench_flows.engine.force_constants import force_constants
from phononbench_flows.engine.interpolation import Interpolation, Known, interpolation, signed_root
from phononbench_flows.engine.ladder import rational_points
from phononbench_flows.engine.q_symmetry import operations
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.protocol import ForceConstantsSettings

SETTINGS = ForceConstantsSettings()
TOLERANCE = 0.05


def test_number_of_cells_that_a_point_needs():
    assert [cells_needed(np.array(q)) for q in ((0, 0, 0), (0.5, 0, 0.5), (1 / 3, 0.25, 0), (0.375, 0.375, 0.75))] == [
        1,
        2,
        12,
        8,
    ]
    assert cells_needed(np.array([-1 / 6, 1 / 3, 7 / 6])) == 6


def test_every_point_has_a_smallest_cell_that_holds_it_and_is_compact():
    random = np.random.default_rng(1)
    for _ in range(60):
        basis = np.eye(3) * 4 + random.normal(size=(3, 3))
        skewed = np.array([[1, 0, 0], [random.integers(-3, 4), 1, 0], [0, random.integers(-2, 3), 1]]) @ basis
        q = random.integers(0, 8, size=3) / random.integers(2, 9)
        matrix = smallest_supercell(q, skewed)
        assert round(np.linalg.det(matrix)) == cells_needed(q)
        phases = matrix.T @ q
        np.testing.assert_allclose(phases, np.rint(phases), rtol=0, atol=1e-9)
        # None of its vectors can be made shorter by another.
        vectors = matrix.T @ skewed
        for i in range(3):
            for j in {0, 1, 2} - {i}:
                for sign in (1, -1):
                    assert np.linalg.norm(vectors[i]) <= np.linalg.norm(vectors[i] + sign * vectors[j]) + 1e-6


@pytest.fixture
def low(cu3au) -> Structure:
    """Without symmetry, and with no neighbours near the cutoff, where the forces of the toy potential jump."""
    crystal = Structure(cu3au.lattice, ["Cu", "Ag", "Au", "Pt"], cu3au.frac_coords)
    crystal.apply_strain([0.002, -0.003, 0.001])
    return crystal.perturb(0.01, seed=3) or crystal


def guess_of(crystal: Structure) -> Interpolation:
    return interpolation(force_constants([crystal], Toy(), SETTINGS)[0].phonopy(), tolerance=TOLERANCE)


@pytest.fixture(params=["cu3au", "low", "simple_cubic"])
def guess(request):
    return guess_of(request.getfixturevalue(request.param))


def both_ways(guess, q, model):
    """What all displacements of the cell say, and what Davidson's method says."""
    symmetry = operations(guess.cell, 1e-5)
    phonon = exact.displaced_cells(guess.cell, q, SETTINGS)
    dialogues = [
        partial(by_displacements, phonon, q, SETTINGS, tolerance=TOLERANCE),
        partial(davidson, guess, q, SETTINGS.distance, symmetry),
    ]
    whole, modes = (found.result for found in hold(dialogues, model))
    return whole, modes


@pytest.mark.parametrize("q", [(0.25, 0, 0), (1 / 3, 1 / 3, 0), (0.25, 0.25, 0.5), (0.2, 0.4, 0), (0.5, 0.25, 0.125)])
def test_both_ways_find_the_same_lowest_mode(guess, q):
    q = np.array(q)
    whole, modes = both_ways(guess, q, Toy())
    assert (whole.how, modes.how) == ("displacements", "davidson")
    assert whole.natoms == modes.natoms == cells_needed(q) * len(guess.cell)
    if whole.lowest > -0.09:
        assert float(signed_root(np.array(modes.lowest))) == pytest.approx(
            float(signed_root(np.array(whole.lowest))), abs=0.02
        )
    else:  # proven, not converged: no Rayleigh quotient lies below the lowest eigenvalue
        assert whole.lowest - 0.02 < modes.lowest < -0.09
    # The interpolation passes through either, and says nothing lower there.
    for found in (whole, modes):
        mended = guess.passing_through([found.known])
        assert mended.eigenvalues(q)[0, 0] == pytest.approx(found.lowest, abs=1e-4)
    # Its mode has that frequency.
    [quotient] = hold([partial(rayleigh, guess.cell, q, modes.mode, 0.003)], Toy())
    assert quotient.result == pytest.approx(modes.lowest, abs=0.02)


def test_the_first_supercells_own_points_are_found_again(cu3au):
    guess = guess_of(cu3au)
    for q in np.array([[0.5, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5]]):
        for found in both_ways(guess, q, Toy()):
            # The small cell knows no q but this one: neighbours beyond it fold back, and nothing is lost.
            assert found.lowest == pytest.approx(guess.eigenvalues(q)[0, 0], abs=0.02)


def test_davidson_finds_modes_that_symmetry_keeps_apart(cu3au):
    """A guess whose lowest mode has another symmetry than the true one does not mislead it."""
    guess = guess_of(cu3au)
    q = np.array([0.25, 0, 0])
    values, vectors = np.linalg.eigh(guess.matrices(q)[0])
    values[:4] = values[3::-1]
    turned = (vectors * values) @ vectors.conj().T
    misled = guess.passing_through([Known(q, turned)])
    whole, modes = both_ways(misled, q, Toy())
    assert modes.lowest == pytest.approx(whole.lowest, abs=0.02)


def test_the_cheaper_way_is_taken(cu3au, low):
    ways = {}
    for name, crystal in {"cu3au": cu3au, "low": low}.items():
        guess = guess_of(crystal)
        symmetry, q = operations(guess.cell, 1e-5), np.array([0, 0.25, 0])
        [found] = hold([partial(exact.look, guess, q, SETTINGS, symmetry, tolerance=TOLERANCE)], Toy())
        ways[name] = found.result.how
        assert found.result.evaluations <= 2.5 * cost(guess, q, symmetry)
        assert found.evaluations == found.result.evaluations
    assert ways == {"cu3au": "displacements", "low": "davidson"}


def test_a_crystal_that_cannot_be_computed_fails_alone(cu3au):
    guess = guess_of(cu3au)
    cell = PhonopyAtoms(cell=guess.cell.cell, numbers=[NAN_ELEMENT] * 4, scaled_positions=guess.cell.scaled_positions)
    bad = replace(guess, cell=cell)
    symmetry, q = operations(guess.cell, 1e-5), np.array([0.25, 0, 0])
    looks = [partial(exact.look, each, q, SETTINGS, symmetry, tolerance=TOLERANCE) for each in (bad, guess)]
    failed, fine = hold(looks, Toy())
    assert isinstance(failed, Failure)
    assert fine.result.lowest > 0


def test_rational_points_are_each_there_once():
    points = rational_points(4)
    assert len(points) == len({tuple(np.round(q, 6)) for q in points})
    assert all(2 <= cells_needed(q) <= 4 for q in points)
    #  1/2, 1/3 and 1/4 grids without Γ, one of each q and -q: 7 + 26/2 + (63 - 7)/2
    assert len(points) == 7 + 13 + 28
    plane = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]])
    for q in rational_points(4, plane):
        assert (plane @ q)[2] == 0
