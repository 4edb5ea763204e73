"""Every option with values that nobody means well: exit code 2 and a sentence, at once, and nothing is written."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jobflow
import pytest
import typer
from _pytest.mark import ParameterSet
from made_sets import fill
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"
CIF = "data_x\n_cell_length_a 4\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join(f'*{old}' for _ in range(9))}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

# A server that is waited for, if it is asked at all.
AWAY = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=60000"
PADS = {
    "host-none": "port: 27017",
    "host-list": "host: [localhost]",
    "host-empty": "host: ''",
    "host-space": "host: a b",
    "host-escape": r'host: "\e[2J"',
    "host-half": r'host: "\ud800"',
    "host-long": f"host: {'a' * 300}",
    "host-uri": "host: 'mongodb://['",
    "host-user": "host: 'mongodb://me:p@ss/w:rd@h/'",
    "port-large": "{host: localhost, port: 99999}",
    "port-nan": "{host: localhost, port: .nan}",
    "port-text": "{host: localhost, port: '27017'}",
    "name-slash": "{host: localhost, name: ../x}",
    "name-zero": r'{host: localhost, name: "a\0b"}',
    "name-map": "{host: localhost, name: {$ne: 1}}",
    "user": "{host: localhost, username: 7}",
    "password": "{host: localhost, password: 7}",
    "level": "{host: localhost, strm_lvl: LOUD}",
    "log-nowhere": "{host: localhost, logdir: /nowhere}",
    "log-zero": "{host: localhost, logdir: zero.yaml}",
    "indices": "{host: localhost, user_indices: 7}",
    "uri-bare": "{host: 'mongodb://localhost/', uri_mode: true}",
    "uri-other": "{host: 'http://localhost/', uri_mode: true, name: x}",
    "uri-option": "{host: 'mongodb://localhost/?nonsense=1', uri_mode: true, name: x}",
    "uri-pipe": "{host: 'mongodb://localhost/?tls=true&tlsCAFile=pipe.pth', uri_mode: true, name: x}",
    "further-list": "{host: localhost, mongoclient_kwargs: [1]}",
    "further-nonsense": "{host: localhost, mongoclient_kwargs: {nonsense: 1}}",
    "further-number": "{host: localhost, mongoclient_kwargs: {1: 1}}",
    "further-host": "{host: localhost, mongoclient_kwargs: {host: x}}",
    "further-class": "{host: localhost, mongoclient_kwargs: {document_class: os.system}}",
    "further-time": "{host: localhost, mongoclient_kwargs: {serverSelectionTimeoutMS: x}}",
    "further-zero": "{host: localhost, mongoclient_kwargs: {tls: true, tlsCAFile: zero.pth}}",
    "further-pipe": "{host: localhost, mongoclient_kwargs: {tls: true, tlsCertificateKeyFile: pipe.pth}}",
}
WORKERS = {
    "worker-unnamed": "{category: gpu, query: '{}'}",
    "worker-number": "{name: 7, category: gpu, query: '{}'}",
    "category-number": "{name: x, category: 7, query: '{}'}",
    "category-numbers": "{name: x, category: [7], query: '{}'}",
    "category-half": r'{name: x, category: "\ud800", query: "{}"}',
    "query-none": "{name: x, category: gpu}",
    "query-map": "{name: x, category: gpu, query: {}}",
    "query-half": "{name: x, category: gpu, query: '{'}",
    "query-list": "{name: x, category: gpu, query: '[]'}",
    "query-null": "{name: x, category: gpu, query: 'null'}",
    "query-and": """{name: x, category: gpu, query: '{"$or": [], "$and": 7}'}""",
    "query-digits": f"""{{name: x, category: gpu, query: '{{"a": {"9" * 30}}}'}}""",
    "query-surrogate": """{name: x, category: gpu, query: '{"a": "\\ud800"}'}""",
    "query-zero": """{name: x, category: gpu, query: '{"a\\u0000b": 1}'}""",
    "query-deep": f"{{name: x, category: gpu, query: '{'[' * 100_000}'}}",
    "query-nested": f"""{{name: x, category: gpu, query: '{'{"a": ' * 900}1{"}" * 900}'}}""",
    "env-list": "{name: x, category: gpu, query: '{}', env: [1]}",
    "env-date": "{name: x, category: gpu, query: '{}', env: {a: 2001-02-03}}",
    "env-code": "{name: x, category: gpu, query: '{}', env: !!python/object/apply:os.system [touch climbed]}",
}


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
    for name, text in (PADS | WORKERS).items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "away.yaml").write_text(json.dumps({"host": AWAY, "uri_mode": True, "name": "x"}))
    (folder / "file.zip").write_bytes(b"PK\x03\x04nothing")
    with zipfile.ZipFile(folder / "climbing.zip", "w") as archive:
        archive.writestr("../../climbed.json", "{}")
        archive.writestr("manifest.json", "{}")
    with zipfile.ZipFile(folder / "empty.zip", "w") as archive:
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
    with ResultsStore.open(folder / "good", create=True) as store:
        fill(store)
    with ResultsStore.open(folder / "rotten", create=True) as store:
        fill(store)
    with sqlite3.connect(folder / "rotten" / "results.sqlite") as connection:
        connection.execute("UPDATE documents SET document = substr(document, 1, 40)")
    with ResultsStore.open(folder / "strange", create=True) as store:
        fill(store)
    with sqlite3.connect(folder / "strange" / "results.sqlite") as connection:
        connection.execute("""UPDATE documents SET document = json_set(document, '$.id', '../../x', '$.status', 7)""")
    return folder


class HangsError(BaseException):
    """Nothing that a command may take for a file's fault."""


def _give_up(*_: object) -> None:
    raise HangsError


@pytest.fixture
def at_once(place, monkeypatch) -> Iterator[None]:
    """A command that hangs is ended."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", AWAY)
    monkeypatch.delenv("PHONONBENCH_STORE", raising=False)
    monkeypatch.setattr("phononbench_flows.cluster.launchpad.LAUNCHPAD_LOC", None)
    monkeypatch.setattr(jobflow.SETTINGS, "JOB_STORE", jobflow.JobStore(OutputsStore("x")))
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(60)
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
CLUSTER_STORES = (
    "mongo:a/b",
    "mongo:a b",
    "mongo:\udcff",
    "mongo:" + "a" * 64,
    "mongo:x:relative",
    "mongo:x:/dev/null",
    "mongo:x:/dev/zero/below",
    "mongo:x:/a\0b",
    "mongo:x:/\udcff",
    "a\0b",
    "\x1b[2J",
    "~nobody/x",
    LONG,
)
WORDS = ("", "nonsense", "[red]", "a\0b", "\udcff", "\x1b[2J", LONG)
SYMBOLS = ("Xx", "O,,", *WORDS)
BUNDLES = (
    *("nowhere.zip", "file", "file.zip", "crystals", "pipe.zip", "zero.zip", "climbing.zip", "empty.zip"),
    *("", "a\0b", "\udcff", "\x1b[2J", LONG),
)
SECONDS = ("-1", "x", "", "nan", "inf", "-inf", "1e999", "1e300", LONG)
SUBMIT = ("submit", "crystals", "--set", "x", "--potential", TOY, "-l", "away.yaml")
FOLLOW = ("follow", "--set", "A", "--potential", TOY, "--out", "good")
CONFIRM = ("confirm", "good", "--set", "A", "--n", "1", "--write", "w")
IMPORT = ("confirm", "good", "--set", "A", "--import", "file")
SERVE = ("serve", "good", "--port", "0")
ABOUT = ("nonsense=1", "parameters=-1", "n_generated=x", "condition=1", *FILES)
CONDITIONS = ("gap", "=1", "a b=1", "gap=1e999", f"gap={'9' * 40}", f"gap=-{'9' * 400}", "gap=\udcff")
DEVICES = ("gpu", "", "cuda:", "cuda:x", "cpu;rm")
LIMITS = ("0", "-1", "x", "1e3", "nan")
NEW_FILES = ("crystals", "file/below", "/dev/null/x", "pipe.csv", "zero.csv", "a\0b", LONG)
NEW_FOLDERS = ("file", "file/below", "/dev/null", "/dev/null/x", "a\0b", LONG)
POTENTIALS = (
    *("nobody", "", "a:b", "os:system", ":", "mace:nowhere", "pipe.pth", "zero.pth", "nowhere.pth", "~nobody/x.pth"),
    *("[red]", "[/red].pth", "a\0b", "a\0b.pth", "a\0b:c", "\udcff", "\udcff:x", "\x1b[2J", "\x1b[2J.pth", LONG),
)
PROTOCOLS = (
    *FILES,
    "none",
    "file",
    "nan.yaml",
    "nested.yaml",
    "wide.yaml",
    "digits.yaml",
    "listed.yaml",
    "step.yaml",
    "~nobody/x.yaml",
    "a\0b.yaml",
    "\udcff.yaml",
    "\x1b[2J.yaml",
    LONG,
)
NOT_THERE = ("nowhere", "a\0b", "\udcff", "\x1b[2J", "pipe.cif", "zero.cif", LONG)
RETRY = ("nonsense", "", "stable")
SETS = ("", "../x", "a/b", "a\nb", "a\n", "[bold]", ".", "\udcff", "a" * 41, "x\0")
SETTINGS = ("x", "=1", "nosuch=1", "nosuch=[1]", f"nosuch={'9' * 5000}")
PAD_FILES = ("", "file", "nan.yaml", "file.zip", "a\0b", LONG, *FILES, *(f"{name}.yaml" for name in PADS))
WORKER_FILES = ("", "file", "nan.yaml", "file.zip", "a\0b", LONG, *FILES, *(f"{name}.yaml" for name in WORKERS))

TABLE: list[tuple[tuple[str, ...], str, tuple[str, ...]]] = [
    (("run", "--set", "x", "--potential", TOY), "INPUTS", NOT_THERE),
    (("screen",), "INPUTS", NOT_THERE),
    (("submit", "--set", "x", "--potential", TOY), "INPUTS", NOT_THERE),
    *(
        (command, option, values)
        for command in (RUN, SUBMIT)
        for option, values in {
            "--set": SETS,
            "--condition": CONDITIONS,
            "--about": ABOUT,
            "--potential": POTENTIALS,
            "--setting": SETTINGS,
            "--protocol": PROTOCOLS,
            "--reference": NOT_THERE,
            "--limit": LIMITS,
            "--retry": RETRY,
            "--device": DEVICES,
        }.items()
    ),
    (RUN, "--out", NEW_FOLDERS),
    (RUN, "--batch-atoms", LIMITS),
    (RUN, "--workers", LIMITS),
    (SUBMIT, "--write", NEW_FOLDERS),
    (SUBMIT, "--chunk-cost", ("0", "-5", "x", "nan", "inf", "1e999")),
    (SUBMIT[:-2], "--launchpad", PAD_FILES),
    (SUBMIT, "--store", (*STORES, *CLUSTER_STORES)),
    ((*FOLLOW, "--submit", "-l", "away.yaml"), "--chunk-cost", ("0", "-5", "x", "nan", "inf", "1e999")),
    ((*FOLLOW, "--submit"), "--launchpad", PAD_FILES),
    ((*FOLLOW, "--submit", "-l", "away.yaml"), "--store", (*STORES, *CLUSTER_STORES)),
    (("init-db", "-l", "away.yaml"), "--store", (*STORES, *CLUSTER_STORES)),
    (("init-db",), "--launchpad", PAD_FILES),
    (("launchpad",), "--out", NEW_FILES),
    (("launchpad", "--out", "pad.yaml"), "--store", (*STORES, *CLUSTER_STORES)),
    *((command, "--launchpad", PAD_FILES) for command in (("worker",), ("doctor",), ("janitor",))),
    *(
        ((command, "-l", "away.yaml"), "--store", (*STORES, *CLUSTER_STORES))
        for command in ("worker", "doctor", "janitor")
    ),
    *(((command, "-l", "away.yaml"), "--fworker", WORKER_FILES) for command in ("worker", "doctor")),
    (("worker", "-l", "away.yaml"), "--timeout", SECONDS),
    (("worker", "-l", "away.yaml"), "--idle", SECONDS),
    (("worker", "-l", "away.yaml"), "--folder", NEW_FOLDERS),
    (("janitor", "-l", "away.yaml"), "--every", ("0", *SECONDS)),
    (("janitor", "-l", "away.yaml"), "--lock-seconds", SECONDS),
    (("janitor", "-l", "away.yaml"), "--lost-seconds", SECONDS),
    (("janitor", "-l", "away.yaml"), "--settle-seconds", SECONDS),
    (("worker", "-l", "away.yaml"), "--device", DEVICES),
    (("init",), "DIR", NEW_FOLDERS),
    (("chunks", "-l", "away.yaml"), "--set", SETS),
    (("chunks", "-l", "away.yaml"), "--forget", WORDS),
    (("chunks", "-l", "away.yaml"), "--store", (*STORES, *CLUSTER_STORES)),
    (("chunks",), "--launchpad", PAD_FILES),
    (("status", "-l", "away.yaml", "--store", "mongo"), "--set", SETS),
    (("status", "--store", "good"), "--set", (*SETS, "nobody", LONG)),
    (("status", "--store", "mongo"), "--launchpad", PAD_FILES),
    (("status",), "--store", (*(store for store in STORES if store != "strange"), *CLUSTER_STORES)),
    (("screen", "crystals"), "--protocol", PROTOCOLS),
    (("screen", "crystals"), "--reference", NOT_THERE),
    (("screen", "crystals"), "--limit", LIMITS),
    (("screen", "crystals"), "--csv", NEW_FILES),
    (("judge", "--potential", TOY), "INPUTS", NOT_THERE),
    (("judge", "crystals"), "--potential", POTENTIALS),
    (("judge", "crystals", "--potential", TOY), "--device", DEVICES),
    (("judge", "crystals", "--potential", TOY), "--setting", SETTINGS),
    (("judge", "crystals", "--potential", TOY), "--protocol", PROTOCOLS),
    (("judge", "crystals", "--potential", TOY), "--batch-atoms", LIMITS),
    (("judge", "crystals", "--potential", TOY), "--save", NEW_FOLDERS),
    (("protocol",), "PROTOCOL", PROTOCOLS),
    (("potentials", "fetch"), "NAME", POTENTIALS),
    *((command, "RESULTS", STORES) for command in [("query",), ("show", "x"), ("report", "--out", "page")]),
    (("migrate",), "RESULTS", STORES[2:]),
    (
        ("query", "good"),
        "--where",
        (
            *("{", "[]", "null", '{"$where": "1"}', '{"a": {"$regex": "("}}', '{"$nonsense": 1}', '{"set": "\\ud800"}'),
            *('{"a": ' * 900 + "1" + "}" * 900, "[" * 100_000, "a\0b", "\udcff", LONG),
        ),
    ),
    (("query", "good"), "--nelements", ("", "x", "3:1", "-1", "1:2:3", "9" * 5000)),
    (("query", "good"), "--natoms", ("x", "5:1", "9" * 5000)),
    *(
        (("query", "good"), option, ("Xx", "O,,", *WORDS))
        for option in ("--elements", "--any-of", "--none-of", "--only")
    ),
    *((("query", "good"), option, WORDS) for option in ("--status", "--reason", "--crystal-system", "--published")),
    *((("query", "good"), option, ("\udcff",)) for option in ("--set", "--protocol")),
    (("query", "good"), "--formula", ("", "H1e999", "H1e400", "(((", "[red]", "a\0b", "\udcff", "\x1b[2J", LONG)),
    (("query", "good"), "--space-group", ("0", "231", "9" * 5000, *WORDS)),
    (("query", "good"), "--condition", CONDITIONS),
    (("query", "good", "--status", "stable"), "--threshold", ("nan", "inf", "x", "1", "1e999", "")),
    (("query", "good"), "--format", ("cif", *WORDS)),
    (("query", "good"), "--limit", LIMITS),
    (("query", "good"), "--stable-under", LIMITS),
    (("query", "good"), "--has-child", WORDS),
    (("query", "good", "--format", "csv"), "--step", ("os:system", "no.such:STEP", ":", *WORDS)),
    (("hull", "good"), "--reference", NOT_THERE),
    (("hull", "good"), "--entries", NOT_THERE),
    (("hull", "good", "--entries", "file"), "--write-entries", NEW_FILES),
    (("hull", "good", "--entries", "file"), "--kept", ("mongodb://u:p@h/x", "mongo:a/b", "a\0b")),
    (("hull", "good", "--entries", "file"), "--device", DEVICES),
    (("hull", "good", "--entries", "file"), "--batch-atoms", LIMITS),
    (("hull", "good", "--entries", "file"), "--workers", LIMITS),
    *(
        (command, option, ("nobody", "../x", *WORDS))
        for command in [("hull", "good", "--entries", "file"), ("card", "good"), ("committee", "good")]
        for option in ("--set", "--protocol")
    ),
    (("card", "good"), "--near-hull", ("-1", "x", "nan", "inf", "1e999", "")),
    (("committee", "good"), "--out", NEW_FOLDERS),
    *((command, "RESULTS", STORES) for command in [("card",), ("committee",), ("hull", "--entries", "file")]),
    *(
        (FOLLOW, option, values)
        for option, values in {
            "--set": SETS,
            "--potential": POTENTIALS,
            "--setting": SETTINGS,
            "--protocol": PROTOCOLS,
            "--out": ("file", "file/below", "/dev/null", "a\0b", LONG),
            "--reference": NOT_THERE,
            **dict.fromkeys(("--generations", "--atoms", "--modes", "--children", "--limit"), LIMITS),
            "--device": DEVICES,
            "--batch-atoms": LIMITS,
            "--workers": LIMITS,
        }.items()
    ),
    (("confirm", "--set", "A", "--n", "1", "--write", "w"), "RESULTS", STORES),
    *(
        (CONFIRM, option, values)
        for option, values in {
            "--set": ("nobody", "../x", *WORDS),
            "--n": LIMITS,
            "--by": ("nonsense", "{", '{"a": {"$regex": "("}}'),
            "--where": ("{", "[]", "null", '{"$nonsense": 1}', "a\0b", LONG),
            "--seed": ("x", "1.5", "nan"),
            "--maker": ("nobody", "os.system", "no.such.Maker", "", "a\0b", LONG),
            "--settings": (*FILES, "file", "a\0b", LONG),
            "--write": NEW_FOLDERS,
            "--protocol": PROTOCOLS,
        }.items()
    ),
    (CONFIRM[:-2], "--launchpad", PAD_FILES),
    (("confirm", "good", "--set", "A", "--collect"), "--job-store", (*FILES, "file", "a\0b", LONG)),
    (("confirm", "good", "--set", "A"), "--import", NOT_THERE),
    (IMPORT, "--column", ("x", "id=", "nonsense=1", *WORDS)),
    (CONFIRM, "--potential", POTENTIALS),
    (IMPORT, "--threshold", ("nan", "inf", "x", "1e999", "")),
    # Words to note, of which any will do; the file is no table.
    *(
        (("confirm", "good", "--set", "A", "--import", "file"), each, WORDS)
        for each in ("--functional", "--code", "--as")
    ),
    (("serve", "--port", "0"), "RESULTS", [each for each in STORES if each not in {"rotten", "strange"}]),
    (("serve", "good"), "--host", ("nowhere.invalid", "256.1.1.1", "a b", "a\0b", "\udcff", LONG)),
    (("serve", "good"), "--port", ("-1", "65536", "x", "nan")),
    *(
        ((*SERVE, "--potential", TOY), option, values)
        for option, values in {"--protocol": PROTOCOLS, "--device": DEVICES, "--set": SETS}.items()
    ),
    (SERVE, "--potential", POTENTIALS),
    (SERVE, "--folder", NEW_FOLDERS),
    (("serve", "mongo:x", "--port", "0", "--potential", TOY, "--cluster"), "--launchpad", PAD_FILES),
    *((SERVE, option, LIMITS) for option in ("--max-atoms", "--max-crystals", "--max-waiting")),
    *((SERVE, option, ("0", "-1", "x", "nan", "")) for option in ("--max-megabytes", "--max-minutes")),
    (("query", "good", "--format", "csv"), "--out", NEW_FILES),
    (("query", "good", "--format", "cif"), "--out", ("pipe.csv", *NEW_FOLDERS)),
    (("show",), "ID", ("nobody", "../../x", *WORDS)),
    (("show", "A-1", "good"), "--figures", NEW_FOLDERS),
    (("report", "good"), "--out", NEW_FOLDERS),
    (("report", "good", "--out", "page"), "--set", ("nobody", "../x", *WORDS)),
    (("report", "good", "--out", "page"), "--protocol", ("nobody", *WORDS)),
    (("report", "good", "--out", "page"), "--bands", LIMITS[1:]),
    (("pack", "good", "--set", "A"), "--out", NEW_FILES),
    (("pack", "good", "--out", "x.zip"), "--set", ("nobody", "../x", *WORDS)),
    (("pack", "good", "--set", "A", "--out", "x.zip"), "--protocol", PROTOCOLS),
    (("pack", "good", "--set", "A", "--out", "x.zip"), "--potential", POTENTIALS),
    (("pack", "--set", "x", "--out", "x.zip"), "RESULTS", STORES),
    (("verify",), "FILE", BUNDLES),
    (("unpack", "empty.zip"), "RESULTS", STORES[3:]),
    (("unpack",), "FILE", tuple(bundle for bundle in BUNDLES if bundle != "empty.zip")),
]


def _cases() -> Iterator[ParameterSet]:
    """All of them; what another command was asked already by an option of the same name is slow to ask again."""
    asked: set[tuple[str, str]] = set()
    for command, option, values in TABLE:
        for value in values:
            marks = [pytest.mark.slow] if option.startswith("--") and (option, value) in asked else []
            asked.add((option, value))
            arguments = (*command, *(() if option.isupper() else (option,)), value)
            yield pytest.param(arguments, id=f"{command[0]} {option} {value[:20]!r}", marks=marks)


def _parameters(command: typer.core.TyperCommand, words: tuple[str, ...] = ()) -> Iterator[tuple[str, frozenset[str]]]:
    """Every parameter of a command and of those below it that takes a value, under all of its names."""
    for name, below in getattr(command, "commands", {}).items():
        yield from _parameters(below, (*words, name))
    for each in command.params:
        if each.param_type_name == "argument":
            named = each.metavar or each.name.upper()
            yield " ".join(words), frozenset({named.strip("[]").partition(".")[0]})
        elif not each.is_flag:
            yield " ".join(words), frozenset(each.opts)


@pytest.mark.parametrize(
    ("command", "names"),
    [
        pytest.param(*each, id=" ".join([each[0], *sorted(each[1])]))
        for each in _parameters(typer.main.get_command(app))
    ],
)
def test_every_option_and_argument_is_in_the_table(command, names):
    tried = {(" ".join(words[: len(command.split())]), option) for words, option, _ in TABLE}
    assert any((command, name) in tried for name in names)


def files(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if not path.name.startswith("results.sqlite-")}


def refused(arguments: tuple[str, ...], place: Path) -> str:
    """Run a command that has to end at once with a sentence, which it gives, and to leave nothing behind."""
    before = files(place)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    # In a frame stands what is said of an option that cannot be read at all.
    said = [line for line in result.stderr.splitlines() if line.startswith(("phononbench: ", "╭─ Error"))]
    assert len(said) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == said[0] or result.stderr.splitlines()[-1].startswith("╰")
    assert "Traceback" not in result.output
    assert "\x1b[2J" not in result.output
    made = files(place) - before
    assert not made, made
    return said[0]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("arguments", list(_cases()))
def test_ends_with_a_sentence(arguments, place):
    refused(arguments, place)


ASKING = [
    ("init-db",),
    ("launchpad", "--out", "pad.yaml"),
    (*SUBMIT[:-2],),
    ("worker",),
    ("doctor",),
    ("janitor",),
    ("status",),
    ("query", "mongo"),
]
URIS = (
    "nonsense",
    "http://h/",
    "mongodb://",
    "mongodb://[::/",
    "mongodb://me:secret@[::1/",
    "mongodb://me:sec/ret@h/",
    "mongodb://me:secret@h:99999/",
    "mongodb://me:secret@a b/",
    "mongodb://me:secret@\x1b[2J/",
    f"mongodb://me:secret@{LONG}/",
    "mongodb://me:secret@h../",
    "mongodb://me:secret@h/?nonsense=1",
    "mongodb://me:secret@h/?serverSelectionTimeoutMS=nan",
    "mongodb://me:secret@h/?tls=true&tlsCAFile=pipe.pth",
    "mongodb://me:secret@h/?tls=true&tlsCertificateKeyFile=zero.pth",
)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("arguments", ASKING, ids=lambda arguments: arguments[0])
def test_a_server_that_cannot_be_named_so(arguments, uri, place, monkeypatch):
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", uri)
    assert "secret" not in refused(arguments, place)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("file", [*FILES, "pipe.pth", "file", "~nobody/x", LONG])
@pytest.mark.parametrize("arguments", ASKING, ids=lambda arguments: arguments[0])
def test_a_file_with_the_servers_name_that_is_none(arguments, file, place, monkeypatch):
    monkeypatch.delenv("PHONONBENCH_MONGO_URI")
    monkeypatch.setenv("PHONONBENCH_MONGO_URI_FILE", file)
    refused(arguments, place)
