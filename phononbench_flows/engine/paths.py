"""The high-symmetry path of seekpath (Hinuma et al., Comput. Mater. Sci. 128, 140, 2017), walked in its own basis.

seekpath gives its points in the reciprocal basis of the primitive cell that it standardises to. phonopy's primitive
cell may be another: points have to be brought into its basis, or another path is walked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import seekpath
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
    return _path(seekpath.get_path_orig_cell((cell.cell, cell.scaled_positions, cell.numbers)))


def walk(cell: PhonopyAtoms, n_points: int) -> Walk:
    """The path, with this number of points on the longest segment, and the others as dense."""
    return _walk(path_of(cell), cell, n_points)


def released_walk(cell: PhonopyAtoms, n_points: int) -> Walk:
    """The path as the released scripts walk it: seekpath's numbers, taken in this cell's reciprocal basis."""
    return _walk(_path(seekpath.get_path((cell.cell, cell.scaled_positions, cell.numbers))), cell, n_points)


def _path(found: Mapping[str, Any]) -> Path:
    points = {label: np.array(q, dtype=float) for label, q in found["point_coords"].items()}
    return Path(points, [(one, other) for one, other in found["path"]])


def _walk(path: Path, cell: PhonopyAtoms, n_points: int) -> Walk:
    """Along the segments of a path, in the numbers of points that phonopy takes."""
    ends = np.array([[path.points[one], path.points[other]] for one, other in path.segments])
    spans = ends[:, 1] - ends[:, 0]
    lengths = np.linalg.norm(spans @ np.linalg.inv(cell.cell).T, axis=1)
    numbers = np.maximum(np.rint(lengths / lengths.max() * n_points).astype(int), 2)
    q = [
        start + span / (number - 1) * np.arange(number)[:, None]
        for (start, _), span, number in zip(ends, spans, numbers, strict=True)
    ]
    starts = [one for one, _ in path.segments[1:]]
    connections = [*(other == start for (_, other), start in zip(path.segments, starts, strict=False)), False]
    labels: list[str] = []
    for (one, other), connected in zip(path.segments, connections, strict=True):
        labels += [_as_phonopy(one)] if connected else [_as_phonopy(one), _as_phonopy(other)]
    return Walk(q, labels, connections)


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
