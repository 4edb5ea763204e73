"""The published numbers of PhononBench (arXiv 2512.21227, version 1): beside ours, and checked against each other.

They are read from a folder of CSV files, one per published table or figure; a column ``note`` says what is wrong with
a number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from phononbench_flows.tables.files import records

RESAMPLED = ("InvDesFlow-AL", "MP20")
"""Model and training set of the row of Table 3 that was drawn from another one; it is left out of all sums."""


def read_published(folder: Path, name: str) -> pd.DataFrame:
    """A published table as plain Python values, None where there is none.

    What has a decimal point stays text, with the digits that were published.
    """
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        rows = [{column: _value(text) for column, text in row.items()} for row in csv.DictReader(stream)]
    return pd.DataFrame(rows, dtype=object)


def beside(ours: pd.DataFrame, published: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """Our table with the published numbers beside it, in columns ``x_published``; rows published only come last.

    Two words are the same if they differ in nothing but case, spaces and hyphens. A published ``percent`` stands beside
    our ``per_relaxed``. ``agrees`` says whether all that both sides have is the same, digit for digit; it is empty
    where they have nothing in common.

    Args:
        ours: a table of :mod:`phononbench_flows.tables.frames`.
        published: from :func:`read_published`.
        on: columns by which rows belong together.
    """
    theirs = {_key(row, on): row for row in records(published)}
    numbers = [name for name in published.columns if name not in {*on, "note"}]
    rows = [row | _published(row, theirs.get(_key(row, on)), numbers) for row in records(ours)]
    found = {_key(row, on) for row in rows}
    for key, row in theirs.items():
        if key not in found:
            rows.append({name: row[name] for name in on} | _published(None, row, numbers))
    return pd.DataFrame(rows, columns=_columns(ours, numbers), dtype=object)


def disagreements(folder: Path) -> pd.DataFrame:
    """Published numbers that can be had from two places, and whether the two agree.

    Columns: ``quantity``, ``stated``, ``where``, ``derived``, ``source`` and ``agrees``.
    """
    rows = [*_totals(folder), *_generation(folder), *_rates(folder)]
    columns = ["quantity", "stated", "where", "derived", "source"]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    return table.assign(
        agrees=[rounds_to(derived, stated) for stated, derived in zip(table["stated"], table["derived"], strict=True)]
    )


def rounds_to(value: float | None, published: str | int) -> bool:
    """Whether a value is the published one when it is rounded to as many decimals."""
    decimals = len(str(published).partition(".")[2])
    return value is not None and f"{value:.{decimals}f}" == str(published)


def _totals(folder: Path) -> Iterator[tuple[Any, ...]]:
    """Sums over Tables 3 and 4, and what the text says."""
    models, gaps = (read_published(folder, name) for name in ("table_3_funnel", "table_4_band_gap"))
    models = models[[row != RESAMPLED for row in zip(models["model"], models["training_set"], strict=True)]]
    sums = {name: (models[name].sum(), gaps[name].sum()) for name in ("generated", "relaxed", "stable")}
    derived = {f"{name} in all": sum(both) for name, both in sums.items()}
    derived |= {f"{name} with a band gap": gap for name, (_, gap) in sums.items()}
    for group in ("in all", "with a band gap"):
        derived[f"stable per relaxed {group} (%)"] = 100 * derived[f"stable {group}"] / derived[f"relaxed {group}"]
    derived["stable at 0.5 eV"] = gaps.loc[gaps["band_gap"] == "0.5", "stable"].item()
    derived["models"] = models["model"].nunique()
    for row in records(read_published(folder, "text")):
        yield row["quantity"], row["value"], row["where"], derived[row["quantity"]], "Tables 3 and 4"


def _generation(folder: Path) -> Iterator[tuple[Any, ...]]:
    """Table 1 against itself and against Table 3."""
    funnels = read_published(folder, "table_3_funnel")
    for row in records(read_published(folder, "table_1_generation_speed")):
        model, minutes = row["model"], 60 * float(row["hours"])
        # The hours are rounded too: what they may have been gives a range, of which the nearest value counts.
        half = 60 * 0.5 * 10 ** -len(row["hours"].partition(".")[2])
        speeds = sorted(row["generated"] / time for time in (minutes - half, minutes + half))
        nearest = min(max(float(row["per_minute"]), speeds[0]), speeds[1])
        yield f"{model} per minute", row["per_minute"], "Table 1", round(nearest, 3), "Table 1, number and hours"
        counts = funnels.loc[funnels["model"] == model, "generated"].dropna()
        derived = row["generated"] if row["generated"] in counts.to_list() else counts.max()
        yield f"{model} generated", row["generated"], "Table 1", derived, "Table 3"


def _rates(folder: Path) -> Iterator[tuple[Any, ...]]:
    """Percentages against the counts that they come from."""
    funnels = read_published(folder, "table_3_funnel").set_index(["model", "training_set"])
    for row in records(read_published(folder, "figure_1c_stability")):
        counts = funnels.loc[row["model"], row["training_set"]]
        rate = 100 * counts["stable"] / counts["relaxed"]
        yield f"{row['model']}-{row['training_set']} (%)", row["percent"], "Figure 1c", rate, "Table 3"
    for row in records(read_published(folder, "table_4_band_gap")):
        rate = 100 * row["stable"] / row["relaxed"]
        yield f"{row['band_gap']} eV (%)", row["percent"], "Figure 3a", rate, "Table 4"


def _value(text: str) -> str | int | None:
    return int(text) if text.isdecimal() else text or None


def _key(row: dict[str, Any], on: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_word(row[name]) for name in on)


def _word(value: Any) -> Any:
    """A value as it is compared: a number, or a word without what spellings differ in."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None if value is None else str(value).lower().replace("-", "").replace(" ", "")


def _published(ours: dict[str, Any] | None, theirs: dict[str, Any] | None, numbers: Sequence[str]) -> dict[str, Any]:
    """The published cells of a row."""
    cells = {f"{name}_published": theirs[name] if theirs else None for name in numbers}
    agrees = None
    if ours is not None and theirs is not None:
        pairs = [(_ours(ours, name), theirs[name]) for name in numbers if theirs[name] is not None]
        known = [(our, their) for our, their in pairs if our is not None]
        agrees = all(_same(our, their) for our, their in known) if known else None
    return cells | {"agrees": agrees, "note": theirs["note"] if theirs else None}


def _ours(row: dict[str, Any], name: str) -> Any:
    if name == "percent":
        return None if row["per_relaxed"] is None else 100 * row["per_relaxed"]
    return row.get(name)


def _same(our: Any, their: Any) -> bool:
    return rounds_to(our, their) if isinstance(our, int | float) else _word(our) == _word(their)


def _columns(ours: pd.DataFrame, numbers: Sequence[str]) -> list[str]:
    """Our columns, each followed by the published one."""
    columns: list[str] = []
    for name in ours.columns:
        columns.append(name)
        if name in numbers:
            columns.append(f"{name}_published")
        elif name == "per_relaxed_high" and "percent" in numbers:
            columns.append("percent_published")
    return [
        *columns,
        *(f"{name}_published" for name in numbers if f"{name}_published" not in columns),
        "agrees",
        "note",
    ]
