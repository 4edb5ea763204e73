"""Dynamical matrices between the q-points that a supercell holds, and what cures them at no cost.

Conventions: q-points in reciprocal lattice units of the primitive cell; dynamical matrices in THz^2, such that their
eigenvalues are squared frequencies (imaginary modes: negative); periodic in q: D_ij(q) = sum over lattice vectors R of
Phi_ij(R) exp(2 pi i q.R) / sqrt(m_i m_j), where R counts cells and not positions of atoms.

Exact frequencies alone are evidence; this says where to look for them, and what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import ShortestPairs
from scipy.linalg import lu_factor, lu_solve

from phononbench_flows.engine.lattices import (
    commensurate_points,
    each_once,
    same_point,
    shortest_vectors,
    steps_within,
    to_supercell,
)

THZ2 = float(get_physical_units().DefaultToTHz) ** 2
"""From eV/Å^2/amu to THz^2."""

_PAIR_TOLERANCE = 1e-3  # Å, of equal lengths of superlattice vectors
_JITTER = 1e-9  # keeps the kernel's matrix regular where two q-points are nearly one
_DECAY = 2.0  # of what two q-points have in common, over the distance of those that the supercell holds
_FAR = 5.0  # distance, in units of that decay, at which they have nothing in common

_ABOVE_ALL = 1e6  # THz^2, of an acoustic mode at Γ that is out of the way


def translations(masses: np.ndarray) -> np.ndarray:
    """The three modes at Γ in which a crystal moves as a whole, (3n, 3), from its masses (n,)."""
    return np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))


def without_translations(matrix: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """A dynamical matrix at Γ (3n, 3n) whose acoustic modes lie above all others, and do not mix with them."""
    acoustic = translations(masses)
    optical = np.eye(len(acoustic)) - acoustic @ acoustic.T
    return np.asarray(optical @ matrix @ optical + _ABOVE_ALL * acoustic @ acoustic.T)


@dataclass(frozen=True)
class Known:
    """A dynamical matrix that is known at a q-point."""

    q: np.ndarray
    matrix: np.ndarray


@dataclass(frozen=True)
class Interpolation:
    """Dynamical matrices at any q-point from force constants in real space, and from where they are known.

    Attributes:
        cell: the primitive cell.
        supercell: columns are the supercell's lattice vectors in units of the primitive cell's, (3, 3).
        lattice_vectors: (n_R, 3), in units of the primitive lattice vectors.
        blocks: mass-weighted force constants of each lattice vector, (n_R, 3n, 3n), THz^2.
        shares: for each lattice vector and pair of atoms, the part of the supercell's images of the pair that it counts
            for, (n_R, n, n). Their Fourier series is 1 at Γ and 0 at all other q-points that the supercell holds.
        known: where the matrix is known better, each with all that symmetry makes of it.
    """

    cell: PhonopyAtoms
    supercell: np.ndarray
    lattice_vectors: np.ndarray
    blocks: np.ndarray
    shares: np.ndarray
    known: tuple[Known, ...] = ()

    def matrices(self, q: np.ndarray) -> np.ndarray:
        """Dynamical matrices (n_q, 3n, 3n) in THz^2 at q-points (n_q, 3)."""
        points = np.atleast_2d(np.asarray(q, dtype=float))
        found = self._plain(points)
        if self.known:
            weights = self._weights(points)
            differences = np.array([each.matrix for each in self.known]) - self._plain_at_known
            found = found + np.tensordot(weights, differences, axes=1)
        return found

    def eigenvalues(self, q: np.ndarray) -> np.ndarray:
        """Squared frequencies (n_q, 3n) in THz^2, ascending."""
        points = np.atleast_2d(np.asarray(q, dtype=float))
        step = max(1, 2_000_000 // self.blocks[0].size)  # a few hundred megabytes at most
        return np.concatenate(
            [np.linalg.eigvalsh(self.matrices(points[i : i + step])) for i in range(0, len(points), step)]
        )

    def frequencies(self, q: np.ndarray) -> np.ndarray:
        """Frequencies (n_q, 3n) in THz, ascending, imaginary ones negative."""
        return signed_root(self.eigenvalues(q))

    def passing_through(self, known: Sequence[Known]) -> Interpolation:
        """The same, made to pass through matrices at further q-points, and at the negative of each.

        What is wrong at Γ alone, such as forces that are there before a displacement, is the same in all cells of the
        supercell, and is taken out of the force constants.
        """
        at_gamma = [each for each in known if same_point(each.q, np.zeros(3))]
        others = [each for each in known if not same_point(each.q, np.zeros(3))]
        both = [*others, *(Known(-each.q, each.matrix.conj()) for each in others)]
        new = each_once([each.q for each in both], [each.q for each in self.known])
        found = self._with_gamma(at_gamma[0].matrix) if at_gamma else self
        return replace(found, known=(*self.known, *(both[place] for place in new)))

    def _with_gamma(self, matrix: np.ndarray) -> Interpolation:
        """The same with this dynamical matrix at Γ, and unchanged at all other q-points that the supercell holds."""
        wrong = self._plain(np.zeros((1, 3)))[0] - matrix
        spread = np.repeat(np.repeat(self.shares, 3, axis=1), 3, axis=2)
        return replace(self, blocks=self.blocks - spread * wrong.real)

    def _plain(self, points: np.ndarray) -> np.ndarray:
        angles = 2 * np.pi * points @ self.lattice_vectors.T
        blocks = self.blocks.reshape(len(self.blocks), -1)
        found = np.empty((len(points), blocks.shape[1]), dtype=complex)
        found.real, found.imag = np.cos(angles) @ blocks, np.sin(angles) @ blocks  # blocks are real: half the work
        return found.reshape(-1, *self.blocks.shape[1:])

    @cached_property
    def _plain_at_known(self) -> np.ndarray:
        return self._plain(np.array([each.q for each in self.known]))

    def _weights(self, points: np.ndarray) -> np.ndarray:
        """How much of the difference at each known q-point counts at these, (n_q, n_known).

        What the supercell's force constants lack is taken for a random function of q, zero at the q-points that the
        supercell holds, of which two values have the less in common the farther apart they are: its most likely values
        are those of kriging. Weights are real and depend on distances alone, so that matrices stay Hermitian and keep
        the symmetry.

        Nearer to Γ than all of these q-points the correction is quadratic, as squared acoustic frequencies are: a
        linear one would make them imaginary there.
        """
        there, factors, nearest = self._kriging
        weights = lu_solve(factors, self._in_common(there, points))[-len(self.known) :].T
        return np.asarray(weights * np.minimum(self._from_gamma(points) / nearest, 1)[:, None])

    @cached_property
    def _kriging(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], float]:
        """The q-points that the supercell holds and the known ones, factors of what they have in common, and how far
        from Γ the nearest of them is.
        """
        held = commensurate_points(self.supercell)
        known = np.array([each.q for each in self.known])
        there = np.concatenate([held[each_once(list(held), list(known))], known])
        kernel = self._in_common(there, there)
        kernel[np.diag_indices_from(kernel)] += _JITTER
        distances = self._from_gamma(there)
        return there, lu_factor(kernel), float(distances[distances > _JITTER].min())

    def _from_gamma(self, points: np.ndarray) -> np.ndarray:
        """Distances of q-points (n_q, 3) from the nearest image of Γ, (n_q,)."""
        return np.asarray(reduce(np.minimum, self._distances(points, np.zeros((1, 3))))[:, 0])

    def _distances(self, points: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
        """Distances of q-points (n_q, 3) from others (n_others, 3), for each image that counts, (n_q, n_others)."""
        to_reduced, scaled, reach = self._metric
        apart = (points @ to_reduced)[:, None] - (others @ to_reduced)[None]
        apart -= np.rint(apart)
        steps = steps_within(reach)
        return (np.linalg.norm((apart + image) @ scaled, axis=2) for image in (np.zeros(3), *steps, *-steps))

    def _in_common(self, points: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Covariance of the correction at q-points (n_q, 3) and (n_others, 3): exp(-distance), over all images.

        An exponential makes it nearly linear between q-points that are known, and hardly larger than there. Smoother
        functions swing: zincblende AlP went to -68 THz.
        """
        _, scaled, reach = self._metric
        # All images that are nearer than this are among those that count; farther ones have nothing in common.
        nothing = np.exp(-(reach + 0.5) / np.linalg.norm(np.linalg.inv(scaled), axis=0).max())
        return np.asarray(sum(np.maximum(np.exp(-each) - nothing, 0) for each in self._distances(points, others)))

    @cached_property
    def _metric(self) -> tuple[np.ndarray, np.ndarray, int]:
        """What takes q-points to units of a compact reciprocal basis; that basis, such that distances are 1 over which
        the correction forgets itself; and how many of its vectors away images count.
        """
        basis = self.cell.cell
        reduced = shortest_vectors(basis)
        to_reduced = np.rint(reduced @ np.linalg.inv(basis)).T
        # The supercell's q-points lie the inverse of its longest edge apart.
        length = float(np.linalg.norm(shortest_vectors(self.supercell.T @ basis), axis=1).max())
        scaled = _DECAY * length * np.linalg.inv(reduced).T
        spacing = _DECAY * length / np.linalg.norm(reduced, axis=1).max()
        return to_reduced, scaled, max(1, math.ceil(_FAR / spacing - 0.5))


def signed_root(squares: np.ndarray) -> np.ndarray:
    """Frequencies of squared frequencies: imaginary ones as negative numbers."""
    return np.sign(squares) * np.sqrt(np.abs(squares))


def frequency_of(square: float) -> float:
    """The same for one."""
    return float(signed_root(np.array(square)))


def interpolation(phonon: Phonopy, *, tolerance: float, take_out_rotations: bool = True) -> Interpolation:
    """The interpolation of a crystal whose compact force constants are set.

    Parameters:
        phonon: with its primitive cell and supercell.
        tolerance: images of an atom whose distances differ by less count as equally near, in Å. phonopy's 1e-5 gives
            a crystal that lost its symmetry by 1e-4 Å modes of its own between the supercell's q-points.
        take_out_rotations: whether the linear term near Γ is taken out; see :func:`_without_linear_term`.
    """
    primitive, supercell = phonon.primitive, phonon.supercell
    n = len(primitive)
    fc = np.asarray(phonon.force_constants)
    if len(fc) == len(supercell) and len(supercell) != n:
        fc = fc[primitive.p2s_map]
    edges, multiplicities = _shortest(phonon, tolerance)
    kind = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    positions = primitive.scaled_positions
    weights = np.sqrt(np.outer(primitive.masses, primitive.masses))

    atoms, homes = np.meshgrid(np.arange(len(supercell)), np.arange(n), indexing="ij")
    counts = multiplicities[:, :, 0]
    s = np.repeat(atoms.ravel(), counts.ravel())
    i = np.repeat(homes.ravel(), counts.ravel())
    at = np.concatenate([np.arange(first, first + count) for count, first in multiplicities.reshape(-1, 2)])
    j = kind[s]
    steps = edges[at] - (positions[j] - positions[i])
    vectors, place = np.unique(np.rint(steps).astype(int), axis=0, return_inverse=True)
    values = fc[i, s] * (THZ2 / counts[s, i] / weights[i, j])[:, None, None]
    shares = np.zeros((len(vectors), n, n))
    np.add.at(shares, (place.ravel(), i, j), n / len(supercell) / counts[s, i])
    pairwise = np.zeros((len(vectors), n, n, 3, 3))
    np.add.at(pairwise, (place.ravel(), i, j), values)
    blocks = pairwise.transpose(0, 1, 3, 2, 4).reshape(len(vectors), 3 * n, 3 * n)
    plain = Interpolation(
        primitive.copy(),
        to_supercell(phonon),
        vectors,
        _hermitian(vectors, blocks),
        _hermitian(vectors, shares),
    )
    return _without_linear_term(plain) if take_out_rotations else plain


def _shortest(phonon: Phonopy, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The shortest vectors from primitive atoms to those of the supercell, and how many each pair has.

    Returns:
        Vectors in units of the primitive lattice vectors, (n, 3), and phonopy's table of how many of them are a pair's
        and which is its first, (n_supercell, n_primitive, 2).
    """
    primitive, supercell = phonon.primitive, phonon.supercell
    if tolerance == phonon.symmetry.tolerance:  # phonopy has found them already
        return primitive.get_smallest_vectors()
    pairs = ShortestPairs(
        supercell.cell,
        supercell.scaled_positions,
        supercell.scaled_positions[primitive.p2s_map],
        store_dense_svecs=True,
        symprec=tolerance,
    )
    return pairs.shortest_vectors @ supercell.cell @ np.linalg.inv(primitive.cell), pairs.multiplicities


def _hermitian(vectors: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Blocks of which D(q) is Hermitian: the mean of each and the transpose of the opposite lattice vector's."""
    opposite = {tuple(v): k for k, v in enumerate(vectors.tolist())}
    found = np.array(
        [
            blocks[opposite[tuple(v)]].T if tuple(v) in opposite else np.zeros_like(blocks[0])
            for v in (-vectors).tolist()
        ]
    )
    return (blocks + found) / 2


def _without_linear_term(plain: Interpolation) -> Interpolation:
    """The same without the false branch near Γ, squared frequencies that go as -c|q|.

    It comes of a rotational sum rule that force constants in a supercell break, in gyrotropic point groups alone. With
    S_abc = antisymmetric part in a, b of the sum over atoms i of the cell and all j of Phi_ij,ab (r_j - r_i)_c, V_k the
    shortest star of superlattice vectors that spans space, one of each pair, and B with sum_k V_k (B V_k)^T = 1, the
    term i/M sum_k S (B V_k) sin(2 pi q.V_k) is taken from the diagonal block of each atom, M the mass of the cell. It
    is zero at every q-point that the supercell holds.
    """
    cell, n = plain.cell, len(plain.cell)
    roots = np.sqrt(cell.masses)
    phi = plain.blocks.reshape(-1, n, 3, n, 3) * roots[:, None, None, None] * roots[:, None]
    offsets = cell.scaled_positions[None, :] - cell.scaled_positions[:, None]
    apart = (plain.lattice_vectors[:, None, None] + offsets) @ cell.cell
    s = np.einsum("riajb,rijc->abc", phi, apart)
    s = (s - s.transpose(1, 0, 2)) / 2
    star = _spanning_star(plain.supercell.T @ cell.cell)
    inverse = np.linalg.inv(star.T @ star)
    terms = np.einsum("abc,kc->kab", s, star @ inverse) / (2 * float(cell.masses.sum()))
    steps = np.rint(star @ np.linalg.inv(cell.cell)).astype(int)
    places = {tuple(v): k for k, v in enumerate(plain.lattice_vectors.tolist())}
    vectors, blocks = plain.lattice_vectors.tolist(), list(plain.blocks)
    for step, term in zip(steps, terms, strict=True):
        for sign in (1, -1):
            vector = tuple((sign * step).tolist())
            if vector not in places:
                places[vector] = len(vectors)
                vectors.append(list(vector))
                blocks.append(np.zeros((3 * n, 3 * n)))
            blocks[places[vector]] = blocks[places[vector]] - sign * np.kron(np.eye(n), term)
    shares = np.concatenate([plain.shares, np.zeros((len(vectors) - len(plain.shares), n, n))])
    return Interpolation(cell, plain.supercell, np.array(vectors), np.array(blocks), shares)


def _spanning_star(basis: np.ndarray) -> np.ndarray:
    """The shortest lattice vectors, one of each pair, by whole shells until they span space; (n, 3), Å."""
    vectors = steps_within(2) @ shortest_vectors(basis)
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(lengths)
    vectors, lengths = vectors[order], lengths[order]
    for length in lengths:
        star = vectors[lengths <= length + _PAIR_TOLERANCE]
        if np.linalg.matrix_rank(star, tol=1e-3) == 3:
            return star
    raise ValueError("lattice vectors that span no space")
