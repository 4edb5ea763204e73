"""Names of results stores: what a person or a job writes to say which one is meant. They hold no host and no login."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phononbench_flows.files import at_home
from phononbench_flows.store.collection import StoreError

Spec = Mapping[str, Any]

DEFAULT_STORE = "phononbench-results"
DEFAULT_CLUSTER_STORE = "mongo"
DEFAULT_DATABASE = "phononbench"


def configured_spec() -> dict[str, str]:
    """The store that is meant where none is named: PHONONBENCH_STORE, or else the directory ``phononbench-results``."""
    return full_spec(os.environ.get("PHONONBENCH_STORE") or DEFAULT_STORE)


def cluster_spec(named: Spec | str | None = None) -> dict[str, str]:
    """The store that is meant on a cluster: the one that is named, or that of PHONONBENCH_STORE, or else ``mongo``."""
    return full_spec(named or os.environ.get("PHONONBENCH_STORE") or DEFAULT_CLUSTER_STORE)


def full_spec(spec: Spec | str | Path) -> dict[str, str]:
    """A spec in full, as plain JSON and with an absolute path. It never holds a host, a user or a password.

    Args:
        spec: one of

            * a directory, or ``{"kind": "embedded", "path": directory}``;
            * ``mongo``, ``mongo:DATABASE`` or ``mongo:DATABASE:DIRECTORY`` (blobs in the directory instead of GridFS),
              or ``{"kind": "mongo", "database": name, "blobs": "gridfs" or directory}``.

    Raises:
        StoreError: for an unknown kind, a spec with other keys than its kind has, or an unsuitable value.
    """
    full = _parsed(spec) if isinstance(spec, str) else spec
    full = {"kind": "embedded", "path": str(full)} if isinstance(full, Path) else dict(full)
    if full.get("kind") == "embedded":
        if set(full) != {"kind", "path"}:
            raise StoreError("The spec of an embedded results store has the keys 'kind' and 'path', and no others.")
        path = full["path"]
        if not path or not isinstance(path, str | Path):
            raise StoreError(f"{path!r} in the spec of an embedded results store is no path.")
        # Links are not resolved: where they differ between machines, the name that was given is the one that works.
        return {"kind": "embedded", "path": os.path.abspath(at_home(Path(path)))}  # noqa: PTH100
    if full.get("kind") == "mongo":
        return _mongo_spec({"blobs": "gridfs"} | full)
    raise StoreError(f"There is no results store of kind {full.get('kind')!r}; there are: 'embedded', 'mongo'.")


def _parsed(text: str) -> Spec | Path:
    if "://" in text:
        raise StoreError(
            "A results store is named as a directory or as mongo:DATABASE; its server's URI is not part of its name, "
            "but comes from PHONONBENCH_MONGO_URI or a file."
        )
    kind, _, rest = text.partition(":")
    if kind != "mongo":
        return Path(text)
    database, _, blobs = rest.partition(":")
    return {"kind": "mongo", "database": database or DEFAULT_DATABASE, "blobs": blobs or "gridfs"}


def _mongo_spec(full: dict[str, Any]) -> dict[str, str]:
    if set(full) != {"kind", "database", "blobs"}:
        raise StoreError("The spec of a MongoDB results store has the keys 'kind', 'database' and 'blobs', no others.")
    database, blobs = full["database"], full["blobs"]
    if not isinstance(database, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", database):
        raise StoreError(f"{database!r} is no name for a database: letters, digits, '_' and '-', at most 63.")
    if blobs != "gridfs" and not (isinstance(blobs, str) and os.path.isabs(blobs) and _can_be_sent(blobs)):  # noqa: PTH117
        raise StoreError(f"Blobs lie in 'gridfs' or in a directory with an absolute path, not in {blobs!r}.")
    return {"kind": "mongo", "database": database, "blobs": blobs}


def _can_be_sent(path: str) -> bool:
    """Whether a path is text, which other machines can be told, and could be one."""
    return "\0" not in path and not any("\ud800" <= c <= "\udfff" for c in path)
