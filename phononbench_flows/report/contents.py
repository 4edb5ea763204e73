"""What a report counts: its tables, each with a name, a title and a figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from phononbench_flows.statistics import wilson_bounds
from phononbench_flows.tables import confirmed, frames, plots
from phononbench_flows.tables.followed import followed_modes
from phononbench_flows.tables.rows import Crystals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from phononbench_flows.store import ResultsStore

BY = {"crystal_system": "crystal system", "nelements": "number of elements"}
"""Properties of crystals that rates are broken down by, and their names."""
RULES_BY = {
    "crystal_system": "crystal system",
    "operations": "symmetry operations",
    "cell": "cell size",
}
"""Properties that the published rule and exact frequencies are compared by, and their names."""
_DRAWN = 40  # values of a condition: more of them are a table, but no figure


@dataclass(frozen=True)
class Content:
    """A table of the report.

    Attributes:
        title: its heading.
        table: its rows; see :mod:`phononbench_flows.tables.frames`.
        figure: draws the table; None where numbers say it better.
        by: the column that the figure breaks rates down by, if it does.
    """

    title: str
    table: pd.DataFrame
    figure: Callable[[pd.DataFrame], Figure] | None = None
    by: str | None = None


def gather(crystals: Crystals) -> dict[str, Content]:
    """The tables of a report by name, in order; those that would have no rows are left out."""
    funnels = frames.funnel_table(crystals)
    thresholds = {*frames.THRESHOLDS, *crystals.judged_at.thresholds}
    by_threshold = _thresholds(crystals, funnels, sorted(thresholds, reverse=True))
    sets = crystals.sets.values()
    found = {
        "leaderboard": Content("From generation to stability", funnels, plots.rates_plot),
        "funnel": Content("What became of the crystals generated", funnels, plots.funnel_plot),
        **(rules(crystals) if crystals.judged_at.exact else {}),
        **(_confirmed(crystals) if confirmed.is_confirmed(crystals.rows) else {}),
        "ranking": Content("Where the ranking depends on the denominator", frames.ranking_turns(funnels)),
        "thresholds": Content("The rate by threshold", by_threshold, plots.threshold_plot),
        "comparison": Content("Every two sets compared", frames.pair_table(funnels)),
        **_breakdowns(crystals),
        "elements": Content("Elements of the crystals", _elements(crystals), _element_plot),
        "convergence": Content(
            "The rate as more crystals are tested", frames.convergence_table(funnels), plots.convergence_plot
        ),
        "samples": Content("Crystals needed for an interval of ± 1 %", frames.samples_table(funnels)),
        "failures": Content("Rejected and failed", frames.failure_table(crystals), plots.failure_plot),
        "architectures": Content("Architectures", frames.architecture_table(sets).dropna(thresh=2)),
        "generation_speed": Content("Generation speed", frames.speed_table(sets).dropna(thresh=2)),
    }
    return {name: content for name, content in found.items() if len(content.table)}


def followed(store: ResultsStore, crystals: Crystals) -> dict[str, Content]:
    """What unstable crystals lead to, if any were followed along their modes."""
    table = followed_modes(store, list(crystals.sets), crystals.judge.protocol_id)
    return {"followed_modes": Content("What unstable crystals lead to", table)} if len(table) else {}


def rules(crystals: Crystals) -> dict[str, Content]:
    """The published rule, the cured interpolation and exact frequencies beside each other, by name."""
    found = {"rules": Content("Interpolation or instability", frames.rules_table(crystals), plots.rules_plot)}
    for by, name in RULES_BY.items():
        title = f"Interpolation or instability, by {name}"
        found[f"rules_by_{by}"] = Content(title, frames.rules_table(crystals, by), partial(plots.rules_plot, by=by))
    found["disputed"] = Content("Crystals in dispute with the published rule", frames.disputed_table(crystals))
    return found


def _confirmed(crystals: Crystals) -> dict[str, Content]:
    return {
        "corrected": Content("Rates corrected by what DFT says", confirmed.corrected_table(crystals)),
        "confusion": Content("What DFT says of the potential's verdicts", confirmed.confusion_table(crystals)),
    }


def _thresholds(crystals: Crystals, funnels: pd.DataFrame, thresholds: Sequence[float]) -> pd.DataFrame:
    """The table by threshold, with the rates per generated crystal beside those per relaxed."""
    table = frames.threshold_table(crystals, thresholds).merge(funnels[["set", "generated"]], on="set")
    low, high = wilson_bounds(table["stable"], table["generated"])
    rate = table["stable"] / table["generated"]
    return table.assign(per_generated=rate, per_generated_low=low, per_generated_high=high)


def _breakdowns(crystals: Crystals) -> dict[str, Content]:
    found = {}
    for by, name in BY.items():
        found[f"by_{by}"] = _broken_down(f"Stability by {name}", frames.breakdown(crystals, by), by)
    for key in sorted({key for condition in crystals.rows["condition"] for key in condition}):
        table = frames.condition_table(crystals, key)
        # A key is any text that came with a set; this is the name of a file.
        name = "condition_" + re.sub(r"[^A-Za-z0-9]+", "_", key)[:40]
        while name in found:
            name += "_"
        found[name] = _broken_down(f"Stability by {key.replace('_', ' ')}", table, str(table.columns[0]))
    return found


def _broken_down(title: str, table: pd.DataFrame, by: str) -> Content:
    if table[by].nunique() > _DRAWN:
        return Content(title, table)
    return Content(title, table, partial(plots.groups_plot, by=by), by)


def _elements(crystals: Crystals) -> pd.DataFrame:
    """Elements in every set and, as set ``frames.ALL``, in all of them."""
    parts = [frames.element_table(crystals).assign(set=frames.ALL)]
    parts += [frames.element_table(crystals.only([name])).assign(set=name) for name in crystals.sets]
    return pd.concat(parts, ignore_index=True)


def _element_plot(table: pd.DataFrame) -> Figure:
    return plots.element_plot(table[table["set"] == frames.ALL])
