"""Relaxations by FIRE and by L-BFGS from the same start: what each takes, and where it ends.

    python benchmarks/optimizers.py FOLDER... --count 40 --atoms 8 --potential sevennet-0 --out optimizers.csv

The first so many files of each folder with at most so many atoms, the smallest first. A line for each crystal: steps
by atoms (what goes through the potential), energies in eV per atom, and space groups. In the end the sums, and the
crystals that ended elsewhere: energies apart by more than 0.5 meV per atom, or another space group. Begun again, it
goes on behind the crystals that are in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from resumed import arguments, chosen, rows
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


def tell(found: Sequence[dict[str, str]]) -> None:
    """The sums, and who ended elsewhere."""
    both = [row for row in found if all(row[f"{o}_energy"] for o in OPTIMIZERS)]
    for optimizer in OPTIMIZERS:
        spent = sum(int(row[f"{optimizer}_evaluations"]) for row in both)
        failed = sum(not row[f"{optimizer}_energy"] for row in found)
        print(f"{optimizer}: {spent:,} evaluations for {len(both)} crystals, {failed} failed")
    for row in both:
        apart = float(row["lbfgs_energy"]) - float(row["fire_energy"])
        if abs(apart) > SAME_ENERGY or row["lbfgs_space_group"] != row["fire_space_group"]:
            groups = f"{row['fire_space_group']} -> {row['lbfgs_space_group']}"
            print(f"{row['file']}: L-BFGS {1000 * apart:+.2f} meV per atom, space group {groups}")


def main() -> None:
    """Relax in both ways."""
    given = arguments(__doc__, count=40, atoms=8)
    model = potentials.load(given.potential, given.device).model

    def line(file: Path) -> dict[str, Any]:
        structure = Structure.from_file(file)
        fire, lbfgs = (ends(structure, model, optimizer) for optimizer in OPTIMIZERS)
        return {"file": file.name, "atoms": len(structure)} | fire | lbfgs

    tell(list(rows(chosen(given.folders, given.count, given.atoms), COLUMNS, given.out, line)))


if __name__ == "__main__":
    main()
