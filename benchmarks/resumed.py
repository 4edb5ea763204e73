"""Benchmarks over crystals of some folders that go on behind what is in their table."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

from pymatgen.core import Structure


def arguments(description: str | None, *, count: int, atoms: int) -> argparse.Namespace:
    """What the command line says: folders, how many crystals of each and how large, potential, device, table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--atoms", type=int, default=atoms)
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--together", type=int, default=1, help="crystals in one batch; more on a GPU")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def chosen(folders: Sequence[Path], count: int, atoms: int) -> list[Path]:
    """The first so many files of each folder with at most so many atoms, the smallest first."""
    crystals: list[tuple[int, str, Path]] = []
    for folder in folders:
        sizes = [(len(Structure.from_file(file)), file.name, file) for file in sorted(folder.glob("*.cif"))]
        crystals += [each for each in sizes if each[0] <= atoms][:count]
    return [file for *_, file in sorted(crystals)]


def rows(
    files: Sequence[Path],
    columns: Sequence[str],
    table: Path,
    lines: Callable[[Sequence[Path]], Iterable[dict[str, Any]]],
    together: int,
) -> Iterator[dict[str, str]]:
    """The table's rows, after those that it lacks are written: the ``lines`` of so many files at a time."""
    done: set[str] = set()
    if table.exists():
        with table.open(newline="", encoding="utf-8") as stream:
            done = {row["file"] for row in csv.DictReader(stream)}
    with table.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        if not done:
            writer.writeheader()
        for lot in batched((file for file in files if file.name not in done), together):
            writer.writerows(lines(lot))
            stream.flush()
    with table.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)
