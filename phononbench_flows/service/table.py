"""The table of all crystals of a store, column by column in memory: a page of a million rows takes milliseconds.

Frequencies are in THz, imaginary ones negative, and not a number where there is none.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pymatgen.core import Element

FIELDS = (
    *("key", "id", "set", "status", "reason", "stage", "nsites", "nelements", "elements", "formula_pretty"),
    *(
        "protocol_id",
        "protocol_name",
        "potential.name",
        "origin.parent",
        "minimum.frequency",
        "evidence.looks.path.frequency",
    ),
    *("evidence.looks.exact.frequency", "symmetry_relaxed.number", "symmetry_relaxed.symbol"),
    *("symmetry_relaxed.crystal_system", "updated_at"),
)
"""Fields of a calculation that a row is made of."""
WORDS = (
    *("set", "status", "stage", "reason", "formula", "system", "symbol"),
    *("potential", "protocol", "protocol_id", "parent"),
)
"""Columns of few values, each kept once."""
_INTEGERS = ("natoms", "nelements", "space_group")
_NUMBERS = ("lowest", "path")
_TIMES = ("updated",)
Column = Literal["id", "formula", "set", "status", "lowest", "natoms", "space_group", "reason", "potential", "protocol"]
"""Columns that the table can be put in the order of."""
_NUMBER_OF = {element.symbol: element.Z for element in Element}


class Words:
    """Texts that come again and again, each by a number; no text is 0."""

    def __init__(self) -> None:
        self.texts: list[str | None] = [None]
        self._codes: dict[str | None, int] = {None: 0}

    def code(self, text: str | None) -> int:
        """The number of a text, a new one if need be."""
        found = self._codes.get(text)
        if found is None:
            found = self._codes[text] = len(self.texts)
            self.texts.append(text)
        return found

    def known(self, text: str) -> int:
        """The number of a text; -1 for one that no row has."""
        return self._codes.get(text, -1)

    def ranks(self) -> np.ndarray:
        """The place of each text in alphabetical order, after case; no text comes last."""
        order = sorted(range(len(self.texts)), key=lambda i: (self.texts[i] is None, (self.texts[i] or "").casefold()))
        places = np.empty(len(order), dtype=np.int32)
        places[order] = np.arange(len(order))
        return places


def element_bits(symbols: Sequence[str]) -> tuple[int, int]:
    """Elements as bits of two numbers of 64 bits."""
    low = high = 0
    for symbol in symbols:
        number = _NUMBER_OF.get(symbol, 0)
        if number < 64:
            low |= 1 << number
        else:
            high |= 1 << (number - 64)
    return low, high


def symbols(low: int, high: int) -> list[str]:
    """The elements that :func:`element_bits` gives these bits, in alphabetical order."""
    bits = low | (high << 64)
    return sorted(symbol for symbol, number in _NUMBER_OF.items() if bits >> number & 1)


@dataclass(frozen=True)
class Table:
    """The rows at one moment. Every array has an entry for each row.

    Attributes:
        keys, ids: of the calculations, and their crystals.
        words: the texts of each column of :data:`WORDS`.
        codes: their numbers in each row.
        numbers: ``natoms``, ``nelements``, ``space_group`` (-1 where unknown), ``lowest`` and ``path`` (THz), and
            ``updated``, in seconds since 1970.
        elements: two arrays of bits, see :func:`element_bits`.
    """

    keys: Sequence[str] = ()
    ids: Sequence[str] = ()
    words: Mapping[str, Words] = field(default_factory=lambda: {name: Words() for name in WORDS})
    codes: Mapping[str, np.ndarray] = field(default_factory=lambda: {n: np.empty(0, dtype=np.int32) for n in WORDS})
    numbers: Mapping[str, np.ndarray] = field(
        default_factory=lambda: {name: np.empty(0) for name in (*_INTEGERS, *_NUMBERS, *_TIMES)}
    )
    elements: tuple[np.ndarray, np.ndarray] = field(
        default_factory=lambda: (np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64))
    )

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _orders(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def searched(self) -> list[str]:
        """What each row is found by, in lower case: its id and formula."""
        formulas = [(text or "").lower() for text in self.words["formula"].texts]
        pairs = zip(self.ids, self.codes["formula"].tolist(), strict=True)
        return [f"{name.lower()}\n{formulas[code]}" for name, code in pairs]

    @cached_property
    def places(self) -> dict[str, int]:
        """Numbers of the rows by their keys."""
        return {key: place for place, key in enumerate(self.keys)}

    def order(self, column: str) -> np.ndarray:
        """Numbers of the rows in ascending order of a column, those without a value last; made once."""
        found = self._orders.get(column)
        if found is None:
            found = self._orders[column] = np.argsort(self._sortable(column), kind="stable").astype(np.int32)
        return found

    def _sortable(self, column: str) -> np.ndarray:
        if column in {"id", "key"}:
            texts = self.ids if column == "id" else self.keys
            order = sorted(range(len(texts)), key=texts.__getitem__)
            places = np.empty(len(order), dtype=np.int32)
            places[order] = np.arange(len(order))
            return places
        if column in self.codes:
            return self.words[column].ranks()[self.codes[column]]
        values = self.numbers[column]
        return np.where(values < 0, np.iinfo(np.int32).max, values) if column in _INTEGERS else values

    def missing(self, column: str) -> np.ndarray:
        """Which rows have no value in a column."""
        if column in self.codes:
            return self.codes[column] == 0
        if column in _NUMBERS:
            return np.isnan(self.numbers[column])
        return self.numbers[column] < 0 if column in _INTEGERS else np.zeros(len(self), dtype=bool)

    def row(self, place: int) -> dict[str, Any]:
        """A row as plain values."""
        words = {name: self.words[name].texts[int(self.codes[name][place])] for name in WORDS}
        numbers = {name: _plain(self.numbers[name][place]) for name in (*_INTEGERS, *_NUMBERS)}
        return {"key": self.keys[place], "id": self.ids[place]} | words | numbers


def _plain(value: Any) -> Any:
    if isinstance(value, np.floating):
        return None if np.isnan(value) else float(f"{value:.6g}")
    return None if value < 0 else int(value)


class Rows:
    """Rows that grow and change; :meth:`table` gives what they are now."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._ids: list[str] = []
        self._words = {name: Words() for name in WORDS}
        self._codes = {name: array("i") for name in WORDS}
        self._numbers = {name: array("i") for name in _INTEGERS} | {name: array("d") for name in (*_NUMBERS, *_TIMES)}
        self._elements = (array("Q"), array("Q"))

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, document: Mapping[str, Any]) -> None:
        """Take in a calculation with the :data:`FIELDS`, in place of what was."""
        place = self._places.get(document["key"])
        if place is None:
            place = self._places[document["key"]] = len(self._ids)
            self._ids.append(document["id"])
            for column in (*self._codes.values(), *self._numbers.values(), *self._elements):
                column.append(0)
        for name, text in _texts(document).items():
            self._codes[name][place] = self._words[name].code(text)
        for name, value in _values(document).items():
            self._numbers[name][place] = value
        for column, bits in zip(self._elements, element_bits(document.get("elements") or ()), strict=True):
            column[place] = bits

    def table(self) -> Table:
        """What the rows are now; what comes later does not change it."""
        types = {"i": np.int32, "d": np.float64}
        words = {}
        for name, known in self._words.items():
            words[name] = Words()
            words[name].texts, words[name]._codes = list(known.texts), dict(known._codes)  # noqa: SLF001
        return Table(
            keys=list(self._places),
            ids=list(self._ids),
            words=words,
            codes={name: np.array(column, dtype=np.int32) for name, column in self._codes.items()},
            numbers={name: np.array(column, dtype=types[column.typecode]) for name, column in self._numbers.items()},
            elements=tuple(np.array(column, dtype=np.uint64) for column in self._elements),  # type: ignore[arg-type]
        )


def _texts(document: Mapping[str, Any]) -> dict[str, str | None]:
    symmetry = document.get("symmetry_relaxed") or {}
    system = symmetry.get("crystal_system")
    return {
        "set": document["set"],
        "status": document["status"],
        "stage": document["stage"],
        "reason": document.get("reason"),
        "formula": document.get("formula_pretty"),
        "system": system.lower() if system else None,
        "symbol": symmetry.get("symbol"),
        "potential": document["potential"]["name"],
        "protocol": document["protocol_name"],
        "protocol_id": document["protocol_id"],
        "parent": (document.get("origin") or {}).get("parent"),
    }


def _values(document: Mapping[str, Any]) -> dict[str, Any]:
    looks = (document.get("evidence") or {}).get("looks") or {}
    exact, path = (_frequency(looks.get(place)) for place in ("exact", "path"))
    return {
        "natoms": _whole(document.get("nsites")),
        "nelements": _whole(document.get("nelements")),
        "space_group": _whole((document.get("symmetry_relaxed") or {}).get("number")),
        "lowest": _frequency(document.get("minimum")) if np.isnan(exact) else exact,
        "path": path,
        "updated": datetime.fromisoformat(document["updated_at"]).timestamp(),
    }


def _frequency(look: Mapping[str, Any] | None) -> float:
    value = (look or {}).get("frequency")
    return float("nan") if value is None else float(value)


def _whole(value: int | None) -> int:
    return -1 if value is None else value
