"""Whether a verdict depends on how a crystal is written, or on where its relaxation starts.

    python benchmarks/invariance.py --potential sevennet-0 --out invariance.csv [--only NAME ...]

Each textbook crystal is judged under `converged` as its primitive, conventional, skewed, shifted and 2x1x1 cell, and
half of them from five starts each rattled by 0.001 and 0.01 Å. A line for each, and at the end the classes that were
found of each crystal.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from textbook_crystals import CRYSTALS

from phononbench_flows import judge_many

# Of one to five atoms, of every crystal system but the triclinic, stable and unstable, artefacts of interpolation too.
USUAL = (
    "Si diamond",
    "MgO rocksalt",
    "NaCl rocksalt",
    "Al fcc",
    "Cu fcc",
    "Mo bcc",
    "Ti bcc",
    "Zr bcc",
    "Nb fcc",
    "NiAl B2",
    "NiTi B2",
    "GaAs zincblende",
    "BN zincblende",
    "GaN wurtzite",
    "ZnO wurtzite",
    "Mg hcp",
    "Ti hcp",
    "CaF2 fluorite",
    "ZrO2 cubic",
    "SrTiO3 cubic",
)
RATTLED = (0.001, 0.01)
STARTS = 5


def writings(crystal: Structure) -> Iterator[tuple[str, Structure]]:
    """Ways of writing one crystal."""
    analyser = SpacegroupAnalyzer(crystal, symprec=1e-3)
    primitive = analyser.get_primitive_standard_structure()
    yield "primitive", primitive
    yield "conventional", analyser.get_conventional_standard_structure()
    yield "skewed", primitive.make_supercell([[1, 0, 0], [1, 1, 0], [0, -1, 1]], in_place=False)
    shifted = primitive.copy()
    shifted.translate_sites(range(len(shifted)), [0.13, 0.27, 0.41])
    yield "shifted", shifted
    yield "2x1x1", primitive.make_supercell([2, 1, 1], in_place=False)


def starts(crystal: Structure) -> Iterator[tuple[str, Structure]]:
    """The crystal with its atoms moved at random."""
    for distance in RATTLED:
        for seed in range(STARTS):
            moved = crystal.copy()
            random = np.random.default_rng(seed)
            for i in range(len(moved)):
                step = random.normal(size=3)
                moved.translate_sites([i], distance * step / np.linalg.norm(step), frac_coords=False)
            yield f"rattled by {distance} Å, {seed}", moved


def main() -> None:
    """Judge every writing and every start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", default=USUAL)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cases = []
    for number, name in enumerate(given.only):
        crystal = CRYSTALS[name].structure
        cases += [(name, *each) for each in writings(crystal)]
        if number < len(given.only) // 2:  # half of them
            cases += [(name, *each) for each in starts(crystal)]
    results = judge_many([crystal for _, _, crystal in cases], potential=given.potential, device=given.device)
    classes: dict[str, dict[str, list[str]]] = {}
    with given.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "way", "stability", "lowest_exact_thz", "evaluations", "why"])
        for (name, way, _), result in zip(cases, results, strict=True):
            evaluations = result.document.results.get("exact_looks", {}).get("evaluations")
            lowest = result.minimum.frequency if result.minimum else None
            table.writerow([name, way, result.stability, lowest, evaluations, result.why])
            kind = "rattled" if way.startswith("rattled") else "writings"
            classes.setdefault(name, {}).setdefault(kind, []).append(result.stability)
    for name, kinds in classes.items():
        print(name, {kind: {each: found.count(each) for each in sorted(set(found))} for kind, found in kinds.items()})


if __name__ == "__main__":
    main()
