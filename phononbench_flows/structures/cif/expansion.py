"""All atoms of the cell, from the sites that are listed and the operations that hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.spatial import cKDTree

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.cif.counts import Content
from phononbench_flows.structures.cif.digits import Number
from phononbench_flows.structures.cif.operations import Operation, Operations, Vector
from phononbench_flows.structures.cif.sites import Site
from phononbench_flows.structures.raw import RejectedError

MAX_ATOMS = 20_000

# Two whole atoms are never closer (Å): closer images of a site are one atom, if its digits allow that.
_ONE_ATOM = 0.5
# Computed coordinates are rarely right to more than this, however many digits are printed.
_NOISE = Fraction(1, 10_000)


@dataclass(frozen=True)
class Orbit:
    """The images of a site: ``positions`` of shape (n, 3), ``moved`` in Å from where it was written."""

    site: Site
    positions: np.ndarray
    operations: int
    moved: float
    is_open: bool  # whether its digits also allow a special position with fewer atoms

    @property
    def order(self) -> int:
        """Operations that leave the site where it is."""
        return self.operations // len(self.positions)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An operation that, with a lattice vector less, leaves a site about where it is."""

    operation: Operation
    lattice: tuple[int, ...]

    def image(self, place: Vector) -> Vector:
        rotation, shift = self.operation
        return tuple(
            sum((factor * x for factor, x in zip(row, place, strict=True) if factor), t - n)
            for row, t, n in zip(rotation, shift, self.lattice, strict=True)
        )


def expand(sites: Sequence[Site], operations: Operations, matrix: np.ndarray) -> list[Orbit]:
    """An orbit for each site, put on the special position that its digits and its distance from it allow.

    Raises:
        RejectedError: there are too many atoms.
    """
    orbits: list[Orbit] = []
    total = 0
    for site in sites:
        orbits.append(_orbit(site, operations, matrix))
        total += len(orbits[-1].positions)
        if total > MAX_ATOMS:
            raise RejectedError(Reason.TOO_MANY_ATOMS, f"The cell holds more than {MAX_ATOMS} atoms.")
    return orbits


def merge(orbits: Sequence[Orbit], matrix: np.ndarray) -> list[Orbit]:
    """Without the repeats that are there where a file lists all atoms of the cell beside its operations.

    Raises:
        RejectedError: two sites lie at the same place in another way.
    """
    same = _coincident(orbits, matrix)
    if not same:
        return list(orbits)
    groups: dict[int, set[int]] = {place: {place} for place in range(len(orbits))}
    for first, second in same:
        union = groups[first] | groups[second]
        for place in union:
            groups[place] = union
    for group in groups.values():
        ours = [orbits[place] for place in sorted(group)]
        # In such a file every atom is there, so one that stands alone has no images.
        if len({orbit.site.symbol for orbit in ours}) > 1 or any(len(ours) != len(orbit.positions) for orbit in ours):
            first, second = min(same)
            detail = f"Sites {orbits[first].site.label} and {orbits[second].site.label} lie at the same place."
            raise RejectedError(Reason.CONTRADICTORY, detail)
    return [orbit for place, orbit in enumerate(orbits) if place == min(groups[place])]


def content(orbits: Iterable[Orbit]) -> Content:
    """Atoms in the cell by element."""
    found: Counter[str] = Counter()
    for orbit in orbits:
        found[orbit.site.symbol] += len(orbit.positions)
    return dict(found)


def _orbit(site: Site, operations: Operations, matrix: np.ndarray) -> Orbit:
    start = np.array([float(x) for x in site.coordinates])
    if len(operations) == 1:
        return Orbit(site, start[None] % 1, 1, 0.0, is_open=False)
    place, is_open = _special_position(site, start, operations, matrix)
    center = np.array([float(x) for x in place])
    images = (operations.rotations @ center + operations.translations) % 1
    images = images[_distinct(images)]
    if len(operations) % len(images):
        raise RejectedError(Reason.CONTRADICTORY, f"The images of site {site.label} are no orbit of the operations.")
    moved = float(np.linalg.norm((center - start) @ matrix))
    return Orbit(site, images, len(operations), moved, is_open)


def _special_position(site: Site, start: np.ndarray, operations: Operations, matrix: np.ndarray) -> tuple[Vector, bool]:
    """Where the site is exactly, and whether its digits also allow a place that more operations leave as it is."""
    differences = operations.rotations @ start + operations.translations - start
    lattice = np.rint(differences)
    differences -= lattice
    allowed = np.array([float(_allowance(number)) for number in site.place])
    near = (np.abs(differences) <= allowed + np.abs(operations.rotations) @ allowed + 1e-9).all(axis=1)
    distances = np.linalg.norm(differences @ matrix, axis=1)
    order = _first_of_each(operations.rotations, [int(i) for i in np.argsort(distances, kind="stable") if near[i]])
    candidates = [_Candidate(operations.ordered[index], tuple(map(int, lattice[index]))) for index in order]
    close = [candidate for candidate, index in zip(candidates, order, strict=True) if distances[index] < _ONE_ATOM]
    place, fixing = _fixed(site, close, lambda number, x: abs(x - number.value) <= _allowance(number))
    is_open = len(close) < len(candidates) and _fixed(site, candidates, Number.could_be)[1] > fixing
    return place, is_open


def _first_of_each(rotations: np.ndarray, order: Sequence[int]) -> list[int]:
    """Only the first with each rotation: no place stays where it is under two that differ by a translation."""
    found: dict[bytes, int] = {}
    for index in order:
        found.setdefault(rotations[index].tobytes(), index)
    return list(found.values())


def _allowance(number: Number) -> Fraction:
    return max(number.unit, _NOISE)


def _fixed(
    site: Site, candidates: Sequence[_Candidate], allows: Callable[[Number, Fraction], bool]
) -> tuple[Vector, int]:
    """The place that as many of the operations as possible leave as it is, and how many; the farthest are given up.

    The mean of a site's images under operations that are a group is the nearest place that all of them leave.
    """
    for count in range(len(candidates), 1, -1):
        kept = candidates[:count]
        images = [candidate.image(site.coordinates) for candidate in kept]
        mean = tuple(sum(column, Fraction(0)) / count for column in zip(*images, strict=True))
        if not all(allows(number, x) for number, x in zip(site.place, mean, strict=True)):
            continue
        if all(candidate.image(mean) == mean for candidate in kept):
            return mean, count
    return site.coordinates, 1


def _distinct(images: np.ndarray) -> list[int]:
    """Indices of the first of each group of equal positions, modulo 1."""
    tree = cKDTree(_folded(images), boxsize=1)
    pairs = tree.query_pairs(1e-6, output_type="ndarray")
    repeated = set(pairs[:, 1].tolist()) if len(pairs) else set()
    return [index for index in range(len(images)) if index not in repeated]


def _folded(positions: np.ndarray) -> np.ndarray:
    """Into [0, 1), as the tree asks for it."""
    folded = positions % 1
    folded[folded >= 1] = 0
    return folded


def _coincident(orbits: Sequence[Orbit], matrix: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of orbits of which an atom of the one lies, as far as the digits tell, on one of the other."""
    allowed = np.array([[float(_allowance(number)) for number in orbit.site.place] for orbit in orbits])
    owners = np.repeat(np.arange(len(orbits)), [len(orbit.positions) for orbit in orbits])
    positions = _folded(np.concatenate([orbit.positions for orbit in orbits]))
    tree = cKDTree(positions, boxsize=1)
    reach = min(float(allowed.max() * 3**0.5), _ONE_ATOM * float(np.linalg.norm(np.linalg.inv(matrix), 2)))
    pairs = tree.query_pairs(reach, output_type="ndarray")
    differences = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    differences -= np.rint(differences)
    first, second = owners[pairs[:, 0]], owners[pairs[:, 1]]
    within = (np.abs(differences) <= (allowed[first] + allowed[second]) / 2).all(axis=1)
    within &= (np.linalg.norm(differences @ matrix, axis=1) < _ONE_ATOM) & (first != second)
    ends = np.sort(np.column_stack([first, second])[within], axis=1)
    return {(one, other) for one, other in np.unique(ends, axis=0).tolist()}
