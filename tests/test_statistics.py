"""Rates against the closed formula and their own promise, comparisons, convergence, and funnels that add up."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom, binomtest, norm

from phononbench_flows.cli.display import funnel_table, rate_text
from phononbench_flows.outcomes import READ, SCREENED, Status
from phononbench_flows.statistics import (
    Funnel,
    Interval,
    Rate,
    difference,
    funnel,
    holm,
    order_band,
    sample_sizes,
    samples_for,
    was_relaxed,
    wilson,
    wilson_bounds,
)
from phononbench_flows.steps import ALWAYS

STAGES = [READ, SCREENED, *ALWAYS]


def closed_formula(count: int, total: int, confidence: float) -> tuple[float, float]:
    z = norm.ppf(0.5 + confidence / 2)
    share = count / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return centre - half, centre + half


def test_wilson_is_the_closed_formula():
    random.seed(1)
    cases = [(0, 1), (1, 1), (0, 10), (10, 10), (1, 3), (4135, 10000), (1, 108843)]
    cases += [(random.randint(0, n), n) for n in (random.randint(1, 100_000) for _ in range(30))]
    for count, total in cases:
        for confidence in (0.5, 0.95, 0.999):
            rate = wilson(count, total, confidence)
            assert rate.interval is not None
            assert (rate.count, rate.total, rate.rate) == (count, total, count / total)
            assert (rate.interval.low, rate.interval.high) == pytest.approx(
                closed_formula(count, total, confidence), abs=1e-12
            )
            assert 0 <= rate.interval.low <= rate.rate <= rate.interval.high <= 1


def test_published_example():
    # Newcombe (1998), table I: 81 of 263.
    interval = wilson(81, 263).interval
    assert interval is not None
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_nothing_has_no_rate():
    assert wilson(0, 0) == Rate(0, 0, None, None)
    assert rate_text(wilson(0, 0)) == "none"


@pytest.mark.parametrize(("count", "total", "confidence"), [(2, 1, 0.95), (-1, 3, 0.95), (1, 0, 0.95), (1, 2, 1.0)])
def test_impossible_rates(count, total, confidence):
    with pytest.raises(ValueError, match=r"rate|confidence"):
        wilson(count, total, confidence)


def test_many_bounds_at_once_are_those_of_scipy():
    counts, totals = np.array([0, 1, 7, 40, 58, 4469, 10902]), np.array([3, 1, 40, 40, 1951, 10902, 10902])
    low, high = wilson_bounds(counts, totals)
    for index, (count, total) in enumerate(zip(counts, totals, strict=True)):
        ends = binomtest(int(count), int(total)).proportion_ci(method="wilson")
        assert (low[index], high[index]) == pytest.approx((ends.low, ends.high), abs=1e-12)
    assert np.isnan(wilson_bounds([0, 1], [0, 2])).tolist() == [[True, False], [True, False]]
    with pytest.raises(ValueError, match="3 out of 2 is no rate"):
        wilson_bounds([1, 3], [2, 2])


# ----------------------------------------------------------------------------------------------------------------------
# How often the interval holds the true rate
# ----------------------------------------------------------------------------------------------------------------------
RATES = np.linspace(0.03, 0.5, 4701)


def coverage(n: int, rates: np.ndarray) -> np.ndarray:
    """Probability that the 95 % interval of ``n`` crystals holds each of the true rates, summed and not drawn."""
    low, high = wilson_bounds(np.arange(n + 1), n)
    first, last = np.searchsorted(high, rates), np.searchsorted(low, rates, side="right") - 1
    return binom.cdf(last, n, rates) - binom.cdf(first - 1, n, rates)


@pytest.mark.parametrize("n", [200, 300, 500, 1000, 2000, 4000])
def test_coverage_is_within_93_and_97_percent_at_every_rate(n):
    found = coverage(n, RATES)
    assert found.min() > 0.93
    assert found.max() < 0.97


@pytest.mark.parametrize("n", [50, 75, 100, 150, 200, 1000, 4000])
def test_coverage_is_95_percent_on_average(n):
    assert coverage(n, RATES).mean() == pytest.approx(0.95, abs=0.0025)
    # Also around any one rate, over what so few crystals cannot tell apart from it.
    for rate in (0.03, 0.05, 0.1, 0.2, 0.35, 0.5):
        spread = math.sqrt(rate * (1 - rate) / n)
        assert 0.945 < coverage(n, np.linspace(rate - spread, rate + spread, 2001)).mean() < 0.965


@pytest.mark.parametrize(("n", "lowest", "highest"), [(50, 0.927, 0.980), (75, 0.928, 0.979), (100, 0.926, 0.978)])
def test_coverage_of_small_samples_leaves_93_to_97_percent_a_little(n, lowest, highest):
    found = coverage(n, RATES)
    assert lowest < found.min() < 0.93
    assert 0.97 < found.max() < highest
    assert ((found > 0.93) & (found < 0.97)).mean() > 0.96


def test_no_interval_does_better_for_small_samples():
    # Whatever the interval, the outcomes for which it holds the true rate are a run of neighbours.
    chances = binom.pmf(np.arange(51), 50, 0.033)
    runs = [chances[first:last].sum() for first in range(51) for last in range(first + 1, 52)]
    assert not any(0.93 <= run <= 0.97 for run in runs)


def simulated_coverage(n: int, rates: np.ndarray, random_state: np.random.Generator) -> np.ndarray:
    """Share of simulated samples of ``n`` crystals, one for each true rate, whose interval holds it; by last axis."""
    low, high = wilson_bounds(random_state.binomial(n, rates), n)
    return ((low <= rates) & (rates <= high)).mean(axis=-1)


@pytest.mark.parametrize("n", [50, 200, 1000, 4000])
def test_coverage_by_simulation(n):
    draws, random_state = 100_000, np.random.default_rng(n)
    rates = np.array([0.03, 0.1, 0.2, 0.3, 0.41, 0.5])
    found = simulated_coverage(n, np.repeat(rates[:, None], draws, axis=1), random_state)
    assert found == pytest.approx(coverage(n, rates), abs=5 * math.sqrt(0.05 * 0.95 / draws))
    assert 0.93 < simulated_coverage(n, random_state.uniform(0.03, 0.5, draws), random_state) < 0.97


# ----------------------------------------------------------------------------------------------------------------------
# Sample sizes, comparisons, convergence
# ----------------------------------------------------------------------------------------------------------------------
def half_width(rate: float, n: int) -> float:
    low, high = wilson_bounds(rate * n, n)
    return float(high - low) / 2


def test_samples_for_is_the_smallest_sample():
    for rate in (0.0, 0.01, 0.1, 0.41, 0.5, 0.97, 1.0):
        for wanted in (0.003, 0.01, 0.05, 0.2):
            n = samples_for(rate, wanted)
            assert half_width(rate, n) <= wanted * (1 + 1e-9)
            assert n == 1 or half_width(rate, n - 1) > wanted
    assert samples_for(0.3, 0.6) == 1


@pytest.mark.parametrize(("rate", "wanted"), [(1.2, 0.01), (0.2, 0.0), (0.2, -1.0)])
def test_impossible_sample_sizes(rate, wanted):
    with pytest.raises(ValueError, match="no sample size"):
        samples_for(rate, wanted)


def test_difference_is_the_published_example():
    # Newcombe (1998), Interval estimation for the difference, table II, method 10: 56 of 70 against 48 of 80.
    found = difference(wilson(56, 70), wilson(48, 80))
    assert (round(found.interval.low, 4), round(found.interval.high, 4)) == (0.0524, 0.3339)
    assert found.difference == pytest.approx(0.2)
    swapped = difference(wilson(48, 80), wilson(56, 70))
    assert (swapped.interval.low, swapped.interval.high) == pytest.approx((-found.interval.high, -found.interval.low))
    assert swapped.p_value == pytest.approx(found.p_value)


def test_fishers_lady_tasting_tea():
    # All eight cups right: 2 / 70; six of them: 34 / 70.
    assert difference(wilson(4, 4), wilson(0, 4)).p_value == pytest.approx(2 / 70)
    assert difference(wilson(3, 4), wilson(1, 4)).p_value == pytest.approx(34 / 70)
    assert difference(wilson(5, 10), wilson(5, 10)).p_value == pytest.approx(1)


def test_nothing_cannot_be_compared():
    with pytest.raises(ValueError, match="rate of nothing"):
        difference(wilson(0, 0), wilson(1, 2))


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_keeps_the_level_of_all_tests_together():
    p_values = np.random.default_rng(3).random((4000, 10))
    any_false = np.mean([min(holm(row)) < 0.05 for row in p_values])
    assert any_false == pytest.approx(0.05, abs=0.015)


def test_order_band_is_that_of_shuffled_crystals():
    stable, total = 120, 400
    crystals = np.arange(total) < stable
    random_state = np.random.default_rng(5)
    sums = np.cumsum([random_state.permutation(crystals) for _ in range(5000)], axis=1)
    sizes = np.array([5, 20, 100, 300, 399, 400])
    low, high = order_band(stable, total, sizes)
    drawn = np.quantile(sums[:, sizes - 1] / sizes, [0.025, 0.975], axis=0, method="inverted_cdf")
    # A crystal more or less, where a quantile falls between two counts.
    assert (np.abs(drawn - [low, high]) * sizes <= 1 + 1e-9).all()
    inside = (sums[:, sizes - 1] >= low * sizes - 1e-9) & (sums[:, sizes - 1] <= high * sizes + 1e-9)
    assert (inside.mean(axis=0) >= 0.94).all()
    assert (low[-1], high[-1]) == (0.3, 0.3)


def test_order_band_of_one_kind_is_a_line():
    assert [ends.tolist() for ends in order_band(0, 9, [1, 9])] == [[0, 0], [0, 0]]
    assert [ends.tolist() for ends in order_band(9, 9, [1, 9])] == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("stable", "total", "sizes"), [(5, 4, [1]), (1, 4, [0]), (1, 4, [5]), (-1, 4, [1])])
def test_impossible_bands(stable, total, sizes):
    with pytest.raises(ValueError, match="no band"):
        order_band(stable, total, sizes)


def test_sample_sizes_are_round_and_end_with_all():
    assert sample_sizes(0).tolist() == []
    assert sample_sizes(1).tolist() == [1]
    assert sample_sizes(7).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert sample_sizes(1234).tolist()[-3:] == [800, 1000, 1234]
    assert {100, 1000, 4000, 10000} < set(sample_sizes(22755).tolist())


# ----------------------------------------------------------------------------------------------------------------------
# Funnels
# ----------------------------------------------------------------------------------------------------------------------
def test_rate_text():
    assert rate_text(Rate(1, 2, 0.5, Interval(0.094, 0.906))) == "50.0 % (9.4 to 90.6)"


def test_funnel_of_any_documents_adds_up():
    random.seed(2)
    counted = [status for status in Status if status is not Status.GONE]
    for size in (0, 1, 7, 500):
        rows = [{"status": random.choice(counted), "stage": random.choice(STAGES)} for _ in range(size)]
        found = funnel(iter(rows))
        assert found.generated == size
        assert found.adds_up
        assert found.judged == found.stable + found.unstable
        failed_later = [
            r for r in rows if r["status"] == "failed" and r["stage"] in {"relaxation", "force_constants", "spectrum"}
        ]
        assert found.undecided == sum(r["status"] == "undecided" for r in rows)
        assert found.relaxed == found.judged + found.undecided + len(failed_later)
        assert found.stable_per_relaxed.total == found.relaxed
        assert found.stable_per_generated.total == size
        assert found.stable <= found.relaxed <= size


def test_what_is_gone_and_what_relaxed_into_another_is_told_apart():
    rows = [{"status": "stable", "stage": "spectrum", "same_as": same_as} for same_as in (None, "a", "a")]
    rows += [{"status": "gone", "stage": "spectrum"}, {"status": "pending", "stage": "relaxation", "same_as": None}]
    found = funnel(rows)
    assert (found.generated, found.gone, found.relaxed, found.unique_relaxed) == (4, 1, 3, 1)
    assert found.adds_up
    shown = text_of(found, "set")
    assert "relaxed to different crystals" in shown
    assert "1 crystals are gone" in shown


def test_funnel_counts_plain_strings():
    rows = [
        {"status": "stable", "stage": "spectrum"},
        {"status": "unstable", "stage": "spectrum"},
        {"status": "failed", "stage": "screened"},
        {"status": "failed", "stage": "relaxation"},
        {"status": "failed", "stage": "force_constants"},
        {"status": "rejected", "stage": "read"},
        {"status": "duplicate", "stage": "read"},
        {"status": "known", "stage": "read"},
        {"status": "pending", "stage": "relaxation"},
        {"status": "undecided", "stage": "spectrum"},
        {"status": "failed", "stage": "elasticity"},
    ]
    found = funnel(rows)
    assert found == Funnel(
        generated=11,
        rejected=1,
        duplicate=1,
        known=1,
        failed=4,
        failed_relaxation=1,
        undecided=1,
        judged=2,
        stable=1,
        pending=1,
    )
    assert (found.relaxed, found.stable_per_relaxed.rate, found.stable_per_generated.rate) == (6, 1 / 6, 1 / 11)


def test_what_was_not_handed_in_was_generated():
    rows = [{"status": "stable", "stage": "spectrum"}, {"status": "rejected", "stage": "read"}]
    rows += [{"status": "duplicate", "stage": "screened"}, {"status": "known", "stage": "screened"}]
    found = funnel(rows, n_generated=10)
    assert (found.generated, found.not_handed_in, found.unique, found.accepted) == (10, 6, 2, 1)
    assert found.adds_up
    assert (found.stable_per_relaxed.total, found.stable_per_generated.total) == (1, 10)
    assert "not handed in" in text_of(found, "set")
    # Fewer generated than there are is a slip of who wrote it down: the crystals are there.
    assert funnel(rows, n_generated=3) == funnel(rows)
    assert "not handed in" not in text_of(funnel(rows), "set")


def test_unknown_words_raise():
    for stage in STAGES:
        with pytest.raises(ValueError, match="lost"):
            funnel([{"status": "lost", "stage": stage}])
    for row in ({"status": "failed"}, {"stage": "read"}):
        with pytest.raises(KeyError):
            funnel([row])


def test_steps_of_any_name_come_after_the_relaxation():
    assert [stage for stage in [*STAGES, "elasticity"] if not was_relaxed("failed", stage)] == [READ, SCREENED]
    assert {status.value for status in Status if was_relaxed(status, "spectrum")} == {
        *("stable", "unstable", "undecided", "failed")
    }
    assert not was_relaxed("pending", "elasticity")


def test_a_funnel_that_loses_a_crystal_does_not_add_up():
    names = ("rejected", "duplicate", "known", "failed", "failed_relaxation", "undecided", "stable", "pending")
    fields = dict.fromkeys(names, 0)
    assert Funnel(generated=2, judged=2, **fields).adds_up
    assert not Funnel(generated=3, judged=2, **fields).adds_up
    assert Funnel(generated=3, judged=2, **fields | {"undecided": 1}).adds_up
    assert not Funnel(generated=2, judged=2, **fields | {"undecided": 1}).adds_up


def text_of(found: Funnel, name: str) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(funnel_table(found, name))
    return capture.get()


def test_funnel_table_shows_all_and_takes_any_name():
    rows = [{"status": status, "stage": "spectrum"} for status in Status]
    shown = text_of(funnel(rows), "[red]set[/red] [/]")
    assert "[red]set[/red] [/]" in shown
    words = ("generated", "rejected", "duplicate", "known", "failed", "judged", "stable", "unstable", "pending")
    for word in (*words, "undecided"):
        assert word in shown
    assert "12.5 %" in shown  # one of eight
    assert "25.0 % (" in shown  # stable, out of stable, unstable, undecided and failed after the relaxation
    assert "none" in text_of(funnel([]), "empty")
