"""What FireWorks and jobflow read while they are imported is looked at before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from phononbench_flows.settings_files import SettingsFileError, import_fireworks, import_jobflow

BOMB = "A: &A [1, 1]\nB: [*A, *A]\n"
SETTINGS = {
    "FW_config.yaml": (
        "",
        "[",
        "- 1",
        BOMB,
        "A: " + "[" * 100_000,
        "MongoClient: x",
        "1: 2",
        "PING_TIME_SECS: x",
        "RUN_EXPIRATION_SECS: .nan",
        "RUN_EXPIRATION_SECS: -1",
        "RESERVATION_EXPIRATION_SECS: null",
        "SORT_FWS: 7",
        "STREAM_LOGLEVEL: LOUD",
        "CONFIG_FILE_DIR: 7",
        "LAUNCHPAD_LOC: [x]",
        "ADD_USER_PACKAGES: x",
        "A: !!python/object/apply:os.system [touch climbed]",
    ),
    "jobflow.yaml": (
        "[",
        "- 1",
        BOMB,
        "A: " + "[" * 100_000,
        "JOB_STORE: nowhere.yaml",
        "JOB_STORE: pipe",
        "A: !!python/object/apply:os.system [touch climbed]",
    ),
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", "jobflow.yaml")
    os.mkfifo("pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [pytest.param(name, text, id=f"{name} {text[:30]}") for name, texts in SETTINGS.items() for text in texts],
)
def test_what_cannot_be_used_is_told_by_name(name, text, place):
    (place / name).write_text(text)
    with pytest.raises(SettingsFileError, match=r"^[^\n]*(nowhere|pipe|FW_config|jobflow)[^\n]*$"):
        {"FW_config.yaml": import_fireworks, "jobflow.yaml": import_jobflow}[name]()
    assert not (place / "climbed").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(kind, place):
    path = place / "FW_config.yaml"
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    with pytest.raises(SettingsFileError, match="FW_config"):
        import_fireworks()


def test_what_the_packages_take_is_taken(place):
    settings = ["SORT_FWS: FIFO", "PING_TIME_SECS: 300", "ECHO_TEST: x", "QUEUE_UPDATE_INTERVAL: 5"]
    (place / "FW_config.yaml").write_text("\n".join(settings))
    (place / "jobflow.yaml").write_text("")
    import_fireworks()
    import_jobflow()


@pytest.mark.parametrize(
    ("name", "text", "arguments"),
    [
        ("FW_config.yaml", "NO_SUCH_SETTING: 1", ["janitor"]),
        ("FW_config.yaml", BOMB, ["worker"]),
        ("jobflow.yaml", "JOB_STORE: {'@class': JobStore, '@module': nowhere}", ["init-db"]),
    ],
    ids=["unknown", "bomb", "store"],
)
def test_the_commands_look_before_they_import(name, text, arguments, place):
    (place / name).write_text(text)
    command = [sys.executable, "-m", "phononbench_flows", *arguments]
    environment = os.environ | {"PHONONBENCH_MONGO_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=60000"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    *where, line = done.stderr.splitlines()
    assert all(each.startswith(("results: ", "LaunchPad: ")) for each in where)
    assert line.startswith("phononbench: ")
    assert name in line
