"""Directions of a degenerate space: those that more symmetry leaves alone, each once."""

from __future__ import annotations

import itertools

import numpy as np
from ase.build import bulk
from phonopy.structure.atoms import PhonopyAtoms

from phononbench_flows.engine.order_parameters import directions, mode_directions
from phononbench_flows.engine.q_symmetry import operations


def signed_permutations() -> list[np.ndarray]:
    """The full cubic group, (48, 3, 3)."""
    signs = list(itertools.product((1.0, -1.0), repeat=3))
    return [np.diag(each) @ np.eye(3)[list(order)] for order in itertools.permutations(range(3)) for each in signs]


def turns(n: int, *, mirror: bool) -> list[np.ndarray]:
    """Rotations of the plane by full turns over n, with mirrors or without."""
    angles = 2 * np.pi * np.arange(n) / n
    rotations = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    return rotations + ([r @ np.diag([1.0, -1.0]) for r in rotations] if mirror else [])


def cubic_kinds(found) -> set[tuple[float, ...]]:
    return {tuple(np.round(np.sort(np.abs(each.vector)), 3)) for each in found}


def test_a_cubic_polar_mode_goes_along_edges_diagonals_of_faces_and_of_the_cube():
    found = directions(signed_permutations())
    assert cubic_kinds(found) == {(0, 0, 1), (0, 0.707, 0.707), (0.577, 0.577, 0.577)}
    assert len(found) == 3
    assert all(each.is_even for each in found)


def test_a_direction_whose_opposite_is_another_is_told():
    [found] = directions(turns(3, mirror=True))  # as a tetragonal strain of a cubic crystal
    assert not found.is_even
    assert abs(found.vector[0] % 1 - 0.5) < 1e-6 or abs(abs(found.vector[0]) - 1) < 1e-6
    square = directions(turns(4, mirror=True))  # along an edge, along a diagonal
    assert [each.is_even for each in square] == [True, True]


def test_where_nothing_is_left_alone_the_whole_space_stands_for_it():
    found = directions(turns(3, mirror=False))
    assert len(found) == 2
    assert abs(found[0].vector @ found[1].vector) < 1e-9


def test_one_dimension_is_its_own_direction():
    [found] = directions([np.eye(1)])
    assert not found.is_even
    [found] = directions([np.eye(1), -np.eye(1)])
    assert found.is_even


def primitive(atoms) -> PhonopyAtoms:
    return PhonopyAtoms(cell=atoms.cell.array, numbers=atoms.numbers, scaled_positions=atoms.get_scaled_positions())


def test_the_phase_of_a_wave_is_chosen_by_symmetry_and_omega_is_not_its_opposite():
    cell = primitive(bulk("Ti", "bcc", a=3.26))
    q = np.array([1, 1, 1]) / 3
    symmetry = operations(cell, 1e-5)
    along = np.linalg.inv(cell.cell) @ q
    along /= np.linalg.norm(along)
    [way] = mode_directions(along.astype(complex) * np.exp(0.7j), q, symmetry)
    assert (way.degeneracy, way.is_even) == (1, False)
    # Planes at three heights: one stays, and the two others meet or part.
    heights = np.array([(way.mode * np.exp(2j * np.pi * k / 3)).real @ along for k in range(3)])
    assert np.isclose(np.abs(heights).min(), 0, atol=1e-6)
    assert np.isclose(heights.sum(), 0, atol=1e-6)


def test_a_mode_brings_along_what_symmetry_makes_of_it():
    cell = primitive(bulk("CsCl", "cesiumchloride", a=4.1))
    mode = np.kron([0.8, -0.6], np.array([0.0, 0.6, 0.8]))
    found = mode_directions(mode, np.zeros(3), operations(cell, 1e-5))
    assert [each.degeneracy for each in found] == [3, 3, 3]
    assert cubic_kinds_of_modes(found) == {(0, 0, 1), (0, 0.707, 0.707), (0.577, 0.577, 0.577)}


def cubic_kinds_of_modes(found) -> set[tuple[float, ...]]:
    return {tuple(np.round(np.sort(np.abs(each.mode[:3])) / np.linalg.norm(each.mode[:3]), 3)) for each in found}
