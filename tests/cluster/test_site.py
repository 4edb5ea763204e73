"""The doctor asks Slurm about the queue adapters, and the server about itself."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from test_launchers import LAUNCHERS
from worker_processes import ready_launchpad

from phononbench_flows.cluster import site
from phononbench_flows.cluster.preflight import State
from phononbench_flows.store import full_spec


def changed(folder, **resources):
    """The GPU adapter with other resources."""
    file = folder / "my_qadapter_gpu.yaml"
    adapter = yaml.safe_load((LAUNCHERS / file.name).read_text())
    file.write_text(yaml.safe_dump(adapter | {"mem": "500M", "cpus_per_task": 1} | resources))
    return file


@pytest.mark.slurm
def test_slurm_is_asked_about_the_adapters(slurm, tmp_path):
    assert site.adapter(changed(tmp_path)).state == State.OK
    for wrong, word in (
        ({"queue": "nowhere"}, "partition"),
        ({"mem": "900T"}, "(?i)memory|configuration"),
        ({"gpus_per_node": 7}, "configuration"),
        ({"cpus_per_task": 100_000}, "(?i)cpu|configuration"),
    ):
        check = site.adapter(changed(tmp_path, **wrong))
        assert check.state == State.FAILED, check
        assert re.search(word, check.said), check.said
        assert "sinfo" in check.advice


def test_an_adapter_that_is_none(tmp_path):
    (tmp_path / "my_qadapter.yaml").write_text("queue: gpu")
    check = site.adapter(tmp_path / "my_qadapter.yaml")
    assert check.state == State.FAILED
    assert "cannot read it" in check.said


def test_the_server_and_the_exported_variables(mongo_database, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    lp = ready_launchpad(mongo_database)
    monkeypatch.setenv("PHONONBENCH_LAUNCHERS", "/nowhere")
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    found = {check.name: check for check in site.site(lp, full_spec(f"mongo:{mongo_database}"))}
    assert found["MongoDB's version"].state == found["clocks"].state == State.OK
    assert found["exported variables"].state == State.FAILED
    monkeypatch.delenv("SBATCH_EXPORT")
    assert site._environment().state == State.OK

    class Late(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(UTC) + timedelta(minutes=2)

    monkeypatch.setattr(site, "datetime", Late)
    assert "120 s" in site._clock(lp).said
