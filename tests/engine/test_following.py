"""Crystals displaced along modes as far as their energy falls, with energies made up and with Lennard-Jones."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from phonopy.structure.atoms import PhonopyAtoms
from toy_potentials import Toy

from phononbench_flows.engine.dialogues import Answer, hold
from phononbench_flows.engine.following import (
    FollowSettings,
    SoftMode,
    distort,
    held_matrices,
    soft_modes,
    soft_strains,
)
from phononbench_flows.engine.force_constants import force_constants
from phononbench_flows.engine.interpolation import Known, interpolation
from phononbench_flows.engine.q_symmetry import operations
from phononbench_flows.protocol import PRESETS

CUBIC = np.array([[1.0, 3, 3, 0, 0, 0], [3, 1, 3, 0, 0, 0], [3, 3, 1, 0, 0, 0]])


def primitive(atoms) -> PhonopyAtoms:
    return PhonopyAtoms(cell=atoms.cell.array, numbers=atoms.numbers, scaled_positions=atoms.get_scaled_positions())


CSCL = primitive(bulk("CsCl", "cesiumchloride", a=4.1))


def answer(dialogue, energy_of):
    """What a dialogue returns if a cell has the energy that a function says."""
    cells = next(dialogue)
    while True:
        try:
            cells = dialogue.send([Answer(np.zeros((len(c), 3)), None, energy_of(c)) for c in cells])
        except StopIteration as end:
            return end.value


def shift(cell: PhonopyAtoms) -> np.ndarray:
    """How far the first atom is from where it was."""
    moved = cell.scaled_positions[0] - np.rint(cell.scaled_positions[0])
    return moved @ cell.cell


MODE = SoftMode(np.zeros(3), 1, -2.0, np.kron([0.8, -0.6], [0.0, 0.0, 1.0]))


def test_the_amplitude_is_where_the_energy_is_lowest():
    def double_well(cell):
        x = np.linalg.norm(shift(cell))
        return 0.5 * x**4 - 0.09 * x**2  # lowest at 0.3 Å

    symmetry = operations(CSCL, 1e-5)
    found = answer(distort(CSCL, [MODE], [], symmetry, FollowSettings()), double_well)
    assert len(found.distorted) == 3
    for each in found.distorted:
        assert np.linalg.norm(shift(each.cell)) == pytest.approx(0.3, rel=0.1)
        assert each.energy == pytest.approx(-0.00405 / 2, rel=0.05)
        assert (each.mode.frequency, each.degeneracy) == (-2.0, 3)
    assert [each.name for each in found.distorted] == sorted({each.name for each in found.distorted})


def test_the_deepest_come_first_and_the_rest_is_told():
    def prefers_edges(cell):
        x = np.abs(shift(cell))
        return -0.09 * (x**2).sum() + 0.5 * (x**2).sum() ** 2 + 3 * (x[0] * x[1] + x[1] * x[2] + x[2] * x[0]) ** 2

    symmetry = operations(CSCL, 1e-5)
    found = answer(distort(CSCL, [MODE], [], symmetry, FollowSettings(children=1)), prefers_edges)
    [best] = found.distorted
    assert np.sort(np.abs(shift(best.cell)))[:2] == pytest.approx([0, 0], abs=1e-6)
    assert len(found.left_out) == 2


def test_a_way_on_which_the_energy_does_not_fall_is_told_and_left():
    symmetry = operations(CSCL, 1e-5)
    found = answer(distort(CSCL, [MODE], [], symmetry, FollowSettings()), lambda cell: float(shift(cell) @ shift(cell)))
    assert found.distorted == []
    assert found.left_out == [f"q0m1{letter}: the energy does not fall" for letter in "abc"]


def test_a_cell_that_would_be_too_large_is_told_and_left():
    mode = SoftMode(np.array([0.5, 0, 0]), 2, -1.0, MODE.mode)
    [told] = answer_at_once(distort(CSCL, [mode], [], operations(CSCL, 1e-5), FollowSettings(atoms=3))).left_out
    assert told == "q0_0_1-2m2: a cell of 4 atoms holds the mode, and 3 are allowed"


def answer_at_once(dialogue):
    with pytest.raises(StopIteration) as end:
        next(dialogue)
    return end.value.value


def test_of_degenerate_modes_one_counts_and_of_a_star_one_q_point():
    symmetry = operations(CSCL, 1e-5)
    soft = np.kron(np.diag([-40.0, 9.0]), np.eye(3))
    known = [Known(np.array(q), soft.astype(complex)) for q in ([0.5, 0, 0], [0, 0.5, 0], [0, 0, 0])]
    found = soft_modes(known, CSCL.masses, symmetry, threshold=-0.01)
    # At X the mode along the axis and the two across it are different ones; at Γ translations are taken out.
    assert len([each for each in found if each.q.any()]) == 2
    assert len([each for each in found if not each.q.any()]) == 1
    assert all(each.frequency < -0.01 for each in found)
    assert soft_modes(known, CSCL.masses, symmetry, threshold=-10.0) == []


def test_lennard_jones_leads_simple_cubic_to_less_energy_in_the_cell_that_holds_the_mode(simple_cubic):
    [constants] = force_constants([simple_cubic], Toy(), PRESETS["paper"].force_constants)
    held = interpolation(constants.phonopy(symmetry=False), tolerance=1e-3)
    symmetry = operations(held.cell, 1e-3)
    modes = soft_modes(held_matrices(held), held.cell.masses, symmetry, threshold=-0.01)
    assert modes
    assert modes[0].frequency == min(each.frequency for each in modes)
    [found] = hold([lambda: distort(held.cell, modes, [], symmetry, FollowSettings())], Toy())
    assert found.result.distorted
    for each in found.result.distorted:
        assert each.energy < 0
        assert len(each.cell) == 2


def test_a_cubic_crystal_that_is_soft_to_shear_is_stretched_and_pressed():
    tensor = np.zeros((6, 6))
    tensor[:3], tensor[3:, 3:] = CUBIC, 2 * np.eye(3)
    found = soft_strains(tensor, operations(CSCL, 1e-5))
    [strain] = found
    assert (strain.modulus, strain.is_even) == (pytest.approx(-2.0), False)
    assert np.sort(np.abs(np.linalg.eigvalsh(strain.tensor))) == pytest.approx(np.array([1, 1, 2]) / np.sqrt(6))

    def falls_when_pressed(cell):
        x = np.log(np.linalg.norm(cell.cell, axis=1) / 4.1)
        tetragonal = x.max() + x.min()  # positive if one axis is longer and two are shorter
        return (tetragonal - 0.03) ** 2

    made = answer(distort(CSCL, [], found, operations(CSCL, 1e-5), FollowSettings()), falls_when_pressed)
    assert [each.name[:-1] for each in made.distorted] == ["strain1a", "strain1a"]
    assert made.distorted[0].energy < 0 == made.distorted[1].energy  # the other is left for the atoms to decide
    assert soft_strains(np.diag([5.0, 5, 5, 2, 2, 2]), operations(CSCL, 1e-5)) == []
