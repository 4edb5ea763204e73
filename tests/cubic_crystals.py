"""Cubic crystals, as conftest and tests make them."""

from pymatgen.core import Lattice, Structure

FCC_SITES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def cubic(a: float, species: list[str], coords: list[list[float]]) -> Structure:
    return Structure(Lattice.cubic(a), species, coords)
