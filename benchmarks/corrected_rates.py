"""How often the interval of a corrected rate holds the true rate, by simulation.

2,000 crystals of a model are called stable or unstable by a potential, and are truly so or not at random, with shares
such as a potential was measured to have; 50 of them are confirmed, drawn at random or within its labels. How often the
95 % interval holds the model's true rate, beside the raw rate's (Wilson)::

    python benchmarks/corrected_rates.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phononbench_flows.statistics import CorrectedRate, corrected_rate


@dataclass(frozen=True)
class Potential:
    """What share of a model's crystals a potential calls stable, and which shares of both kinds are truly stable."""

    called: float
    right: float
    missed: float

    @property
    def truth(self) -> float:
        """The true rate."""
        return self.called * self.right + (1 - self.called) * self.missed


POTENTIALS = {
    "a fifth stable": Potential(0.2, 0.6, 0.2),
    "half stable": Potential(0.55, 0.65, 0.1),
    "most stable": Potential(0.8, 0.75, 0.1),
    "seldom wrong": Potential(0.4, 0.9, 0.05),
}


def simulated(
    potential: Potential, rng: np.random.Generator, total: int, confirmed: int, by_label: bool
) -> CorrectedRate:
    """A set of a model, and a part of it confirmed."""
    called = rng.random(total) < potential.called
    truth = rng.random(total) < np.where(called, potential.right, potential.missed)
    return corrected_rate(
        list(called), drawn(called, truth, rng, confirmed, by_label), list(called) if by_label else None
    )


def drawn(
    called: np.ndarray, truth: np.ndarray, rng: np.random.Generator, confirmed: int, by_label: bool
) -> list[bool | None]:
    """Labels of a random part: equally many of both kinds, or as they come."""
    groups = [np.flatnonzero(called), np.flatnonzero(~called)] if by_label else [np.arange(len(called))]
    chosen = {int(i) for g in groups for i in rng.choice(g, min(confirmed // len(groups), len(g)), replace=False)}
    return [bool(label) if place in chosen else None for place, label in enumerate(truth)]


def coverage(make: Callable[[], CorrectedRate], truth: float, repeats: int) -> tuple[float, float, float, int]:
    """How often corrected and raw interval hold the truth, the mean width of the first, and how many were available."""
    found = [each for each in (make() for _ in range(repeats)) if each.interval is not None]
    ends = np.array([(each.interval.low, each.interval.high) for each in found if each.interval])
    raw = np.array([(each.raw.interval.low, each.raw.interval.high) for each in found if each.raw.interval])
    held, held_raw = (((low <= truth) & (truth <= high)).mean() for low, high in (ends.T, raw.T))
    return float(held), float(held_raw), float(np.ptp(ends, axis=1).mean()), len(found)


def main() -> None:
    """Print a line for each potential and way of drawing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--total", type=int, default=2000)
    parser.add_argument("--confirmed", type=int, default=50)
    asked = parser.parse_args()
    print("| potential | called stable | of these truly | of others truly | drawn | holds | raw | width | available |")
    print("|---|---:|---:|---:|---|---:|---:|---:|---:|")
    rng = np.random.default_rng(1)
    for name, each in POTENTIALS.items():
        for by_label in (True, False):
            held, raw, width, there = coverage(
                lambda one=each, by=by_label: simulated(one, rng, asked.total, asked.confirmed, by),  # type: ignore[misc]
                each.truth,
                asked.repeats,
            )
            shares = f"{each.called:.2f} | {each.right:.2f} | {each.missed:.2f}"
            how = "within verdicts" if by_label else "at random"
            print(f"| {name} | {shares} | {how} | {held:.1%} | {raw:.1%} | {width:.2f} | {there / asked.repeats:.1%} |")


if __name__ == "__main__":
    main()
