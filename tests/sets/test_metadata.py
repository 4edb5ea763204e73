"""What is known of a set: read, merged, and kept in the store; and the command line's part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.sets.metadata import KEYS, SetError, describe_set
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import read_inputs

WHOLE = """
model: MatterGen
training_set: MP20
architecture: GNN
parameters: 53700000
condition: {band_gap: 1.5, space_group: 225, relaxed: true, chemistry: Li-O}
n_generated: 16000
generation_seconds: 72720
generation_hardware: 1x RTX 4090
"""
POSCAR = "Po\n1.0\n3.3 0 0\n0 3.3 0\n0 0 3.3\nPo\n1\ndirect\n0 0 0\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultsStore]:
    with ResultsStore.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "crystals"
    path.mkdir()
    (path / "a.vasp").write_text(POSCAR)
    (path / "set.yaml").write_text(WHOLE)
    return path


def test_set_yaml_beside_the_crystals(store, folder):
    found = describe_set(store, "A", [folder])
    assert found.model_dump(include=set(KEYS)) == {
        "model": "MatterGen",
        "training_set": "MP20",
        "architecture": "GNN",
        "parameters": 53_700_000,
        "condition": {"band_gap": 1.5, "space_group": 225, "relaxed": True, "chemistry": "Li-O"},
        "n_generated": 16_000,
        "generation_seconds": 72_720.0,
        "generation_hardware": "1x RTX 4090",
    }
    assert store.get_set("A") == found


def test_set_yaml_is_no_crystal(folder):
    assert [raw.label for raw in read_inputs([folder])] == ["a.vasp"]


def test_later_sources_go_before_earlier_ones(store, folder, tmp_path):
    (tmp_path / "about.yaml").write_text("model: Other\nparameters: 5\ncondition: {band_gap: 2.5}")
    about = [str(tmp_path / "about.yaml"), "parameters=6", "n_generated=7"]
    found = describe_set(store, "A", [folder], about, {"band_gap": 3.5})
    assert (found.model, found.parameters, found.n_generated, found.training_set) == ("Other", 6, 7, "MP20")
    # A condition is merged key by key.
    assert found.condition == {"band_gap": 3.5, "space_group": 225, "relaxed": True, "chemistry": "Li-O"}


def test_what_is_known_stays_known(store, folder, tmp_path):
    describe_set(store, "A", [folder])
    again = describe_set(store, "A", [tmp_path / "a.vasp"], ["model=MatterGen 2"])
    assert (again.model, again.n_generated, again.condition["band_gap"]) == ("MatterGen 2", 16_000, 1.5)
    assert store.get_set("A") == again


def test_nothing_said_leaves_nothing_behind(store, tmp_path):
    found = describe_set(store, "A", [tmp_path])
    assert found.set == "A"
    assert store.sets() == []


def test_text_stays_text(store):
    assert describe_set(store, "A", [], ["model=3", "training_set=a=b"]).model_dump(
        include={"model", "training_set"}
    ) == {"model": "3", "training_set": "a=b"}


def test_two_folders_may_share_what_they_say(store, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "set.yaml").write_text("model: MatterGen\nn_generated: 16000")
    assert describe_set(store, "A", [folder, other]).n_generated == 16_000
    (other / "set.yaml").write_text("n_generated: 10")
    with pytest.raises(SetError, match=r"crystals/set.yaml and .*other/set.yaml say different things of 'n_generated'"):
        describe_set(store, "A", [folder, other])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("modle: x", r"there is no key 'modle', only model, training_set"),
        ("set: A", r"there is no key 'set', only"),
        ("n_generated: -1", r"n_generated: Input should be greater than or equal to 0"),
        ("n_generated: many", r"n_generated: Input should be a valid integer"),
        ("model: 3", r"model: Input should be a valid string"),
        ("condition: 1.5", r"condition: Input should be a valid dictionary"),
        ("condition: {band_gap: [1, 2]}", r"condition\.band_gap"),
        ("- a", r"must hold keys and values"),
        ("", r"must hold keys and values"),
        ("a: [", r"cannot be read"),
        ("[" * 1000, r"cannot be read"),
        ("model: x\n" + "#" * 20_000, r"at most 16000 bytes"),
        ("model: \udcff", r"cannot be read"),
    ],
)
def test_bad_files(store, tmp_path, text, why):
    (tmp_path / "set.yaml").write_text(text, errors="surrogateescape")
    for inputs, about in (([tmp_path], []), ([], [str(tmp_path / "set.yaml")])):
        with pytest.raises(SetError, match=why) as caught:
            describe_set(store, "A", inputs, about)
        assert "set.yaml" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert store.sets() == []


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ("modle=x", r"--about 'modle=x': there is no key 'modle'"),
        ("parameters=53.7M", r"parameters: Input should be a valid integer"),
        ("condition=1", r"--condition KEY=VALUE"),
        ("nowhere.yaml", r"nowhere.yaml cannot be read: No such file"),
    ],
)
def test_bad_options(store, about, why):
    with pytest.raises(SetError, match=why):
        describe_set(store, "A", [], [about])


# ----------------------------------------------------------------------------------------------------------------------
# The command line
# ----------------------------------------------------------------------------------------------------------------------
def run(*arguments: object):
    given = ["run", "--set", "A", "--potential", "toy_potentials:lj", *map(str, arguments)]
    return CliRunner().invoke(app, given)


def test_run_keeps_what_it_is_told(folder, fcc, tmp_path):
    CifWriter(fcc).write_file(folder / "fcc.cif")
    (folder / "a.vasp").unlink()
    out = tmp_path / "results"
    done = run(folder, "--out", out, "--about", "n_generated=5", "--about", "model=Mine", "--condition", "band_gap=2.5")
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "generated │ 5 │ 100.0 %" in words
    assert "not handed in │ 4 │ 80.0 %" in words
    with ResultsStore.open(out) as store:
        found = store.get_set("A")
        (document,) = store.documents()
    assert found is not None
    assert (found.model, found.training_set, found.n_generated, found.condition["band_gap"]) == ("Mine", "MP20", 5, 2.5)
    # What the set file says was asked for is said of every crystal.
    assert document.condition == found.condition


@pytest.mark.parametrize("wrong", ["modle=x", "nowhere.yaml", "condition=1"])
def test_run_ends_with_a_sentence(folder, tmp_path, wrong):
    done = run(folder, "--out", tmp_path / "results", "--about", wrong)
    assert done.exit_code == 2
    assert wrong.removesuffix("=1") in done.output
    assert "Traceback" not in done.output
