"""What proofs of instability save: crystals under `converged`, and the rest of those that a proof settled.

    python benchmarks/proofs.py FOLDER... --count 20 --potential sevennet-0 --device cpu --out proofs.csv

The first so many files of each folder with at most `--atoms` atoms, the smallest first. What is not proven is computed
as it would be without proofs, but for the forces at rest of its primitive cell; what is proven goes on to the last step
from where it was, for the verdict without. A line for each crystal with both verdicts and what each way costs from the
relaxed crystal on (atoms that go through the potential), and in the end the sums of those that are unstable and stable;
a verdict that differs is named. Begun again, it goes on behind the crystals that are in the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pymatgen.core import Structure
from resumed import arguments, chosen, rows

from phononbench_flows import potentials
from phononbench_flows.documents import CalculationDocument, Origin
from phononbench_flows.outcomes import SCREENED, Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.steps import steps_of
from phononbench_flows.steps.passing import pass_steps
from phononbench_flows.steps.step import Arrays, StepInput, Tools

PROTOCOL = PRESETS["converged"]
STRAINED_CELLS = 12  # of elastic constants
COLUMNS = ("file", "atoms", "with_proofs", "without", "proof", "cost_with", "cost_without")


def judge_both_ways(file: Path, tools: Tools) -> dict[str, Any] | None:
    """The line of a crystal; None if it fails."""
    structure, steps = Structure.from_file(file), steps_of(PROTOCOL)
    document = CalculationDocument(
        key=file.name,
        id=file.name,
        set="proofs",
        origin=Origin(source=str(file)),
        potential=tools.loaded.record(),
        protocol_id="proofs",
        protocol_name=PROTOCOL.name,
        steps=[step.name for step in steps],
        nsites=len(structure),
        stage=SCREENED,
    )
    kept: dict[str, Arrays] = {}
    crystal = StepInput(document, lambda: structure, kept.__getitem__)
    proven: str | None = None
    for step in steps:
        pass_steps([crystal], [step], tools, lambda _, arrays: kept.update(arrays))
        if document.status == Status.FAILED:
            return None
        if step.name == "proof" and step.settles(document):
            proven = str(document.status)
    full = str(document.status)
    return dict(zip(COLUMNS, (file.name, len(structure), proven or full, full, *costs(document, proven)), strict=True))


def costs(document: CalculationDocument, proven: str | None) -> tuple[str, int, int]:
    """What the proof says, and evaluations after the relaxation; of a second strain's elastic constants none."""
    proof, phonon = document.results["proof"], document.phonon
    if phonon is None:
        raise ValueError("no force constants")
    without = phonon.n_displacements * phonon.supercell_natoms + document.results["exact_looks"]["evaluations"]
    if document.evidence.elastic is not None:
        without += STRAINED_CELLS * phonon.primitive_natoms
    extra = proof["evaluations"] - proof["displacements"] * phonon.supercell_natoms
    return proof["proof"], proof["evaluations"] if proven else without + extra, without


def tell(found: Iterable[dict[str, str]]) -> None:
    """The sums, and what differs."""
    sums: dict[str, list[int]] = {}
    for row in found:
        total = sums.setdefault(row["without"], [0, 0, 0])
        for place, value in enumerate((1, int(row["cost_with"]), int(row["cost_without"]))):
            total[place] += value
        if row["with_proofs"] != row["without"]:
            print(f"{row['file']}: {row['with_proofs']} with proofs, {row['without']} without")
    for stability, (number, with_proofs, without) in sums.items():
        print(f"{number} {stability}: {with_proofs:,} evaluations with proofs, {without:,} without")


def main() -> None:
    """Judge in both ways."""
    given = arguments(__doc__, count=20, atoms=20)
    tools = Tools(PROTOCOL, potentials.load(given.potential, given.device))
    files = chosen(given.folders, given.count, given.atoms)
    tell(rows(files, COLUMNS, given.out, partial(judge_both_ways, tools=tools)))


if __name__ == "__main__":
    main()
