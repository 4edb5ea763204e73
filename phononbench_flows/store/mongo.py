"""JSON documents and blobs in a MongoDB database."""

from __future__ import annotations

import logging
from collections import defaultdict
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
from phononbench_flows.store import counts
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
    IndexModel("id"),
    IndexModel([(field, 1) for field in counts.FIELDS]),
    IndexModel([("protocol_id", 1), ("status", 1)]),
    IndexModel("status"),
    IndexModel("elements"),
    IndexModel("nelements"),
    IndexModel("formula_pretty"),
    IndexModel("nsites"),
    IndexModel("symmetry_relaxed.crystal_system"),
    IndexModel("symmetry_relaxed.number"),
    IndexModel(MINIMUM),
    IndexModel("evidence.looks.path.frequency"),
    IndexModel("origin.parent"),
)
"""Indices of the collection of calculations: what the options of ``query`` and our own commands start from.

Each write pays for each of them. Keys are found by ``_id``, which every collection has an index of.
"""

CRYSTAL_INDEXES = (IndexModel("protocol_id", sparse=True),)  # empty, and asked by require_layout
"""Indices of the collection of crystals, which are found by their ids."""

SET_INDEXES = ()
"""Indices of the collection of sets, which are found by their names."""

_RETIRED = {
    "calculations": frozenset(
        {
            *("key_1", "set_1_protocol_id_1_status_1", "set_1_protocol_id_1_stage_1", "steps_1", "chemsys_1"),
            *("content_hash_1", "updated_at_1", "set_1_protocol_id_1_status_1_stage_1"),
        }
    ),
    "crystals": frozenset({"key_1", "id_1", "set_1", "content_hash_1", "origin.parent_1"}),
    "sets": frozenset({"key_1"}),
}
"""Indices that older versions made and no query starts from, by collection."""

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

    def counts(self, criteria: Criteria, since: str) -> list[counts.Count]:
        """Calculations by all that is told of them; see ``Collection.counts``."""
        steps = counts.pipeline(_checked(criteria), since)
        return [counts.count_of_row(row) for row in self._ask(lambda collection: list(collection.aggregate(steps)))]

    def update(self, docs: list[dict[str, Any]]) -> None:
        """Insert documents, or replace those of the same ``key``; none if one of them is not plain JSON."""
        # A key that comes twice would be inserted twice at once; the last one counts.
        latest = {document["key"]: document for document in docs}
        writes: list[ReplaceOne[Any]] = [
            ReplaceOne({"_id": key}, _encoded(document), upsert=True) for key, document in latest.items()
        ]
        if writes:
            self._ask(lambda collection: collection.bulk_write(writes, ordered=False))

    def replace(self, docs: list[dict[str, Any]], criteria: Criteria) -> list[str]:
        """Replace those documents that are there and match; see ``Collection.replace``."""
        latest = {document["key"]: document for document in docs}
        wanted = _checked(criteria)
        writes: list[ReplaceOne[Any]] = [
            ReplaceOne({"_id": key, **wanted}, _encoded(document)) for key, document in latest.items()
        ]
        if not writes:
            return []
        done = self._ask(lambda collection: collection.bulk_write(writes, ordered=False))
        return [] if done.matched_count == len(writes) else self._others_than(latest)

    def _others_than(self, latest: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Keys of documents that are not the ones that were written last."""
        # A write that was tried again, since its answer was lost, may have found its own result.
        there = self._ask(lambda c: list(c.find({"_id": {"$in": list(latest)}}, {"updated_at": 1, "stage": 1})))
        written = {row["_id"]: (row["updated_at"], row["stage"]) for row in there}
        return [key for key, ours in latest.items() if written.get(key) != (ours["updated_at"], ours["stage"])]

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the documents of these keys; see ``Collection.set_fields``."""
        writes = [UpdateOne({"_id": key}, {"$set": dict(fields)}) for key, fields in changes.items()]
        if writes:
            self._ask(lambda collection: collection.bulk_write(writes, ordered=False))

    def remove(self, keys: Sequence[str]) -> None:
        """Remove the documents of these keys."""
        self._ask(lambda collection: collection.delete_many({"_id": {"$in": list(keys)}}))

    def create_indexes(self) -> None:
        """Make the indices that are not there yet, and drop those of older versions that no query starts from."""
        if self.indexes:
            self._ask(lambda collection: collection.create_indexes(list(self.indexes)))
        there = self._ask(lambda collection: [index["name"] for index in collection.list_indexes()])
        for name in _RETIRED.get(self.name, frozenset()).intersection(there):
            self._ask(lambda collection, name=name: collection.drop_index(name))  # type: ignore[misc]

    def missing_indexes(self) -> list[str]:
        """The indices that are not there, by their fields."""
        return _missing(self.database, self.name, self.indexes)

    def _ask[Result](self, action: Callable[[Any], Result], patience: float | None = None) -> Result:
        return _ask(self.database, self.name, action, patience)


def _checked(criteria: Criteria | None) -> Criteria:
    """Criteria without code; a key is asked for as ``_id``, which it is."""
    criteria = criteria or {}
    refuse_code(criteria)
    if "key" not in criteria or "_id" in criteria:
        return criteria
    return {"_id": criteria["key"]} | {field: value for field, value in criteria.items() if field != "key"}


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


def _pieces(name: str, data: bytes) -> Iterator[dict[str, Any]]:
    """The documents of ``blobs.chunks`` of a blob."""
    for n, start in enumerate(range(0, len(data), _CHUNK_BYTES)):
        yield {"_id": f"{name}-{n}", "files_id": name, "n": n, "data": data[start : start + _CHUNK_BYTES]}


def _entry(name: str, length: int) -> dict[str, Any]:
    """The document of ``blobs.files`` of a blob."""
    about = {"filename": f"{name}.npz", "length": length, "chunkSize": _CHUNK_BYTES, "uploadDate": datetime.now(UTC)}
    return {"_id": name} | about


def _replacements(documents: Sequence[dict[str, Any]]) -> list[ReplaceOne[dict[str, Any]]]:
    return [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents]


class GridFSBlobs(Blobs):
    """Blobs in GridFS, as ``blobs.files`` and ``blobs.chunks`` with the sha256 as the file's ``_id``.

    A blob is written piece by piece in place, its entry in ``blobs.files`` last. So an upload that was cut off, or is
    made by two processes at once, is simply made again; GridFS' own upload takes pieces that lie there for an error.
    """

    lot_bytes = 2**25

    def __init__(self, database: str) -> None:
        self.database = database

    def create_indexes(self) -> None:
        """Make the index that GridFS reads by."""
        self._chunks(lambda collection: collection.create_indexes(list(_CHUNK_INDEXES)))

    def missing_indexes(self) -> list[str]:
        """The index that GridFS reads by, if it is not there."""
        return _missing(self.database, "blobs.chunks", _CHUNK_INDEXES)

    def _read(self, refs: Sequence[BlobRef]) -> dict[str, bytes]:
        # The pieces tell all: a blob whose pieces are not all there has another sha256.
        wanted = {"files_id": {"$in": [ref.sha256 for ref in refs]}}
        order = [("files_id", 1), ("n", 1)]
        found: defaultdict[str, list[bytes]] = defaultdict(list)
        for piece in self._chunks(lambda collection: list(collection.find(wanted, sort=order))):
            found[piece["files_id"]].append(piece["data"])
        return {name: b"".join(pieces) for name, pieces in found.items()}

    def _write(self, blobs: Mapping[str, bytes]) -> None:
        # To ask what is there costs as much as to write it again.
        if blobs:
            pieces = [piece for name, data in blobs.items() for piece in _pieces(name, data)]
            self._chunks(lambda collection: collection.bulk_write(_replacements(pieces), ordered=False))
            entries = [_entry(name, len(data)) for name, data in blobs.items()]
            self._files(lambda collection: collection.bulk_write(_replacements(entries), ordered=False))

    def _place(self, ref: BlobRef) -> str:
        return f"Blob {ref.sha256} of the MongoDB database '{self.database}'"

    def _files[Result](self, action: Callable[[Any], Result]) -> Result:
        return _ask(self.database, "blobs.files", action)

    def _chunks[Result](self, action: Callable[[Any], Result]) -> Result:
        return _ask(self.database, "blobs.chunks", action)
