"""Relaxations by FIRE and by L-BFGS from the same start: what each takes, and where it ends.

    python benchmarks/optimizers.py FOLDER... --count 40 --atoms 8 --potential sevennet-0 --out optimizers.csv

The first so many files of each folder with at most so many atoms, the smallest first. A line for each crystal: steps
by atoms (what goes through the potential), energies in eV per atom, and space groups. In the end the sums, and the
crystals that ended elsewhere: energies apart by more than 0.5 meV per atom, or another space group. Begun again, it
goes on behind the crystals that are in the table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from torch_sim.models.interface import ModelInterface

from phononbench_flows import potentials
from phononbench_flows.engine.relax import Relaxed, relax
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.protocol import PRESETS

OPTIMIZERS = ("fire", "lbfgs")
SAME_ENERGY = 5e-4  # eV per atom
COLUMNS = ("file", "atoms", *(f"{o}_{what}" for o in OPTIMIZERS for what in ("evaluations", "energy", "space_group")))


def ends(structure: Structure, model: ModelInterface, optimizer: str) -> dict[str, Any]:
    """What one optimizer makes of a crystal; no energy if it fails."""
    settings = PRESETS["converged"].relaxation.model_copy(update={"optimizer": optimizer})
    found: Relaxed | Failure = relax([structure], model, settings)[0]
    if isinstance(found, Failure):
        values: tuple[Any, ...] = ("", "", found.reason.value)
    else:
        number = SpacegroupAnalyzer(found.structure, settings.symprec).get_space_group_number()
        values = (found.steps * len(structure), found.energy_per_atom, number)
    return {f"{optimizer}_{what}": v for what, v in zip(("evaluations", "energy", "space_group"), values, strict=True)}


def tell(rows: Sequence[dict[str, str]]) -> None:
    """The sums, and who ended elsewhere."""
    both = [row for row in rows if all(row[f"{o}_energy"] for o in OPTIMIZERS)]
    for optimizer in OPTIMIZERS:
        spent = sum(int(row[f"{optimizer}_evaluations"]) for row in both)
        failed = sum(not row[f"{optimizer}_energy"] for row in rows)
        print(f"{optimizer}: {spent:,} evaluations for {len(both)} crystals, {failed} failed")
    for row in both:
        apart = float(row["lbfgs_energy"]) - float(row["fire_energy"])
        if abs(apart) > SAME_ENERGY or row["lbfgs_space_group"] != row["fire_space_group"]:
            groups = f"{row['fire_space_group']} -> {row['lbfgs_space_group']}"
            print(f"{row['file']}: L-BFGS {1000 * apart:+.2f} meV per atom, space group {groups}")


def main() -> None:
    """Relax in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--atoms", type=int, default=8)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    crystals: list[tuple[int, Path]] = []
    for folder in given.folders:
        sizes = [(len(Structure.from_file(file)), file) for file in sorted(folder.glob("*.cif"))]
        crystals += [each for each in sizes if each[0] <= given.atoms][: given.count]
    model = potentials.load(given.potential, given.device).model
    done: set[str] = set()
    if given.out.exists():
        with given.out.open(newline="", encoding="utf-8") as stream:
            done = {row["file"] for row in csv.DictReader(stream)}
    with given.out.open("a", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, COLUMNS)
        if not done:
            table.writeheader()
        for atoms, file in sorted(crystals):
            if file.name not in done:
                structure = Structure.from_file(file)
                found = [ends(structure, model, optimizer) for optimizer in OPTIMIZERS]
                table.writerow({"file": file.name, "atoms": atoms} | found[0] | found[1])
                stream.flush()
    with given.out.open(newline="", encoding="utf-8") as stream:
        tell(list(csv.DictReader(stream)))


if __name__ == "__main__":
    main()
