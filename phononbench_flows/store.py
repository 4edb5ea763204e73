"""Where results are kept: one document per crystal and protocol, and the arrays that belong to it.

A :class:`ResultsStore` is either of two things, which answer MongoDB's query language alike:

* a directory with ``results.sqlite`` (the documents), ``sets.sqlite`` (what is known of the sets) and ``blobs/``
  (compressed arrays under the hash of their bytes). Many processes of one machine may read and write at once: writers
  take turns, readers are not held up. The directory has to lie on a file system of the machine itself: SQLite's
  write-ahead log needs shared memory, which processes on different machines do not have;
* a database of a MongoDB server, for any number of machines: collections ``crystals`` and ``sets``, and the blobs in
  GridFS or in a directory that all machines share.

A write that has returned survives a killed process and a power cut.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from phononbench_flows.blobs import Blobs, BlobStore
from phononbench_flows.collection import Collection, Criteria, Properties, SortSpec, StoreError, refuse_non_finite
from phononbench_flows.documents import CrystalDocument, SetDocument
from phononbench_flows.mongo_store import CRYSTAL_INDEXES, SET_INDEXES, GridFSBlobs, MongoCollection
from phononbench_flows.sqlite_store import SQLiteStore

Spec = Mapping[str, Any]

DEFAULT_STORE = "phononbench-results"
DEFAULT_DATABASE = "phononbench"


def configured_spec() -> dict[str, str]:
    """The store that is meant where none is named: PHONONBENCH_STORE, or else the directory ``phononbench-results``."""
    return full_spec(os.environ.get("PHONONBENCH_STORE") or DEFAULT_STORE)


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
        return {"kind": "embedded", "path": os.path.abspath(Path(path).expanduser())}  # noqa: PTH100
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
    if blobs != "gridfs" and not (isinstance(blobs, str) and os.path.isabs(blobs)):  # noqa: PTH117
        raise StoreError(f"Blobs lie in 'gridfs' or in a directory with an absolute path, not in {blobs!r}.")
    return {"kind": "mongo", "database": database, "blobs": blobs}


def _validated[Model: BaseModel](model: type[Model], raw: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise StoreError(f"Stored document '{raw.get('key')}' is no {model.__name__}: {error}") from error


def _crystal(raw: Mapping[str, Any]) -> CrystalDocument:
    return _validated(CrystalDocument, raw)


def _plain(key: str, doc: BaseModel) -> dict[str, Any]:
    # Pydantic's own JSON mode turns NaN in free-form fields (the structures) into null, so look before it does.
    refuse_non_finite(key, doc.model_dump())
    try:
        return {"key": key} | doc.model_dump(mode="json")
    except PydanticSerializationError as error:
        raise StoreError(f"Document '{key}' was not stored: {error}.") from error


class ResultsStore:
    """The documents and blobs of a project. Made by :meth:`open`."""

    def __init__(self, spec: dict[str, str], crystals: Collection, sets: Collection, blobs: Blobs) -> None:
        self.spec = spec
        """How to open the same store again: plain JSON, without secrets."""
        self.blobs = blobs
        """The arrays that documents refer to."""
        self._crystals = crystals
        self._sets = sets

    @classmethod
    def open(cls, spec: Spec | str | Path) -> ResultsStore:
        """Open a store, which is made, with its indices, if it is not there.

        Which server is meant, and who we are there, is said in the environment; see ``phononbench_flows.mongo``.

        Args:
            spec: see :func:`full_spec`.

        Raises:
            StoreError: for a wrong spec, a directory that is not, or no longer, ours to read, or a server that does not
                answer or let us in.
        """
        full = full_spec(spec)
        crystals: Collection
        if full["kind"] == "embedded":
            root = Path(full["path"])
            crystals, sets = SQLiteStore(str(root / "results.sqlite")), SQLiteStore(str(root / "sets.sqlite"))
            store = cls(full, crystals, sets, BlobStore(root / "blobs"))
        else:
            database, place = full["database"], full["blobs"]
            crystals = MongoCollection(database, "crystals", CRYSTAL_INDEXES)
            blobs = GridFSBlobs(database) if place == "gridfs" else BlobStore(place)
            store = cls(full, crystals, MongoCollection(database, "sets", SET_INDEXES), blobs)
        crystals.connect()
        if next(crystals.query(properties=["key"], limit=1), None) is None:
            store.create_indexes()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this process' connections. The store connects again when it is used again."""
        self._crystals.close()
        self._sets.close()

    def put(self, *docs: CrystalDocument) -> None:
        """Write documents, replacing those of the same key; they last when it returns. Sets ``updated_at``.

        If one of them cannot be stored, none is. The embedded store writes all of them at once, a server one by one.

        Raises:
            StoreError: for NaN or infinity anywhere in a document, or if the disk or the server refuses it.
        """
        now = datetime.now(UTC)
        for doc in docs:
            doc.updated_at = now
        self._crystals.update([_plain(doc.key, doc) for doc in docs])

    def get(self, key: str) -> CrystalDocument | None:
        """The document of a key, if there is one."""
        return next(self.documents({"key": key}), None)

    def documents(
        self, criteria: Criteria | None = None, sort: SortSpec | None = None, limit: int = 0
    ) -> Iterator[CrystalDocument]:
        """Documents that match, one at a time; see :meth:`Collection.query`."""
        return map(_crystal, self._crystals.query(criteria, sort=sort, limit=limit))

    def query(
        self,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Documents that match, or parts of them, as plain dicts; see :meth:`Collection.query`."""
        return self._crystals.query(criteria, properties, sort, skip, limit)

    def count(self, criteria: Criteria | None = None) -> int:
        """Number of documents that match."""
        return self._crystals.count(criteria)

    def distinct(self, field: str, criteria: Criteria | None = None) -> list[Any]:
        """Values of a field among the documents that match, each once; lists count by their items."""
        return self._crystals.distinct(field, criteria)

    def status_counts(self, set_name: str, protocol_id: str) -> dict[str, int]:
        """Number of crystals of a set under a protocol for every status that occurs; milliseconds."""
        return self._crystals.tally("status", {"set": set_name, "protocol_id": protocol_id})

    def put_set(self, doc: SetDocument) -> None:
        """Write what is known of a set, in place of what was. Sets ``updated_at``.

        Raises:
            StoreError: as for :meth:`put`.
        """
        doc.updated_at = datetime.now(UTC)
        self._sets.update([_plain(doc.set, doc)])

    def get_set(self, name: str) -> SetDocument | None:
        """What is known of a set, if anything was said of it."""
        return next(self._set_documents({"key": name}), None)

    def sets(self) -> list[SetDocument]:
        """What is known of the sets, by name. A set of which nothing was said is not among them."""
        return list(self._set_documents({}))

    def _set_documents(self, criteria: Criteria) -> Iterator[SetDocument]:
        for row in self._sets.query(criteria, sort={"key": 1}):
            yield _validated(SetDocument, {name: value for name, value in row.items() if name != "key"})

    def create_indexes(self) -> None:
        """Make the indices that are not there yet; nothing to wait for where they are."""
        for part in (self._crystals, self._sets, self.blobs):
            part.create_indexes()

    def missing_indexes(self) -> list[str]:
        """The indices that are not there, such as ``crystals(elements)``; without them queries read everything."""
        return [name for part in (self._crystals, self._sets, self.blobs) for name in part.missing_indexes()]


_OPEN: dict[tuple[int, str], ResultsStore] = {}


def open_store(spec: Spec | str | Path) -> ResultsStore:
    """The store of a spec, opened once in a process and shared by all who ask. Leave it open: it is not yours."""
    full = full_spec(spec)
    owner = (os.getpid(), json.dumps(full, sort_keys=True))
    if owner not in _OPEN:
        _OPEN[owner] = ResultsStore.open(full)
    return _OPEN[owner]
