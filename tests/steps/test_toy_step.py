"""A new step is one file, this one: it runs here and through FireWorks, survives kills, and shows in every table."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.io.cif import CifWriter
from screened import TOY, crystal_set, put_waiting
from typer.testing import CliRunner
from worker_processes import add, finish, ready_launchpad, start_worker, states, wait_for

from phononbench_flows import judge, load_protocol
from phononbench_flows.cli import app
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.flows import ChunkMaker
from phononbench_flows.steps import Column, Step, StepError, find_step, references, step_settings, steps_of
from phononbench_flows.store import ResultsStore

REFERENCE = "test_toy_step:STEP"

# ------------------------------------------------------------------------------------------------------- the step


class DensitySettings(BaseModel):
    """What the protocol says of the step."""

    model_config = ConfigDict(extra="forbid")
    factor: float = Field(1.0, gt=0, description="The density is multiplied by this.")


def _compute(crystal, tools):
    factor = step_settings(STEP, tools.protocol).factor
    if path := os.environ.get("DENSITY_LOG"):
        with Path(path).open("a") as log:
            log.write(f"{crystal.document.id}\n")
    time.sleep(float(os.environ.get("DENSITY_SLEEP", "0")))
    assert crystal.read_arrays("force_constants")["array"].shape[2:] == (3, 3)
    return factor * len(crystal.relaxed) / crystal.relaxed.volume


def _record(document, found, protocol):
    document.results = document.results | {"density": {"value": found.result}}
    return {"density": {"value": np.array([found.result])}}


def _probe(tools):
    """There is nothing that could be broken."""


STEP = Step(
    name="density",
    after="spectrum",
    resource="cpu",
    cost=lambda size, protocol: size.natoms,
    compute=_compute,
    record=_record,
    probe=_probe,
    passed="with a density",
    columns=(
        Column("density", lambda d: d.results.get("density", {}).get("value"), "Atoms per Å^3, times the factor."),
    ),
    settings=DensitySettings,
)

# ------------------------------------------------------------------------------------------------------ the tests


@pytest.fixture
def protocol(tmp_path) -> Path:
    path = tmp_path / "dense.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "preset": "paper",
                "spectrum": {"path_points": 11, "mesh": [4, 4, 4]},
                "further_steps": {REFERENCE: {"factor": 2.0}},
            }
        )
    )
    return path


@pytest.fixture
def crystals(tmp_path, fcc, cu3au, simple_cubic) -> Path:
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name, structure in {"a": fcc, "b": cu3au, "c": simple_cubic}.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    return folder


def run(crystals: Path, protocol: Path, out: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "phononbench_flows", "run", crystals, "--set", "toys", "--potential", TOY]
    paths = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [*map(str, command), "--protocol", str(protocol), "--out", str(out)],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def densities(out: Path) -> dict[str, str]:
    with next(out.rglob("results.csv")).open() as file:
        return {row["id"]: row["density"] for row in csv.DictReader(file)}


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_runs_locally_and_stands_in_results_csv_and_survives_a_kill(crystals, protocol, tmp_path):
    out, log = tmp_path / "results", tmp_path / "log"
    slow = run(crystals, protocol, out, DENSITY_LOG=str(log), DENSITY_SLEEP="1.5")
    deadline = time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        assert slow.poll() is None
        time.sleep(0.05)
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    with ResultsStore.open(out) as store:
        stages = {d.id: (d.status, d.stage) for d in store.documents()}
    assert stages["toys-a"] == ("stable", "density")
    assert stages["toys-b"] == ("pending", "spectrum")
    assert stages["toys-c"][0] == "pending"  # it may not have come so far: nobody waits for another
    # What waits for it is called by what it has passed, wherever progress is shown.
    status = json.loads(invoke("status", "--store", out, "--json"))
    assert status[0]["passed"]["with a spectrum"] == sum(stage == "spectrum" for _, stage in stages.values())
    log.unlink()
    assert run(crystals, protocol, out, DENSITY_LOG=str(log)).wait() == 0
    assert sorted(log.read_text().split()) == ["toys-b", "toys-c"], "what was finished is not computed again"
    with ResultsStore.open(out) as store:
        documents = {d.id: d for d in store.documents()}
        for document in documents.values():
            assert document.steps == ["relaxation", "force_constants", "spectrum", REFERENCE]
            value = document.results["density"]["value"]
            structure = document.relaxed_structure
            assert value == pytest.approx(2.0 * len(structure["sites"]) / structure["lattice"]["volume"])
            assert store.blobs.get(document.arrays["density"])["value"] == value
            assert 0 < document.timings["density"] < 60
    assert {i: d.status for i, d in documents.items()} == {
        "toys-a": "stable",
        "toys-b": "stable",
        "toys-c": "unstable",
    }
    expected = {i: str(d.results["density"]["value"]) for i, d in documents.items()}
    assert densities(out) == expected
    queried = csv.DictReader(io.StringIO(invoke("query", out, "--format", "csv", "--step", REFERENCE)))
    assert {row["id"]: row["density"] for row in queried} == expected


@pytest.fixture
def chunk(mongo_database, tmp_path, fcc, cu3au, protocol):
    """Two crystals on a LaunchPad, with a protocol that has the step."""
    lp = ready_launchpad(mongo_database)
    store = ResultsStore.open(f"mongo:{mongo_database}")
    chosen = load_protocol(str(protocol))
    crystals = crystal_set(protocol=chosen)
    keys = put_waiting(store, crystals, {"a": fcc, "b": cu3au})
    flow = ChunkMaker(
        store=store.spec, protocol=chosen.model_dump(mode="json"), potential=TOY, device="cpu", batch_atoms=4
    ).make(keys)
    flow.update_metadata({"set": "toys", "protocol_id": crystals.protocol_id})
    return lp, store, add(lp, flow)


@pytest.mark.slow
def test_it_runs_through_fireworks_and_survives_a_kill(chunk, mongo_database, mongo_uri, tmp_path, monkeypatch):
    lp, store, ids = chunk
    assert len(ids) == 1
    log = tmp_path / "log"
    monkeypatch.setenv("DENSITY_LOG", str(log))
    monkeypatch.setenv("DENSITY_SLEEP", "2")
    worker = start_worker(mongo_database, tmp_path / "work", finished=str(tmp_path / "finished"))
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert {d.id: (d.status, d.stage) for d in store.documents()} == {
        "toys-a": ("stable", "density"),
        "toys-b": ("pending", "spectrum"),
    }
    write_launchpad(tmp_path / "lp.yaml", launchpad_settings(mongo_uri, mongo_database))
    status = json.loads(
        invoke("status", "--store", f"mongo:{mongo_database}", "--json", "--launchpad", tmp_path / "lp.yaml")
    )
    assert status[0]["passed"] == {"with a spectrum": 1}
    monkeypatch.setenv("DENSITY_SLEEP", "0")
    finish(mongo_database, tmp_path / "work", lp)
    assert set(states(lp).values()) == {"COMPLETED"}
    assert log.read_text().split() == ["toys-a", "toys-b", "toys-b"]
    assert {d.id: (d.status, d.results["density"]["value"] > 0) for d in store.documents()} == {
        "toys-a": ("stable", True),
        "toys-b": ("stable", True),
    }


def test_one_crystal_can_be_asked_with_it(fcc, protocol):
    found = judge(fcc, potential=TOY, protocol=str(protocol))
    assert found.stability == "stable"
    assert found.document.results["density"]["value"] == pytest.approx(2.0 * 4 / found.structure.volume)


def test_without_it_protocols_are_what_they_were(protocol):
    paper, dense = load_protocol("paper"), load_protocol(str(protocol))
    assert references(paper) == ["relaxation", "force_constants", "spectrum"]
    assert paper.hash == paper.model_copy(update={"further_steps": {}}).hash
    assert dense.hash != dense.model_copy(update={"further_steps": {}}).hash
    assert [step.name for step in steps_of(dense)] == ["relaxation", "force_constants", "spectrum", "density"]


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"nobody": {}}, "there is no step 'nobody'"),
        ({"no.such.module:STEP": {}}, "cannot be imported"),
        ({"test_toy_step:TOY": {}}, "there is no step"),
        ({REFERENCE: {"factor": -1}}, "factor"),
        ({REFERENCE: {"colour": "red"}}, "colour"),
    ],
)
def test_a_step_that_cannot_be_is_told_in_a_sentence(further, words):
    wrong = load_protocol("paper").model_copy(update={"further_steps": further})
    with pytest.raises(StepError, match=words):
        steps_of(wrong)


def test_steps_follow_what_they_come_after():
    assert [step.after for step in steps_of(load_protocol("paper"))] == ["screened", "relaxation", "force_constants"]
    assert find_step("relaxation").resource == "potential"
    assert find_step("spectrum").resource == "cpu"
