"""The results store: crystals, what was computed for each under a protocol, and the arrays that belong to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from phononbench_flows.documents import CalculationDocument, ConfirmationDocument, CrystalDocument, SetDocument
from phononbench_flows.errors import problems
from phononbench_flows.outcomes import Status
from phononbench_flows.store.blobs import Blobs, BlobStore
from phononbench_flows.store.collection import (
    Collection,
    Criteria,
    Properties,
    SortSpec,
    StoreError,
    as_json,
    refuse_non_finite,
)
from phononbench_flows.store.counts import Count
from phononbench_flows.store.mongo import (
    CALCULATION_INDEXES,
    CONFIRMATION_INDEXES,
    CRYSTAL_INDEXES,
    SET_INDEXES,
    GridFSBlobs,
    MongoCollection,
    require_layout,
)
from phononbench_flows.store.specs import Spec, full_spec
from phononbench_flows.store.sqlite import SQLiteStore

_LOT = 256  # crystals in memory at once


def _validated[Model: BaseModel](model: type[Model], raw: Mapping[str, Any]) -> Model:
    # The store's key, which is a field of calculations alone.
    fields = raw if "key" in model.model_fields else {name: raw[name] for name in raw if name != "key"}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise StoreError(f"Stored document '{raw.get('key')}' is no {model.__name__}: {problems(error)}") from error


def _calculation(raw: Mapping[str, Any]) -> CalculationDocument:
    return _validated(CalculationDocument, raw)


def _plain(key: str, doc: BaseModel) -> dict[str, Any]:
    # Pydantic's own JSON mode turns NaN in free-form fields (the structures) into null, so look before it does.
    refuse_non_finite(key, doc.model_dump())
    try:
        return {"key": key} | doc.model_dump(mode="json")
    except PydanticSerializationError as error:
        raise StoreError(f"Document '{key}' was not stored: {error}.") from error


def _stamped(docs: Sequence[CrystalDocument | CalculationDocument | ConfirmationDocument]) -> list[dict[str, Any]]:
    """Documents as they are stored, all written at the same time."""
    now = datetime.now(UTC)
    for doc in docs:
        doc.updated_at = now
    return [_plain(doc.key, doc) for doc in docs]


def can_be_stored(doc: CrystalDocument | CalculationDocument) -> bool:
    """Whether a store takes a document: plain JSON without NaN, infinity, or integers that no database holds."""
    try:
        as_json(_plain(doc.key, doc))
    except StoreError:
        return False
    return True


class ResultsStore:
    """The documents and blobs of a project. Made by :meth:`open`."""

    def __init__(
        self,
        spec: dict[str, str],
        calculations: Collection,
        crystals: Collection,
        sets: Collection,
        confirmations: Collection,
        blobs: Blobs,
    ) -> None:
        self.spec = spec
        """How to open the same store again: plain JSON, without secrets."""
        self.blobs = blobs
        """The arrays that documents refer to."""
        self._calculations = calculations
        self._crystals = crystals
        self._sets = sets
        self._confirmations = confirmations

    @classmethod
    def open(cls, spec: Spec | str | Path, *, create: bool = False) -> ResultsStore:
        """Open a store.

        Which server is meant, and who we are there, is said in the environment; see
        :mod:`phononbench_flows.store.connection`.

        Args:
            spec: see :func:`full_spec`.
            create: make a directory that holds no results yet into a store. A database of a server always is one.

        Raises:
            StoreError: for a wrong spec, a directory without results or one that is not, or no longer, ours to read, or
                a server that does not answer or let us in.
        """
        full = full_spec(spec)
        if full["kind"] == "embedded":
            root = Path(full["path"])
            if not create and not (root / "results.sqlite").is_file():
                raise StoreError(f"there are no results in {root}")
            names = ("results.sqlite", "crystals.sqlite", "sets.sqlite", "confirmations.sqlite")
            calculations, crystals, sets, confirmations = (SQLiteStore(str(root / name)) for name in names)
            store = cls(full, calculations, crystals, sets, confirmations, BlobStore(root / "blobs"))
        else:
            database, place = full["database"], full["blobs"]
            require_layout(database)
            store = cls(
                full,
                MongoCollection(database, "calculations", CALCULATION_INDEXES),
                MongoCollection(database, "crystals", CRYSTAL_INDEXES),
                MongoCollection(database, "sets", SET_INDEXES),
                MongoCollection(database, "confirmations", CONFIRMATION_INDEXES),
                GridFSBlobs(database) if place == "gridfs" else BlobStore(place),
            )
        store._calculations.connect()
        if store._calculations.is_empty():
            store.create_indexes()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this process' connections. The store connects again when it is used again."""
        for part in (self._calculations, self._crystals, self._sets, self._confirmations):
            part.close()

    def put(self, *docs: CalculationDocument) -> None:
        """Write calculations, replacing those of the same key; they last when it returns. Sets ``updated_at``.

        If one of them cannot be stored, none is. The embedded store writes all of them at once, a server one by one.

        Raises:
            StoreError: for NaN or infinity anywhere in a document, or if the disk or the server refuses it.
        """
        self._calculations.update(_stamped(docs))

    def put_if(self, criteria: Criteria, *docs: CalculationDocument) -> list[str]:
        """Write those calculations that are there and match, by the plain values of fields; gives the others' keys.

        Otherwise as :meth:`put`; a server is asked once.
        """
        return self._calculations.replace(_stamped(docs), criteria)

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of calculations by their keys, whatever else changes of them meanwhile; ``updated_at`` stays.

        Raises:
            NotAllowedError: the login may read only.
            StoreError: the disk or the server refuses it.
        """
        self._calculations.set_fields(changes)

    def get(self, key: str) -> CalculationDocument | None:
        """The calculation of a key, if there is one."""
        return next(self.documents({"key": key}), None)

    def documents(
        self, criteria: Criteria | None = None, sort: SortSpec | None = None, limit: int = 0
    ) -> Iterator[CalculationDocument]:
        """Calculations that match, one at a time; see :meth:`Collection.query`."""
        return map(_calculation, self._calculations.query(criteria, sort=sort, limit=limit))

    def query(
        self,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Calculations that match, or parts of them, as plain dicts; see :meth:`Collection.query`."""
        return self._calculations.query(criteria, properties, sort, skip, limit)

    def count(self, criteria: Criteria | None = None) -> int:
        """Number of calculations that match."""
        return self._calculations.count(criteria)

    def distinct(self, field: str, criteria: Criteria | None = None) -> list[Any]:
        """Values of a field among the calculations that match, each once; lists count by their items."""
        return self._calculations.distinct(field, criteria)

    def status_counts(self, set_name: str, protocol_id: str) -> dict[str, int]:
        """Number of crystals of a set under a protocol for every status that occurs; milliseconds."""
        return self._calculations.tally("status", {"set": set_name, "protocol_id": protocol_id})

    def stage_counts(self, set_name: str, protocol_id: str) -> dict[str, int]:
        """Number of crystals that wait, for every stage that they have reached; milliseconds."""
        waiting = {"set": set_name, "protocol_id": protocol_id, "status": Status.PENDING.value}
        return self._calculations.tally("stage", waiting)

    def counts(self, criteria: Criteria, since: datetime | None = None) -> list[Count]:
        """Crystals by all that is told of them: of a set and a protocol, or of all, and how many are recent.

        Args:
            criteria: of ``set`` and ``protocol_id``, or none.
            since: from when on what was written is recent; by default nothing is.
        """
        return self._calculations.counts(criteria, (since or datetime.max.replace(tzinfo=UTC)).isoformat())

    def put_crystals(self, *crystals: CrystalDocument) -> None:
        """Write crystals, replacing those of the same id; they last when it returns. Sets ``updated_at``.

        Raises:
            StoreError: as for :meth:`put`.
        """
        self._crystals.update(_stamped(crystals))

    def crystal(self, crystal_id: str) -> CrystalDocument | None:
        """The crystal of an id, if there is one."""
        return next(self.crystals([crystal_id]), None)

    def crystals(self, ids: Iterable[str]) -> Iterator[CrystalDocument]:
        """The crystals of these ids that are there, in any order, one at a time."""
        for lot in batched(ids, _LOT):
            for raw in self._crystals.query({"key": {"$in": list(lot)}}):
                yield _validated(CrystalDocument, raw)

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
            yield _validated(SetDocument, row)

    def put_confirmations(self, *docs: ConfirmationDocument) -> None:
        """Write confirmations, replacing those of the same key; they last when it returns. Sets ``updated_at``.

        Raises:
            StoreError: as for :meth:`put`.
        """
        self._confirmations.update(_stamped(docs))

    def confirmations(self, criteria: Criteria | None = None) -> Iterator[ConfirmationDocument]:
        """Confirmations that match, those that were written first first."""
        for raw in self._confirmations.query(criteria, sort={"created_at": 1, "key": 1}):
            yield _validated(ConfirmationDocument, raw)

    def create_indexes(self) -> None:
        """Make the indices that are not there yet; nothing to wait for where they are."""
        for part in (self._calculations, self._crystals, self._sets, self._confirmations, self.blobs):
            part.create_indexes()

    def missing_indexes(self) -> list[str]:
        """The indices that are not there, such as ``calculations(elements)``; without them queries read everything."""
        parts = (self._calculations, self._crystals, self._sets, self._confirmations, self.blobs)
        return [name for part in parts for name in part.missing_indexes()]


_OPEN: dict[tuple[int, str], ResultsStore] = {}


def close_store(spec: Spec | str | Path) -> None:
    """Close what :func:`open_store` has opened in this process: for a store that is taken away."""
    owner = (os.getpid(), json.dumps(full_spec(spec), sort_keys=True))
    if owner in _OPEN:
        _OPEN.pop(owner).close()


def open_store(spec: Spec | str | Path) -> ResultsStore:
    """The store of a spec, opened once in a process and shared by all who ask. Leave it open: it is not yours."""
    full = full_spec(spec)
    owner = (os.getpid(), json.dumps(full, sort_keys=True))
    if owner not in _OPEN:
        _OPEN[owner] = ResultsStore.open(full)
    return _OPEN[owner]
