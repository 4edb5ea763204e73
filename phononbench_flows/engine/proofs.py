"""Proofs that a crystal is unstable, from the first of its displacements: atoms that tell of soft modes go first.

A displaced supercell gives the product of the displacement with the dynamical matrices of all q-points that the
supercell holds, and symmetry those of all its images. On the space of what was displaced, the matrices are therefore
known, and their lowest eigenvalue there is no lower than that of the whole (Cauchy's interlacing): one below zero
proves an imaginary mode, whatever the displacements that are still to come would tell. Nothing is computed on the way
that the force constants do not take as well, but the forces at rest. Conventions are those of
:mod:`phononbench_flows.engine.interpolation`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phononbench_flows.engine.dialogues import Answer, side_by_side
from phononbench_flows.engine.exact import Wave, WavesInSupercell, cells_needed, rayleigh
from phononbench_flows.engine.interpolation import frequency_of, translations
from phononbench_flows.engine.lattices import same_point, to_supercell
from phononbench_flows.engine.q_symmetry import Operation, blocks, equivalent_points, operations
from phononbench_flows.stability import is_imaginary

_CLEARER = 1.2  # a mode that was not confirmed is looked at again when it is so many times as low
_SAME_DIRECTION = 0.999
_NEW = 1e-3  # part of a normalised vector that lies outside of what is known
_DECAY, _REACH = 3.0, 2  # of the springs: see `_springs`
_ZERO = 1e-8
_LEAST_GAP = 1.0  # THz^2


@dataclass(frozen=True)
class Proof:
    """A mode that is imaginary.

    Attributes:
        q: where, (3,), in reciprocal lattice units of the primitive cell.
        mode: (3n,). By displacement (the largest of an atom, Å), its ``frequencies`` in THz: the lowest mode there is
            no higher.
        natoms: atoms of the smallest cell that holds q, in which they were computed.
    """

    q: np.ndarray
    mode: np.ndarray
    frequencies: dict[float, float]
    natoms: int

    @property
    def frequency(self) -> float:
        """The higher of the frequencies, THz."""
        return max(self.frequencies.values())


@dataclass(frozen=True)
class Sought:
    """A proof, if there is one, and the forces (n_atoms, 3) in eV/Å of the displaced supercells that were computed."""

    proof: Proof | None
    forces: dict[int, np.ndarray]


def seek(
    phonon: Phonopy, points: Sequence[np.ndarray], *, below: float, distances: tuple[float, float]
) -> Generator[list[PhonopyAtoms], list[Answer], Sought]:
    """Dialogue: a mode that is imaginary at one of some q-points, or that there is none as far as displacements tell.

    Displacements that go the opposite way of another tell nothing more, and are left to whoever makes force constants.

    Parameters:
        phonon: with its displacements made.
        points: q-points that the supercell holds.
        below: the mode's frequency has to lie below this, THz, negative.
        distances: largest displacements of an atom along the mode, Å, with which it has to.
    """
    search, cells = Search(phonon, points), phonon.supercells_with_displacements or []
    forces: dict[int, np.ndarray] = {}
    rest: np.ndarray | None = None
    limit = below
    while (number := search.next()) is not None:
        *at_rest, displaced = yield [*([phonon.primitive] if rest is None else []), cells[number]]
        rest = at_rest[0].forces if rest is None else rest
        forces[number] = displaced.forces
        search.take(number, displaced.forces - rest[search.waves.homes])
        frequency = frequency_of(search.lowest.theta)
        missing = (len(cells) - len(forces)) * len(phonon.supercell)
        if is_imaginary(frequency, limit) and _cost_to_confirm(search.lowest, distances) < missing:
            proof = yield from _confirmed(phonon.primitive, search.lowest, distances)
            if is_imaginary(proof.frequency, below):
                return Sought(proof, forces)
            limit = _CLEARER * frequency
    return Sought(None, forces)


def _cost_to_confirm(block: Block, distances: Sequence[float]) -> int:
    return 2 * len(distances) * cells_needed(block.wave.q) * len(block.space) // 3


def _confirmed(
    primitive: PhonopyAtoms, block: Block, distances: tuple[float, float]
) -> Generator[list[PhonopyAtoms], list[Answer], Proof]:
    """Dialogue: the lowest mode of a block by central differences, in the smallest cell that holds it."""
    q, mode = block.wave.q, block.mode
    squares = yield from side_by_side([rayleigh(primitive, q, mode, distance) for distance in distances])
    frequencies = {d: frequency_of(square) for d, square in zip(distances, squares, strict=True)}
    return Proof(q, mode, frequencies, cells_needed(q) * len(primitive))


@dataclass(frozen=True)
class _Images:
    """What symmetry makes at a q-point of a displacement: a column for each operation.

    ``images`` (n_operations, n): atoms' images; ``turns`` (n_operations, n, 3, 3): how their displacements turn, with
    the phase of the lattice vector by which they move on; ``origins``: q-points that the operations take to this one.
    """

    images: np.ndarray
    turns: np.ndarray
    origins: list[np.ndarray]

    @classmethod
    def at(cls, q: np.ndarray, symmetry: Sequence[Operation], *, real: bool) -> _Images:
        phases = np.exp(-2j * np.pi * np.array([each.shifts @ q for each in symmetry]))
        turns = phases[:, :, None, None] * np.array([each.cartesian for each in symmetry])[:, None]
        origins = [each.rotation.T @ q for each in symmetry]
        return cls(np.array([each.images for each in symmetry]), turns.real if real else turns, origins)

    def of_atom(self, space: np.ndarray, atom: int, direction: np.ndarray) -> np.ndarray:
        """Images of one atom's displacement, within a subspace (3n, m); (m, n_operations)."""
        inside = space.conj().T.reshape(space.shape[1], -1, 3)[:, self.images[:, atom]]
        return np.asarray(np.einsum("mgx,gx->mg", inside, self.turns[:, atom] @ direction))

    def of_products(self, space: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Images of products (n_operations, n, 3), each at its operation's origin, within a subspace."""
        turned = np.einsum("gaxy,gay->gax", self.turns, products)
        placed = np.zeros_like(turned)
        placed[np.arange(len(turned))[:, None], self.images] = turned
        return np.asarray(space.conj().T @ placed.reshape(len(turned), -1).T)


@dataclass
class Block:
    """A subspace (3n, m) that symmetry keeps apart, and what is known of the dynamical matrix in it.

    Attributes:
        wave, space: the q-point, and the subspace.
        springs: what the matrix may look like in the subspace, (m, m), but for a factor.
        reach: what each displacement tells of, as orthonormal vectors (m, r), and what makes its images these.
        basis, products: orthonormal vectors (m, k), and the matrix times these.
        theta: lowest squared frequency on the basis, THz^2; mode: (3n,); infinite, and nothing, before the first.
    """

    wave: Wave
    space: np.ndarray
    springs: np.ndarray
    images: _Images
    reach: dict[int, tuple[np.ndarray, np.ndarray]]
    basis: np.ndarray = field(init=False)
    products: np.ndarray = field(init=False)
    theta: float = np.inf
    mode: np.ndarray = field(init=False)
    _residual: np.ndarray = field(init=False)
    _stiffness: float = 1.0

    def __post_init__(self) -> None:
        self.basis = self.products = np.zeros((self.space.shape[1], 0), dtype=self.space.dtype)
        self.mode, self._residual = self.space[:, 0], self.basis

    def take(self, number: int, products: np.ndarray) -> None:
        """Products (n_operations, n, 3) of the matrices at the images' origins with a displacement."""
        vectors, weights = self.reach.pop(number)
        new = self.images.of_products(self.space, products) @ weights
        inside = self.basis.conj().T @ vectors
        left, lengths, right = np.linalg.svd(vectors - self.basis @ inside, full_matrices=False)
        kept = lengths > _NEW
        if not kept.any():
            return
        new = (new - self.products @ inside) @ right[kept].conj().T / lengths[kept]
        self.basis = np.concatenate([self.basis, left[:, kept]], axis=1)
        self.products = np.concatenate([self.products, new], axis=1)
        small = self.basis.conj().T @ self.products
        values, turns = np.linalg.eigh((small + small.conj().T) / 2)
        lowest = self.basis @ turns[:, 0]
        self.theta, self.mode = float(values[0]), self.space @ lowest
        self._residual = self.products @ turns[:, 0] - self.theta * lowest
        there = np.trace(self.basis.conj().T @ self.springs @ self.basis).real
        self._stiffness = max(float(values.sum()), _ZERO) / max(there, _ZERO)

    def promises(self) -> dict[int, float]:
        """What the lowest squared frequency may become by each of the displacements that tell of anything new here.

        To second order in their coupling to the lowest mode so far, with the stiffness of springs; of a block of which
        nothing is known, that stiffness alone.
        """
        if not self.reach:
            return {}
        vectors = np.concatenate([vectors for vectors, _ in self.reach.values()], axis=1)
        owners = np.repeat(list(self.reach), [vectors.shape[1] for vectors, _ in self.reach.values()])
        vectors = vectors - self.basis @ (self.basis.conj().T @ vectors)
        lengths = np.linalg.norm(vectors, axis=0)
        vectors, owners = vectors[:, lengths > _NEW] / lengths[lengths > _NEW], owners[lengths > _NEW]
        stiffness = self._stiffness * np.einsum("mk,mk->k", vectors.conj(), self.springs @ vectors).real
        found: dict[int, float] = {}
        if not np.isfinite(self.theta):
            for owner, value in zip(owners.tolist(), stiffness.tolist(), strict=True):
                found[owner] = min(value, found.get(owner, np.inf))
            return found
        gains = np.abs(vectors.conj().T @ self._residual) ** 2 / np.maximum(stiffness - self.theta, _LEAST_GAP)
        for owner, gain in zip(owners.tolist(), gains.tolist(), strict=True):
            found[owner] = found.get(owner, self.theta) - gain
        return found


class Search:
    """What the displacements so far tell of a crystal, and which of the others promises the lowest mode."""

    def __init__(self, phonon: Phonopy, points: Sequence[np.ndarray]) -> None:
        self.waves = WavesInSupercell.held_by(phonon)
        self._displacements = [(int(row[0]), np.array(row[1:], dtype=float)) for row in phonon.displacements]
        primitive, supercell = phonon.primitive, to_supercell(phonon)
        symmetry = [each for each in operations(primitive, phonon.symmetry.tolerance) if each.keeps(supercell)]
        different = _different(self._displacements)
        self.blocks = [
            block for q in _each_once(points, symmetry) for block in self._blocks(primitive, q, symmetry, different)
        ]

    def _blocks(
        self, primitive: PhonopyAtoms, q: np.ndarray, symmetry: list[Operation], numbers: Sequence[int]
    ) -> list[Block]:
        wave, springs = self.waves.wave(q), _springs(primitive, q)
        images = _Images.at(q, symmetry, real=wave.is_real)
        found = []
        for space in blocks(q, symmetry, real=wave.is_real):
            inner = _without_translations(space, primitive.masses) if same_point(q, np.zeros(3)) else space
            if not inner.shape[1]:
                continue
            reach = {}
            for number in numbers:
                atom, shift = self._displacements[number]
                direction = shift / np.linalg.norm(shift)
                left, lengths, right = np.linalg.svd(
                    images.of_atom(inner, self.waves.homes[atom], direction), full_matrices=False
                )
                kept = lengths > _NEW
                if kept.any():
                    reach[number] = left[:, kept], right[kept].conj().T / lengths[kept]
            inside = inner.conj().T @ (springs.real if wave.is_real else springs) @ inner
            found.append(Block(wave, inner, inside, images, reach))
        return found

    @property
    def lowest(self) -> Block:
        """The block with the lowest mode so far."""
        return min(self.blocks, key=lambda block: block.theta)

    def next(self) -> int | None:
        """The displacement that promises the lowest mode; None if none tells anything new."""
        best: dict[int, float] = {}
        for block in self.blocks:
            for number, promise in block.promises().items():
                best[number] = min(promise, best.get(number, np.inf))
        return min(best, key=lambda number: (best[number], number), default=None)

    def take(self, number: int, forces: np.ndarray) -> None:
        """Forces (n_atoms, 3) in eV/Å that a displacement makes."""
        atom, shift = self._displacements[number]
        products: dict[tuple[float, ...], np.ndarray] = {}
        for block in self.blocks:
            if number not in block.reach:
                continue
            keys = [tuple(np.round(q % 1, 6).tolist()) for q in block.images.origins]
            for key, q in zip(keys, block.images.origins, strict=True):
                if key not in products:
                    products[key] = self.waves.response(self.waves.wave(q), forces, atom, float(np.linalg.norm(shift)))
            block.take(number, np.array([products[key] for key in keys]))


def _different(displacements: Sequence[tuple[int, np.ndarray]]) -> list[int]:
    """Places of the displacements that are not along the line of one of the same atom before them."""
    lines: list[tuple[int, np.ndarray]] = []
    kept = []
    for number, (atom, shift) in enumerate(displacements):
        direction = shift / np.linalg.norm(shift)
        if not any(other == atom and abs(line @ direction) > _SAME_DIRECTION for other, line in lines):
            lines.append((atom, direction))
            kept.append(number)
    return kept


def _each_once(points: Sequence[np.ndarray], symmetry: list[Operation]) -> list[np.ndarray]:
    """The q-points, one of those that symmetry makes of each other."""
    found = {tuple(equivalent_points(q, symmetry)[0].tolist()): q for q in reversed(points)}
    return list(found.values())[::-1]


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
    inside = space.T @ translations(masses)
    left, lengths, _ = np.linalg.svd(inside, full_matrices=True)
    kept = np.ones(space.shape[1], dtype=bool)
    kept[: len(lengths)] = lengths < 1e-6
    return np.asarray(space @ left[:, kept])
