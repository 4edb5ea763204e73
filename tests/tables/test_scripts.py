"""Every script of ``analysis/`` over a few made-up crystals, in either store."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_sets import fill, fill_exact, judged

from phononbench_flows.engine.bands import Bands
from phononbench_flows.store import ResultsStore

ANALYSIS = Path(__file__).parents[2] / "analysis"
SCRIPTS = sorted(path.stem for path in ANALYSIS.glob("*.py"))
WITHOUT_STORE = "published_disagreements"
BY_EXACT = "interpolation_or_instability"
WITHOUT_FIGURE = {WITHOUT_STORE, "phonon_spectra"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        fill(store)
    return tmp_path / "results"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_writes_its_files(run, results, tmp_path, name):
    if name == BY_EXACT:
        with ResultsStore.open(results := tmp_path / "exact", create=True) as store:
            fill_exact(store)
    printed = run(name, *([] if name == WITHOUT_STORE else [results]))
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {Path(line).name for line in printed.splitlines() if line.startswith(str(tmp_path))}
    stems = {Path(file).stem for file in files}
    assert stems
    for stem in stems:
        assert {f"{stem}.csv", f"{stem}.md"} <= files
        assert (tmp_path / "out" / f"{stem}.md").read_text().startswith("# ")
    assert any(file.endswith(".png") for file in files) is (name not in WITHOUT_FIGURE)
    assert {Path(file).stem for file in files if file.endswith(".png")} == {
        Path(file).stem for file in files if file.endswith(".svg")
    }


def test_the_readme_names_every_script():
    text = (ANALYSIS / "README.md").read_text()
    assert [name for name in SCRIPTS if f"`{name}.py`" not in text] == []


@pytest.mark.usefixtures("no_figures")
def test_a_long_table_is_printed_in_part_only(run, results, tmp_path):
    printed = run("stability_by_threshold", results)
    assert len([line for line in printed.splitlines() if line.startswith("| A |")]) == 6
    with (tmp_path / "out" / "stability_by_threshold.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 2 * 4 * 71


@pytest.mark.usefixtures("no_figures")
def test_a_server_gives_the_same_files(run, results, tmp_path, mongo_database, monkeypatch):
    run("stability_by_model", results)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}
    with ResultsStore.open(results) as store, ResultsStore.open(f"mongo:{mongo_database}") as server:
        server.put(*store.documents())
        for about in store.sets():
            server.put_set(about)
    monkeypatch.setenv("PHONONBENCH_STORE", f"mongo:{mongo_database}")
    run("stability_by_model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")} == written
    assert len(written) == 4


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "there are no results in .*nowhere"),
        (["--set", "C"], "no such crystals in the store"),
        (["--protocol", "q"], "no crystals under protocol 'q', only under p"),
        (["mongo:no/database"], "no name for a database"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, results, capsys, arguments, why):
    given = arguments if not arguments[0].startswith("--") else [results, *arguments]
    with pytest.raises(SystemExit) as caught:
        run("failures", *given)
    assert caught.value.code == 2
    assert re.search(why, " ".join(capsys.readouterr().err.split()))


def test_spectra_of_chosen_crystals(run, results, tmp_path):
    bands = Bands(
        q=[np.zeros((3, 3))],
        distances=[np.array([0.0, 0.1, 0.2])],
        frequencies=[np.array([[-1.0, 2.0], [0.0, 3.0], [1.0, 4.0]])],
        labels=["$\\Gamma$", "X"],
        connections=[False],
    )
    with ResultsStore.open(results) as store:
        document = judged(-1.0, formula_pretty="NdCuAsO", id="A-shown", key="A-shown@p")
        document.arrays = {"band_structure": store.blobs.put(bands.arrays())}
        store.put(document)
    printed = run("phonon_spectra", results)
    assert "| NdCuAsO | A-shown | A | unstable | unstable |" in printed
    assert "| ZnCu(BO2)2 |  |  |  | unstable |" in printed
    assert {path.suffix for path in (tmp_path / "out").glob("A-shown*")} == {".png"}
    assert "| NdCuAsO | A-shown | A | unstable |" in run("phonon_spectra", results, "--crystal", "A-shown")
    with pytest.raises(SystemExit):
        run("phonon_spectra", results, "--crystal", "nobody")


def test_as_a_program(results, tmp_path):
    command = [sys.executable, ANALYSIS / "failures.py", results, "--out", tmp_path / "out"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "| A | failed | relaxation | exception | 1 | 9.1 % |" in done.stdout
    assert done.stderr == ""
