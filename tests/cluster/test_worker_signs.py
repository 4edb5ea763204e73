"""By what a worker is known, what it asks of Slurm, and what a job finds out about its firework."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from jobflow import CURRENT_JOB

from phononbench_flows.cluster import liveness, slurm
from phononbench_flows.cluster.liveness import identity, is_alive
from phononbench_flows.cluster.slurm import End
from phononbench_flows.cluster.worker import _heed_slurm
from phononbench_flows.flows import time_limit
from phononbench_flows.flows.launched import Launch, current_launch


@pytest.fixture
def answers(monkeypatch):
    """What Slurm's commands say, by the command."""
    said: dict[str, str | None] = {}
    monkeypatch.setattr(slurm, "_answer", lambda program, *_: said.get(program))
    return said


def test_a_process_is_alive_until_it_ends_even_if_nobody_waited_for_it():
    program = (
        f"import json; from {liveness.__name__} import identity; print(json.dumps(identity()), flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker = json.loads(process.stdout.readline())
    assert worker["pid"] == process.pid
    assert is_alive(worker, None) is True
    assert is_alive(worker | {"started": worker["started"] - 1}, None) is False, "its pid went to another"
    process.kill()
    deadline = time.monotonic() + 30
    while is_alive(worker, None) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_alive(worker, None) is False
    process.communicate()
    assert is_alive(worker, None) is False


def test_machines_are_told_apart_where_linux_does_not_name_them(monkeypatch):
    monkeypatch.setattr(liveness.Path, "is_file", lambda _: False)
    here = identity()
    assert is_alive(here, None) is True
    assert identity()["machine"] == here["machine"]
    monkeypatch.setattr(liveness.uuid, "getnode", lambda: 0x1234)
    assert is_alive(here, None) is None
    assert identity()["machine"] == "000000001234"


def test_identity_is_plain_json():
    assert json.loads(json.dumps(identity())) == identity()


def test_jobs_of_the_cluster(answers):
    assert slurm.jobs() is None
    answers["squeue"] = "12   0   RUNNING\n13   2   PENDING\n14   3   COMPLETING\n"
    assert slurm.jobs() is None, "whose jobs?"
    answers["scontrol"] = "Configuration data\nClusterName             = leonardo\nSlurmUser = slurm(64)\n"
    assert slurm.jobs() == slurm.Jobs("leonardo", {"12": 0, "13": 2, "14": None})


SCONTROL = "JobId=7 JobName=x Requeue=1 Restarts={} JobState={} StartTime=2026-01-31T10:00:00 EndTime={} Deadline=N/A\n"
NOON = "date -d 2026-01-31T12:00:00Z +%FT%T"
AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("restarts", "scontrol", "sacct", "end"),
    [
        pytest.param(0, SCONTROL.format(0, "PREEMPTED", "2026-01-31T12:00:00"), None, End("PREEMPTED", AT), id="plain"),
        pytest.param(0, SCONTROL.format(0, "COMPLETING", "Unknown"), None, None, id="it goes on"),
        pytest.param(1, SCONTROL.format(1, "NODE_FAIL", "Unknown"), None, End("NODE_FAIL", None), id="no time"),
        pytest.param(0, None, "CANCELLED by 1000|2026-01-31T12:00:00\n", End("CANCELLED", AT), id="forgotten"),
        pytest.param(0, SCONTROL.format(1, "RUNNING", "Unknown"), None, End("REQUEUED", None), id="requeued"),
        pytest.param(
            1,
            SCONTROL.format(2, "PENDING", "Unknown"),
            "NODE_FAIL|2026-01-31T09:00:00\nPREEMPTED|2026-01-31T12:00:00\nPENDING|Unknown\n",
            End("PREEMPTED", AT),
            id="requeued twice, with accounting",
        ),
        pytest.param(0, None, None, None, id="nobody knows"),
        pytest.param(0, None, "RUNNING|Unknown\n", None, id="of another time"),
    ],
)
def test_how_a_run_of_a_job_ended(restarts, scontrol, sacct, end, answers):
    answers.update(scontrol=scontrol, sacct=sacct)
    assert slurm.end_of("7", restarts) == end


def test_times_are_in_utc_wherever_the_cluster_is(monkeypatch, tmp_path):
    script = tmp_path / "scontrol"
    script.write_text(f"#!/bin/sh\necho '{SCONTROL.format(0, 'TIMEOUT', '')}' | sed s/EndTime=/EndTime=$({NOON})/\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "America/New_York")
    assert slurm.end_of("7") == End("TIMEOUT", AT)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("1:30", 90), ("2:00:00", 7200), ("1-00:00:01", 86401), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_time_left(said, seconds, answers):
    answers["squeue"] = f"{said}\n"
    assert slurm.seconds_left("7") == seconds


def test_a_program_that_fails_or_is_not_there_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.jobs() is None
    script = tmp_path / "squeue"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    assert slurm.seconds_left("7") is None


@pytest.mark.parametrize(
    ("job", "end", "said", "left"),
    [
        pytest.param(None, None, "10:00", float("inf"), id="no Slurm"),
        pytest.param("7", None, "10:00", 600 - time_limit.MARGIN_SECONDS, id="an old Slurm, asked"),
        pytest.param("7", 1000.0, "10:00", 1000 - time_limit.MARGIN_SECONDS, id="a new Slurm, which says so itself"),
        pytest.param("7", None, "UNLIMITED", float("inf"), id="no limit"),
    ],
)
def test_a_worker_heeds_the_end_of_its_job(job, end, said, left, answers, monkeypatch):
    monkeypatch.setattr(time_limit, "_state", time_limit._State())
    for name, value in (("SLURM_JOB_ID", job), ("SLURM_JOB_END_TIME", end and str(time.time() + end))):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    answers["squeue"] = said
    _heed_slurm()
    assert time_limit.seconds_left() == pytest.approx(left, abs=5)


def test_a_job_knows_the_launch_that_runs_it_and_no_other(tmp_path, monkeypatch):
    def current(uuid: str | None) -> Launch | None:
        monkeypatch.setattr(CURRENT_JOB, "job", uuid and SimpleNamespace(uuid=uuid))
        return current_launch()

    monkeypatch.chdir(tmp_path)
    assert current("u") is None
    firework = {
        "fw_id": 3,
        "spec": {"_tasks": [{"job": {"uuid": "u"}}]},
        "launches": [{"launch_id": 8}, {"launch_id": 9}],
    }
    (tmp_path / "FW.json").write_text(json.dumps(firework))
    assert current("u") == Launch(3, 9)
    assert current("another") is None
    assert current(None) is None
    (tmp_path / "FW.json").write_text(json.dumps(firework | {"launches": []}))
    assert current("u") is None
    (tmp_path / "FW.json").write_text(json.dumps({"fw_id": 3, "spec": {"_tasks": [{"script": ["true"]}]}}))
    assert current("u") is None
