"""Every option with values that nobody means well: exit code 2 and a sentence, at once, and nothing is written."""

from __future__ import annotations

import os
import signal
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_sets import fill
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"
CIF = "data_x\n_cell_length_a 4\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join(f'*{old}' for _ in range(9))}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the table names."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "crystals").mkdir()
    (folder / "crystals" / "a.cif").write_text(CIF)
    (folder / "file").write_text("x")
    for suffix in ("yaml", "zip", "pth", "cif", "csv"):
        os.mkfifo(folder / f"pipe.{suffix}")
        (folder / f"zero.{suffix}").symlink_to("/dev/zero")
    (folder / "bomb.yaml").write_text(BOMB)
    (folder / "deep.yaml").write_text("[" * 100_000)
    (folder / "nested.yaml").write_text("relaxation: " + "{a: " * 400 + "1" + "}" * 400)
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "nan.yaml").write_text("screening: {min_distance: .nan}")
    (folder / "wide.yaml").write_text("force_constants: {supercell: [100000000, 1, 1]}")
    (folder / "digits.yaml").write_text(f"relaxation: {{rounds: {'9' * 5000}}}")
    (folder / "listed.yaml").write_text("preset: [paper]")
    (folder / "step.yaml").write_text("further_steps: {'os:system': {}}")
    (folder / "file.zip").write_bytes(b"PK\x03\x04nothing")
    with zipfile.ZipFile(folder / "climbing.zip", "w") as archive:
        archive.writestr("../../climbed.json", "{}")
        archive.writestr("manifest.json", "{}")
    (folder / "checkpoint.pth").write_bytes(b"\x80\x04cos\nsystem\n")
    for name, text in {"text": b"this is no database", "cut": b"SQLite format 3\0" + bytes(80)}.items():
        (folder / name).mkdir()
        (folder / name / "results.sqlite").write_bytes(text)
    for name, statement in {
        "older": "PRAGMA user_version = 1",
        "newer": "PRAGMA user_version = 99",
        "foreign": "CREATE TABLE cats (name TEXT)",
    }.items():
        (folder / name).mkdir()
        with sqlite3.connect(folder / name / "results.sqlite") as connection:
            connection.execute(statement)
    with ResultsStore.open(folder / "good") as store:
        fill(store)
    with ResultsStore.open(folder / "rotten") as store:
        fill(store)
    with sqlite3.connect(folder / "rotten" / "results.sqlite") as connection:
        connection.execute("UPDATE documents SET document = substr(document, 1, 40)")
    with ResultsStore.open(folder / "strange") as store:
        fill(store)
    with sqlite3.connect(folder / "strange" / "results.sqlite") as connection:
        connection.execute("""UPDATE documents SET document = json_set(document, '$.id', '../../x', '$.status', 7)""")
    return folder


class HangsError(BaseException):
    """Nothing that a command may take for a file's fault."""


def _give_up(*_: object) -> None:
    raise HangsError


@pytest.fixture(autouse=True)
def at_once(place, monkeypatch) -> Iterator[None]:
    """A command that hangs is ended."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)


RUN = ("run", "crystals", "--set", "x", "--potential", TOY, "--out", "out")
LONG = "a" * 5000
FILES = ("nowhere.yaml", "pipe.yaml", "zero.yaml", "bomb.yaml", "deep.yaml", "binary.yaml", "crystals")
STORES = (
    "rotten",
    "strange",
    "nowhere",
    "file",
    "crystals",
    "/dev/zero",
    "text",
    "cut",
    "older",
    "newer",
    "foreign",
    "mongodb://u:p@h/x",
)

TABLE: list[tuple[tuple[str, ...], str, tuple[str, ...]]] = [
    (("run", "--set", "x", "--potential", TOY), "INPUTS", ("nowhere", LONG, "a\0b", "\udcff")),
    (("screen",), "INPUTS", ("nowhere", LONG, "a\0b", "\x1b[2J")),
    (RUN, "--set", ("", "../x", "a/b", "a\nb", "[bold]", ".", "\udcff", "a" * 41, "x\0")),
    (RUN, "--condition", ("gap", "=1", "a b=1", "gap=1e999", f"gap={'9' * 40}", f"gap=-{'9' * 400}", "gap=\udcff")),
    (RUN, "--about", ("nonsense=1", "parameters=-1", "n_generated=x", "condition=1", *FILES)),
    (
        RUN,
        "--potential",
        ("nobody", "", "a:b", "os:system", ":", "mace:nowhere", "pipe.pth", "zero.pth", "[red]", LONG),
    ),
    (RUN, "--setting", ("x", "=1", "nosuch=1", "nosuch=[1]", f"nosuch={'9' * 5000}")),
    (
        RUN,
        "--protocol",
        (
            *FILES,
            "none",
            "file",
            "nan.yaml",
            "nested.yaml",
            "wide.yaml",
            "digits.yaml",
            "listed.yaml",
            "step.yaml",
            LONG,
        ),
    ),
    (RUN, "--out", ("file", "file/below", "/dev/null", "/dev/null/x", "a\0b")),
    (RUN, "--reference", ("nowhere", "a\0b")),
    (RUN, "--limit", ("0", "-1", "x", "1e3", "nan")),
    (RUN, "--retry", ("nonsense", "", "stable")),
    (RUN, "--device", ("gpu", "", "cuda:", "cuda:x", "cpu;rm")),
    (RUN, "--batch-atoms", ("0", "-5", "x", "nan")),
    (("screen", "crystals"), "--protocol", FILES),
    (("screen", "crystals"), "--reference", ("nowhere",)),
    (("screen", "crystals"), "--limit", ("0", "x")),
    (("screen", "crystals"), "--csv", ("crystals", "file/below", "/dev/null/x", "pipe.csv", "a\0b")),
    (("judge", "--potential", TOY), "INPUTS", ("nowhere",)),
    (("judge", "crystals"), "--potential", ("nobody", "zero.pth", "pipe.pth")),
    (("judge", "crystals", "--potential", TOY), "--device", ("gpu",)),
    (("judge", "crystals", "--potential", TOY), "--setting", ("x", "nosuch=1")),
    (("judge", "crystals", "--potential", TOY), "--protocol", ("none", "bomb.yaml")),
    (("judge", "crystals", "--potential", TOY), "--batch-atoms", ("0",)),
    (("judge", "crystals", "--potential", TOY), "--save", ("file", "file/below")),
    (("protocol",), "PROTOCOL", ("none", *FILES)),
    (("potentials", "fetch"), "NAME", ("nobody", "", "[red]", LONG)),
    *((command, "RESULTS", STORES) for command in [("query",), ("show", "x"), ("report", "--out", "page")]),
    (("migrate",), "RESULTS", STORES[2:]),
    (
        ("query", "good"),
        "--where",
        ("{", "[]", "null", '{"$where": "1"}', '{"a": {"$regex": "("}}', '{"$nonsense": 1}'),
    ),
    (("query", "good"), "--nelements", ("x", "3:1", "-1", "1:2:3", "9" * 5000)),
    (("query", "good"), "--natoms", ("x", "5:1")),
    (("query", "good"), "--elements", ("Xx", "O,,", "[red]")),
    (("query", "good"), "--any-of", ("Xx",)),
    (("query", "good"), "--none-of", ("Xx",)),
    (("query", "good"), "--only", ("Xx",)),
    (("query", "good"), "--status", ("nonsense",)),
    (("query", "good"), "--reason", ("nonsense",)),
    (("query", "good"), "--crystal-system", ("nonsense",)),
    (("query", "good"), "--space-group", ("0", "231", "nonsense")),
    (("query", "good"), "--condition", ("gap", "gap=1e999")),
    (("query", "good", "--status", "stable"), "--threshold", ("nan", "inf", "x", "1")),
    (("query", "good"), "--format", ("pickle", "cif")),
    (("query", "good"), "--limit", ("0", "x")),
    (("query", "good", "--format", "csv"), "--out", ("crystals", "file/below", "pipe.csv", "a\0b")),
    (("query", "good", "--format", "cif"), "--out", ("file", "file/below", "pipe.csv")),
    (
        (
            "show",
            "--",
        ),
        "ID",
        ("nobody", "../../x", "\x1b[2J", LONG),
    ),
    (("show", "A-1", "good"), "--figures", ("file", "file/below")),
    (("report", "good"), "--out", ("file", "file/below", "/dev/null")),
    (("report", "good", "--out", "page"), "--set", ("nobody", "../x")),
    (("report", "good", "--out", "page"), "--protocol", ("nobody",)),
    (("report", "good", "--out", "page"), "--bands", ("-1", "x")),
    (("pack", "good", "--set", "A"), "--out", ("crystals", "file/below", "pipe.zip")),
    (("pack", "good", "--out", "x.zip"), "--set", ("nobody", "../x")),
    (("pack", "good", "--set", "A", "--out", "x.zip"), "--protocol", ("none", *FILES)),
    (("pack", "--set", "x", "--out", "x.zip"), "RESULTS", STORES),
    (("verify",), "FILE", ("nowhere.zip", "file", "file.zip", "crystals", "pipe.zip", "zero.zip", "climbing.zip")),
    (("unpack",), "FILE", ("nowhere.zip", "file", "file.zip", "crystals", "pipe.zip", "zero.zip", "climbing.zip")),
]
CASES = [
    pytest.param(
        (*command, *(() if option.isupper() else (option,)), value), id=f"{command[0]} {option} {value[:20]!r}"
    )
    for command, option, values in TABLE
    for value in values
]


@pytest.mark.parametrize("arguments", CASES)
def test_ends_with_a_sentence(arguments, place):
    before = {path for path in place.rglob("*") if not path.name.startswith("results.sqlite-")}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.strip()
    assert "Traceback" not in result.output
    assert "\x1b[2J" not in result.output
    made = {path for path in place.rglob("*") if not path.name.startswith("results.sqlite-")} - before
    assert not made, made
