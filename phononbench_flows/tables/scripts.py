"""What the scripts of ``analysis/`` share: their arguments, the crystals they read, and the files they write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import typer

from phononbench_flows.store import BlobError, ResultsStore, StoreError, configured_spec, full_spec
from phononbench_flows.tables.files import markdown, write_table
from phononbench_flows.tables.plots import save
from phononbench_flows.tables.rows import Crystals, SelectionError, read_crystals

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Work:
    """What a script works with: its options, the store, and the crystals that were asked for."""

    options: argparse.Namespace
    store: ResultsStore
    crystals: Crystals

    def write(
        self,
        name: str,
        title: str,
        table: pd.DataFrame,
        figure: Figure | None = None,
        shown: pd.DataFrame | None = None,
    ) -> None:
        """Print and write a table and its figure; see :func:`publish`."""
        publish(self.options.out, name, title, table, figure, shown)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every script over a store takes, described by the script's docstring."""
    arguments = argparse.ArgumentParser(description=(description or "").split("\n\n")[0])
    where = "directory of a local run, or mongo:DATABASE; without it the store that PHONONBENCH_STORE names"
    arguments.add_argument("results", nargs="?", metavar="RESULTS", help=where)
    arguments.add_argument("--set", action="append", dest="sets", metavar="NAME", help="only this set; repeatable")
    arguments.add_argument("--protocol", help="id or name of the protocol, where the store holds several")
    arguments.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    return arguments


@contextmanager
def opened(arguments: argparse.ArgumentParser, given: Sequence[str] | None = None) -> Iterator[Work]:
    """Open the store that the arguments name and read its crystals; what is wrong with either ends the script.

    Args:
        arguments: from :func:`parser`, with further ones of the script's own.
        given: the command line; that of the process without it.
    """
    options = arguments.parse_args(given)
    try:
        spec = full_spec(options.results) if options.results else configured_spec()
        with ResultsStore.open(spec) as store:
            yield Work(options, store, read_crystals(store, sets=options.sets, protocol=options.protocol))
    except (BlobError, SelectionError, StoreError) as error:
        arguments.error(str(error))


def publish(
    out: Path,
    name: str,
    title: str,
    table: pd.DataFrame,
    figure: Figure | None = None,
    shown: pd.DataFrame | None = None,
) -> None:
    """Print a table, and write it to a folder as CSV and Markdown, and its figure as PNG and SVG.

    Of a long table, the part ``shown`` is printed and written as Markdown.
    """
    shown = table if shown is None else shown
    paths = write_table(table, out, name, title, shown)
    if figure is not None:
        paths += save(figure, out, name)
    typer.echo(f"{title}\n\n{markdown(shown)}\n" + "\n".join(map(str, paths)) + "\n")
