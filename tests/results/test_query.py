"""Questions to a store: the filters, the command, and what docs/query.md says of both."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import pandas as pd
import pytest
import synthetic
from pymatgen.core import Structure
from servers import GIVEN_URI
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.results.query import CrystalQuery, QueryError, Range, criteria, parse_where
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.connection import client

PAGE = (Path(__file__).parents[2] / "docs" / "query.md").read_text()
DATABASE = "phononbench_test_readme"
Row = dict[str, Any]


def filled(path: Path, number: int) -> Path:
    """So many crystals, some of which are as the page has them."""
    changes = {
        "Alpha-00000": {"condition": {"band_gap": 1.5}},
        "Alpha-00003": {"symmetry_relaxed": {"crystal_system": "Cubic", "number": 225}, "formula_pretty": "NaCl"},
    }
    with synthetic.fill(path, number) as store:
        for crystal_id, change in changes.items():
            [row] = store.query({"id": crystal_id})
            store.put(CalculationDocument.model_validate(row | change))
        row = next(store.query({"status": "unstable"}))
        row["relaxation"]["steps"] = 700
        store.put(CalculationDocument.model_validate(row))
        row = next(store.query({"status": "unstable", "relaxation.steps": 40}))
        row["evidence"]["looks"]["path"]["frequency"] = 0.0  # as if it had been judged elsewhere
        store.put(CalculationDocument.model_validate(row))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return filled(tmp_path_factory.mktemp("query"), 400)


@pytest.fixture(scope="module")
def store(folder) -> Iterator[ResultsStore]:
    with ResultsStore.open(folder) as found:
        yield found


def asked(folder: Path, *arguments: object):
    return CliRunner().invoke(app, ["query", str(folder), *map(str, arguments)])


def judged(row: Row) -> bool:
    return row["status"] in {"stable", "unstable"}


def lowest(row: Row) -> float:
    return row["minimum"]["frequency"]


def on_path(row: Row) -> float:
    return row["evidence"]["looks"]["path"]["frequency"]


QUESTIONS: list[tuple[CrystalQuery, Callable[[Row], bool]]] = [
    (CrystalQuery(), lambda row: True),
    (
        CrystalQuery(statuses=["stable"], sets=["Alpha"]),
        lambda row: row["status"] == "stable" and row["set"] == "Alpha",
    ),
    (CrystalQuery(statuses=["failed", "known"]), lambda row: row["status"] in {"failed", "known"}),
    (CrystalQuery(sets=["Alpha", "Beta"]), lambda row: row["set"] in {"Alpha", "Beta"}),
    (CrystalQuery(protocols=[synthetic.PROTOCOL_ID]), lambda row: True),
    (CrystalQuery(protocols=["another"]), lambda row: False),
    (CrystalQuery(all_of=["O", "Fe"]), lambda row: {"O", "Fe"} <= set(row["elements"])),
    (CrystalQuery(any_of=["O", "Fe"]), lambda row: bool({"O", "Fe"} & set(row["elements"]))),
    (CrystalQuery(none_of=["O", "Fe"]), lambda row: not {"O", "Fe"} & set(row["elements"])),
    (
        CrystalQuery(only=["O", "Fe", "Li", "U"]),
        lambda row: bool(row["elements"]) and set(row["elements"]) <= {"O", "Fe", "Li", "U"},
    ),
    (
        CrystalQuery(all_of=["O"], none_of=["F"], nelements=Range(2, 3)),
        lambda row: "O" in row["elements"] and "F" not in row["elements"] and 2 <= row["nelements"] <= 3,
    ),
    (CrystalQuery(natoms=Range(None, 4)), lambda row: row.get("nsites") is not None and row["nsites"] <= 4),
    (CrystalQuery(natoms=Range(9, None)), lambda row: row.get("nsites") is not None and row["nsites"] >= 9),
    (CrystalQuery(natoms=Range(5, 5)), lambda row: row.get("nsites") == 5),
    (
        CrystalQuery(crystal_systems=["cubic", "triclinic"]),
        lambda row: (row.get("symmetry_relaxed") or {}).get("crystal_system") in {"Cubic", "Triclinic"},
    ),
    (
        CrystalQuery(space_groups=["Pnma", 194]),
        lambda row: (row.get("symmetry_relaxed") or {}).get("number") in {62, 194},
    ),
    (CrystalQuery(formulas=["Fe", "Li2"]), lambda row: row.get("formula_pretty") in {"Fe", "Li"}),
    (CrystalQuery(reasons=["unparsable"]), lambda row: row.get("reason") == "unparsable"),
    (CrystalQuery(condition={"band_gap": 1.5}), lambda row: row["condition"] == {"band_gap": 1.5}),
    (CrystalQuery(statuses=["stable"], threshold=-0.1), lambda row: judged(row) and not lowest(row) < -0.1),
    (CrystalQuery(statuses=["unstable"], threshold=-0.1), lambda row: judged(row) and lowest(row) < -0.1),
    (CrystalQuery(published="stable"), lambda row: judged(row) and not on_path(row) < -1e-3),
    (
        CrystalQuery(published="unstable", statuses=["unstable"], where={"nsites": {"$lt": 4}}),
        lambda row: row["status"] == "unstable" and on_path(row) < -1e-3 and row["nsites"] < 4,
    ),
    (
        CrystalQuery(disputed=True),
        lambda row: judged(row) and (row["status"] == "stable") is (on_path(row) < -1e-3),
    ),
    (
        CrystalQuery(statuses=["failed", "stable"], threshold=-1e-5),
        lambda row: row["status"] == "failed" or (judged(row) and not lowest(row) < -1e-5),
    ),
    (
        CrystalQuery(statuses=["stable"], where={"$or": [{"set": "Beta"}, {"nsites": {"$lt": 4}}]}),
        lambda row: row["status"] == "stable" and (row["set"] == "Beta" or row["nsites"] < 4),
    ),
]


@pytest.mark.parametrize(("question", "meant"), QUESTIONS, ids=range(len(QUESTIONS)))
def test_a_filter_finds_what_is_meant(store, question, meant):
    rows = list(store.query())
    expected = [row["id"] for row in rows if meant(row)]
    assert [row["id"] for row in store.query(criteria(question))] == expected
    if question.protocols != ["another"]:
        assert expected


def test_the_protocols_own_threshold_changes_nothing(store):
    own = synthetic.PROTOCOL.judgement.threshold
    for status in ("stable", "unstable"):
        again = criteria(CrystalQuery(statuses=[status], threshold=own))
        assert store.count(again) == store.count({"status": status}) > 0


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (CrystalQuery(statuses=["steady"]), "no status 'steady'"),
        (CrystalQuery(reasons=["bad luck"]), "no reason"),
        (CrystalQuery(crystal_systems=["Cubic"]), "no crystal system"),
        (CrystalQuery(all_of=["Xx"]), "no element 'Xx'"),
        (CrystalQuery(any_of=[""]), "no element ''"),
        (CrystalQuery(none_of=["o"]), "no element 'o'"),
        (CrystalQuery(only=["O", "Q"]), "no element 'Q'"),
        (CrystalQuery(space_groups=["231"]), "no space group"),
        (CrystalQuery(space_groups=["Fmm"]), "no space group"),
        (CrystalQuery(formulas=["NaCl("]), "no chemical formula"),
        (CrystalQuery(formulas=["Xx2"]), "no element"),
        (CrystalQuery(threshold=-0.1), "needs one verdict"),
        (CrystalQuery(statuses=["stable", "unstable"], threshold=-0.1), "needs one verdict"),
        (CrystalQuery(statuses=["stable"], threshold=0.1), "makes no sense"),
        (CrystalQuery(published="undecided"), "no verdict of the published rule 'undecided'"),
        (CrystalQuery(where={"$where": "1"}), r"may not contain \$where"),
        (CrystalQuery(where={"$or": [{"a": 1}, {"b": {"$not": {"$function": {}}}}]}), r"may not contain \$function"),
        (CrystalQuery(where={"$expr": {"$eq": [1, 1]}}), r"may not contain \$expr"),
    ],
)
def test_what_cannot_be_asked(question, words):
    with pytest.raises(QueryError, match=words):
        criteria(question)


def test_ranges():
    read = {text: Range.parse(text) for text in ("3", "2:4", ":20", "8:", "5:5")}
    assert read == {
        "3": Range(3, 3),
        "2:4": Range(2, 4),
        ":20": Range(None, 20),
        "8:": Range(8, None),
        "5:5": Range(5, 5),
    }
    for text in ("", ":", "a", "4:2", "-3", "1:2:3", "2.5"):
        with pytest.raises(QueryError):
            Range.parse(text)


@pytest.mark.parametrize("text", ["{", "[]", "1", "status=stable"])
def test_a_filter_that_is_none(text):
    with pytest.raises(QueryError, match="JSON"):
        parse_where(text)


# -- the command -----------------------------------------------------------------------------------------------


def test_a_table_for_the_terminal(folder):
    result = asked(folder, "--status", "stable", "--limit", 3)
    assert result.exit_code == 0, result.output
    assert result.output.count("Alpha-") == 3
    assert "3 of " in result.output
    assert "50 of 400 crystals" in asked(folder).output


def test_csv_has_no_formula(folder):
    result = asked(folder, "--status", "failed", "--format", "csv")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert {row["detail"] for row in rows} == {"'=cmd|' /C'!A0"}
    assert {row["status"] for row in rows} == {"failed"}


def test_json_lines_hold_everything(folder, store, tmp_path):
    out = tmp_path / "new" / "all.jsonl"
    assert asked(folder, "--format", "jsonl", "--out", out).exit_code == 0
    lines = out.read_text().splitlines()
    assert [CalculationDocument.model_validate_json(line) for line in lines] == list(store.documents(sort={"id": 1}))


def test_parquet(folder, store, tmp_path):
    out = tmp_path / "all.parquet"
    assert asked(folder, "--format", "parquet", "--out", out).exit_code == 0
    table = pd.read_parquet(out)
    assert len(table) == 400
    by_id = table.set_index("id")["min_frequency_judged_thz"].dropna().to_dict()
    assert by_id == {row["id"]: lowest(row) for row in store.query() if judged(row)}


def test_parquet_without_pyarrow(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = asked(folder, "--format", "parquet", "--out", tmp_path / "all.parquet")
    assert result.exit_code == 2
    assert "pyarrow" in result.output


def test_structures(folder, store, tmp_path):
    cifs, frames = tmp_path / "cifs", tmp_path / "all.extxyz"
    result = asked(folder, "--set", "Alpha", "--format", "cif", "--out", cifs)
    assert result.exit_code == 0, result.output
    assert asked(folder, "--set", "Alpha", "--format", "extxyz", "--out", frames).exit_code == 0
    documents = {document.id: document for document in store.documents({"set": "Alpha"}, sort={"id": 1})}
    given = {crystal.id: crystal.structure for crystal in store.crystals(documents)}
    with_structure = [name for name in documents if given[name]]
    assert len(with_structure) > sum(document.relaxed_structure is not None for document in documents.values())
    assert f"{len(documents) - len(with_structure)} of them without a structure" in result.output
    assert sorted(path.stem for path in cifs.iterdir()) == with_structure
    images = ase.io.read(frames, ":")
    assert [atoms.info["id"] for atoms in images] == with_structure
    name = next(name for name in with_structure if documents[name].status == "stable")
    relaxed = Structure.from_dict(documents[name].relaxed_structure)
    assert len(Structure.from_file(cifs / f"{name}.cif")) == len(relaxed)
    [atoms] = [image for image in images if image.info["id"] == name]
    assert atoms.info["lowest_frequency_thz"] == documents[name].minimum.frequency
    assert atoms.cell.cellpar() == pytest.approx([*relaxed.lattice.abc, *relaxed.lattice.angles])
    name = next(name for name in with_structure if documents[name].status == "failed")  # shown as it was read
    as_read = Structure.from_dict(given[name])
    assert Structure.from_file(cifs / f"{name}.cif").matches(as_read)
    [atoms] = [image for image in images if image.info["id"] == name]
    assert not atoms.info["relaxed"]
    assert atoms.cell.cellpar() == pytest.approx([*as_read.lattice.abc, *as_read.lattice.angles])
    again = asked(folder, "--format", "cif", "--out", cifs)
    assert again.exit_code == 2
    assert "is not empty" in again.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "cif"], "--out"),
        (["--out", "table.txt"], "--format"),
        (["--where", "{"], "JSON"),
        (["--status", "good"], "no status"),
        (["--nelements", "two"], "no range"),
    ],
)
def test_mistakes_end_with_a_sentence(folder, arguments, words):
    result = asked(folder, *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_no_store_is_made_by_asking(tmp_path):
    result = asked(tmp_path / "nothing")
    assert result.exit_code == 2
    assert "no results" in result.output
    assert not (tmp_path / "nothing").exists()


def test_the_help_is_quick():
    code = "import sys, phononbench_flows.cli; assert not {'pandas', 'pymatgen', 'plotly'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- the page ------------------------------------------------------------------------------------------------

ASKED = re.findall(r"^\| `(-.+?)` \| `(\{.+\})` \|$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def both(tmp_path_factory, mongo_server_uri) -> Iterator[tuple[Path, str]]:
    """The same crystals in a directory and on a server."""
    path = filled(tmp_path_factory.mktemp("readme"), 120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHONONBENCH_MONGO_URI", mongo_server_uri)
        with ResultsStore.open(path) as source, ResultsStore.open(f"mongo:{DATABASE}") as target:
            target.put_crystals(*source.crystals(source.distinct("id")))
            target.put(*source.documents())
        yield path, f"mongo:{DATABASE}"
        if GIVEN_URI:  # ours takes its files along
            client().drop_database(DATABASE)


def test_the_readme_asks():
    assert len(ASKED) == 13


@pytest.mark.parametrize(("command", "given"), ASKED, ids=[command for command, _ in ASKED])
def test_the_readmes_queries_find_the_same_everywhere(both, command, given):
    filter_given = json.loads(given.replace("MyModel", "Alpha"))
    expected = sorted(row["id"] for row in client()[DATABASE].calculations.find(filter_given))
    assert 0 < len(expected) < 120
    with ResultsStore.open(both[0]) as embedded:
        assert sorted(row["id"] for row in embedded.query(filter_given)) == expected
    for where in both:
        result = asked(where, *shlex.split(command.replace("MyModel", "Alpha")), "--format", "jsonl")
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == expected
