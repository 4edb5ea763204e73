"""What a worker takes, what it leaves to others, and when it does not begin at all."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from dummy_jobs import note
from fireworks import Firework, FWorker, ScriptTask, Workflow
from jobflow import SETTINGS, Flow, JobStore
from maggma.stores import MemoryStore
from typer.testing import CliRunner
from worker_processes import (
    add,
    add_chunk,
    connect,
    lines,
    ready_launchpad,
    slow_crystals,
    start_worker,
    states,
    tidy,
    wait_for,
)

from phononbench_flows.cli import app
from phononbench_flows.cluster import worker as worker_module
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.cluster.preflight import UnfitError
from phononbench_flows.cluster.worker import work
from phononbench_flows.flows import makers
from phononbench_flows.store import ResultsStore


@pytest.fixture
def lp(mongo_database, monkeypatch):
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(OutputsStore(mongo_database)))
    return ready_launchpad(mongo_database)


def echoes(file: Path, n: int) -> list[Workflow]:
    """Fireworks that each append a line of their own to a file."""
    tasks = [ScriptTask.from_str(f"echo {i} >> {file}") for i in range(n)]
    return [Workflow([Firework([task], name=f"echo {i}")]) for i, task in enumerate(tasks)]


@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_four_workers_take_no_firework_twice(n, lp, mongo_database, tmp_path):
    file = tmp_path / "lines"
    lp.bulk_add_wfs(echoes(file, n))
    workers = [start_worker(mongo_database, tmp_path / f"worker{i}") for i in range(4)]
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert Counter(lines(file)) == Counter(map(str, range(n)))
    assert lp.launches.count_documents({}) == n
    assert set(states(lp).values()) == {"COMPLETED"}
    assert len(lp.launches.distinct("fworker.env.phononbench_worker.pid")) > 1


_ADD_AND_RUN = """
import sys, time
from pathlib import Path
from fireworks import Firework, FWorker, LaunchPad, ScriptTask, Workflow
from fireworks.core.rocket_launcher import rapidfire
file, n = sys.argv[2], int(sys.argv[3])
lp = LaunchPad(strm_lvl="ERROR")
if sys.argv[1] == "add":
    lp.reset("", require_password=False)
    tasks = [ScriptTask.from_str(f"echo {i} >> {file}") for i in range(n)]
    lp.bulk_add_wfs([Workflow([Firework([task])]) for task in tasks])
else:
    Path("ready").touch()
    while not Path("../go").exists():
        time.sleep(0.01)
    rapidfire(lp, FWorker(), sleep_time=1, strm_lvl="ERROR")
"""


@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_the_control_four_workers_on_a_mongomock_file_do(n, tmp_path):
    """The same on FireWorks' database in a file: were nothing taken twice here, the test above would prove nothing."""
    (tmp_path / "database.json").write_text("{}")
    environment = os.environ | {"MONGOMOCK_SERVERSTORE_FILE": str(tmp_path / "database.json")}
    command = [sys.executable, "-c", _ADD_AND_RUN]
    rest = [str(tmp_path / "lines"), str(n)]
    subprocess.run([*command, "add", *rest], env=environment, cwd=tmp_path, check=True, capture_output=True)
    workers = []
    for i in range(4):
        (tmp_path / f"worker{i}").mkdir()
        workers.append(
            subprocess.Popen(
                [*command, "run", *rest], env=environment, cwd=tmp_path / f"worker{i}", stdout=subprocess.DEVNULL
            )
        )
    wait_for(lambda: all((tmp_path / f"worker{i}" / "ready").exists() for i in range(4)))
    (tmp_path / "go").touch()
    assert [worker.wait(300) for worker in workers] == [0] * 4
    taken = Counter(lines(tmp_path / "lines"))
    assert set(taken) == set(map(str, range(n)))
    assert taken.total() > n


def test_documents_say_who_computed_them(lp, mongo_database, tmp_path):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = slow_crystals(store, 1, "toys")
        fw_ids = add_chunk(lp, store, keys)
        worker = start_worker(mongo_database, tmp_path / "work")
        worker.join(300)
        provenance = store.get(keys[0]).provenance
    launch = lp.launches.find_one({"fw_id": fw_ids[-1]})
    job = lp.fireworks.find_one({"fw_id": fw_ids[-1]})["spec"]["_tasks"][0]["job"]
    assert (provenance.fw_id, provenance.launch_id) == (fw_ids[-1], launch["launch_id"])
    assert provenance.job_uuid == job["uuid"]
    assert provenance.pid == worker.pid == launch["fworker"]["env"]["phononbench_worker"]["pid"]
    assert provenance.gpu is None
    assert {"torch", "phonopy", "phononbench-flows"} <= set(provenance.versions)


def test_what_time_does_not_allow_is_left_to_the_next_worker(lp, mongo_database, tmp_path):
    finished = tmp_path / "finished"
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = slow_crystals(store, 6, "toys")
        fw_ids = add_chunk(lp, store, keys)
        first = start_worker(mongo_database, tmp_path / "first", finished=str(finished), out_of_time_after=2)
        first.join(300)
        assert first.exitcode == 0
        left = states(lp)
        assert len(lines(finished)) == 4 * 3, "what was begun is ended"
        assert store.count({"attempts": {"$gt": 0}}) == 0
        assert [left[fw_id] for fw_id in fw_ids] == ["COMPLETED"]
        assert [state for fw_id, state in left.items() if fw_id not in fw_ids] == ["READY"]
        start_worker(mongo_database, tmp_path / "second", finished=str(finished)).join(300)
        assert {d.status for d in store.documents()} == {"stable"}
    assert set(states(lp).values()) == {"COMPLETED"}
    assert len(states(lp)) == 2
    assert set(Counter(lines(finished)).values()) == {1}
    assert tidy(lp) == []


def test_sigterm_ends_a_worker_in_order(lp, mongo_database, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SLEEP", "0.1")
    finished = tmp_path / "finished"
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = slow_crystals(store, 3, "toys")
        add_chunk(lp, store, keys)
        add_chunk(lp, store, slow_crystals(store, 1, "others"))
        worker = start_worker(mongo_database, tmp_path / "work", finished=str(finished))
        wait_for(lambda: lines(finished))
        worker.terminate()
        worker.join(60)
        assert worker.exitcode == 0
        assert store.count({"attempts": {"$gt": 0}}) == 0
    assert "RUNNING" not in states(lp).values()
    assert lp.launches.count_documents({}) == 1
    assert tidy(lp) == []


# --------------------------------------------------------------------------------------------- refusing to start


def refusal(lp, tmp_path) -> str:
    """The sentence with which a worker refuses to start; the queue has to be as it was."""
    before = list(lp.fireworks.find({}, {"_id": 0}))
    with pytest.raises(UnfitError) as refused:
        work(lp, FWorker(), tmp_path)
    assert list(lp.fireworks.find({}, {"_id": 0})) == before
    assert lp.launches.count_documents({}) == 0
    return str(refused.value)


@pytest.fixture(autouse=True)
def no_handlers(monkeypatch):
    """A worker in this process leaves its signals alone."""
    monkeypatch.setattr("phononbench_flows.flows.time_limit.stop_on_signals", lambda: None)


def test_a_worker_without_the_jobs_code_takes_nothing(lp, tmp_path):
    for i in range(3):
        fw_id, *_ = add(lp, Flow([note(str(tmp_path / "words"), str(i))]))
    lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {"spec._tasks.0.job.function.@module": "no_such_package.jobs"}})
    assert f"firework {fw_id} cannot be read here: ModuleNotFoundError" in refusal(lp, tmp_path)


def test_a_worker_stops_before_code_that_came_later_and_that_it_lacks(lp, mongo_database, tmp_path):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    worker = start_worker(mongo_database, tmp_path / "work", idle=60)
    wait_for(lambda: set(states(lp).values()) == {"COMPLETED"})
    strange = lp.fireworks.find_one({}, {"_id": 0})
    strange["spec"]["_tasks"][0]["job"]["function"]["@module"] = "no_such_package.jobs"
    _insert(lp, strange)
    worker.join(180)
    assert worker.exitcode == 1
    assert sorted(states(lp).values()) == ["COMPLETED", "READY"]


def test_nor_does_it_take_what_came_just_after_it_looked(lp, mongo_database, tmp_path, monkeypatch):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    strange = lp.fireworks.find_one({}, {"_id": 0})
    strange["spec"] |= {"_priority": 1}
    another = connect(mongo_database)  # the worker closes what it is given
    strange["spec"]["_tasks"][0]["job"]["function"]["@module"] = "no_such_package.jobs"
    require_fit, looks = worker_module.require_fit, iter([lambda: None, lambda: _insert(another, strange)])

    def look(checks) -> None:
        require_fit(checks)
        next(looks, lambda: None)()

    monkeypatch.setattr(worker_module, "require_fit", look)
    with pytest.raises(UnfitError, match="cannot be read here"):
        work(lp, FWorker(), tmp_path)
    assert sorted(states(another).values()) == ["COMPLETED", "READY"]


def _insert(lp, firework: dict) -> None:
    """Put a firework on the LaunchPad that this process could not read itself."""
    fw_id = lp.get_new_fw_id()
    lp.workflows.insert_one({"nodes": [fw_id], "links": {str(fw_id): []}, "fw_states": {str(fw_id): "READY"}})
    lp.fireworks.insert_one(firework | {"fw_id": fw_id, "state": "READY", "launches": [], "archived_launches": []})


def test_a_worker_without_the_potential_takes_nothing(lp, mongo_database, tmp_path, monkeypatch):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    monkeypatch.setattr(makers.potentials.registry, "find_source", _none_here)
    makers.potentials.loading._load.cache_clear()
    assert "no potential 'toy_potentials:lj' here" in refusal(lp, tmp_path)


def _none_here(name: str):
    raise makers.potentials.PotentialError(f"no potential {name!r} here")


def test_a_worker_with_another_checkpoint_takes_nothing(lp, mongo_database, tmp_path):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    lp.fireworks.update_many({}, {"$set": {"spec.protocol_id": "of-another-checkpoint"}})
    assert "not of-another-checkpoint" in refusal(lp, tmp_path)


def test_a_worker_that_keeps_outputs_in_memory_takes_nothing(lp, tmp_path, monkeypatch):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(MemoryStore()))
    assert "MemoryStore, which the next worker does not see" in refusal(lp, tmp_path)


def test_a_worker_on_a_launchpad_without_indices_takes_nothing(lp, tmp_path):
    add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    lp.fireworks.drop_indexes()
    assert "init-db" in refusal(lp, tmp_path)


def test_the_command_says_why_and_ends_with_an_error(lp, mongo_uri, mongo_database, tmp_path):
    file = tmp_path / "my_launchpad.yaml"
    write_launchpad(file, launchpad_settings(mongo_uri, mongo_database))
    fw_id, *_ = add(lp, Flow([note(str(tmp_path / "words"), "first")]))
    lp.fireworks.update_one({"fw_id": fw_id}, {"$set": {"spec._tasks.0.job.function.@module": "no_such_package"}})
    shown = CliRunner().invoke(app, ["worker", "-l", str(file), "--folder", str(tmp_path / "work")])
    assert shown.exit_code == 2
    assert "this worker does not start, and nothing was taken: code of the jobs" in shown.output
    assert states(lp)[fw_id] == "READY"


def test_a_gpu_worker_without_a_gpu_takes_nothing(lp, mongo_database, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"), device="auto")
    with pytest.raises(UnfitError, match="category is gpu"):
        work(lp, FWorker(category=["gpu", "__none__"]), tmp_path)
    assert lp.launches.count_documents({}) == 0


_OUTPUTS = """
JOB_STORE:
  "@module": jobflow.core.store
  "@class": JobStore
  docs_store:
    "@module": phononbench_flows.cluster.outputs
    "@class": OutputsStore
    database: {database}
"""


@pytest.mark.slow
def test_in_an_environment_without_the_potentials_package_the_queue_stays_untouched(lp, mongo_database, tmp_path):
    """The whole command in a process of its own, where `toy_potentials` cannot be imported."""
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        add_chunk(lp, store, slow_crystals(store, 1, "toys"))
    before = list(lp.fireworks.find())
    (tmp_path / "jobflow.yaml").write_text(_OUTPUTS.format(database=mongo_database))
    environment = os.environ | {"JOBFLOW_CONFIG_FILE": str(tmp_path / "jobflow.yaml")}
    environment.pop("PYTHONPATH", None)
    program = Path(sysconfig.get_path("scripts")) / "phononbench"
    done = subprocess.run(
        [program, "worker", "--store", f"mongo:{mongo_database}"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "does not start, and nothing was taken" in done.stderr
    assert "toy_potentials" in done.stderr
    assert list(lp.fireworks.find()) == before
    assert lp.launches.count_documents({}) == 0
