"""What better methods make of the rates: corrected ones, and the confusion matrix of the potential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from phononbench_flows.stability import Stability, is_clean
from phononbench_flows.statistics import CorrectedRate, Rate, corrected_rate, wilson
from phononbench_flows.tables.rows import Crystals

OWN, PUBLISHED = "own", "published"
"""The verdict of the protocol, and that of the published rule."""

_STABLE, _UNSTABLE = Stability.STABLE.value, Stability.UNSTABLE.value
_VERDICTS = tuple(each.value for each in Stability)


def corrected(rows: pd.DataFrame, rule: str = OWN, *, outside: int = 0) -> CorrectedRate:
    """The rate of stable crystals among those relaxed, corrected by those that are confirmed.

    Args:
        rows: crystals as :func:`~phononbench_flows.tables.rows.read_crystals` gives them.
        rule: ``own`` or ``published``: by whose verdict, on both sides.
        outside: crystals that were generated and never relaxed, for a rate per generated crystal.
    """
    relaxed = rows[rows["relaxed"].astype(bool)]
    said = relaxed["confirmed" if rule == OWN else "confirmed_published"].astype(object)
    # What others chose to compute stands for nothing else, unless they have computed all.
    counts = said.notna() & (relaxed["drawn"].astype(bool) | said.notna().all())
    labels = [label == _STABLE if counted else None for label, counted in zip(said, counts, strict=True)]
    strata = relaxed["stratum"].astype(object).where(relaxed["stratum"].notna(), None)
    found = corrected_rate(list(_called(relaxed, rule) == _STABLE), labels, list(strata), outside=outside)
    if found.rate is None and not counts.any() and said.notna().any():
        why = f"none of the {int(said.notna().sum())} labelled crystals was drawn at random"
        return CorrectedRate(found.raw, None, None, 0, why)
    return found


def corrected_table(crystals: Crystals) -> pd.DataFrame:
    """A row per set and rule of sets of which something is confirmed: the rate per relaxed crystal, raw and corrected.

    Columns: ``set``, ``rule``, ``relaxed``, ``labelled`` (crystals with a label), ``counted`` (those of them that were
    drawn at random, or all), ``per_relaxed`` and ``corrected`` with intervals, and ``not_available``: why not.
    """
    records = []
    for name, rule, rows in _by_rule(crystals):
        found = corrected(rows, rule)
        labelled = int(rows.loc[rows["relaxed"].astype(bool), "confirmed"].notna().sum())
        records.append(
            {"set": name, "rule": rule, "relaxed": found.raw.total, "labelled": labelled, "counted": found.confirmed}
            | _rate("per_relaxed", found.raw)
            | _rate("corrected", found)
            | {"not_available": found.why_not}
        )
    return pd.DataFrame(records)


def confusion_table(crystals: Crystals) -> pd.DataFrame:
    """The confusion matrix of the potential, a row per set, rule and verdict of the potential.

    Columns: ``set``, ``rule``, ``verdict``, and how many of the labelled ones are ``confirmed_stable``,
    ``confirmed_unstable`` and ``confirmed_undecided``; ``by_label``: the share of those that are decided whose label
    agrees, with Wilson's interval. Crystals are counted as they are, and not weighted by what they stand for.
    """
    records = []
    for name, rule, rows in _by_rule(crystals):
        said = rows["confirmed" if rule == OWN else "confirmed_published"]
        called = _called(rows, rule)
        for verdict in _VERDICTS:
            of_these = said[called == verdict].dropna()
            if not len(of_these):
                continue
            counts = {label: int((of_these == label).sum()) for label in _VERDICTS}
            decided = counts[_STABLE] + counts[_UNSTABLE] if verdict in {_STABLE, _UNSTABLE} else 0
            agreeing = wilson(counts[verdict] if decided else 0, decided)
            records.append(
                {"set": name, "rule": rule, "verdict": verdict}
                | {f"confirmed_{label}": number for label, number in counts.items()}
                | _rate("by_label", agreeing)
            )
    return pd.DataFrame(records)


def is_confirmed(rows: pd.DataFrame) -> bool:
    """Whether anything is known of any of these crystals."""
    return bool(rows["confirmed"].notna().any())


def _by_rule(crystals: Crystals) -> Iterator[tuple[str, str, pd.DataFrame]]:
    rules = (OWN, PUBLISHED) if crystals.judged_at.exact else (OWN,)
    for name, rows in crystals.rows.groupby("set", observed=True):
        if is_confirmed(rows):
            yield from ((str(name), rule, rows) for rule in rules)


def _called(rows: pd.DataFrame, rule: str) -> pd.Series:
    """The potential's verdict of each crystal; its status where it was not judged."""
    status = rows["status"].astype(object)
    if rule == OWN:
        return status
    judged = status.isin(_VERDICTS) & rows["path_thz"].notna()
    clean = pd.Series(is_clean(rows["path_thz"]), index=rows.index).map({True: _STABLE, False: _UNSTABLE})
    return status.where(~judged, clean)


def _rate(name: str, found: Rate | CorrectedRate) -> dict[str, Any]:
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return {name: found.rate, f"{name}_low": low, f"{name}_high": high}
