from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from phononbench_flows import potentials
from phononbench_flows.engine.layers import periodicity

CUTOFF = 4.0  # Å


def atoms(a: float, b: float, c: float, *sites: list[float]) -> Structure:
    return Structure(Lattice.orthorhombic(a, b, c), ["Cu"] * (len(sites) or 1), list(sites) or [[0, 0, 0]])


@pytest.mark.parametrize(
    ("structure", "dimension"),
    [
        (atoms(3, 3, 3), 3),
        (atoms(3, 3, 9), 2),
        (atoms(9, 3, 9), 1),
        (atoms(9, 9, 9), 0),
        # Sites at both ends of the cell: the layer goes through its boundary.
        (atoms(3, 3, 9, [0, 0, 0.05], [0, 0, 0.95]), 2),
        # Two layers of one cell, and an atom between layers.
        (atoms(3, 3, 18, [0, 0, 0], [0, 0, 0.5]), 2),
        (atoms(3, 3, 18, [0, 0, 0], [0.1, 0.2, 0.5]), 2),
        (atoms(3.9, 3.9, 3.9, [0, 0, 0], [0.5, 0.5, 0.5]), 3),
    ],
)
def test_a_crystal_goes_on_where_no_gap_is_wider_than_the_cutoff(structure, dimension):
    found = periodicity(structure, CUTOFF)
    assert found.dimension == dimension
    assert (found.plane is None) == (found.normal is None) == (dimension != 2)


def test_parts_that_go_on_in_different_directions_are_looked_at_in_all():
    crossed = atoms(9, 9, 18, *([x / 3, 0, 0] for x in range(3)), *([0, y / 3, 0.5] for y in range(3)))
    assert periodicity(crossed, CUTOFF).dimension == 3
    along = atoms(9, 9, 18, *([x / 3, 0, 0] for x in range(3)), *([x / 3, 0.3, 0.5] for x in range(3)))
    assert periodicity(along, CUTOFF).dimension == 1


def test_a_layer_with_chains_along_it_or_an_atom_beside_it_is_a_layer():
    layer = [[x / 3, y / 3, 0] for x in range(3) for y in range(3)]
    in_plane = atoms(9, 9, 18, *layer, *([x / 3, 0, 0.5] for x in range(3)))
    assert periodicity(in_plane, CUTOFF).dimension == 2
    across = atoms(9, 14, 18, *([0, y / 5, z / 5] for y in range(5) for z in range(5)), [0.5, 0.5, 0.5])
    found = periodicity(across, CUTOFF)
    assert found.dimension == 2
    assert np.allclose(np.abs(found.normal), [1, 0, 0])


def test_the_plane_is_found_in_any_setting():
    """Its two vectors span all lattice vectors of the plane, and none is shorter."""
    layer = Structure(Lattice.hexagonal(2.5, 12), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    random = np.random.default_rng(5)
    for _ in range(30):
        change = np.eye(3, dtype=int)
        for _ in range(4):
            i, j = random.choice(3, 2, replace=False)
            change[i] += int(random.integers(-2, 3)) * change[j]
        rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
        lattice = Lattice(change @ layer.lattice.matrix @ rotation)
        written = Structure(lattice, layer.species, layer.frac_coords @ np.linalg.inv(change))
        found = periodicity(written, CUTOFF)
        assert found.dimension == 2
        vectors = found.plane @ lattice.matrix
        assert np.allclose(np.linalg.norm(vectors, axis=1), 2.5)
        assert np.linalg.norm(np.cross(*vectors)) == pytest.approx(2.5**2 * np.sqrt(3) / 2)
        assert np.allclose(vectors @ found.normal, 0)
        assert abs(found.normal @ rotation[2]) == pytest.approx(1)


def test_a_cell_of_several_primitive_ones_has_the_plane_of_its_own_lattice():
    found = periodicity(atoms(3, 3, 9) * (2, 3, 1), CUTOFF)
    assert found.plane.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_potentials_tell_how_far_they_see():
    assert potentials.load("toy_potentials:lj", "cpu").cutoff == 5.75
    assert potentials.load("toy_potentials:lj32", "cpu").cutoff == 6.0, "the default"
