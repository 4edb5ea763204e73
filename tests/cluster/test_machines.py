"""What the doctor finds on two machines is compared: folders that only look alike, and versions that differ."""

from __future__ import annotations

import json

import pytest
from test_launchers import LAUNCHERS
from typer.testing import CliRunner
from worker_processes import ready_launchpad

from phononbench_flows.cli import app
from phononbench_flows.cluster import machines, site
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.machines import MARK, compared
from phononbench_flows.cluster.preflight import State


@pytest.fixture
def lp(mongo_database):
    return ready_launchpad(mongo_database)


def found(lp, host, **folders) -> dict[str, tuple[State, str]]:
    return {check.name: (check.state, check.said) for check in compared(lp, folders, host)}


def test_machines_that_agree(lp, tmp_path):
    state, said = found(lp, "login", launches=tmp_path)["other machines"]
    assert (state, said) == (State.OK, "the doctor was on none of them today")
    mark = (tmp_path / MARK).read_text()
    there = found(lp, "node", launches=tmp_path)
    assert there == {
        "versions elsewhere": (State.OK, "the same on login"),
        "launches": (State.OK, "this machine sees that of login"),
    }
    assert (tmp_path / MARK).read_text() == mark


def test_a_folder_that_each_machine_has_for_itself(lp, tmp_path):
    """A disk of the node's own under the same name: what the login node has written is not there."""
    found(lp, "login", launches=tmp_path)
    (tmp_path / MARK).unlink()
    state, said = found(lp, "node", launches=tmp_path)["launches"]
    assert (state, said) == (State.FAILED, f"this machine does not see {tmp_path} of login")


def test_a_folder_that_is_not_there(lp, tmp_path):
    found(lp, "login", launches=tmp_path)
    away = tmp_path / "away"
    there = found(lp, "node", launches=away)
    assert there["launches"] == (State.OK, "this machine sees that of login")
    checks = [check for check in compared(lp, {"blobs": away}, "node") if check.name == "blobs"]
    assert [(each.state, str(away) in each.said) for each in checks] == [(State.FAILED, True)]


def test_versions_that_differ(lp, tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "versions", lambda: {"torch": "2.1", "phonopy": "2.40"})
    found(lp, "login", launches=tmp_path)
    monkeypatch.setattr(machines, "versions", lambda: {"torch": "2.3", "phonopy": "2.40", "seekpath": "2.1"})
    state, said = found(lp, "node", launches=tmp_path)["versions elsewhere"]
    assert state == State.WARNING
    assert said == "seekpath is missing on login, and 2.1 here; torch is 2.1 on login, and 2.3 here"
    lp.db[machines.COLLECTION].update_one({"_id": "login"}, {"$set": {"at": 0}})
    assert "versions elsewhere" not in found(lp, "node", launches=tmp_path), "what was long ago says nothing"


def test_the_command_compares_on_a_narrow_terminal(lp, tmp_path, monkeypatch, mongo_uri, mongo_database):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHONONBENCH_LAUNCHERS", str(LAUNCHERS))
    monkeypatch.setattr(site.shutil, "which", lambda _: None)
    file, blobs = tmp_path / "my_launchpad.yaml", tmp_path / "blobs"
    blobs.mkdir()
    write_launchpad(file, launchpad_settings(mongo_uri, mongo_database))
    found(lp, "a-login-node-with-a-long-name.cluster.example.org", **{"folder of blobs": tmp_path})
    (tmp_path / MARK).unlink()
    command = ["doctor", "-l", str(file), "--store", f"mongo:{mongo_database}:{blobs}"]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "60"})
    assert shown.exit_code == 1
    assert max(map(len, shown.stdout.splitlines())) <= 60
    assert "…" not in shown.stdout
    checks = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    by_name = {check["name"]: check for check in checks}
    assert by_name["folder of blobs"]["state"] == "failed"
    assert by_name["versions elsewhere"]["state"] == "ok"
    assert (blobs / MARK).exists()
    assert (tmp_path / MARK).exists()
