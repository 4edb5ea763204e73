"""Against second derivatives of the energy with atoms at rest, which are what elastic constants are."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import units
from ase.build import bulk
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Structure
from scipy.optimize import minimize
from toy_potentials import CUTOFF, Toy

from phononbench_flows import potentials
from phononbench_flows.engine import elasticity as module
from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.elasticity import Elasticity, elasticity, gamma_hessian, lowest_christoffel
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.layers import Periodicity, periodicity
from phononbench_flows.engine.relax import relax
from phononbench_flows.engine.trouble import Failure, Found
from phononbench_flows.potentials.source import is_installed
from phononbench_flows.protocol import PRESETS

PAPER = PRESETS["paper"]
BULK = Periodicity(3)


def rested(structure: Structure, model=None) -> Structure:
    (found,) = relax([structure], model or Toy(), PAPER.relaxation)
    return found.structure


def constants_of(structure: Structure, model=None) -> ForceConstants:
    (found,) = force_constants([structure], model or Toy(), PAPER.force_constants)
    assert isinstance(found, ForceConstants)
    return found


def ask(constants: ForceConstants, connected: Periodicity = BULK, model=None) -> Found[Elasticity]:
    (found,) = hold([partial(elasticity, constants, connected)], model or Toy())
    assert isinstance(found, Found), found
    return found


def energy(cell: np.ndarray, scaled: np.ndarray, numbers: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å."""
    output = Toy()(
        ts.initialize_state([PhonopyAtoms(cell=cell, numbers=numbers, scaled_positions=scaled)], "cpu", torch.float64)
    )
    return float(output["energy"][0]), output["forces"].numpy()


def energy_at_rest(constants: ForceConstants, strain: np.ndarray) -> float:
    """Energy of the strained primitive cell after its atoms have come to rest, eV."""
    primitive = constants.phonopy().primitive
    cell = primitive.cell @ (np.eye(3) + strain)

    def moved(shifts):
        scaled = primitive.scaled_positions + shifts.reshape(-1, 3) @ np.linalg.inv(cell)
        value, forces = energy(cell, scaled, primitive.numbers)
        return value, -forces.ravel()

    return minimize(moved, np.zeros(3 * len(primitive)), jac=True, method="BFGS", options={"gtol": 1e-8}).fun


def second_derivative(constants: ForceConstants, strain: np.ndarray) -> float:
    """Of the energy per volume along a strain, GPa."""
    step = 1e-3
    plus, zero, minus = (energy_at_rest(constants, s * step * strain) for s in (1, 0, -1))
    return (plus - 2 * zero + minus) / step**2 / constants.phonopy().primitive.volume / units.GPa


@pytest.fixture(scope="module")
def hcp() -> ForceConstants:
    """Two atoms that move against each other when the cell is strained."""
    lattice = Lattice.hexagonal(2.5, 4.1)
    return constants_of(rested(Structure(lattice, ["Mg"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])))


def test_constants_are_second_derivatives_of_the_energy_with_atoms_at_rest(hcp):
    found = ask(hcp)
    assert found.evaluations == 24
    tensor = found.result.tensor
    for voigt in [*np.eye(6), [1, -1, 0, 0, 0, 0.5], [0.3, 0.2, -1, 0.4, -0.7, 1.1]]:
        xx, yy, zz, yz, xz, xy = np.array(voigt) / [1, 1, 1, 2, 2, 2]
        strain = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        assert voigt @ tensor @ voigt == pytest.approx(second_derivative(hcp, strain), rel=2e-3)
    # Atoms that move with the cell alone resist more.
    assert found.result.clamped[5, 5] > 1.02 * tensor[5, 5]
    assert tensor[5, 5] == pytest.approx((tensor[0, 0] - tensor[0, 1]) / 2)
    assert found.result.born_stable
    assert 0 < found.result.noise < 1e-3 * tensor[0, 0]
    assert found.result.strain == 0.003


def test_slopes_are_those_of_the_acoustic_branches(hcp):
    found = ask(hcp).result
    structure = Structure(hcp.cell, ["Mg"] * 2, hcp.positions)
    settings = PAPER.force_constants.model_copy(update={"supercell": (1, 1, 12)})
    (long,) = force_constants([structure], Toy(), settings)
    slope = long.phonopy().run_qpoints([[0, 0, 1 / 12]]).frequencies[0][0] * 12 * structure.lattice.c
    density = hcp.phonopy().primitive.masses.sum() / structure.volume  # u/Å^3
    # In ASE's units; a velocity of 1 m/s is 0.01 THz Å.
    expected = np.sqrt(found.tensor[3, 3] * units.GPa / density) / (units.m / units.s) * 1e-2
    assert slope == pytest.approx(expected, rel=0.02)
    assert found.slope <= expected * 1.0001


def test_near_zero_a_smaller_strain_tells_the_noise(hcp, monkeypatch):
    first = ask(hcp).result
    monkeypatch.setattr(module, "_DOUBTFUL", 1e3)
    again = ask(hcp)
    assert again.evaluations == 48
    assert again.result.strain == 0.001
    assert again.result.noise >= abs(again.result.lowest - first.lowest) > 0
    assert np.allclose(again.result.tensor, first.tensor, rtol=1e-3, atol=0.05)


def test_a_wrong_hessian_is_made_good_by_the_smaller_strain(hcp, monkeypatch):
    right = ask(hcp).result
    wrong = ForceConstants.from_arrays(hcp.arrays() | {"array": 1.1 * hcp.array})
    first = ask(wrong).result
    monkeypatch.setattr(module, "_DOUBTFUL", 1e3)
    again = ask(wrong).result
    error, left = (abs(each.tensor[5, 5] - right.tensor[5, 5]) for each in (first, again))
    assert left < 0.2 * error
    assert again.noise >= abs(again.lowest - first.lowest)


def test_a_crystal_that_gives_way_to_shear_is_unstable():
    found = ask(constants_of(rested(Structure(Lattice.cubic(2.85), ["Fe"] * 2, [[0, 0, 0], [0.5] * 3])))).result
    shear = (found.tensor[0, 0] - found.tensor[0, 1]) / 2
    assert shear < -1
    assert found.lowest == pytest.approx(shear)
    assert np.allclose(np.sort(np.abs(found.direction)), [0, 2**-0.5, 2**-0.5], atol=1e-3)
    assert found.slope < 0
    assert not found.born_stable


@pytest.fixture
def layer() -> Structure:
    """A triangular lattice of one atom; beyond the gap the potential sees nothing."""
    return Structure(Lattice.hexagonal(2.55, 12), ["Cu"], [[0, 0, 0]])


def test_a_layer_is_looked_at_in_its_plane(layer):
    rest = rested(layer)
    connected = periodicity(rest, CUTOFF)
    constants = constants_of(rest)
    found = ask(constants, connected)
    assert found.evaluations == 6
    tensor = found.result.tensor
    assert tensor.shape == (3, 3)
    assert tensor[2, 2] == pytest.approx((tensor[0, 0] - tensor[0, 1]) / 2)
    assert tensor[0, 0] == pytest.approx(second_derivative(constants, np.diag([1.0, 0, 0])), rel=2e-3)
    assert found.result.lowest == pytest.approx(tensor[2, 2])
    assert found.result.born_stable
    # Written otherwise, and turned in space.
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = Structure(np.array([[0, 0, 1], [1, 0, 0], [1, 1, 0]]) @ rest.lattice.matrix @ rotation, ["Cu"], [[0] * 3])
    connected = periodicity(turned, CUTOFF)
    again = ask(constants_of(turned), connected).result
    assert again.lowest == pytest.approx(found.result.lowest, rel=1e-3)
    assert again.slope == pytest.approx(found.result.slope, rel=1e-3)
    assert abs(again.direction @ connected.normal) < 1e-9
    assert np.linalg.norm(again.direction) == pytest.approx(1)


def test_chains_have_no_elastic_constants_and_cost_nothing(layer):
    found = ask(constants_of(layer), Periodicity(1))
    assert found.result is None
    assert found.evaluations == 0


def test_a_crystal_without_a_stress_fails_alone(hcp):
    class NoStress(Toy):
        def forward(self, state, **kwargs):
            return {key: value for key, value in super().forward(state, **kwargs).items() if key != "stress"}

    (found,) = hold([partial(elasticity, hcp, BULK)], NoStress())
    assert isinstance(found, Failure)
    assert "stress" in found.detail


@pytest.mark.parametrize("dimension", [2, 3])
def test_no_direction_is_lower_than_the_lowest(dimension):
    random = np.random.default_rng(1)
    for _ in range(5):
        tensor = random.normal(size=(dimension,) * 4)
        for axes in ((1, 0, 2, 3), (0, 1, 3, 2), (2, 3, 0, 1)):
            tensor = tensor + tensor.transpose(axes)
        lowest, direction = lowest_christoffel(tensor)
        n = random.normal(size=(20_000, dimension))
        n /= np.linalg.norm(n, axis=1, keepdims=True)
        sampled = np.linalg.eigvalsh(np.einsum("ijkl,nj,nl->nik", tensor, n, n))[:, 0].min()
        assert sampled - 0.05 * abs(sampled) < lowest < sampled + 1e-9
        there = np.einsum("ijkl,j,l->ik", tensor, direction, direction)
        assert np.linalg.eigvalsh(there)[0] == pytest.approx(lowest)


@pytest.mark.sevennet
@pytest.mark.skipif(not is_installed("sevenn"), reason="the extra sevennet is not installed")
def test_silicon_of_a_real_potential():
    model = potentials.load("sevennet-0", "cpu").model
    atoms = bulk("Si", "diamond", a=5.46)
    structure = rested(Structure(Lattice(atoms.cell.array), ["Si"] * 2, atoms.get_scaled_positions()), model)
    constants = constants_of(structure, model)
    found = ask(constants, model=model).result
    c11, c12, c44 = found.tensor[0, 0], found.tensor[0, 1], found.tensor[3, 3]
    assert found.lowest == pytest.approx((c11 - c12) / 2, rel=1e-4)
    assert found.noise < 0.1
    # C44 is where atoms move against each other: here they do so step by step, until they are at rest.
    primitive = constants.phonopy().primitive
    inverse = np.linalg.pinv(gamma_hessian(constants.phonopy()), rcond=1e-4)
    stresses = []
    for sign in (1, -1):
        strain = sign * 1.5e-3 * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])
        cell = PhonopyAtoms(
            cell=primitive.cell @ (np.eye(3) + strain),
            numbers=primitive.numbers,
            scaled_positions=primitive.scaled_positions,
        )
        for _ in range(6):
            output = model(ts.initialize_state([cell], model.device, model.dtype))
            cell.positions = cell.positions + (inverse @ output["forces"].numpy().ravel()).reshape(-1, 3)
        assert output["forces"].abs().max() < 1e-4
        stresses.append(float(output["stress"][0, 1, 2]) / units.GPa)
    assert c44 == pytest.approx((stresses[0] - stresses[1]) / 6e-3, rel=5e-3)
    assert found.clamped[3, 3] > 1.2 * c44
