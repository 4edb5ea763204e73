"""Dynamical matrices between the q-points that a supercell holds, and the symmetry of them."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor
from toy_potentials import Toy

from phononbench_flows.engine.force_constants import force_constants
from phononbench_flows.engine.interpolation import Known, interpolation, signed_root
from phononbench_flows.engine.lattices import commensurate_points, same_point, shortest_vectors
from phononbench_flows.engine.q_symmetry import blocks, equivalent_points, little_group, operations, star
from phononbench_flows.protocol import ForceConstantsSettings

SETTINGS = ForceConstantsSettings()
RANDOM_Q = np.random.default_rng(3).random((20, 3))


@pytest.fixture(scope="module")
def polar():
    """A polar crystal in a gyrotropic point group, under a potential of which it knows nothing: wurtzite."""
    crystal = AseAtomsAdaptor.get_structure(bulk("CuAu", "wurtzite", a=3.1, c=5.2, u=0.36))
    return force_constants([crystal], Toy(), SETTINGS)[0].phonopy()


@pytest.fixture(params=["cu3au", "low_symmetry"])
def phonon(request):
    return force_constants([request.getfixturevalue(request.param)], Toy(), SETTINGS)[0].phonopy()


def test_without_the_cures_it_is_phonopys(phonon, polar):
    for each in (phonon, polar):
        plain = interpolation(each, tolerance=1e-5, take_out_rotations=False)
        expected = np.array(each.run_qpoints(RANDOM_Q).frequencies)
        np.testing.assert_allclose(plain.eigenvalues(RANDOM_Q), np.abs(expected) * expected, rtol=0, atol=1e-8)


def test_the_cures_leave_the_supercells_points_alone(phonon, polar):
    for each in (phonon, polar):
        cured = interpolation(each, tolerance=0.05)
        points = commensurate_points(cured.supercell)
        assert len(points) == round(abs(np.linalg.det(cured.supercell)))
        plain = interpolation(each, tolerance=1e-5, take_out_rotations=False)
        np.testing.assert_allclose(cured.eigenvalues(points), plain.eigenvalues(points), rtol=0, atol=1e-6)


def test_the_linear_term_is_gone(low_symmetry):
    """Squared acoustic frequencies go as q^2, not as |q|: at half of a small q they are a quarter."""
    phonon = force_constants([low_symmetry], Toy(), SETTINGS)[0].phonopy()
    # Pair potentials keep the rotational sum rule by themselves; what breaks it is added.
    noise = np.random.default_rng(0).normal(size=phonon.force_constants.shape)
    phonon.force_constants = phonon.force_constants + 0.02 * noise
    phonon.symmetrize_force_constants(level=3)
    points = np.array([0.9, 0.2, 0.1]) * [[2e-3], [1e-3]]
    ratios = {}
    for cure in (False, True):
        squares = interpolation(phonon, tolerance=1e-5, take_out_rotations=cure).eigenvalues(points)
        acoustic = np.sort(np.take_along_axis(squares, np.argsort(np.abs(squares)), axis=1)[:, :3])
        ratios[cure] = np.abs(acoustic[0] / acoustic[1])
    assert np.abs(ratios[True] - 4).max() < 0.05
    assert np.abs(ratios[False] - 4).max() > 0.5


def test_images_that_are_nearly_as_near_count_as_well(cu3au):
    """A crystal that lost its symmetry by 1e-4 Å has the frequencies of the one that has it."""
    moved = cu3au.copy()
    moved.translate_sites([1], [1e-4 / 3.7, 0, 0], frac_coords=True)
    whole, lost = (each.phonopy() for each in force_constants([cu3au, moved], Toy(), SETTINGS))
    expected = interpolation(whole, tolerance=0.05).frequencies(RANDOM_Q)
    far = np.abs(interpolation(lost, tolerance=1e-5).frequencies(RANDOM_Q) - expected).max()
    near = np.abs(interpolation(lost, tolerance=0.05).frequencies(RANDOM_Q) - expected).max()
    assert near < far / 10
    assert far > 2e-4


def test_near_gamma_a_correction_is_quadratic(polar):
    plain = interpolation(polar, tolerance=0.05)
    q = np.array([0.25, 0.0, 0.0])
    matrix = plain.matrices(q)[0]
    lower = Known(q, matrix - 0.5 * abs(np.linalg.eigvalsh(matrix)[0]) * np.eye(len(matrix)))
    mended = plain.passing_through(star(lower, operations(plain.cell, 1e-5)))
    far, near = (np.linalg.norm(mended.matrices(q * x) - plain.matrices(q * x)) for x in (0.1, 0.01))
    assert far > 0
    assert near / far == pytest.approx(0.01, rel=0.2)
    # Squared acoustic frequencies stay on their side of zero on the whole way.
    before, after = (each.eigenvalues(np.outer(np.linspace(0.01, 1, 30), q))[:, 0] for each in (plain, mended))
    assert ((before > 0) <= (after > 0)).all()


def test_it_passes_through_what_is_known_with_all_that_symmetry_makes_of_it(polar):
    plain = interpolation(polar, tolerance=0.05)
    symmetry = operations(plain.cell, 1e-5)
    q = np.array([0.25, 0.125, 0.5])
    matrix = plain.matrices(q)[0]
    known = Known(q, matrix + 3 * np.eye(len(matrix)))
    mended = plain.passing_through(star(known, symmetry))
    everywhere = equivalent_points(q, symmetry)
    assert len(everywhere) == 12
    expected = np.linalg.eigvalsh(known.matrix)
    np.testing.assert_allclose(mended.eigenvalues(everywhere), np.tile(expected, (12, 1)), rtol=0, atol=1e-5)
    points = commensurate_points(plain.supercell)
    np.testing.assert_allclose(mended.eigenvalues(points), plain.eigenvalues(points), rtol=0, atol=1e-5)
    found = mended.matrices(RANDOM_Q)
    np.testing.assert_allclose(found, found.conj().transpose(0, 2, 1), rtol=0, atol=1e-9)
    np.testing.assert_allclose(mended.matrices(-RANDOM_Q), found.conj(), rtol=0, atol=1e-9)
    # Near the point the interpolation is nearly right too.
    near = mended.eigenvalues([q + 0.01])[0] - plain.eigenvalues([q + 0.01])[0]
    assert np.abs(near - 3).max() < 0.6
    # What is known already counts as it was known first.
    assert mended.passing_through([Known(-q, matrix.conj())]).known == mended.known


def test_matrices_turn_with_the_crystal(phonon, polar):
    for each in (phonon, polar):
        plain = interpolation(each, tolerance=0.05)
        symmetry = operations(plain.cell, 1e-5)
        for q in RANDOM_Q[:3]:
            for turned in star(Known(q, plain.matrices(q)[0]), symmetry):
                np.testing.assert_allclose(turned.matrix, plain.matrices(turned.q)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("q", [(0.25, 0.25, 0.0), (0.5, 0, 0), (1 / 3, 1 / 3, 0), (0, 0, 0.25), (0.1, 0.3, 0.2)])
def test_no_matrix_with_the_symmetry_couples_two_blocks(polar, q):
    plain = interpolation(polar, tolerance=0.05)
    symmetry, point = operations(plain.cell, 1e-5), np.array(q)
    matrix = plain.matrices(point)[0]
    found = blocks(point, symmetry, real=same_point(2 * point, np.zeros(3)))
    for number, space in enumerate(found):
        np.testing.assert_allclose(space.conj().T @ space, np.eye(space.shape[1]), rtol=0, atol=1e-9)
        for other in found[number + 1 :]:
            assert np.abs(other.conj().T @ matrix @ space).max() < 1e-6
    spectra = np.concatenate([np.linalg.eigvalsh(space.conj().T @ matrix @ space) for space in found])
    assert len(found) >= (2 if len(little_group(point, symmetry)) > 1 else 1)
    assert all(np.abs(spectra - each).min() < 1e-4 for each in np.linalg.eigvalsh(matrix))


def test_blocks_that_only_happen_to_agree_are_both_kept(simple_cubic):
    """At (1/4, 1/4, 1/2) of a simple cubic crystal no two modes are of one kind, whatever a small supercell says."""
    plain = interpolation(force_constants([simple_cubic], Toy(), SETTINGS)[0].phonopy(), tolerance=0.05)
    q = np.array([0.25, 0.25, 0.5])
    assert np.ptp(plain.eigenvalues(q)[0, :2]) < 1e-3
    assert [space.shape[1] for space in blocks(q, operations(plain.cell, 1e-5))] == [1, 1, 1]


def test_small_helpers():
    assert same_point([0.5, 0, 0], [-0.5, 1, 3])
    assert not same_point([0.5, 0, 0], [0.25, 0, 0])
    np.testing.assert_array_equal(signed_root(np.array([4.0, -9.0, 0.0])), [2, -3, 0])
    skewed = np.array([[1, 0, 0], [7, 1, 0], [-3, 5, 1.5]])
    reduced = shortest_vectors(skewed)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), [1, 1, 1.5])
    assert np.linalg.det(reduced) > 0


def test_what_is_wrong_at_gamma_alone_is_taken_out(phonon):
    """As forces that are there before a displacement: they are the same in every cell of the supercell."""
    right = interpolation(phonon, tolerance=1e-5, take_out_rotations=False)
    n = len(right.cell)
    wrong = np.random.default_rng(1).normal(size=(n, n, 3, 3))
    wrong = (wrong + wrong.transpose(1, 0, 3, 2)) / 2
    kinds = [phonon.primitive.p2p_map[s] for s in phonon.primitive.s2p_map]
    compact = np.array(phonon.force_constants)
    compact = compact[phonon.primitive.p2s_map] if len(compact) == len(kinds) else compact
    phonon.force_constants = compact + 0.1 * wrong[:, kinds]
    spoiled = interpolation(phonon, tolerance=1e-5, take_out_rotations=False)
    gamma = np.zeros(3)
    assert np.abs(spoiled.matrices(gamma) - right.matrices(gamma)).max() > 1
    assert np.abs(spoiled.matrices(RANDOM_Q) - right.matrices(RANDOM_Q)).max() > 0.1
    others = [q for q in commensurate_points(right.supercell) if not same_point(q, gamma)]
    np.testing.assert_allclose(spoiled.matrices(others), right.matrices(others), rtol=0, atol=1e-9)
    mended = spoiled.passing_through([Known(gamma, right.matrices(gamma)[0])])
    np.testing.assert_allclose(mended.matrices(RANDOM_Q), right.matrices(RANDOM_Q), rtol=0, atol=1e-9)
    assert mended.known == ()
