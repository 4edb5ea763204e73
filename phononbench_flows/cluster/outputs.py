"""Where jobflow keeps the outputs of jobs on a cluster, on the server that the environment names.

Those of a chunk are lists of keys, by which its jobs follow one another; those of a ``StabilityMaker`` are documents,
whose phonons go to the store ``data``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gridfs
from maggma.stores import GridFSStore, MongoStore
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


class OutputDataStore(GridFSStore):
    """What is too large for a document, compressed in GridFS, on the same server in the same way.

    To be the store ``data`` in a ``jobflow.yaml``; it holds no secret.
    """

    def __init__(self, database: str = DEFAULT_DATABASE, collection_name: str = "outputs_data", **kwargs: Any) -> None:
        super().__init__(database, collection_name, **({"compression": True} | kwargs))

    @property
    def name(self) -> str:
        """Database and collection."""
        return f"{self.database}.{self.collection_name}"

    def connect(self, force_reset: bool = False) -> None:
        """Find the collections, as ``GridFSStore`` does, but through the process' one client."""
        if self._coll is None or force_reset:
            database = client()[str(self.database)]
            self._coll = gridfs.GridFS(database, self.collection_name)
            self._files_collection = database[f"{self.collection_name}.files"]
            self._chunks_collection = database[f"{self.collection_name}.chunks"]
            index = MongoStore.from_collection(self._files_collection)
            index.last_updated_field, index.key = f"metadata.{self.last_updated_field}", self.key
            self._fs = index  # type: ignore[assignment]

    def close(self) -> None:
        """Nothing: the connection belongs to the process."""
