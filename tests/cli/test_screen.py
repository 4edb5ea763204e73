"""Looking at crystals before anything is computed for them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.chunks import cost
from phononbench_flows.steps import CrystalSize
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"


@pytest.fixture
def crystals(tmp_path, fcc, cu3au) -> Path:
    folder = tmp_path / "[bold]crystals"
    folder.mkdir()
    for name, structure in {
        "a": fcc,
        "b": fcc.get_primitive_structure(),
        "c": cu3au,
        "d": Structure(fcc.lattice, ["Cu", "Cu"], [[0, 0, 0], [0.01, 0, 0]]),
    }.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    (folder / "e\x1b[2J.cif").write_text("nothing")
    return folder


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_line_for_every_crystal_and_counts_that_add_up(crystals, tmp_path):
    result = invoke("screen", crystals, "--csv", tmp_path / "new" / "lines.csv")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{crystals}/a.cif  Cu  4 atoms  Fm-3m (225)  accepted"
    assert lines[1] == f"{crystals}/b.cif  Cu  1 atoms  Fm-3m (225)  duplicate of {crystals}/a.cif"
    assert lines[2].endswith("Cu3Au  4 atoms  Pm-3m (221)  accepted".replace("Cu3Au", lines[2].split("  ")[1]))
    assert "rejected: atoms_too_close: " in lines[3]
    assert "e\\x1b[2J.cif  rejected: unparsable: " in lines[4]
    assert lines[5] == "5 crystals: 2 accepted, 2 rejected, 1 duplicate, 0 known"
    assert "\x1b" not in result.output
    with (tmp_path / "new" / "lines.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["outcome"] for row in rows] == ["accepted", "duplicate", "accepted", "rejected", "rejected"]
    assert rows[1]["duplicate_of"] == rows[0]["file"]


def test_known_crystals_are_those_of_the_reference(crystals, tmp_path, fcc):
    reference = tmp_path / "reference"
    reference.mkdir()
    CifWriter(fcc).write_file(reference / "mp-30.cif")
    result = invoke("screen", crystals, "--reference", reference, "--limit", 2)
    assert result.stdout.count("known as mp-30") == 2


def test_a_dry_run_says_what_is_left_to_compute_and_writes_nothing(crystals, tmp_path):
    out = tmp_path / "results"
    given = ("run", crystals, "--set", "s", "--potential", TOY, "--out", out, "--protocol", "paper")
    expected = sum(cost(CrystalSize(4, "m-3m"), PRESETS["paper"]) for _ in range(2))
    result = invoke(*given, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"2 crystals would be computed: about {expected:.3g} evaluations" in result.stdout
    assert "for relaxation, " in result.stdout
    assert not out.exists()
    assert invoke(*given).exit_code == 0
    with ResultsStore.open(out) as store:
        before = list(store.query({}))
    assert "0 crystals would be computed" in invoke(*given, "--dry-run").stdout
    with ResultsStore.open(out) as store:
        assert list(store.query({})) == before


def test_what_is_too_large_costs_itself_in_every_file_of_many(tmp_path, fcc, cu3au):
    """Through the command, processes for reading and all."""
    texts = [str(CifWriter(each)) for each in (fcc, cu3au)]
    large = f"{texts[0]}# {'x' * 2_000_000}\n"
    with (tmp_path / "field.csv").open("w", newline="") as stream:
        rows = [["1", texts[0]], ["2", f"{texts[0]}# {'x' * 9_000_000}\n"], ["3", texts[1]], ["4", large], ["5", "x"]]
        csv.writer(stream).writerows([["id", "cif"], *rows])
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps({"cif": text}) for text in (texts[0], large, texts[1])))
    frame = '{}\nLattice="3.6 0 0 0 3.6 0 0 0 3.6" Properties=species:S:1:pos:R:3 pbc="T T T"\n{}'
    frames = [
        frame.format(1, "Cu 0 0 0\n"),
        frame.format(300_000, "Cu 0 0 0\n" * 300_000),
        frame.format(1, "Au 0 0 0\n"),
    ]
    (tmp_path / "frames.extxyz").write_text("".join(frames))
    outcomes = {}
    for name in ("field.csv", "lines.jsonl", "frames.extxyz"):
        result = invoke("screen", tmp_path / name, "--csv", tmp_path / "lines.csv")
        assert result.exit_code == 0, result.output
        with (tmp_path / "lines.csv").open(newline="") as stream:
            outcomes[name] = [row["reason"] or row["outcome"] for row in csv.DictReader(stream)]
    assert outcomes == {
        "field.csv": ["accepted", "file_too_large", "accepted", "file_too_large", "unparsable"],
        "lines.jsonl": ["accepted", "file_too_large", "accepted"],
        "frames.extxyz": ["accepted", "file_too_large", "accepted"],
    }


LOOK = """
import json, sys
from typer.testing import CliRunner
from phononbench_flows.cli import app
result = CliRunner().invoke(app, sys.argv[1:])
heavy = [name for name in ("torch", "pymatgen", "jobflow", "pymongo", "scipy") if name in sys.modules]
print(json.dumps([result.exit_code, heavy]))
"""


def imported(*arguments: object) -> tuple[int, list[str]]:
    """Exit code of a command in a fresh process, and what heavy it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    code, heavy = json.loads(done.stdout.splitlines()[-1])
    return code, heavy


def test_screening_needs_no_torch(crystals):
    code, heavy = imported("screen", crystals)
    assert code == 0
    assert "pymatgen" in heavy
    assert not {"torch", "jobflow"} & set(heavy)


@pytest.mark.parametrize(
    "wrong",
    [
        ("nowhere",),
        ("--set", "../x"),
        ("--condition", "x"),
        ("--about", "nonsense=1"),
        ("--potential", "nobody"),
        ("--protocol", "none"),
        ("--setting", "x"),
        ("--retry", "x"),
        ("--device", "gpu"),
        ("--reference", "nowhere"),
    ],
    ids=lambda wrong: wrong[0],
)
def test_mistakes_are_told_before_anything_heavy_is_imported(crystals, wrong):
    assert imported("run", crystals, "--set", "s", *wrong, "--potential", "sevennet-0", *wrong) == (2, [])
