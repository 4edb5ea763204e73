"""What the janitor mends, what it leaves alone, and how often it tries."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from dummy_jobs import fail, note
from fireworks import FWAction, FWorker
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, JobStore
from typer.testing import CliRunner
from worker_processes import HASTY, add, ready_launchpad, states

from phononbench_flows.cli import app
from phononbench_flows.cluster import janitor, liveness, slurm
from phononbench_flows.cluster.janitor import IDENTITY, Limits, look_after
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.outputs import OutputsStore

HERE = liveness.identity()
ELSEWHERE = {"machine": "elsewhere", "pid": 1, "started": 1.0, "slurm_job": None}
ELSEWHERE |= {"slurm_cluster": None, "slurm_restarts": 0}
DEAD = HERE | {"started": 1.0}
LONG_AGO = (datetime.now(UTC) - timedelta(days=1)).isoformat()


@pytest.fixture
def lp(mongo_database, monkeypatch, tmp_path):
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(OutputsStore(mongo_database)))
    monkeypatch.setattr(slurm, "jobs", lambda: None)
    monkeypatch.setattr(slurm, "end_of", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return ready_launchpad(mongo_database)


@pytest.fixture
def chain(tmp_path):
    """A job and one that waits for it."""
    first = note(str(tmp_path / "words"), "first")
    return Flow([first, note(str(tmp_path / "words"), "last", first.output)])


def check_out(lp, worker=None, state="RUNNING") -> tuple[int, int]:
    """Take a firework as a worker does that then falls silent; gives the ids of it and of its launch."""
    fworker = FWorker(env={IDENTITY: worker} if worker else {})
    firework, launch_id = lp.checkout_fw(fworker, "/nowhere", host="host", ip="0.0.0.0", state=state)
    return firework.fw_id, launch_id


def run(lp, n: int = 1) -> None:
    rapidfire(lp, FWorker(), nlaunches=n, max_loops=1, sleep_time=1, strm_lvl="ERROR")


def silence(lp, launch_id: int) -> None:
    lp.launches.update_one({"launch_id": launch_id}, {"$set": {"state_history.0.updated_on": LONG_AGO}})


def told(lp, limits: Limits = HASTY, **options) -> list[tuple[int, str, str]]:
    return [(r.fw_id, r.said, r.outcome) for r in look_after(lp, limits, **options)]


def test_nothing_out_of_order(lp, chain):
    add(lp, chain)
    assert told(lp) == []
    run(lp, 2)
    assert told(lp) == []
    assert set(states(lp).values()) == {"COMPLETED"}


def test_a_living_worker_is_left_alone_however_long_it_was_silent(lp, chain):
    add(lp, chain)
    fw_id, launch_id = check_out(lp, HERE)
    silence(lp, launch_id)
    assert told(lp) == []
    assert states(lp)[fw_id] == "RUNNING"


@pytest.mark.parametrize(
    ("worker", "silent", "jobs", "lost"),
    [
        pytest.param(DEAD, False, None, True, id="process gone"),
        pytest.param(ELSEWHERE, False, None, False, id="elsewhere and speaking"),
        pytest.param(ELSEWHERE, True, None, True, id="elsewhere and silent"),
        pytest.param(None, False, None, False, id="rlaunch, speaking"),
        pytest.param(None, True, None, True, id="rlaunch, silent"),
        pytest.param(ELSEWHERE | {"slurm_job": "7"}, False, {"7": 0}, False, id="Slurm job there"),
        pytest.param(ELSEWHERE | {"slurm_job": "7"}, False, {"8": 0}, True, id="Slurm job gone"),
        pytest.param(ELSEWHERE | {"slurm_job": "7"}, False, {"7": 1}, True, id="Slurm job requeued"),
        pytest.param(ELSEWHERE | {"slurm_job": "7"}, False, {"7": None}, False, id="Slurm job about to end"),
        pytest.param(
            ELSEWHERE | {"slurm_job": "7", "slurm_cluster": "other"}, False, {"8": 0}, False, id="another cluster's"
        ),
    ],
)
def test_a_worker_is_lost_when_its_process_or_its_job_is_gone_or_nothing_is_heard(
    worker, silent, jobs, lost, lp, chain, monkeypatch
):
    monkeypatch.setattr(slurm, "jobs", lambda: jobs and slurm.Jobs("here", jobs))
    add(lp, chain)
    fw_id, launch_id = check_out(lp, worker)
    if silent:
        silence(lp, launch_id)
    found = told(lp)
    assert states(lp)[fw_id] == ("READY" if lost else "RUNNING")
    assert len(found) == (2 if lost else 0)
    if lost:
        run(lp, 2)
        assert set(states(lp).values()) == {"COMPLETED"}


def test_a_firework_that_its_worker_has_left_for_another_is_lost(lp, chain, tmp_path):
    add(lp, chain)
    add(lp, Flow([note(str(tmp_path / "words"), "other")]))
    first, _ = check_out(lp, HERE)
    second, _ = check_out(lp, HERE)
    assert [fw_id for fw_id, said, _ in told(lp) if "gone on to another" in said] == [first]
    assert states(lp)[second] == "RUNNING"


def test_a_worker_that_ends_while_it_is_looked_at_is_not_lost(lp, chain, monkeypatch):
    add(lp, chain)
    fw_id, launch_id = check_out(lp, HERE)

    def ends(worker, jobs):
        lp.complete_launch(launch_id, FWAction())
        return False

    monkeypatch.setattr(janitor, "is_alive", ends)
    told(lp)
    assert states(lp)[fw_id] == "COMPLETED"


def test_what_was_taken_a_moment_ago_is_left_to_its_worker(lp, chain):
    fw_id, _ = add(lp, chain)
    lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "RESERVED", "updated_on": datetime.now(UTC)}})
    ((_, said, outcome),) = told(lp, Limits(lock=0.1, settle=60))
    assert (outcome, "left alone until" in said) == ("left", True)
    assert told(lp) == [(fw_id, "it is reserved without a launch", "mended")]
    assert states(lp)[fw_id] == "READY"


def test_a_lock_that_somebody_holds_is_left_to_him(lp, chain):
    fw_id, _ = add(lp, chain)
    lp.workflows.update_one({"nodes": fw_id}, {"$set": {"locked": True}})
    unlock = threading.Timer(0.5, lambda: lp.workflows.update_one({"nodes": fw_id}, {"$unset": {"locked": ""}}))
    unlock.start()
    assert told(lp, Limits(lock=3.0, settle=0.0)) == []
    unlock.join()
    lp.workflows.update_one({"nodes": fw_id}, {"$set": {"locked": True}})
    assert [(said, outcome) for _, said, outcome in told(lp)] == [("its workflow is locked by nobody", "mended")]
    assert "locked" not in lp.workflows.find_one({"nodes": fw_id})


def test_a_reservation_goes_with_its_job(lp, chain, monkeypatch):
    add(lp, chain)
    fw_id, launch_id = check_out(lp, state="RESERVED")
    lp.launches.update_one({"launch_id": launch_id}, {"$set": {"state_history.0.reservation_id": "42"}})
    assert [outcome for *_, outcome in told(lp)] == ["left"], "there is no Slurm to be asked"
    monkeypatch.setattr(slurm, "jobs", lambda: slurm.Jobs("here", {"42": 0}))
    assert told(lp) == []
    monkeypatch.setattr(slurm, "jobs", lambda: slurm.Jobs("here", {}))
    assert told(lp) == [(fw_id, "it is reserved for the Slurm job 42, which is gone", "mended")]
    assert states(lp)[fw_id] == "READY"


def test_a_reservation_that_nobody_can_see_ends_with_time(lp, chain):
    add(lp, chain)
    fw_id, launch_id = check_out(lp, state="RESERVED")
    silence(lp, launch_id)
    ((_, said, outcome),) = told(lp)
    assert (outcome, "cannot be seen from here; left alone until" in said) == ("left", True)
    assert told(lp, Limits(lock=0.1, reservation=3600.0)) == [(fw_id, "it was reserved long ago", "mended")]
    assert states(lp)[fw_id] == "READY"


@pytest.mark.parametrize(
    ("error", "reruns"), [("AutoReconnect", 3), ("MachineError", 3), ("OutOfTimeError", 5), ("ValueError", 0)]
)
def test_what_failed_is_rerun_as_often_as_its_error_is_worth(error, reruns, lp):
    (fw_id,) = add(lp, Flow([fail(error)]))
    limits = Limits(lock=0.1, settle=0.0, lost=5)
    for _ in range(reruns):
        run(lp)
        assert states(lp)[fw_id] == "FIZZLED"
        (found,) = told(lp, limits)
        assert found[2] == "mended"
        assert states(lp)[fw_id] == "READY"
    run(lp)
    ((_, said, outcome),) = told(lp, limits)
    assert outcome == "left"
    assert f"({reruns + 1} times); set aside" in said
    assert "as told" in said
    assert states(lp)[fw_id] == "FIZZLED"


def test_what_a_worker_could_not_read_is_rerun_once_it_can_be_read(lp, chain):
    fw_id, _ = add(lp, chain)
    name = "spec._tasks.0.job.function.@module"
    lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {name: "no_such_package.jobs"}})
    run(lp)
    assert states(lp)[fw_id] == "FIZZLED"
    ((_, said, outcome),) = told(lp)
    assert (outcome, "no_such_package" in said) == ("left", True)
    lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {name: "dummy_jobs"}})
    ((_, said, outcome),) = told(lp)
    assert outcome == "mended"
    run(lp, 2)
    assert set(states(lp).values()) == {"COMPLETED"}


def test_what_workers_can_never_read_is_set_aside(lp, chain):
    fw_id, _ = add(lp, chain)
    for _ in range(4):
        details = {"_message": "FireWork failed to deserialize", "_stacktrace": "ImportError: not there"}
        lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {"state": "FIZZLED", "spec._exception_details": details}})
        ((_, said, outcome),) = told(lp)
    assert outcome == "left"
    assert said == "workers could not read it (4 times): ImportError: not there; set aside"


def test_one_repair_that_fails_keeps_none_of_the_others_from_being_made(lp, chain, tmp_path, monkeypatch):
    fw_ids = [add(lp, flow)[0] for flow in (chain, Flow([note(str(tmp_path / "words"), "other")]))]
    for _ in fw_ids:
        check_out(lp, DEAD)
    rerun = lp.rerun_fw

    def fails_once(fw_id, *args, **kwargs):
        if fw_id == fw_ids[0]:
            raise RuntimeError("cannot be rerun")
        return rerun(fw_id, *args, **kwargs)

    monkeypatch.setattr(lp, "rerun_fw", fails_once)
    outcomes = {fw_id: outcome for fw_id, _, outcome in told(lp)}
    assert outcomes == {fw_ids[0]: "not mended: RuntimeError: cannot be rerun", fw_ids[1]: "mended"}
    monkeypatch.setattr(lp, "rerun_fw", rerun)
    assert [outcome for _, _, outcome in told(lp)] == ["mended"]
    assert states(lp)[fw_ids[0]] == "READY"


def test_a_dry_run_mends_nothing(lp, chain):
    add(lp, chain)
    fw_id, _ = check_out(lp, DEAD)
    assert [outcome for _, _, outcome in told(lp, dry_run=True)] == ["left"]
    assert states(lp)[fw_id] == "RUNNING"


def test_a_child_does_not_run_while_its_parent_is_looked_after(lp, chain):
    first, last = add(lp, chain)
    check_out(lp, DEAD)
    told(lp)
    assert states(lp) == {first: "READY", last: "WAITING"}
    run(lp, 2)
    assert set(states(lp).values()) == {"COMPLETED"}


def test_the_command_says_what_it_did(lp, chain, tmp_path, mongo_uri, mongo_database):
    file = tmp_path / "my_launchpad.yaml"
    write_launchpad(file, launchpad_settings(mongo_uri, mongo_database))
    add(lp, chain)
    fw_id, _ = check_out(lp, DEAD)
    command = ["janitor", "-l", str(file), "--lock-seconds", "0.1"]
    shown = CliRunner().invoke(app, [*command, "--dry-run"])
    assert f"firework {fw_id}: lost its worker: its process or its Slurm job is gone: left" in shown.output
    assert states(lp)[fw_id] == "RUNNING"
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0
    assert f"firework {fw_id}: lost its worker: its process or its Slurm job is gone: mended" in shown.output
    assert states(lp)[fw_id] == "READY"


def test_the_command_on_a_server_that_is_not_there(tmp_path):
    file = tmp_path / "my_launchpad.yaml"
    write_launchpad(file, launchpad_settings("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200", "nothing"))
    shown = CliRunner().invoke(app, ["janitor", "-l", str(file)], env={"PHONONBENCH_TWO_SERVERS": "1"})
    assert shown.exit_code == 2
    assert "does not answer" in shown.output
