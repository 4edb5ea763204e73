"""Sets that are still being computed: what is said beside their rates, and that they have no rank."""

from __future__ import annotations

import pandas as pd


def pending_by_set(funnels: pd.DataFrame) -> dict[str, int]:
    """Crystals that are not judged yet, for every set that has any; from ``funnel_table``."""
    left = funnels[funnels["pending"] > 0]
    return {str(name): int(number) for name, number in zip(left["set"], left["pending"], strict=True)}


def unfinished_note(funnels: pd.DataFrame) -> str | None:
    """What has to be said beside numbers of these sets, in a sentence or two; None where all are finished."""
    total = dict(zip(funnels["set"], funnels["generated"], strict=True))
    said = [f"{name} ({left:,} of {total[name]:,} crystals pending)" for name, left in pending_by_set(funnels).items()]
    if not said:
        return None
    return f"Still being computed: {', '.join(said)}. Their rates are provisional, and they are not ranked."


def ranks(funnels: pd.DataFrame, rate: str) -> pd.Series:
    """Ranks by a rate among the sets that are finished; none for the others."""
    return funnels[rate].where(funnels["pending"] == 0).rank(ascending=False, method="min").astype("Int64")
