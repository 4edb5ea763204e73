"""The tables of a benchmark over the crystals of a store, as data frames.

Rates are fractions between 0 and 1; a rate ``x`` stands in three columns, ``x``, ``x_low`` and ``x_high``, with the
ends of Wilson's 95 % interval. "Per relaxed" divides by the finished crystals that were relaxed, "per generated" by
all that the generator made. Frequencies and thresholds are in THz, imaginary frequencies negative.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from phononbench_flows.documents import SetDocument
from phononbench_flows.outcomes import Status
from phononbench_flows.stability import Stability, count_stable, is_clean, point_text
from phononbench_flows.statistics import (
    CorrectedRate,
    Funnel,
    Rate,
    difference,
    funnel,
    holm,
    order_band,
    sample_sizes,
    samples_for,
    wilson,
    wilson_bounds,
)
from phononbench_flows.tables.confirmed import corrected, is_confirmed
from phononbench_flows.tables.rows import Q_POINTS, Crystals
from phononbench_flows.tables.unfinished import ranks

THRESHOLDS = tuple(float(f"{-(10**exponent):.3g}") for exponent in np.linspace(-7, 0, 71))
"""Thresholds in THz from -1e-7 to -1, ten to a decade."""

CRYSTAL_SYSTEMS = ("Cubic", "Hexagonal", "Trigonal", "Tetragonal", "Orthorhombic", "Monoclinic", "Triclinic")

ALL = "all sets"
"""Stands in the column ``set`` for all sets together. No set bears this name: names of sets hold no spaces."""

RULES = ("by_rule", "by_cured", "by_exact")
"""The published rule, the same with the free cures of the interpolation, and the protocol's exact frequencies."""

CELL_SIZES = (4, 8, 16, 32, 64)
"""Bounds between classes of cells, in atoms."""

_COUNTED = (
    *("generated", "not_handed_in", "duplicate", "known", "unique", "rejected", "accepted", "pending"),
    *("failed", "failed_relaxation", "relaxed", "unique_relaxed", "judged", "stable", "unstable", "undecided"),
)


def funnel_table(crystals: Crystals) -> pd.DataFrame:
    """A row per set, the most stable per relaxed first: how many crystals came how far, and both rates.

    Columns: ``set``, ``model``, ``training_set``, ``condition``; the counts of
    :class:`~phononbench_flows.statistics.Funnel`; ``per_relaxed`` and ``per_generated`` with their intervals;
    ``rank_per_relaxed`` and ``rank_per_generated``, which a set that is not finished has none of; it comes last. Where
    exact frequencies decide, ``stable_by_rule`` and ``by_rule`` with its interval stand beside: what the published rule
    says, per relaxed. Where crystals are confirmed, ``corrected`` (per relaxed) and ``corrected_per_generated`` with
    their intervals do, as far as they are available.
    """
    records = []
    confirmed = is_confirmed(crystals.rows)
    for name, rows in _groups(crystals.rows, "set"):
        about = crystals.sets[name]
        found = _funnel(rows, about.n_generated)
        beside = _published(int(_stable_by(rows)["by_rule"].sum()), found.relaxed) if crystals.judged_at.exact else {}
        records.append(_origin(about) | _record(found) | beside | (_corrected(rows, found) if confirmed else {}))
    table = pd.DataFrame(records)
    for rate in ("per_relaxed", "per_generated"):
        table[f"rank_{rate}"] = ranks(table, rate)
    return table.sort_values(["rank_per_relaxed", "set"], ignore_index=True)


def total(funnels: pd.DataFrame) -> dict[str, Any]:
    """The rows of :func:`funnel_table` added up, with rates of their own; its set is :data:`ALL`."""
    sums = {name: int(funnels[name].sum()) for name in _COUNTED}
    rates = _rate("per_relaxed", wilson(sums["stable"], sums["relaxed"]))
    rates |= _rate("per_generated", wilson(sums["stable"], sums["generated"]))
    if "by_rule" in funnels:
        rates |= _published(int(funnels["stable_by_rule"].sum()), sums["relaxed"])
    return {"set": ALL} | sums | rates


def ranking_turns(funnels: pd.DataFrame) -> pd.DataFrame:
    """Pairs of sets of which one leads per relaxed and the other per generated, with a ``warning`` in a sentence."""
    records = []
    ranked = funnels.dropna(subset=["per_relaxed", "per_generated"]).to_dict("records")
    for first, second in combinations(ranked, 2):
        ahead, behind = (first, second) if first["per_relaxed"] > second["per_relaxed"] else (second, first)
        if ahead["per_relaxed"] == behind["per_relaxed"] or ahead["per_generated"] >= behind["per_generated"]:
            continue
        shares = [100 * row[rate] for rate in ("per_relaxed", "per_generated") for row in (ahead, behind)]
        records.append(
            {
                "leads_per_relaxed": ahead["set"],
                "leads_per_generated": behind["set"],
                "warning": f"{ahead['set']} leads {behind['set']} per relaxed ({shares[0]:.1f} to {shares[1]:.1f} %), "
                f"but trails it per generated ({shares[2]:.1f} to {shares[3]:.1f} %).",
            }
        )
    return pd.DataFrame(records, columns=["leads_per_relaxed", "leads_per_generated", "warning"])


def pair_table(funnels: pd.DataFrame) -> pd.DataFrame:
    """Every two sets: the difference of their rates per relaxed, and whether it can be chance.

    Columns: ``first``, ``second``, ``difference`` with its interval (Newcombe's; each for its pair alone),
    ``p_value`` (Fisher's exact test, two-sided) and ``p_holm`` (corrected for the number of pairs).
    """
    rates = {row["set"]: wilson(row["stable"], row["relaxed"]) for row in funnels.to_dict("records") if row["relaxed"]}
    columns = ["first", "second", "difference", "difference_low", "difference_high", "p_value", "p_holm"]
    records = []
    for first, second in combinations(rates, 2):
        found = difference(rates[first], rates[second])
        ends = found.interval
        records.append((first, second, found.difference, ends.low, ends.high, found.p_value, None))
    table = pd.DataFrame(records, columns=columns)
    return table.assign(p_holm=holm(table["p_value"].to_list()))


def samples_table(funnels: pd.DataFrame, half_width: float = 0.01) -> pd.DataFrame:
    """How many more crystals each set needs until half its interval per relaxed is no wider than ``half_width``.

    Columns: ``set``, ``relaxed``, ``per_relaxed`` with its interval, ``half_width`` (now), ``needed`` (relaxed, if the
    rate stays as it is), ``more_relaxed``, and ``more_generated`` (if as many of those generated are relaxed as so
    far).
    """
    table = funnels.dropna(subset=["per_relaxed"])
    table = table[["set", "generated", "relaxed", "per_relaxed", "per_relaxed_low", "per_relaxed_high"]]
    needed = np.array([samples_for(rate, half_width) for rate in table["per_relaxed"]], dtype=int)
    more = np.maximum(0, needed - table["relaxed"].to_numpy(dtype=int))
    generated = np.ceil(more * (table["generated"] / table["relaxed"]).to_numpy(dtype=float)).astype(int)
    table = table.assign(half_width=(table["per_relaxed_high"] - table["per_relaxed_low"]) / 2, needed=needed)
    return table.assign(more_relaxed=more, more_generated=generated).drop(columns="generated").reset_index(drop=True)


def threshold_table(crystals: Crystals, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """The rate per relaxed of every set as a function of the threshold, for each kind of q-points.

    Columns: ``set``, ``q_points`` (``judged``, those that the protocol looks at, ``path``, ``commensurate`` or
    ``mesh``), ``threshold_thz``, ``relaxed``, ``stable``, ``per_relaxed`` with its interval. Crystals that failed
    after their relaxation are stable at no threshold.
    """
    parts = []
    for name, rows in _groups(crystals.rows[crystals.rows["relaxed"]], "set"):
        judged = rows[rows["status"] != Status.FAILED.value]
        for q_points in Q_POINTS:
            minima = judged[f"{q_points}_thz"].dropna().to_numpy()
            part = {"set": name, "q_points": q_points, "threshold_thz": thresholds, "relaxed": len(rows)}
            parts.append(pd.DataFrame(part | {"stable": count_stable(minima, thresholds)}))
    return _with_rate(_stacked(parts, ["set", "q_points", "threshold_thz", "relaxed", "stable"]))


def convergence_table(funnels: pd.DataFrame) -> pd.DataFrame:
    """How the rate per relaxed of every set settles with the number of crystals tested.

    Columns: ``set``, ``crystals`` (n), ``per_relaxed`` (of all), ``order_low`` and ``order_high`` (between them the
    rate among the first n lies in 95 % of all orders), ``sample_low`` and ``sample_high`` (the 95 % interval that n
    crystals with this rate would give).
    """
    parts = []
    for row in funnels[funnels["relaxed"] > 0].to_dict("records"):
        sizes = sample_sizes(row["relaxed"])
        low, high = order_band(row["stable"], row["relaxed"], sizes)
        sample_low, sample_high = wilson_bounds(row["per_relaxed"] * sizes, sizes)
        part = {"set": row["set"], "crystals": sizes, "per_relaxed": row["per_relaxed"], "order_low": low}
        parts.append(pd.DataFrame(part | {"order_high": high, "sample_low": sample_low, "sample_high": sample_high}))
    columns = ["set", "crystals", "per_relaxed", "order_low", "order_high", "sample_low", "sample_high"]
    return _stacked(parts, columns)


def failure_table(crystals: Crystals) -> pd.DataFrame:
    """Crystals that were rejected or failed: ``set``, ``status``, ``stage`` (last completed), ``reason``,
    ``crystals`` and ``share`` (of the set's crystals), the most frequent first.
    """
    rows = crystals.rows
    lost = rows[rows["status"].isin([Status.REJECTED.value, Status.FAILED.value])]
    keys = ["set", "status", "stage", "reason"]
    table = lost.groupby(keys, observed=True, dropna=False).size().rename("crystals").reset_index()
    table["share"] = table["crystals"] / table["set"].map(rows["set"].value_counts()).astype(float)
    order = ["set", "crystals", "status", "reason"]
    return table.sort_values(order, ascending=[True, False, True, True], ignore_index=True)


def breakdown(crystals: Crystals, by: str) -> pd.DataFrame:
    """Rates per relaxed by a property of the crystal, for every set and, if there are several, for :data:`ALL`.

    Args:
        crystals: the crystals.
        by: ``crystal_system``, ``crystal_system_initial``, ``nelements``, ``nsites`` or ``space_group``.

    Columns: ``set``, the property, ``relaxed``, ``stable``, ``unstable``, ``undecided``, ``share`` (of the set's
    relaxed crystals), ``per_relaxed`` with its interval. A crystal without the property is in none of the rows.
    """
    rows = crystals.rows[crystals.rows["relaxed"]]
    if len(rows["set"].unique()) > 1:
        rows = pd.concat([rows.astype({"set": object}), rows.assign(set=ALL)])
    table = _counts(rows, ["set", by])
    table.insert(5, "share", table["relaxed"] / table.groupby("set")["relaxed"].transform("sum"))
    if by.startswith("crystal_system"):
        table[by] = pd.Categorical(table[by], CRYSTAL_SYSTEMS, ordered=True)
    return _by_set(table, ["set", by]).astype({by: object})


def _by_set(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows in the order of their sets, all sets together last."""
    together = (table["set"] == ALL).rename("together")
    order = pd.concat([together, table[keys]], axis=1).sort_values(["together", *keys]).index
    return table.loc[order].reset_index(drop=True)


def rules_table(crystals: Crystals, by: str | None = None) -> pd.DataFrame:
    """Stable per relaxed by three rules side by side, for every set and, if there are several, for :data:`ALL`.

    Args:
        crystals: judged by exact frequencies.
        by: a property to break it down by: ``crystal_system``, ``operations`` (of the point group), ``cell`` (atoms
            as given) or one of :func:`breakdown`.

    Columns: ``set``, the property, ``relaxed``; of the published rule ``stable_by_rule`` and ``by_rule`` with its
    interval, of the cured interpolation ``stable_by_cured``, ``by_cured``, of exact frequencies ``stable_by_exact``,
    ``by_exact``, ``undecided`` (which count as not stable). The cured interpolation's are empty where a judged crystal
    of the group has no such look.
    """
    rows = _with_sizes(crystals.rows[crystals.rows["relaxed"]])
    if len(rows["set"].unique()) > 1:
        rows = pd.concat([rows.astype({"set": object}), rows.assign(set=ALL)])
    keys = ["set"] if by is None else ["set", by]
    judged = _is_judged(rows)
    stable = _stable_by(rows).add_prefix("stable_")
    marked = pd.concat([rows[keys], stable], axis=1).assign(
        relaxed=1, undecided=rows["status"] == Status.UNDECIDED.value, not_cured=judged & rows["cured_thz"].isna()
    )
    table = marked.groupby(keys, observed=True).sum().reset_index()
    unknown = table.pop("not_cured") > 0
    for rule in RULES:
        counts = table[f"stable_{rule}"]
        rates = (counts / table["relaxed"], *wilson_bounds(counts, table["relaxed"]))
        table = table.assign(**dict(zip(_named(rule), rates, strict=True)))
    table["stable_by_cured"] = table["stable_by_cured"].astype("Int64").mask(unknown)
    table.loc[unknown, [*_named("by_cured")]] = np.nan
    columns = [name for rule in RULES for name in (f"stable_{rule}", *_named(rule))]
    table = table[[*keys, "relaxed", *columns, "undecided"]]
    if by is not None and by.startswith("crystal_system"):
        table[by] = pd.Categorical(table[by], CRYSTAL_SYSTEMS, ordered=True)
    return _by_set(table, keys).astype(dict.fromkeys(keys, object))


def disputed_table(crystals: Crystals) -> pd.DataFrame:
    """Crystals whose verdict is the opposite of the published rule's, those with the largest difference first.

    Columns: ``id``, ``set``, ``formula``, ``nsites``, ``crystal_system``, ``status`` (by exact frequencies),
    ``path_thz`` and ``path_q`` (lowest on the interpolated path and where), ``cured_thz``, ``exact_thz`` and
    ``exact_q`` (lowest where nothing is interpolated).
    """
    rows = crystals.rows
    clean, known = is_clean(rows["path_thz"]), rows["path_thz"].notna()
    stable, unstable = (rows["status"] == status.value for status in (Status.STABLE, Status.UNSTABLE))
    found = rows[known & ((stable & ~clean) | (unstable & clean))]
    columns = ["id", "set", "formula", "nsites", "crystal_system", "status"]
    columns += ["path_thz", "path_q", "cured_thz", "exact_thz", "exact_q"]
    order = (found["exact_thz"] - found["path_thz"]).abs().sort_values(ascending=False, kind="stable").index
    table = found.loc[order, columns].reset_index(drop=True).astype({"crystal_system": object, "status": object})
    return table.assign(**{name: table[name].map(point_text, na_action="ignore") for name in ("path_q", "exact_q")})


def condition_table(crystals: Crystals, key: str) -> pd.DataFrame:
    """A row per value of a condition, such as ``band_gap``, over all sets that have it: counts and both rates.

    Columns: the key (``condition_KEY`` should it be the name of a count), and those of :func:`funnel_table` from
    ``generated`` on, without ranks. What was generated but not handed in counts where all crystals of a set have one
    value. Empty if no crystal has the condition.
    """
    rows = crystals.rows
    values = rows["condition"].map(lambda condition: condition.get(key))
    missing: Counter[Any] = Counter()
    for name, of_set in values.groupby(rows["set"], observed=True):
        if len(of_set.unique()) == 1 and of_set.notna().all():
            missing[of_set.iloc[0]] += max(0, (crystals.sets[name].n_generated or 0) - len(of_set))
    groups = sorted(rows.groupby(values), key=lambda item: (isinstance(item[0], str), item[0]))
    columns = [*_COUNTED, *_named("per_relaxed"), *_named("per_generated")]
    column = f"condition_{key}" if key in columns else key
    return pd.DataFrame(
        [{column: value} | _record(_funnel(group, len(group) + missing[value])) for value, group in groups],
        columns=[column, *columns],
    )


def element_table(crystals: Crystals) -> pd.DataFrame:
    """How many crystals hold each element: ``element``, ``relaxed``, ``stable``, ``unstable``, ``undecided``,
    ``per_relaxed`` with its interval; the most frequent among the stable ones first.

    A crystal counts once for each of its elements.
    """
    rows = crystals.rows[crystals.rows["relaxed"]]
    holding = rows[["status", "elements"]].explode("elements").rename(columns={"elements": "element"})
    return _counts(holding, ["element"]).sort_values(["stable", "element"], ascending=[False, True], ignore_index=True)


def speed_table(sets: Iterable[SetDocument]) -> pd.DataFrame:
    """How fast each set was generated, as far as that is known, the fastest first.

    Columns: ``set``, ``model``, ``training_set``, ``condition``, ``generated``, ``hours``, ``per_minute``,
    ``hardware``.
    """
    records = []
    for about in sets:
        number, seconds = about.n_generated, about.generation_seconds
        records.append(
            _origin(about)
            | {
                "generated": number,
                "hours": None if seconds is None else seconds / 3600,
                "per_minute": 60 * number / seconds if number is not None and seconds else None,
                "hardware": about.generation_hardware,
            }
        )
    columns = ["set", "model", "training_set", "condition", "generated", "hours", "per_minute", "hardware"]
    types = {"generated": "Int64", "hours": float, "per_minute": float}
    table = pd.DataFrame(records, columns=columns).astype(types)
    return table.sort_values(["per_minute", "set"], ascending=[False, True], ignore_index=True)


def architecture_table(sets: Iterable[SetDocument]) -> pd.DataFrame:
    """What each set was generated by, the smallest model first: ``set``, ``model``, ``training_set``, ``condition``,
    ``architecture``, ``parameters``.
    """
    columns = ["set", "model", "training_set", "condition", "architecture", "parameters"]
    rows = [_origin(each) | {"architecture": each.architecture, "parameters": each.parameters} for each in sets]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"parameters": "Int64"}).sort_values(["parameters", "set"], ignore_index=True)


def _origin(about: SetDocument) -> dict[str, Any]:
    condition = ", ".join(f"{key} = {value}" for key, value in about.condition.items()) or None
    return {"set": about.set, "model": about.model, "training_set": about.training_set, "condition": condition}


def _groups(rows: pd.DataFrame, by: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    yield from rows.groupby(by, observed=True)


def _funnel(rows: pd.DataFrame, n_generated: int | None = None) -> Funnel:
    return funnel(rows[["status", "stage", "same_as"]].to_dict("records"), n_generated)


def _record(found: Funnel) -> dict[str, Any]:
    """A funnel's counts and both of its rates, as columns."""
    counts = {name: getattr(found, name) for name in _COUNTED}
    return counts | _rate("per_relaxed", found.stable_per_relaxed) | _rate("per_generated", found.stable_per_generated)


def _published(stable: int, relaxed: int) -> dict[str, Any]:
    return {"stable_by_rule": stable} | _rate("by_rule", wilson(stable, relaxed))


def _corrected(rows: pd.DataFrame, counts: Funnel) -> dict[str, Any]:
    per_generated = corrected(rows, outside=counts.generated - counts.relaxed)
    return _rate("corrected", corrected(rows)) | _rate("corrected_per_generated", per_generated)


def _is_judged(rows: pd.DataFrame) -> pd.Series:
    return rows["status"].isin([each.value for each in Stability])


def _stable_by(rows: pd.DataFrame) -> pd.DataFrame:
    """Whether each crystal is stable by each of :data:`RULES`; one that failed is so by none."""
    judged = _is_judged(rows)
    return pd.DataFrame(
        {
            "by_rule": judged & is_clean(rows["path_thz"]),
            "by_cured": judged & is_clean(rows["cured_thz"]),
            "by_exact": rows["status"] == Status.STABLE.value,
        }
    )


def _with_sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``operations``, the order of the point group, and ``cell``, the class of the cell's size."""
    orders = {group: _order(group) for group in rows["point_group"].dropna().unique()}
    bounds = [0, *CELL_SIZES, np.inf]
    names = [f"{low + 1} to {high}" for low, high in zip(bounds, CELL_SIZES, strict=False)] + [f"over {CELL_SIZES[-1]}"]
    return rows.assign(
        operations=rows["point_group"].astype(object).map(orders).astype("Int32"),
        cell=pd.cut(rows["nsites"].astype("Float64").to_numpy(dtype=float, na_value=np.nan), bounds, labels=names),
    )


def _order(point_group: str) -> int:
    from pymatgen.symmetry.groups import PointGroup

    return len(PointGroup(point_group).symmetry_ops)


def _named(rate: str) -> tuple[str, str, str]:
    return rate, f"{rate}_low", f"{rate}_high"


def _rate(name: str, found: Rate | CorrectedRate) -> dict[str, float | None]:
    ends = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return dict(zip(_named(name), (found.rate, *ends), strict=True))


def _counts(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Relaxed, stable, unstable and undecided crystals of each group, and the rate."""
    fates = ["stable", "unstable", "undecided"]
    marked = rows[by].assign(**{fate: rows["status"] == fate for fate in fates})
    groups = marked.groupby(by, observed=True)
    table = groups[fates].sum().assign(relaxed=groups.size()).reset_index()
    return _with_rate(table[[*by, "relaxed", *fates]])


def _with_rate(table: pd.DataFrame) -> pd.DataFrame:
    low, high = wilson_bounds(table["stable"], table["relaxed"])
    return table.assign(per_relaxed=table["stable"] / table["relaxed"], per_relaxed_low=low, per_relaxed_high=high)


def _stacked(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
