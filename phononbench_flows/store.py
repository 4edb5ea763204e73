"""Where results are kept: one document per crystal and protocol, and the arrays that belong to it.

A :class:`ResultsStore` is a directory with ``results.sqlite`` (the documents) and ``blobs/`` (compressed arrays under
the hash of their bytes). Documents are asked for with MongoDB's query language. Many processes of one machine may
read and write at once: writers take turns, readers are not held up. A write that has returned survives a killed
process and a power cut.

The directory has to lie on a file system of the machine itself: SQLite's write-ahead log needs shared memory, which
processes on different machines do not have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from phononbench_flows.blobs import BlobStore
from phononbench_flows.documents import CrystalDocument
from phononbench_flows.sqlite_store import Criteria, Properties, SortSpec, SQLiteStore, StoreError, refuse_non_finite

Spec = Mapping[str, Any]


def _canonical(spec: Spec | str | Path) -> dict[str, str]:
    """A spec in full, with an absolute path.

    Raises:
        StoreError: for an unknown kind, or a spec with other keys than its kind has.
    """
    full = {"kind": "embedded", "path": str(spec)} if isinstance(spec, str | Path) else dict(spec)
    if full.get("kind") != "embedded":
        raise StoreError(f"There is no results store of kind {full.get('kind')!r}; there is: 'embedded'.")
    path = full.get("path")
    if set(full) != {"kind", "path"} or not path or not isinstance(path, str | Path):
        raise StoreError("The spec of an embedded results store has the keys 'kind' and 'path', and no others.")
    # Links are not resolved: where they differ between machines, the name that was given is the one that works.
    return {"kind": "embedded", "path": os.path.abspath(Path(path).expanduser())}  # noqa: PTH100


def _document(raw: Mapping[str, Any]) -> CrystalDocument:
    try:
        return CrystalDocument.model_validate(raw)
    except ValidationError as error:
        raise StoreError(f"Stored document '{raw.get('key')}' is no crystal document: {error}") from error


def _plain(doc: CrystalDocument) -> dict[str, Any]:
    # Pydantic's own JSON mode turns NaN in free-form fields (the structures) into null, so look before it does.
    refuse_non_finite(doc.key, doc.model_dump())
    try:
        return doc.model_dump(mode="json")
    except PydanticSerializationError as error:
        raise StoreError(f"Document '{doc.key}' was not stored: {error}.") from error


class ResultsStore:
    """The crystal documents and blobs of a project. Made by :meth:`open`."""

    def __init__(self, spec: dict[str, str], collection: SQLiteStore, blobs: BlobStore) -> None:
        self.spec = spec
        """How to open the same store again, from anywhere on this machine: plain JSON."""
        self.blobs = blobs
        """The arrays that documents refer to."""
        self._collection = collection

    @classmethod
    def open(cls, spec: Spec | str | Path) -> ResultsStore:
        """Open a store; an embedded one is made if it is not there.

        Args:
            spec: ``{"kind": "embedded", "path": directory}``, or just the directory.

        Raises:
            StoreError: for a spec of an unknown kind, or a directory that is not, or no longer, ours to read.
        """
        full = _canonical(spec)
        root = Path(full["path"])
        collection = SQLiteStore(str(root / "results.sqlite"))
        collection.connect()
        return cls(full, collection, BlobStore(root / "blobs"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this process' connections."""
        self._collection.close()

    def put(self, *docs: CrystalDocument) -> None:
        """Write documents, replacing those of the same key: all or none, on disk on return. Sets ``updated_at``.

        Raises:
            StoreError: for NaN or infinity anywhere in a document, or if the disk refuses it.
        """
        now = datetime.now(UTC)
        for doc in docs:
            doc.updated_at = now
        self._collection.update([_plain(doc) for doc in docs])

    def get(self, key: str) -> CrystalDocument | None:
        """The document of a key, if there is one."""
        raw = self._collection.query_one({"key": key})
        return None if raw is None else _document(raw)

    def documents(
        self, criteria: Criteria | None = None, sort: SortSpec | None = None, limit: int = 0
    ) -> Iterator[CrystalDocument]:
        """Documents that match, one at a time; the arguments are those of :meth:`SQLiteStore.query`."""
        return map(_document, self._collection.query(criteria, sort=sort, limit=limit))

    def query(
        self,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Documents that match, or parts of them, as plain dicts; see :meth:`SQLiteStore.query`."""
        return self._collection.query(criteria, properties, sort, skip, limit)

    def count(self, criteria: Criteria | None = None) -> int:
        """Number of documents that match."""
        return self._collection.count(criteria)

    def distinct(self, field: str, criteria: Criteria | None = None) -> list[Any]:
        """Values of a field among the documents that match, each once; lists count by their items."""
        return self._collection.distinct(field, criteria)

    def status_counts(self, set_name: str, protocol_id: str) -> dict[str, int]:
        """Number of crystals of a set under a protocol for every status that occurs; milliseconds."""
        return self._collection.tally("status", {"set": set_name, "protocol_id": protocol_id})


_OPEN: dict[tuple[int, str], ResultsStore] = {}


def open_store(spec: Spec | str | Path) -> ResultsStore:
    """The store of a spec, opened once in a process and shared by all who ask. Leave it open: it is not yours."""
    full = _canonical(spec)
    owner = (os.getpid(), json.dumps(full, sort_keys=True))
    if owner not in _OPEN:
        _OPEN[owner] = ResultsStore.open(full)
    return _OPEN[owner]
