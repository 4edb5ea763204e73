"""A machine that cannot compute costs no crystal its verdict: what it took is given back, and it takes no more."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import yaml
from dummy_jobs import note
from fireworks import FWorker
from jobflow import SETTINGS, Flow, JobStore
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from pymongo.errors import AutoReconnect
from typer.testing import CliRunner
from worker_processes import (
    SMALL,
    add,
    add_chunk,
    connect,
    lines,
    ready_launchpad,
    run_command,
    slow_crystals,
    start,
    start_worker,
    states,
    tidy,
)

from phononbench_flows.cli import app
from phononbench_flows.cluster import worker as worker_module
from phononbench_flows.cluster.janitor import IDENTITY
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.liveness import identity
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.trouble import MachineError
from phononbench_flows.store import ResultsStore

ILLEGAL = "the device failed: CUDA error: an illegal memory access was encountered"
CRYSTALS = 5


@pytest.fixture
def lp(mongo_database):
    return ready_launchpad(mongo_database)


@pytest.fixture
def store(mongo_database) -> Iterator[ResultsStore]:
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        yield store


@pytest.fixture
def work(mongo_database, tmp_path):
    """Run a worker to its end; gives its exit code."""

    def work(**options) -> int:
        process = start_worker(mongo_database, tmp_path / "work", **options)
        process.join(300)
        return process.exitcode

    return work


@pytest.fixture
def command(mongo_database, tmp_path):
    """Run a command in a process of its own; gives its exit code and what it said."""

    def command(*arguments: object) -> tuple[int, str]:
        process = start(run_command, mongo_database, [str(a) for a in arguments], str(tmp_path / "said"))
        process.join(300)
        return process.exitcode, (tmp_path / "said").read_text()

    return command


@pytest.fixture
def worker_command(command, mongo_uri, mongo_database, tmp_path):
    write_launchpad(tmp_path / "my_launchpad.yaml", launchpad_settings(mongo_uri, mongo_database))
    options = ["-l", tmp_path / "my_launchpad.yaml", "--store", f"mongo:{mongo_database}", "--idle", "0"]
    return lambda: command("worker", *options, "--folder", tmp_path / "work")


def outcome(document: CalculationDocument) -> dict:
    """What was computed for a crystal, without what says when, where and under which name."""
    apart = {"id", "key", "set", "created_at", "updated_at", "timings", "provenance", "provenance_by_step"}
    return document.model_dump(exclude=apart)


def outcomes(store: ResultsStore, keys: list[str]) -> list[dict]:
    return [outcome(store.get(key)) for key in keys]


def assert_nothing_was_lost(lp, store: ResultsStore, fw_ids: list[int]) -> None:
    """No crystal has failed or is marked, and the firework in which the machine broke is ready."""
    assert store.count({"status": "failed"}) == 0
    assert store.count({"attempts": {"$gt": 0}}) == 0
    found = states(lp)
    assert [found[fw_id] for fw_id in fw_ids] == ["READY"]
    assert lp.workflows.count_documents({"locked": {"$exists": True}}) == 0
    workflow = lp.workflows.find_one({"nodes": fw_ids[0]})
    assert workflow["fw_states"] == {str(fw_id): found[fw_id] for fw_id in workflow["nodes"]}
    assert lp.launches.count_documents({"state": "RUNNING"}) == 0


@pytest.fixture
def undisturbed(lp, store, work, tmp_path, monkeypatch) -> tuple[list[dict], int, int]:
    """What comes out where nothing breaks, and how often the potential is called for relaxations, and in all."""
    with monkeypatch.context() as logged:
        logged.setenv("TOY_LOG", str(tmp_path / "calls"))
        keys = slow_crystals(store, CRYSTALS, "undisturbed")
        add_chunk(lp, store, keys)
        assert work() == 0
    calls = Counter(line.split()[1] for line in lines(tmp_path / "calls"))
    assert set(calls) == {"4", "32"}
    found = outcomes(store, keys)
    assert {each["status"] for each in found} == {"stable"}
    return found, calls["4"], calls.total()


@pytest.mark.slow
def test_a_device_that_breaks_at_any_time_costs_no_verdict(undisturbed, lp, store, work, worker_command, monkeypatch):
    expected, relaxing, calls = undisturbed
    # In the first call, amid the relaxations, and amid the force constants.
    for number, at in enumerate([1, relaxing // 2, relaxing + 2]):
        assert at < calls
        keys = slow_crystals(store, CRYSTALS, f"toys{number}")
        fw_ids = add_chunk(lp, store, keys)
        monkeypatch.setenv("TOY_BREAKS_AT", str(at))
        if number == 1:
            assert work() == 1
        else:
            code, said = worker_command()
            assert code == 2
            assert said.splitlines()[-1] == f"phononbench: {ILLEGAL}"
            assert "Traceback" not in said
        assert_nothing_was_lost(lp, store, fw_ids)
        stages = Counter(store.get(key).stage for key in keys)
        assert (stages["screened"] < CRYSTALS) == (at > 1), "what was finished stays finished"
        monkeypatch.delenv("TOY_BREAKS_AT")
        code, said = worker_command()
        assert code == 0, said
        assert outcomes(store, keys) == expected
        assert set(states(lp).values()) == {"COMPLETED"}
        assert tidy(lp) == []


@pytest.mark.slow
def test_a_device_that_breaks_in_a_job_that_took_the_place_of_another_gives_that_back(
    undisturbed, lp, store, work, monkeypatch
):
    expected, *_ = undisturbed
    keys = slow_crystals(store, CRYSTALS, "toys")
    fw_ids = add_chunk(lp, store, keys)
    assert work(out_of_time_after=1) == 0
    assert store.count({"set": "toys", "stage": "screened"}) == 1
    (detour,) = set(lp.workflows.find_one({"nodes": fw_ids[0]})["nodes"]) - set(fw_ids)
    before = states(lp)
    assert [before[fw_id] for fw_id in (*fw_ids, detour)] == ["COMPLETED", "READY"]
    monkeypatch.setenv("TOY_BREAKS_AT", "2")
    assert work() == 1
    assert states(lp) == before
    assert store.count({"$or": [{"status": "failed"}, {"attempts": {"$gt": 0}}]}) == 0
    assert lp.workflows.count_documents({"locked": {"$exists": True}}) == 0
    monkeypatch.delenv("TOY_BREAKS_AT")
    assert work() == 0
    assert set(states(lp).values()) == {"COMPLETED"}
    assert outcomes(store, keys) == expected


def test_where_a_healthy_crystal_fails_as_well_the_machine_is_at_fault(
    undisturbed, lp, store, worker_command, monkeypatch
):
    expected, *_ = undisturbed
    keys = slow_crystals(store, CRYSTALS, "toys")
    fw_ids = add_chunk(lp, store, keys)
    monkeypatch.setenv("TOY_OUT_OF_ORDER", "1")
    for _ in range(2):
        code, said = worker_command()
        assert code == 2
        assert said.splitlines()[-1] == (
            "phononbench: this machine cannot compute: toys-0 failed (ValueError: out of order), and a healthy crystal "
            "fails too (PotentialError: toy_potentials:lj on cpu, for a healthy crystal of MgO, raises ValueError: out "
            "of order)"
        )
        assert said.count("Traceback") == 1, "what raised, and where, is told once"
        assert_nothing_was_lost(lp, store, fw_ids)
    monkeypatch.delenv("TOY_OUT_OF_ORDER")
    code, said = worker_command()
    assert code == 0, said
    assert set(states(lp).values()) == {"COMPLETED"}
    assert outcomes(store, keys) == expected


def test_a_worker_takes_no_more_with_a_broken_machine_even_if_it_cannot_give_back(
    lp, mongo_database, tmp_path, monkeypatch
):
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(OutputsStore(mongo_database)))
    monkeypatch.setattr(worker_module.time_limit, "stop_on_signals", lambda: None)
    monkeypatch.setattr(worker_module.machine, "found_broken", lambda: "it smells of smoke")

    def away(*_) -> None:
        raise AutoReconnect("the server is away")

    monkeypatch.setattr(worker_module, "_give_back", away)
    for i in range(3):
        add(lp, Flow([note(str(tmp_path / "words"), str(i))]))
    with pytest.raises(MachineError, match="it smells of smoke"):
        worker_module.work(lp, FWorker(), tmp_path)
    assert sorted(states(connect(mongo_database)).values()) == ["COMPLETED", "READY", "READY"]


def test_what_is_given_back_is_the_workers_own_last_once_its_workflow_is_free(lp, tmp_path):
    mine = FWorker(env={IDENTITY: identity()})
    of_another = FWorker(env={IDENTITY: identity() | {"pid": 1}})
    for i in range(3):
        add(lp, Flow([note(str(tmp_path / "words"), str(i))]))
    taken = [lp.checkout_fw(fworker, "/nowhere") for fworker in (mine, of_another, mine)]
    for _, launch_id in taken:
        lp.mark_fizzled(launch_id)
    last = taken[-1][0].fw_id
    lp.workflows.update_one({"nodes": last}, {"$set": {"locked": True}})
    unlock = threading.Timer(0.5, lambda: lp.workflows.update_one({"nodes": last}, {"$unset": {"locked": ""}}))
    unlock.start()
    worker_module._give_back(lp, mine)
    given_back = {firework.fw_id: "READY" if firework.fw_id == last else "FIZZLED" for firework, _ in taken}
    assert states(lp) == given_back
    assert unlock.finished.is_set()
    assert lp.workflows.count_documents({"locked": {"$exists": True}}) == 0
    lp.checkout_fw(of_another, "/nowhere")
    worker_module._give_back(lp, mine)
    assert states(lp) == given_back | {last: "RUNNING"}, "it is somebody else's by now"


# ---------------------------------------------------------------------------- crystals that cannot be computed


@pytest.fixture
def submitting(tmp_path, fcc, mongo_uri, mongo_database):
    """Arguments of `phononbench submit` for three crystals, two of which the potential cannot bear."""
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name, symbols in {"Ar": ["Ar"] * 4, "Kr": ["Kr"] * 4, "KrAr3": ["Kr", "Ar", "Ar", "Ar"]}.items():
        CifWriter(Structure(fcc.lattice, symbols, fcc.frac_coords)).write_file(folder / f"{name}.cif")
    protocol, file = tmp_path / "small.yaml", tmp_path / "my_launchpad.yaml"
    protocol.write_text(yaml.safe_dump(SMALL.model_dump(mode="json")))
    write_launchpad(file, launchpad_settings(mongo_uri, mongo_database))
    options = ["--set", "toys", "--potential", "toy_potentials:lj", "--protocol", protocol, "--device", "cpu"]
    return ["submit", folder, *options, "--store", f"mongo:{mongo_database}", "-l", file]


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return f"{result.exit_code} {' '.join(result.output.split())}"


def test_a_crystal_whose_computing_raises_is_failed_told_and_tried_again_when_asked(
    submitting, lp, store, worker_command, monkeypatch
):
    assert "3 waiting 3 crystals in 1 chunks" in invoke(*submitting)
    code, said = worker_command()
    assert code == 0, said
    assert set(states(lp).values()) == {"COMPLETED"}
    found = {document.id: document for document in store.documents()}
    assert {name: (d.status, d.reason, d.stage, d.attempts) for name, d in found.items()} == {
        "toys-Ar": ("stable", None, "exact_looks", 0),
        "toys-Kr": ("failed", "exception", "screened", 0),
        "toys-KrAr3": ("failed", "exception", "screened", 0),
    }
    assert found["toys-Kr"].detail == "RuntimeError: this potential cannot bear krypton"
    # The first of its kind, with where it was raised.
    assert said.count("Traceback") == said.count("cannot bear krypton\n") // 2 == 1, said
    (told,) = re.findall(
        r"^(toys-\S+): RuntimeError: this potential cannot bear krypton\nTraceback", said, re.MULTILINE
    )
    assert told in {"toys-Kr", "toys-KrAr3"}
    assert "toy_potentials.py" in said

    assert "3 crystals, 0 new, 0 changed, 0 waiting 0 crystals in 0 chunks" in invoke(*submitting)
    refused = invoke(*submitting, "--retry", "bad_luck")
    assert refused.startswith("2 ")
    assert "there is no reason 'bad_luck' to retry; there are all-failed, " in refused
    assert "0 tried again" not in invoke(*submitting, "--retry", "not_converged")
    assert store.count({"status": "failed"}) == 2

    for reason, bears, status in (
        ("exception", "", "failed"),
        ("all-failed", "", "failed"),
        ("exception", "1", "stable"),
    ):
        again = invoke(*submitting, "--retry", reason)
        assert "2 tried again, 2 waiting 2 crystals in 1 chunks added to the LaunchPad" in again
        waiting = list(store.documents({"status": "pending"}))
        assert {(d.reason, d.detail, d.stage) for d in waiting} == {(None, None, "screened")}
        assert len(waiting) == 2
        monkeypatch.setenv("TOY_BEARS_KRYPTON", bears)
        code, said = worker_command()
        assert code == 0, said
        now = {document.id: document for document in store.documents()}
        assert now.pop("toys-Ar") == found["toys-Ar"], "what was judged is left alone"
        assert {d.status for d in now.values()} == {status}
    assert set(states(lp).values()) == {"COMPLETED"}
    assert "0 waiting" in invoke(*submitting, "--retry", "all-failed")
