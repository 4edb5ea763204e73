"""The end of a Slurm job reaches the workers: by the time limit, by `scancel`, by a requeue, on a real Slurm.

The workers are a script that notes what it is told, since it is Slurm, the adapters and pilot.sh that are tested.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fireworks.utilities.fw_serializers import load_object_from_file
from slurm_cluster import SlurmCluster

from phononbench_flows.cluster import slurm as slurm_words

LAUNCHERS = Path(__file__).parents[2] / "launchers"
WORKER = """\
#!/usr/bin/env bash
trap 'echo "told $(date +%s)" >>"$SIGNS"; exit 0' TERM
echo "began $(date +%s)" >>"$SIGNS"
for ((i = 0; i < 3000; i++)); do sleep 0.1; done
"""

pytestmark = pytest.mark.slurm


@pytest.fixture
def submitted(tmp_path, slurm: SlurmCluster) -> Callable[..., str]:
    """Hands the script of the GPU adapter to Slurm as `qlaunch` does, once it runs; gives the job's number."""
    program = tmp_path / "bin" / "phononbench"
    program.parent.mkdir()
    program.write_text(WORKER)
    program.chmod(0o755)

    def submit(*options: str, **changed: str) -> str:
        adapter = load_object_from_file(str(LAUNCHERS / "my_qadapter_gpu.yaml"))
        adapter.update({"mem": "500M", "cpus_per_task": 1, "pre_rocket": f'export PATH="{program.parent}:$PATH"'})
        adapter.update(changed)
        (tmp_path / "job.sh").write_text(adapter.get_script_str(str(tmp_path)))
        environment = os.environ | {"SIGNS": str(signs(tmp_path)), "PHONONBENCH_LAUNCHERS": str(LAUNCHERS)}
        command = [shutil.which("sbatch") or "sbatch", "--parsable", *options, tmp_path / "job.sh"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        wait_for(lambda: said(tmp_path, "began"))
        return done.stdout.strip()

    return submit


def signs(folder: Path) -> Path:
    return folder / "signs"


def said(folder: Path, word: str) -> list[int]:
    """The times at which a worker wrote this word."""
    lines = signs(folder).read_text().splitlines() if signs(folder).exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


def wait_for(there: Callable[[], object], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def state(slurm: SlurmCluster, job: str) -> str:
    words = slurm.ask("scontrol", "--oneliner", "show", "job", job).split()
    return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "")


def test_a_worker_is_told_before_its_time_limit_and_ends_its_job_in_order(submitted, slurm, tmp_path):
    job = submitted(walltime="00:02:00")
    wait_for(lambda: state(slurm, job) == "COMPLETED")  # and neither TIMEOUT nor FAILED
    assert len(said(tmp_path, "told")) == 1
    assert said(tmp_path, "told")[0] - said(tmp_path, "began")[0] < 100  # of 120: the signal comes 90 before the end


def test_scancel_tells_the_workers(submitted, slurm, tmp_path):
    job = submitted(walltime="00:10:00")
    slurm.ask("scancel", job)
    wait_for(lambda: state(slurm, job) == "CANCELLED")
    end = slurm_words.end_of(job)
    assert end.word == "CANCELLED"
    assert abs(datetime.now(UTC) - end.at) < timedelta(minutes=1)
    wait_for(lambda: said(tmp_path, "told"))


def test_a_requeued_job_tells_its_workers_and_starts_anew(submitted, slurm, tmp_path):
    job = submitted("--requeue", walltime="00:10:00")
    slurm.ask("scontrol", "requeue", job)
    wait_for(lambda: slurm_words.jobs().restarts[job] == 1)
    assert slurm_words.end_of(job, 0) == slurm_words.End("REQUEUED", None)
    assert slurm_words.end_of(job, 1) is None
    wait_for(lambda: said(tmp_path, "told"))
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # else it rests for two minutes
    wait_for(lambda: len(said(tmp_path, "began")) == 2, 240)
    slurm.ask("scancel", "--full", job)
