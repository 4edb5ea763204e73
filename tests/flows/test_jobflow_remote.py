"""The same flows under jobflow-remote as under FireWorks: chunks of a set, and flows of one crystal."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cubic_crystals import FCC_SITES, cubic
from dummy_jobs import natoms, note_in_parts
from fireworks import FWorker
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, JobStore
from jobflow.managers.fireworks import flow_to_workflow
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from servers import fresh_database
from typer.testing import CliRunner

from phononbench_flows import StabilityMaker
from phononbench_flows.cli import app
from phononbench_flows.cluster.launchpad import init_launchpad, launchpad, launchpad_settings, write_launchpad
from phononbench_flows.cluster.outputs import OutputDataStore, OutputsStore
from phononbench_flows.store import ResultsStore

jobflow_remote = pytest.importorskip("jobflow_remote", reason="the extra jobflow-remote is not installed")

pytestmark = [pytest.mark.jobflow_remote, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
TOY = "toy_potentials:lj"
SECONDS = 1800.0
BODY_CENTRED = [[0, 0, 0], [0.5, 0.5, 0.5]]
HALITE_SITES = [*FCC_SITES, [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
TIME_AND_MACHINE = {"created_at", "updated_at", "timings", "provenance", "provenance_by_step"}


@pytest.fixture
def crystals(fcc, cu3au, simple_cubic, low_symmetry) -> dict[str, Structure]:
    """A dozen: stable and unstable ones, one whose forces are not finite, one on which the potential raises."""
    return {
        "cu": fcc,
        "cu3au": cu3au,
        "po": simple_cubic,
        "alloy": low_symmetry,
        "ag": cubic(3.7, ["Ag"] * 4, FCC_SITES),
        "aupt": cubic(3.65, ["Au", "Au", "Pt", "Pt"], FCC_SITES),
        "fe": cubic(2.9, ["Fe"] * 2, BODY_CENTRED),
        "cscl": cubic(2.95, ["Cs", "Cl"], BODY_CENTRED),
        "nacl": cubic(4.9, ["Na"] * 4 + ["Cl"] * 4, HALITE_SITES),
        "reo3": cubic(3.8, ["Re", "O", "O", "O"], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]),
        "xe": cubic(3.6, ["Xe"] * 4, FCC_SITES),
        "kr": cubic(3.6, ["Kr"] * 4, FCC_SITES),
    }


def outputs_in(database: str) -> JobStore:
    store = JobStore(OutputsStore(database), additional_stores={"data": OutputDataStore(database)})
    store.connect()
    return store


class Site:
    """A database with everything that a site has, and the commands that use it."""

    def __init__(self, folder: Path, database: str, uri: str) -> None:
        folder.mkdir()
        self.folder, self.database, self.outputs = folder, database, outputs_in(database)
        self.launchpad_file = folder / "my_launchpad.yaml"
        write_launchpad(self.launchpad_file, launchpad_settings(uri, database))
        self.lp = launchpad(self.launchpad_file, database=database)
        init_launchpad(self.lp)

    def submit(self, files: Path, *options: str) -> str:
        """`phononbench submit`, a few crystals in a chunk; gives what it says."""
        where = ["--store", f"mongo:{self.database}", "-l", str(self.launchpad_file)]
        arguments = ["submit", str(files), "--set", "toys", "--potential", TOY, "--chunk-cost", "3e3", *where, *options]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    def judged(self) -> dict[str, dict[str, Any]]:
        """The documents of the set, without what is of time and machine; arrays are there by their hashes."""
        with ResultsStore.open(f"mongo:{self.database}") as store:
            return {d.id: d.model_dump(exclude=TIME_AND_MACHINE) for d in store.documents()}

    def output(self, flow: Flow) -> dict[str, Any]:
        """The output of a flow of one crystal, phonons and all, without what is of time and machine."""
        found = self.outputs.query_one({"uuid": flow.job_uuids[0]}, load=True)["output"]
        for name in TIME_AND_MACHINE:
            found["calculation"].pop(name)
        if found["phonon"]:
            found["phonon"].pop("last_updated")
        return found


@pytest.fixture
def sites(mongo_uri, tmp_path) -> Iterator[tuple[Site, Site]]:
    """One for FireWorks, one for jobflow-remote."""
    with fresh_database(mongo_uri) as first, fresh_database(mongo_uri) as second:
        yield Site(tmp_path / "fireworks", first, mongo_uri), Site(tmp_path / "remote", second, mongo_uri)


@pytest.fixture
def jf(sites, monkeypatch) -> Iterator[Callable[..., str]]:
    """Runs a command of jobflow-remote, whose project is the one that is shipped, with a worker on this machine."""
    _, site = sites
    project = yaml.safe_load((ROOT / "launchers" / "jobflow_remote.yaml").read_text())
    for store in (
        project["queue"]["store"],
        project["jobstore"]["docs_store"],
        project["jobstore"]["additional_stores"]["data"],
    ):
        store["database"] = site.database
    work = site.folder / "work"
    project["workers"] = {"gpu": {"type": "local", "scheduler_type": "shell", "work_dir": str(work), "max_jobs": 2}}
    project["runner"] = dict.fromkeys(("delay_checkout", "delay_check_run_status", "delay_advance_status"), 1)
    (site.folder / "projects").mkdir()
    (site.folder / "projects" / "phononbench.yaml").write_text(yaml.safe_dump(project))
    monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(site.folder / "projects"))
    environment = {
        "JFREMOTE_PROJECTS_FOLDER": str(site.folder / "projects"),
        "HOME": str(site.folder),
        "PATH": f"{PROGRAMS}:/usr/bin:/bin",
        "PYTHONPATH": ":".join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "cluster"))),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [PROGRAMS / "jf", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("admin", "reset", "--yes")
    run("runner", "start", "--single")
    yield run
    run("runner", "shutdown", "--wait")


def ended(database: str) -> dict[tuple[str, int], str]:
    """Wait until jobflow-remote has nothing to do any more; gives the state of each job by its uuid and index."""
    jobs = OutputsStore(database, "jf_jobs")
    jobs.connect()
    deadline = time.monotonic() + SECONDS
    while True:
        found = {(row["uuid"], row["index"]): row["state"] for row in jobs.query({}, ["uuid", "index", "state"])}
        if set(found.values()) <= {"COMPLETED", "STOPPED"}:
            return found
        assert not {"FAILED", "REMOTE_ERROR"}.intersection(found.values()), found
        assert time.monotonic() < deadline, found
        time.sleep(1)


def flows_of(crystals: dict[str, Structure]) -> dict[str, Flow]:
    """A flow for each crystal: it is judged, and counted if it is stable."""
    flows = {}
    for name, structure in crystals.items():
        judging = StabilityMaker(potential=TOY, device="cpu").make(structure)
        flows[name] = Flow([judging, natoms(judging.output.structure)])
    return flows


def test_a_dozen_crystals_have_equal_documents_under_fireworks_and_jobflow_remote(
    crystals, sites, jf, tmp_path, monkeypatch
):
    fireworks, remotely = sites
    files = tmp_path / "crystals"
    files.mkdir()
    for name, structure in crystals.items():
        CifWriter(structure).write_file(files / f"{name}.cif")

    assert "12 crystals in 4 chunks added to the LaunchPad" in fireworks.submit(files)
    here = flows_of(crystals)
    for flow in here.values():
        fireworks.lp.add_wf(flow_to_workflow(flow))
    monkeypatch.setattr(SETTINGS, "JOB_STORE", fireworks.outputs)
    monkeypatch.chdir(fireworks.folder)
    rapidfire(fireworks.lp, FWorker(), str(fireworks.folder), sleep_time=0, max_loops=1)

    chunks = remotely.folder / "chunks"
    assert "12 crystals in 4 chunks written" in remotely.submit(files, "--write", str(chunks))
    command = [sys.executable, ROOT / "launchers" / "hand_to_jobflow_remote.py", chunks, "gpu"]
    for said in ("handed out", "is there"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == [said] * 4
    there = flows_of(crystals)
    for flow in there.values():
        jobflow_remote.submit_flow(flow, worker="gpu")
    out_of_time = note_in_parts(str(tmp_path / "words"), "part", 2)
    jobflow_remote.submit_flow(out_of_time, worker="gpu")
    states = ended(remotely.database)

    judged = remotely.judged()
    assert len(judged) == 12
    assert {each["status"] for each in judged.values()} >= {"stable", "unstable", "failed"}
    assert judged == fireworks.judged()
    for name in crystals:
        found = remotely.output(there[name])
        assert found == fireworks.output(here[name])
        assert states[there[name].job_uuids[1], 1] == ("COMPLETED" if found["is_stable"] else "STOPPED")
    assert states[out_of_time.uuid, 2] == "COMPLETED"
