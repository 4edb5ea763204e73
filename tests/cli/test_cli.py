"""The main job through the command line, with a potential that needs no weights."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.local_workers import FEWEST
from phononbench_flows.potentials import source
from phononbench_flows.protocol import Protocol
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"


@pytest.fixture
def crystals(tmp_path, fcc, cu3au, simple_cubic) -> Path:
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name, structure in {
        "fcc": fcc,
        "fcc_again": fcc.get_primitive_structure(),
        "cu3au": cu3au,
        "simple_cubic": simple_cubic,
        "raises": Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords),
        "nan": Structure(cu3au.lattice, ["Xe"] + ["Cu"] * 3, cu3au.frac_coords),
    }.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a")
    return folder


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with next(folder.rglob("results.csv")).open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_the_main_job(crystals, tmp_path):
    out = tmp_path / "results"
    result = invoke("run", crystals, "--set", "toys", "--potential", TOY, "--out", out, "--condition", "band_gap=1.5")
    assert result.exit_code == 0, result.output
    found = rows(out)
    assert {i.removeprefix("toys-"): (r["status"], r["reason"]) for i, r in found.items()} == {
        "fcc": ("stable", ""),
        "fcc_again": ("duplicate", ""),
        "cu3au": ("stable", ""),
        "simple_cubic": ("unstable", ""),
        "raises": ("failed", "exception"),
        "nan": ("failed", "not_finite"),
        "broken": ("rejected", "unparsable"),
    }
    assert found["toys-fcc_again"]["duplicate_of"] == "toys-fcc"
    assert float(found["toys-simple_cubic"]["min_frequency_path_thz"]) < -1
    assert sorted(p.name for p in out.rglob("*.cif")) == ["toys-cu3au.cif", "toys-fcc.cif"]
    words = " ".join(result.output.split())
    assert "generated │ 7" in words
    assert "stable per relaxed 66.7 %" in words

    again = invoke("run", crystals, "--set", "toys", "--potential", TOY, "--out", out)
    assert again.exit_code == 0
    assert "0 new" in again.output
    assert rows(out) == found

    shown = invoke("show", "toys-simple_cubic", out)
    assert shown.exit_code == 0, shown.output
    assert "unstable" in shown.output
    assert [p.suffix for p in sorted((out / "figures").iterdir())] == [".png"]
    assert "no crystal" in invoke("show", "toys-nobody", out).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere", "--set", "x", "--potential", TOY], "nowhere"),
        (["run", "{crystals}", "--set", "../x", "--potential", TOY], "--set"),
        (["run", "{crystals}", "--set", "x", "--potential", "nobody"], "no potential"),
        (["run", "{crystals}", "--set", "x", "--potential", TOY, "--protocol", "none"], "no protocol"),
        (["run", "{crystals}", "--set", "x", "--potential", TOY, "--condition", "gap"], "KEY=VALUE"),
        (["show", "x", "nowhere"], "nowhere"),
        (["potentials", "fetch", "sevennet-0"], "nothing to download"),
    ],
)
def test_mistakes_end_with_a_sentence(crystals, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = invoke(*(a.format(crystals=crystals) for a in arguments))
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_names_are_shown_as_they_are_and_harmless(crystals, tmp_path):
    (crystals / "[red]x\x1b[31m\u202e.png").write_bytes(b"x")
    out = tmp_path / "[bold]out"
    result = invoke("run", crystals, "--set", "toys", "--potential", TOY, "--out", out)
    assert "ignored: 1 .png ([red]x\\x1b[31m\\u202e.png)" in result.output
    assert f"results: {out}" in result.output
    missing = invoke("run", tmp_path / "[red]no\x1b\n.cif", "--set", "toys", "--potential", TOY, "--out", out)
    assert missing.exit_code == 2
    assert "[red]no\\x1b\\n.cif cannot be found" in missing.output
    assert not {"\x1b", "\u202e"} & set(result.output + missing.output)


def test_without_weights_nothing_is_marked(crystals, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    out = tmp_path / "results"
    result = invoke("run", crystals, "--set", "x", "--out", out)
    assert result.exit_code == 2
    assert "potentials fetch mattersim-v1-5m" in result.output
    assert not out.exists()
    listed = invoke("potentials")
    assert "(default)" in listed.output
    assert "sevennet-l3i5" in listed.output


def test_what_is_not_installed_is_listed_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(source, "find_spec", lambda package: None)
    listed = invoke("potentials")
    assert listed.exit_code == 0
    assert "sevennet-0 needs the package sevenn" in listed.output
    assert "`pip install 'phononbench-flows[sevennet]'`" in listed.output
    assert "orb-v3-conservative-inf-omat" in listed.output


def test_protocols_are_printed_as_files_to_change():
    text = invoke("protocol", "paper").output
    assert Protocol.model_validate(yaml.safe_load(text)).name == "paper"
    assert '"symprec"' in invoke("protocol", "--schema").output


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["protocol", "nosuch"], 2), (["nosuch"], 2)])
def test_exit_codes_and_the_last_words_of_a_process(arguments, code):
    done = subprocess.run(
        [sys.executable, "-m", "phononbench_flows", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert ("phononbench-flows " in done.stdout) == (code == 0)
    assert ("nosuch" in done.stderr) == (code == 2)


@pytest.mark.parametrize(("words", "found"), [("ju", "judge"), ("run --pot", "--potential")])
def test_tab_completes_commands_and_options(words, found):
    asked = {"COMP_WORDS": f"phononbench {words}", "COMP_CWORD": str(len(words.split()))}
    done = subprocess.run(
        [Path(sys.executable).with_name("phononbench")],
        env=os.environ | asked | {"_PHONONBENCH_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [found]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_no_library_is_heard_on_an_ordinary_run(tmp_path, fcc, cu3au, workers):
    for number, structure in enumerate([fcc, cu3au] * FEWEST):  # enough for two processes
        distorted = structure.copy().perturb(0.01, seed=number)
        CifWriter(distorted).write_file(tmp_path / f"{number}.cif")
    arguments = ["run", str(tmp_path), "--set", "toys", "--potential", TOY, "--out", str(tmp_path / "results")]
    arguments += ["--protocol", "paper", "--device", "cpu", "--workers", str(workers)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "phononbench_flows", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if "arning" in line or "eprecat" in line]


# -- killed and started again ----------------------------------------------------------------------------------


def command(crystals: Path, out: Path) -> list[str]:
    script = "from phononbench_flows.cli import main; main()"
    arguments = ["run", str(crystals), "--set", "toys", "--potential", TOY, "--out", str(out), "--batch-atoms", "40"]
    arguments += ["--protocol", "paper"]
    return [sys.executable, "-W", "ignore", "-c", script, *arguments]


def test_killed_and_started_again_nothing_is_lost_or_done_twice(tmp_path, fcc, cu3au, simple_cubic):
    folder = tmp_path / "crystals"
    folder.mkdir()
    symbols = ["Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Ca", "Sr", "Pb"]
    for symbol in symbols:
        CifWriter(Structure(fcc.lattice, [symbol] * 4, fcc.frac_coords)).write_file(folder / f"{symbol}.cif")
    log, out = tmp_path / "log", tmp_path / "results"
    # argon-free crystals are instant: a call takes as long as the machine needs, and the kill comes after some results
    environment = os.environ | {
        "TOY_LOG": str(log),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    first = subprocess.Popen(command(folder, out), start_new_session=True, **quiet)
    deadline = time.monotonic() + 200
    finished: set[str] = set()
    while time.monotonic() < deadline and first.poll() is None and not finished:
        time.sleep(0.02)
        if (out / "results.sqlite").exists():
            with ResultsStore.open(out) as store:
                finished = {d["key"] for d in store.query({"status": "stable"}, ["key"])}
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    with ResultsStore.open(out) as store:
        before = {d.key: d for d in store.documents()}
    finished = {key for key, d in before.items() if d.status == "stable"}
    assert 0 < len(finished) < len(symbols), "the kill has to fall in the middle"
    assert len(before) == len(symbols)
    killed_pid = str(first.pid)

    assert subprocess.run(command(folder, out), check=False, **quiet).returncode == 0
    with ResultsStore.open(out) as store:
        after = {d.key: d for d in store.documents()}
    assert Counter(d.status for d in after.values()) == {"stable": len(symbols)}
    for key in finished:
        assert after[key] == before[key], "a finished crystal was touched again"
    relaxed_before = {tuple(d.elements) for d in before.values() if d.stage != "screened"}
    lines = [line.split() for line in log.read_text().splitlines()]
    numbers = {symbol: str(Structure(fcc.lattice, [symbol], [[0, 0, 0]]).atomic_numbers[0]) for symbol in symbols}
    second_unit_cells = {kind for pid, size, kind in lines if pid != killed_pid and size == "4"}
    assert not second_unit_cells & {numbers[symbol] for (symbol,) in relaxed_before}
    second_supercells = {kind for pid, size, kind in lines if pid != killed_pid and size == "32"}
    assert not second_supercells & {numbers[d.elements[0]] for d in before.values() if "force_constants" in d.arrays}


@pytest.fixture
def heard() -> Iterator[None]:
    """A process that is started hears an interrupt, which it would not in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_by_hand_a_run_leaves_its_table_and_says_how_to_go_on(tmp_path, fcc, workers):
    folder, out = tmp_path / "crystals", tmp_path / "results"
    folder.mkdir()
    symbols = ["Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Ca", "Ar"]
    for symbol in symbols:
        CifWriter(Structure(fcc.lattice, [symbol] * 4, fcc.frac_coords)).write_file(folder / f"{symbol}.cif")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TOY_SLEEP": "1000"}  # argon never ends
    arguments = command(folder, out)
    arguments[arguments.index("40")] = "4"
    run = subprocess.Popen(
        [*arguments, "--workers", str(workers)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 200
    finished = 0
    while time.monotonic() < deadline and run.poll() is None and not finished:
        time.sleep(0.05)
        if (out / "results.sqlite").exists():
            with ResultsStore.open(out) as store:
                finished = store.count({"status": "stable"})
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said.rstrip().endswith("stopped; the same command goes on from here")
    assert "Traceback" not in said
    assert f"{len(symbols)} crystals to compute: about" in said
    assert f"{TOY} on cpu in {'2 processes' if workers == 2 else 'one process'}, protocol paper" in said
    written = rows(out)
    assert len(written) == len(symbols)
    assert {row["status"] for row in written.values()} == {"stable", "pending"}

    again = invoke(*command(folder, out)[5:])  # argon is quick here
    assert again.exit_code == 0
    assert "are finished already: about" in again.output
    assert {row["status"] for row in rows(out).values()} == {"stable"}
