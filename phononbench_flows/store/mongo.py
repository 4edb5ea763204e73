"""JSON documents and blobs in a MongoDB database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import batched
from typing import Any

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import IndexModel, ReplaceOne, UpdateOne
from pymongo.errors import PyMongoError

from phononbench_flows.documents import BlobRef
from phononbench_flows.stability import MINIMUM
from phononbench_flows.store.blobs import Blobs
from phononbench_flows.store.collection import (
    Criteria,
    Properties,
    SortSpec,
    StoreError,
    as_json,
    projection,
    refuse_code,
)
from phononbench_flows.store.connection import attempt, client, mongo_uri

_log = logging.getLogger(__name__)

_LOT = 256  # documents in memory at once once the cursor of a query was lost
_CHUNK_BYTES = 255 * 1024  # GridFS' own default
_LARGEST_DOCUMENT = 16 * 1024**2

CALCULATION_INDEXES = (
    IndexModel("key", unique=True),
    IndexModel("id"),
    IndexModel([("set", 1), ("protocol_id", 1), ("status", 1)]),
    IndexModel([("set", 1), ("protocol_id", 1), ("stage", 1)]),
    IndexModel([("protocol_id", 1), ("status", 1)]),
    IndexModel("status"),
    IndexModel("steps"),
    IndexModel("elements"),
    IndexModel("nelements"),
    IndexModel("chemsys"),
    IndexModel("formula_pretty"),
    IndexModel("nsites"),
    IndexModel("symmetry_relaxed.crystal_system"),
    IndexModel("symmetry_relaxed.number"),
    IndexModel(MINIMUM),
    IndexModel("evidence.looks.path.frequency"),
    IndexModel("content_hash"),
    IndexModel("origin.parent"),
    IndexModel("updated_at"),
)
"""Indices of the collection of calculations, by what queries, sorts and counts start from."""

CRYSTAL_INDEXES = (
    IndexModel("key", unique=True),
    IndexModel("id"),
    IndexModel("set"),
    IndexModel("content_hash"),
    IndexModel("origin.parent"),
    IndexModel("protocol_id", sparse=True),  # empty, and asked by require_layout
)
"""Indices of the collection of crystals."""

SET_INDEXES = (IndexModel("key", unique=True),)
"""Indices of the collection of sets."""

CONFIRMATION_INDEXES = (
    IndexModel("key", unique=True),
    IndexModel("id"),
    IndexModel([("set", 1), ("status", 1)]),
)
"""Indices of the collection of confirmations."""

OLD_CRYSTALS = {"protocol_id": {"$type": "string"}}
"""Finds what older versions kept among the crystals: crystal and calculation in one document."""

_CHUNK_INDEXES = (IndexModel([("files_id", 1), ("n", 1)], unique=True),)


def _ask[Result](database: str, name: str, action: Callable[[Any], Result], patience: float | None = None) -> Result:
    """What an action on a collection returns; tried again while the server is away."""
    uri = mongo_uri()
    return attempt(lambda: action(client(uri)[database][name]), uri, patience)


def _missing(database: str, name: str, indexes: Sequence[IndexModel]) -> list[str]:
    there = _ask(database, name, lambda collection: [dict(index["key"]) for index in collection.list_indexes()])
    wanted = [dict(index.document["key"]) for index in indexes]
    return [f"{name}({', '.join(fields)})" for fields in wanted if fields not in there]


def require_layout(database: str) -> None:
    """Raise StoreError for a database in which crystals and calculations are not yet told apart.

    Asks without waiting for a server that is away: it is the first that is asked of it.
    """
    old = _ask(database, "crystals", lambda crystals: crystals.find_one(OLD_CRYSTALS, {"_id": 1}), patience=0)
    if old is not None:
        raise StoreError(
            f"The database '{database}' was written by an older version: run `phononbench migrate mongo:{database}`."
        )


class MongoCollection:
    """A collection of JSON documents with ``_id`` = ``key``, which stays out of sight. See ``Collection``.

    Each document is written whole or not at all. Reads and writes wait for a server that went away. The connection is
    looked up for every one of them, so the collection may be forked and pickled.
    """

    def __init__(self, database: str, name: str, indexes: Sequence[IndexModel]) -> None:
        self.database = database
        self.name = name
        self.indexes = indexes

    def connect(self) -> None:
        """Ask the server once, without waiting for one that is away, and with what a query needs: a login."""
        self._ask(lambda collection: collection.find_one({"_id": ""}, {"_id": 1}), patience=0)

    def close(self) -> None:
        """Nothing: the connection belongs to the process, not to the collection."""

    def is_empty(self) -> bool:
        """Whether there is no document, by the collection's metadata."""
        return not self._ask(lambda collection: collection.estimated_document_count())

    def query(
        self,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Documents that match; see ``Collection.query``."""
        criteria = _checked(criteria)
        fields = _included(properties)
        order = [(field, int(direction)) for field, direction in sort.items()] if sort else None
        which: dict[str, Any] = {"sort": order, "skip": skip, "limit": limit}
        read: set[str] = set()
        try:
            for row in client(mongo_uri())[self.database][self.name].find(criteria, fields, **which):
                key = row.pop("_id")
                if key not in read:  # a document that changes meanwhile may come twice
                    read.add(key)
                    yield row
        except PyMongoError as error:
            # A cursor is lost with the server, and dies of old age under a slow reader.
            _log.info("The cursor over %s was lost (%s); its keys are listed", self.name, type(error).__name__)
        else:
            return
        keys = self._ask(lambda c: [row["_id"] for row in c.find(criteria, {"_id": 1}, **which)])
        for lot in batched((key for key in keys if key not in read), _LOT):
            yield from self._lot(lot, criteria, fields)

    def _lot(
        self, keys: Sequence[str], criteria: Criteria, fields: Mapping[str, int] | None
    ) -> Iterator[dict[str, Any]]:
        # Asked again, since a document may have changed since its key was listed. The keys come first: a server that
        # starts from the first index it can use would otherwise go through all that match, for every lot.
        rest = {field: condition for field, condition in criteria.items() if field != "_id"}
        wanted = {"_id": {"$in": list(keys)}, **rest}
        found = {row.pop("_id"): row for row in self._ask(lambda c: list(c.find(wanted, fields)))}
        return (found[key] for key in keys if key in found)

    def count(self, criteria: Criteria | None = None) -> int:
        """Number of documents that match."""
        criteria = _checked(criteria)
        return self._ask(lambda collection: collection.count_documents(criteria))

    def distinct(self, field: str, criteria: Criteria | None = None) -> list[Any]:
        """Values of a field; see ``Collection.distinct``."""
        criteria = _checked(criteria)
        return self._ask(lambda collection: collection.distinct(field, criteria))

    def tally(self, field: str, criteria: Criteria) -> dict[str, int]:
        """Number of documents for every value of a field."""
        steps = [{"$match": _checked(criteria)}, {"$group": {"_id": f"${field}", "n": {"$sum": 1}}}]
        rows = self._ask(lambda collection: list(collection.aggregate(steps)))
        return {row["_id"]: row["n"] for row in rows if row["_id"] is not None}

    def update(self, docs: list[dict[str, Any]]) -> None:
        """Insert documents, or replace those of the same ``key``; none if one of them is not plain JSON."""
        # A key that comes twice would be inserted twice at once; the last one counts.
        latest = {document["key"]: document for document in docs}
        writes: list[ReplaceOne[Any]] = [
            ReplaceOne({"_id": key}, _encoded(document), upsert=True) for key, document in latest.items()
        ]
        if writes:
            self._ask(lambda collection: collection.bulk_write(writes, ordered=False))

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the documents of these keys; see ``Collection.set_fields``."""
        writes = [UpdateOne({"_id": key}, {"$set": dict(fields)}) for key, fields in changes.items()]
        if writes:
            self._ask(lambda collection: collection.bulk_write(writes, ordered=False))

    def remove(self, keys: Sequence[str]) -> None:
        """Remove the documents of these keys."""
        self._ask(lambda collection: collection.delete_many({"_id": {"$in": list(keys)}}))

    def create_indexes(self) -> None:
        """Make the indices that are not there yet."""
        self._ask(lambda collection: collection.create_indexes(list(self.indexes)))

    def missing_indexes(self) -> list[str]:
        """The indices that are not there, by their fields."""
        return _missing(self.database, self.name, self.indexes)

    def _ask[Result](self, action: Callable[[Any], Result], patience: float | None = None) -> Result:
        return _ask(self.database, self.name, action, patience)


def _checked(criteria: Criteria | None) -> Criteria:
    criteria = criteria or {}
    refuse_code(criteria)
    return criteria


def _included(properties: Properties | None) -> dict[str, int] | None:
    """The projection of a query, checked; ``_id`` comes with it."""
    if projection(properties) is None or properties is None:
        return None
    return {field: 1 for field in properties if field != "_id"}


def _encoded(document: Mapping[str, Any]) -> RawBSONDocument:
    """A document as it goes over the wire, so that what cannot be sent is known before anything is."""
    key = document["key"]
    as_json(document)  # BSON would take NaN, bytes and dates
    try:
        data = bson.encode(document)
    except (BSONError, OverflowError) as error:
        raise StoreError(f"Document '{key}' was not stored: MongoDB does not take it ({error}).") from error
    if len(data) > _LARGEST_DOCUMENT:
        raise StoreError(f"Document '{key}' was not stored: MongoDB takes no document of {len(data)} bytes.")
    return RawBSONDocument(data)


class GridFSBlobs(Blobs):
    """Blobs in GridFS, as ``blobs.files`` and ``blobs.chunks`` with the sha256 as the file's ``_id``.

    A blob is written piece by piece in place, its entry in ``blobs.files`` last. So an upload that was cut off, or is
    made by two processes at once, is simply made again; GridFS' own upload takes pieces that lie there for an error.
    """

    def __init__(self, database: str) -> None:
        self.database = database

    def create_indexes(self) -> None:
        """Make the index that GridFS reads by."""
        self._chunks(lambda collection: collection.create_indexes(list(_CHUNK_INDEXES)))

    def missing_indexes(self) -> list[str]:
        """The index that GridFS reads by, if it is not there."""
        return _missing(self.database, "blobs.chunks", _CHUNK_INDEXES)

    def _read(self, ref: BlobRef) -> bytes | None:
        if self._files(lambda collection: collection.find_one({"_id": ref.sha256})) is None:
            return None
        chunks = self._chunks(lambda collection: list(collection.find({"files_id": ref.sha256}, sort=[("n", 1)])))
        return b"".join(chunk["data"] for chunk in chunks)

    def _write(self, ref: BlobRef, data: bytes) -> None:
        chunks = [
            {"_id": f"{ref.sha256}-{n}", "files_id": ref.sha256, "n": n, "data": data[start : start + _CHUNK_BYTES]}
            for n, start in enumerate(range(0, len(data), _CHUNK_BYTES))
        ]
        writes = [ReplaceOne({"_id": chunk["_id"]}, chunk, upsert=True) for chunk in chunks]
        self._chunks(lambda collection: collection.bulk_write(writes, ordered=False))
        entry = {
            "_id": ref.sha256,
            "filename": f"{ref.sha256}.npz",
            "length": len(data),
            "chunkSize": _CHUNK_BYTES,
            "uploadDate": datetime.now(UTC),
        }
        self._files(lambda collection: collection.replace_one({"_id": ref.sha256}, entry, upsert=True))

    def _place(self, ref: BlobRef) -> str:
        return f"Blob {ref.sha256} of the MongoDB database '{self.database}'"

    def _files[Result](self, action: Callable[[Any], Result]) -> Result:
        return _ask(self.database, "blobs.files", action)

    def _chunks[Result](self, action: Callable[[Any], Result]) -> Result:
        return _ask(self.database, "blobs.chunks", action)
