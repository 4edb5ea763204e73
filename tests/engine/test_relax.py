from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from toy_potentials import CUTOFF, EPSILON, SIGMA, Toy, limited

from phononbench_flows.engine.batch import Budget
from phononbench_flows.engine.relax import Relaxed, relax
from phononbench_flows.engine.trouble import Failure, UndeliverableError
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import PRESETS, RelaxationSettings
from phononbench_flows.symmetry import symmetry

PAPER = PRESETS["paper"].relaxation


def spacegroup(structure: Structure, symprec: float = 1e-5) -> int | None:
    return symmetry(structure, symprec).number


def relaxed(result) -> Relaxed:
    assert isinstance(result, Relaxed), result
    return result


def test_relaxes_to_what_ase_relaxes_to(fcc, cu3au, low_symmetry):
    for structure, result in zip(
        (fcc, cu3au, low_symmetry), relax([fcc, cu3au, low_symmetry], Toy(), PAPER), strict=True
    ):
        atoms = AseAtomsAdaptor.get_atoms(structure)
        atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF, smooth=False)
        atoms.set_constraint(FixSymmetry(atoms, symprec=PAPER.symprec))
        FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=PAPER.target_force, steps=500)
        assert relaxed(result).structure.volume == pytest.approx(atoms.get_volume(), rel=2e-3)
        assert relaxed(result).max_force <= PAPER.accept_force


def test_keeps_and_refines_the_symmetry(cu3au):
    loose = cu3au.copy()
    loose.perturb(0.004, seed=1)
    assert spacegroup(loose) == 1
    (result,) = relax([loose], Toy(), PAPER)
    # phonopy looks at 1e-5 Å: whatever is not refined to that costs displaced supercells
    assert spacegroup(relaxed(result).structure) == 221
    assert relaxed(result).refined


def test_forces_that_the_symmetry_forbids_do_not_count(cu3au, low_symmetry):
    class Lopsided(Toy):
        """Pulls gold to one side, as a potential may that is not invariant under reflections."""

        def forward(self, state, **kwargs):
            output = super().forward(state, **kwargs)
            output["forces"][state.atomic_numbers == 79, 0] += 0.02
            return output

    for structure in (cu3au, low_symmetry):
        (result,) = relax([structure], Lopsided(), PAPER)
        assert relaxed(result).max_force <= PAPER.accept_force
    (result,) = relax([cu3au], Lopsided(), PAPER)
    assert (spacegroup(relaxed(result).structure), relaxed(result).rounds) == (221, 1)


def test_a_crystal_does_not_depend_on_its_neighbours(fcc, cu3au, low_symmetry):
    together = relax([fcc, low_symmetry, cu3au], Toy(), PAPER)
    (alone,) = relax([low_symmetry], Toy(), PAPER)
    assert relaxed(together[1]).steps == relaxed(alone).steps
    assert np.allclose(
        relaxed(together[1]).structure.lattice.matrix, relaxed(alone).structure.lattice.matrix, atol=1e-8
    )


def test_nor_on_when_it_joins_a_batch_that_is_under_way(fcc, cu3au, low_symmetry):
    crystals = [fcc, low_symmetry, cu3au, low_symmetry, fcc, low_symmetry]
    calls: list[int] = []
    watching = Toy(lambda state: calls.append(state.n_systems))
    together = relax(crystals, watching, PAPER, budget=Budget(len(fcc) + len(low_symmetry)))
    assert max(calls) > 1
    for crystal, result in zip(crystals, together, strict=True):
        (alone,) = relax([crystal], Toy(), PAPER)
        assert relaxed(result).steps == relaxed(alone).steps
        assert relaxed(result).rounds == relaxed(alone).rounds
        assert np.allclose(relaxed(result).structure.lattice.matrix, relaxed(alone).structure.lattice.matrix, atol=1e-8)


def test_a_newcomer_that_breaks_the_batch_harms_no_other(fcc, cu3au, low_symmetry):
    crystals = [low_symmetry, fcc, with_species(fcc, "Kr"), cu3au, fcc]
    results = relax(crystals, Toy(), PAPER, budget=Budget(len(fcc) + len(low_symmetry)))
    assert [type(r) for r in results] == [Relaxed, Relaxed, Failure, Relaxed, Relaxed]
    assert "krypton" in results[2].detail


def with_species(structure: Structure, symbol: str) -> Structure:
    return Structure(structure.lattice, [symbol] * len(structure), structure.frac_coords)


def test_one_bad_crystal_harms_no_other(fcc, cu3au):
    told: dict[int, object] = {}
    crystals = [fcc, with_species(fcc, "Xe"), cu3au, with_species(fcc, "Kr"), fcc]
    results = relax(crystals, Toy(), PAPER, on_result=told.__setitem__)
    assert [type(r) for r in results] == [Relaxed, Failure, Relaxed, Failure, Relaxed]
    assert results[1].reason == Reason.NOT_FINITE
    assert results[3].reason == Reason.EXCEPTION
    assert "krypton" in results[3].detail
    assert told == dict(enumerate(results))
    (alone,) = relax([cu3au], Toy(), PAPER)
    assert relaxed(results[2]).structure.volume == pytest.approx(relaxed(alone).structure.volume, rel=1e-9)


def test_a_result_that_cannot_be_written_ends_the_run(fcc):
    def full(index, result):
        raise OSError("No space left on device")

    with pytest.raises(UndeliverableError, match="No space left"):
        relax([fcc, fcc], Toy(), PAPER, on_result=full)


def test_memory_that_runs_out_makes_smaller_batches(fcc):
    budget = Budget(64)
    results = relax([fcc] * 8, limited(9), PAPER, budget=budget)
    assert all(isinstance(r, Relaxed) for r in results)
    assert budget.max_atoms <= 9
    (hopeless,) = relax([fcc], limited(3), PAPER)
    assert isinstance(hopeless, Failure)
    assert hopeless.reason == Reason.OUT_OF_MEMORY


def test_unconverged_is_failed_with_the_force_that_is_left(low_symmetry):
    (result,) = relax([low_symmetry], Toy(), RelaxationSettings(steps_per_round=1, rounds=2))
    assert isinstance(result, Failure)
    assert result.reason == Reason.NOT_CONVERGED
    assert "2 steps in 2 rounds" in result.detail


def test_an_exploding_crystal_is_given_up(fcc, low_symmetry):
    crushed = Structure(low_symmetry.lattice.scale(2.5), low_symmetry.species, low_symmetry.frac_coords)
    results = relax([crushed, fcc], Toy(), PAPER)
    assert isinstance(results[0], Failure)
    assert results[0].reason == Reason.FORCES_EXPLODED
    assert isinstance(results[1], Relaxed)


def test_a_round_that_ends_early_goes_on_in_the_next(low_symmetry):
    (whole,) = relax([low_symmetry], Toy(), PAPER)
    (pieces,) = relax([low_symmetry], Toy(), RelaxationSettings(steps_per_round=20, rounds=100))
    assert relaxed(pieces).rounds > 1
    assert relaxed(pieces).structure.volume == pytest.approx(relaxed(whole).structure.volume, rel=2e-3)
