"""The password of the database stands nowhere but where the user put it."""

from __future__ import annotations

import signal
import traceback
from pathlib import Path
from urllib.parse import quote_plus

import pymongo
import pytest
from fireworks.scripts.lpad_run import lpad
from jobflow import SETTINGS, JobStore
from pymatgen.io.cif import CifWriter
from servers import MONGO_PASSWORD, MongoServer, fresh_database
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.cluster.outputs import OutputsStore

SPELLINGS = (MONGO_PASSWORD, quote_plus(MONGO_PASSWORD), repr(MONGO_PASSWORD)[1:-1])


def told(text: str) -> list[str]:
    return [spelling for spelling in SPELLINGS if spelling in text]


@pytest.fixture
def database(mongo_password_server: MongoServer, monkeypatch):
    """A database behind a password, set up as a user would, and as a worker's environment has it."""
    uri = mongo_password_server.uri
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", uri)
    with fresh_database(uri) as name, pymongo.MongoClient(uri) as client:
        monkeypatch.setenv("PHONONBENCH_STORE", f"mongo:{name}")
        monkeypatch.setattr(SETTINGS, "JOB_STORE", JobStore(OutputsStore(name)))
        yield client[name]


@pytest.fixture
def invoke(capfd, caplog):
    """Run a command in this process; gives its exit code, and all that it said wherever."""
    caplog.set_level("INFO")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        said = "".join([result.output, repr(result.exception), caplog.text, *capfd.readouterr()])
        return result.exit_code, said

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_no_password_in_fireworks_folders_logs_or_errors(
    mongo_password_server, database, invoke, tmp_path, monkeypatch, fcc, simple_cubic, capfd
):
    crystals, login = tmp_path / "crystals", tmp_path / "login" / "my_launchpad.yaml"
    crystals.mkdir()
    for name, crystal in {"fcc": fcc, "simple": simple_cubic}.items():
        CifWriter(crystal).write_file(crystals / f"{name}.cif")
    monkeypatch.chdir(tmp_path)
    submit = ["submit", crystals, "--set", "toys", "--potential", "toy_potentials:lj", "--device", "cpu", "-l", login]
    said = []
    for arguments in (
        ["launchpad", "--out", login],
        ["init-db", "-l", login],
        [*submit, "--write", "flows", "--chunk-cost", "1"],
        [*submit, "--adopt-files"],
        ["worker", "-l", login, "--idle", "0", "--folder", "work"],
        ["status", "-l", login],
    ):
        code, text = invoke(*arguments)
        assert code == 0, text
        said.append(text)
    assert {row["status"] for row in database.calculations.find()} == {"stable", "unstable"}
    assert {row["state"] for row in database.fireworks.find()} == {"COMPLETED"}

    # The search finds it where it has to be.
    assert told(login.read_text())
    documents = [repr(row) for name in database.list_collection_names() for row in database[name].find()]
    assert len(documents) > 15
    assert not told("".join(documents))
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file != login]
    assert {"FW.json"} <= {file.name for file in files}
    assert not told("".join(file.read_bytes().decode(errors="replace") for file in files))
    assert not told("".join(said))


def test_no_password_in_what_is_said_of_a_server_that_is_away_or_refuses(
    mongo_password_server, database, invoke, tmp_path, monkeypatch, capfd
):
    login = tmp_path / "my_launchpad.yaml"
    quickly = "&serverSelectionTimeoutMS=300"
    away = mongo_password_server.uri.replace(str(mongo_password_server.port), "1") + quickly
    refused = mongo_password_server.uri.replace("phonon+user", "somebody") + quickly
    for uri in (away, refused):
        monkeypatch.setenv("PHONONBENCH_MONGO_URI", uri)
        assert told(uri)
        assert invoke("launchpad", "--out", login)[0] == 0
        assert told(login.read_text())
        for command in (["init-db"], ["submit", tmp_path, "--set", "x", "--potential", "toy_potentials:lj"]):
            code, said = invoke(*command, "-l", login)
            assert code == 2, said
            assert "MongoDB at mongodb://" in said
            assert not told(said)
        with pytest.raises((ValueError, pymongo.errors.PyMongoError)) as error:
            lpad(["-l", str(login), "get_fws"])
        assert not told("".join([*traceback.format_exception(error.value), *capfd.readouterr()]))


def test_a_uri_that_cannot_be_read_is_not_shown(invoke, monkeypatch, tmp_path):
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", f"mongodb://me:{MONGO_PASSWORD}@host/")
    for command in (["init-db"], ["launchpad", "--out", tmp_path / "my_launchpad.yaml"]):
        code, said = invoke(*command)
        assert code == 2, said
        assert not told(said)
    assert not list(Path(tmp_path).iterdir())
