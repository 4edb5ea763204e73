"""Rates against the closed formula, and funnels that add up."""

from __future__ import annotations

import math
import random

import pytest
from rich.console import Console
from scipy.stats import norm

from phononbench_flows.display import funnel_table, rate_text
from phononbench_flows.outcomes import Stage, Status
from phononbench_flows.statistics import Funnel, Interval, Rate, funnel, wilson


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


def test_rate_text():
    assert rate_text(Rate(1, 2, 0.5, Interval(0.094, 0.906))) == "50.0 % (9.4 to 90.6)"


def test_funnel_of_any_documents_adds_up():
    random.seed(2)
    for size in (0, 1, 7, 500):
        rows = [{"status": random.choice(list(Status)), "stage": random.choice(list(Stage))} for _ in range(size)]
        found = funnel(iter(rows))
        assert found.generated == size
        assert found.adds_up
        assert found.judged == found.stable + found.unstable
        failed_later = [
            r for r in rows if r["status"] == "failed" and r["stage"] in {"relaxed", "force_constants", "judged"}
        ]
        assert found.relaxed == found.judged + len(failed_later)
        assert found.stable_per_relaxed.total == found.relaxed
        assert found.stable_per_generated.total == size
        assert found.stable <= found.relaxed <= size


def test_funnel_counts_plain_strings():
    rows = [
        {"status": "stable", "stage": "judged"},
        {"status": "unstable", "stage": "judged"},
        {"status": "failed", "stage": "screened"},
        {"status": "failed", "stage": "relaxed"},
        {"status": "failed", "stage": "force_constants"},
        {"status": "rejected", "stage": "read"},
        {"status": "duplicate", "stage": "read"},
        {"status": "known", "stage": "read"},
        {"status": "pending", "stage": "relaxed"},
    ]
    found = funnel(rows)
    assert found == Funnel(
        generated=9,
        rejected=1,
        duplicate=1,
        known=1,
        failed=3,
        failed_relaxation=1,
        judged=2,
        stable=1,
        pending=1,
    )
    assert (found.relaxed, found.stable_per_relaxed.rate, found.stable_per_generated.rate) == (4, 1 / 4, 1 / 9)


@pytest.mark.parametrize("row", [{"status": "lost", "stage": "read"}, {"status": "failed", "stage": "lost"}])
def test_unknown_words_raise(row):
    with pytest.raises(ValueError, match="lost"):
        funnel([row])


def test_a_funnel_that_loses_a_crystal_does_not_add_up():
    fields = dict.fromkeys(("rejected", "duplicate", "known", "failed", "failed_relaxation", "stable", "pending"), 0)
    assert Funnel(generated=2, judged=2, **fields).adds_up
    assert not Funnel(generated=3, judged=2, **fields).adds_up


def text_of(found: Funnel, name: str) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(funnel_table(found, name))
    return capture.get()


def test_funnel_table_shows_all_and_takes_any_name():
    rows = [{"status": status, "stage": "judged"} for status in Status]
    shown = text_of(funnel(rows), "[red]set[/red] [/]")
    assert "[red]set[/red] [/]" in shown
    for word in ("generated", "rejected", "duplicate", "known", "failed", "judged", "stable", "unstable", "pending"):
        assert word in shown
    assert "14.3 %" in shown
    assert "none" in text_of(funnel([]), "empty")
