"""Elastic constants with atoms at rest, and the limit of long acoustic waves that they decide.

Forces and stresses of strained primitive cells give the constants for atoms that move with the cell, and how they are
pushed; with the Hessian at Γ follows how far they move, and the constants for atoms that have done so:
C = C_clamped - Λ^T Φ^+ Λ / V (Wu, Vanderbilt and Hamann, Phys. Rev. B 72, 035105 (2005)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import units
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.analysis.elasticity import ElasticTensor

from phononbench_flows.engine.dialogues import Answer, Dialogue
from phononbench_flows.engine.force_constants import ForceConstants
from phononbench_flows.engine.layers import Periodicity
from phononbench_flows.engine.q_symmetry import operations

STRAIN, SMALLER_STRAIN = 0.003, 0.001

# GPa. Slopes within ±0.3 THz Å for wave vectors in rad/Å (±1.9 for 1/wavelength) are a matter of noise and of
# anharmonicity: for the densest of elements (22.6 g/cm^3) that is ±0.8 GPa. This is wide enough for bcc niobium's
# marginal -1.4 GPa too, and twelve more cells cost little.
_DOUBTFUL = 2.0

# eV/Å^2. What a Hessian from displacements of 0.01 Å leaves undetermined at best: 0.05 THz for an atom of 100 u.
_NO_STIFFNESS = 1e-3

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_COMPONENTS = {3: [0, 1, 2, 3, 4, 5], 2: [0, 1, 5]}  # of these, by dimension
_THZ_ANGSTROM = 1e-2 / (units.m / units.s)  # of a velocity in ASE's units: 1 m/s is 0.01 THz Å


@dataclass(frozen=True)
class Elasticity:
    """Elastic constants of a crystal, or of layers in their plane.

    Attributes:
        tensor: for atoms at rest, symmetric under the crystal's point group, in Voigt's order, GPa. (6, 6) in cartesian
            axes; of layers (3, 3) for xx, yy and xy in ``frame``, per volume of the cell with its gap.
        clamped: the same for atoms that move with the cell, as it came out.
        frame: orthonormal axes, rows, (3, 3); of layers the third is across them.
        lowest: lowest eigenvalue of the Christoffel matrix over all directions (of layers: in their plane, for waves
            that are polarised in it), GPa.
        slope: frequency over wave number (1/wavelength) there, THz Å, imaginary as negative.
        direction: unit vector, cartesian, (3,).
        born_stable: whether all eigenvalues of ``tensor`` are positive.
        noise: eigenvalues that differ by less are the same, GPa.
        strain: the tensor is from strains of this size.
    """

    tensor: np.ndarray
    clamped: np.ndarray
    frame: np.ndarray
    lowest: float
    slope: float
    direction: np.ndarray
    born_stable: bool
    noise: float
    strain: float


def elasticity(
    constants: ForceConstants,
    periodicity: Periodicity,
    strain: float = STRAIN,
    smaller_strain: float = SMALLER_STRAIN,
) -> Dialogue:
    """Find the elastic constants of a crystal in a dialogue; returns an :class:`Elasticity`, None for chains and less.

    Asks for twelve strained primitive cells, for layers for six. If the lowest Christoffel eigenvalue comes out near
    zero, it asks for as many again, of a smaller strain and with each atom where the first ones say that it moves: what
    was taken from the Hessian is then a small correction. The noise is the largest of that difference, of what in the
    tensor is not symmetric or breaks the point group, and of the mean of stresses under opposite strains: what is left
    of the crystal's stress, and of anharmonicity.

    Modes at Γ without stiffness, as of molecules between layers, are not followed, and add to the noise what they could
    take from the tensor. Where an optical mode at Γ is imaginary the tensor is that of the saddle point: the crystal is
    unstable whatever it says.

    Parameters:
        constants: of a relaxed crystal.
        periodicity: in which directions it is connected.
        strain, smaller_strain: of the cells, without unit; shears are tensor components of half of it.

    Raises:
        ValueError: the potential gives no stress.
    """
    if periodicity.dimension < 2:
        return None
    crystal = _Crystal(constants.phonopy(symmetry=False), periodicity)
    none = np.zeros((3 * len(crystal.primitive), len(crystal.components)))
    clamped, coupling, residual = crystal.rates((yield crystal.strained(strain, none)), strain)
    response = crystal.inverse @ coupling
    found = crystal.described(clamped, clamped - coupling.T @ response / crystal.volume, strain)
    noise = max(found.noise, residual)
    if abs(found.lowest) < _DOUBTFUL:
        answers = yield crystal.strained(smaller_strain, response)
        stresses, forces, residual = crystal.rates(answers, smaller_strain)
        tensor = stresses - coupling.T @ crystal.inverse @ forces / crystal.volume
        again = crystal.described(clamped, tensor, smaller_strain)
        noise = max(again.noise, residual, abs(again.lowest - found.lowest))
        found = again
    return replace(found, noise=max(noise, crystal.not_followed(coupling)))


class _Crystal:
    """A primitive cell to be strained. Stresses and tensors are in eV/Å^3, but for what is described."""

    def __init__(self, phonon: Phonopy, periodicity: Periodicity) -> None:
        self.primitive = phonon.primitive
        self.volume = float(phonon.primitive.volume)
        self.frame = _frame(periodicity.normal)
        self.components = _COMPONENTS[periodicity.dimension]
        self._dimension = periodicity.dimension
        self.inverse, self._loose = _inverse(gamma_hessian(phonon))
        found = operations(phonon.primitive, phonon.symmetry.tolerance)
        self._operations = self.frame @ np.array([each.cartesian for each in found]) @ self.frame.T

    @property
    def _indices(self) -> np.ndarray:
        """Two indices of each component, (2, n_strains)."""
        return np.array(_VOIGT)[self.components].T

    def strained(self, strain: float, response: np.ndarray) -> list[PhonopyAtoms]:
        """Cells under each strain and its opposite, with atoms moved by the response (3 n_atoms, n_strains), Å."""
        cells = []
        for component, moved in zip(self.components, response.T, strict=True):
            i, j = _VOIGT[component]
            tensor = np.zeros((3, 3))
            tensor[i, j] = tensor[j, i] = strain if i == j else strain / 2
            for sign in (1, -1):
                cell = self.primitive.cell @ (np.eye(3) + sign * self.frame.T @ tensor @ self.frame)
                shift = sign * strain * moved.reshape(-1, 3) @ np.linalg.inv(cell)
                cells.append(
                    PhonopyAtoms(
                        cell=cell,
                        numbers=self.primitive.numbers,
                        scaled_positions=self.primitive.scaled_positions + shift,
                        masses=self.primitive.masses,
                    )
                )
        return cells

    def rates(self, answers: Sequence[Answer], strain: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Derivatives of stress (n_strains, n_strains) and of forces (3 n_atoms, n_strains) by strain.

        And the largest component of the mean stress, in GPa.
        """
        if any(answer.stress is None for answer in answers):
            raise ValueError("elastic constants need stresses, and this potential gives none")
        stresses = np.array([self.frame @ answer.stress @ self.frame.T for answer in answers])
        stresses = stresses[:, *self._indices].astype(float)
        forces = np.array([answer.forces.ravel() for answer in answers], dtype=float)
        by_stress, by_force = ((each[::2] - each[1::2]).T / (2 * strain) for each in (stresses, forces))
        return by_stress, by_force, float(np.abs(stresses.mean(axis=0)).max() / units.GPa)

    def not_followed(self, coupling: np.ndarray) -> float:
        """What modes without stiffness could take from the tensor at most, in GPa, if they had as much as is noise."""
        pushed = self._loose.T @ coupling
        return float((pushed**2).sum(axis=0).max() / _NO_STIFFNESS / self.volume / units.GPa)

    def described(self, clamped: np.ndarray, tensor: np.ndarray, strain: float) -> Elasticity:
        """A tensor and what follows from it; its noise is that of asymmetry alone."""
        raw = tensor / units.GPa
        voigt = np.zeros((6, 6))
        voigt[np.ix_(self.components, self.components)] = (raw + raw.T) / 2
        even = symmetrized(np.array(ElasticTensor.from_voigt(voigt)), self._operations)
        symmetric = even[*self._indices][:, *self._indices]
        lowest, direction = lowest_christoffel(even[(slice(self._dimension),) * 4])
        density = float(self.primitive.masses.sum()) / self.volume  # u/Å^3, ASE's unit
        return Elasticity(
            tensor=symmetric,
            clamped=clamped / units.GPa,
            frame=self.frame,
            lowest=lowest,
            slope=float(np.sign(lowest) * np.sqrt(abs(lowest) * units.GPa / density) * _THZ_ANGSTROM),
            direction=direction @ self.frame[: len(direction)],
            born_stable=bool(np.linalg.eigvalsh(symmetric)[0] > 0),
            noise=float(np.abs(raw - symmetric).max()),
            strain=strain,
        )


def gamma_hessian(phonon: Phonopy) -> np.ndarray:
    """Second derivatives of the energy by displacements of all images of an atom; (3 n_atoms, 3 n_atoms), eV/Å^2."""
    found = phonon.run_qpoints([[0, 0, 0]], with_dynamical_matrices=True).dynamical_matrices
    if found is None:
        raise RuntimeError("phonopy gave no dynamical matrix")
    roots = np.sqrt(np.repeat(phonon.primitive.masses, 3))
    return found[0].real * np.outer(roots, roots)


def _inverse(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-inverse without translations and modes without stiffness, in Å^2/eV; and those modes, (3 n_atoms, n)."""
    translations = np.tile(np.eye(3), (len(hessian) // 3, 1)) / np.sqrt(len(hessian) / 3)
    rest = np.linalg.svd(translations)[0][:, 3:]  # all that is orthogonal to them
    values, vectors = np.linalg.eigh(rest.T @ hessian @ rest)
    modes, stiff = rest @ vectors, np.abs(values) > _NO_STIFFNESS
    return (modes[:, stiff] / values[stiff]) @ modes[:, stiff].T, modes[:, ~stiff]


def _frame(normal: np.ndarray | None) -> np.ndarray:
    """Axes of which the third is the normal; those of space without one."""
    if normal is None:
        return np.eye(3)
    # Least along the normal: never parallel to it.
    first = np.cross(np.eye(3)[np.abs(normal).argmin()], normal)
    first /= np.linalg.norm(first)
    return np.array([first, np.cross(normal, first), normal])


def symmetrized(tensor: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Mean of a tensor (3, 3, 3, 3) over cartesian rotations (n, 3, 3)."""
    r = operations
    turned = np.einsum("nia,njb,nkc,nld,abcd->ijkl", r, r, r, r, tensor, optimize=True)
    return turned / len(operations)


def lowest_christoffel(tensor: np.ndarray) -> tuple[float, np.ndarray]:
    """Lowest eigenvalue of the Christoffel matrix over all directions, and its direction.

    The eigenvalue is C_ijkl w_i n_j w_k n_l for a direction n and a polarisation w, which may change places: the best
    polarisation of a direction, taken for the direction, has a best polarisation that is at least as low. Repeated,
    that ends in a minimum. It begins at the lowest of a grid of directions.

    Parameters:
        tensor: elastic tensor, (3, 3, 3, 3), or (2, 2, 2, 2) for a plane, in any unit, which is that of the eigenvalue.
    """
    axes = np.meshgrid(*[np.arange(-4, 5)] * len(tensor))
    grid = np.stack([axis.ravel() for axis in axes], axis=1).astype(float)
    grid = grid[grid.any(axis=1)]
    n = np.unique((grid / np.linalg.norm(grid, axis=1, keepdims=True)).round(12), axis=0)

    def best(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(np.einsum("ijkl,nj,nl->nik", tensor, n, n))
        return values[:, 0], vectors[:, :, 0]

    values, w = best(n)
    lowest = np.argsort(values)[:50]
    values, n, w = values[lowest], n[lowest], w[lowest]
    for _ in range(500):
        before, n = values, w
        values, w = best(n)
        if np.allclose(values, before, rtol=1e-9, atol=1e-9 * np.abs(tensor).max()):
            break
    at = int(values.argmin())
    return float(values[at]), n[at]
