"""The funnel of a set: how many crystals came how far, and how many of them are stable.

Everything is counted from the status and the stage of each crystal's document, one row per crystal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from phononbench_flows.outcomes import READ, SCREENED, Status
from phononbench_flows.statistics.rates import Rate, wilson


@dataclass(frozen=True)
class Funnel:
    """How many crystals of a set came how far. Each of those generated is in exactly one of the other places.

    Attributes:
        generated: all crystals of the set, with those that were left out before they came here.
        rejected: no usable crystal.
        duplicate: repeats another one of the set.
        known: repeats one of the reference set.
        failed: could not be computed; this is not "unstable".
        failed_relaxation: those of ``failed`` that have no relaxed structure.
        undecided: computed, and neither shown to be stable nor unstable.
        judged: stable or unstable.
        stable: those of ``judged`` that are stable.
        pending: not finished.
        not_handed_in: those of ``generated`` that have no document.
        relaxed_again: those of ``relaxed`` whose relaxed crystal is the same as that of another one before them.
        gone: crystals whose file is there no more; they are not among those ``generated``.
    """

    generated: int
    rejected: int
    duplicate: int
    known: int
    failed: int
    failed_relaxation: int
    undecided: int
    judged: int
    stable: int
    pending: int
    not_handed_in: int = 0
    relaxed_again: int = 0
    gone: int = 0

    @property
    def unique(self) -> int:
        """Crystals handed in that repeat no other one."""
        return self.generated - self.not_handed_in - self.duplicate - self.known

    @property
    def accepted(self) -> int:
        """Those of the unique ones that could be computed."""
        return self.unique - self.rejected

    @property
    def relaxed(self) -> int:
        """Finished crystals that were relaxed: judged, undecided, and those that failed afterwards."""
        return self.judged + self.undecided + self.failed - self.failed_relaxation

    @property
    def unique_relaxed(self) -> int:
        """Different crystals among the relaxed ones; those that fell into one are counted once."""
        return self.relaxed - self.relaxed_again

    @property
    def unstable(self) -> int:
        """Judged crystals that are not stable."""
        return self.judged - self.stable

    @property
    def adds_up(self) -> bool:
        """Whether every crystal generated is accounted for once."""
        computed = self.failed + self.undecided + self.judged + self.pending
        accounted = self.not_handed_in + self.rejected + self.duplicate + self.known + computed
        return self.generated == accounted and self.stable <= self.judged and self.failed_relaxation <= self.failed

    @property
    def stable_per_relaxed(self) -> Rate:
        """Stable out of the finished crystals that were relaxed."""
        return wilson(self.stable, self.relaxed)

    @property
    def stable_per_generated(self) -> Rate:
        """Stable out of all crystals, whatever became of them.

        One that is pending or was not handed in counts as not stable.
        """
        return wilson(self.stable, self.generated)


def was_relaxed(status: str, stage: str) -> bool:
    """Whether a crystal is finished and was relaxed: judged, undecided, or failed afterwards."""
    # The stage is the last one reached, so a failed crystal of an earlier one never came out of the relaxation.
    failed_later = status == Status.FAILED and stage not in {READ, SCREENED}
    return failed_later or status in {Status.STABLE, Status.UNSTABLE, Status.UNDECIDED}


def funnel(rows: Iterable[Mapping[str, Any]], n_generated: int | None = None) -> Funnel:
    """The funnel of some crystals, from the ``status`` and ``stage`` of each one's document, and its ``same_as``.

    Args:
        rows: one per document; one without ``same_as`` repeats no other when relaxed.
        n_generated: how many were generated, where that is known; what is more than the rows was not handed in.

    Raises:
        ValueError: a status that does not exist.
        KeyError: a row without them.
    """
    counts: Counter[Status] = Counter()
    failed_relaxation = relaxed_again = 0
    for row in rows:
        status = Status(row["status"])
        counts[status] += 1
        relaxed = was_relaxed(status, row["stage"])
        failed_relaxation += status is Status.FAILED and not relaxed
        relaxed_again += relaxed and row.get("same_as") is not None
    gone = counts.pop(Status.GONE, 0)
    not_handed_in = max(0, (n_generated or 0) - counts.total())
    return Funnel(
        generated=counts.total() + not_handed_in,
        rejected=counts[Status.REJECTED],
        duplicate=counts[Status.DUPLICATE],
        known=counts[Status.KNOWN],
        failed=counts[Status.FAILED],
        failed_relaxation=failed_relaxation,
        undecided=counts[Status.UNDECIDED],
        judged=counts[Status.STABLE] + counts[Status.UNSTABLE],
        stable=counts[Status.STABLE],
        pending=counts[Status.PENDING],
        not_handed_in=not_handed_in,
        relaxed_again=relaxed_again,
        gone=gone,
    )
