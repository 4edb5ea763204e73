"""Lattice vectors and q-points as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from pymatgen.core import Lattice

_RANK_TOLERANCE = 1e-3  # Å
_SAME_LENGTH = 6  # decimals of Å, within which the order of vectors is that of their steps


def steps_within(reach: int) -> np.ndarray:
    """Steps of up to so many lattice vectors in each direction, one of each pair and none of length zero; (n, 3)."""
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return steps[len(steps) // 2 + 1 :]


def shortest_basis(steps: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The three shortest steps (n, 3) along a basis (rows, Å) that are independent, as rows; fewer if there are not.

    In three dimensions the shortest vectors of a lattice that are independent are a basis of it.
    """
    chosen: list[np.ndarray] = []
    order = np.argsort(np.round(np.linalg.norm(steps @ basis, axis=1), _SAME_LENGTH), kind="stable")
    for step in steps[order]:
        if np.linalg.matrix_rank(np.array([*chosen, step]) @ basis, tol=_RANK_TOLERANCE) > len(chosen):
            chosen.append(step)
        if len(chosen) == 3:
            break
    return np.array(chosen)


def shortest_vectors(basis: np.ndarray) -> np.ndarray:
    """A basis of the same lattice of its shortest vectors, as rows; (3, 3)."""
    start = Lattice(basis).get_lll_reduced_lattice().matrix
    found = shortest_basis(steps_within(2), start) @ start
    return found if np.linalg.det(found) * np.linalg.det(basis) > 0 else -found


def to_supercell(phonon: Phonopy) -> np.ndarray:
    """Integer matrix (3, 3) whose columns are the supercell's lattice vectors in units of the primitive cell's."""
    return np.rint(np.linalg.inv(phonon.primitive_matrix) @ phonon.supercell_matrix).astype(int)


def commensurate_points(supercell: np.ndarray) -> np.ndarray:
    """q-points (n, 3) that a supercell holds; ``supercell`` as :func:`to_supercell` gives it."""
    return np.asarray(get_commensurate_points(supercell))


def same_point(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two q-points differ by a reciprocal lattice vector."""
    difference = np.asarray(one) - np.asarray(other)
    return bool(np.abs(difference - np.rint(difference)).max() < 1e-6)


def each_once(points: Sequence[np.ndarray], before: Sequence[np.ndarray] = ()) -> list[int]:
    """Places of the q-points that are the same as none before them."""
    kept: list[int] = []
    for place, q in enumerate(points):
        if not any(same_point(q, other) for other in (*before, *(points[k] for k in kept))):
            kept.append(place)
    return kept
