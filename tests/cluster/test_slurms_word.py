"""What Slurm says of a dead worker's job decides whether its crystals may be to blame. Its programs are made up."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from worker_processes import add_chunk, ready_launchpad, slow_crystals, start_worker, states, tidy, wait_for

from phononbench_flows.store import ResultsStore

SQUEUE = "#!/bin/sh\necho '8 0 RUNNING'\n"
SCONTROL = """#!/bin/sh
case "$*" in
    *config*) echo "ClusterName = here" ;;
    *) echo "JobId=7 JobState=$SAID Restarts=0 EndTime=$AT" ;;
esac
"""
SACCT = "#!/bin/sh\necho slurm_load_jobs error >&2\nexit 1\n"


@pytest.fixture
def lp(mongo_database, tmp_path, monkeypatch):
    for name, script in {"squeue": SQUEUE, "scontrol": SCONTROL, "sacct": SACCT}.items():
        program = tmp_path / "slurm" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("AT", f"{datetime.now(UTC) + timedelta(minutes=1):%FT%T}")
    return ready_launchpad(mongo_database)


def marks_of_a_killed_worker(lp, store: ResultsStore, folder: Path, number: int) -> list[tuple[int, int]]:
    """Attempts, and the excused among them, of two crystals, one of them a killer if it is asked for."""
    keys = slow_crystals(store, 2, "toys", {1: "Xe"})
    add_chunk(lp, store, keys, batch_atoms=256)
    worker = start_worker(store.spec["database"], folder, **({"deadly": "Xe"} if number == signal.SIGSEGV else {}))
    if number == signal.SIGKILL:
        wait_for(lambda: store.count({"attempts": 1, "excused": 1}) == 2)
        worker.kill()
    worker.join(120)
    assert worker.exitcode == -number
    excused = int(number == signal.SIGKILL)
    wait_for(lambda: store.count({"attempts": 1, "excused": excused}) == 2)  # by its witness
    return [(1, excused)] * 2


@pytest.mark.parametrize(
    ("number", "said", "spoken", "forgotten"),
    [
        pytest.param(signal.SIGKILL, "PREEMPTED", True, True, id="preempted"),
        pytest.param(signal.SIGKILL, "PREEMPTED", False, False, id="dead long before its job was preempted"),
        pytest.param(signal.SIGKILL, "TIMEOUT", True, False, id="out of time, which a crystal that hangs may cause"),
        pytest.param(signal.SIGKILL, "OUT_OF_MEMORY", True, False, id="out of memory"),
        pytest.param(signal.SIGSEGV, "CANCELLED", True, False, id="dead by itself, whatever became of the job"),
    ],
)
def test_a_job_that_somebody_ended_leaves_no_mark(
    number, said, spoken, forgotten, lp, mongo_database, tmp_path, monkeypatch
):
    monkeypatch.setenv("TOY_SLEEP", "0.5")
    monkeypatch.setenv("SAID", said)
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        marks = marks_of_a_killed_worker(lp, store, tmp_path / "work", number)
        if not spoken:
            long_ago = (datetime.now(UTC) - timedelta(days=1)).isoformat()
            lp.launches.update_one({}, {"$set": {"state_history.0.updated_on": long_ago}})
        reports = tidy(lp)
        assert f"its Slurm job 7 ended as {said}" in reports[0].said
        found = [(each.attempts, each.excused) for each in store.documents()]
        assert found == ([(0, 0)] * 2 if forgotten else marks)
    assert set(states(lp).values()) == {"READY"}
