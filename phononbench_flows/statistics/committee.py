"""Several potentials on the same crystals: how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from phononbench_flows.outcomes import Status
from phononbench_flows.statistics.rates import Rate, wilson


@dataclass(frozen=True)
class Confusion:
    """The verdicts of two potentials on the same crystals.

    Attributes:
        both_stable, first_stable, second_stable, both_unstable: crystals that both judged, by who calls them stable;
            the two in the middle by that one alone.
        open: crystals that at least one of them left undecided, or failed.
    """

    both_stable: int
    first_stable: int
    second_stable: int
    both_unstable: int
    open: int

    @property
    def judged(self) -> int:
        """Crystals that both call stable or unstable."""
        return self.both_stable + self.first_stable + self.second_stable + self.both_unstable

    @property
    def agreement(self) -> Rate:
        """Crystals of which both say the same, out of those that both judged."""
        return wilson(self.both_stable + self.both_unstable, self.judged)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond that of two who say stable as often as these, at random; 1 is all of it."""
        n = self.judged
        first, second = self.both_stable + self.first_stable, self.both_stable + self.second_stable
        by_chance = (first * second + (n - first) * (n - second)) / n**2 if n else 1.0
        agreed = self.agreement.rate
        return None if agreed is None or by_chance == 1 else (agreed - by_chance) / (1 - by_chance)


def confusion(first: Sequence[str], second: Sequence[str]) -> Confusion:
    """The confusion matrix of two potentials, from the statuses of the same crystals in the same order.

    Raises:
        ValueError: not as many of one as of the other.
    """
    pairs = Counter(zip(first, second, strict=True))
    stable, unstable = Status.STABLE.value, Status.UNSTABLE.value
    judged = [pairs[one, other] for one in (stable, unstable) for other in (stable, unstable)]
    both_stable, first_stable, second_stable, both_unstable = judged
    return Confusion(both_stable, first_stable, second_stable, both_unstable, pairs.total() - sum(judged))


@dataclass(frozen=True)
class Votes:
    """What a committee says of crystals.

    Attributes:
        stable_under: number of crystals by how many potentials call them stable, from none to all.
        all_stable, all_unstable: crystals of which all say so.
        parted: crystals that one calls stable and another one unstable.
        open: the others: nobody contradicts, but somebody left it undecided, or failed.
    """

    stable_under: list[int]
    all_stable: int
    all_unstable: int
    parted: int
    open: int


def votes(verdicts: Sequence[Sequence[str]]) -> Votes:
    """Count the votes, from the statuses of each crystal under every potential.

    Raises:
        ValueError: crystals with votes of different numbers of potentials.
    """
    sizes = {len(each) for each in verdicts}
    if len(sizes) > 1:
        raise ValueError("every crystal needs a verdict of every potential")
    members = sizes.pop() if sizes else 0
    stable = Counter(sum(status == Status.STABLE for status in each) for each in verdicts)
    kinds = Counter(_kind(each) for each in verdicts)
    return Votes(
        [stable[n] for n in range(members + 1)], kinds["stable"], kinds["unstable"], kinds["parted"], kinds[""]
    )


def parts(verdicts: Sequence[str]) -> bool:
    """Whether potentials contradict each other on a crystal."""
    return {Status.STABLE.value, Status.UNSTABLE.value} <= set(verdicts)


def _kind(verdicts: Sequence[str]) -> str:
    if parts(verdicts):
        return "parted"
    return verdicts[0] if set(verdicts) in ({Status.STABLE.value}, {Status.UNSTABLE.value}) else ""
