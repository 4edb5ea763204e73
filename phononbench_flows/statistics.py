"""Rates with confidence intervals, and the funnel of a set: how many crystals came how far.

Everything is counted from the status and the stage of each crystal's document, one row per crystal. Rates are
fractions between 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from phononbench_flows.outcomes import Stage, Status


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends between 0 and 1."""

    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """``count`` out of ``total`` as a fraction, with its confidence interval.

    Nothing out of nothing has no rate and no interval: both are None.
    """

    count: int
    total: int
    rate: float | None
    interval: Interval | None


def wilson(count: int, total: int, confidence: float = 0.95) -> Rate:
    """The rate ``count / total`` with Wilson's score interval (without continuity correction).

    Raises:
        ValueError: a count outside 0 to ``total``, or a confidence outside 0 to 1.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} out of {total} is no rate")
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence {confidence} does not lie between 0 and 1")
    if total == 0:
        return Rate(0, 0, None, None)
    from scipy.stats import binomtest

    ends = binomtest(count, total).proportion_ci(confidence_level=confidence, method="wilson")
    return Rate(count, total, count / total, Interval(float(ends.low), float(ends.high)))


@dataclass(frozen=True)
class Funnel:
    """How many crystals of a set came how far. Each of those generated is in exactly one of the other places.

    Attributes:
        generated: all crystals of the set.
        rejected: no usable crystal.
        duplicate: repeats another one of the set.
        known: repeats one of the reference set.
        failed: could not be computed; this is not "unstable".
        failed_relaxation: those of ``failed`` that have no relaxed structure.
        judged: stable or unstable.
        stable: those of ``judged`` that are stable.
        pending: not finished.
    """

    generated: int
    rejected: int
    duplicate: int
    known: int
    failed: int
    failed_relaxation: int
    judged: int
    stable: int
    pending: int

    @property
    def relaxed(self) -> int:
        """Finished crystals that were relaxed: those judged, and those that failed afterwards."""
        return self.judged + self.failed - self.failed_relaxation

    @property
    def unstable(self) -> int:
        """Judged crystals that are not stable."""
        return self.judged - self.stable

    @property
    def adds_up(self) -> bool:
        """Whether every crystal generated is accounted for once."""
        accounted = self.rejected + self.duplicate + self.known + self.failed + self.judged + self.pending
        return self.generated == accounted and self.stable <= self.judged and self.failed_relaxation <= self.failed

    @property
    def stable_per_relaxed(self) -> Rate:
        """Stable out of the finished crystals that were relaxed."""
        return wilson(self.stable, self.relaxed)

    @property
    def stable_per_generated(self) -> Rate:
        """Stable out of all crystals, whatever became of them. A pending one counts as not stable (yet)."""
        return wilson(self.stable, self.generated)


def funnel(rows: Iterable[Mapping[str, Any]]) -> Funnel:
    """The funnel of some crystals, from the ``status`` and ``stage`` of each one's document.

    Raises:
        ValueError: a status that does not exist, or a failed crystal with a stage that does not exist.
        KeyError: a row without them.
    """
    counts: Counter[Status] = Counter()
    failed_relaxation = 0
    for row in rows:
        status = Status(row["status"])
        counts[status] += 1
        # The stage is the last one completed, so these never came out of the relaxation.
        if status is Status.FAILED and Stage(row["stage"]) in {Stage.READ, Stage.SCREENED}:
            failed_relaxation += 1
    return Funnel(
        generated=counts.total(),
        rejected=counts[Status.REJECTED],
        duplicate=counts[Status.DUPLICATE],
        known=counts[Status.KNOWN],
        failed=counts[Status.FAILED],
        failed_relaxation=failed_relaxation,
        judged=counts[Status.STABLE] + counts[Status.UNSTABLE],
        stable=counts[Status.STABLE],
        pending=counts[Status.PENDING],
    )
