"""Proofs of instability by displacements of all atoms at once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from toy_potentials import Toy

from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.exact import WavesInSupercell, cells_needed
from phononbench_flows.engine.force_constants import ForceConstants, displace, force_constants, n_displacements
from phononbench_flows.engine.interpolation import interpolation, signed_root
from phononbench_flows.engine.lattices import commensurate_points, to_supercell
from phononbench_flows.engine.proofs import _begun, prove
from phononbench_flows.engine.q_symmetry import operations
from phononbench_flows.protocol import ForceConstantsSettings

SETTINGS = ForceConstantsSettings()


@pytest.fixture
def stacked() -> Structure:
    """Simple cubic with its elements in order along one axis: unstable under the toy potential."""
    return Structure(Lattice.tetragonal(2.4, 7.2), ["Cu", "Ag", "Au"], [[0, 0, 0], [0, 0, 1 / 3], [0, 0, 2 / 3]])


def constants_of(crystal: Structure, supercell=(2, 2, 2)) -> ForceConstants:
    [found] = force_constants([crystal], Toy(), SETTINGS.model_copy(update={"supercell": supercell}))
    return found


def sought(crystal: Structure, *, below: float = -0.3, most: int = 20, supercell=(2, 2, 2)):
    phonon = displace(crystal, SETTINGS.model_copy(update={"supercell": supercell}))
    matrix = to_supercell(phonon)
    symmetry = operations(phonon.primitive, 1e-5)
    dialogue = partial(
        prove,
        phonon.primitive,
        matrix,
        commensurate_points(matrix),
        symmetry,
        below=below,
        distances=(0.003, 0.01),
        most=most,
    )
    [found] = hold([dialogue], Toy())
    return found


@pytest.mark.parametrize("supercell", [(2, 2, 2), (3, 1, 2)])
def test_a_proof_is_a_mode_of_the_crystal(stacked, supercell):
    found = sought(stacked, supercell=supercell)
    proof = found.result
    whole = interpolation(constants_of(stacked, supercell).phonopy(), tolerance=1e-5)
    at_q = whole.matrices(proof.q)[0]
    quotient = float(np.vdot(proof.mode, at_q @ proof.mode).real / np.vdot(proof.mode, proof.mode).real)
    assert set(proof.frequencies) == {0.003, 0.01}
    assert proof.frequency == max(proof.frequencies.values()) < -0.3
    assert proof.frequencies[0.003] == pytest.approx(float(signed_root(np.array(quotient))), abs=0.05)
    assert whole.frequencies(proof.q)[0, 0] <= proof.frequencies[0.003] + 0.02
    assert proof.natoms == cells_needed(proof.q) * len(whole.cell)
    atoms = len(constants_of(stacked, supercell).array[0])
    assert found.evaluations == len(whole.cell) + proof.products * atoms + 4 * proof.natoms
    assert found.evaluations < len(displace(stacked, SETTINGS).supercells_with_displacements) * atoms


def test_what_is_stable_is_not_proven(cu3au, low_symmetry):
    for crystal in (cu3au, low_symmetry):
        lowest = (
            interpolation(constants_of(crystal).phonopy(), tolerance=1e-5).frequencies(np.array([[0.5, 0, 0]])).min()
        )
        assert lowest > -0.3
        assert sought(crystal).result is None


def test_a_mode_nearer_to_zero_than_asked_proves_nothing(stacked):
    lowest = sought(stacked).result.frequency
    assert sought(stacked, below=2 * lowest, most=2).result is None


def test_all_that_a_supercell_holds_is_found_in_the_end(stacked):
    """As many displacements as a subspace has dimensions give all of its frequencies, at real and complex q-points."""
    supercell = (3, 1, 2)
    constants = constants_of(stacked, supercell)
    phonon = constants.phonopy()
    matrix = to_supercell(phonon)
    whole = interpolation(phonon, tolerance=1e-5)
    waves = WavesInSupercell.of(phonon.primitive, matrix)
    searches = _begun(waves, phonon.primitive, commensurate_points(matrix), operations(phonon.primitive, 1e-5))
    assert {each.wave.is_real for each in searches} == {True, False}
    model = Toy()

    def all_of_them():
        (rest,) = yield [phonon.primitive]
        while any(each.mode is not None for each in searches):
            cell, amplitude = waves.displaced(
                [(each.wave, each.mode) for each in searches if each.mode is not None], 1e-4
            )
            (answer,) = yield [cell]
            for each in searches:
                each.take(waves.product(each.wave, answer.forces - rest.forces[waves.homes], amplitude))

    hold([all_of_them], model)
    for each in searches:
        inside = each.space.conj().T @ whole.matrices(each.wave.q)[0] @ each.space
        # Their displacements are of other lengths, and the toy potential is steep.
        assert each.theta == pytest.approx(float(np.linalg.eigvalsh(inside)[0]), rel=0.02, abs=0.1)
        if not each.wave.q.any():  # translations are left out
            moves = np.kron(np.sqrt(phonon.primitive.masses)[:, None], np.eye(3))
            assert np.abs(each.space.T @ moves).max() < 1e-6


def test_the_number_of_displacements_is_known_before_they_are_made(fcc, cu3au, low_symmetry, stacked):
    for crystal in (fcc, cu3au, low_symmetry, stacked):
        phonon = displace(crystal, SETTINGS)
        assert n_displacements(phonon.primitive, SETTINGS) == len(phonon.supercells_with_displacements)
