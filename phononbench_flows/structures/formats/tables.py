"""Tables: a crystal in a cell of each row. Any delimiter, any compression, any usual encoding."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Format, Found, Level
from phononbench_flows.structures.formats.gen_str import parse_gen_str
from phononbench_flows.structures.formats.records import crystal_column, id_column, looks_like_crystal, raw_crystal
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, Rejection, TooLargeError
from phononbench_flows.structures.text import LINE_ENDS, Utf8Lines, as_text

_DELIMITERS = ",\t;|"


def read_table(found: Found) -> Iterator[RawCrystal]:
    """The crystal of each row.

    Raises:
        NoCrystalsError: no column holds crystals.
    """
    longest = 4 * found.limits.max_bytes
    # The csv module's limit is one for the whole process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(longest, sys.maxsize)))
    with found.open() as stream:
        records = _records(Utf8Lines(stream, longest + 1), longest)
        first = list(islice(records, 2))
        layout = _layout([record or b"" for record in first], found.source)
        number = 0
        for record in chain(first, records):
            if record is None:
                number += 1
                detail = f"The row has more than {longest} bytes."
                yield found.bad_part(number, Rejection(Reason.FILE_TOO_LARGE, detail))
                continue
            for row in _rows(record, layout.delimiter):
                # A blank line; the header, also once more where a writer went on.
                if not row or row == layout.header:
                    continue
                number += 1
                yield raw_crystal(found, number, _cell(row, layout.column), _cell(row, layout.named).strip())


@dataclass(frozen=True)
class _Layout:
    """How the rows of a table are read: the columns of crystals and of names by their place."""

    delimiter: str
    column: int
    named: int | None
    header: list[str] | None


def _cell(row: list[str], place: int | None) -> str:
    return row[place] if place is not None and place < len(row) else ""


def _records(lines: Utf8Lines, longest: int) -> Iterator[bytes | None]:
    """Rows as they stand in the file, line ends in quotes and all; None for one that is too long."""
    pieces: list[bytes] = []
    size = quotes = 0
    lines.skip(LINE_ENDS)
    while line := lines.readline():
        quotes += line.count(b'"')
        size += len(line)
        if size <= longest:
            pieces.append(line)
        else:
            pieces.clear()
        if line.endswith(b"\n") and quotes % 2 == 0:
            yield b"".join(pieces) if size <= longest else None
            pieces, size, quotes = [], 0, 0
            lines.skip(LINE_ENDS)
        elif size > 2 * longest:
            raise TooLargeError(f"A row has more than {2 * longest} bytes.")
    if size:
        yield b"".join(pieces) if size <= longest else None


def _rows(record: bytes, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(as_text(record).replace("\0", ""), newline=""), delimiter=delimiter)


def _layout(first: list[bytes], source: str) -> _Layout:
    """From the first rows, whatever delimiter makes a column with crystals of them."""
    head = as_text(first[0]) if first else ""
    seen = ""
    for delimiter in sorted(_DELIMITERS, key=lambda each: -head.count(each)):
        rows = chain.from_iterable(_rows(record, delimiter) for record in first)
        header, values = next(rows, []), next(rows, [])
        if any(map(looks_like_crystal, header)):  # a table without names of columns
            place = crystal_column(["" for _ in header], header)
            return _Layout(delimiter, place or 0, None, None)
        place = crystal_column(header, values)
        if place is not None:
            return _Layout(delimiter, place, id_column(header), header)
        seen = seen or ", ".join(name.strip() for name in header)[:200]
    raise NoCrystalsError(f"Table {source!r} has no column with crystals, such as cif or structure, among {seen!r}.")


FORMATS = (Format("table", (".csv", ".tsv", ".tab"), read_table, Level.COLLECTION, parsers={"gen_str": parse_gen_str}),)
