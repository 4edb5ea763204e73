"""Workers that refuse say so where it counts, and the queue is not fed for them meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fireworks import FWorker
from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from fireworks.utilities.fw_serializers import load_object_from_file
from test_launchers import LAUNCHERS
from worker_processes import ready_launchpad

from phononbench_flows.cluster import queue, refusals
from phononbench_flows.cluster.preflight import UnfitError
from phononbench_flows.cluster.worker import work


@pytest.fixture
def lp(mongo_database):
    return ready_launchpad(mongo_database)


def test_each_refusal_waits_longer_until_a_worker_begins(lp, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NAME", "phononbench-gpu")
    gpu = FWorker("gpu", "gpu", {})
    waits = []
    for _ in range(8):
        refusals.record(lp, gpu, "GPU", "torch sees none")
        (found,) = refusals.refusals(lp)
        waits.append((found.until - found.at) / timedelta(minutes=1))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (found.number, found.why) == (8, "torch sees none")
    assert refusals.in_the_way(lp, "phononbench-gpu") == found
    assert refusals.in_the_way(lp, "phononbench-cpu") is None
    lp.db[refusals.COLLECTION].update_many({}, {"$set": {"at": datetime.now(UTC) - timedelta(hours=2)}})
    assert refusals.in_the_way(lp, "phononbench-gpu") is None
    refusals.record(lp, FWorker("cpu", "cpu", {}), "outputs", "in memory")
    refusals.forget(lp, gpu)
    assert [each.fworker for each in refusals.refusals(lp)] == ["cpu"]


def test_a_worker_that_refuses_leaves_a_word(lp, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NAME", "phononbench-gpu")
    lp.fireworks.drop_indexes()
    with pytest.raises(UnfitError) as refused:
        work(lp, FWorker("gpu", "gpu", {}), tmp_path)
    (found,) = refusals.refusals(lp)
    assert (found.fworker, found.why, found.number) == ("gpu", str(refused.value), 1)
    assert "indices" in found.what


def test_the_adapter_calls_the_queue_full_while_a_refusal_is_in_the_way(lp, monkeypatch, mongo_database, capfd):
    monkeypatch.setenv("PHONONBENCH_STORE", f"mongo:{mongo_database}")
    monkeypatch.setattr("phononbench_flows.cluster.launchpad.LAUNCHPAD_LOC", None)
    monkeypatch.setattr(CommonAdapter, "get_njobs_in_queue", lambda self: 3)
    adapter = load_object_from_file(str(LAUNCHERS / "my_qadapter_gpu.yaml"))
    assert adapter.get_njobs_in_queue() == 3
    monkeypatch.setenv("SLURM_JOB_NAME", "phononbench-gpu")
    refusals.record(lp, FWorker("gpu", "gpu", {}), "GPU", "torch sees none")
    assert adapter.get_njobs_in_queue() == queue._FULL
    said = "".join(capfd.readouterr())
    assert "not fed until" in said
    assert "torch sees none" in said
