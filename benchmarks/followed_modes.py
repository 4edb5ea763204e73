"""What textbook crystals that are unstable in a potential become when their modes are followed.

    python benchmarks/followed_modes.py RESULTS --potential sevennet-0 --out table.md

judges and follows high-symmetry parents of phases that are well known, and writes a line for each: the way of its space
groups, the energy gained, and the phase that the literature has at low temperature. Called again, it goes on where it
was. docs/followed_modes.md shows the table.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from textbook_crystals import CRYSTALS

from phononbench_flows import ResultsStore, judge_folder
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.following import FollowSettings
from phononbench_flows.follow import follow_set
from phononbench_flows.outcomes import Status
from phononbench_flows.tables.files import markdown

SET = "textbook"
_BATCH = 128  # atoms in a call: more are not faster on a CPU, and take gigabytes

GROUND_STATES = {
    "Al bcc": "Fm-3m",
    "Cu bcc": "Fm-3m",
    "Mg bcc": "P6_3/mmc",
    "Ti bcc": "P6_3/mmc or P6/mmm",
    "Zr bcc": "P6_3/mmc or P6/mmm",
    "Nb fcc": "Im-3m",
    "Mo fcc": "Im-3m",
    "W fcc": "Im-3m",
    "NiTi B2": "P2_1/m",
    "GeTe rocksalt": "R3m",
    "VN rocksalt": "P-42m",
    "ZrO2 cubic": "P2_1/c by P4_2/nmc",
    "HfO2 cubic": "P2_1/c by P4_2/nmc",
    "BaTiO3 cubic": "R3m",
    "KNbO3 cubic": "R3m",
    "PbTiO3 cubic": "P4mm",
    "SrTiO3 cubic": "I4/mcm",
    "KTaO3 cubic": "Pm-3m",
    "BaZrO3 cubic": "Pm-3m or I4/mcm",
    "LaAlO3 cubic": "R-3c",
    "NaNbO3 cubic": "R3c",
    "CaTiO3 cubic": "Pnma",
    "CsSnI3 cubic": "Pnma",
    "SiO2 cristobalite beta": "P4_12_12",
}
"""Space group of the phase at low temperature, of crystals of a textbook; see textbook_crystals.py for sources."""


def main() -> None:
    """Read the arguments, and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--atoms", type=int, default=20)
    parser.add_argument("--children", type=int, default=3)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--table-only", action="store_true", help="compute nothing, and tell what there is")
    given = parser.parse_args()
    if not given.table_only:
        with TemporaryDirectory() as folder:
            for name in GROUND_STATES:
                CRYSTALS[name].structure.to(str(Path(folder) / f"{_label(name)}.cif"))
            judge_folder(
                folder, SET, out=given.results, potential=given.potential, device="cpu", workers=1, batch_atoms=_BATCH
            )
        settings = FollowSettings(atoms=given.atoms, children=given.children, generations=given.generations)
        follow_set(
            SET,
            out=given.results,
            potential=given.potential,
            settings=settings,
            device="cpu",
            workers=1,
            batch_atoms=_BATCH,
        )
    with ResultsStore.open(given.results.absolute()) as store:
        found = {document.id.removeprefix(f"{SET}-"): document for document in store.documents({"set": SET})}
    rows = [_row(name, found[_label(name)]) for name in GROUND_STATES if _label(name) in found]
    given.out.write_text(markdown(pd.DataFrame(rows)), encoding="utf-8")


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name)


def _row(name: str, document: CalculationDocument) -> dict[str, str]:
    """A line of the table."""
    family, lowest = document.family, document.lowest
    leads = document.status if document.status != Status.UNSTABLE or family is None else family.outcome
    known = family if family is not None and family.stable is not None else None
    return {
        "parent": name,
        "lowest (THz)": f"{lowest.frequency:.2f}" if lowest else "",
        "leads to": leads if document.status == Status.UNSTABLE else f"({leads} itself)",
        "space groups": " → ".join(known.path) if known else "",
        "gained (meV/atom)": f"{1000 * known.energy_gained:.1f}" if known and known.energy_gained else "",
        "RMSD (Å)": f"{known.rmsd:.2f}" if known and known.rmsd is not None else "",
        "crystals made": str(family.n_descendants) if family else "",
        "time (s)": f"{family.seconds:.0f}" if family else "",
        "literature": GROUND_STATES[name],
    }


if __name__ == "__main__":
    main()
