from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Structure
from toy_potentials import CUTOFF, EPSILON, SIGMA, Toy, limited

from phononbench_flows.engine.batch import Budget
from phononbench_flows.engine.force_constants import ForceConstants, displace, force_constants
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import PRESETS, ForceConstantsSettings

PAPER = PRESETS["paper"].force_constants


def one_by_one(structure: Structure) -> np.ndarray:
    """The published protocol with ASE: a supercell at a time, drift removed, symmetrised."""
    phonon = Phonopy(
        PhonopyAtoms(
            cell=structure.lattice.matrix, numbers=structure.atomic_numbers, scaled_positions=structure.frac_coords
        ),
        supercell_matrix=np.diag([2, 2, 2]),
    )
    phonon.generate_displacements(distance=0.01, is_diagonal=False)
    forces = []
    for cell in phonon.supercells_with_displacements:
        atoms = Atoms(numbers=cell.numbers, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF, smooth=False)
        forces.append(atoms.get_forces() - atoms.get_forces().mean(axis=0))
    phonon.forces = forces
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    return phonon.force_constants


def test_batched_force_constants_are_those_of_the_published_loop(fcc, cu3au, low_symmetry):
    crystals = [fcc, cu3au, low_symmetry]
    for structure, result in zip(crystals, force_constants(crystals, Toy(), PAPER), strict=True):
        expected = one_by_one(structure)
        phonon = result.phonopy()
        assert np.allclose(result.array, expected[phonon.primitive.p2s_map], atol=1e-7)


def test_kept_arrays_give_the_same_frequencies(cu3au):
    (result,) = force_constants([cu3au], Toy(), PAPER)
    again = ForceConstants.from_arrays(result.arrays())
    q = [[0.1, 0.2, 0.3], [0.5, 0.5, 0.0]]
    assert np.allclose(
        result.phonopy().run_qpoints(q).frequencies, again.phonopy().run_qpoints(q).frequencies, atol=1e-12
    )
    assert (again.n_displacements, again.symprec) == (result.n_displacements, result.symprec)


def test_batch_size_changes_nothing(fcc, cu3au):
    small = force_constants([fcc, cu3au], Toy(), PAPER, budget=Budget(1))
    large = force_constants([fcc, cu3au], Toy(), PAPER, budget=Budget(10_000))
    for a, b in zip(small, large, strict=True):
        assert np.allclose(a.array, b.array, atol=1e-9)


def with_species(structure: Structure, symbol: str) -> Structure:
    return Structure(structure.lattice, [symbol] * len(structure), structure.frac_coords)


@pytest.mark.parametrize("atoms", [1, 10_000])
def test_one_bad_crystal_harms_no_other(fcc, cu3au, atoms):
    told: dict[int, object] = {}
    crystals = [with_species(fcc, "Kr"), fcc, with_species(cu3au, "Xe"), cu3au]
    results = force_constants(crystals, Toy(), PAPER, budget=Budget(atoms), on_result=told.__setitem__)
    assert [type(r) for r in results] == [Failure, ForceConstants, Failure, ForceConstants]
    assert (results[0].reason, results[2].reason) == (Reason.EXCEPTION, Reason.NOT_FINITE)
    assert told.keys() == {0, 1, 2, 3}
    (alone,) = force_constants([cu3au], Toy(), PAPER)
    assert np.allclose(results[3].array, alone.array, atol=1e-9)


def test_a_crystal_that_has_failed_is_not_computed_further(low_symmetry):
    calls: list[int] = []
    crystals = [with_species(low_symmetry, "Kr"), low_symmetry]
    n_supercells = len(displace(low_symmetry, PAPER).supercells_with_displacements)
    force_constants(crystals, Toy(lambda state: calls.append(state.n_systems)), PAPER, budget=Budget(1))
    assert sum(calls) < n_supercells + 6


def test_memory_that_runs_out_makes_smaller_batches(cu3au):
    budget = Budget(1000)
    results = force_constants([cu3au] * 3, limited(40), PAPER, budget=budget)
    assert all(isinstance(r, ForceConstants) for r in results)
    assert budget.max_atoms < 64
    (hopeless,) = force_constants([cu3au], limited(20), PAPER)
    assert hopeless.reason == Reason.OUT_OF_MEMORY


def test_crystals_finish_one_after_the_other(fcc, cu3au):
    order: list[int] = []
    force_constants([cu3au, fcc, cu3au], Toy(), PAPER, budget=Budget(32), on_result=lambda i, _: order.append(i))
    assert order == [0, 1, 2]


def test_a_symmetric_crystal_is_displaced_once(fcc):
    assert len(displace(fcc, PAPER).displacements) == 1
    both = ForceConstantsSettings(plusminus="both")
    assert len(displace(fcc, both).displacements) == 2
