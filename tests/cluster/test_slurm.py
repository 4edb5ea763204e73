"""The way of launchers/README.md on a real Slurm: submit, lpad add, qlaunch, workers in Slurm jobs, results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from fireworks import LaunchPad
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from slurm_cluster import SlurmCluster

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.store import ResultsStore

ROOT = Path(__file__).parents[2]
LAUNCHERS = ROOT / "launchers"
PROGRAMS = Path(sys.executable).parent
SAME_THZ = 0.02  # batches differ, and with them the last digits of every relaxation

pytestmark = pytest.mark.slurm


@dataclass
class Site:
    """A user's account on the cluster, set up as launchers/README.md says.

    Attributes:
        home: has ~/.fireworks.
        launchers: copies of the launchers' files, with the queue adapters made to fit.
        environment: of every command.
        database: of the LaunchPad and the results.
        slurm: the cluster.
        devices: CUDA_VISIBLE_DEVICES of the workers that were seen, by process and Slurm job.
    """

    home: Path
    launchers: Path
    environment: dict[str, str]
    database: str
    slurm: SlurmCluster
    devices: dict[tuple[int, str], str] = field(default_factory=dict)

    def run(self, *command: object) -> str:
        """Standard output of a command that has to succeed."""
        program, *arguments = map(str, command)
        done = subprocess.run(
            [PROGRAMS / program, *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=7200,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def launch(self, kind: str, jobs: int, seconds: float) -> None:
        """`qlaunch rapidfire` until nothing waits for workers of this kind, and those that it brought have ended."""
        adapter, fworker = self.launchers / f"my_qadapter_{kind}.yaml", self.launchers / f"my_fworker_{kind}.yaml"
        options = ["--maxjobs_queue", str(jobs), "--sleep", "2", "--timeout", str(seconds)]
        command = [PROGRAMS / "qlaunch", "-q", adapter, "-w", fworker, "rapidfire", *options]
        deadline = time.monotonic() + seconds
        with (self.home / f"qlaunch_{kind}.log").open("w") as log:
            qlaunch = subprocess.Popen(command, env=self.environment, cwd=self.home, stdout=log, stderr=log)
        try:
            while qlaunch.poll() is None or self.slurm.ask("squeue", "--noheader"):
                assert time.monotonic() < deadline, "jobs do not end"
                self._watch()
                time.sleep(0.5)
        finally:
            qlaunch.kill()
        assert qlaunch.returncode == 0

    def _watch(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if "worker" in line and any(word.endswith("phononbench") for word in line):
                try:
                    environment = process.environ()
                except psutil.Error:
                    continue
                if environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    key = (process.pid, environment.get("SLURM_JOB_ID", ""))
                    self.devices[key] = environment.get("CUDA_VISIBLE_DEVICES", "")

    def logs(self) -> str:
        """What the workers and the queue said, for a test that fails."""
        found = [*self.home.rglob("log"), *self.home.glob("*.log"), *self.home.rglob("*.error")]
        return "".join(f"\n{path}:\n{path.read_text()[-3000:]}" for path in found)


@pytest.fixture
def site(tmp_path, slurm: SlurmCluster, mongo_uri, mongo_database) -> Site:
    home, launchers = tmp_path / "home", tmp_path / "launchers"
    home.mkdir()
    shutil.copytree(LAUNCHERS, launchers)
    jobflow = (launchers / "jobflow.yaml").read_text()
    (launchers / "jobflow.yaml").write_text(jobflow.replace("database: phononbench", f"database: {mongo_database}"))
    kept = {"PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SLURM_CONF", "PHONONBENCH_MONGO_URI"}
    environment = {name: value for name, value in os.environ.items() if name in kept} | {
        "HOME": str(home),
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(PROGRAMS.parent),
        "PYTHONPATH": str(ROOT / "tests"),
        "PHONONBENCH_LAUNCHERS": str(launchers),
        "PHONONBENCH_STORE": f"mongo:{mongo_database}",
        "JOBFLOW_CONFIG_FILE": str(launchers / "jobflow.yaml"),
    }
    site = Site(home, launchers, environment, mongo_database, slurm)
    site.run("phononbench", "launchpad")
    shutil.copy(LAUNCHERS / "FW_config.yaml", home / ".fireworks")
    site.run("phononbench", "init-db")
    return site


def fit(site: Site, kind: str, **resources: object) -> None:
    """Change a queue adapter to what the test's cluster has."""
    file = site.launchers / f"my_qadapter_{kind}.yaml"
    adapter = yaml.safe_load(file.read_text()) | {"mem": "1G", "walltime": "00:30:00"} | resources
    file.write_text(yaml.safe_dump(adapter))


def toys(folder: Path) -> Path:
    """Close-packed crystals, which the toy potential holds for stable, others, and some that come to nothing."""
    folder.mkdir()
    fcc = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    for i, element in enumerate(["Cu", "Ag", "Au", "Ni", "Pd", "Pt"]):
        crystals = {
            "fcc": Structure(Lattice.cubic(3.6 + 0.02 * i), [element] * 4, fcc),
            "cu3au": Structure(Lattice.cubic(3.7), ["Hf", *[element] * 3], fcc),
            "simple": Structure(Lattice.cubic(2.4), [element], [[0, 0, 0]]),
        }
        for name, crystal in crystals.items():
            CifWriter(crystal).write_file(folder / f"{element}_{name}.cif")
    CifWriter(Structure(Lattice.cubic(3.6), ["Kr"] * 4, fcc)).write_file(folder / "raises.cif")
    CifWriter(Structure(Lattice.cubic(3.6), ["Xe", "Cu", "Cu", "Cu"], fcc)).write_file(folder / "nan.cif")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a")
    return folder


def judged(site: Site, set_name: str) -> dict[str, CalculationDocument]:
    with ResultsStore.open(f"mongo:{site.database}") as store:
        return {document.id: document for document in store.documents({"set": set_name})}


def assert_same_as_local(site: Site, set_name: str, *run: object) -> Counter[str]:
    """Compare every document with that of `phononbench run`; gives the number of crystals by status."""
    out = site.home / "local"
    site.run("phononbench", "run", *run, "--set", set_name, "--device", "cpu", "--out", out)
    with ResultsStore.open(out, create=True) as store:
        local = {document.id: document for document in store.documents({"set": set_name})}
    found = judged(site, set_name)
    assert found.keys() == local.keys()
    for name, ours in found.items():
        theirs = local[name]
        assert (ours.status, ours.reason, ours.stage) == (theirs.status, theirs.reason, theirs.stage), name
        for one, other in zip(ours.assessments, theirs.assessments, strict=True):
            assert (one.stability, one.where, one.marginal) == (other.stability, other.where, other.marginal), name
            assert abs(one.threshold - other.threshold) < SAME_THZ, name
        assert ours.evidence.looks.keys() == theirs.evidence.looks.keys(), name
        if ours.minimum and theirs.minimum:
            assert abs(ours.minimum.frequency - theirs.minimum.frequency) < SAME_THZ, name
        for place, look in ours.evidence.looks.items():
            assert abs(look.frequency - theirs.evidence.looks[place].frequency) < SAME_THZ, f"{name} {place}"
    return Counter(str(document.status) for document in found.values())


def assert_all_completed(site: Site) -> None:
    lp = LaunchPad.from_file(str(site.home / ".fireworks" / "my_launchpad.yaml"))
    states = Counter(firework["state"] for firework in lp.fireworks.find({}, {"state": 1}))
    assert set(states) == {"COMPLETED"}, f"{states}{site.logs()}"


def test_a_job_with_two_gpus_runs_a_worker_on_each(site, tmp_path):
    crystals = toys(tmp_path / "crystals")
    fit(site, "gpu", gpus_per_node=2, cpus_per_task=2)
    options = ["--set", "toys", "--potential", "toy_potentials:lj", "--device", "cpu"]
    said = site.run("phononbench", "submit", crystals, *options, "--chunk-cost", "2000")
    assert "21 crystals, 21 new" in said
    site.launch("gpu", jobs=1, seconds=400)
    assert_all_completed(site)
    gpus = {device for device in site.devices.values() if device}
    assert gpus == {"0", "1"}, f"{site.devices}{site.logs()}"
    counts = assert_same_as_local(site, "toys", crystals, "--potential", "toy_potentials:lj")
    assert counts == {"stable": 12, "unstable": 6, "failed": 2, "rejected": 1}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.sevennet
def test_sixty_real_crystals_by_lpad_add_and_qlaunch(site, tmp_path, shared_data):
    crystals = tmp_path / "crystals"
    for model in ("MatterGen", "CDVAE", "CrystaLLM"):
        (crystals / model).mkdir(parents=True)
        for file in smallest(shared_data / "generated" / model, 20):
            shutil.copy(file, crystals / model)
    fit(site, "gpu", gpus_per_node=1, cpus_per_task=1, walltime="04:00:00")
    submit = ["submit", crystals, "--set", "real", "--potential", "sevennet-0", "--device", "cpu"]
    site.run("phononbench", *submit, "--write", "flows", "--chunk-cost", "8000")
    files = sorted((site.home / "flows").glob("*.json"))
    assert len(files) > 3
    site.run("lpad", "add", *files)
    assert "0 crystals in 0 chunks added" in site.run("phononbench", *submit)
    site.launch("gpu", jobs=2, seconds=14400)
    assert_all_completed(site)
    assert {device for device in site.devices.values() if device} == {"0", "1"}
    counts = assert_same_as_local(site, "real", crystals, "--potential", "sevennet-0")
    assert counts.total() == 60
    assert not counts["pending"]


def smallest(folder: Path, n: int) -> list[Path]:
    """The crystals of fewest atoms, by name among equals."""
    return sorted(folder.glob("*.cif"), key=lambda file: (len(Structure.from_file(file)), file.name))[:n]
