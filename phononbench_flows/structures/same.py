"""Whether two crystals are the same: as they lie in space, whatever their cells, origins, settings and handedness.

A crystal is reduced once to a :class:`Shape`. Two shapes are the same if composition and primitive cell's size agree,
and a map of one lattice onto the other leaves every vector and every site within a tolerance in Å. Such a tolerance
does not grow with a vacuum, as one in units of (V/N)^(1/3) does. Numbers that change little when atoms move little
(lengths, distances to neighbours) are compared first, which spares nearly every map.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import spglib
from pymatgen.core.periodic_table import Element
from pymatgen.optimization.neighbors import find_points_in_spheres

_CUTOFF = 5.0  # Å; neighbours beyond count as being this far, so that none comes or goes at once
_NEIGHBOURS = 8  # of each species
_ROWS = 16  # atoms of a species that are kept of the sorted ones
_NOISE = 3.0
"""Crystals whose space groups differ may be as far apart as this, in units of the symprec at which these were found.

Atoms that each were moved by symprec hide the symmetry; what lies further apart has another symmetry.
"""
_HANDS = {
    78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180, 213: 212
}  # fmt: skip
_COMBINATIONS = np.array([c for c in product(range(-2, 3), repeat=3) if any(c)])


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far apart the same crystals may be, in Å: of one space group, and of two."""

    same_group: float
    other_group: float

    @classmethod
    def of(cls, distance: float, symprec: float) -> Tolerance:
        """Of a protocol's distance and symprec (Å)."""
        return cls(distance, min(distance, _NOISE * symprec))


@dataclass(frozen=True, slots=True)
class Shape:
    """What is compared of a crystal.

    Attributes:
        formula: reduced formula, see :func:`formula_of`.
        group: number of the space group, that of its mirror image's counting as the same; None where none is found.
        lattice: vectors of the Niggli-reduced primitive cell as rows, in Å.
        sites: fractional coordinates, ordered by species.
        counts: atoms of each species, in the order of the sites.
        lengths: lengths of the vectors and the cube root of the volume, in Å.
        distances: distances to neighbours, in Å.
        noise: how far images of a site in the cell as given are from their mean, at most, in Å.
        order: decides which of two crystals comes first; it depends on nothing but the crystal as given.
    """

    formula: str
    group: int | None
    lattice: np.ndarray
    sites: np.ndarray
    counts: tuple[int, ...]
    lengths: np.ndarray
    distances: np.ndarray
    noise: float
    order: str

    @property
    def kind(self) -> tuple[str, int]:
        """Only crystals of one kind are compared: formula, and atoms in the primitive cell."""
        return self.formula, len(self.sites)


def shape(structure: Mapping[str, Any], group: int | None, order: str, tolerance: Tolerance) -> Shape:
    """The shape of an ordered crystal.

    Parameters:
        structure: pymatgen Structure as a dict, as documents keep it: to make sites of it takes longer than the rest.
        group: number of its space group, None for none.
        order: the crystal's content hash.
        tolerance: atoms as far apart as two crystals of two groups may be images of each other.
    """
    symbols = [site["species"][0]["element"] for site in structure["sites"]]
    numbers = np.array([Element(symbol).Z for symbol in symbols])
    ordered = np.argsort(numbers, kind="stable")
    coordinates = np.array([site["abc"] for site in structure["sites"]], dtype=float)[ordered]
    matrix = np.array(structure["lattice"]["matrix"], dtype=float)
    lattice, sites, numbers, noise = _primitive(matrix, coordinates, numbers[ordered], tolerance.other_group)
    counts = tuple(int(n) for n in np.unique(numbers, return_counts=True)[1])
    lengths = np.append(np.sort(np.linalg.norm(lattice, axis=1)), abs(np.linalg.det(lattice)) ** (1 / 3))
    distances = _distances(lattice, sites, counts)
    return Shape(formula_of(symbols), unhanded(group), lattice, sites, counts, lengths, distances, noise, order)


def unhanded(group: int | None) -> int | None:
    """Number of a space group, or of its mirror image's where that is lower."""
    return None if group is None else _HANDS.get(group, group)


def formula_of(symbols: Iterable[str]) -> str:
    """Symbols and how often each is there per formula unit, such as ``O3 Sr1 Ti1``."""
    counts = Counter(symbols)
    unit = math.gcd(*counts.values())
    return " ".join(f"{symbol}{number // unit}" for symbol, number in sorted(counts.items()))


def _primitive(
    matrix: np.ndarray, coordinates: np.ndarray, numbers: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Reduced lattice, sites and atomic numbers of the primitive cell, each site the mean of its images; their noise.

    Only translations are looked for: to find all of the symmetry, as spglib does for this, takes ten times longer.
    """
    lattice = spglib.niggli_reduce(matrix)
    lattice = matrix if lattice is None else np.array(lattice)
    sites = (coordinates @ matrix @ np.linalg.inv(lattice)) % 1
    found = _translations(lattice, sites, numbers, distance)
    if len(found) == 1:
        return lattice, sites, numbers, 0.0
    images = np.stack([image for _, image, _ in found])
    moves = np.stack([move for _, _, move in found])
    mean = moves.mean(axis=0)
    noise = float(np.linalg.norm((moves - mean) @ lattice, axis=2).max())
    first = np.flatnonzero(images.min(axis=0) == np.arange(len(sites)))
    basis = _shortest(lattice, np.stack([translation for translation, _, _ in found]))
    return basis, ((sites + mean)[first] @ lattice @ np.linalg.inv(basis)) % 1, numbers[first], noise


def _translations(
    lattice: np.ndarray, sites: np.ndarray, numbers: np.ndarray, distance: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Translations that leave the crystal as it is, the zero first: each with where it takes sites, and how far off.

    All are fractional. Only the zero where those found are no group, as for sites that nearly repeat.
    """
    _, starts, counts = np.unique(numbers, return_index=True, return_counts=True)
    rarest = slice(starts[counts.argmin()], starts[counts.argmin()] + counts.min())
    parts = [
        slice(start, start + count) for start, count in sorted(zip(starts, counts, strict=True), key=lambda p: p[1])
    ]
    found = [(np.zeros(3), np.arange(len(sites)), np.zeros_like(sites))]
    for start in sites[rarest][1:]:
        translation = start - sites[rarest][0]
        image, off = np.empty(len(sites), dtype=int), np.empty_like(sites)
        for part in parts:
            apart = sites[part][None] - (sites[part] + translation)[:, None]
            apart -= np.rint(apart)
            lengths = np.linalg.norm(apart @ lattice, axis=2)
            nearest = lengths.argmin(axis=1)
            rows = np.arange(len(nearest))
            if lengths[rows, nearest].max() > 2 * distance or len(set(nearest.tolist())) < len(nearest):
                break
            image[part], off[part] = nearest + part.start, apart[rows, nearest]
        else:
            found.append((translation, image, off))
    order = len(found)
    # So often repeated, a translation leads back to the lattice: what it is without noise.
    exact = [np.rint(translation * order) / order for translation, _, _ in found]
    within = [np.linalg.norm((t - e) @ lattice) <= 2 * distance for (t, _, _), e in zip(found, exact, strict=True)]
    if not all(within) or not _is_group(np.rint(np.array(exact) * order).astype(int), order):
        return found[:1]
    return [(e, image, off + (t - e)) for e, (t, image, off) in zip(exact, found, strict=True)]


def _is_group(translations: np.ndarray, order: int) -> bool:
    """Whether translations, in units of 1/order of the lattice vectors, are different, and each sum is one of them."""
    digits = np.array([order**2, order, 1])
    numbers = translations % order @ digits
    sums = (translations[:, None] + translations[None]) % order @ digits
    return len(np.unique(numbers)) == order and bool(np.isin(sums, numbers).all())


def _shortest(lattice: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """The three shortest vectors that are independent; in three dimensions they are a basis."""
    steps = np.array(list(product((-1, 0, 1), repeat=3)))
    vectors = ((translations[:, None] + steps[None]).reshape(-1, 3)) @ lattice
    lengths = np.linalg.norm(vectors, axis=1)
    vectors = vectors[np.argsort(lengths, kind="stable")][1:]
    chosen: list[np.ndarray] = []
    for vector in vectors:
        candidate = np.array([*chosen, vector])
        lengths = np.linalg.norm(candidate, axis=1)
        if np.sqrt(max(0.0, np.linalg.det(candidate @ candidate.T))) > 1e-3 * np.prod(lengths):
            chosen.append(vector)
        if len(chosen) == 3:
            break
    return np.array(chosen)


def _distances(lattice: np.ndarray, sites: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Distances of the atoms of each species to their nearest neighbours of each, each column sorted over the atoms.

    Each of these numbers changes by no more than the distances themselves.
    """
    points = sites @ lattice
    centers, others, _, found = find_points_in_spheres(
        all_coords=np.ascontiguousarray(points),
        center_coords=np.ascontiguousarray(points),
        r=_CUTOFF,
        pbc=np.ones(3, dtype=np.int64),
        lattice=np.ascontiguousarray(lattice),
        tol=1e-8,
    )
    species = np.repeat(np.arange(len(counts)), counts)
    near = np.full((len(sites), len(counts), _NEIGHBOURS), _CUTOFF, dtype=np.float32)
    real = found > 1e-6  # an atom is no neighbour of itself
    centers, kinds, found = centers[real], species[others[real]], found[real]
    ordered = np.lexsort((found, kinds, centers))
    centers, kinds, found = centers[ordered], kinds[ordered], found[ordered]
    groups = centers * len(counts) + kinds
    starts = np.searchsorted(groups, groups, side="left")
    rank = np.arange(len(groups)) - starts
    kept = rank < _NEIGHBOURS
    near[centers[kept], kinds[kept], rank[kept]] = found[kept]
    parts = []
    for number in range(len(counts)):
        rows = np.sort(near[species == number], axis=0)
        if len(rows) > _ROWS:
            rows = rows[np.linspace(0, len(rows) - 1, _ROWS).round().astype(int)]
        parts.append(rows.ravel())
    return np.concatenate(parts)


def is_same(one: Shape, other: Shape, tolerance: Tolerance) -> bool:
    """Whether two crystals are the same; the answer is the same for the two in turn."""
    if one.kind != other.kind or one.counts != other.counts:
        return False
    limit = tolerance.same_group if one.group == other.group else tolerance.other_group
    first, second = sorted((one, other), key=lambda each: each.order)
    return (
        max(one.noise, other.noise) <= limit
        and bool(np.abs(first.lengths - second.lengths).max() <= limit)
        and bool(np.abs(first.distances - second.distances).max() <= 2 * limit)
        and _maps_onto(first, second, limit)
    )


def _maps_onto(one: Shape, other: Shape, limit: float) -> bool:
    for turned in _lattice_maps(one.lattice, other.lattice, limit):
        sites = other.sites @ np.linalg.inv(turned)
        if _sites_meet(one, sites, limit):
            return True
    return False


def _lattice_maps(one: np.ndarray, other: np.ndarray, limit: float) -> np.ndarray:
    """Integer matrices that make, of the rows of ``other``, vectors as long as those of ``one`` at equal angles."""
    vectors = _COMBINATIONS @ other
    lengths = np.linalg.norm(vectors, axis=1)
    choices = [np.flatnonzero(np.abs(lengths - np.linalg.norm(row)) <= limit) for row in one]
    if not all(map(len, choices)):
        return np.empty((0, 3, 3))
    first, second = (grid.ravel() for grid in np.meshgrid(choices[0], choices[1], indexing="ij"))
    fits = _at_equal_angles(one[0], one[1], vectors[first], vectors[second], limit)
    pairs = np.stack([first[fits], second[fits]], axis=1)
    at, third = (grid.ravel() for grid in np.meshgrid(np.arange(len(pairs)), choices[2], indexing="ij"))
    first, second = pairs[at, 0], pairs[at, 1]
    fits = _at_equal_angles(one[0], one[2], vectors[first], vectors[third], limit)
    fits &= _at_equal_angles(one[1], one[2], vectors[second], vectors[third], limit)
    maps = np.stack([_COMBINATIONS[first[fits]], _COMBINATIONS[second[fits]], _COMBINATIONS[third[fits]]], axis=1)
    return maps[np.abs(np.abs(np.linalg.det(maps)) - 1) < 0.5] if len(maps) else np.empty((0, 3, 3))


def _at_equal_angles(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, limit: float) -> np.ndarray:
    """Whether vectors c and d span, to within the limit (Å), the same diagonals as a and b."""
    sums = np.abs(np.linalg.norm(c + d, axis=1) - np.linalg.norm(a + b)) <= limit
    differences = np.abs(np.linalg.norm(c - d, axis=1) - np.linalg.norm(a - b)) <= limit
    return sums & differences


def _sites_meet(one: Shape, sites: np.ndarray, limit: float) -> bool:
    """Whether some shift puts every site within the limit of one of the same species."""
    bounds = np.append(0, np.cumsum(one.counts))
    parts = [slice(bounds[i], bounds[i + 1]) for i in np.argsort(one.counts, kind="stable")]
    anchor = one.sites[parts[0].start]
    for start in sites[parts[0]]:
        residuals = []
        for part in parts:
            # The anchor itself may be off by the limit, so that others may seem off by twice as much.
            apart = one.sites[part][:, None] - (sites[part] + (anchor - start))[None]
            apart = (apart - np.rint(apart)) @ one.lattice
            squared = np.einsum("ijk,ijk->ij", apart, apart)
            nearest = squared.argmin(axis=1)
            rows = np.arange(len(nearest))
            if squared[rows, nearest].max() > 4 * limit**2 or len(set(nearest.tolist())) < len(nearest):
                break
            residuals.append(apart[rows, nearest])
        else:
            off = np.concatenate(residuals)
            if np.linalg.norm(off - off.mean(axis=0), axis=1).max() <= limit:
                return True
    return False


@dataclass
class _Leaders:
    """The crystals of one kind that stand for their likes, with their numbers in arrays to compare with at once."""

    shapes: list[Shape] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    lengths: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    distances: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))

    def find(self, wanted: Shape, tolerance: Tolerance) -> str | None:
        """Name of the first that is the same."""
        number = len(self.shapes)
        near = np.flatnonzero(np.abs(self.lengths[:number] - wanted.lengths).max(axis=1) <= tolerance.same_group)
        if not len(near):
            return None
        close = np.abs(self.distances[near] - wanted.distances).max(axis=1) <= 2 * tolerance.same_group
        return next((self.names[at] for at in near[close] if is_same(self.shapes[at], wanted, tolerance)), None)

    def add(self, name: str, added: Shape) -> None:
        number = len(self.shapes)
        if number == len(self.lengths):  # room for twice as many
            room = max(8, 2 * number)
            lengths, distances = np.empty((room, 4)), np.empty((room, len(added.distances)), dtype=np.float32)
            lengths[:number], distances[:number] = self.lengths, self.distances if number else distances[:0]
            self.lengths, self.distances = lengths, distances
        self.lengths[number], self.distances[number] = added.lengths, added.distances
        self.shapes.append(added)
        self.names.append(name)


def originals(shapes: Mapping[str, Shape], tolerance: Tolerance) -> dict[str, str]:
    """For each crystal the one that it is the same as: the first by name of its class, which may be itself.

    Classes depend on the crystals alone, neither on their order nor on their names. Of crystals each of which is the
    same as the next, the last need not be the same as the first: such a chain falls into classes around crystals
    chosen by the hash of what was read, within the tolerance of each.
    """
    leaders: defaultdict[tuple[str, int, tuple[int, ...]], _Leaders] = defaultdict(_Leaders)
    by_content: dict[str, str] = {}
    classes: defaultdict[str, list[str]] = defaultdict(list)
    for name, each in sorted(shapes.items(), key=lambda item: (item[1].order, item[0])):
        leader = by_content.get(each.order)
        if leader is None:
            among = leaders[*each.kind, each.counts]
            leader = among.find(each, tolerance)
            if leader is None:
                among.add(name, each)
                leader = name
            by_content[each.order] = leader
        classes[leader].append(name)
    return {name: min(members) for members in classes.values() for name in members}
