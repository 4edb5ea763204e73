"""What is drawn of a crystal's phonons beside its bands: the density of states, and how atoms move in a mode.

Frequencies are in THz, imaginary ones negative; lengths in Å; q-points in reciprocal lattice units of phonopy's
primitive cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from phononbench_flows.results.phonon_files import ExactLooks, PhononFileError

if TYPE_CHECKING:
    from phonopy import Phonopy

    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.engine.interpolation import Interpolation

MESH_POINTS = 3000
"""About so many q-points times atoms make a density of states."""
_ENERGIES = 240  # points of its curve
_WIDTH = 0.012  # of its Gaussians, over the range of frequencies
_MOST_REPEATS = 4
_MOST_ATOMS = 200
_ZERO = 1e-6


@dataclass(frozen=True)
class DensityOfStates:
    """Densities (n,) in 1/THz at frequencies (n,), which add up to three times the atoms of the primitive cell."""

    frequencies: np.ndarray
    densities: np.ndarray


@dataclass(frozen=True)
class ModeShape:
    """How atoms move in a mode, in a block of primitive cells that its wave fits into, or nearly.

    Attributes:
        q: (3,); branch: number of the mode from below; frequency: in THz.
        repeats: primitive cells along each vector; fits: whether the wave comes back to itself within them.
        lattice: of the block, (3, 3), Å.
        numbers: atomic numbers (n,); positions: Cartesian (n, 3), Å.
        displacements: Cartesian (n, 3) at the turn of the motion, the largest of length one.
    """

    q: np.ndarray
    branch: int
    frequency: float
    repeats: tuple[int, int, int]
    fits: bool
    lattice: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    displacements: np.ndarray


class PhononViews:
    """What can be drawn of one crystal's phonons; to make it takes most of the time."""

    def __init__(self, constants: ForceConstants, exact_looks: ExactLooks | None = None) -> None:
        self._phonon: Phonopy = constants.phonopy(symmetry=False)
        self._interpolated: Interpolation | None = None
        if exact_looks is not None:
            from phononbench_flows.engine.corrected import through_looks

            self._interpolated = through_looks(constants, exact_looks)

    @property
    def branches(self) -> int:
        """Number of branches."""
        return 3 * len(self._phonon.primitive)

    def density_of_states(self) -> DensityOfStates:
        """On a mesh that holds Γ, each frequency broadened by a Gaussian."""
        frequencies = self._frequencies(self._mesh()).ravel()
        low, high = frequencies.min(), frequencies.max()
        width = _WIDTH * ((high - min(low, 0.0)) or 1.0)
        grid = np.linspace(min(low, 0.0) - 3 * width, high + 3 * width, _ENERGIES)
        counts, edges = np.histogram(frequencies, bins=4 * _ENERGIES)
        middles = (edges[1:] + edges[:-1]) / 2
        bells = np.exp(-(((grid[:, None] - middles) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
        return DensityOfStates(grid, bells @ counts * self.branches / len(frequencies))

    def mode(self, q: Sequence[float], branch: int = 0) -> ModeShape:
        """The motion in a mode; at Γ, branches are counted without the three in which all atoms move alike.

        Raises:
            PhononFileError: there is no such branch.
        """
        point = np.asarray(q, dtype=float)
        at_gamma = bool(np.abs(point - np.rint(point)).max() < _ZERO)
        if not 0 <= branch < self.branches - (3 if at_gamma and self.branches > 3 else 0):
            raise PhononFileError(f"there is no branch {branch} at this q-point")
        squares, vectors = np.linalg.eigh(self._mass_weighted(point, optical=at_gamma and self.branches > 3))
        chosen = squares[branch]
        masses = self._phonon.primitive.masses
        motion = vectors[:, branch].reshape(-1, 3) / np.sqrt(masses)[:, None]
        return self._block(point, branch, float(np.sign(chosen) * np.sqrt(abs(chosen))), motion)

    def _mesh(self) -> np.ndarray:
        lengths = np.linalg.norm(np.linalg.inv(self._phonon.primitive.cell), axis=0)
        target = max(MESH_POINTS / len(self._phonon.primitive), 64)
        scale = (target / lengths.prod()) ** (1 / 3)
        numbers = np.maximum(2, np.rint(scale * lengths)).astype(int)
        grids = np.meshgrid(*(np.arange(n) / n for n in numbers), indexing="ij")
        points = np.stack([grid.ravel() for grid in grids], axis=1)
        # q and -q have the same frequencies.
        return points[: len(points) // 2 + 1]

    def _frequencies(self, points: np.ndarray) -> np.ndarray:
        if self._interpolated is not None:
            return self._interpolated.frequencies(points)
        return np.array(self._phonon.run_qpoints(points).frequencies)

    def _mass_weighted(self, q: np.ndarray, *, optical: bool) -> np.ndarray:
        """The dynamical matrix in THz^2, with phases of cells; without the acoustic modes, put above all others."""
        from phononbench_flows.engine.interpolation import THZ2

        if self._interpolated is not None:
            matrix = self._interpolated.matrices(q[None])[0]
        else:
            found = self._phonon.get_dynamical_matrix_at_q(q)
            phases = np.repeat(np.exp(2j * np.pi * self._phonon.primitive.scaled_positions @ q), 3)
            matrix = phases[:, None] * found * phases.conj() * THZ2
        if not optical:
            return matrix
        masses = self._phonon.primitive.masses
        acoustic = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
        keep = np.eye(len(acoustic)) - acoustic @ acoustic.T
        return keep @ matrix @ keep + 1e6 * acoustic @ acoustic.T

    def _block(self, q: np.ndarray, branch: int, frequency: float, motion: np.ndarray) -> ModeShape:
        cell = self._phonon.primitive
        repeats, fits = _repeats(q, len(cell))
        cells = np.array(list(product(*map(range, repeats))))
        waves = np.exp(2j * np.pi * cells @ q)[:, None, None] * motion
        # The phase at which the motion is largest: then one picture shows all of it.
        waves = waves * np.exp(-0.5j * np.angle((waves**2).sum()))
        turned = waves.real.reshape(-1, 3)
        positions = (cells[:, None] + cell.scaled_positions % 1.0) @ cell.cell
        return ModeShape(
            q=q,
            branch=branch,
            frequency=frequency,
            repeats=repeats,
            fits=fits,
            lattice=np.array(repeats)[:, None] * cell.cell,
            numbers=np.tile(cell.numbers, len(cells)),
            positions=positions.reshape(-1, 3),
            displacements=turned / (np.linalg.norm(turned, axis=1).max() or 1.0),
        )


def _repeats(q: np.ndarray, natoms: int) -> tuple[tuple[int, int, int], bool]:
    """Cells along each vector after which the wave comes back to itself; fewer where that takes too many."""
    found, fits = [], True
    for x in q:
        whole = [n for n in range(1, _MOST_REPEATS + 1) if abs(n * x - round(n * x)) < 1e-4]
        found.append(whole[0] if whole else _MOST_REPEATS)
        fits = fits and bool(whole)
    while natoms * np.prod(found) > _MOST_ATOMS and max(found) > 1:
        found[int(np.argmax(found))] -= 1
        fits = False
    return (found[0], found[1], found[2]), fits
