"""FireWorks' LaunchPad: where it is, who we are there, and the indices that it needs.

Nothing of the potentials is imported here, so that commands which only look at the LaunchPad answer soon.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote_plus, urlsplit, urlunsplit

import yaml
from fireworks import LaunchPad
from fireworks.fw_config import LAUNCHPAD_LOC
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pymongo import IndexModel

from phononbench_flows.errors import PhononBenchError, problems
from phononbench_flows.files import replacing
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml
from phononbench_flows.settings_files import Level
from phononbench_flows.store import StoreError
from phononbench_flows.store.connection import check_uri, masked, mongo_uri, usable

LEDGER = "phononbench_chunks"
"""Collection of the chunks that were handed out, in the LaunchPad's database."""

TWO_SERVERS = "PHONONBENCH_TWO_SERVERS"
"""The variable by which the queue may be on another server than the results."""

GPU = "gpu"
"""Categories of the jobs: a worker takes those of the categories in its FWorker file."""

INDEXES: dict[str, list[IndexModel]] = {
    "fireworks": [
        # A worker asks for the first READY firework of its category; without the category in the index, that means to
        # pass over all those of the other.
        IndexModel([("state", -1), ("spec._category", 1), ("spec._priority", -1), ("created_on", 1)]),
        IndexModel([("spec.set", 1), ("spec.protocol_id", 1), ("state", 1), ("spec._category", 1)]),
    ],
    "workflows": [
        IndexModel([("metadata.set", 1), ("metadata.protocol_id", 1), ("state", 1)]),
        IndexModel("metadata.chunk"),
    ],
    LEDGER: [IndexModel([("set", 1), ("protocol_id", 1)])],
}
"""Indices that FireWorks' own tune-up does not make, by collection."""


class LaunchError(PhononBenchError):
    """A LaunchPad or a submission that cannot be; the message is a sentence."""


class _File(BaseModel):
    """What a ``my_launchpad.yaml`` says. Other keys, as older versions of FireWorks wrote, it passes over itself."""

    model_config = ConfigDict(strict=True)

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    name: Annotated[str, Field(pattern=r'^[^/\\. "$*<>:|?\x00]{1,63}$')] | None = None
    username: str | None = None
    password: str | None = None
    logdir: str | None = None
    strm_lvl: Level | None = None
    user_indices: list[str] | None = None
    wf_user_indices: list[str] | None = None
    authsource: str | None = None
    uri_mode: bool | None = None
    mongoclient_kwargs: dict[str, Any] | None = None


def launchpad_settings(uri: str, database: str) -> dict[str, Any]:
    """What a ``my_launchpad.yaml`` says to reach a database on the server of a MongoDB URI.

    User and password stand apart from the host, which FireWorks shows in its messages.

    Raises:
        StoreError: for what is no URI.
    """
    check_uri(uri)
    parts = urlsplit(uri)
    hosts = parts.netloc.rpartition("@")[2]
    given = {"username": parts.username, "password": parts.password}
    login = {name: unquote_plus(value) for name, value in given.items() if value}
    return {
        "host": urlunsplit(parts._replace(netloc=hosts, path=parts.path or "/")),
        "name": database,
        "uri_mode": True,
        "mongoclient_kwargs": login,
    }


def launchpad_file(file: Path | None = None) -> Path | None:
    """The file that says where the LaunchPad is: this one, or that of FireWorks' configuration; None if there is none.

    FireWorks takes the LAUNCHPAD_LOC of its FW_config.yaml, or else the first ``my_launchpad.yaml`` in the current
    folder and in ``~/.fireworks``.
    """
    return file or (Path(LAUNCHPAD_LOC) if LAUNCHPAD_LOC else None)


def launchpad(file: Path | None = None, *, database: str) -> LaunchPad:
    """The LaunchPad of a file; without one, of FireWorks' own configuration, as for ``lpad``; else of the environment.

    Parameters:
        file: a ``my_launchpad.yaml``.
        database: name of the database where only the server is known, from the environment (see ``mongo_uri``).

    Raises:
        LaunchError: for a file that is no LaunchPad's, or holds a password and is open to others.
        StoreError: for a server of the environment that cannot be asked for so. No server is asked here.
    """
    found = launchpad_file(file)
    if found is None:
        return _launchpad(launchpad_settings(mongo_uri(), database))
    try:
        return _launchpad(_read_settings(found))
    except StoreError as error:
        raise LaunchError(f"{found} does not describe a LaunchPad: {error}") from error


def _launchpad(settings: Mapping[str, Any]) -> LaunchPad:
    options = {"connect": False} | (settings.get("mongoclient_kwargs") or {})
    with usable(_uri(settings["host"], settings.get("port")), options):
        return LaunchPad.from_dict({"strm_lvl": "WARNING", **settings, "mongoclient_kwargs": options})


def address(lp: LaunchPad) -> str:
    """The LaunchPad's server as a URI, for messages that mask it."""
    return _uri(str(lp.host), lp.port)


def require_one_server(lp: LaunchPad, uri: str) -> None:
    """Make sure that the queue is where the results are.

    Where a MongoDB runs on the login node, too, a forgotten file would send the queue there, where no worker looks.

    Raises:
        LaunchError: it is on another server than that of the results, and nobody has said that it should be.
    """
    if os.environ.get(TWO_SERVERS) or _servers(address(lp)) & _servers(uri):
        return
    raise LaunchError(
        f"the LaunchPad is at {masked(address(lp))}, but the results are at {masked(uri)}: run `phononbench launchpad` "
        f"to have both at the latter, or set {TWO_SERVERS}=1 if that is meant"
    )


def _servers(uri: str) -> set[str]:
    """The hosts of a URI with their ports; every name of this machine is one."""
    hosts = urlsplit(uri).netloc.rpartition("@")[2].lower().split(",")
    named = {host if re.search(r":\d+$", host) else f"{host}:27017" for host in hosts}
    return {re.sub(r"^(localhost|127\.0\.0\.1|\[::1\]):", "localhost:", host) for host in named}


def _uri(host: str, port: int | None) -> str:
    if "://" in host:
        return host
    name = quote(host, safe="") if host.endswith(".sock") else host
    return f"mongodb://{name}:{port or 27017}/"


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        given = _File.model_validate(read_plain_yaml(file))
        mode = file.stat().st_mode
    except (OSError, PlainYamlError) as error:
        raise LaunchError(f"the LaunchPad file {file} cannot be read: {error}") from error
    except ValidationError as error:
        raise LaunchError(f"{file} does not describe a LaunchPad: {problems(error)}") from error
    if (given.password or (given.mongoclient_kwargs or {}).get("password")) and mode & 0o077:
        raise LaunchError(f"{file} holds a password and is open to others; run: chmod 600 {file}")
    if given.uri_mode and given.name is None:
        raise LaunchError(f"{file} does not describe a LaunchPad: with `uri_mode` it needs a `name`, of the database")
    if given.logdir and not Path(given.logdir).is_dir():
        raise LaunchError(f"{file}: there is no folder {given.logdir}, its `logdir`")
    return given.model_dump(exclude_unset=True)


def write_launchpad(file: Path, settings: Mapping[str, Any]) -> None:
    """Write a ``my_launchpad.yaml`` that only its owner can read, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, mode=0o600) as partial:
        partial.write_text(yaml.safe_dump(dict(settings)))


def init_launchpad(lp: LaunchPad) -> None:
    """Make the indices of a LaunchPad and its counters of ids, where they are not there yet; resets nothing."""
    if lp.fw_id_assigner.find_one() is None:
        # The id by which `lpad reset` knows them, so that two who do this at once make one.
        start = {"next_fw_id": 1, "next_launch_id": 1}
        lp.fw_id_assigner.update_one({"_id": -1}, {"$setOnInsert": start}, upsert=True)
    lp.tuneup()
    for name, indexes in INDEXES.items():
        lp.db[name].create_indexes(indexes)


def missing_indexes(lp: LaunchPad) -> list[str]:
    """What :func:`init_launchpad` would make: collections with the fields of the indices that they lack."""
    wanted = {name: [dict(index.document["key"]) for index in indexes] for name, indexes in INDEXES.items()}
    wanted["fireworks"].append({"fw_id": 1})
    wanted["workflows"].append({"nodes": 1})
    return [
        f"{name} ({', '.join(fields)})"
        for name, indexes in wanted.items()
        for there in [[dict(index["key"]) for index in lp.db[name].list_indexes()]]
        for fields in indexes
        if fields not in there
    ]
