"""Uploads that a cluster computes: each handed out once, whatever is killed, and judged by whoever works there."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cubic_crystals import FCC_SITES, cubic
from jobflow import SETTINGS, JobStore
from maggma.stores import MemoryStore
from serving import Server
from typer.testing import CliRunner
from worker_processes import ready_launchpad, start_worker

from phononbench_flows.cli import app
from phononbench_flows.cluster.launch import add_chunks, chunks
from phononbench_flows.cluster.launchpad import LEDGER, launchpad_settings, write_launchpad
from phononbench_flows.cluster.withdrawal import withdraw
from phononbench_flows.service.jobs import Jobs, JobState, QueueFullError
from phononbench_flows.service.settings import Judging, Limits
from phononbench_flows.service.worker import MOST_ATTEMPTS, work
from phononbench_flows.store import AwayError, ResultsStore
from phononbench_flows.store.connection import mongo_uri

pytest.importorskip("fastapi")

TOY = "toy_potentials:lj"
OPTIONS = ("--potential", TOY, "--protocol", "paper", "--max-atoms", "20", "--cluster")


def crystal(element: str, a: float) -> bytes:
    return cubic(a, [element] * 4, FCC_SITES).to(fmt="cif").encode()


COPPER, SILVER, ARGON = crystal("Cu", 3.6), crystal("Ag", 3.7), crystal("Ar", 3.55)


def files(folder: Path, database: str) -> dict[str, Path]:
    """Files that say where the LaunchPad and jobflow's outputs are: in a database of the server."""
    launchpad, jobflow = folder / "launchpad.yaml", folder / "jobflow.yaml"
    write_launchpad(launchpad, launchpad_settings(mongo_uri(), database))
    text = (Path(__file__).parents[2] / "launchers" / "jobflow.yaml").read_text()
    jobflow.write_text(text.replace("database: phononbench", f"database: {database}"))
    return {"launchpad": launchpad, "jobflow": jobflow}


@pytest.fixture
def take(tmp_path) -> Callable[..., Jobs]:
    """Does what the process beside the server does with the uploads of a store."""
    jobs = Jobs(tmp_path / "service")

    def take(database: str, *uploads: bytes, suffix: str = "_x.cif", **limits: int) -> Jobs:
        for data in uploads:
            jobs.add("x", suffix, data, 100)
        judging = Judging(TOY, "paper", cluster=True, launchpad=str(files(tmp_path, database)["launchpad"]))
        with ResultsStore.open(f"mongo:{database}") as store:
            work(jobs, store, judging, Limits(**limits), idle=0.5)
        return jobs

    return take


def states(jobs: Jobs) -> list[str]:
    return [job.state for job in reversed(jobs.latest())]


def handed_out(lp) -> list[list[str]]:
    """Keys of the chunks, each of which has one workflow and one entry in the ledger."""
    found = [chunk.keys for chunk, _ in chunks(lp) if not chunk.withdrawn]
    assert lp.workflows.count_documents({}) == lp.fireworks.count_documents({}) == len(found)
    return found


@pytest.mark.slow
def test_uploads_are_judged_by_workers_and_the_server_may_be_killed(mongo_database, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SLEEP", "0.2")
    lp = ready_launchpad(mongo_database)
    found = files(tmp_path, mongo_database)
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(found["jobflow"]))
    where = (f"mongo:{mongo_database}", *OPTIONS, "-l", str(found["launchpad"]), "--folder", str(tmp_path / "service"))
    server = Server(*where)
    status, copper = server.upload("../<b>.cif", COPPER)
    assert status == 202
    server.wait(lambda: server.json(f"/api/uploads/{copper['id']}")["state"] == "handed_out")
    found = server.json(f"/api/uploads/{copper['id']}")
    assert [(each["status"], each["computing"]) for each in found["crystals"]] == [("pending", False)]
    _, argon = server.upload("argon.cif", ARGON)
    server.kill()

    server = Server(*where)
    server.wait(lambda: server.json(f"/api/uploads/{argon['id']}")["state"] == "handed_out")
    large = cubic(4.1, ["Au"] * 4, FCC_SITES).make_supercell([2, 2, 2], in_place=False)
    _, large = server.upload("large.vasp", large.to(fmt="poscar").encode())
    assert [each["reason"] for each in server.finished(large["id"])["crystals"]] == ["too_many_atoms"]
    assert server.upload("flow.json.pkl", b"x")[0] == server.upload("paths.txt", b"/etc/passwd")[0] == 415
    expected = [
        [each["key"] for each in server.json(f"/api/uploads/{job['id']}")["crystals"]] for job in (copper, argon)
    ]
    assert handed_out(lp) == expected

    worker = start_worker(mongo_database, tmp_path / "work")
    server.wait(lambda: server.json(f"/api/uploads/{argon['id']}")["crystals"][0]["computing"])
    assert server.json(f"/api/uploads/{argon['id']}")["state"] == "handed_out"
    done = [server.finished(job["id"]) for job in (copper, argon)]
    assert [(job["state"], job["crystals"][0]["status"]) for job in done] == [("done", "stable")] * 2
    assert all(job["crystals"][0]["why"] for job in done)
    worker.join(120)
    assert worker.exitcode == 0
    assert handed_out(lp) == expected
    server.kill()


class Killed(BaseException):
    """Takes the place of SIGKILL."""


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("phononbench_flows.cluster.launch.add_chunks", id="before"),
        pytest.param("phononbench_flows.service.jobs.Jobs.hand_out", id="after"),
    ],
)
def test_killed_around_the_handing_out_an_upload_is_handed_out_once(place, take, mongo_database, monkeypatch):
    lp = ready_launchpad(mongo_database)

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, killed)
        with pytest.raises(Killed):
            take(mongo_database, COPPER, SILVER)
    assert lp.db[LEDGER].count_documents({}) == 1
    jobs = take(mongo_database)
    assert states(jobs) == [JobState.HANDED_OUT] * 2
    assert handed_out(lp) == [job.keys for job in jobs.that_are(JobState.HANDED_OUT)]


def test_what_was_judged_before_it_was_noted_is_not_handed_out_again(take, mongo_database, tmp_path, monkeypatch):
    lp = ready_launchpad(mongo_database)
    with monkeypatch.context() as patch:
        patch.setattr(Jobs, "hand_out", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            take(mongo_database, COPPER)
    worker = start_worker(mongo_database, tmp_path / "work")
    worker.join(120)
    assert states(take(mongo_database)) == [JobState.DONE]
    assert len(handed_out(lp)) == 1


def test_of_uploads_that_are_the_same_the_first_is_computed(take, mongo_database):
    lp = ready_launchpad(mongo_database)
    jobs = take(mongo_database, *[COPPER] * 3)
    assert states(jobs) == [JobState.HANDED_OUT, JobState.DONE, JobState.DONE]
    assert handed_out(lp) == [jobs.latest()[-1].keys]


def test_what_repeats_a_crystal_that_is_too_large_is_computed(take, mongo_database):
    lp = ready_launchpad(mongo_database)
    small = cubic(3.6, ["Cu"] * 4, FCC_SITES)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.vasp", small.make_supercell([2, 2, 2], in_place=False).to(fmt="poscar"))
        file.writestr("b.vasp", small.to(fmt="poscar"))
    (job,) = take(mongo_database, archive.getvalue(), suffix="_x.zip", atoms=20).latest()
    assert job.state == JobState.HANDED_OUT
    assert handed_out(lp) == [[key for key in job.keys if "b.vasp" in key]]


def test_a_chunk_that_was_taken_back_is_handed_out_with_the_next_upload(take, mongo_database):
    lp = ready_launchpad(mongo_database)
    take(mongo_database, COPPER)
    ((chunk, _),) = chunks(lp)
    assert withdraw(lp, chunk.hash, chunk.id)
    assert handed_out(lp) == []
    jobs = take(mongo_database, SILVER)
    keys = [key for job in jobs.that_are(JobState.HANDED_OUT) for key in job.keys]
    assert [key for chunk in handed_out(lp) for key in chunk] == keys


def test_limits_hold_before_anything_is_handed_out(take, mongo_database, tmp_path):
    lp = ready_launchpad(mongo_database)
    jobs = take(mongo_database, COPPER, SILVER, atoms=3)
    assert states(jobs) == [JobState.DONE] * 2
    assert handed_out(lp) == []
    full = take(mongo_database, COPPER)
    with pytest.raises(QueueFullError):
        full.add("silver.cif", "_x.cif", SILVER, 1)


def test_an_outage_is_no_uploads_fault(take, own_mongo, monkeypatch):
    monkeypatch.setenv("PHONONBENCH_WRITE_RETRY_S", "0.1")
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", f"{own_mongo.uri}?serverSelectionTimeoutMS=500")
    lp = ready_launchpad("outage")

    def cut_off(*arguments: Any) -> None:
        own_mongo.kill()
        add_chunks(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("phononbench_flows.cluster.launch.add_chunks", cut_off)
        for uploads in ([COPPER], *([[]] * MOST_ATTEMPTS)):
            with pytest.raises(AwayError):
                take("outage", *uploads)
            own_mongo.restart()
    jobs = take("outage")
    assert states(jobs) == [JobState.HANDED_OUT]
    assert handed_out(lp) == [job.keys for job in jobs.latest()]


def test_the_server_says_at_its_start_what_is_not_ready(mongo_database, tmp_path, monkeypatch):
    monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(MemoryStore()))

    def refused(where: object, *options: str) -> str:
        found = CliRunner().invoke(app, ["serve", str(where), "--port", "0", "--folder", str(tmp_path / "s"), *options])
        assert found.exit_code == 2
        return " ".join(found.stderr.split())

    mongo = f"mongo:{mongo_database}"
    options = (*OPTIONS, "-l", str(files(tmp_path, mongo_database)["launchpad"]))
    assert "need a MongoDB server" in refused(tmp_path, *OPTIONS)
    assert "without --potential none are taken" in refused(mongo, "--cluster")
    assert "goes with --cluster" in refused(mongo, "--potential", TOY, "-l", "launchpad.yaml")
    assert "has no indices yet: run `phononbench init-db`" in refused(mongo, *options)
    ready_launchpad(mongo_database)
    assert "set JOBFLOW_CONFIG_FILE" in refused(mongo, *options)
    assert "for a date: use another" in refused(mongo, *options, "--set", "20240101T000000")
    assert not (tmp_path / "s").exists()
