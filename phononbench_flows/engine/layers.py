"""Directions in which a crystal goes on without a gap that the potential cannot see across."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.build.general_surface import ext_gcd
from ase.geometry.minkowski_reduction import minkowski_reduce
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Structure
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

_REACH = 8  # lattice vectors, of one that leads from a layer to the next


@dataclass(frozen=True)
class Periodicity:
    """How a crystal is connected.

    Attributes:
        dimension: 3 for a bulk crystal, 2 for layers, 1 for chains, 0 for molecules.
        plane: of layers, two lattice vectors that span their plane, the shortest ones, in units of the given cell's
            lattice vectors, integers of shape (2, 3); None for anything else.
        normal: unit vector across the layers, cartesian, (3,); None for anything else.
    """

    dimension: int
    plane: np.ndarray | None = None
    normal: np.ndarray | None = None

    @property
    def basis(self) -> np.ndarray | None:
        """Of layers, ``plane`` and a lattice vector that leads across them, a basis of the lattice, integers (3, 3)."""
        if self.plane is None:
            return None
        across = np.cross(*self.plane)
        steps = np.stack(np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        next_layer = steps[steps @ across == 1]
        return np.vstack([self.plane, next_layer[np.abs(next_layer).sum(axis=1).argmin()]])


BULK = Periodicity(3)


def periodicity(structure: Structure, cutoff: float) -> Periodicity:
    """In how many independent directions atoms are connected, each to those that the potential sees from it.

    Where a potential passes messages, what counts is the cutoff of one layer of its network: nothing is passed over a
    wider gap, however many layers there are. Parts of several dimensions, as molecules between layers, have the
    largest; parts that go on in different directions, as crossed chains, make a crystal that has to be looked at in
    all three.

    A part goes on along the lattice vectors by which one comes back to the same atom (Larsen et al., Phys. Rev.
    Materials 3, 034003 (2019)): those that close the bonds left out of a spanning tree.

    Parameters:
        structure: crystal.
        cutoff: atoms this near are connected, in Å.
    """
    first, second, images, _ = structure.get_neighbor_list(cutoff)
    images = np.rint(images).astype(int)
    n_parts, part, reached_in = _spanning_trees(len(structure), first, second, images)
    closing = reached_in[first] + images - reached_in[second]
    ranks = [_rank(closing[part[first] == number]) for number in range(n_parts)]
    if max(ranks) != _rank(closing):
        return Periodicity(3)
    return Periodicity(max(ranks)) if max(ranks) != 2 else _layers(structure.lattice.matrix, closing)


def periodicity_of(cell: PhonopyAtoms, cutoff: float) -> Periodicity:
    """The same for a phonopy cell."""
    return periodicity(Structure(cell.cell, cell.numbers.tolist(), cell.scaled_positions), cutoff)


def _spanning_trees(
    n_atoms: int, first: np.ndarray, second: np.ndarray, images: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of parts, the part of each atom (n,), and the cell in which a tree of bonds reaches it (n, 3)."""
    graph = csr_array((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms))
    n_parts, part = connected_components(graph, directed=False)
    bonds = dict(zip(zip(first.tolist(), second.tolist(), strict=True), images, strict=True))
    reached_in = np.zeros((n_atoms, 3), dtype=int)
    for start in np.unique(part, return_index=True)[1]:
        order, before = breadth_first_order(graph, start)
        for atom in order[1:]:
            reached_in[atom] = reached_in[before[atom]] + bonds[int(before[atom]), int(atom)]
    return n_parts, part, reached_in


def _rank(vectors: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(np.unique(vectors, axis=0))) if len(vectors) else 0


def _layers(lattice: np.ndarray, closing: np.ndarray) -> Periodicity:
    """Layers along these lattice vectors (n, 3), which lie in one plane."""
    vectors = np.unique(closing[closing.any(axis=1)], axis=0)
    across = np.cross(vectors[0], vectors)
    h, k, l = (int(x) for x in across[across.any(axis=1)][0])  # noqa: E741
    # All lattice vectors with (h, k, l) . v = 0 are sums of these two.
    if h == k == 0:
        plane = np.array([[1, 0, 0], [0, 1, 0]])
    else:
        g = int(np.gcd(h, k))
        x, y = ext_gcd(h // g, k // g)
        sign = x * h // g + y * k // g  # ext_gcd finds 1 or -1
        g_l = int(np.gcd(g, l))
        plane = np.array([[k // g, -h // g, 0], [-sign * x * l // g_l, -sign * y * l // g_l, g // g_l]])
    normal = np.cross(*(plane @ lattice))
    normal /= np.linalg.norm(normal)
    _, change = minkowski_reduce(np.vstack([plane @ lattice, normal]), pbc=[True, True, False])
    plane = change[:2, :2] @ plane
    normal = np.cross(*(plane @ lattice))
    return Periodicity(2, plane=plane, normal=normal / np.linalg.norm(normal))
