"""Corrected rates: known answers, their promise by simulation, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from phononbench_flows.statistics import corrected_rate, wilson


def crystals(*kinds: tuple[bool, int, int, int]):
    """Labels of the potential and of the truth, by kinds: called, crystals, confirmed of them, true of these."""
    called = [said for said, total, _, _ in kinds for _ in range(total)]
    labels = [
        (place < true) if place < confirmed else None for _, total, confirmed, true in kinds for place in range(total)
    ]
    return called, labels


def test_the_estimate_is_that_of_prediction_powered_inference():
    called, labels = crystals((True, 600, 25, 15), (False, 1400, 25, 2))
    found = corrected_rate(called, labels, called)
    known = [(said, label) for said, label in zip(called, labels, strict=True) if label is not None]
    by_hand = np.mean(called) + sum(
        share * np.mean([label - said for said, label in known if said is kind])
        for kind, share in ((True, 0.3), (False, 0.7))
    )
    assert found.rate == pytest.approx(by_hand) == pytest.approx(0.3 * 0.6 + 0.7 * 0.08)
    assert found.raw == wilson(600, 2000)
    assert found.interval.low < found.rate < found.interval.high
    assert found.confirmed == 50


def test_all_confirmed_is_the_rate_of_the_labels():
    called, labels = crystals((True, 600, 600, 400), (False, 400, 400, 20))
    found = corrected_rate(called, labels)
    plain = wilson(420, 1000)
    assert found.rate == pytest.approx(0.42)
    assert found.interval.low == pytest.approx(plain.interval.low, abs=2e-3)
    assert found.interval.high == pytest.approx(plain.interval.high, abs=2e-3)


def test_strata_are_weighted_by_what_they_stand_for():
    # Nine in ten of the confirmed come from a stratum that holds a tenth of the crystals.
    called, labels = crystals((True, 100, 90, 0), (True, 900, 10, 10))
    strata = ["soft"] * 100 + ["hard"] * 900
    assert corrected_rate(called, labels, strata).rate == pytest.approx(0.9)
    assert corrected_rate(called, labels).rate == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        ([(True, 100, 5, 5), (False, 100, 4, 0)], "9 confirmed, 10 are needed"),
        ([(True, 100, 50, 40), (False, 100, 4, 0)], "too few confirmed of kinds that hold 100 of 200 crystals"),
        ([], "0 confirmed, 10 are needed"),
    ],
)
def test_too_few_confirmed_give_no_rate(kinds, why):
    found = corrected_rate(*crystals(*kinds))
    assert (found.rate, found.interval, found.why_not) == (None, None, why)


def test_few_that_are_open_widen_the_interval_by_all_they_hold():
    closed = corrected_rate(*crystals((True, 980, 50, 40), (False, 20, 20, 0)))
    opened = corrected_rate(*crystals((True, 980, 50, 40), (False, 20, 0, 0)))
    assert opened.rate == pytest.approx(closed.rate)
    assert opened.interval.high - closed.interval.high == pytest.approx(0.02, abs=2e-3)
    assert opened.interval.low == pytest.approx(closed.interval.low, abs=2e-3)


def test_crystals_outside_are_surely_not_so():
    called, labels = crystals((True, 500, 25, 20), (False, 500, 25, 0))
    inside, outside = corrected_rate(called, labels), corrected_rate(called, labels, outside=1000)
    assert outside.rate == pytest.approx(inside.rate / 2)
    assert outside.raw == wilson(500, 2000)
    width = inside.interval.high - inside.interval.low
    assert outside.interval.high - outside.interval.low == pytest.approx(width / 2, rel=0.1)


@pytest.mark.parametrize("by_label", [True, False])
def test_the_interval_holds_the_true_rate(by_label):
    """50 of 2,000 confirmed, for a potential that errs like SevenNet-0 (``benchmarks/corrected_rates.py`` has more)."""
    rng, total, repeats = np.random.default_rng(2), 2000, 1200
    called_share, right, missed = 0.55, 0.65, 0.1
    truth, held = called_share * right + (1 - called_share) * missed, 0
    for _ in range(repeats):
        number = rng.binomial(total, called_share)
        confirmed = 25 if by_label else rng.hypergeometric(number, total - number, 50)
        kinds = [(True, number, confirmed, rng.binomial(confirmed, right))]
        kinds += [(False, total - number, 50 - confirmed, rng.binomial(50 - confirmed, missed))]
        interval = corrected_rate(*crystals(*kinds)).interval
        held += interval.low <= truth <= interval.high
    assert 0.93 <= held / repeats <= 0.97
