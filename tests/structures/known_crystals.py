"""Known crystals, put down as CIF in many ways; what they are is worked out without the package.

The operations are spglib's, the atoms follow from them in floating point.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import spglib
from pymatgen.core import Lattice, Structure

AXES = "xyz"


@dataclass
class Known:
    """A crystal: setting, cell (a, b, c, alpha, beta, gamma), sites as listed and all atoms of the cell."""

    hall_number: int
    cell: list[float]
    sites: list[tuple[str, np.ndarray]]
    atoms: list[tuple[str, np.ndarray]]
    multiplicities: list[int] = field(default_factory=list)

    @property
    def setting(self) -> spglib.SpaceGroupType:
        return spglib.get_spacegroup_type(self.hall_number)

    @property
    def counts(self) -> dict[str, int]:
        symbols = [symbol for symbol, _ in self.atoms]
        return {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}


def operations(hall_number: int) -> tuple[np.ndarray, np.ndarray]:
    found = spglib.get_symmetry_from_database(hall_number)
    return found["rotations"], found["translations"]


def triplet(rotation: np.ndarray, translation: np.ndarray) -> str:
    parts = []
    for row, shift in zip(rotation, translation, strict=True):
        text = "".join(("-" if factor < 0 else "+") + axis for factor, axis in zip(row, AXES, strict=True) if factor)
        exact = Fraction(float(shift)).limit_denominator(24)
        parts.append(text.removeprefix("+") + (f"+{exact}" if exact else ""))
    return ",".join(parts)


def names(hall_number: int) -> list[str]:
    """Names with their setting, from spglib's table."""
    found = spglib.get_spacegroup_type(hall_number)
    ending = f" :{found.choice[0]}" if found.choice and found.choice[0] in "12HR" else ""
    return [found.international.split(" = ")[-1] + ending, found.international_full + ending]


def hall(hall_number: int) -> str:
    return spglib.get_spacegroup_type(hall_number).hall_symbol.replace("=", '"')


def fitting_cell(rotations: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Lengths (Å) and angles (degrees) of a random cell that the rotations leave as it is."""
    while True:
        vectors = np.diag(rng.uniform(5, 9, 3)) + rng.uniform(-1.5, 1.5, (3, 3))
        metric = np.mean([r.T @ (vectors @ vectors.T) @ r for r in rotations], axis=0)
        lengths = np.sqrt(np.diag(metric))
        cosines = [metric[i, j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))]
        cell = [*(round(x, 4) for x in lengths), *(round(float(np.degrees(np.arccos(c))), 3) for c in cosines)]
        if np.linalg.det(metric) > 1 and all(50 < angle < 130 for angle in cell[3:]):
            return cell


def images(place: np.ndarray, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Different images, modulo 1."""
    found: list[np.ndarray] = []
    for image in (rotations @ place + translations) % 1:
        if not any(np.abs(image - other - np.rint(image - other)).max() < 1e-6 for other in found):
            found.append(image)
    return np.array(found)


def known(hall_number: int, places: list[tuple[str, np.ndarray]], rng: np.random.Generator) -> Known:
    rotations, translations = operations(hall_number)
    orbits = [(symbol, images(place, rotations, translations)) for symbol, place in places]
    atoms = [(symbol, image) for symbol, orbit in orbits for image in orbit]
    cell = fitting_cell(rotations, rng)
    return Known(hall_number, cell, places, atoms, [len(orbit) for _, orbit in orbits])


def is_same(structure: Structure, crystal: Known, tolerance: float) -> bool:
    """Whether it has the same cell and the same atoms at the same places (Å)."""
    if not np.allclose(structure.lattice.parameters, crystal.cell, atol=1e-6) or len(structure) != len(crystal.atoms):
        return False
    matrix = Lattice.from_parameters(*crystal.cell).matrix
    places = np.array([place for _, place in crystal.atoms])
    differences = structure.frac_coords[:, None] - places[None]
    distances = np.linalg.norm((differences - np.rint(differences)) @ matrix, axis=2)
    symbols = np.array([symbol for symbol, _ in crystal.atoms])
    found = np.array([site.specie.symbol for site in structure])
    near = (distances <= tolerance) & (found[:, None] == symbols[None])
    return bool((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all())


CELL_TAGS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
SITE_TAGS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")


def atom_loop(sites: list[tuple[str, np.ndarray]], digits: int = 6) -> str:
    lines = [
        f"{symbol}{number} {symbol} {' '.join(f'{x:.{digits}f}' for x in place)}"
        for number, (symbol, place) in enumerate(sites, start=1)
    ]
    return "\n".join(["loop_", *(f"_atom_site_{tag}" for tag in SITE_TAGS), *lines])


def cell_lines(cell: list[float]) -> list[str]:
    return [f"_cell_{tag} {value:g}" for tag, value in zip(CELL_TAGS, cell, strict=True)]


def operation_loop(hall_number: int, tag: str = "_symmetry_equiv_pos_as_xyz") -> str:
    return "\n".join(["loop_", tag, *(f"'{triplet(r, t)}'" for r, t in zip(*operations(hall_number), strict=True))])


def written(crystal: Known, *symmetry: str, digits: int = 6) -> str:
    return "\n".join(["data_x", *cell_lines(crystal.cell), *symmetry, atom_loop(crystal.sites, digits), ""])


def quoted(text: str) -> str:
    quote = '"' if "'" in text or not text.count('"') else "'"
    return f"{quote}{text}{quote}" if '"' not in text else f"'{text}'"


def random_case(text: str, rng: random.Random) -> str:
    return "".join(rng.choice((c.upper(), c.lower())) for c in text)
