"""Directions of a degenerate space that differ by symmetry: along which a crystal may distort.

A space that a group turns into itself, of degenerate modes or of strains, has directions that more of the group leaves
alone than their neighbours: those that some subgroup leaves alone, and no other direction. They are where the energy is
stationary for want of another way to go (Michel's theorem), and where transitions lead. Phases of waves belong to the
space, and translations to the group.

``spgrep-modulation`` asks for directions among the modes of one q-point as well, but not for phases of complex waves
nor for signs, and 0.3 of it does not import with phonopy 4.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phononbench_flows.engine.exact import cells_needed
from phononbench_flows.engine.lattices import same_point
from phononbench_flows.engine.q_symmetry import Operation

_SAME = 1e-3  # unit vectors, and matrices, that differ by less are the same
_OF_SPACE = 0.1  # a mode whose images reach beyond a space by less of their length lies in it
_MOST_SPACES = 400


@dataclass(frozen=True)
class Direction:
    """A unit vector (d,) of a space; ``is_even`` if symmetry makes its opposite of it."""

    vector: np.ndarray
    is_even: bool


@dataclass(frozen=True)
class ModeDirection:
    """A mode (3n,) at a q-point, of a degenerate space of so many modes; ``is_even`` if its opposite is the same."""

    mode: np.ndarray
    degeneracy: int
    is_even: bool


def directions(matrices: Sequence[np.ndarray]) -> list[Direction]:
    """Directions that differ by symmetry and are alone in being left where they are by some subgroup.

    Where there are none, vectors of the smallest spaces that are left alone stand for them.

    Parameters:
        matrices: orthogonal, (d, d): what each operation of a group, the identity among them, makes of the space.
    """
    spaces = _left_alone(matrices)
    smallest = min(space.shape[1] for space in spaces)
    found: list[Direction] = []
    for space in spaces:
        if space.shape[1] > smallest:
            continue
        for vector in space.T:
            images = np.array([matrix @ vector for matrix in matrices])
            if any(_meets(images, sign * each.vector) for each in found for sign in (1, -1)):
                continue
            found.append(Direction(vector, _meets(images, -vector)))
    return found


def _meets(images: np.ndarray, vector: np.ndarray) -> bool:
    return bool(np.linalg.norm(images - vector, axis=1).min() < _SAME)


def _left_alone(matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Spaces (d, k), k > 0, each of all vectors that some operations leave alone, and all of their intersections."""
    found: dict[bytes, np.ndarray] = {}
    for matrix in matrices:
        _keep(_null_space(matrix - np.eye(len(matrix))), found)
    singles, waiting = list(found.values()), list(found.values())
    while waiting and len(found) < _MOST_SPACES:
        space = waiting.pop()
        for other in singles:
            outside = [np.eye(len(each)) - each @ each.T for each in (space, other)]
            if (new := _keep(_null_space(np.concatenate(outside)), found)) is not None:
                waiting.append(new)
    return sorted(found.values(), key=lambda space: space.shape[1])


def _keep(space: np.ndarray, found: dict[bytes, np.ndarray]) -> np.ndarray | None:
    """Add a space, if it is more than zero, to those found; gives it if it is new."""
    key = (np.round(space @ space.T, 2) + 0.0).tobytes()
    if not space.shape[1] or key in found:
        return None
    found[key] = space
    return space


def _null_space(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal vectors (d, k) that a matrix makes zero."""
    _, values, vectors = np.linalg.svd(matrix, full_matrices=True)
    return vectors[np.flatnonzero(np.append(values, np.zeros(len(vectors) - len(values))) < _SAME)].T


def mode_directions(mode: np.ndarray, q: np.ndarray, symmetry: Sequence[Operation]) -> list[ModeDirection]:
    """The directions among a mode, all that symmetry makes of it at its q-point, and all of their phases.

    Parameters:
        mode: an eigenvector of the dynamical matrix, (3n,).
        q: rational, (3,).
        symmetry: operations of the crystal.
    """
    real = same_point(2 * q, np.zeros(3))
    turns = _turns(q, symmetry, real=real)
    images = np.array([turn.of(mode) for turn in turns])
    vectors, lengths, _ = np.linalg.svd(images.T, full_matrices=False)
    space = vectors[:, lengths > _OF_SPACE * lengths[0]]
    # What translations by lattice vectors make of the wave: they turn it over where it is real, unless it is uniform.
    n = cells_needed(q)
    shifts = np.exp(2j * np.pi * np.arange(n) / n)
    matrices = [_orthogonal(turn.within(space, shift)) for turn in turns for shift in shifts]
    return [ModeDirection(_vector(space, each.vector), space.shape[1], each.is_even) for each in directions(matrices)]


@dataclass(frozen=True)
class _Turn:
    """What an operation makes of modes at q: U v, or (U v)* where it takes q to -q."""

    matrix: np.ndarray
    conjugates: bool

    def of(self, mode: np.ndarray) -> np.ndarray:
        turned = self.matrix @ mode
        return turned.conj() if self.conjugates else turned

    def within(self, space: np.ndarray, shift: complex) -> np.ndarray:
        """The same for the real coordinates of a space (3n, m): (m, m) for a real one, (2m, 2m) for a complex one."""
        if not np.iscomplexobj(space):
            return np.asarray(np.real(shift) * space.T @ self.matrix @ space)
        if self.conjugates:
            inner = shift * space.conj().T @ (self.matrix @ space).conj()
            return np.block([[inner.real, inner.imag], [inner.imag, -inner.real]])
        inner = shift * space.conj().T @ self.matrix @ space
        return np.block([[inner.real, -inner.imag], [inner.imag, inner.real]])


def _turns(q: np.ndarray, symmetry: Sequence[Operation], *, real: bool) -> list[_Turn]:
    found = []
    for operation in symmetry:
        turned = operation.reciprocal @ q
        matrix = operation.matrix(q)
        if same_point(turned, q):
            found.append(_Turn(matrix.real if real else matrix, conjugates=False))
        elif same_point(turned, -q):
            found.append(_Turn(matrix, conjugates=True))
    return found


def _orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The nearest orthogonal matrix."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


def _vector(space: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    if not np.iscomplexobj(space):
        return np.asarray(space @ coordinates)
    m = space.shape[1]
    return np.asarray(space @ (coordinates[:m] + 1j * coordinates[m:]))
