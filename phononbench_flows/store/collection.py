"""What every collection of documents does, whatever keeps it: SQLite or MongoDB."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.store.counts import Count

Criteria = Mapping[str, Any]
Properties = Mapping[str, Any] | list[str]
SortSpec = Mapping[str, int]
Tree = dict[str, "Tree | None"]

_CODE = ("$where", "$function", "$accumulator")


class StoreError(PhononBenchError):
    """A store that cannot be opened, or a document or query that it cannot take. The message is a sentence."""


class AwayError(StoreError):
    """A server that did not answer for as long as it is waited for."""


class NotAllowedError(StoreError):
    """Something that whoever is logged in may not do: to write, mostly."""


class Collection(Protocol):
    """Documents of plain JSON that are known by their ``key``. Every method may raise StoreError."""

    def connect(self) -> None:
        """Make sure, once, that the collection can be read."""

    def close(self) -> None:
        """Let go of this process' own connections. The collection connects again when it is used again."""

    def is_empty(self) -> bool:
        """Whether there is no document; answered at once."""
        ...

    def query(
        self,
        criteria: Criteria | None = None,
        properties: Properties | None = None,
        sort: SortSpec | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Documents that match, or parts of them; each at most once, read whole, either before or after a change.

        Args:
            criteria: MongoDB filter.
            properties: fields to include, dotted paths allowed; all by default.
            sort: fields and directions (1 or -1), dotted paths allowed; missing values come first in ascending order.
                Without it, and among equals, the order is the store's: name ``key`` last for a fixed one.
            skip: matching documents to leave out at the start.
            limit: largest number of documents; 0 for all.
        """
        ...

    def count(self, criteria: Criteria | None = None) -> int:
        """Number of documents that match."""
        ...

    def distinct(self, field: str, criteria: Criteria | None = None) -> list[Any]:
        """Values of a field, each once, in any order; lists count by their items."""
        ...

    def tally(self, field: str, criteria: Criteria) -> dict[str, int]:
        """Number of documents for every value of a field, answered from an index in milliseconds."""
        ...

    def counts(self, criteria: Criteria, since: str) -> list[Count]:
        """Calculations by all that is told of them, answered from an index; those without a set are left out.

        Args:
            criteria: of ``set`` and ``protocol_id``; all without any.
            since: from when on what was written is recent, as times are stored.
        """
        ...

    def update(self, docs: list[dict[str, Any]]) -> None:
        """Insert documents, or replace those of the same ``key``; they last when it returns."""

    def replace(self, docs: list[dict[str, Any]], criteria: Criteria) -> list[str]:
        """Replace those documents that are there and match, by plain values of fields; gives the keys of the others.

        Each is looked at and replaced in one go: nobody else's change between the two is lost.
        """
        ...

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set fields of the documents of these keys, which have to be there, and leave the rest of them as it is.

        Meanwhile nobody else's change is lost, as it would be if documents were read and written whole.
        """

    def create_indexes(self) -> None:
        """Make the indices that are not there yet."""

    def missing_indexes(self) -> list[str]:
        """The indices that are not there, by their fields."""
        ...


_LARGEST = 2**63 - 1
_LONG_INTEGER = re.compile(r"(?<![\d.])\d{19}")  # or a string with as many digits: that is looked at more closely


def _non_finite(value: Any, path: str = "") -> str | None:
    """Dotted path of the first NaN, infinity or too large integer within a document, if there is one."""
    if isinstance(value, float | np.floating):
        return None if math.isfinite(value) else path
    if isinstance(value, int):
        return None if abs(value) <= _LARGEST else path
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    inner = (_non_finite(item, f"{path}.{name}" if path else str(name)) for name, item in items)
    return next((found for found in inner if found is not None), None)


def _is_surely_finite(document: Mapping[str, Any]) -> bool:
    """Whether the encoder of JSON, which is much faster, sees that there is nothing to look for."""

    def other(value: Any) -> Any:
        if isinstance(value, Mapping):
            raise TypeError("a mapping that is no dictionary")
        return float(value) if isinstance(value, np.floating) else None

    try:
        text = json.dumps(document, allow_nan=False, default=other)
    except (TypeError, ValueError):
        return False
    return _LONG_INTEGER.search(text) is None


def refuse_non_finite(key: Any, document: Mapping[str, Any]) -> None:
    """Raise StoreError, naming the field, if a document holds NaN, infinity or a too large integer anywhere."""
    path = None if _is_surely_finite(document) else _non_finite(document)
    if path is not None:
        raise StoreError(f"Document '{key}' was not stored: '{path}' is NaN or infinite, or has more than 64 bits.")


def as_json(document: Mapping[str, Any]) -> str:
    """The text of a document.

    Raises:
        StoreError: for a document that is not plain JSON; NaN and infinity are not.
    """
    key = document["key"]
    try:
        # Not orjson: it writes NaN as null and says nothing.
        text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError) as error:
        refuse_non_finite(key, document)
        raise StoreError(f"Document '{key}' was not stored: it is not plain JSON ({error}).") from error
    return text


def _mentions(name: str, value: Any) -> bool:
    if isinstance(value, Mapping):
        return name in value or any(_mentions(name, item) for item in value.values())
    return isinstance(value, list | tuple) and any(_mentions(name, item) for item in value)


def refuse_code(criteria: Criteria) -> None:
    """Raise StoreError for criteria that hold code to run, be it JavaScript on a server or Python here."""
    for name in _CODE:
        if _mentions(name, criteria):
            raise StoreError(f"The query cannot be answered: {name} runs code, which the store does not do.")


def projection(properties: Properties | None) -> Tree | None:
    """The wanted fields as a tree; None for all of them.

    Raises:
        StoreError: for anything but fields to include. ``_id`` is no field here and may be included or excluded.
    """
    if not properties:
        return None
    wanted = dict(properties) if isinstance(properties, Mapping) else dict.fromkeys(properties, 1)
    if wanted.pop("_id", 1) in (0, False) and not wanted:
        return None
    tree: Tree = {}
    for path, flag in wanted.items():
        if not (isinstance(flag, bool | int) and flag):
            raise StoreError(f"The store can only include fields in a projection: '{path}': {flag!r} is refused.")
        *parents, leaf = path.split(".")
        branch: Tree | None = tree
        for parent in parents:
            branch = branch.setdefault(parent, {}) if branch is not None else None
        if branch is None or leaf in branch:
            raise StoreError(f"The projection names '{path}' and a part of it, or names it twice.")
        branch[leaf] = None
    return tree
