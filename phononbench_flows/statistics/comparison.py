"""Two rates side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phononbench_flows.statistics.rates import Interval, Rate


@dataclass(frozen=True)
class Difference:
    """First rate less second, with its interval, and the p-value of there being none."""

    difference: float
    interval: Interval
    p_value: float


def difference(first: Rate, second: Rate) -> Difference:
    """Difference of two independent rates, at the confidence of their own intervals.

    The interval is Newcombe's from the two Wilson intervals (his method 10, without continuity correction). The
    p-value is that of Fisher's exact test, two-sided: right for samples of any size, and for small ones on the
    cautious side, so that it may stay above 0.05 where the interval just leaves out zero.

    Raises:
        ValueError: a rate of nothing.
    """
    if first.rate is None or first.interval is None or second.rate is None or second.interval is None:
        raise ValueError("a rate of nothing cannot be compared")
    from scipy.stats import fisher_exact

    found = first.rate - second.rate
    low = found - math.hypot(first.rate - first.interval.low, second.interval.high - second.rate)
    high = found + math.hypot(first.interval.high - first.rate, second.rate - second.interval.low)
    table = [[first.count, first.total - first.count], [second.count, second.total - second.count]]
    return Difference(found, Interval(low, high), float(fisher_exact(table).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number after Holm, in the order given.

    Each may be held against the level that is wanted for all together: the chance that any true null falls is then
    no larger, whatever hangs together among the tests.
    """
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given)
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()
