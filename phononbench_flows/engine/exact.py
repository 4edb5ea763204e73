"""Exact frequencies at one q-point, in the smallest supercell that holds it.

A q-point with the common denominator n is held by exactly one supercell of n primitive cells: its lattice vectors are
those R for which q.R is an integer (Lloyd-Williams and Monserrat, Phys. Rev. B 92, 184301, 2015). There either all of
its displacements are computed, or only displacements along modes, by Davidson's method. Conventions are those of
:mod:`phononbench_flows.engine.interpolation`: dynamical matrices in THz^2, periodic in q.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import get_supercell

from phononbench_flows.engine.dialogues import Answer
from phononbench_flows.engine.force_constants import PLUSMINUS
from phononbench_flows.engine.interpolation import THZ2, Interpolation, Known, interpolation
from phononbench_flows.engine.lattices import same_point, shortest_basis, shortest_vectors, steps_within
from phononbench_flows.engine.q_symmetry import Operation, blocks, little_group
from phononbench_flows.engine.solver import solve
from phononbench_flows.protocol import ForceConstantsSettings
from phononbench_flows.stability import is_imaginary

_OF_MODES = 0.5  # of the displacement of single atoms: a mode moves all of them, and stays as harmonic with less
_PRODUCTS = 5  # that Davidson's method takes in a subspace, as a rule; what is cheaper is chosen by it
_MOST_PRODUCTS = 24
_ERROR = 0.01  # THz, of a frequency that counts as converged
_FLOOR = 0.02  # THz^2, residual that forces in single precision cannot get below
_PROVEN = 0.3  # THz, an imaginary frequency that needs no more products


@dataclass(frozen=True)
class Exact:
    """What was found at a q-point.

    Attributes:
        known: the dynamical matrix there; by Davidson's method, one whose lowest mode is right.
        lowest: lowest squared frequency, THz^2.
        mode: its eigenvector, (3n,).
        how: by all displacements of the cell, or along modes alone.
        natoms: of the cell; evaluations: atoms that went through the potential.
    """

    known: Known
    lowest: float
    mode: np.ndarray
    how: Literal["displacements", "davidson"]
    natoms: int
    evaluations: int

    @classmethod
    def of(cls, known: Known, natoms: int, evaluations: int) -> Exact:
        """From the whole dynamical matrix."""
        values, vectors = np.linalg.eigh(known.matrix)
        return cls(known, float(values[0]), vectors[:, 0], "displacements", natoms, evaluations)


def cells_needed(q: np.ndarray, most: int = 1000) -> int:
    """Primitive cells of the smallest supercell that holds a rational q-point."""
    return math.lcm(*(Fraction(float(x)).limit_denominator(most).denominator for x in q))


def smallest_supercell(q: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The smallest supercell that holds a q-point, as compact as there is.

    Parameters:
        q: (3,), rational, in reciprocal lattice units.
        basis: rows are the primitive lattice vectors, (3, 3), Å.

    Returns:
        Integer matrix (3, 3) whose columns are its lattice vectors in units of the primitive cell's.
    """
    n = cells_needed(q)
    to_reduced = np.rint(shortest_vectors(basis) @ np.linalg.inv(basis)).astype(int)
    steps = steps_within(n) @ to_reduced
    phase = steps @ np.asarray(q, dtype=float)
    matrix = shortest_basis(steps[np.abs(phase - np.rint(phase)) < 1e-6], basis).T
    size = round(np.linalg.det(matrix))
    if abs(size) != n:
        raise ValueError(f"no supercell of {n} cells found for q = {q}")
    return matrix if size > 0 else -matrix


@dataclass(frozen=True)
class Wave:
    """A q-point in a supercell that holds it: the ``phases`` of its atoms (n_atoms,); real where 2q is no wave."""

    q: np.ndarray
    phases: np.ndarray
    is_real: bool


@dataclass(frozen=True)
class WavesInSupercell:
    """A supercell in which modes of the q-points that it holds are frozen in, one or many at once.

    Attributes:
        cell: the supercell; homes: the primitive cell's atom that each of its atoms is an image of, (n_atoms,).
        steps: the lattice vector of each of its atoms, (n_atoms, 3); roots: square roots of the primitive masses, (n,).
    """

    cell: PhonopyAtoms
    homes: np.ndarray
    steps: np.ndarray
    roots: np.ndarray

    @classmethod
    def of(cls, primitive: PhonopyAtoms, supercell: np.ndarray) -> WavesInSupercell:
        """Parameters as for ``smallest_supercell``: columns of the supercell are its lattice vectors, (3, 3)."""
        cell = get_supercell(primitive, supercell, symprec=1e-5)
        homes = np.array([cell.u2u_map[u] for u in cell.s2u_map])
        steps = np.rint(cell.scaled_positions @ supercell.T - primitive.scaled_positions[homes])
        return cls(cell, homes, steps, np.sqrt(primitive.masses))

    @classmethod
    def held_by(cls, phonon: Phonopy) -> WavesInSupercell:
        """The supercell of a Phonopy object, its atoms in phonopy's order."""
        primitive = phonon.primitive
        homes = np.array([primitive.p2p_map[atom] for atom in primitive.s2p_map])
        apart = phonon.supercell.positions - primitive.positions[homes]
        steps = np.rint(apart @ np.linalg.inv(primitive.cell))
        return cls(phonon.supercell, homes, steps, np.sqrt(primitive.masses))

    def wave(self, q: np.ndarray) -> Wave:
        """One of the q-points that it holds."""
        return Wave(q, np.exp(2j * np.pi * self.steps @ q), same_point(2 * q, np.zeros(3)))

    def displaced(self, modes: Sequence[tuple[Wave, np.ndarray]], distance: float) -> tuple[PhonopyAtoms, float]:
        """The supercell with modes (3n,) frozen in, the largest displacement of this length (Å); and the amplitude."""
        shifts = np.zeros((len(self.cell), 3))
        for wave, mode in modes:
            waves = mode.reshape(-1, 3)[self.homes] * wave.phases[:, None] / self.roots[self.homes][:, None]
            shifts += waves.real
        amplitude = distance / np.linalg.norm(shifts, axis=1).max()
        cell = self.cell.copy()
        cell.positions = cell.positions + amplitude * shifts
        return cell, amplitude

    def product(self, wave: Wave, forces: np.ndarray, amplitude: float) -> np.ndarray:
        """D(q) times the modes of this q-point that were frozen in with this amplitude, (3n,), THz^2."""
        cells = len(self.homes) // len(self.roots)
        waves = forces * wave.phases.conj()[:, None] / self.roots[self.homes][:, None]
        found = np.zeros((len(self.roots), 3), dtype=complex)
        np.add.at(found, self.homes, waves)
        # Re[v exp(iqR)] holds half of the wave of q, and half of that of -q, which are one where 2q is no wave.
        found *= -(1 if wave.is_real else 2) / cells / amplitude * THZ2
        return (found.real if wave.is_real else found).ravel()

    def response(self, wave: Wave, forces: np.ndarray, atom: int, distance: float) -> np.ndarray:
        """D(q) times one atom's unit vector, (n, 3), THz^2, from what its displacement along that (Å) changes of the
        forces (n_atoms, 3), eV/Å; the phase is that of the cell of the atom.
        """
        phases = wave.phases.conj() * wave.phases[atom]
        found = np.zeros((len(self.roots), 3), dtype=complex)
        np.add.at(found, self.homes, forces * phases[:, None] / self.roots[self.homes][:, None])
        found *= -THZ2 / distance / self.roots[self.homes[atom]]
        return found.real if wave.is_real else found


def rayleigh(
    primitive: PhonopyAtoms, q: np.ndarray, mode: np.ndarray, distance: float
) -> Generator[list[PhonopyAtoms], list[Answer], float]:
    """Dialogue: squared frequency (THz^2) that a mode (3n,) has by central differences with this displacement (Å)."""
    waves = WavesInSupercell.of(primitive, smallest_supercell(q, primitive.cell))
    wave = waves.wave(q)
    mode = _real(mode) if wave.is_real else mode / np.linalg.norm(mode)
    (cell, amplitude), (opposite, _) = (waves.displaced([(wave, each)], distance) for each in (mode, -mode))
    forward, backward = yield [cell, opposite]
    product = waves.product(wave, (forward.forces - backward.forces) / 2, amplitude)
    return float(np.vdot(mode, product).real)


def _real(mode: np.ndarray) -> np.ndarray:
    """The same mode with real components, where the dynamical matrix is real."""
    largest = mode[np.abs(mode).argmax()]
    turned = (mode / largest * abs(largest)).real
    return turned / np.linalg.norm(turned)


def look(
    guess: Interpolation,
    q: np.ndarray,
    settings: ForceConstantsSettings,
    symmetry: list[Operation],
    *,
    tolerance: float,
) -> Generator[list[PhonopyAtoms], list[Answer], Exact]:
    """Dialogue: the exact lowest mode at a q-point, in the cheaper of the two ways.

    Parameters:
        guess: gives the modes to begin with.
        q: rational, (3,); not Γ.
        settings: displacement, drift and symmetrisation, as for the first force constants.
        symmetry: operations of the primitive cell.
        tolerance: images whose distances differ by less count as equally near, in Å.
    """
    products = _products(q, symmetry)
    # A displacement tells at most as many rows of force constants as there are operations: to make those of a large
    # cell without symmetry takes longer than a call of the potential.
    phonon = displaced_cells(guess.cell, q, settings) if 3 * len(guess.cell) <= products * len(symmetry) else None
    if phonon is None or len(phonon.supercells_with_displacements or []) > products:
        found = yield from davidson(guess, q, settings.distance, symmetry)
        if found is not None:
            return found
    phonon = phonon or displaced_cells(guess.cell, q, settings)
    return (yield from by_displacements(phonon, q, settings, tolerance=tolerance))


def cost(guess: Interpolation, q: np.ndarray, symmetry: list[Operation]) -> int:
    """Estimate of a look's evaluations: atoms that go through the potential."""
    n = len(guess.cell)
    order = len(little_group(q, symmetry))
    return cells_needed(q) * n * min(_products(q, symmetry), -(-6 * n // order))


def _products(q: np.ndarray, symmetry: list[Operation]) -> int:
    """Calls of the potential that Davidson's method takes, as a rule."""
    real = same_point(2 * q, np.zeros(3))
    once = sum(min(_PRODUCTS, space.shape[1]) for space in blocks(q, symmetry, real=real))
    return once * (2 if same_point(3 * q, np.zeros(3)) else 1)


def displaced_cells(primitive: PhonopyAtoms, q: np.ndarray, settings: ForceConstantsSettings) -> Phonopy:
    """A q-point's smallest supercell with its displacements made."""
    return displaced_supercell(primitive, smallest_supercell(q, primitive.cell), settings)


def displaced_supercell(primitive: PhonopyAtoms, supercell: np.ndarray, settings: ForceConstantsSettings) -> Phonopy:
    """A supercell, given by its lattice vectors as columns (3, 3), with its displacements made."""
    with warnings.catch_warnings():
        # A cell for one q-point has less symmetry than the crystal, as a rule.
        warnings.filterwarnings("ignore", message="Warning: Point group symmetries of supercell")
        phonon = Phonopy(
            primitive,
            supercell_matrix=supercell,
            primitive_matrix=np.eye(3),
            symprec=settings.symprec,
        )
    phonon.generate_displacements(
        distance=settings.distance, is_diagonal=settings.diagonal, is_plusminus=PLUSMINUS[settings.plusminus]
    )
    return phonon


def look_at_gamma(
    primitive: PhonopyAtoms, settings: ForceConstantsSettings, *, tolerance: float
) -> Generator[list[PhonopyAtoms], list[Answer], Exact]:
    """Dialogue: the dynamical matrix at Γ, each displacement in both directions.

    Forces that are there before a displacement are the same in every cell, and fall to Γ alone.
    """
    both = settings.model_copy(update={"plusminus": "both"})
    phonon = displaced_cells(primitive, np.zeros(3), both)
    return (yield from by_displacements(phonon, np.zeros(3), both, tolerance=tolerance))


def by_displacements(
    phonon: Phonopy, q: np.ndarray, settings: ForceConstantsSettings, *, tolerance: float
) -> Generator[list[PhonopyAtoms], list[Answer], Exact]:
    """Dialogue: the whole dynamical matrix from all displacements of a supercell that holds the q-point."""
    (found,) = yield from at_all_of(phonon, [q], settings, tolerance=tolerance)
    return found


def at_all_of(
    phonon: Phonopy, points: Sequence[np.ndarray], settings: ForceConstantsSettings, *, tolerance: float
) -> Generator[list[PhonopyAtoms], list[Answer], list[Exact]]:
    """Dialogue: the same at several q-points that the supercell holds, each with its share of the evaluations."""
    cells = phonon.supercells_with_displacements or []
    answers = yield cells
    forces = np.array([answer.forces for answer in answers])
    solve(phonon, forces - forces.mean(axis=1, keepdims=True) if settings.remove_drift else forces)
    if settings.symmetrize:
        phonon.symmetrize_force_constants()
    matrices = interpolation(phonon, tolerance=tolerance, take_out_rotations=False).matrices(np.array(points))
    natoms = len(phonon.supercell)
    share, rest = divmod(natoms * len(cells), len(points))
    return [
        Exact.of(Known(q, matrix), natoms, share + (rest if number == 0 else 0))
        for number, (q, matrix) in enumerate(zip(points, matrices, strict=True))
    ]


def davidson(
    guess: Interpolation, q: np.ndarray, distance: float, symmetry: list[Operation]
) -> Generator[list[PhonopyAtoms], list[Answer], Exact | None]:
    """Dialogue: the lowest mode at a q-point by products with the dynamical matrix, one call of the potential each.

    In each subspace that symmetry keeps apart it begins with the lowest modes of the interpolated matrix, and goes on
    with residuals that are preconditioned by that. Forward differences suffice: what is quadratic in the displacement
    has the wave vectors 0 and 2q, which are not q unless 3q is a reciprocal lattice vector; there they are central. A
    Rayleigh quotient clearly below zero ends it: that proves the mode imaginary (variational); one above has to
    converge, and those of the other subspaces as far as to show that they lie above it.

    Returns:
        None if it did not converge.
    """
    waves = WavesInSupercell.of(guess.cell, smallest_supercell(q, guess.cell.cell))
    wave = waves.wave(q)
    central = same_point(3 * q, np.zeros(3))
    interpolated = guess.matrices(q)[0]
    interpolated = interpolated.real if wave.is_real else interpolated
    searches = [_Search.begun(space, interpolated) for space in blocks(q, symmetry, real=wave.is_real)]
    evaluations = n_products = 0
    while n_products < _MOST_PRODUCTS * len(searches):
        asking = [search for search in searches if search.waiting]
        cells, amplitudes = [], []
        for search in asking:
            for mode in search.new_modes().T:
                for sign in (1, -1) if central else (1,):
                    cell, amplitude = waves.displaced([(wave, sign * mode)], _OF_MODES * distance)
                    cells.append(cell)
                    amplitudes.append(sign * amplitude)
        if not cells:
            return None  # the residuals lie in what is known: forces are not exact enough to go on
        answers = yield cells
        evaluations += len(cells) * len(waves.cell)
        found = np.array([waves.product(wave, a.forces, x) for a, x in zip(answers, amplitudes, strict=True)])
        found = found.reshape(len(cells) // (2 if central else 1), -1, len(interpolated)).mean(axis=1)
        n_products += len(found)
        for search in asking:
            count = len(search.waiting)
            search.take(found[:count].T)
            found = found[count:]
        lowest = min(searches, key=lambda search: search.theta)
        for search in searches:
            search.decide_next(lowest.theta)
        if is_imaginary(lowest.theta, -(_PROVEN**2)) or not any(search.waiting for search in searches):
            subspace = np.concatenate([search.subspace for search in searches], axis=1)
            products = np.concatenate([search.products for search in searches], axis=1)
            known = Known(q, _corrected(interpolated, subspace, products, lowest.theta))
            return Exact(known, lowest.theta, lowest.mode, "davidson", len(waves.cell), evaluations)
    return None


@dataclass
class _Search:
    """Davidson's method in one of the subspaces that symmetry keeps apart."""

    space: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    subspace: np.ndarray
    products: np.ndarray
    waiting: list[np.ndarray]
    ritz: np.ndarray = field(default_factory=lambda: np.zeros(0))
    residuals: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    mode: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def begun(cls, space: np.ndarray, interpolated: np.ndarray) -> _Search:
        """With the lowest modes of the interpolated matrix."""
        values, turns = np.linalg.eigh(space.conj().T @ interpolated @ space)
        vectors = space @ turns
        nothing = np.zeros((len(space), 0), dtype=vectors.dtype)
        return cls(space, values, vectors, nothing, nothing, [vectors[:, k] for k in range(min(2, len(values)))])

    def new_modes(self) -> np.ndarray:
        """What waits, made orthonormal to what is known, (3n, m); as many then wait."""
        before = self.subspace.shape[1]
        for mode in self.waiting:
            self.subspace = _with(self.subspace, mode)
        new = self.subspace[:, before:]
        self.waiting = list(new.T)
        return new

    def take(self, products: np.ndarray) -> None:
        """Products (3n, m) of what was asked for."""
        self.products = np.concatenate([self.products, products], axis=1)
        small = self.subspace.conj().T @ self.products
        self.ritz, turns = np.linalg.eigh((small + small.conj().T) / 2)
        modes = self.subspace @ turns
        rest = self.products @ turns - modes * self.ritz
        self.mode, self.residuals = modes[:, 0], self.space @ (self.space.conj().T @ rest)

    @property
    def theta(self) -> float:
        """Lowest squared frequency so far, THz^2."""
        return float(self.ritz[0])

    def error(self, number: int) -> float:
        """How far one of the squared frequencies may be from right, THz^2: its residual squared, over the gap."""
        length = float(np.linalg.norm(self.residuals[:, number]))
        if self.subspace.shape[1] == self.space.shape[1] or length < _FLOOR:
            return 0.0
        gaps = np.abs(np.delete(self.ritz, number) - self.ritz[number])
        return length**2 / max(float(gaps.min(initial=np.inf if len(gaps) else 0.0)), length)

    def decide_next(self, lowest: float) -> None:
        """One mode more: for the lowest until it is right or lies above the lowest of all, then for the second.

        The second has only to show that it will not end below the first.
        """
        self.waiting = []
        right = self.error(0) <= 2 * _ERROR * np.sqrt(max(abs(self.theta), _ERROR))
        if not right and self._may_lie_below(lowest, 0):
            self.waiting = [self._preconditioned(0)]
        elif len(self.ritz) > 1 and self._may_lie_below(min(lowest, self.theta), 1):
            self.waiting = [self._preconditioned(1)]

    def _may_lie_below(self, square: float, number: int) -> bool:
        return bool(self.ritz[number] - square <= 2 * self.error(number))

    def _preconditioned(self, number: int) -> np.ndarray:
        gaps = self.values - self.ritz[number]
        gaps = np.where(np.abs(gaps) < 0.5, np.copysign(0.5, gaps), gaps)
        return self.vectors @ ((self.vectors.conj().T @ self.residuals[:, number]) / gaps)


def _with(subspace: np.ndarray, mode: np.ndarray) -> np.ndarray:
    """The orthonormal vectors of a subspace, and one more for the part of a mode that is not in it."""
    rest = mode / np.linalg.norm(mode)
    for _ in range(2):  # once is not enough in floating point
        rest = rest - subspace @ (subspace.conj().T @ rest)
    length = np.linalg.norm(rest)
    return subspace if length < 1e-6 else np.concatenate([subspace, rest[:, None] / length], axis=1)


def _corrected(interpolated: np.ndarray, subspace: np.ndarray, products: np.ndarray, lowest: float) -> np.ndarray:
    """The interpolated matrix, right in the subspace; elsewhere, no mode of it lies below the lowest."""
    difference = products - interpolated @ subspace
    inner = subspace.conj().T @ difference
    outer = difference @ subspace.conj().T
    matrix = interpolated + outer + outer.conj().T - subspace @ ((inner + inner.conj().T) / 2) @ subspace.conj().T
    values, vectors = np.linalg.eigh((matrix + matrix.conj().T) / 2)
    return np.asarray((vectors * np.maximum(values, lowest)) @ vectors.conj().T)
