"""The files for a cluster are what FireWorks, jobflow and Slurm take, and hold no secret."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest
import yaml
from fireworks import FWorker, LaunchPad, fw_config
from fireworks.utilities.fw_serializers import load_object_from_file
from jobflow.settings import JobflowSettings

from phononbench_flows.cluster.fworker import fworker
from phononbench_flows.cluster.launchpad import GPU, launchpad
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.cluster.queue import PatientAdapter
from phononbench_flows.settings_files import import_fireworks, import_jobflow
from phononbench_flows.store import DEFAULT_DATABASE

ROOT = Path(__file__).parents[2]
LAUNCHERS = ROOT / "launchers"


def test_no_file_holds_a_login():
    for file in [ROOT / "my_launchpad.yaml", *LAUNCHERS.glob("*.yaml")]:
        assert not re.search(r"(?i)passw|secret:|mongodb://", file.read_text()), file


def test_the_launchpad_is_on_this_machine_without_a_login():
    lp = LaunchPad.from_file(str(ROOT / "my_launchpad.yaml"))
    assert (lp.host, lp.port, lp.name) == ("localhost", 27017, DEFAULT_DATABASE)
    assert (lp.username, lp.password) == (None, None)
    lp.connection.close()


def test_the_category_has_its_worker():
    found = {file.name: FWorker.from_file(str(file)).category for file in LAUNCHERS.glob("my_fworker_*.yaml")}
    assert found == {"my_fworker_gpu.yaml": GPU}


def test_our_readers_take_them_as_fireworks_does(monkeypatch):
    for file in LAUNCHERS.glob("my_fworker_*.yaml"):
        assert fworker(file).to_dict() == FWorker.from_file(str(file)).to_dict()
    ours = launchpad(ROOT / "my_launchpad.yaml", database="x").to_dict()
    theirs = LaunchPad.from_file(str(ROOT / "my_launchpad.yaml")).to_dict()
    differing = {name for name in theirs if ours[name] != theirs[name]}
    assert differing == {"strm_lvl", "mongoclient_kwargs"}  # less is said, and the server is asked when it is needed
    monkeypatch.chdir(LAUNCHERS)
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", "jobflow.yaml")
    import_fireworks()
    import_jobflow()


def test_fireworks_knows_every_setting():
    settings = yaml.safe_load((LAUNCHERS / "FW_config.yaml").read_text())
    assert all(hasattr(fw_config, name) for name in settings)
    assert settings["RUN_EXPIRATION_SECS"] >= 4 * settings["PING_TIME_SECS"]


def test_jobflow_keeps_outputs_on_the_server_without_a_secret(monkeypatch):
    settings = JobflowSettings(CONFIG_FILE=str(LAUNCHERS / "jobflow.yaml"))
    store = settings.JOB_STORE.docs_store
    assert isinstance(store, OutputsStore)
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", "mongodb://me:hush@localhost/")
    settings.JOB_STORE.connect()
    assert "hush" not in f"{store.name} {store.as_dict()} {settings.JOB_STORE.as_dict()} {store!r}"


def test_the_queue_adapter_makes_a_complete_script():
    adapter = load_object_from_file(str(LAUNCHERS / "my_qadapter_gpu.yaml"))  # as `qlaunch` does
    assert isinstance(adapter, PatientAdapter)
    assert adapter.q_type == "SLURM"
    lines = adapter.get_script_str("/launch/here").splitlines()
    directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")]
    assert {"--gpus-per-node=1", "--partition=gpu", "--time=12:00:00", "--signal=B:TERM@90"} <= set(directives)
    assert not any(line.startswith("--account") for line in directives)
    command = 'exec bash "$PHONONBENCH_LAUNCHERS/pilot.sh" "$PHONONBENCH_LAUNCHERS/my_fworker_gpu.yaml"'
    assert command in lines
    assert 'export PATH="${VIRTUAL_ENV:-$CONDA_PREFIX}/bin:$PATH"' in lines


# ------------------------------------------------------------------------------------------------------ pilot.sh


@pytest.fixture
def pilot(tmp_path):
    """Starts pilot.sh with a `phononbench` that says how it was called and ends as it is told."""
    program = tmp_path / "bin" / "phononbench"
    program.parent.mkdir()
    program.write_text(
        "#!/usr/bin/env bash\n"
        'echo "$*; GPU ${CUDA_VISIBLE_DEVICES-unset}; threads $OMP_NUM_THREADS" >>"$CALLS"\n'
        'trap "echo told to stop; exit 0" TERM\n'
        'test "$END" = 0 || echo "this worker does not start: no GPU" >&2\n'
        "for ((i = 0; i < WAIT; i++)); do sleep 0.05; done\n"
        'exit "$END"\n'
    )
    program.chmod(0o755)
    (tmp_path / "job").mkdir()

    def start(
        *arguments: str, wait: int = 0, end: int = 0, stderr: IO[str] | None = None, **environment: str
    ) -> subprocess.Popen:
        plain = {k: v for k, v in os.environ.items() if k not in {"CUDA_VISIBLE_DEVICES", "SLURM_NTASKS"}}
        mine = {"CALLS": str(tmp_path / "calls"), "WAIT": str(wait), "END": str(end), "SLURM_CPUS_ON_NODE": "8"}
        path = f"{program.parent}:/usr/bin:/bin"
        command = ["bash", str(LAUNCHERS / "pilot.sh"), *arguments]
        environment = plain | mine | {"PATH": path} | environment
        return subprocess.Popen(command, cwd=tmp_path / "job", env=environment, stderr=stderr)

    return start


def calls(tmp_path: Path) -> list[str]:
    return sorted((tmp_path / "calls").read_text().splitlines())


def test_every_gpu_gets_a_worker(pilot, tmp_path):
    assert pilot("gpu.yaml", "--idle", "9", CUDA_VISIBLE_DEVICES="0,GPU-8f2").wait(20) == 0
    assert calls(tmp_path) == [
        "worker --fworker gpu.yaml --folder worker0 --idle 9; GPU 0; threads 4",
        "worker --fworker gpu.yaml --folder worker1 --idle 9; GPU GPU-8f2; threads 4",
    ]
    assert sorted(p.name for p in (tmp_path / "job").iterdir()) == ["worker0", "worker1"]


def test_without_gpus_every_task_gets_a_worker(pilot, tmp_path):
    assert pilot("cpu.yaml", SLURM_NTASKS="4").wait(20) == 0
    assert calls(tmp_path) == [f"worker --fworker cpu.yaml --folder worker{i}; GPU ; threads 2" for i in range(4)]


def test_why_a_worker_does_not_start_stands_in_the_jobs_output(pilot, tmp_path):
    with (tmp_path / "error").open("w") as error:
        assert pilot("gpu.yaml", end=2, stderr=error, CUDA_VISIBLE_DEVICES="0,1").wait(20) == 1
    said = (tmp_path / "error").read_text()
    assert said.count("this worker does not start: no GPU") == 2
    assert f"worker1 failed; the end of {tmp_path}/job/worker1/log:" in said


def test_the_end_of_the_job_is_passed_on_and_waited_for(pilot, tmp_path):
    process = pilot("gpu.yaml", wait=400, CUDA_VISIBLE_DEVICES="0,1")
    deadline = time.monotonic() + 20
    while not (tmp_path / "calls").exists() or len(calls(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    logs = [(tmp_path / "job" / f"worker{i}" / "log").read_text() for i in range(2)]
    assert logs == ["told to stop\n"] * 2
