"""Showing what fits any terminal: nothing is cut, long words are folded, and columns that find no room are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


def lines(rows: Iterable[tuple[str | Text, str | Text]]) -> Table:
    """What something is on the left, and on the right what is said of it, in as many lines as it takes."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, said in rows:
        grid.add_row(name, Text(said) if isinstance(said, str) else said)
    return grid


def width_of(console: Console, shown: RenderableType) -> int:
    """Columns of the terminal that it takes when no line is broken."""
    return Measurement.get(console, console.options.update(width=10_000), shown).maximum


def fitting(
    console: Console, columns: Mapping[str, Sequence[str]], dispensable: Sequence[str], right: Sequence[str]
) -> tuple[Table, list[str]]:
    """A table of columns that fits the terminal, and the names of those that found no room.

    Parameters:
        columns: cells by name.
        dispensable: names of those that may be left out, the first of them first.
        right: names of those that are aligned to the right.
    """
    left_out: list[str] = []
    for name in (*dispensable, None):
        kept = {each: cells for each, cells in columns.items() if each not in left_out}
        table = _table(kept, right)
        if width_of(console, table) <= console.width or name is None:
            return table, left_out
        if name in kept:
            left_out.append(name)
    raise AssertionError("the last round gives a table")


def _table(columns: Mapping[str, Sequence[str]], right: Sequence[str]) -> Table:
    table = Table(show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for cells in _rows(columns):
        table.add_row(*map(Text, cells))
    return table


def _rows(columns: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    return zip(*columns.values(), strict=True)
