"""The high-symmetry path of seekpath (Hinuma et al., Comput. Mater. Sci. 128, 140, 2017), walked in its own basis.

seekpath gives its points in the reciprocal basis of the primitive cell that it standardises to. phonopy's primitive
cell may be another: points have to be brought into its basis, or another path is walked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import seekpath
from phonopy.phonon.band_structure import get_band_qpoints, get_band_qpoints_by_seekpath
from phonopy.structure.atoms import PhonopyAtoms


@dataclass(frozen=True)
class Walk:
    """q-points of a path: ``q`` per segment (n, 3); ``labels`` and ``connections`` as in a band structure."""

    q: list[np.ndarray]
    labels: list[str]
    connections: list[bool]


@dataclass(frozen=True)
class Path:
    """``points``: q-points by label, in reciprocal lattice units of the cell; ``segments``: pairs of labels."""

    points: dict[str, np.ndarray]
    segments: list[tuple[str, str]]


def path_of(cell: PhonopyAtoms) -> Path:
    """The path of a primitive cell, in its own reciprocal basis."""
    found = seekpath.get_path_orig_cell((cell.cell, cell.scaled_positions, cell.numbers))
    points = {label: np.array(q, dtype=float) for label, q in found["point_coords"].items()}
    return Path(points, [(one, other) for one, other in found["path"]])


def walk(cell: PhonopyAtoms, n_points: int) -> Walk:
    """The path, with this number of points on the longest segment, and the others as dense."""
    path = path_of(cell)
    ends = [[path.points[one], path.points[other]] for one, other in path.segments]
    q = get_band_qpoints(ends, npoints=n_points, rec_lattice=np.array(np.linalg.inv(cell.cell), dtype=np.float64))
    starts = [one for one, _ in path.segments[1:]]
    connections = [*(other == start for (_, other), start in zip(path.segments, starts, strict=False)), False]
    labels: list[str] = []
    for (one, other), connected in zip(path.segments, connections, strict=True):
        labels += [_as_phonopy(one)] if connected else [_as_phonopy(one), _as_phonopy(other)]
    return Walk([np.array(each) for each in q], labels, connections)


def released_walk(cell: PhonopyAtoms, n_points: int) -> Walk:
    """The path as the released scripts walk it: seekpath's numbers, taken in this cell's reciprocal basis."""
    q, labels, connections = get_band_qpoints_by_seekpath(cell, npoints=n_points, is_const_interval=True)
    return Walk([np.array(each) for each in q], list(labels), [bool(each) for each in connections])


def labelled_points(cell: PhonopyAtoms) -> dict[str, np.ndarray]:
    """Labelled points of the path and the middles of its segments, by name; Γ apart."""
    path = path_of(cell)
    found = {point_name(label): q for label, q in path.points.items()}
    for one, other in path.segments:
        found[f"{point_name(one)}-{point_name(other)}"] = (path.points[one] + path.points[other]) / 2
    return {label: q for label, q in found.items() if np.abs(q).max() > 1e-8}


def point_name(label: str) -> str:
    """A label of seekpath's, for people: Γ for GAMMA."""
    return label.replace("GAMMA", "Γ").replace("SIGMA", "Σ").replace("DELTA", "Δ").replace("LAMBDA", "Λ")


def _as_phonopy(label: str) -> str:
    r"""A label as phonopy writes it: ``$\Gamma$`` or ``$\mathrm{S_0}$``."""
    greek = re.sub("GAMMA|SIGMA|DELTA|LAMBDA", lambda name: "\\" + name[0].capitalize(), label)
    return f"${greek}$" if greek != label else rf"$\mathrm{{{label}}}$"
