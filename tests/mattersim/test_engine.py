"""The real MatterSim code path, on a small checkpoint in MatterSim's own format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase.build import bulk
from ase.calculators.emt import EMT
from mattersim.forcefield import MatterSimCalculator
from phonopy import Phonopy
from pymatgen.io.ase import AseAtomsAdaptor

from phononbench_flows import potentials
from phononbench_flows.engine.force_constants import force_constants
from phononbench_flows.engine.relax import Relaxed, relax
from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.protocol import PRESETS
from phononbench_flows.stability import Evidence, Look, assess

PAPER = PRESETS["paper"]
pytestmark = pytest.mark.mattersim


@pytest.fixture(scope="module")
def loaded(small_mattersim_checkpoint) -> potentials.Potential:
    return potentials.load(str(small_mattersim_checkpoint), "cpu")


def teachers_highest_frequency(phonon: Phonopy) -> float:
    """Highest frequency (THz) of EMT in the same supercells."""
    forces = []
    for cell in phonon.supercells_with_displacements:
        atoms = bulk(cell.symbols[0], cubic=True) * (2, 2, 2)
        atoms.set_cell(cell.cell)
        atoms.set_scaled_positions(cell.scaled_positions)
        atoms.calc = EMT()
        forces.append(atoms.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()
    return float(spectrum(phonon, PAPER.spectrum).path.values.max())


def test_trained_metals_come_out_stable_and_as_stiff_as_the_teacher(loaded):
    from phononbench_flows.engine.force_constants import displace

    metals = ["Cu", "Ni"]
    crystals = [AseAtomsAdaptor.get_structure(bulk(m, cubic=True)) for m in metals]
    relaxed = relax(crystals, loaded.model, PAPER.relaxation)
    assert all(isinstance(r, Relaxed) for r in relaxed), relaxed
    constants = force_constants([r.structure for r in relaxed], loaded.model, PAPER.force_constants)
    for result, found in zip(relaxed, constants, strict=True):
        seen = spectrum(found.phonopy(), PAPER.spectrum)
        at = seen.at(PAPER.judgement.q_points)
        look = Look(frequency=at.minimum, q=at.minimum_q.tolist(), n_q=len(at.q), exact=False)
        assessments = assess(Evidence(looks={PAPER.judgement.q_points: look}), PAPER.judgement)
        assert [each.stability for each in assessments] == ["stable", "stable"]
        teacher = teachers_highest_frequency(displace(result.structure, PAPER.force_constants))
        assert seen.path.values.max() == pytest.approx(teacher, rel=0.15)


def test_batched_forces_are_those_of_mattersims_own_calculator(loaded, small_mattersim_checkpoint):
    crystals = []
    for seed, (metal, repeats) in enumerate([("Cu", 1), ("Ni", 2), ("Cu", 2)]):
        atoms = bulk(metal, cubic=True) * (repeats, 1, 1)
        atoms.rattle(0.05, seed=seed)
        crystals.append(atoms)
    state = ts.initialize_state(crystals, torch.device("cpu"), torch.float64)
    forces = loaded.model(state)["forces"].split([len(a) for a in crystals])
    calculator = MatterSimCalculator(
        load_path=str(small_mattersim_checkpoint), device="cpu", dtype="float64", direct_graph=True
    )
    for atoms, ours in zip(crystals, forces, strict=True):
        atoms.calc = calculator
        assert np.abs(atoms.get_forces() - ours.numpy()).max() < 1e-5


def test_large_cells_have_finite_forces(loaded):
    """In float32 the graph of a cell above 20 Å keeps edges from an atom to itself, whose forces are NaN."""
    atoms = bulk("Cu", cubic=True) * (6, 6, 6)
    atoms.rattle(0.02, seed=3)
    assert atoms.cell.lengths().min() > 21
    state = ts.initialize_state([atoms], torch.device("cpu"), torch.float64)
    assert torch.isfinite(loaded.model(state)["forces"]).all()


def test_the_checkpoint_is_identified(loaded, small_mattersim_checkpoint):
    assert loaded.checkpoint_sha256 == potentials.identify(str(small_mattersim_checkpoint)).sha256
    assert loaded.dtype == "float32"
    assert "Cu" in loaded.elements
    assert "Po" not in loaded.elements


@pytest.mark.slow
def test_compiled_it_gives_the_same(small_mattersim_checkpoint, loaded):
    """On the CPU, where only this test compiles: the setting asks for a GPU."""
    source = potentials.find_source(str(small_mattersim_checkpoint))
    compiled = source.load(small_mattersim_checkpoint, torch.device("cpu"), compile=True)
    for repeats in (1, 2, 3):  # its graph is compiled for any number of atoms
        crystals = [bulk("Cu", cubic=True) * (repeats, 1, 1), bulk("Ni", cubic=True)]
        for atoms in crystals:
            atoms.rattle(0.05, seed=repeats)
        state = ts.initialize_state(crystals, torch.device("cpu"), torch.float64)
        plain, fast = loaded.model(state), compiled(state)
        assert torch.allclose(plain["forces"], fast["forces"], atol=1e-5)
        assert torch.allclose(plain["stress"], fast["stress"], atol=1e-6)


def test_compiling_needs_a_gpu(small_mattersim_checkpoint):
    with pytest.raises(potentials.PotentialError, match="compile needs a GPU"):
        potentials.load(str(small_mattersim_checkpoint), "cpu", {"compile": True})
