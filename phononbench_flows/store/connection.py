"""The connection to MongoDB: where the server is, who we are there, and what to do while it is away.

Nothing here is written down with results or flows: the URI, with its user and password, comes from the environment of
each process, and messages show it without them.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pymongo import MongoClient
from pymongo.errors import BulkWriteError, ConnectionFailure, OperationFailure, PyMongoError, WTimeoutError

from phononbench_flows.files import at_home, read_regular
from phononbench_flows.store.collection import AwayError, NotAllowedError, StoreError

DEFAULT_URI = "mongodb://localhost:27017"
URI_FILE = "~/.config/phononbench/mongo_uri"
RETRY_SECONDS = 600.0
"""How long a server that went away is waited for, in seconds, unless PHONONBENCH_WRITE_RETRY_S says otherwise."""

_log = logging.getLogger(__name__)

# What the URI leaves open. A write that was acknowledged is on the disks of the majority.
_OPTIONS: dict[str, Any] = {
    "appName": "phononbench",
    "connectTimeoutMS": 10_000,
    "journal": True,
    "retryWrites": True,
    "serverSelectionTimeoutMS": 10_000,
    "socketTimeoutMS": 120_000,
    "w": "majority",
    "wTimeoutMS": 60_000,
}
# A URI that can be shown in part, since it is clear where the password ends: no '@', '/', '?' or '#' too many.
_SHOWN = re.compile(r"(mongodb(?:\+srv)?://)([^@/?#]*@)?([\w.\-:%\[\],]+)(/[^?@#]*)?(\?[^@]*)?")
_MAX_BYTES = 10_000_000  # of a file with a URI, or with certificates
_CERTIFICATES = ("tlscafile", "tlscertificatekeyfile", "tlscrlfile")  # options that name files
# Primary stepping down or shutting down, network trouble between members, cursor lost, two upserts of one new key.
_TRANSIENT = frozenset({6, 7, 43, 64, 89, 91, 189, 262, 9001, 10107, 11000, 11600, 11602, 13435, 13436})

_UNAUTHORIZED = 13


def mongo_uri() -> str:
    """URI of the server: PHONONBENCH_MONGO_URI, or the file that PHONONBENCH_MONGO_URI_FILE names, or the user's own
    file ``~/.config/phononbench/mongo_uri``, or the server on this machine.

    Raises:
        StoreError: for a file that cannot be read, is empty, or is open to others.
    """
    return _uri_and_origin()[0]


def mongo_uri_origin() -> str:
    """Who says so: a variable, or a file."""
    return _uri_and_origin()[1]


def _uri_and_origin() -> tuple[str, str]:
    if uri := os.environ.get("PHONONBENCH_MONGO_URI"):
        return uri, "PHONONBENCH_MONGO_URI"
    if named := os.environ.get("PHONONBENCH_MONGO_URI_FILE"):
        return _read_secret(at_home(Path(named))), named
    own = Path(URI_FILE).expanduser()
    return (_read_secret(own), URI_FILE) if own.exists() else (DEFAULT_URI, f"there is no {URI_FILE}")


def _read_secret(path: Path) -> str:
    try:
        uri = read_regular(path, _MAX_BYTES).decode().strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise StoreError(f"The MongoDB URI cannot be read from {path}: {why}.") from error
    if mode & 0o077:
        raise StoreError(f"{path} holds a secret and is open to others (mode {mode & 0o777:o}); run: chmod 600 {path}")
    if not uri:
        raise StoreError(f"{path} should hold a MongoDB URI, but is empty.")
    return uri


def masked(uri: str) -> str:
    """A URI to show: without user, password and options."""
    parts = _SHOWN.fullmatch(uri)
    if parts is None:
        return "mongodb://***"
    scheme, user, hosts, database, _ = parts.groups()
    return f"{scheme}{'***@' if user else ''}{hosts}{database or ''}"


_CLIENTS: dict[tuple[int, str], MongoClient[dict[str, Any]]] = {}


def client(uri: str | None = None) -> MongoClient[dict[str, Any]]:
    """The process' one client of a server, which nobody closes; it connects when it is used.

    Args:
        uri: by default :func:`mongo_uri`. Its options go before ours.

    Raises:
        StoreError: for a URI that is none.
    """
    uri = uri or mongo_uri()
    owner = (os.getpid(), uri)
    if owner not in _CLIENTS:
        _CLIENTS[owner] = _new_client(uri)
    return _CLIENTS[owner]


def _new_client(uri: str) -> MongoClient[dict[str, Any]]:
    with usable(uri):
        given = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query)}
        options = {name: value for name, value in _OPTIONS.items() if name.lower() not in given}
        return MongoClient(uri, tz_aware=True, **options)


def check_uri(uri: str) -> None:
    """Make sure that a client can be made of a URI; no server is asked.

    Raises:
        StoreError: for a URI that is none.
    """
    with usable(uri):
        MongoClient(uri, connect=False).close()


@contextmanager
def usable(uri: str, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """In here a client is made; whatever is wrong with its URI or its other options is told without the login.

    Raises:
        StoreError: for a URI that is none, or an option that is none.
    """
    if not _SHOWN.fullmatch(uri):
        raise StoreError(
            "The MongoDB URI cannot be used: it should read mongodb://USER:PASSWORD@HOST/ or mongodb+srv://..., "
            "with whatever is special in USER and PASSWORD percent-encoded."
        )
    try:
        _check_parts(uri, options or {})
        with warnings.catch_warnings():
            # Pymongo goes on without an option that is misspelt, be it the one for TLS.
            warnings.simplefilter("error", UserWarning)
            yield
    except (PyMongoError, UserWarning, ValueError, TypeError, OSError) as error:
        raise StoreError(f"The MongoDB URI {masked(uri)} cannot be used: {sentence(error)}.") from error


def _check_parts(uri: str, options: Mapping[str, Any]) -> None:
    """What pymongo would find out late, or never: hosts that no name server knows, files that have no end."""
    parts = urlsplit(uri)
    for host in parts.netloc.rpartition("@")[2].split(","):
        if "%" not in host:  # as in the path of a socket
            host.partition(":")[0].encode("idna")
    for name, value in (*parse_qsl(parts.query), *options.items()):
        if name.lower() in _CERTIFICATES and isinstance(value, str):
            read_regular(Path(value), _MAX_BYTES)


def sentence(error: Exception) -> str:
    """The error without the reply and the topology that pymongo appends, and without a full stop."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return re.split(r", full error:|, Timeout:|, Topology Description:|\(configured timeouts:", str(error))[0].strip(
        " ."
    )


def retry_seconds() -> float:
    """How long a server that went away is waited for, in seconds."""
    text = os.environ.get("PHONONBENCH_WRITE_RETRY_S", "")
    try:
        seconds = float(text) if text else RETRY_SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise StoreError(f"PHONONBENCH_WRITE_RETRY_S is a number of seconds, not '{text}'.")
    return seconds


def _transient(error: PyMongoError) -> bool:
    """Whether the same may succeed when it is tried again."""
    if isinstance(error, BulkWriteError):
        failed = error.details.get("writeErrors", [])
        return bool(error.details.get("writeConcernErrors")) or all(each.get("code") in _TRANSIENT for each in failed)
    if isinstance(error, OperationFailure):
        return error.code in _TRANSIENT or isinstance(error, WTimeoutError)
    return isinstance(error, ConnectionFailure)


def attempt[Result](action: Callable[[], Result], uri: str, patience: float | None = None) -> Result:
    """What an action returns; while the server is away, the action is tried again, waiting longer each time.

    Args:
        action: something that may be done twice.
        uri: the server's, for messages.
        patience: how long to go on trying, in seconds; by default :func:`retry_seconds`.

    Raises:
        NotAllowedError: the login does not go so far.
        AwayError: the server is away for longer.
        StoreError: it refuses otherwise.
    """
    deadline = time.monotonic() + (retry_seconds() if patience is None else patience)
    pause = 0.1
    while True:
        try:
            return action()
        except PyMongoError as error:
            left = deadline - time.monotonic()
            away = _transient(error)
            if left <= 0 or not away:
                refused = isinstance(error, OperationFailure) and error.code == _UNAUTHORIZED
                kind = NotAllowedError if refused else AwayError if away else StoreError
                raise kind(f"MongoDB at {masked(uri)}: {sentence(error)}.") from error
            _log.warning("MongoDB at %s: %s. Trying again for %.0f s.", masked(uri), sentence(error), left)
        # Uneven, so that many workers do not come back at the same moment.
        time.sleep(min(left, pause * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
        pause = min(2 * pause, 10.0)
