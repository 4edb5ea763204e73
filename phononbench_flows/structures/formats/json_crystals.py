"""JSON and JSON lines: crystals of pymatgen, ASE, OPTIMADE, emmet, pandas and others, one or many in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import limited
from phononbench_flows.structures.formats.base import Format, Found, Level, holding_crystals
from phononbench_flows.structures.formats.dictionaries import (
    TWICE,
    is_crystal,
    loads,
    marked,
    parse_json,
    parse_python,
)
from phononbench_flows.structures.formats.records import (
    crystal_column,
    holds_crystal,
    id_column,
    is_record,
    looks_like_crystal,
    name_of,
    raw_of_record,
)
from phononbench_flows.structures.labels import label_of
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError, Rejection, TooLargeError
from phononbench_flows.structures.streams import Stream, read_whole
from phononbench_flows.structures.text import BLANK_LINES, Utf8Lines, as_text, decoder_of

_PIECE = 2**18
_BLANK = " \t\r\n"
_NONE = "It holds no crystal that is known here."

Record = tuple[int | str, Any, str]
"""Number or key, what may be a crystal, and its name."""


# -- one document, or values one after the other ---------------------------------------------------------------


def read_json(found: Found) -> Iterator[RawCrystal]:
    """The crystals in a JSON file: in its list, its object, or in values that follow each other.

    Raises:
        NoCrystalsError: it is about something else.
    """
    with found.open() as stream:
        data = stream.read(found.limits.max_bytes + 1)
        small = len(data) <= found.limits.max_bytes
        text = as_text(data).lstrip(_BLANK)
        if small and not text:
            raise RejectedError(Reason.UNPARSABLE, "The file is empty.")
        if text.startswith("{") and small and (document := _only_object(text)) is not None:
            yield from _of_document(found, document)
        elif text.startswith("{") and not small and not _ends_early(text):
            on_disk = found.path is not None and not found.is_packed
            rest = b"" if on_disk else read_whole(stream, found.limits.max_whole_bytes)
            yield from limited.read_apart(_whole, found, None if on_disk else data + rest)
        else:
            yield from holding_crystals(_of_values(found, data, stream), _NONE)


def _only_object(text: str) -> Any:
    """The object that is the whole text; None if more follows it."""
    try:
        document, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise RejectedError(Reason.UNPARSABLE, f"It is no JSON: {error}.") from error
    return None if text[end:].strip(_BLANK) else document


_DECODER = json.JSONDecoder(object_pairs_hook=marked)


def _ends_early(text: str) -> bool:
    try:
        _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _whole(found: Found, content: Path | bytes) -> Iterator[RawCrystal]:
    data = content.read_bytes() if isinstance(content, Path) else content
    yield from _of_document(found, loads(as_text(data)))


def _of_document(found: Found, document: Mapping[str, Any]) -> Iterator[RawCrystal]:
    """Crystals of one object: itself, or what it lists or names."""
    if is_crystal(document):
        yield found.crystal("json", json.dumps(document).encode())
        return
    if TWICE in document:
        raise RejectedError(Reason.CONTRADICTORY, f"The key {document[TWICE]!r} is given more than once.")
    if is_record(document):
        raw = raw_of_record(found, 1, document)
        yield replace(raw, source=found.source, label=label_of(found.name))
        return
    records = _records_of(document)
    if records is None:
        raise NoCrystalsError(_NONE)
    for key, record, name in records:
        yield raw_of_record(found, key, record, name)


def _records_of(document: Mapping[str, Any]) -> Iterator[Record] | None:
    """The records that an object holds, whichever way; None if it holds none."""
    for way in (_pandas_split, _columns, _lists, _named):
        records = way(document)
        if records is not None:
            return records
    return None


def _pandas_split(document: Mapping[str, Any]) -> Iterator[Record] | None:
    """``to_json(orient="split")``: names of columns, and rows of values."""
    columns, rows = document.get("columns"), document.get("data")
    if not (isinstance(columns, list) and isinstance(rows, list) and rows and isinstance(rows[0], list)):
        return None
    names = [str(column) for column in columns]
    return ((number, dict(zip(names, row, strict=False)), "") for number, row in enumerate(rows, 1))


def _columns(document: Mapping[str, Any]) -> Iterator[Record] | None:
    """``to_json()`` of pandas: for each column its values by row; or crystals by name, or listed, under one key."""
    columns = {
        name: _by_row(column)
        for name, column in document.items()
        if isinstance(column, Mapping | list) and column and not holds_crystal(column)
    }
    crystals = {name: column for name, column in columns.items() if looks_like_crystal(next(iter(column.values())))}
    if not crystals:
        return None
    place = crystal_column(list(crystals), [next(iter(column.values())) for column in crystals.values()])
    chosen = list(crystals)[place or 0]
    named = id_column(list(columns))
    names = list(columns.values())[named] if named is not None else {}
    return (
        (number, value, _word(names.get(row)) or ("" if row.isdigit() else row))
        for number, (row, value) in enumerate(crystals[chosen].items(), 1)
    )


def _by_row(column: Mapping[str, Any] | list[Any]) -> dict[str, Any]:
    return dict(column) if isinstance(column, Mapping) else {str(n): value for n, value in enumerate(column)}


def _word(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) else ""


def _lists(document: Mapping[str, Any]) -> Iterator[Record] | None:
    """A list of records under a key: ``data`` of the Materials Project, of pandas' tables."""
    lists = [value for value in document.values() if isinstance(value, list) and any(map(holds_crystal, value[:9]))]
    if len(lists) > 1:
        raise NoCrystalsError("Several lists in it hold crystals: give them as files of their own.")
    return ((number, record, "") for number, record in enumerate(lists[0], 1)) if lists else None


def _named(document: Mapping[str, Any]) -> Iterator[Record] | None:
    """Crystals or records by name, or by number as in ASE's databases and ``to_json(orient="index")``."""
    mappings = {key: value for key, value in document.items() if isinstance(value, Mapping | str)}
    if not any(map(holds_crystal, mappings.values())):
        return None
    return (
        (key, value, "" if key.isdigit() else (name_of(value) if isinstance(value, Mapping) else "") or key)
        for key, value in mappings.items()
        if isinstance(value, Mapping) or holds_crystal(value)
    )


# -- values one after the other --------------------------------------------------------------------------------


def _of_values(found: Found, head: bytes, stream: Stream) -> Iterator[RawCrystal]:
    number = 0
    try:
        for number, value in enumerate(_values(head, stream, 2 * found.limits.max_bytes), 1):
            yield raw_of_record(found, number, value)
    except (ValueError, RecursionError) as error:
        detail = f"The rest cannot be read, it is no JSON: {error}."
        yield found.bad_part(number + 1, Rejection(Reason.UNPARSABLE, detail), "json")


def _values(head: bytes, stream: Stream, longest: int) -> Iterator[Any]:
    """Values of a list, or values that follow each other, with little more than one in memory."""
    text = _Text(head, stream)
    in_list = text.starts_with("[")
    if in_list:
        text.skip(1)
    while not text.is_empty() and not (in_list and text.starts_with("]")):
        yield text.value(longest)
        if text.starts_with(","):
            text.skip(1)


class _Text:
    """The text of a stream, of which the beginning is in memory."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        decoder = decoder_of(head)
        pieces = chain([head], iter(lambda: stream.read(_PIECE), b""))
        self._texts = chain(map(decoder.decode, pieces), iter([decoder.decode(b"", final=True)]))
        self._buffer, self._position, self._ended = "", 0, False

    def _read(self, wanted: int) -> None:
        """Have so many characters in memory, if there are so many, the first of them not blank."""
        pieces = [self._buffer[self._position :].lstrip(_BLANK)]
        size = len(pieces[0])
        while size < wanted and not self._ended:
            piece = next(self._texts, None)
            self._ended = piece is None
            pieces.append((piece or "") if size else (piece or "").lstrip(_BLANK))
            size += len(pieces[-1])
        self._buffer, self._position = "".join(pieces), 0

    def _to_next(self) -> None:
        self._position = _NOT_BLANK(self._buffer, self._position).end()  # type: ignore[union-attr]
        if self._position == len(self._buffer):
            self._read(1)

    def is_empty(self) -> bool:
        self._to_next()
        return self._position == len(self._buffer)

    def starts_with(self, mark: str) -> bool:
        self._to_next()
        return self._buffer.startswith(mark, self._position)

    def skip(self, length: int) -> None:
        self._position += length

    def value(self, longest: int) -> Any:
        """The next value, of at most so many characters."""
        self._to_next()
        while True:
            try:
                value, self._position = _DECODER.raw_decode(self._buffer, self._position)
            except ValueError:
                held = len(self._buffer) - self._position
                if self._ended:
                    raise
                if held > longest:
                    raise TooLargeError(f"A value has more than {longest} characters.") from None
                self._read(2 * held + 1)  # so that what is long is not looked through again and again
            else:
                return value


_NOT_BLANK = re.compile(r"[ \t\r\n]*").match


# -- lines -----------------------------------------------------------------------------------------------------


def read_lines(found: Found) -> Iterator[RawCrystal]:
    """A crystal in each line; a line that is broken costs itself alone.

    Raises:
        NoCrystalsError: it is about something else.
    """
    yield from holding_crystals(_of_lines(found), _NONE)


def _of_lines(found: Found) -> Iterator[RawCrystal]:
    longest = 2 * found.limits.max_bytes
    with found.open() as stream:
        lines = Utf8Lines(stream, longest)
        number, size = 0, 0
        lines.skip(BLANK_LINES)
        while line := lines.readline():
            size += len(line)
            if not line.endswith(b"\n") and size >= longest:
                continue
            number += bool(line.strip()) or size > longest
            if size > longest:
                detail = f"The line has more than {longest} bytes."
                yield found.bad_part(number, Rejection(Reason.FILE_TOO_LARGE, detail), "json")
            elif line.strip() and not _IS_META(line):
                yield _of_line(found, number, line)
            size = 0
            lines.skip(BLANK_LINES)


# The first lines of an OPTIMADE archive say what the others are.
_IS_META = re.compile(rb'\s*\{\s*"(x-optimade|type"\s*:\s*"info)"').match


def _of_line(found: Found, number: int, line: bytes) -> RawCrystal:
    try:
        value = loads(as_text(line))
    except (ValueError, RecursionError) as error:
        return found.bad_part(number, Rejection(Reason.UNPARSABLE, f"The line is no JSON: {error}."), "json")
    return raw_of_record(found, number, value)


FORMATS = (
    Format("JSON", (".json",), read_json, parsers={"json": parse_json, "python": parse_python}),
    Format("JSON lines", (".jsonl", ".ndjson", ".jsonlines"), read_lines, Level.COLLECTION),
)
