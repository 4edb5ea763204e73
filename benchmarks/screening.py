"""How long reading and screening take: many crystals of one formula, and many of many formulas.

    python benchmarks/screening.py --crystals 10000 --formulas 1
    python benchmarks/screening.py --crystals 100000 --formulas 20000

Of each formula there are ``--phases`` different crystals, of which the others are copies with noise (Å): with 0.01
they are duplicates, with 0.2 near each other and still different. ``--store`` also writes them into a results store, as
a run does before it computes.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from phononbench_flows.documents import PotentialRecord
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.ingest import CrystalSet, ingest
from phononbench_flows.sets.looking import counts, look
from phononbench_flows.store import ResultsStore

_ELEMENTS = (
    *("Li", "Be", "Na", "Mg", "Al", "Si", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga"),
    *("Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Cs", "Ba", "La", "Hf", "Ta"),
    *("W", "Re", "Os", "Ir", "Pt", "Au", "Tl", "Pb", "Bi"),
)
_ANIONS = ["O", "S", "Se", "Te", "F", "Cl", "Br", "I", "N", "P"]


def _phase(species: list[str], chance: np.random.Generator) -> Structure:
    """Ten atoms somewhere, no two of them close."""
    volume = 14.0 * len(species) * chance.uniform(0.8, 1.2)
    lattice = Lattice.orthorhombic(*(volume ** (1 / 3) * chance.uniform(0.85, 1.15, 3)))
    coordinates: list[np.ndarray] = []
    while len(coordinates) < len(species):
        new = chance.random(3)
        if not coordinates or lattice.get_all_distances([new], coordinates).min() > 1.3:
            coordinates.append(new)
    return Structure(lattice, species, coordinates)


def _write(path: Path, crystals: int, formulas: int, phases: int, noise: float) -> None:
    chance = np.random.default_rng(0)
    chosen = [(a, b, x) for a, b in combinations(_ELEMENTS, 2) for x in _ANIONS]
    kinds = [chosen[at] for at in chance.choice(len(chosen), formulas, replace=formulas > len(chosen))]
    each = max(1, crystals // formulas)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "cif"])
        for a, b, x in kinds:
            made = [_phase([a] * 2 + [b] * 2 + [x] * 6, chance) for _ in range(min(phases, each))]
            for number in range(each):
                crystal = made[number % len(made)].copy()
                crystal.perturb(noise * chance.random())
                table.writerow([f"{a}{b}{x}-{number}", str(CifWriter(crystal))])


def main() -> None:
    """Make the crystals, screen them, and print how long that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=10_000)
    parser.add_argument("--formulas", type=int, default=1)
    parser.add_argument("--phases", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.01, help="largest shift of an atom of a copy, in Å")
    parser.add_argument("--store", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "crystals.csv"
        begin = time.monotonic()
        _write(table, given.crystals, given.formulas, given.phases, given.noise)
        print(f"made in {time.monotonic() - begin:.0f} s")
        begin = time.monotonic()
        found = look([table], PRESETS["paper"])
        print(f"read and screened in {time.monotonic() - begin:.1f} s: {counts(found)}")
        if given.store:
            record = PotentialRecord(name="none", checkpoint_sha256="0" * 64)
            with ResultsStore.open(Path(folder) / "results", create=True) as store:
                for what in ("first", "second"):
                    begin = time.monotonic()
                    ingest([table], CrystalSet("S", {}, PRESETS["paper"], record), store)
                    print(f"{what} ingest into a store in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
