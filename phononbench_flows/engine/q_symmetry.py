"""What the symmetry of a crystal makes of q-points, modes and dynamical matrices.

An operation {W|w} takes atom i in the cell at R to atom i' in the cell at W R + t_i, and q to q' = W^-T q. With C the
cartesian rotation and U_(i'i) = C exp(-2 pi i q'.t_i), D(q') = U D(q) U^H, in the convention of
:mod:`phononbench_flows.engine.interpolation` (Maradudin and Vosko, Rev. Mod. Phys. 40, 1, 1968, with phases of cells).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.symmetry import Symmetry

from phononbench_flows.engine.interpolation import Known
from phononbench_flows.engine.lattices import same_point

_SAME_SPECTRUM = 1e-6
_SAME_EIGENVALUE = 1e-6
_WHOLE = 1e-6


@dataclass(frozen=True)
class Operation:
    """One operation: ``rotation`` W (3, 3), atoms' ``images`` (n,) and ``shifts`` t (n, 3), ``cartesian`` C (3, 3)."""

    rotation: np.ndarray
    images: np.ndarray
    shifts: np.ndarray
    cartesian: np.ndarray

    @cached_property
    def reciprocal(self) -> np.ndarray:
        """W^-T, which takes q to q'."""
        return np.rint(np.linalg.inv(self.rotation)).astype(int).T

    def keeps(self, supercell: np.ndarray) -> bool:
        """Whether a supercell's lattice has this symmetry; columns are its vectors in units of the primitive cell's."""
        turned = np.linalg.inv(supercell) @ self.rotation @ supercell
        return bool(np.abs(turned - np.rint(turned)).max() < _WHOLE)

    def matrix(self, q: np.ndarray) -> np.ndarray:
        """U (3n, 3n), which takes modes at q to modes at q'."""
        n = len(self.images)
        phases = np.exp(-2j * np.pi * self.shifts @ (self.reciprocal @ q))
        found = np.zeros((n, 3, n, 3), dtype=complex)
        found[self.images, :, np.arange(n), :] = phases[:, None, None] * self.cartesian
        return found.reshape(3 * n, 3 * n)


def operations(cell: PhonopyAtoms, symprec: float) -> list[Operation]:
    """The operations of a primitive cell, one for each rotation."""
    found = Symmetry(cell, symprec=symprec).symmetry_operations
    to_cartesian = cell.cell.T
    result = []
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        moved = cell.scaled_positions @ rotation.T + translation
        apart = moved[:, None] - cell.scaled_positions[None]
        distances = np.linalg.norm((apart - np.rint(apart)) @ cell.cell, axis=2)
        images = distances.argmin(axis=1)
        result.append(
            Operation(
                rotation=np.asarray(rotation),
                images=images,
                shifts=np.rint(moved - cell.scaled_positions[images]).astype(int),
                cartesian=to_cartesian @ rotation @ np.linalg.inv(to_cartesian),
            )
        )
    return result


def star(known: Known, symmetry: list[Operation]) -> list[Known]:
    """The same knowledge at each q-point that symmetry makes of its own."""
    found: list[Known] = []
    for operation in symmetry:
        q = operation.reciprocal @ known.q
        if not any(same_point(q, each.q) for each in found):
            turn = operation.matrix(known.q)
            found.append(Known(q, turn @ known.matrix @ turn.conj().T))
    return found


def equivalent_points(q: np.ndarray, symmetry: list[Operation]) -> np.ndarray:
    """What symmetry and time reversal make of a q-point, each within [0, 1); (n, 3)."""
    turned = np.array([operation.reciprocal @ q for operation in symmetry])
    both = np.concatenate([turned, -turned])
    return np.unique(np.round(both - np.floor(np.round(both, 6)), 6), axis=0)


def little_group(q: np.ndarray, symmetry: list[Operation]) -> list[Operation]:
    """The operations that leave a q-point where it is, up to a reciprocal lattice vector."""
    return [operation for operation in symmetry if same_point(operation.reciprocal @ q, q)]


def blocks(q: np.ndarray, symmetry: list[Operation], *, real: bool = False) -> list[np.ndarray]:
    """Subspaces (3n, m) whose modes no matrix with this symmetry couples; those that only repeat another are left out.

    Any combination H of the operations' matrices commutes with D(q); for one at random, the eigenspaces of H are the
    rows of the irreducible representations. Rows of the same one have the same spectrum whatever D(q) is, and one of
    them is enough: a matrix at random with the symmetry tells which they are.

    Parameters:
        q: (3,).
        symmetry: operations of the crystal.
        real: whether 2q is a reciprocal lattice vector, where D(q) is real, and the subspaces are to be so.
    """
    turns = [operation.matrix(q) for operation in little_group(q, symmetry)]
    turns = [turn.real for turn in turns] if real else turns
    size = len(turns[0])
    if len(turns) == 1:
        return [np.eye(size, dtype=turns[0].dtype)]
    random = np.random.default_rng(0)  # the same numbers each time: a result does not depend on chance
    weights = random.normal(size=len(turns)) + (0 if real else 1j * random.normal(size=len(turns)))
    combined = np.tensordot(weights, turns, axes=1) / len(turns)
    any_matrix = random.normal(size=(size, size)) + (0 if real else 1j * random.normal(size=(size, size)))
    symmetric = sum(turn @ (any_matrix + any_matrix.conj().T) @ turn.conj().T for turn in turns) / len(turns)
    values, vectors = np.linalg.eigh(combined + combined.conj().T)
    cuts = np.flatnonzero(np.diff(values) > _SAME_EIGENVALUE) + 1
    found: list[np.ndarray] = []
    spectra: list[np.ndarray] = []
    for subspace in np.split(vectors, cuts, axis=1):
        spectrum = np.linalg.eigvalsh(subspace.conj().T @ symmetric @ subspace)
        if not any(len(spectrum) == len(s) and np.abs(spectrum - s).max() < _SAME_SPECTRUM for s in spectra):
            found.append(subspace)
            spectra.append(spectrum)
    return found
