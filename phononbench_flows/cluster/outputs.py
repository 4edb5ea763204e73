"""Where jobflow keeps the outputs of jobs on a cluster: lists of keys, by which a chunk's jobs follow one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from maggma.stores import MongoStore
from pymongo import IndexModel

from phononbench_flows.store import DEFAULT_DATABASE
from phononbench_flows.store.connection import attempt, client, mongo_uri

INDEXES = [IndexModel([("uuid", 1), ("index", -1)], unique=True)]
"""The index by which outputs are found. Jobflow makes none itself."""


class OutputsStore(MongoStore):
    """A collection on the server that the environment names (see ``mongo_uri``), through the process' one client.

    Unlike maggma's own store, it can be written into a ``jobflow.yaml`` without a secret, makes no connection for each
    job, and waits for a server that is away.
    """

    def __init__(self, database: str = DEFAULT_DATABASE, collection_name: str = "outputs", **kwargs: Any) -> None:
        super().__init__(database, collection_name, **kwargs)

    @property
    def name(self) -> str:
        """Database and collection."""
        return f"{self.database}.{self.collection_name}"

    def connect(self, force_reset: bool = False) -> None:  # noqa: ARG002  (the client looks after its connections)
        """Find the collection; the server is asked when the collection is used."""
        self._coll = client()[self.database][self.collection_name]  # type: ignore[assignment]

    def close(self) -> None:
        """Nothing: the connection belongs to the process."""

    def query(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Documents that match; see ``MongoStore.query``."""
        find = super().query
        return iter(attempt(lambda: list(find(*args, **kwargs)), mongo_uri()))

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Insert or replace documents; see ``MongoStore.update``."""
        write = super().update
        attempt(lambda: write(*args, **kwargs), mongo_uri())

    def create_indexes(self) -> None:
        """Make the index that is not there yet."""
        self._collection.create_indexes(INDEXES)

    def missing_indexes(self) -> list[str]:
        """The indices that are not there, by their fields."""
        there = [dict(index["key"]) for index in self._collection.list_indexes()]
        wanted = [dict(index.document["key"]) for index in INDEXES]
        return [f"{self.collection_name} ({', '.join(fields)})" for fields in wanted if fields not in there]
