"""Relaxations by FIRE and by L-BFGS from the same start: what each takes, and where it ends.

    python benchmarks/optimizers.py FOLDER... --count 40 --atoms 8 --potential sevennet-0 --out optimizers.csv

The first so many files of each folder with at most so many atoms, the smallest first. A line for each crystal: steps
by atoms (what goes through the potential), energies in eV per atom, and space groups. In the end the sums, and the
crystals that ended elsewhere: energies apart by more than 0.5 meV per atom, or another space group. Begun again, it
goes on behind the crystals that are in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
ENDS = ("evaluations", "energy", "space_group")
COLUMNS = ("file", "atoms", *(f"{optimizer}_{what}" for optimizer in OPTIMIZERS for what in ENDS))


def ends(structures: Sequence[Structure], model: ModelInterface, optimizer: str) -> list[dict[str, Any]]:
    """What one optimizer makes of each crystal; no energy if it fails."""
    settings = PRESETS["converged"].relaxation.model_copy(update={"optimizer": optimizer})
    return [
        {f"{optimizer}_{what}": value for what, value in zip(ENDS, _end(found, settings.symprec), strict=True)}
        for found in relax(structures, model, settings)
    ]


def _end(found: Relaxed | Failure, symprec: float) -> tuple[Any, ...]:
    if isinstance(found, Failure):
        return "", "", found.reason.value
    number = SpacegroupAnalyzer(found.structure, symprec).get_space_group_number()
    return found.steps * len(found.structure), found.energy_per_atom, number


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

    def lines(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
        structures = [Structure.from_file(file) for file in files]
        fire, lbfgs = (ends(structures, model, optimizer) for optimizer in OPTIMIZERS)
        for file, structure, by_fire, by_lbfgs in zip(files, structures, fire, lbfgs, strict=True):
            yield {"file": file.name, "atoms": len(structure)} | by_fire | by_lbfgs

    files = chosen(given.folders, given.count, given.atoms)
    tell(list(rows(files, COLUMNS, given.out, lines, given.together)))


if __name__ == "__main__":
    main()
