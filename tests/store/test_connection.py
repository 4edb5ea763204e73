"""Who we are on the server, and that nobody else gets to know: URIs, their files, and what messages say of them."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import traceback
from pathlib import Path

import pytest
from servers import MONGO_PASSWORD, MONGO_USER, MongoServer

from phononbench_flows.store import ResultsStore, full_spec
from phononbench_flows.store.collection import StoreError
from phononbench_flows.store.connection import client, masked, mongo_uri

PARTS = (MONGO_PASSWORD, MONGO_USER, "p%40ss", "phonon+user")


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that says nothing of a server; gives the user's home."""
    for name in ("PHONONBENCH_MONGO_URI", "PHONONBENCH_MONGO_URI_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def secret(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_where_the_uri_comes_from(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mongo_uri() == "mongodb://localhost:27017"
    secret(nothing_set / ".config/phononbench/mongo_uri", "mongodb://own\n")
    assert mongo_uri() == "mongodb://own"
    monkeypatch.setenv("PHONONBENCH_MONGO_URI_FILE", str(secret(nothing_set / "named", " mongodb://named \n")))
    assert mongo_uri() == "mongodb://named"
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", "mongodb://direct")
    assert mongo_uri() == "mongodb://direct"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_file_that_others_may_open_is_refused(nothing_set: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    path = secret(nothing_set / "named", "mongodb://me:s3cr3t@host", mode)
    monkeypatch.setenv("PHONONBENCH_MONGO_URI_FILE", str(path))
    with pytest.raises(StoreError, match=r"chmod 600 .*named") as caught:
        mongo_uri()
    assert "s3cr3t" not in str(caught.value)


def test_file_without_uri_is_refused(nothing_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONONBENCH_MONGO_URI_FILE", str(nothing_set / "named"))
    with pytest.raises(StoreError, match="cannot be read"):
        mongo_uri()
    secret(nothing_set / "named", "\n")
    with pytest.raises(StoreError, match="empty"):
        mongo_uri()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://localhost:27017", "mongodb://localhost:27017"),
        ("mongodb://me:s3cr3t@host/?authSource=admin", "mongodb://***@host/"),
        ("mongodb://me:s3cr3t@a:1,b.c:2/results?replicaSet=rs0&tls=true", "mongodb://***@a:1,b.c:2/results"),
        ("mongodb+srv://me:s3cr3t@cluster.example.org/", "mongodb+srv://***@cluster.example.org/"),
        ("mongodb://me@[::1]:27017", "mongodb://***@[::1]:27017"),
        ("mongodb://host/?tlsCertificateKeyFilePassword=s3cr3t", "mongodb://host/"),
        # None of these is a URI, and any part may belong to the password.
        ("mongodb://me:s3cr3t@more@host", "mongodb://***"),
        ("mongodb://me:123/s3cr3t@host", "mongodb://***"),
        ("mongodb://me:123?s3cr3t@host", "mongodb://***"),
        ("mongodb://me:123#s3cr3t@host", "mongodb://***"),
        ("mongodb://host/?tlsCertificateKeyFilePassword=x@s3cr3t", "mongodb://***"),
        ("s3cr3t", "mongodb://***"),
        ("", "mongodb://***"),
    ],
)
def test_masked(uri: str, shown: str) -> None:
    assert masked(uri) == shown


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://me:s3cr3t@more@host",
        "mongodb://me:123/s3cr3t@host",
        "mongodb://me:s3cr3t:x@host",
        "mongodb://me:%s3cr3t@host",
        "me:s3cr3t@host",
        "s3cr3t",
        "mongodb://me:s3cr3t@host:port",
        "mongodb://me:s3cr3t@host:99999",
        "mongodb://me:s3cr3t@host/?tls=perhaps",
        "mongodb://me:s3cr3t@host/?tsl=true",
        "mongodb://me:s3cr3t@host/?tls=true&tlsCAFile=/no/such.pem",
        "mongodb+srv://me:s3cr3t@localhost",
    ],
)
def test_wrong_uri_is_a_sentence_without_secret(uri: str) -> None:
    with pytest.raises(StoreError, match="cannot be used") as caught:
        client(uri)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_one_client_a_process(mongo_uri: str) -> None:
    parents = client()
    assert client(mongo_uri) is parents
    source, sink = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sink.send(client() is parents))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert source.recv() is False


def test_options_of_the_uri_go_first(mongo_uri: str) -> None:
    separator = "&" if "?" in mongo_uri else "/?" if not mongo_uri.endswith("/") else "?"
    own = client(f"{mongo_uri}{separator}w=1&journal=false&SERVERSELECTIONTIMEOUTMS=1234")
    assert own.write_concern.document["w"] == 1
    assert own.write_concern.document["j"] is False
    assert own.options.server_selection_timeout == 1.234
    ours = client(mongo_uri)
    assert ours.write_concern.document == {"w": "majority", "j": True, "wtimeout": 60_000}
    assert ours.options.retry_writes


def test_password_opens(mongo_password_server: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", mongo_password_server.uri)
    with ResultsStore.open("mongo:guarded") as store:
        assert store.count() == 0
        told = (
            repr(store.spec)
            + repr(vars(store))
            + repr(pickle.dumps((store._calculations, store._crystals, store._sets, store.blobs)))
        )
    assert not [part for part in PARTS if part in told]


def test_no_password_in_errors_and_logs(
    mongo_password_server: MongoServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    uri = mongo_password_server.uri
    messages: list[str] = []

    def fails(uri: str) -> None:
        monkeypatch.setenv("PHONONBENCH_MONGO_URI", uri)
        with pytest.raises(StoreError) as caught:
            ResultsStore.open("mongo:guarded")
        messages.append("".join(traceback.format_exception(caught.value)))

    fails(f"mongodb://127.0.0.1:{mongo_password_server.port}/")
    assert "requires authentication" in messages[-1]
    fails(uri.replace("mongodb://", "mongodb://not"))
    assert "uthentication failed" in messages[-1]
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", uri)
    with ResultsStore.open("mongo:guarded") as store, pytest.raises(StoreError) as caught:
        list(store.query({"nsites": {"$grater": 1}}))
    messages.append("".join(traceback.format_exception(caught.value)))
    # Nobody listens on port 1.
    fails(uri.replace(str(mongo_password_server.port), "1") + "&serverSelectionTimeoutMS=300")
    assert "refused" in messages[-1]
    shown = "\n".join(messages) + caplog.text
    assert f"***@127.0.0.1:{mongo_password_server.port}" in shown
    assert not [part for part in PARTS if part in shown]


def test_server_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300")
    with pytest.raises(StoreError, match=r"^MongoDB at mongodb://127\.0\.0\.1:1/: .*refused\.$"):
        ResultsStore.open(full_spec("mongo"))


@pytest.mark.parametrize("seconds", ["soon", "-1", "nan", "inf"])
def test_patience_is_a_number(mongo_database: str, monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("PHONONBENCH_WRITE_RETRY_S", seconds)
    with pytest.raises(StoreError, match="PHONONBENCH_WRITE_RETRY_S"):
        ResultsStore.open(f"mongo:{mongo_database}")
