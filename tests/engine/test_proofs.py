"""Proofs of instability from the first displacements of a crystal."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from pymatgen.core import Lattice, Structure
from toy_potentials import Toy

from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.exact import cells_needed
from phononbench_flows.engine.force_constants import Displaced, ForceConstants, displace, force_constants
from phononbench_flows.engine.interpolation import interpolation, signed_root
from phononbench_flows.engine.lattices import commensurate_points, to_supercell
from phononbench_flows.engine.proofs import Search, seek
from phononbench_flows.protocol import ForceConstantsSettings

SETTINGS = ForceConstantsSettings()


@pytest.fixture
def stacked() -> Structure:
    """Simple cubic with its elements in order along one axis: unstable under the toy potential."""
    return Structure(Lattice.tetragonal(2.4, 7.2), ["Cu", "Ag", "Au"], [[0, 0, 0], [0, 0, 1 / 3], [0, 0, 2 / 3]])


def settings_of(supercell) -> ForceConstantsSettings:
    return SETTINGS.model_copy(update={"supercell": supercell})


def constants_of(crystal: Structure, supercell=(2, 2, 2)) -> ForceConstants:
    [found] = force_constants([crystal], Toy(), settings_of(supercell))
    return found


def sought(crystal: Structure, *, below: float = -0.3, supercell=(2, 2, 2)):
    phonon = displace(crystal, settings_of(supercell))
    points = commensurate_points(to_supercell(phonon))
    [found] = hold([partial(seek, phonon, points, below=below, distances=(0.003, 0.01))], Toy())
    return found


@pytest.mark.parametrize("supercell", [(2, 2, 2), (3, 1, 2)])
def test_a_proof_is_a_mode_of_the_crystal(stacked, supercell):
    found = sought(stacked, supercell=supercell)
    proof, displaced = found.result.proof, found.result.forces
    constants = constants_of(stacked, supercell)
    whole = interpolation(constants.phonopy(), tolerance=1e-5)
    at_q = whole.matrices(proof.q)[0]
    quotient = float(np.vdot(proof.mode, at_q @ proof.mode).real / np.vdot(proof.mode, proof.mode).real)
    assert set(proof.frequencies) == {0.003, 0.01}
    assert proof.frequency == max(proof.frequencies.values()) < -0.3
    assert proof.frequencies[0.003] == pytest.approx(float(signed_root(np.array(quotient))), abs=0.05)
    assert whole.frequencies(proof.q)[0, 0] <= proof.frequencies[0.003] + 0.02
    assert proof.natoms == cells_needed(proof.q) * len(whole.cell)
    atoms = len(constants.array[0])
    assert found.evaluations == len(whole.cell) + len(displaced) * atoms + 4 * proof.natoms
    assert found.evaluations < constants.n_displacements * atoms


def test_what_is_stable_is_not_proven_and_costs_no_more(cu3au, low_symmetry):
    for crystal in (cu3au, low_symmetry):
        constants = constants_of(crystal)
        whole = interpolation(constants.phonopy(), tolerance=1e-5)
        assert whole.frequencies(commensurate_points(whole.supercell)).min() > -0.3
        found = sought(crystal)
        assert found.result.proof is None
        atoms = len(constants.array[0])
        assert found.evaluations == len(whole.cell) + len(found.result.forces) * atoms
        assert len(found.result.forces) <= constants.n_displacements


def test_a_mode_nearer_to_zero_than_asked_proves_nothing(stacked):
    lowest = sought(stacked).result.proof.frequency
    assert sought(stacked, below=10 * lowest).result.proof is None


def harmonic_forces(phonon, constants: ForceConstants, number: int) -> np.ndarray:
    """Forces (n_atoms, 3) that force constants give in a displaced supercell."""
    whole = constants.phonopy(symmetry=False)
    atom, *shift = phonon.displacements[number]
    return -compact_fc_to_full_fc(whole.primitive, whole.force_constants)[:, int(atom)] @ np.array(shift)


@pytest.mark.parametrize("crystal", ["stacked", "low_symmetry", "cu3au", "fcc"])
@pytest.mark.parametrize("supercell", [(2, 2, 2), (3, 1, 2)])
def test_what_is_known_interlaces_with_the_whole(crystal, supercell, request):
    """Each displacement lowers the lowest eigenvalue or leaves it, never below the whole's; the last one reaches it."""
    structure = request.getfixturevalue(crystal)
    phonon, constants = displace(structure, settings_of(supercell)), constants_of(structure, supercell)
    whole = interpolation(constants.phonopy(), tolerance=1e-5, take_out_rotations=False)
    search = Search(phonon, commensurate_points(to_supercell(phonon)))
    ends = [
        np.linalg.eigvalsh(block.space.conj().T @ whole.matrices(block.wave.q)[0] @ block.space)
        for block in search.blocks
    ]
    before = [np.inf] * len(ends)
    while (number := search.next()) is not None:
        search.take(number, harmonic_forces(phonon, constants, number))
        for k, (block, end) in enumerate(zip(search.blocks, ends, strict=True)):
            size = block.basis.shape[1]
            known = block.basis.conj().T @ block.products
            assert np.allclose(known, known.conj().T, atol=1e-6)
            values = np.linalg.eigvalsh(known)
            # Cauchy: the i-th of a principal submatrix of size m lies between the i-th and the (i + n - m)-th.
            assert (values >= end[:size] - 1e-6).all()
            assert (values <= end[len(end) - size :] + 1e-6).all()
            assert block.theta <= before[k] + 1e-6
            before[k] = block.theta
    for block, end in zip(search.blocks, ends, strict=True):
        assert block.basis.shape[1] == len(end)
        assert block.theta == pytest.approx(end[0], abs=1e-6)


def test_no_two_displacements_along_a_line_are_asked_for(low_symmetry):
    phonon = displace(low_symmetry, SETTINGS)
    assert len(phonon.displacements) == 6 * len(low_symmetry)
    assert len(sought(low_symmetry).result.forces) == 3 * len(low_symmetry)


def test_what_was_displaced_is_not_computed_again(low_symmetry, cu3au):
    whole = [constants_of(crystal) for crystal in (low_symmetry, cu3au)]
    phonon, found = displace(low_symmetry, SETTINGS), sought(low_symmetry).result
    known = Displaced.of(phonon, found.forces)
    assert known.in_order_of(phonon).keys() == found.forces.keys()
    calls = []
    model = Toy(lambda state: calls.append(state.n_systems))
    again = force_constants([low_symmetry, cu3au], model, SETTINGS, known=lambda i: None if i else known)
    assert sum(calls) == whole[0].n_displacements - len(found.forces) + whole[1].n_displacements
    for one, other in zip(whole, again, strict=True):
        assert one.n_displacements == other.n_displacements
        assert np.allclose(one.array, other.array, atol=1e-10)


def test_displacements_of_another_crystal_are_not_taken(low_symmetry, stacked):
    known = Displaced.of(displace(stacked, SETTINGS), sought(stacked).result.forces)
    moved = Displaced(known.displacements + 1e-3, known.forces)
    assert moved.in_order_of(displace(stacked, SETTINGS)) == {}


def test_a_crystal_whose_displacements_are_all_known_needs_no_call(cu3au):
    phonon = displace(cu3au, SETTINGS)
    forces = sought(cu3au).result.forces
    assert len(forces) == len(phonon.displacements)

    def fails(state):
        raise AssertionError("nothing is to be computed")

    [found] = force_constants([cu3au], Toy(fails), SETTINGS, known=lambda _: Displaced.of(phonon, forces))
    assert np.allclose(found.array, constants_of(cu3au).array, atol=1e-10)
