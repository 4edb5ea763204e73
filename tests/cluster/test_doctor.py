"""The doctor finds what would make a worker fail, and says what to do."""

from __future__ import annotations

import mongomock
import pytest
from dummy_jobs import note
from fireworks import FWorker, LaunchPad
from jobflow import SETTINGS, Flow, JobStore
from maggma.stores import MemoryStore
from typer.testing import CliRunner
from worker_processes import add, add_chunk, ready_launchpad, slow_crystals

from phononbench_flows.cli import app, opening
from phononbench_flows.cluster import preflight
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.cluster.preflight import State, waiting_kinds
from phononbench_flows.store import ResultsStore, StoreError, cluster_spec, full_spec


@pytest.fixture
def lp(mongo_database, monkeypatch):
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(OutputsStore(mongo_database)))
    monkeypatch.setenv("PHONONBENCH_STORE", f"mongo:{mongo_database}")
    ResultsStore.open(f"mongo:{mongo_database}").close()
    return ready_launchpad(mongo_database)


@pytest.fixture
def file(tmp_path, mongo_uri, mongo_database):
    path = tmp_path / "my_launchpad.yaml"
    write_launchpad(path, launchpad_settings(mongo_uri, mongo_database))
    return path


def doctor(file):
    return CliRunner().invoke(app, ["doctor", "-l", str(file)], env={"COLUMNS": "400"})


def failed(lp, fworker=None) -> dict[str, str]:
    checks = preflight.preflight(lp, fworker or FWorker())
    return {check.name: f"{check.said} | {check.advice}" for check in checks if check.state == State.FAILED}


def test_a_healthy_place(lp, file, mongo_database):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    result = doctor(file)
    assert result.exit_code == 0, result.output
    rows = result.output.splitlines()
    assert not any("failed" in row for row in rows)
    for expected in (
        "phonopy",
        "1 kind of fireworks can be read",
        "potential toy_potentials:lj",
        "OutputsStore answers",
    ):
        assert expected in result.output


def test_a_place_with_faults(lp, file, monkeypatch, mongo_database, tmp_path):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    lp.fireworks.update_many({}, {"$set": {"spec._tasks.0.job.function.@module": "no_such_package.jobs"}})
    lp.fireworks.drop_indexes()
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(MemoryStore()))
    result = doctor(file)
    assert result.exit_code == 1
    for expected in ("init-db", "JOBFLOW_CONFIG_FILE", "no_such_package", "install in this environment"):
        assert expected in result.output


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(preflight, "_ANSWER_SECONDS", 0.5)
    lp = LaunchPad.from_dict(launchpad_settings("mongodb://127.0.0.1:1/", "nothing"))
    found = failed(lp)
    assert set(found) == {"LaunchPad"}
    assert "does not answer" in found["LaunchPad"]


def test_whom_the_command_waits_for_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(opening, "_SLOW_SECONDS", 0.2)
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", "mongodb://127.0.0.1:1/")
    write_launchpad(tmp_path / "away.yaml", launchpad_settings("mongodb://127.0.0.1:1/", "nothing"))
    shown = CliRunner().invoke(app, ["doctor", "-l", str(tmp_path / "away.yaml")], env={"COLUMNS": "60"})
    assert shown.exit_code == 1
    assert "waiting for the LaunchPad" in shown.stderr
    assert "LaunchPad: database nothing at" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 60


def test_a_launchpad_in_memory(monkeypatch):
    monkeypatch.setattr("fireworks.core.launchpad.MongoClient", mongomock.MongoClient)
    monkeypatch.setattr("fireworks.core.launchpad.GRIDFS_FALLBACK_COLLECTION", None)
    found = failed(LaunchPad(strm_lvl="ERROR"))
    assert "mongomock" in found["LaunchPad"]


def test_a_launchpad_that_was_never_set_up(mongo_uri, mongo_database):
    lp = LaunchPad.from_dict(launchpad_settings(mongo_uri, mongo_database))
    assert "never set up" in failed(lp)["LaunchPad"]


def test_a_query_that_the_server_refuses(lp, tmp_path):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    assert "does not say what waits" in failed(lp, FWorker(query={"spec.set": {"$nonsense": 1}}))["worker"]


def test_results_without_indices(lp, mongo_database):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    for collection in ("crystals", "calculations"):
        lp.db[collection].drop_indexes()
        assert f"missing indices: {collection}(" in failed(lp)["results"]
        ResultsStore.open(f"mongo:{mongo_database}").create_indexes()
        assert not failed(lp)


def test_a_step_that_is_not_here(lp, mongo_database):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    further = {"spec._tasks.0.job.function.@bound.protocol.further_steps": {"no_such_package:STEP": {}}}
    lp.fireworks.update_many({}, {"$set": further})
    assert "'no_such_package:STEP' cannot be imported here" in failed(lp)["steps"]


def test_where_nothing_waits_the_results_are_those_of_the_commands(lp, file, monkeypatch):
    asked = []

    def refuse(spec):
        asked.append(spec)
        raise StoreError("not now")

    monkeypatch.setattr(preflight, "open_store", refuse)
    monkeypatch.delenv("PHONONBENCH_STORE")
    assert "not now" in failed(lp)["results"]
    assert asked == [cluster_spec()] == [full_spec("mongo")]
    for arguments, environment in ((["--store", "mongo:hub"], {}), ([], {"PHONONBENCH_STORE": "mongo:hub"})):
        CliRunner().invoke(app, ["doctor", "-l", str(file), *arguments], env=environment)
        assert asked.pop() == full_spec("mongo:hub")


def test_another_version_is_a_warning(lp, tmp_path, mongo_database):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    lp.fireworks.update_many({}, {"$set": {"spec._tasks.0.job.function.@bound.@version": "0.0.9"}})
    checks = {check.name: check for check in preflight.preflight(lp, FWorker())}
    assert checks["submitted with"].state == State.WARNING
    assert "0.0.9" in checks["submitted with"].said
    assert not failed(lp)


def test_a_gpu_that_is_not_there(lp, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "torch sees none" in failed(lp, FWorker(category=["gpu", "cpu"]))["GPU"]
    assert not failed(lp, FWorker(category="cpu"))
    assert not failed(lp, FWorker())


def test_only_what_the_worker_may_take_is_looked_at(lp, tmp_path):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    lp.fireworks.update_many({}, {"$set": {"spec._category": "cpu", "spec._tasks.0.job.function.@module": "nowhere"}})
    assert waiting_kinds(lp, FWorker(category="gpu")) == []
    (kind,) = waiting_kinds(lp, FWorker(category="cpu"))
    assert kind.function["@module"] == "nowhere"
    assert waiting_kinds(lp, FWorker(category="cpu"), after=kind.fw_id) == []
