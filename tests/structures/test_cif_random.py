"""Random known crystals written in random ways, and good files with bytes changed: the same crystal, or a rejection."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from known_crystals import (
    Known,
    atom_loop,
    cell_lines,
    hall,
    is_same,
    known,
    names,
    operation_loop,
    quoted,
    random_case,
)
from pymatgen.core import Lattice

from phononbench_flows.structures import Parsed, parse

SPECIAL = (0.0, 0.25, 0.5, 0.75, 1 / 3, 2 / 3, 1 / 8)


def far_apart(crystal: Known, limit: float = 0.8) -> bool:
    """Whether all atoms are farther from each other than this (Å)."""
    places = np.array([place for _, place in crystal.atoms])
    differences = places[:, None] - places[None]
    shifts = np.array(list(product((-1, 0, 1), repeat=3)))
    matrix = Lattice.from_parameters(*crystal.cell).matrix
    distances = np.linalg.norm((differences - np.rint(differences))[:, :, None] @ matrix + shifts @ matrix, axis=-1)
    distances[np.eye(len(places), dtype=bool)] = np.inf
    return bool(distances.min() > limit)


def random_place(rng: np.random.Generator) -> np.ndarray:
    """Sometimes on a special position."""
    return np.array([rng.choice(SPECIAL) if rng.random() < 0.5 else rng.uniform(0, 1) for _ in range(3)])


def random_crystal(rng: np.random.Generator) -> Known:
    while True:
        symbols = rng.choice(["Na", "Cl", "O", "Si", "Co", "K"], size=rng.integers(1, 4), replace=False)
        places = [(str(symbol), random_place(rng)) for symbol in symbols]
        found = known(int(rng.integers(1, 531)), places, rng)
        if len(found.atoms) <= 100 and far_apart(found):
            return found


def supercell(crystal: Known) -> Known:
    """Twice along the first axis, every atom listed."""
    atoms = [(s, (place + np.array([shift, 0, 0])) / [2, 1, 1]) for s, place in crystal.atoms for shift in (0, 1)]
    return Known(1, [2 * crystal.cell[0], *crystal.cell[1:]], atoms, atoms, [1] * len(atoms))


def symmetry_lines(crystal: Known, rng: random.Random) -> list[str]:
    """One or more ways to say it, some of which may leave something open."""
    number = crystal.hall_number
    tag = rng.choice(
        ["_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz", "_space_group_symop.operation_xyz"]
    )
    every = [
        operation_loop(number, tag),
        f"_space_group_name_Hall {quoted(hall(number))}",
        f"_symmetry_space_group_name_H-M {quoted(names(number)[0])}",
        f"_space_group_name_H-M_alt {quoted(names(number)[0].split(' :')[0])}",
        f"_space_group_IT_number {crystal.setting.number}",
    ]
    return rng.sample(every, rng.choice([1, 1, 2, 3]))


def count_lines(crystal: Known, rng: random.Random) -> list[str]:
    formula = " ".join(f"{symbol}{count}" for symbol, count in crystal.counts.items())
    said = [f"_chemical_formula_sum '{formula}'", "_cell_formula_units_Z 1"]
    return rng.choice([[], said[:1], said])


def random_text(crystal: Known, rng: random.Random, digits: int) -> str:
    """The items in any order, tags and keywords in any case, atoms shuffled and shifted by lattice vectors."""
    sites = [(s, place + np.array([rng.choice((-1, 0, 0, 1)) for _ in range(3)])) for s, place in crystal.sites]
    rng.shuffle(sites)
    items = [
        *cell_lines(crystal.cell),
        *symmetry_lines(crystal, rng),
        *count_lines(crystal, rng),
        atom_loop(sites, digits),
    ]
    rng.shuffle(items)
    if rng.random() < 0.5:
        lines = "\n".join(items).split("\n")
        words = [line.partition(" ") if line.startswith(("_", "loop_")) else ("", "", line) for line in lines]
        items = [random_case(tag, rng) + space + rest for tag, space, rest in words]
    return "\n".join(["# made by hand", "data_x", *items, ""]).replace("\n", rng.choice(["\n", "\r\n", "\n\n"]))


@pytest.mark.parametrize("seed", range(8))
def test_random_crystals_in_random_ways(seed: int) -> None:
    rng, chooser = np.random.default_rng(seed), random.Random(seed)
    accepted = 0
    for _ in range(40):
        crystal = random_crystal(rng)
        if chooser.random() < 0.2:
            crystal = supercell(crystal)
        digits = chooser.choice([3, 4, 5, 6, 8])
        text = random_text(crystal, chooser, digits)
        parsed = parse("cif", text.encode())
        if isinstance(parsed, Parsed):
            accepted += 1
            # Half a unit of the last digit in each coordinate of two atoms, over cells of up to 18 Å.
            assert is_same(parsed.structure, crystal, 3 * max(crystal.cell[:3]) * 10**-digits), text
    assert accepted > 20


def mutated(text: str, rng: random.Random) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(data))
        what = rng.randrange(5)
        if what == 0:
            data[place] = rng.randrange(256)
        elif what == 1:
            del data[place : place + rng.choice([1, 1, 3, 40])]
        elif what == 2:
            data[place:place] = bytes([rng.choice(b" \n'\"_;#,.-0123456789()?x\xe2")])
        elif what == 3:
            data[place:place] = data[place : place + rng.randrange(60)]
        else:
            other = rng.randrange(len(data))
            data[place], data[other] = data[other], data[place]
    return bytes(data)


@pytest.mark.parametrize("seed", range(6))
def test_changed_bytes_never_change_the_number_of_atoms_that_is_stated(seed: int) -> None:
    rng, chooser = np.random.default_rng(100 + seed), random.Random(100 + seed)
    for _ in range(5):
        crystal = random_crystal(rng)
        formula = " ".join(f"{symbol}{count}" for symbol, count in crystal.counts.items())
        items = [
            *cell_lines(crystal.cell),
            f"_symmetry_Int_Tables_number {crystal.setting.number}",
            operation_loop(crystal.hall_number),
            atom_loop(crystal.sites),
        ]
        for _ in range(40):
            # What is stated is left as it is, everything else is changed.
            text = mutated("\n".join(items), chooser)
            head = f"data_x\n_chemical_formula_sum '{formula}'\n_cell_formula_units_Z 1\n".encode()
            parsed = parse("cif", head + text)
            if isinstance(parsed, Parsed):
                made = {str(e): int(n) for e, n in parsed.structure.composition.items()}
                assert made == crystal.counts, text
            else:
                assert "gave up" not in parsed.detail, (parsed, text)
