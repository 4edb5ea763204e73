"""Rates with confidence intervals, funnels, comparisons and convergence: numbers in, numbers out.

Rates are fractions between 0 and 1. Nothing here knows a store or a plot; the tables over a store's documents are
those of :mod:`phononbench_flows.tables.frames`.
"""

from phononbench_flows.statistics.comparison import Difference, difference, holm
from phononbench_flows.statistics.convergence import order_band, sample_sizes
from phononbench_flows.statistics.corrected import CorrectedRate, corrected_rate
from phononbench_flows.statistics.funnels import Funnel, funnel, was_relaxed
from phononbench_flows.statistics.rates import Interval, Rate, samples_for, wilson, wilson_bounds

__all__ = [
    "CorrectedRate",
    "Difference",
    "Funnel",
    "Interval",
    "Rate",
    "corrected_rate",
    "difference",
    "funnel",
    "holm",
    "order_band",
    "sample_sizes",
    "samples_for",
    "was_relaxed",
    "wilson",
    "wilson_bounds",
]
