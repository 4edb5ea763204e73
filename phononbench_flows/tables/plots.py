"""Figures of the tables: a function takes a table of :mod:`phononbench_flows.tables.frames` and gives a figure.

Bars and points carry 95 % intervals. The colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from phononbench_flows.stability import PUBLISHED
from phononbench_flows.tables.files import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STABLE, UNSTABLE, GREY = "#0072B2", "#E69F00", "#666666"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c6d31")
_LINES = ("-", "--", ":", "-.")
_SMALL = 8

# What becomes of the crystals generated, the best first.
_FATES = {
    "stable": STABLE,
    "unstable": UNSTABLE,
    "undecided": "#8c6d31",
    "pending": "#F0E442",
    "failed": "#000000",
    "rejected": "#CC79A7",
    "known": "#56B4E9",
    "duplicate": "#b3dcf2",
    "not_handed_in": "#dddddd",
}


def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` into a folder, which is made when needed; gives their paths."""
    import matplotlib as mpl

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.png", out / f"{name}.svg"]
    figure.savefig(paths[0], dpi=160)
    figure.set_layout_engine("none")  # the layout is found already, and is slow to find
    # The same table gives the same file.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def rates_plot(funnels: pd.DataFrame) -> Figure:
    """The rates of every set, the most stable per relaxed on top; from ``funnel_table``."""
    funnels = funnels.reset_index(drop=True)
    figure = _figure(7.2, 1.4 + 0.45 * len(funnels))
    axes = figure.add_subplot()
    looks = (("per_relaxed", STABLE, "o"), ("by_rule", UNSTABLE, "D"), ("per_generated", "#D55E00", "s"))
    drawn = [look for look in looks if look[0] in funnels]
    for place, (rate, colour, marker) in enumerate(drawn):
        known = funnels[funnels[rate].notna()]
        y = known.index.to_numpy() + 0.3 * (place - (len(drawn) - 1) / 2)
        style: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 5}
        axes.errorbar(100 * known[rate], y, xerr=_arms(known, rate), fmt=marker, label=heading(rate), **style)
        for value, end, height in zip(known[rate], known[f"{rate}_high"], y, strict=True):
            _write(axes, f"{100 * value:.1f}", (100 * end, height), (4, 0), va="center", color=colour)
    axes.set_yticks(range(len(funnels)), list(funnels["set"]), parse_math=False)
    axes.set_ylim(len(funnels) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("Crystals (%), with 95 % intervals")
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    _legend(figure, "outside upper center", ncols=len(drawn))
    return figure


def rules_plot(table: pd.DataFrame, by: str | None = None) -> Figure:
    """Stable per relaxed by the published rule, by the cured interpolation and by exact frequencies.

    Args:
        table: from ``rules_table``.
        by: the property that it is broken down by, a panel for each set; None for the sets side by side.
    """
    panels = [("", table)] if by is None else list(table.groupby("set", sort=False))
    columns = max(1, min(len(panels), 3))
    kinds = max((len(panel) for _, panel in panels), default=0)
    # Wide enough for the legend, too.
    figure = _figure(max(8.6, max(4.2, 1.2 + 0.9 * kinds) * columns), 3.6 * max(1, math.ceil(len(panels) / columns)))
    looks = {"by_rule": (UNSTABLE, "D"), "by_cured": ("#009E73", "s"), "by_exact": (STABLE, "o")}
    for place, (name, panel) in enumerate(panels, start=1):
        axes = figure.add_subplot(math.ceil(len(panels) / columns), columns, place)
        for number, (rule, (colour, marker)) in enumerate(looks.items()):
            x = np.arange(len(panel)) + 0.25 * (number - 1)
            style: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 5}
            axes.errorbar(x, 100 * panel[rule], yerr=_arms(panel, rule), fmt=marker, label=heading(rule), **style)
        names = [_text(value) for value in panel[by or "set"]]
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > 34 else {}
        axes.set_xticks(range(len(panel)), names, parse_math=False, **turned)
        axes.set_xlim(-0.6, max(len(panel), 1) - 0.4)
        axes.set_ylim(-3, 103)
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.set_xlabel(heading(by or "set"), parse_math=False)
        axes.set_ylabel("stable per relaxed (%)")
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
    _legend(figure, "outside upper center", ncols=len(looks))
    return figure


def funnel_plot(funnels: pd.DataFrame) -> Figure:
    """What became of the crystals of every set, as shares of those generated; from ``funnel_table``."""
    figure = _figure(8.6, 1.7 + 0.36 * len(funnels))
    axes = figure.add_subplot()
    left = np.zeros(len(funnels))
    fates = {name: colour for name, colour in _FATES.items() if funnels[name].any()}
    for name, colour in fates.items():
        share = 100 * (funnels[name] / funnels["generated"]).to_numpy(dtype=float)
        axes.barh(range(len(funnels)), share, left=left, color=colour, label=name.replace("_", " "))
        left += share
    axes.set_yticks(range(len(funnels)), list(funnels["set"]), parse_math=False)
    axes.set_ylim(len(funnels) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Share of the crystals generated (%)")
    _legend(figure, "outside upper center", ncols=len(fates), handlelength=1, columnspacing=1)
    return figure


def groups_plot(table: pd.DataFrame, by: str) -> Figure:
    """Relaxed crystals of each kind, stable and not, with the rate on top.

    Args:
        table: from ``breakdown`` (a panel per set) or ``condition_table`` (one panel).
        by: the column that tells the kind.
    """
    panels = list(table.groupby("set", sort=False)) if "set" in table else [("", table)]
    columns = max(1, min(len(panels), 3))
    rows = math.ceil(len(panels) / columns)
    kinds = max((len(panel) for _, panel in panels), default=0)
    figure = _figure(max(4.2, 1.2 + 0.62 * kinds) * columns, 3.6 * max(1, rows))
    for place, (name, panel) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        _groups(axes, panel, [_text(value) for value in panel[by]])
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.set_xlabel(heading(by), parse_math=False)
    _legend(figure, "outside upper center", ncols=4)
    return figure


def _groups(axes: Axes, panel: pd.DataFrame, names: list[str]) -> None:
    places, relaxed = range(len(panel)), panel["relaxed"].to_numpy(dtype=float)
    parts = {"stable": (panel["stable"], STABLE), "unstable": (panel["unstable"], UNSTABLE)}
    if panel["undecided"].any():
        parts["undecided"] = (panel["undecided"], _FATES["undecided"])
    if (failed := panel["relaxed"] - panel["stable"] - panel["unstable"] - panel["undecided"]).any():
        parts["failed after the relaxation"] = (failed, GREY)
    bottom = np.zeros(len(panel))
    for label, (counts, colour) in parts.items():
        axes.bar(places, counts, bottom=bottom, color=colour, label=label)
        bottom += counts.to_numpy(dtype=float)
    # The interval of the rate, as that of the number of stable crystals.
    arms = _arms(panel, "per_relaxed") / 100 * relaxed
    style: dict[str, Any] = {"fmt": "none", "ecolor": "black", "elinewidth": 1, "capsize": 4}
    axes.errorbar(places, panel["stable"], yerr=arms, label="95 % interval", **style)
    for place, rate, height in zip(places, panel["per_relaxed"], relaxed, strict=True):
        _write(axes, f"{100 * rate:.1f} %", (place, height), (0, 2), ha="center", va="bottom")
    crowded = sum(map(len, names)) > 34
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if crowded else {}
    axes.set_xticks(places, names, parse_math=False, **turned)
    axes.set_ylim(0, 1.1 * max(1.0, *relaxed))
    axes.set_ylabel("relaxed crystals")


def threshold_plot(table: pd.DataFrame) -> Figure:
    """The rate as a function of the threshold, a panel for each kind of q-points; from ``threshold_table``."""
    kinds = [kind for kind in table["q_points"].unique() if kind != "judged"]
    figure = _figure(4.0 * len(kinds) + 1.8, 4.4)
    first: Axes | None = None
    for place, kind in enumerate(kinds, start=1):
        axes = figure.add_subplot(1, len(kinds), place, sharey=first)
        for (name, curve), style in _styled(table[table["q_points"] == kind]):
            x = -curve["threshold_thz"].to_numpy(dtype=float)
            axes.plot(x, 100 * curve["per_relaxed"], label=name, linewidth=1.6, **style)
            ends = (100 * curve[f"per_relaxed_{end}"] for end in ("low", "high"))
            axes.fill_between(x, *ends, color=style["color"], alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_xlabel("lowest frequency allowed, sign turned (THz)\ndotted: thresholds of the paper")
        axes.set_title(
            {"path": "on the path", "mesh": "on the mesh"}.get(kind, "at commensurate q-points"), fontsize=10
        )
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
        for threshold in PUBLISHED:
            axes.axvline(-threshold, color=GREY, linewidth=0.8, linestyle=":")
        first = first or axes
    if first is not None:
        first.set_ylim(bottom=0)
        first.set_ylabel("stable per relaxed (%)")
    _legend(figure, "outside right upper")
    return figure


def convergence_plot(table: pd.DataFrame) -> Figure:
    """How each rate settles: the band that holds it in 95 % of all orders; from ``convergence_table``."""
    figure = _figure(8.6, 5.2)
    axes = figure.add_subplot()
    for (name, curve), style in _styled(table):
        ends = (100 * curve[f"order_{end}"] for end in ("low", "high"))
        axes.fill_between(curve["crystals"], *ends, color=style["color"], alpha=0.16, linewidth=0.6)
        axes.plot(curve["crystals"], 100 * curve["per_relaxed"], label=name, linewidth=1.4, **style)
    axes.set_xscale("log")
    if len(table):
        # With fewer crystals the bands cover each other.
        shown = table[table["crystals"] >= min(100, table["crystals"].max())]
        axes.set_xlim(left=shown["crystals"].min())
        axes.set_ylim(0, 102 * shown["order_high"].max())
    axes.set_xlabel("crystals tested (bands: 95 % of all orders)")
    axes.set_ylabel("stable per relaxed (%)")
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    _legend(figure, "outside right upper")
    return figure


def failure_plot(table: pd.DataFrame) -> Figure:
    """Rejected and failed crystals of every set by reason, as shares of its crystals; from ``failure_table``."""
    shares = table.pivot_table(index="set", columns="reason", values="share", aggfunc="sum", observed=True).fillna(0)
    figure = _figure(8.6, 1.7 + 0.36 * len(shares))
    axes = figure.add_subplot()
    left = np.zeros(len(shares))
    for place, reason in enumerate(shares.sum().sort_values(ascending=False).index):
        share = 100 * shares[reason].to_numpy(dtype=float)
        hatch = ("", "///", "...")[place // len(COLOURS) % 3]
        style: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)],
            "hatch": hatch,
            "edgecolor": "white",
            "linewidth": 0,
        }
        axes.barh(range(len(shares)), share, left=left, label=reason.replace("_", " "), **style)
        left += share
    axes.set_yticks(range(len(shares)), list(shares.index), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("share of the set's crystals (%)")
    _legend(figure, "outside right upper")
    return figure


def speed_plot(table: pd.DataFrame) -> Figure:
    """Crystals generated per minute, on a logarithmic scale; from ``speed_table``."""
    known = table[table["per_minute"].notna()]
    figure = _figure(7.2, 1.3 + 0.36 * max(1, len(known)))
    axes = figure.add_subplot()
    axes.barh(range(len(known)), known["per_minute"], color=STABLE)
    for place, value in enumerate(known["per_minute"]):
        _write(axes, f"{value:.4g}", (value, place), (4, 0), va="center")
    axes.set_yticks(range(len(known)), list(known["set"]), parse_math=False)
    axes.invert_yaxis()
    axes.set_xscale("log" if len(known) else "linear")
    axes.margins(x=0.12)
    axes.set_xlabel("crystals generated per minute")
    return figure


def parameters_plot(table: pd.DataFrame) -> Figure:
    """Parameters of the model behind every set, coloured by architecture; from ``architecture_table``."""
    known = table[table["parameters"].notna()]
    figure = _figure(7.2, 1.3 + 0.36 * max(1, len(known)))
    axes = figure.add_subplot()
    kinds = list(known["architecture"].fillna("unknown").unique())
    for place, row in enumerate(known.fillna({"architecture": "unknown"}).to_dict("records")):
        millions = row["parameters"] / 1e6
        axes.barh(place, millions, color=COLOURS[kinds.index(row["architecture"]) % len(COLOURS)])
        _write(axes, f"{millions:.1f}, {row['architecture']}", (millions, place), (4, 0), va="center")
    axes.set_yticks(range(len(known)), list(known["set"]), parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("parameters (millions)")
    return figure


def element_plot(table: pd.DataFrame) -> Figure:
    """Periodic table of how many stable crystals hold each element; from ``element_table``."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from pymatgen.core import Element

    counts = {row["element"]: row["stable"] for row in table.to_dict("records") if row["stable"] > 0}
    least, most = (min(counts.values()), max(counts.values())) if counts else (1, 10)
    norm = LogNorm(least, max(most, 2 * least))
    figure = _figure(11, 6.2)
    axes = figure.add_subplot()
    scale = figure.colorbar(_scale(norm), ax=axes, shrink=0.6, pad=0.01)
    scale.set_label("stable crystals that hold the element")
    for element in map(Element.from_Z, range(1, 104)):
        x, y = _place(element)
        count = counts.get(element.symbol, 0)
        colour = scale.cmap(norm(count)) if count else "#f2f2f2"
        axes.add_patch(
            Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=colour, edgecolor="#bbbbbb", linewidth=0.5)
        )
        ink = "white" if count and norm(count) > 0.55 else "black" if count else "#999999"
        axes.text(x, y - 0.12, element.symbol, ha="center", va="center", fontsize=12, color=ink)
        axes.text(x, y + 0.26, f"{count:,}" if count else "", ha="center", va="center", fontsize=6.5, color=ink)
    axes.set_xlim(0.4, 18.6)
    axes.set_ylim(10.1, 0.4)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def _place(element: Any) -> tuple[float, float]:
    """Column and row in the table; lanthanides and actinides stand below it."""
    if element.is_lanthanoid or element.is_actinoid:
        first = 57 if element.is_lanthanoid else 89
        return element.Z - first + 3, 8.5 + (element.Z >= 89)
    return element.group, element.row


def _scale(norm: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, "viridis_r")


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. Without pyplot nothing is kept between figures, and threads do not meet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(
    figure: Figure, where: Literal["outside upper center", "outside right upper"], ncols: int = 1, **style: Any
) -> None:
    """One legend for all panels, if there is anything to name."""
    named = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {label: handle for found in named for handle, label in zip(*found, strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc=where, ncols=ncols, fontsize=_SMALL, **style)


def _arms(table: pd.DataFrame, rate: str) -> np.ndarray:
    """Lengths of the two arms of each error bar, in percent; shape (2, n)."""
    value = table[rate].to_numpy(dtype=float)
    low, high = (table[f"{rate}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    return 100 * np.array([value - low, high - value])


def _styled(table: pd.DataFrame) -> Iterator[tuple[tuple[str, pd.DataFrame], dict[str, Any]]]:
    """The part of each set, with a colour and kind of line of its own."""
    for place, part in enumerate(table.groupby("set", sort=False, observed=True)):
        line = _LINES[place // len(COLOURS) % len(_LINES)]
        yield part, {"color": COLOURS[place % len(COLOURS)], "linestyle": line}


def _write(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    axes.annotate(text, at, offset, textcoords="offset points", fontsize=_SMALL, parse_math=False, **style)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
