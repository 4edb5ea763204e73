"""Proofs that a crystal is unstable, from a few calls of the potential: before its atoms are displaced one by one.

A Rayleigh quotient below zero proves an imaginary mode, whatever vector it is of. Vectors are found by Davidson's
method: all atoms of a supercell are displaced at once, and the forces give the product of that vector with the
dynamical matrices of all q-points that the supercell holds. Translation keeps those apart, and symmetry keeps apart
subspaces of each, so that one displacement is a step in every one of them. Conventions are those of
:mod:`phononbench_flows.engine.interpolation`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from phonopy.structure.atoms import PhonopyAtoms

from phononbench_flows.engine.dialogues import Answer, side_by_side
from phononbench_flows.engine.exact import Wave, WavesInSupercell, cells_needed, rayleigh
from phononbench_flows.engine.interpolation import frequency_of
from phononbench_flows.engine.lattices import same_point
from phononbench_flows.engine.q_symmetry import Operation, blocks, equivalent_points
from phononbench_flows.stability import is_imaginary

_STALLED = 0.05  # a product that lowers the lowest frequency by less than this part of it brings little
_STALLS = 2  # so many in a row, and there is nothing to be proven, as a rule
_ZERO = 1e-8
_DECAY, _REACH = 3.0, 2  # of the springs: see `_springs`
_SMOOTH = 0.05  # of the springs' mean stiffness: a random mode is smoothed by what is softer
_LEAST_GAP = 1.0  # THz^2


@dataclass(frozen=True)
class Proof:
    """A mode that is imaginary.

    Attributes:
        q: where, (3,), in reciprocal lattice units of the primitive cell.
        mode: (3n,). By displacement (the largest of an atom, Å), its ``frequencies`` in THz: the lowest mode there is
            no higher.
        natoms: atoms of the smallest cell that holds q, in which they were computed.
        products: displacements of the supercell that it took to find it.
    """

    q: np.ndarray
    mode: np.ndarray
    frequencies: dict[float, float]
    natoms: int
    products: int

    @property
    def frequency(self) -> float:
        """The higher of the frequencies, THz."""
        return max(self.frequencies.values())


@dataclass
class _Search:
    """Davidson's method in a subspace (3n, m) that symmetry keeps apart, at one of the q-points.

    ``springs``: what the matrix may look like in the subspace, (m, m), but for a factor.
    """

    wave: Wave
    space: np.ndarray
    springs: np.ndarray
    mode: np.ndarray | None
    subspace: np.ndarray = field(init=False)
    products: np.ndarray = field(init=False)
    theta: float = np.inf
    lowest: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.subspace = self.products = np.zeros((self.space.shape[1], 0), dtype=self.space.dtype)
        self.lowest = self.space[:, 0]
        self._stiffness, self._vectors = np.linalg.eigh(self.springs)

    def take(self, product: np.ndarray) -> None:
        """The product (3n,) of the matrix and ``mode``; decides which mode is next, or that there is none."""
        if self.mode is None:
            return
        inside = self.space.conj().T
        self.subspace = np.concatenate([self.subspace, (inside @ self.mode)[:, None]], axis=1)
        self.products = np.concatenate([self.products, (inside @ product)[:, None]], axis=1)
        small = self.subspace.conj().T @ self.products
        values, turns = np.linalg.eigh((small + small.conj().T) / 2)
        lowest = self.subspace @ turns[:, 0]
        self.theta, self.lowest = float(values[0]), self.space @ lowest
        residual = self.products @ turns[:, 0] - self.theta * lowest
        guess = self._preconditioned(residual, float(values.sum()))
        for _ in range(2):  # once is not enough in floating point
            guess = guess - self.subspace @ (self.subspace.conj().T @ guess)
        length = np.linalg.norm(guess)
        ended = self.subspace.shape[1] == self.space.shape[1] or length < _ZERO
        self.mode = None if ended else self.space @ (guess / length)

    def _preconditioned(self, residual: np.ndarray, trace: float) -> np.ndarray:
        there = np.trace(self.subspace.conj().T @ self.springs @ self.subspace).real
        gaps = self._stiffness * (max(trace, _ZERO) / max(there, _ZERO)) - self.theta
        gaps = np.where(np.abs(gaps) < _LEAST_GAP, np.copysign(_LEAST_GAP, gaps), gaps)
        return np.asarray(self._vectors @ ((self._vectors.conj().T @ residual) / gaps))


def prove(
    primitive: PhonopyAtoms,
    supercell: np.ndarray,
    points: Sequence[np.ndarray],
    symmetry: list[Operation],
    *,
    below: float,
    distances: tuple[float, float],
    most: int,
) -> Generator[list[PhonopyAtoms], list[Answer], Proof | None]:
    """Dialogue: a mode that is imaginary at one of some q-points, if it is found soon.

    Parameters:
        primitive: the primitive cell.
        supercell: columns are its lattice vectors in units of the primitive cell's, (3, 3).
        points: q-points that the supercell holds.
        symmetry: operations of the primitive cell.
        below: the mode's frequency has to lie below this, THz, negative.
        distances: largest displacements of an atom, Å, with which it has to; the smaller is used on the way.
        most: products at most.
    """
    waves = WavesInSupercell.of(primitive, supercell)
    searches = _begun(waves, primitive, points, symmetry)
    reached, stalls = np.inf, 0
    (rest,) = yield [primitive]
    for products in range(1, most + 1):
        if all(each.mode is None for each in searches):
            return None
        # Forward differences with the smaller displacement find what central ones find, at half the cost.
        modes = [(each.wave, each.mode) for each in searches if each.mode is not None]
        cell, amplitude = waves.displaced(modes, min(distances))
        (answer,) = yield [cell]
        for each in searches:
            each.take(waves.product(each.wave, answer.forces - rest.forces[waves.homes], amplitude))
        best = min(searches, key=lambda each: each.theta)
        frequency = frequency_of(best.theta)
        if is_imaginary(frequency, below):
            squares = yield from side_by_side([rayleigh(primitive, best.wave.q, best.lowest, d) for d in distances])
            frequencies = {d: frequency_of(square) for d, square in zip(distances, squares, strict=True)}
            if is_imaginary(max(frequencies.values()), below):
                return Proof(
                    best.wave.q, best.lowest, frequencies, cells_needed(best.wave.q) * len(primitive), products
                )
        gained, reached = reached - frequency, min(reached, frequency)
        stalls = stalls + 1 if gained < _STALLED * abs(reached) else 0
        if stalls == _STALLS:
            return None
    return None


def _begun(
    waves: WavesInSupercell, primitive: PhonopyAtoms, points: Sequence[np.ndarray], symmetry: list[Operation]
) -> list[_Search]:
    """A random mode in each subspace of each q-point but translations; equivalent points count once."""
    random = np.random.default_rng(0)  # the same numbers each time: a result does not depend on chance
    seen: set[tuple[float, ...]] = set()
    found: list[_Search] = []
    for q in points:
        key = tuple(equivalent_points(q, symmetry)[0].tolist())
        if key in seen:
            continue
        seen.add(key)
        wave, springs = waves.wave(q), _springs(primitive, q)
        springs = springs.real if wave.is_real else springs
        for space in blocks(q, symmetry, real=wave.is_real):
            inner = _without_translations(space, primitive.masses) if same_point(q, np.zeros(3)) else space
            size = inner.shape[1]
            if not size:
                continue
            inside = inner.conj().T @ springs @ inner
            start = random.normal(size=size) + (0 if wave.is_real else 1j * random.normal(size=size))
            smooth = inner @ np.linalg.solve(inside + _SMOOTH * np.trace(inside).real / size * np.eye(size), start)
            found.append(_Search(wave, inner, inside, smooth / np.linalg.norm(smooth)))
    return found


def _springs(cell: PhonopyAtoms, q: np.ndarray) -> np.ndarray:
    """What the dynamical matrix at q may look like, (3n, 3n), but for a factor: springs that weaken with the distance.

    As the preconditioner ``Exp`` of ASE (Packwood et al., J. Chem. Phys. 144, 164109, 2016), with the distance between
    each two atoms in units of the geometric mean of those of their nearest neighbours.
    """
    steps = np.stack(np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    apart = cell.positions[None, :, None] + (steps @ cell.cell)[None, None] - cell.positions[:, None, None]
    lengths = np.linalg.norm(apart, axis=-1)
    lengths[lengths < _ZERO] = np.inf
    nearest = np.sqrt(lengths.min(axis=(1, 2)))
    stiffness = np.exp(-_DECAY * (lengths / (nearest[:, None] * nearest)[:, :, None] - 1))
    matrix = np.diag(stiffness.sum(axis=(1, 2))) - stiffness @ np.exp(2j * np.pi * steps @ q)
    roots = np.sqrt(cell.masses)
    return np.kron(matrix / (roots[:, None] * roots), np.eye(3))


def _without_translations(space: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """The part (3n, m') of a subspace (3n, m) at Γ in which the crystal does not move as a whole."""
    moves = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    inside = space.T @ moves
    left, lengths, _ = np.linalg.svd(inside, full_matrices=True)
    kept = np.ones(space.shape[1], dtype=bool)
    kept[: len(lengths)] = lengths < 1e-6
    return np.asarray(space @ left[:, kept])
