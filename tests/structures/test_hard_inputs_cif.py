"""Every CIF among the hard inputs, as its row in ``expected.csv`` says."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import spglib
from pymatgen.core import Structure

from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import Parsed, Rejection, check, parse, read_inputs

CIF_TABLES = {"not_finite/cif-cell.csv", "tables/latin1.csv"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "expected.csv").open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["file"].endswith(".cif") or row["file"] in CIF_TABLES]


def judged(data: bytes) -> Parsed | Rejection:
    parsed = parse("cif", data)
    if isinstance(parsed, Rejection):
        return parsed
    return check(parsed.structure, ScreeningSettings(), None) or parsed


def formula(structure: Structure) -> str:
    """Reduced, in alphabetical order."""
    reduced = structure.composition.get_reduced_composition_and_factor()[0]
    return "".join(f"{e}{round(n) if n != 1 else ''}" for e, n in sorted((str(e), n) for e, n in reduced.items()))


def facts(structure: Structure) -> dict[str, object]:
    """The columns of a row that say which crystal it is."""
    cell = (structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers)
    nearest = [min(n.nn_distance for n in neighbors) for neighbors in structure.get_all_neighbors(6)]
    dataset = spglib.get_symmetry_dataset(cell, symprec=0.01)
    return {
        "formula": formula(structure),
        "natoms": len(structure),
        "natoms_primitive": len(spglib.find_primitive(cell, symprec=0.01)[2]),
        "volume_per_atom": pytest.approx(structure.volume / len(structure), abs=2e-3),
        "min_distance": pytest.approx(min(nearest), abs=2e-3),
        "mean_nearest": pytest.approx(float(np.mean(nearest)), abs=2e-3),
        "spacegroup": dataset.number,
    }


def complaint(row: dict[str, str], found: Parsed | Rejection) -> str | None:
    """What is wrong about what became of the row, if something is."""
    # A duplicate of another crystal is read like that one; telling so is not the parser's.
    right = {row["expected"].replace("duplicate_of", "accept"), row["also_ok"]}
    if isinstance(found, Rejection):
        if "reject" not in right:
            return f"rejected: {found}"
        if row["expected"] == "reject" and row["reason"] and found.reason.value not in row["reason"].split("|"):
            return f"another reason: {found}"
        if row["message"] and not re.search(row["message"], found.detail):
            return f"another message: {found}"
        return None
    if "accept" not in right:
        return f"accepted as {found.structure.formula}"
    if not row["formula"]:
        return None
    known = facts(found.structure)
    wanted = {
        key: value
        if key == "formula"
        else int(value)
        if key in {"natoms", "natoms_primitive", "spacegroup"}
        else float(value)
        for key, value in ((key, row[key]) for key in known)
    }
    return None if known == wanted else f"{known}, not {wanted}"


@pytest.mark.shared
def test_every_row_is_as_expected(shared_data: Path) -> None:
    folder = shared_data / "hard_inputs"
    read: dict[str, list[Parsed | Rejection]] = {}
    wrong, kinds = {}, Counter()
    for row in rows(folder):
        name, crystal = row["file"], int(row["crystal"] or 1)
        if name not in read:
            raws = (
                [(folder / name).read_bytes()]
                if name.endswith(".cif")
                else [raw.data for raw in read_inputs([folder / name])]
            )
            read[name] = [judged(data) for data in raws]
        kinds[row["kind"]] += 1
        found = complaint(row, read[name][crystal - 1])
        if found is not None:
            wrong[name, crystal] = found
    assert wrong == {}
    assert kinds.total() > 100
    assert {"settings", "symmetry_tags", "atoms", "contradictions", "grammar", "cells", "layers"} <= kinds.keys()
