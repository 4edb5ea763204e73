"""What proofs of instability save: crystals under `converged`, and the rest of those that a proof settled.

    python benchmarks/proofs.py FOLDER... --count 20 --potential sevennet-0 --device cpu --out proofs.csv

The first so many files of each folder with at most `--atoms` atoms, the smallest first. What is not proven is computed
as it would be without proofs, but for the forces at rest of its primitive cell; what is proven goes on to the last step
from where it was, for the verdict without. A line for each crystal with both verdicts and what each way costs from the
relaxed crystal on (atoms that go through the potential), and in the end the sums of those that are unstable and stable;
a verdict that differs is named. Begun again, it goes on behind the crystals that are in the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def judge_both_ways(files: Sequence[Path], tools: Tools) -> Iterator[dict[str, Any]]:
    """The lines of crystals that are computed together; none for those that fail."""
    kept: dict[str, dict[str, Arrays]] = {file.name: {} for file in files}
    crystals = [_crystal(file, kept[file.name], tools) for file in files]
    proven: dict[str, str] = {}
    for step in steps_of(PROTOCOL):
        left = [each for each in crystals if each.document.status != Status.FAILED]
        pass_steps(left, [step], tools, lambda document, arrays: kept[document.id].update(arrays))
        for each in left:
            if step.name == "proof" and step.settles(each.document):
                proven[each.document.id] = str(each.document.status)
    for document in (each.document for each in crystals if each.document.status != Status.FAILED):
        full, early = str(document.status), proven.get(document.id)
        values = (document.id, document.nsites, early or full, full, *costs(document, early))
        yield dict(zip(COLUMNS, values, strict=True))


def _crystal(file: Path, kept: dict[str, Arrays], tools: Tools) -> StepInput:
    structure = Structure.from_file(file)
    document = CalculationDocument(
        key=file.name,
        id=file.name,
        set="proofs",
        origin=Origin(source=str(file)),
        potential=tools.loaded.record(),
        protocol_id="proofs",
        protocol_name=PROTOCOL.name,
        steps=[step.name for step in steps_of(PROTOCOL)],
        nsites=len(structure),
        stage=SCREENED,
    )
    return StepInput(document, lambda: structure, kept.__getitem__)


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
    tell(rows(files, COLUMNS, given.out, partial(judge_both_ways, tools=tools), given.together))


if __name__ == "__main__":
    main()
