"""The lowest mode at a q-point in both ways: by all displacements of its smallest cell, and by Davidson's method.

    python benchmarks/davidson.py --potential sevennet-0 --device cpu --out davidson.csv

Textbook crystals, two or more q-points each, of denominators 3 to 6; a line for each pair with both frequencies (THz),
what each cost (atoms that went through the potential), and the products of Davidson's method.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from textbook_crystals import CRYSTALS

from phononbench_flows import judge_many, potentials
from phononbench_flows.engine.dialogues import Dialogue, hold
from phononbench_flows.engine.exact import by_displacements, davidson, displaced_cells
from phononbench_flows.engine.interpolation import frequency_of, interpolation
from phononbench_flows.engine.q_symmetry import operations
from phononbench_flows.engine.trouble import Found
from phononbench_flows.protocol import PRESETS

PAIRS: dict[str, list[tuple[float, float, float]]] = {
    "Si diamond": [(0.25, 0.25, 0), (1 / 3, 0, 0)],
    "MgO rocksalt": [(0.25, 0, 0), (1 / 3, 1 / 3, 0)],
    "NaCl rocksalt": [(0.25, 0.25, 0.5), (0.2, 0, 0)],
    "Al fcc": [(0.25, 0.25, 0), (0.375, 0.375, 0.75)],
    "Cu fcc": [(0.25, 0, 0.25), (1 / 3, 1 / 3, 0)],
    "Mo bcc": [(0.25, 0.25, 0.25), (1 / 3, 0, 0)],
    "Ti bcc": [(1 / 3, 1 / 3, 1 / 3), (0.25, 0, 0)],
    "Nb fcc": [(0.375, 0.375, 0.75), (0.25, 0, 0)],
    "NiAl B2": [(0.25, 0, 0.25), (1 / 3, 1 / 3, 0)],
    "GaAs zincblende": [(0.25, 0, 0), (0.25, 0.25, 0)],
    "BN zincblende": [(0.2, 0.2, 0.2), (0.25, 0, 0)],
    "GaN wurtzite": [(0.25, 0, 0), (1 / 3, 1 / 3, 0), (0, 0, 0.25)],
    "ZnO wurtzite": [(0.25, 0, 0), (0, 0, 1 / 3)],
    "Mg hcp": [(0.25, 0, 0), (1 / 3, 1 / 3, 0.25)],
    "Ti hcp": [(0.25, 0, 0), (0, 0, 0.25)],
    "CaF2 fluorite": [(0.25, 0, 0), (1 / 3, 0, 1 / 3)],
    "ZrO2 cubic": [(0.25, 0, 0.25), (1 / 3, 0, 0)],
    "SrTiO3 cubic": [(0.25, 0, 0), (0.25, 0.25, 0)],
    "TiO2 anatase": [(0, 0, 0.25), (0.25, 0.25, 0)],
    "PbTiO3 P4mm": [(0.25, 0, 0), (0, 0, 0.25), (1 / 3, 1 / 3, 0)],
}


def main() -> None:
    """Compute every pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    protocol = PRESETS["paper"]
    settings = protocol.force_constants
    model = potentials.load(given.potential, given.device).model
    names = [name for name in PAIRS if name in CRYSTALS]
    judged = judge_many(
        [CRYSTALS[name].structure for name in names], potential=given.potential, protocol=protocol, device=given.device
    )
    differences, columns = [], ["name", "q", "all_thz", "davidson_thz", "all_cost", "davidson_cost", "products"]
    with given.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        for name, crystal in zip(names, judged, strict=True):
            guess = interpolation(crystal.phonopy(), tolerance=0.05)
            symmetry = operations(guess.cell, settings.symprec)
            for point in PAIRS[name]:
                q = np.array(point)
                phonon = displaced_cells(guess.cell, q, settings)
                ways: list[Callable[[], Dialogue]] = [
                    partial(by_displacements, phonon, q, settings, tolerance=0.05),
                    partial(davidson, guess, q, settings.distance, symmetry),
                ]
                whole, modes = (found.result for found in hold(ways, model) if isinstance(found, Found))
                if modes is None:
                    table.writerow([name, point, frequency_of(whole.lowest), None, whole.evaluations, None, None])
                    continue
                both = frequency_of(whole.lowest), frequency_of(modes.lowest)
                # An imaginary mode is proven, and its search ends there.
                if both[1] > -0.3:
                    differences.append(abs(both[0] - both[1]))
                cost = [whole.evaluations, modes.evaluations, modes.evaluations // modes.natoms]
                table.writerow([name, [round(x, 4) for x in point], *(round(x, 4) for x in both), *cost])
                file.flush()
    print(f"{len(differences)} pairs that are not imaginary: largest difference {max(differences):.4f} THz")


if __name__ == "__main__":
    main()
