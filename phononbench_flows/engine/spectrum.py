"""Frequencies from force constants: on the seekpath path, at the commensurate q-points, on a mesh, at Gamma.

All frequencies in THz, imaginary ones negative; q-points in reciprocal lattice units of phonopy's primitive cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.force_constants import ForceConstants, phonopy_cell
from phononbench_flows.engine.interpolation import interpolation
from phononbench_flows.engine.lattices import commensurate_points, to_supercell
from phononbench_flows.engine.paths import Walk, released_walk, walk
from phononbench_flows.engine.q_symmetry import operations
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import SpectrumSettings

_SAME_Q = 1e-9  # reciprocal lattice units


@dataclass(frozen=True)
class Frequencies:
    """Frequencies at some q-points: ``q`` (n_q, 3), ``values`` (n_q, n_bands) in THz."""

    q: np.ndarray
    values: np.ndarray

    @property
    def minimum(self) -> float:
        """Lowest frequency, THz."""
        return float(self.values.min())

    @property
    def minimum_q(self) -> np.ndarray:
        """q-point of the lowest frequency, (3,)."""
        return self.q[int(self.values.min(axis=1).argmin())]


@dataclass(frozen=True)
class Spectrum:
    """Everything that a verdict may look at.

    Attributes:
        bands: along seekpath's path, for drawing.
        path, commensurate, mesh: frequencies at the three kinds of q-points.
        gamma_optical: lowest frequency at Gamma without the three acoustic modes, THz; None for one atom.
    """

    bands: Bands
    path: Frequencies
    commensurate: Frequencies
    mesh: Frequencies
    gamma_optical: float | None

    def at(self, q_points: Literal["path", "commensurate", "mesh"]) -> Frequencies:
        """The frequencies at one kind of q-points."""
        return {"path": self.path, "commensurate": self.commensurate, "mesh": self.mesh}[q_points]


def spectrum(phonon: Phonopy, settings: SpectrumSettings) -> Spectrum:
    """Frequencies of a crystal whose force constants are set.

    The bands are those of seekpath's path. The verdict's path is walked as the released scripts do, which is another
    where phonopy's primitive cell is not seekpath's (docs/parity.md). The acoustic modes at Gamma are the three of
    smallest magnitude: a soft optical mode lies below them.
    """
    primitive, tolerance = phonon.primitive, phonon.symmetry.tolerance
    own = walk(primitive, settings.path_points)
    places = {
        "path": np.concatenate(released_walk(primitive, settings.path_points).q),
        "commensurate": commensurate_points(to_supercell(phonon)),
        "mesh": mesh_points(primitive, settings.mesh, tolerance),
        "gamma": np.zeros((1, 3)),
    }
    drawn = np.concatenate(own.q)
    same = drawn.shape == places["path"].shape and np.abs(drawn - places["path"]).max() < _SAME_Q
    if not same:
        places["drawn"] = drawn
    values = _frequencies(phonon, np.concatenate(list(places.values())))
    parts = np.split(values, np.cumsum([len(q) for q in places.values()])[:-1])
    found = {place: Frequencies(q, part) for (place, q), part in zip(places.items(), parts, strict=True)}
    gamma = found["gamma"].values[0]
    optical = gamma[np.argsort(np.abs(gamma))][3:]
    return Spectrum(
        bands=bands_along(own, found["path" if same else "drawn"].values, primitive.cell),
        path=found["path"],
        commensurate=found["commensurate"],
        mesh=found["mesh"],
        gamma_optical=float(optical.min()) if len(optical) else None,
    )


def _frequencies(phonon: Phonopy, points: np.ndarray) -> np.ndarray:
    """Frequencies (n_q, n_bands) in THz as phonopy has them: with its own pairs, and nothing cured."""
    if phonon.nac_params is not None:  # fields of long waves, which DFT brings along
        return np.array(phonon.run_qpoints(points).frequencies)
    between = interpolation(phonon, tolerance=phonon.symmetry.tolerance, take_out_rotations=False)
    return between.frequencies(points)


def mesh_points(cell: PhonopyAtoms, mesh: tuple[int, int, int], symprec: float) -> np.ndarray:
    """The q-points (n, 3) of a regular mesh with Gamma in it, one of those that symmetry makes of each other.

    Parameters:
        symprec: distance at which symmetry is looked for, Å.
    """
    numbers = np.array(mesh)
    steps = np.stack(np.meshgrid(*map(np.arange, mesh), indexing="ij"), axis=-1).reshape(-1, 3)
    first = np.arange(len(steps))
    for operation in operations(cell, symprec):
        turned = (steps / numbers) @ operation.reciprocal.T * numbers
        whole = np.rint(turned).astype(int)
        if np.abs(turned - whole).max() < _SAME_Q * numbers.max():  # else it takes the mesh elsewhere
            for image in (whole, -whole):
                first = np.minimum(first, np.ravel_multi_index(tuple((image % numbers).T), mesh))
    return np.asarray(steps[np.unique(first)] / numbers)


def bands_along(path: Walk, frequencies: np.ndarray, basis: np.ndarray) -> Bands:
    """A band structure from the frequencies (n_q, n_bands) in THz at all q-points of a path.

    Parameters:
        basis: rows are the primitive lattice vectors, (3, 3), Å.
    """
    to_cartesian = np.linalg.inv(basis).T
    distances, start = [], 0.0
    for q in path.q:
        lengths = np.linalg.norm(np.diff(q, axis=0) @ to_cartesian, axis=1)
        distances.append(start + np.concatenate([[0.0], np.cumsum(lengths)]))
        start = float(distances[-1][-1])
    ends = np.cumsum([len(q) for q in path.q])[:-1]
    return Bands(path.q, distances, np.split(frequencies, ends), path.labels, path.connections)


def spring_crystal() -> ForceConstants:
    """A crystal that is known to be healthy: fcc aluminium with springs between nearest neighbours alone."""
    vectors = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    phonon = Phonopy(
        phonopy_cell(4.05 * vectors, [13], np.zeros((1, 3))),
        supercell_matrix=np.diag([2, 2, 2]),
        primitive_matrix=np.eye(3),
    )
    edges, multiplicities = phonon.primitive.get_smallest_vectors()
    array = np.zeros((1, len(phonon.supercell), 3, 3))
    for atom, (count, first) in enumerate(multiplicities[:, 0]):
        for edge in edges[first : first + count] @ phonon.primitive.cell:
            length = float(np.linalg.norm(edge))
            if 0.1 < length < 3.0:  # the nearest neighbours lie at 2.86 Å
                array[0, atom] -= 1.5 * np.outer(edge, edge) / length**2
    array[0, 0] = -array[0].sum(axis=0)
    return ForceConstants(
        cell=np.array(phonon.unitcell.cell),
        numbers=np.array(phonon.unitcell.numbers),
        positions=np.array(phonon.unitcell.scaled_positions),
        supercell=np.diag([2, 2, 2]),
        primitive=np.eye(3),
        array=array,
        symprec=1e-5,
        n_displacements=0,
        max_drift=0.0,
    )


def finite_spectrum(constants: ForceConstants, settings: SpectrumSettings) -> Spectrum | Failure:
    """The spectrum of a crystal; a Failure where it would not be finite, since NaN lies below no threshold."""
    if np.isfinite(constants.array).all():
        return spectrum(constants.phonopy(symmetry=False), settings)
    return Failure(Reason.NOT_FINITE, "the force constants are not finite")
