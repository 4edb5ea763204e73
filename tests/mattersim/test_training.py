"""The small MatterSim checkpoint against its teacher, through MatterSim's own ASE calculator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from mattersim.forcefield import MatterSimCalculator, Potential
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

if TYPE_CHECKING:
    from pathlib import Path

    from ase.calculators.calculator import Calculator


pytestmark = pytest.mark.mattersim


@pytest.fixture(scope="module")
def student(small_mattersim_checkpoint: Path) -> MatterSimCalculator:
    """MatterSim's calculator in float64, with the small checkpoint."""
    potential = Potential.from_checkpoint(
        load_path=str(small_mattersim_checkpoint), load_training_state=False, device="cpu"
    )
    # The default graph holds positions in float32 whatever the dtype; the direct one does not.
    return MatterSimCalculator(potential=potential, device="cpu", dtype="float64", direct_graph=True)


def lattice_constant(metal: str, calculator: Calculator) -> float:
    """Return the relaxed conventional fcc lattice constant of ``metal``, in Å."""
    atoms = bulk(metal, "fcc", cubic=True)
    atoms.calc = calculator
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=100)
    return float(atoms.cell.lengths()[0])


def frequencies(metal: str, length: float, calculator: Calculator) -> tuple[np.ndarray, np.ndarray]:
    """Return fcc phonon frequencies in THz, shapes (n_q, 3) on a mesh and (3,) at Gamma; ``length`` is in Å."""
    cell = bulk(metal, "fcc", a=length)
    phonon = Phonopy(
        PhonopyAtoms(symbols=[metal], cell=cell.cell[:], scaled_positions=[[0, 0, 0]]), 3 * np.eye(3, dtype=int)
    )
    phonon.generate_displacements(distance=0.01)
    phonon.forces = [
        Atoms(s.symbols, cell=s.cell, positions=s.positions, pbc=True, calculator=calculator).get_forces()
        for s in phonon.supercells_with_displacements
    ]
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    phonon.run_mesh([12, 12, 12], is_gamma_center=True)
    phonon.run_qpoints([[0, 0, 0]])
    return phonon.mesh.frequencies, phonon.qpoints.frequencies[0]


def test_lattice_constant_and_phonons_follow_the_teacher(student: MatterSimCalculator, metal: str) -> None:
    taught = lattice_constant(metal, EMT())
    learnt = lattice_constant(metal, student)
    assert learnt == pytest.approx(taught, rel=0.015)

    taught_mesh, _ = frequencies(metal, taught, EMT())
    learnt_mesh, learnt_gamma = frequencies(metal, learnt, student)
    assert taught_mesh.min() > -0.05
    assert learnt_mesh.min() > -0.05
    assert learnt_gamma.min() > -1e-3
    assert learnt_mesh.max() == pytest.approx(taught_mesh.max(), rel=0.15)
