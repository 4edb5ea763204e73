"""Workers are killed at any moment, and nothing is lost: the janitor brings every firework to its end."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from dummy_jobs import note, note_in_a_flow, note_in_parts
from jobflow import Flow, JobStore
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure
from screened import TOY, crystal_set, put_waiting
from worker_processes import (
    add,
    add_chunk,
    finish,
    lines,
    ready_launchpad,
    slow_crystals,
    start_worker,
    states,
    tidy,
    wait_for,
)

from phononbench_flows.cluster.janitor import Limits
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.flows import ChunkMaker
from phononbench_flows.protocol import PRESETS, SpectrumSettings
from phononbench_flows.steps import references
from phononbench_flows.store import ResultsStore


@pytest.fixture
def lp(mongo_database):
    return ready_launchpad(mongo_database)


def plain(file: Path) -> Flow:
    """A job and one that waits for it."""
    first = note(str(file), "first")
    return Flow([first, note(str(file), "last", first.output)])


def in_parts(file: Path) -> Flow:
    """The same, where the first job's time runs out once."""
    first = note_in_parts(str(file), "first", 2)
    return Flow([first, note(str(file), "last", first.output)])


def by_a_flow(file: Path) -> Flow:
    """The same, where the first job is replaced by a flow."""
    first = note_in_a_flow(str(file), "first")
    return Flow([first, note(str(file), "last", first.output)])


def answers(database: str, folder: Path, flow: Flow, lp) -> int:
    """How often the database answers while a worker takes, runs and gives back one firework."""
    add(lp, flow)
    start_worker(database, folder, kill_after=None).join(120)
    finish(database, folder, lp)
    return int((folder / "answers").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("make", [plain, in_parts, by_a_flow])
def test_a_firework_survives_a_kill_after_any_command(make, lp, mongo_database, tmp_path):
    words = tmp_path / "words"
    outputs = OutputsStore(mongo_database)
    outputs.connect()
    n = answers(mongo_database, tmp_path / "work", make(words), lp)
    assert n > 30
    for k in range(1, n + 1):
        words.unlink()
        flow = make(words)
        ids = add(lp, flow)
        worker = start_worker(mongo_database, tmp_path / "work", kill_after=k)
        worker.join(120)
        assert worker.exitcode == -9
        finish(mongo_database, tmp_path / "work", lp)
        workflow = lp.workflows.find_one({"nodes": ids[0]})
        found = states(lp)
        assert {found[fw_id] for fw_id in workflow["nodes"]} == {"COMPLETED"}, k
        assert workflow["state"] == "COMPLETED"
        assert "locked" not in workflow
        assert outputs.query_one({"uuid": flow.jobs[-1].uuid})["output"] == ["first", "last"]


# Beside workers that live the janitor has to wait for what they are about to write.
PATIENT = Limits(lock=1.0, settle=3.0)


@pytest.mark.parametrize(
    ("crystals", "kills"), [pytest.param(20, 6, marks=pytest.mark.slow, id="twenty"), pytest.param(3, 2, id="three")]
)
def test_workers_killed_at_random_cost_at_most_one_crystal_each(
    crystals, kills, lp, mongo_database, tmp_path, monkeypatch
):
    monkeypatch.setenv("TOY_SLEEP", "0.02")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "calls"))
    finished = tmp_path / "finished"
    chance = random.Random(20251222)
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = [slow_crystals(store, crystals, name) for name in ("one", "two")]
        for chunk in keys:
            add_chunk(lp, store, chunk)
        workers = [start_worker(mongo_database, tmp_path / "work", finished=str(finished)) for _ in keys]
        for _ in range(kills):
            seen = len(lines(finished))
            more = chance.randint(10, 18) if crystals > 9 else 2
            wait_for(lambda: len(lines(finished)) >= seen + more or not any(w.is_alive() for w in workers))  # noqa: B023
            victim = chance.choice([w for w in workers if w.is_alive()])
            victim.kill()
            victim.join()
            tidy(lp, PATIENT)
            workers = [w for w in workers if w.is_alive()]
            workers.append(start_worker(mongo_database, tmp_path / "work", finished=str(finished)))
        for worker in workers:
            worker.join(300)
        finish(mongo_database, tmp_path / "work", lp, finished=str(finished))
        assert set(states(lp).values()) == {"COMPLETED"}
        results = list(store.documents())
    assert sorted(d.key for d in results) == sorted(keys[0] + keys[1])
    assert {(d.status, d.attempts) for d in results} == {("stable", 0)}
    computed = Counter(lines(finished))
    assert len(computed) == 3 * 2 * crystals
    assert computed.total() - len(computed) <= kills


RUNGS = PRESETS["converged"].model_copy(update={"spectrum": SpectrumSettings(path_points=11, mesh=(4, 4, 4))})


def verdicts(store: ResultsStore) -> dict[str, tuple]:
    return {
        d.id: (
            d.status,
            d.stage,
            d.attempts,
            round(d.minimum.frequency, 4),
            [round(e.frequency, 4) for e in d.evidence.exact],
        )
        for d in store.documents()
    }


@pytest.mark.parametrize(
    "step",
    [
        each if each in {"proof", "exact_looks"} else pytest.param(each, marks=pytest.mark.slow)
        for each in references(RUNGS)
    ],
)
def test_a_worker_killed_on_any_rung_of_the_ladder_costs_no_verdict(step, lp, mongo_database, tmp_path, cu3au):
    """One crystal that goes all the way up, and one that a proof settles."""
    stacked = Structure(Lattice.tetragonal(2.4, 7.2), ["Cu", "Ag", "Au"], [[0, 0, 0], [0, 0, 1 / 3], [0, 0, 2 / 3]])
    crystals = {"stable": cu3au, "proven": stacked}
    with ResultsStore.open(tmp_path / "undisturbed", create=True) as store:
        keys = put_waiting(store, crystal_set(protocol=RUNGS), crystals)
        maker = ChunkMaker(
            store=store.spec, protocol=RUNGS.model_dump(mode="json"), potential=TOY, device="cpu", batch_atoms=256
        )
        run_locally(maker.make(keys), store=JobStore(MemoryStore()), log=False, raise_immediately=True)
        expected = verdicts(store)
    assert {each[:2] for each in expected.values()} == {("stable", "exact_looks"), ("unstable", "proof")}
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = put_waiting(store, crystal_set(protocol=RUNGS), crystals)
        add_chunk(lp, store, keys, protocol=RUNGS, batch_atoms=256)
        worker = start_worker(mongo_database, tmp_path / "work", killed_in=step)
        worker.join(300)
        assert worker.exitcode == -9
        assert verdict_count(store) < 2
        finish(mongo_database, tmp_path / "work", lp)
        assert verdicts(store) == expected


def verdict_count(store: ResultsStore) -> int:
    return store.count({"status": {"$in": ["stable", "unstable"]}})


def test_a_crystal_that_kills_its_workers_is_set_aside_and_the_others_are_judged(lp, mongo_database, tmp_path):
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = slow_crystals(store, 5, "toys", {3: "Xe"})
        add_chunk(lp, store, keys, batch_atoms=256)
        codes = []
        while set(states(lp).values()) != {"COMPLETED"}:
            worker = start_worker(mongo_database, tmp_path / "work", deadly="Xe")
            worker.join(120)
            codes.append(worker.exitcode)
            tidy(lp)
            assert len(codes) < 7
        assert codes == [-11] * 4 + [0]
        results = {d.key: d for d in store.documents()}
    guilty = results.pop(keys[3])
    assert (guilty.status, guilty.reason, guilty.stage) == ("failed", "killed_worker", "screened")
    assert {d.status for d in results.values()} == {"stable"}
    assert len(results) == 4


@pytest.mark.slow
def test_a_storm_of_kills_from_outside_is_no_crystals_fault(lp, mongo_database, tmp_path, monkeypatch):
    """Twelve workers killed over each crystal, which takes longer than any of them lives."""
    monkeypatch.setenv("TOY_SLEEP", "3")
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = slow_crystals(store, 2, "toys", {1: "Ne"})
        add_chunk(lp, store, keys, batch_atoms=256)

        def begun() -> int:
            return sum(document.attempts for document in store.documents())

        for _ in range(24):
            before, worker = begun(), start_worker(mongo_database, tmp_path / "work")
            wait_for(lambda: begun() > before or not worker.is_alive())  # noqa: B023
            worker.kill()
            worker.join()
            tidy(lp)
        assert {d.status for d in store.documents()} == {"pending"}
        assert all(d.attempts == d.excused >= 12 for d in store.documents())
        monkeypatch.setenv("TOY_SLEEP", "0")
        codes = []
        while set(states(lp).values()) != {"COMPLETED"}:
            worker = start_worker(mongo_database, tmp_path / "work", deadly="Ne")
            worker.join(120)
            codes.append(worker.exitcode)
            tidy(lp)
            assert len(codes) < 7
        results = {d.key: (d.status, d.reason) for d in store.documents()}
    assert results == {keys[0]: ("stable", None), keys[1]: ("failed", "killed_worker")}


@pytest.mark.slow
def test_a_worker_that_wakes_up_after_its_successor_puts_nothing_back(lp, mongo_database, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SLEEP", "0.05")
    finished = tmp_path / "finished"
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        keys = slow_crystals(store, 3, "toys")
        (fw_id, *_) = add_chunk(lp, store, keys)
        sleeper = start_worker(mongo_database, tmp_path / "first", finished=str(finished))
        wait_for(lambda: lines(finished))
        os.kill(sleeper.pid, signal.SIGSTOP)
        # As the janitor of another machine would.
        lp.mark_fizzled(lp.launches.find_one({"fw_id": fw_id})["launch_id"])
        lp.rerun_fw(fw_id)
        start_worker(mongo_database, tmp_path / "second").join(120)
        assert set(states(lp).values()) == {"COMPLETED"}
        judged = {d.key: d for d in store.documents()}
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.join(120)
        assert sleeper.exitcode == 0
        tidy(lp)
        assert {d.key: d for d in store.documents()} == judged
    assert {d.status for d in judged.values()} == {"stable"}
    assert set(states(lp).values()) == {"COMPLETED"}
