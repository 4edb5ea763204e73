"""The rows of ``expected.csv``, and how what was read is compared with them."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import RawCrystal, Rejection, check

Row = dict[str, str]
Read = tuple[RawCrystal, Structure | Rejection]


def rows_of(folder: Path, kinds: set[str]) -> list[Row]:
    with (folder / "expected.csv").open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["kind"] in kinds]


@dataclass(frozen=True)
class Answer:
    """What became of a crystal: why it was rejected, or None; and what it is."""

    rejection: Rejection | None
    facts: dict[str, Any]


def answer(parsed: Structure | Rejection) -> Answer:
    if isinstance(parsed, Rejection):
        return Answer(parsed, {})
    rejection = check(parsed, ScreeningSettings(), None)
    return Answer(rejection, {} if rejection else facts_of(parsed))


def facts_of(structure: Structure) -> dict[str, Any]:
    counts = structure.composition.element_composition.reduced_composition.get_el_amt_dict()
    nearest = [min(n.nn_distance for n in structure.get_neighbors(site, 12.0)) for site in structure]
    analyzer = SpacegroupAnalyzer(structure, symprec=0.01)
    return {
        "formula": "".join(f"{symbol}{n:g}" if n != 1 else symbol for symbol, n in sorted(counts.items())),
        "natoms": len(structure),
        "natoms_primitive": len(analyzer.find_primitive() or structure),
        "volume_per_atom": structure.volume / len(structure),
        "min_distance": min(nearest),
        "mean_nearest": float(np.mean(nearest)),
        "spacegroup": analyzer.get_space_group_number(),
    }


def problems(row: Row, found: Answer) -> list[str]:
    """What is not as the row says."""
    allowed = {row["expected"], *row["also_ok"].split("|")} - {""}
    became = "reject" if found.rejection else "accept"
    if became not in allowed:
        return [f"{became}, not {row['expected']}: {found.rejection or found.facts}"]
    if found.rejection is not None:
        return list(_wrong_rejection(row, found.rejection))
    return list(_wrong_facts(row, found.facts))


def _wrong_rejection(row: Row, rejection: Rejection) -> Any:
    if row["reason"] and rejection.reason not in row["reason"].split("|"):
        yield f"reason {rejection.reason}, not {row['reason']}"
    if row["message"] and not re.search(row["message"], rejection.detail):
        yield f"the sentence {rejection.detail!r} lacks {row['message']}"


def _wrong_facts(row: Row, facts: dict[str, Any]) -> Any:
    if row["expected"] != "accept" and not row["formula"]:
        return
    for key in ("formula", "natoms", "natoms_primitive", "spacegroup"):
        if row[key] and str(facts[key]) != row[key]:
            yield f"{key} {facts[key]}, not {row[key]}"
    for key in ("volume_per_atom", "min_distance", "mean_nearest"):
        if row[key] and abs(facts[key] - float(row[key])) > 2e-3 * float(row[key]):
            yield f"{key} {facts[key]:.4g}, not {row[key]}"
