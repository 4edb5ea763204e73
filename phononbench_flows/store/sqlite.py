"""JSON documents in one SQLite file, asked for with MongoDB's query language."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import batched, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson
from maggma.core.store import DateTimeFormat, Sort, Store
from mongomock_ng import OperationFailure
from mongomock_ng.filtering import NOTHING, filter_applies, iter_key_candidates, resolve_key, resolve_sort_key

from phononbench_flows.stability import sql_published
from phononbench_flows.store.collection import (
    Criteria,
    Properties,
    StoreError,
    Tree,
    as_json,
    projection,
    refuse_code,
)
from phononbench_flows.store.counts import FIELDS, Count

LAYOUT = 3
"""Version of the layout on disk. It grows when an older program could no longer read the directory."""

MIGRATED_LAYOUT = 2
"""The older layout that ``store.migration`` brings up to date: the same tables, other documents."""

BUSY_SECONDS = 60.0
"""How long a writer waits for its turn before it gives up, in seconds."""

SortSpec = Mapping[str, Sort | int]

_CHUNK = 256  # documents in memory at once while a query streams
# Statements are put together (S608) from these names and literals alone; whatever the caller gives is a parameter.
_INDEXED = ("key", "id", "set", "status", "protocol_id", "stage")


def _inside(path: str) -> str:
    # A damaged document, which others must not suffer from, has nothing inside.
    return f"CASE WHEN json_valid(document) THEN json_extract(document, '$.{path}') END"


_UPDATED = _inside("updated_at")
_COUNTED = tuple(f'"{field}"' if field in _INDEXED else _inside(field) for field in FIELDS)
# Answers how many crystals of a set came how far, and all else that is told of them, without reading a document.
_BY_COUNTED = f"CREATE INDEX IF NOT EXISTS by_counted ON documents ({', '.join(_COUNTED)})"
# Grouped in the same breath, the fields would be read from the documents after all.
_COUNTS = f"""
    WITH found ("set", protocol_id, status, stage, reason, attempts, frequency, updated_at) AS MATERIALIZED (
        SELECT {", ".join(_COUNTED)} FROM documents WHERE {{where}} AND "set" > ''
    )
    SELECT "set", protocol_id, status, stage, reason, coalesce(attempts, 0) > 0, {sql_published("frequency")},
        count(*),
        count(*) FILTER (WHERE updated_at >= ?), min(updated_at) FILTER (WHERE updated_at >= ?)
    FROM found GROUP BY 1, 2, 3, 4, 5, 6, 7
"""  # noqa: S608
_SCHEMA = (
    (
        'CREATE TABLE documents (number INTEGER PRIMARY KEY, "key" TEXT NOT NULL UNIQUE, "id" TEXT, "set" TEXT, '
        '"status" TEXT, "protocol_id" TEXT, "stage" TEXT, document TEXT NOT NULL)'
    ),
    _BY_COUNTED,
    'CREATE INDEX by_status ON documents ("status")',
    'CREATE INDEX by_protocol ON documents ("protocol_id")',
    'CREATE INDEX by_id ON documents ("id")',
    f"CREATE INDEX by_update ON documents ({_UPDATED})",
    f"PRAGMA user_version = {LAYOUT}",
)
# Keeping the row (not REPLACE) keeps its number, and so the order in which documents first came.
_UPSERT = (
    'INSERT INTO documents ("key", "id", "set", "status", "protocol_id", "stage", document) '
    'VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT ("key") DO UPDATE SET "id" = excluded."id", "set" = excluded."set", '
    '"status" = excluded."status", "protocol_id" = excluded."protocol_id", "stage" = excluded."stage", '
    "document = excluded.document"
)


def _row(document: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The row of a document: its indexed fields and its text."""
    key = document.get("key")
    if not isinstance(key, str):
        raise StoreError("A document without a 'key' (a string) was not stored.")
    for field in _INDEXED:
        # A list would match {field: value} in MongoDB, but never through the index.
        if field in document and not isinstance(document[field], str):
            raise StoreError(f"Document '{key}' was not stored: '{field}' is not a string.")
    return (*(document.get(field) for field in _INDEXED), as_json(document))


def _matches(criteria: Criteria, document: Mapping[str, Any]) -> bool:
    try:
        return bool(filter_applies(criteria, document))
    except (OperationFailure, NotImplementedError, TypeError, ValueError, re.error) as error:
        raise StoreError(f"The query cannot be answered: {error}.") from error


def _checked(criteria: Criteria | None) -> Criteria:
    """The criteria, refused where they are wrong whatever the documents are."""
    criteria = criteria or {}
    refuse_code(criteria)
    _matches(criteria, {})
    return criteria


def _prefilter(criteria: Criteria) -> tuple[str, list[str], bool]:
    """What an index can say about the criteria: SQL, its parameters, and whether it says everything."""
    clauses, parameters, exact = ["TRUE"], [], True
    for field, condition in criteria.items():
        operators = condition if isinstance(condition, Mapping) else {"$eq": condition}
        exact = exact and field in _INDEXED and len(operators) == 1
        equal, among = operators.get("$eq"), operators.get("$in")
        if field in _INDEXED and isinstance(equal, str):
            clauses.append(f'"{field}" = ?')
            parameters.append(str(equal))
        elif field in _INDEXED and isinstance(among, list | tuple) and all(isinstance(item, str) for item in among):
            # One parameter, however long the list is.
            clauses.append(f'"{field}" IN (SELECT value FROM json_each(?))')  # noqa: S608
            parameters.append(json.dumps(list(among)))
        elif field == "updated_at" and isinstance(since := operators.get("$gte"), str):
            clauses.append(f"{_UPDATED} >= ?")
            parameters.append(since)
            exact = False
        else:
            exact = False
    return " AND ".join(clauses), parameters, exact


def _count(row: tuple[Any, ...]) -> Count:
    name, protocol_id, status, stage, reason, begun, above, number, recent, first = row
    known = None if above is None else bool(above)
    return Count(name, protocol_id, status, stage, reason, bool(begun), known, number, recent, first)


def _members(criteria: Criteria) -> dict[str, frozenset[str]]:
    """The conditions of the form {indexed field: {"$in": [strings]}}, as sets."""
    return {
        field: frozenset(condition["$in"])
        for field, condition in criteria.items()
        if field in _INDEXED
        and isinstance(condition, Mapping)
        and set(condition) == {"$in"}
        and all(isinstance(item, str) for item in condition["$in"])
    }


def _project(value: Any, tree: Tree | None) -> Any:
    """The parts of a value that a tree names; within lists, those of every document in the list."""
    if tree is None:
        return value
    if isinstance(value, list):
        return [_project(item, tree) for item in value if isinstance(item, Mapping | list)]
    return {
        name: _project(item, tree[name])
        for name, item in value.items()
        if name in tree and (tree[name] is None or isinstance(item, Mapping | list))
    }


def _identity(value: Any) -> Any:
    """A hashable stand-in; true and 1 stay different, 1 and 1.0 the same, as in MongoDB."""
    if isinstance(value, Mapping | list):
        return "json", json.dumps(value)
    return isinstance(value, bool), value


def _nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


class SQLiteStore(Store):
    """A maggma store of JSON documents in one SQLite file, unique by ``key``.

    Every update is one transaction, on disk when it returns. Criteria mean what they mean in MongoDB: equality and
    ``$in`` on the top-level strings ``key``, ``id``, ``set``, ``status`` and ``protocol_id``, and ``$gte`` on
    ``updated_at``, narrow the search by index, then every document left goes through mongomock's filter. A query reads
    documents in small lots: it needs
    little memory and holds no lock, and a document that is changed meanwhile is seen whole, either before or after.

    The store connects when it is first used, each process and thread by itself, so it may be forked and pickled.
    """

    def __init__(self, path: str, layout: int = LAYOUT) -> None:
        """Nothing is opened yet.

        Args:
            path: the SQLite file. Its directory is made when needed.
            layout: that the file has to have; another one is only for a migration.
        """
        self.path = str(path)
        self.layout = layout
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}
        super().__init__(
            key="key", last_updated_field="updated_at", last_updated_type=DateTimeFormat.IsoFormat, validator=None
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SQLiteStore) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def name(self) -> str:
        """Name of the store."""
        return f"sqlite://{self.path}"

    @property
    def _collection(self) -> Any:
        raise NotImplementedError("A SQLiteStore has no pymongo collection.")

    def connect(self, force_reset: bool = False) -> None:
        """Open the file now instead of at first use.

        Args:
            force_reset: close this process' connections first.

        Raises:
            StoreError: if the file cannot be opened, is none of ours, or has a newer layout.
        """
        if force_reset:
            self.close()
        self._connection()

    def close(self) -> None:
        """Close this process' connections. The store connects again when it is used again."""
        # Those of a parent process stay as they are: SQLite forbids to close them after a fork.
        for owner in [owner for owner in self._connections if owner[0] == os.getpid()]:
            self._connections.pop(owner).close()

    def count(self, criteria: Criteria | None = None) -> int:
        """Number of documents that match."""
        criteria = _checked(criteria)
        where, parameters, exact = _prefilter(criteria)
        if exact:
            return self._select(f"SELECT count(*) FROM documents WHERE {where}", parameters)[0][0]  # noqa: S608
        return sum(1 for _ in self._matching(criteria))

    def is_empty(self) -> bool:
        """Whether there is no document."""
        return not self._select("SELECT EXISTS (SELECT 1 FROM documents)", [])[0][0]

    def tally(self, field: str, criteria: Criteria) -> dict[str, int]:
        """Number of documents for every value of a field, answered from an index in milliseconds.

        Raises:
            StoreError: if the field or the criteria are not answered by an index alone.
        """
        where, parameters, exact = _prefilter(_checked(criteria))
        if not exact or field not in _INDEXED:
            raise StoreError(f"No index counts '{field}' for {dict(criteria)}.")
        columns = f'"{field}", count(*)'
        condition = f'{where} AND "{field}" IS NOT NULL'
        rows = self._select(f"SELECT {columns} FROM documents WHERE {condition} GROUP BY 1", parameters)  # noqa: S608
        return dict(rows)

    def counts(self, criteria: Criteria, since: str) -> list[Count]:
        """Calculations by all that is told of them; see ``Collection.counts``.

        Raises:
            StoreError: if the criteria are not answered by an index alone.
        """
        where, parameters, exact = _prefilter(_checked(criteria))
        if not exact:
            raise StoreError(f"No index counts {dict(criteria)}.")
        rows = self._select(_COUNTS.format(where=where), [*parameters, since, since])
        return [_count(row) for row in rows]

    def query(
        self,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Documents that match, in the order in which they first came unless sorted; see ``Collection.query``.

        Raises:
            StoreError: at the first document, if the query cannot be answered.
        """
        criteria = _checked(criteria)
        tree = projection(properties)
        documents = self._sorted(criteria, sort) if sort else self._matching(criteria)
        for _, document in islice(documents, skip, skip + limit if limit else None):
            yield _project(document, tree)

    def update(self, docs: list[dict[str, Any]] | dict[str, Any], key: list[str] | str | None = None) -> None:
        """Insert documents, or replace those of the same ``key``: all of them or, on any error, none.

        Raises:
            StoreError: for a document that is not plain JSON (NaN and infinity are not), or if the disk refuses it.
        """
        if key not in (None, self.key):
            raise StoreError(f"The store knows documents by '{self.key}', not by {key!r}.")
        rows = [_row(document) for document in ([docs] if isinstance(docs, Mapping) else docs)]
        with self._transaction() as connection:
            connection.executemany(_UPSERT, rows)

    def replace(self, docs: list[dict[str, Any]], criteria: Criteria) -> list[str]:
        """Replace those documents that are there and match; see ``Collection.replace``."""
        rows = {document["key"]: _row(document) for document in docs}
        with self._transaction() as connection:
            sql = 'SELECT number, document FROM documents WHERE "key" IN (SELECT value FROM json_each(?))'
            texts = dict(connection.execute(sql, [json.dumps(list(rows))]).fetchall())
            there = [document for number in texts if (document := self._loaded(number, texts)) is not None]
            matching = {document["key"] for document in there if _matches(criteria, document)}
            connection.executemany(_UPSERT, [row for key, row in rows.items() if key in matching])
        return [key for key in rows if key not in matching]

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the documents of these keys; see ``Collection.set_fields``."""
        sql = 'SELECT number, document FROM documents WHERE "key" IN (SELECT value FROM json_each(?))'
        for lot in batched(changes, _CHUNK):
            with self._transaction() as connection:
                texts = dict(connection.execute(sql, [json.dumps(lot)]).fetchall())
                documents = [document for number in texts if (document := self._loaded(number, texts)) is not None]
                connection.executemany(_UPSERT, [_row(found | dict(changes[found["key"]])) for found in documents])

    def create_indexes(self) -> None:
        """Make the file with its indices, if it is not there; the younger of them in a file that lacks them."""
        try:
            self._connection().execute(f"CREATE INDEX IF NOT EXISTS by_update ON documents ({_UPDATED})")
            self._connection().execute(_BY_COUNTED)
            self._connection().execute("DROP INDEX IF EXISTS by_set")  # as older versions made, and the last one holds
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written: {error}.") from error

    def missing_indexes(self) -> list[str]:
        """Always empty: the layout that a file was opened with has them all."""
        return []

    def ensure_index(self, key: str, unique: bool = False) -> bool:
        """Whether a field has an index. The indices are fixed; only ``key`` is unique."""
        return key == self.key or (key in _INDEXED and not unique)

    def distinct(
        self,
        field: str,
        criteria: Criteria | None = None,
        all_exist: bool = False,  # noqa: ARG002 - maggma's signature; its own stores do not look at it either
    ) -> list[Any]:
        """Values of a field, each once, in the order in which they first came; lists count by their items."""
        criteria = _checked(criteria)
        where, parameters, exact = _prefilter(criteria)
        if exact and field in _INDEXED:
            condition = f'{where} AND "{field}" IS NOT NULL GROUP BY 1 ORDER BY min(number)'
            rows = self._select(f'SELECT "{field}" FROM documents WHERE {condition}', parameters)  # noqa: S608
            return [value for (value,) in rows]
        found: dict[Any, Any] = {}
        for _, document in self._matching(criteria):
            for value in iter_key_candidates(field, document):
                for item in value if isinstance(value, list) else [value]:
                    if item is not NOTHING:
                        found.setdefault(_identity(item), item)
        return list(found.values())

    def groupby(
        self,
        keys: list[str] | str,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Documents in groups of equal values at ``keys``; those without any of the keys are left out.

        The arguments are those of :meth:`query`. All groups are in memory at once.
        """
        keys = [keys] if isinstance(keys, str) else keys
        wanted = [*keys, *(name for name in properties if name not in keys)] if properties else None
        groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        for document in self.query(criteria, wanted, sort, skip, limit):
            values = [resolve_key(key, document) for key in keys]
            if NOTHING in values:
                continue
            label: dict[str, Any] = {}
            for key, value in zip(keys, values, strict=True):
                _merge(label, _nested(key, value))
            groups.setdefault(tuple(map(_identity, values)), (label, []))[1].append(document)
        yield from groups.values()

    def remove_docs(self, criteria: Criteria) -> None:
        """Remove the documents that match, in one transaction."""
        criteria = _checked(criteria)
        with self._transaction() as connection:
            doomed = [(number,) for number, _ in self._matching(criteria)]
            connection.executemany("DELETE FROM documents WHERE number = ?", doomed)

    def set_layout(self, layout: int) -> None:
        """Say that the documents have this layout now; the store is opened with it from then on."""
        with self._transaction() as connection:
            connection.execute(f"PRAGMA user_version = {int(layout)}")
        self.layout = layout

    def _matching(self, criteria: Criteria) -> Iterator[tuple[int, dict[str, Any]]]:
        where, parameters, _ = _prefilter(criteria)
        # The numbers come from an index, which is far smaller than the documents; sorted() gives the order of arrival.
        rows = self._select(f"SELECT number FROM documents WHERE {where}", parameters)  # noqa: S608
        return self._filtered(criteria, sorted(number for (number,) in rows))

    def _sorted(self, criteria: Criteria, sort: SortSpec) -> Iterator[tuple[int, dict[str, Any]]]:
        """Matching documents in order. Only what they are sorted by is held in memory, not the documents."""
        rows = [
            (number, *(resolve_sort_key(field, document) for field in sort))
            for number, document in self._matching(criteria)
        ]
        for place, direction in reversed(list(enumerate(sort.values(), start=1))):
            rows.sort(key=itemgetter(place), reverse=Sort(direction) is Sort.Descending)
        return self._filtered(criteria, [row[0] for row in rows])

    def _filtered(self, criteria: Criteria, chosen: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Documents of these numbers that match, read lot by lot. Those removed meanwhile are left out."""
        # Mongomock goes through a list of $in for every document: minutes for 10,000 keys.
        members = _members(criteria)
        rest = {field: condition for field, condition in criteria.items() if field not in members}
        for lot in batched(chosen, _CHUNK):
            sql = "SELECT number, document FROM documents WHERE number IN (SELECT value FROM json_each(?))"
            texts = dict(self._select(sql, [json.dumps(lot)]))
            for number in lot:
                document = self._loaded(number, texts)
                if document is None or any(document.get(field) not in among for field, among in members.items()):
                    continue
                if _matches(rest, document):
                    yield number, document

    def _loaded(self, number: int, texts: Mapping[int, Any]) -> dict[str, Any] | None:
        try:
            document = orjson.loads(texts.get(number, "null"))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise StoreError(f"{self.path} is damaged: row {number} is no JSON ({error}).") from error
        if document is not None and not isinstance(document, dict):
            raise StoreError(f"{self.path} is damaged: row {number} is no document.")
        return document

    def _select(self, sql: str, parameters: Sequence[str | float]) -> list[tuple[Any, ...]]:
        """All rows of a statement: a cursor left open would keep the write-ahead log from being emptied."""
        try:
            return self._connection().execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}.") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        try:
            with _exclusive(connection):
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written: {error}.") from error

    def _connection(self) -> sqlite3.Connection:
        owner = (os.getpid(), threading.get_ident())
        if owner not in self._connections:
            self._connections[owner] = _open(Path(self.path), self.layout)
        return self._connections[owner]


def _merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    for name, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = value


@contextmanager
def _exclusive(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction. Taking the lock at once makes a second writer wait instead of fail half way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _open(path: Path, layout: int) -> sqlite3.Connection:
    """A connection to a file of a layout, which is made if it is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be opened: {error}.") from error
    try:
        _prepare(connection, path, layout)
        _use_log(connection)
        # FULL flushes the log at every commit. NORMAL would do for a killed process, not for a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        # As macOS needs it to empty the disk's own cache; elsewhere these do nothing.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{path} cannot be opened as a results store: {error}.") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _prepare(connection: sqlite3.Connection, path: Path, layout: int) -> None:
    """Make the tables in an empty file; refuse a file of another layout."""
    if _version(connection) == layout:
        return
    with _exclusive(connection):
        # Asked again, since another process may have made the tables meanwhile.
        version = _version(connection)
        if version == MIGRATED_LAYOUT:
            raise StoreError(
                f"{path.parent} was written by an older version (layout {version}, this one knows {layout}): "
                f"run `phononbench migrate {path.parent}`."
            )
        if version not in {0, layout}:
            raise StoreError(f"{path} was written by another version (layout {version}, this one knows {layout}).")
        if version == 0:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(f"{path} is an SQLite file, but no results store.")
            for statement in _SCHEMA:
                connection.execute(statement)


def _use_log(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, which stays on for the file. Busy, this fails at once instead of waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
