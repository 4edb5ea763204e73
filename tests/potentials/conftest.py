"""Crystals and a check that the families' tests share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase.build import bulk


@pytest.fixture
def crystals():
    """Small cells, in which an atom is its own neighbour many times, and larger ones; strained and rattled."""
    found = [bulk("MgO", "rocksalt", a=4.21), bulk("Cu", "fcc", a=3.6), bulk("MgO", "rocksalt", a=4.21, cubic=True)]
    strain = np.array([[0.01, 0.02, 0.0], [0.0, -0.01, 0.005], [0.0, 0.0, 0.015]])
    for seed, atoms in enumerate(found):
        atoms.rattle(0.05, seed=seed)
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    return found


@pytest.fixture
def assert_as_its_own_calculator(crystals):
    """A batch gives what the family's own ASE calculator gives for each crystal, in eV, eV/Å and eV/Å^3."""

    def check(model, calculator, tolerance: float = 1e-4) -> None:
        output = model(ts.initialize_state(crystals, torch.device("cpu"), torch.float64))
        forces = output["forces"].split([len(atoms) for atoms in crystals])
        assert {output[key].dtype for key in ("energy", "forces", "stress")} == {torch.float64}
        for index, atoms in enumerate(crystals):
            atoms.calc = calculator
            assert np.abs(forces[index].numpy() - atoms.get_forces()).max() < tolerance
            assert np.abs(output["stress"][index].numpy() - atoms.get_stress(voigt=False)).max() < tolerance
            assert float(output["energy"][index]) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)

    return check
