"""All of the hard inputs that are not about CIF itself, duplicates or second runs, each as ``expected.csv`` says."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hard_inputs import Read, Row, answer, problems, rows_of
from samples import parse_structure

from phononbench_flows.structures import InputError, RawCrystal, read_inputs

KINDS = {
    "poscar",
    "poscar_names",
    "compressed",
    "generators",
    "tables",
    "archives",
    "names",
    "not_finite",
    "contradictory_data",
    "hostile",
}


@pytest.fixture(scope="module")
def hard_inputs(shared_data: Path) -> Path:
    return shared_data / "hard_inputs"


@pytest.fixture(scope="module")
def hostile(hard_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    subprocess.run([sys.executable, hard_inputs / "make_hostile.py", folder], check=True)
    return folder


def _read(paths: list[Path]) -> list[RawCrystal] | InputError:
    try:
        return list(read_inputs(paths))
    except InputError as error:
        return error


def _raws_of(row: Row, read: list[RawCrystal], path: Path) -> list[RawCrystal]:
    """Those crystals of a file that the row is about."""
    of_file = [raw for raw in read if raw.source.startswith((f"{path}#", f"{path}!")) or raw.source == str(path)]
    return of_file[int(row["crystal"]) - 1 : int(row["crystal"])] if row["crystal"] else of_file


def test_every_row(hard_inputs: Path, hostile: Path) -> None:
    rows = rows_of(hard_inputs, KINDS)
    by_input: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_input[row["input"] or row["file"]].append(row)
    wrong = []
    for given, about in by_input.items():
        read = _read([_path(part, hard_inputs, hostile) for part in given.split("|")])
        if isinstance(read, InputError):
            wrong += [f"{row['file']}: {read}" for row in about if row["expected"] != "format_refused"]
            continue
        assert len({raw.label for raw in read}) == len(read)
        assert all(raw.source.isprintable() for raw in read)
        if len(read) != len(about):
            wrong.append(f"{given}: {len(read)} crystals, not {len(about)}: {[raw.source for raw in read]}")
        for row in about:
            raws = _raws_of(row, read, _path(row["file"], hard_inputs, hostile))
            if len(raws) != 1:
                wrong.append(f"{row['file']}: {len(raws)} crystals")
                continue
            raw = raws[0]
            parsed: Read = (raw, raw.rejection or parse_structure(raw.format, raw.data))
            wrong += [f"{row['file']} {row['crystal']}: {problem}" for problem in problems(row, answer(parsed[1]))]
    assert not wrong, "\n".join(wrong)


def _path(name: str, hard_inputs: Path, hostile: Path) -> Path:
    return hostile / name.removeprefix("@hostile/") if name.startswith("@hostile/") else hard_inputs / name


def test_pickle_is_refused_with_a_sentence(hard_inputs: Path) -> None:
    with pytest.raises(InputError, match=r"pickle.*CIF, extxyz, JSON or CSV"):
        read_inputs([hard_inputs / "generators" / "structures.pkl"])
