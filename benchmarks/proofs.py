"""What proofs of instability save: the same crystals under `converged` with and without the step `proof`.

    python benchmarks/proofs.py FOLDER... --count 20 --potential sevennet-0 --device cpu --out proofs.csv

The first so many files of each folder. A line for each crystal with both verdicts and what each way cost from the
relaxed crystal on (atoms that went through the potential), and the sums of those that are unstable and stable in the
end; a verdict that differs is named.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from phononbench_flows import judge_many
from phononbench_flows.judging import JudgedCrystal
from phononbench_flows.protocol import PRESETS

STRAINED_CELLS = 12  # of elastic constants


def cost(judged: JudgedCrystal) -> int:
    """Evaluations after the relaxation; elastic constants of a second strain are not counted."""
    document = judged.document
    spent = sum(document.results.get(step, {}).get("evaluations", 0) for step in ("proof", "exact_looks"))
    if document.phonon is not None:
        spent += document.phonon.n_displacements * document.phonon.supercell_natoms
        if document.evidence.elastic is not None:
            spent += STRAINED_CELLS * document.phonon.primitive_natoms
    return spent


def main() -> None:
    """Judge in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    files = [file for folder in given.folders for file in sorted(folder.glob("*.cif"))[: given.count]]
    whole = PRESETS["converged"]
    steps = {name: settings for name, settings in whole.further_steps.items() if name != "proof"}
    ways = [whole, whole.model_copy(update={"name": "without-proofs", "further_steps": steps})]
    proven, full = (
        judge_many(files, potential=given.potential, protocol=protocol, device=given.device) for protocol in ways
    )
    sums: dict[str, list[int]] = {}
    with given.out.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "atoms", "with_proofs", "without", "proof", "cost_with", "cost_without"])
        for file, one, other in zip(files, proven, full, strict=True):
            costs = cost(one), cost(other)
            said = one.document.results.get("proof", {}).get("proof")
            table.writerow([file.name, one.document.nsites, one.stability, other.stability, said, *costs])
            total = sums.setdefault(other.stability, [0, 0, 0])
            for place, value in enumerate((1, *costs)):
                total[place] += value
            if one.stability != other.stability:
                print(f"{file.name}: {one.stability} with proofs, {other.stability} without")
    for stability, (number, with_proofs, without) in sums.items():
        print(f"{number} {stability}: {with_proofs:,} evaluations with proofs, {without:,} without")


if __name__ == "__main__":
    main()
