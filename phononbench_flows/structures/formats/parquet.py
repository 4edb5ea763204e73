"""Parquet: a crystal in a cell of each row. pyarrow is an extra."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import limited
from phononbench_flows.structures.formats.base import Format, Found, Level
from phononbench_flows.structures.formats.records import crystal_column, id_column, raw_crystal
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError
from phononbench_flows.structures.text import as_text

_ROWS = 64


def read_parquet(found: Found) -> Iterator[RawCrystal]:
    """The crystal of each row.

    Raises:
        NoCrystalsError: no column holds crystals.
        RejectedError: pyarrow is not there.
    """
    if find_spec("pyarrow") is None:
        detail = "Parquet needs the package pyarrow, which is not installed: pip install 'phononbench-flows[parquet]'."
        raise RejectedError(Reason.UNSUPPORTED_FILE, detail)
    yield from limited.read_apart(_rows, found, imports=("pyarrow.parquet",))


def _rows(found: Found, content: Path | bytes) -> Iterator[RawCrystal]:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(str(content) if isinstance(content, Path) else io.BytesIO(content))
    names = file.schema_arrow.names
    number, place, named = 0, None, id_column(names)
    for batch in file.iter_batches(batch_size=_ROWS):
        for row in batch.to_pylist():
            values = [row[name] for name in names]
            if number == 0:
                place = crystal_column(names, values)
            if place is None:
                raise NoCrystalsError(f"Table {found.source!r} has no column with crystals, such as cif or structure.")
            number += 1
            name = values[named] if named is not None else ""
            yield raw_crystal(found, number, _text(values[place]), str(name) if isinstance(name, str | int) else "")


def _text(value: object) -> object:
    return as_text(value) if isinstance(value, bytes) else value


FORMATS = (Format("parquet table", (".parquet", ".pq"), read_parquet, Level.COLLECTION),)
