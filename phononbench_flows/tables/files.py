"""Tables as files: CSV with the bare numbers, and Markdown for people.

In Markdown a rate and its interval share a cell, in percent, and numbers of crystals have thousands separators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from phononbench_flows.results.export import write_csv

_HEADINGS = {
    "accepted": "usable",
    "by_cured": "stable by the cured interpolation",
    "by_exact": "stable by exact frequencies",
    "by_rule": "stable by the published rule",
    "cell": "atoms in the cell",
    "by_label": "label agrees",
    "confirmed_stable": "DFT: stable",
    "confirmed_undecided": "DFT: undecided",
    "confirmed_unstable": "DFT: unstable",
    "corrected": "stable per relaxed, corrected by DFT",
    "corrected_per_generated": "stable per generated, corrected by DFT",
    "cured_thz": "lowest, cured (THz)",
    "exact_q": "where, exact",
    "exact_thz": "lowest exact (THz)",
    "operations": "operations of the point group",
    "path_q": "where, on the path",
    "stable_by_cured": "number by the cured",
    "stable_by_exact": "number by exact",
    "stable_by_rule": "number by the published rule",
    "commensurate_thz": "lowest, commensurate (THz)",
    "failed_relaxation": "failed in relaxation",
    "first": "first set",
    "half_width": "half-width now",
    "nelements": "number of elements",
    "mesh_thz": "lowest on the mesh (THz)",
    "order_low": "lowest in 95 % of orders",
    "order_high": "highest in 95 % of orders",
    "p_holm": "p-value, Holm",
    "p_value": "p-value",
    "path_thz": "lowest on the path (THz)",
    "per_generated": "stable per generated",
    "per_minute": "crystals per minute",
    "per_relaxed": "stable per relaxed",
    "percent": "stable per relaxed (%)",
    "q_points": "q-points",
    "sample_low": "low end for so many",
    "sample_high": "high end for so many",
    "second": "second set",
    "threshold_thz": "threshold (THz)",
    "band_gap": "band gap (eV)",
    "bare_hull": "hull of elements alone",
    "by_dft": "stable, corrected by DFT",
    "by_verdict": "stable by its own verdict",
    "conductivity_srd": "thermal conductivity, signed error",
    "share_imaginary": "imaginary modes of stable crystals",
    "share_dsun": "D-S.U.N.",
    "share_dsun_by_rule": "D-S.U.N. by the published rule",
    "share_sun": "S.U.N.",
    "share_survived": "survive relaxation",
    "share_agreed": "agree",
    "share_unique": "unique",
    "share_usable": "usable",
    "share_novel": "novel",
    "share_on_hull": "on the hull",
    "share_near_hull": "near the hull",
    "seconds_stable": "seconds for a stable crystal",
    "seconds_dsun": "seconds for a D-S.U.N. crystal",
    "first_potential": "first potential",
    "second_potential": "second potential",
}
NARROW = 0.006
"""Intervals narrower than this are shown to a hundredth of a percent."""

_JUDGED = ("per_relaxed", "per_generated", "by_", "rank_", "corrected")
"""Columns that are provisional in the row of a set with pending crystals."""
_PERCENT = (
    "share",
    "half_width",
    "difference",
    "order_",
    "sample_",
    "per_relaxed",
    "per_generated",
    "by_",
    "corrected",
)


def write_table(
    table: pd.DataFrame,
    out: Path,
    name: str,
    title: str,
    shown: pd.DataFrame | None = None,
    note: str | None = None,
) -> list[Path]:
    """Write ``name.csv`` and ``name.md`` into a folder, which is made when needed; gives their paths.

    The Markdown holds ``shown`` instead of the whole table, where that is given, and a note above it.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.csv", out / f"{name}.md"]
    with paths[0].open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        write_csv(stream, list(table.columns), records(table))
    paths[1].write_text(
        f"# {title}\n\n{f'{_escaped(note)}\n\n' if note else ''}{markdown(table if shown is None else shown)}",
        encoding="utf-8",
        errors="backslashreplace",
    )
    return paths


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, for people."""
    columns = [name for name in table.columns if not _is_end(name, table)]
    numeric = {name for name in columns if _is_numeric([row[name] for row in records(table)])}
    lines = [
        "| " + " | ".join(heading(name) for name in columns) + " |",
        "|" + "|".join("---:" if name in numeric else "---" for name in columns) + "|",
    ]
    lines += ["| " + " | ".join(_shown(row, name) for name in columns) + " |" for row in records(table)]
    return "\n".join(lines) + "\n"


def heading(column: str) -> str:
    """What people call a column."""
    base, published, _ = column.partition("_published")
    text = _HEADINGS.get(base, base.replace("_", " "))
    return f"{text}, published" if published else text


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as plain Python values; None for all that is missing."""
    plain = table.astype(object)
    return [
        {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
        for row in plain.where(plain.notna(), None).to_dict("records")
    ]


def _is_numeric(values: list[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _is_end(name: str, table: pd.DataFrame) -> bool:
    """Whether a column is an end of the interval of another one."""
    return any(name.endswith(end) and name.removesuffix(end) in table.columns for end in ("_low", "_high"))


def _shown(row: dict[str, Any], name: str) -> str:
    value, pending = row[name], row.get("pending")
    if value is None:
        return "pending" if pending and name.startswith(_JUDGED) else ""
    if isinstance(value, str):
        return _escaped(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and name.startswith(_PERCENT):
        rate = percent(value, row.get(f"{name}_low"), row.get(f"{name}_high"))
        return f"{rate}, {pending:,} pending" if pending and name.startswith(_JUDGED) else rate
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2g}" if name.startswith("p_") else f"{value:.4g}"


def percent(rate: float, low: float | None = None, high: float | None = None) -> str:
    """A rate in percent, with its interval if it has one: ``41.0 % (40.1 to 41.9)``."""
    if low is None or high is None:
        return f"{100 * rate:.1f} %"
    # A second digit where the interval is narrow enough to tell it apart.
    digits = 2 if high - low < NARROW else 1
    return f"{100 * rate:.{digits}f} % ({100 * low:.{digits}f} to {100 * high:.{digits}f})"


def _escaped(text: str) -> str:
    """Text that stays one cell and is taken for nothing else, whatever a name holds."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!$&" else letter for letter in line)
