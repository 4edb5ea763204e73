"""A rate corrected by labels of a random part of the crystals: no assumption on the potential is needed.

Prediction-powered inference (Angelopoulos et al., Science 382, 669 (2023)): the rate by the potential's labels of all
crystals, and the mean difference between true and potential's label on the confirmed ones. Within one stratum and one
label of the potential the difference is a matter of one share, that of the truly stable; so the estimate is the sum
of these shares, each weighted by how many crystals it stands for (post-stratified, Fisch et al., arXiv 2406.04291).

The interval is put together from Wilson's for the shares (method of variance estimates recovery, Zou and Donner, Stat.
Med. 27, 1693 (2008)), and from the chance in which crystals the model made: like the raw rate's, it is about all that
the model would make. ``benchmarks/corrected_rates.py`` measures how often it holds the true rate.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from phononbench_flows.statistics.rates import Interval, Rate, normal_quantile, wilson, wilson_bounds

FEWEST = 10
"""With fewer confirmed crystals there is no corrected rate."""

FEWEST_OF_A_KIND = 5
"""A kind of crystals (a stratum with one label of the potential) of which fewer are confirmed, and not all, is open:
its share may be anything."""

LARGEST_OPEN = 0.05
"""If more than this part of the crystals is open, there is no corrected rate."""


_Kind = tuple[Hashable, bool]  # stratum, and what the potential says


@dataclass(frozen=True)
class CorrectedRate:
    """A rate by the potential, and what labels of better methods make of it.

    Attributes:
        raw: by the potential, of all crystals.
        rate: corrected; None where too few are confirmed.
        interval: of the corrected rate.
        confirmed: how many crystals have a label.
        why_not: why there is no corrected rate, in a few words.
    """

    raw: Rate
    rate: float | None
    interval: Interval | None
    confirmed: int
    why_not: str | None = None


def corrected_rate(
    called: Sequence[bool],
    labels: Sequence[bool | None],
    strata: Sequence[Hashable] | None = None,
    *,
    outside: int = 0,
    confidence: float = 0.95,
) -> CorrectedRate:
    """The rate of what is truly so, such as stable, among crystals of which a random part is confirmed.

    Args:
        called: what the potential says of each crystal.
        labels: what is true of each, as far as anybody knows; None where it is not confirmed.
        strata: within which those to confirm were drawn at random; one for all without it.
        outside: further crystals that the rate is out of and that are surely not so, such as those never relaxed.
        confidence: of the intervals.

    Raises:
        ValueError: lists of different lengths, or a confidence outside 0 to 1.
    """
    places: Sequence[Hashable] = [None] * len(called) if strata is None else strata
    all_of, confirmed, true = Counter[_Kind](), Counter[_Kind](), Counter[_Kind]()
    for place, said, label in zip(places, called, labels, strict=True):
        kind = (place, bool(said))
        all_of[kind] += 1
        if label is not None:
            confirmed[kind] += 1
            true[kind] += bool(label)
    total = len(called) + outside
    raw = wilson(sum(map(bool, called)), total, confidence)
    number = confirmed.total()
    open_ones = sum(all_of[kind] for kind in all_of if _is_open(all_of[kind], confirmed[kind]))
    if number < FEWEST:
        return CorrectedRate(raw, None, None, number, f"{number} confirmed, {FEWEST} are needed")
    if open_ones > LARGEST_OPEN * total:
        why = f"too few confirmed of kinds that hold {open_ones} of {total} crystals"
        return CorrectedRate(raw, None, None, number, why)
    rate, interval = _combined(all_of, confirmed, true, total, confidence)
    return CorrectedRate(raw, rate, interval, number)


def _is_open(there: int, confirmed: int) -> bool:
    return confirmed < min(there, FEWEST_OF_A_KIND)


def _combined(
    all_of: Counter[_Kind], confirmed: Counter[_Kind], true: Counter[_Kind], total: int, confidence: float
) -> tuple[float, Interval]:
    """The rate and its interval; open kinds count as the potential says, and widen the interval by all they hold."""
    known = [kind for kind in all_of if not _is_open(all_of[kind], confirmed[kind])]
    open_kinds = all_of.keys() - set(known)
    open_yes, open_no = (sum(all_of[kind] for kind in open_kinds if kind[1] is said) / total for said in (True, False))
    weights = np.array([all_of[kind] for kind in known]) / total
    counts, numbers = (np.array([of[kind] for kind in known], dtype=float) for of in (true, confirmed))
    shares = counts / numbers
    low, high = wilson_bounds(counts, numbers, confidence)
    rate = float(weights @ shares) + open_yes
    # What is open, and outside, is part of the mixture that the model makes, with shares of its own: one and zero.
    zeros = max(0.0, 1 - float(weights.sum()) - open_yes)
    between = float(weights @ (shares - rate) ** 2) + open_yes * (1 - rate) ** 2 + zeros * rate**2
    chance = normal_quantile(confidence) ** 2 * between / total
    below = math.sqrt(float(((weights * (shares - low)) ** 2).sum()) + chance)
    above = math.sqrt(float(((weights * (high - shares)) ** 2).sum()) + chance)
    return rate, Interval(max(0.0, rate - below - open_yes), min(1.0, rate + above + open_no))
