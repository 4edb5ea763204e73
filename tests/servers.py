"""A MongoDB server for tests, and the fixtures that hand it out.

By default each server is SecantusDB, which speaks MongoDB's wire protocol over TCP. With PHONONBENCH_TEST_MONGO_URI the
tests use that server instead, and those that kill their server or need a password of their own are skipped. A server
that does not come up is an error.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote_plus

import pymongo
import pytest
from pymongo.errors import PyMongoError

GIVEN_URI = os.environ.get("PHONONBENCH_TEST_MONGO_URI")
START_SECONDS = 60.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MongoServer:
    """A server of one's own on a port of this machine, which may be killed and started again on the same files."""

    def __init__(self, folder: Path, user: str | None = None, password: str | None = None) -> None:
        """Starts the server and waits until it answers.

        Args:
            folder: files of the server, made if not there.
            user: with a password, the one user that may do anything at all.
            password: any text; it is quoted in ``uri``.
        """
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen | None = None
        self._auth = False
        self.uri = f"mongodb://127.0.0.1:{self.port}/"
        self._start()
        if user is not None and password is not None:
            with pymongo.MongoClient(self.uri) as client:
                client.admin.command("createUser", user, pwd=password, roles=["root"])
            self.kill()
            self._auth = True
            self.uri = f"mongodb://{quote_plus(user)}:{quote_plus(password)}@127.0.0.1:{self.port}/?authSource=admin"
            self._start()

    def _start(self) -> None:
        if find_spec("secantus") is None:
            raise RuntimeError("SecantusDB is not installed; set PHONONBENCH_TEST_MONGO_URI to use another server.")
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("secantus_server.py")), "--port", str(self.port)]
        command += ["--storage-path", str(self.folder), "--log-level", "WARNING"]
        # Without it, a write that was acknowledged is lost with a killed server; a mongod keeps it.
        command.append("--sync-on-commit")
        if self._auth:
            command.append("--auth")
        with self.folder.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the server at once, as a power cut would. What it acknowledged is on disk."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start a killed server again, on the same port and files."""
        self._start()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with pymongo.MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=200) as client:
                    client.admin.command("hello")
            except PyMongoError as error:
                if not self.alive or time.monotonic() > deadline:
                    log = self.folder.with_suffix(".log").read_text(errors="replace")
                    raise RuntimeError(f"The MongoDB test server did not start: {log[-2000:]}") from error
                time.sleep(0.05)
            else:
                return


@pytest.fixture(scope="session")
def mongo_server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of the server that all tests share: leave it running, and use a database of your own."""
    if GIVEN_URI:
        yield GIVEN_URI
        return
    server = MongoServer(tmp_path_factory.mktemp("mongo") / "shared")
    yield server.uri
    server.kill()


@pytest.fixture
def mongo_uri(mongo_server_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, set as PHONONBENCH_MONGO_URI for the test and for the processes that it starts."""
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", mongo_server_uri)
    return mongo_server_uri


@contextmanager
def fresh_database(uri: str) -> Iterator[str]:
    """Name of a database that nobody else uses."""
    name = f"phononbench_test_{uuid.uuid4().hex[:12]}"
    yield name
    if GIVEN_URI:  # a server of ours takes its files along
        with pymongo.MongoClient(uri) as client:
            client.drop_database(name)


@pytest.fixture
def mongo_database(mongo_uri: str) -> Iterator[str]:
    """Name of a database of the shared server that is this test's alone."""
    with fresh_database(mongo_uri) as name:
        yield name


@pytest.fixture(scope="session")
def _mortal_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    if GIVEN_URI:
        pytest.skip("PHONONBENCH_TEST_MONGO_URI is set: a server that is not ours is not killed")
    server = MongoServer(tmp_path_factory.mktemp("mongo") / "mortal")
    yield server
    server.kill()


@pytest.fixture
def own_mongo(_mortal_mongo: MongoServer, monkeypatch: pytest.MonkeyPatch) -> MongoServer:
    """A server to be killed and restarted, empty at first; PHONONBENCH_MONGO_URI points to it."""
    server = _mortal_mongo
    if not server.alive:
        server.restart()
    with pymongo.MongoClient(server.uri) as client:
        for name in set(client.list_database_names()) - {"admin", "config", "local"}:
            client.drop_database(name)
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", server.uri)
    return server


MONGO_USER = "phonon user"
MONGO_PASSWORD = "p@ss/w:rd?%41&"


@pytest.fixture(scope="session")
def mongo_password_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A server that lets in MONGO_USER with MONGO_PASSWORD only."""
    if GIVEN_URI:
        pytest.skip("PHONONBENCH_TEST_MONGO_URI is set: no user is made on a server that is not ours")
    server = MongoServer(tmp_path_factory.mktemp("mongo") / "password", MONGO_USER, MONGO_PASSWORD)
    yield server
    server.kill()
