"""The card of a set: what counts as a hit, out of what, and where there is no number."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_documents import crystal_of
from made_sets import crystal, judged
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import SetDocument
from phononbench_flows.statistics import corrected_rate
from phononbench_flows.statistics.card import Facts, card
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.cards import cards_table, read_cards
from phononbench_flows.tables.rows import read_crystals

HIT = Facts(
    usable=True,
    tried=True,
    relaxed=True,
    unique=True,
    novel=True,
    has_hull=True,
    above_hull=0.05,
    clean=False,
    stable=True,
    seconds=10.0,
)
FAILED = replace(HIT, relaxed=False, novel=None, above_hull=None, clean=None, stable=False)


def rate(found, name: str) -> tuple[int, int]:
    line = found.lines[name]
    assert line.note is None
    return line.rate.count, line.rate.total


def test_a_hit_has_to_be_all_of_it():
    facts = [
        HIT,
        replace(HIT, above_hull=0.1001),
        replace(HIT, unique=False),
        replace(HIT, novel=False),
        replace(HIT, stable=False),
        FAILED,
    ]
    found = card(facts, verdict="x")
    assert rate(found, "sun") == (2, 6)
    assert rate(found, "dsun") == (1, 6)
    assert rate(found, "dsun_by_rule") == (0, 6)
    assert rate(found, "survived") == (5, 6)
    assert rate(found, "near_hull") == (4, 5)
    assert rate(found, "on_hull") == (0, 5)
    assert rate(found, "novel") == (3, 4)  # the failed one was not compared, the repeated one counts once


def test_crystals_of_systems_without_a_hull_are_neither_hits_nor_misses():
    without = replace(HIT, has_hull=False, above_hull=None)
    found = card([HIT, without, replace(FAILED, has_hull=False)], verdict="x")
    assert rate(found, "dsun") == (1, 1)
    assert found.no_hull == 1
    assert rate(found, "near_hull") == (1, 1)


def test_what_could_not_be_read_or_was_not_handed_in_is_no_hit():
    unreadable = replace(FAILED, usable=False, tried=False, unique=False, has_hull=None)
    found = card([HIT, unreadable], not_handed_in=2, verdict="x")
    assert rate(found, "dsun") == (1, 4)
    assert rate(found, "usable") == (1, 4)
    assert rate(found, "survived") == (1, 1)


def test_without_a_hull_or_a_reference_there_is_no_number():
    no_hull = card([replace(HIT, has_hull=False, above_hull=None)], verdict="x")
    assert {name for name, line in no_hull.lines.items() if line.note == "no hull"} == {
        "on_hull",
        "near_hull",
        "sun",
        "dsun",
        "dsun_by_rule",
    }
    assert len(no_hull.costs) == 1
    no_reference = card([replace(HIT, novel=None)], verdict="x")
    assert no_reference.lines["novel"].note == no_reference.lines["dsun"].note == "no reference set"
    assert no_reference.lines["by_dft"].note == "none confirmed"


def test_a_hit_costs_the_time_of_all():
    found = card([HIT, *[replace(HIT, stable=False)] * 3], verdict="x")
    stable, dsun = found.costs
    assert (stable.seconds, stable.hits, stable.each) == (40.0, 1, 40.0)
    assert dsun.each == 40.0
    interval = found.lines["dsun"].rate.interval
    assert (dsun.low, dsun.high) == pytest.approx((10 / interval.high, 10 / interval.low))
    nothing = card([replace(HIT, stable=False)], verdict="x").costs[0]
    assert (nothing.each, nothing.high) == (None, None)
    assert nothing.low > 10


def test_the_corrected_rate_takes_its_place():
    stable = [HIT] * 30 + [replace(HIT, stable=False)] * 30
    labels = [True] * 12 + [None] * 18 + [False] * 12 + [None] * 18
    found = card(stable, verdict="x", corrected=corrected_rate([each.stable for each in stable], labels))
    line = found.lines["by_dft"]
    assert line.note is None
    assert (line.rate.count, line.rate.total, line.rate.rate) == (24, 60, pytest.approx(0.5))
    too_few = card(stable, verdict="x", corrected=corrected_rate([True] * 60, [True] + [None] * 59))
    assert too_few.lines["by_dft"].note == "1 confirmed, 10 are needed"


def over(energy: float | None, known_as: str | None = None, missing: tuple[str, ...] = ()) -> dict:
    hull = {"energy_above_hull": energy, "missing": list(missing), "known_as": known_as, "reference": "mp.csv"}
    hull |= {"n_compounds": int(known_as is not None)}
    return {"results": {"hull": hull}}


@pytest.fixture
def folder(tmp_path):
    documents = [
        judged(0.0, **over(0.02)),
        judged(0.0, **over(0.02, known_as="mp-1")),
        judged(-1.0, **over(-0.3)),
        judged(0.0, **over(None, missing=("O",))),
        crystal("duplicate", **over(None)),
        crystal("failed", reason="not_converged", **over(None)),
        crystal("rejected", reason="unparsable", elements=[]),
        crystal("pending"),
    ]
    with ResultsStore.open(tmp_path / "store", create=True) as store:
        store.put_crystals(*map(crystal_of, documents))
        store.put(*documents)
        store.put_set(SetDocument(set="A", model="M-Net"))
    return tmp_path / "store"


def test_documents_become_a_card(folder):
    with ResultsStore.open(folder) as store:
        [found] = read_cards(store, read_crystals(store))
    assert rate(found.card, "dsun") == (1, 6)  # out of all but the pending one and the one without a hull
    assert rate(found.card, "sun") == (2, 6)
    assert rate(found.card, "by_rule") == rate(found.card, "by_verdict") == (3, 4)
    assert (found.card.pending, found.card.no_hull, found.reference) == (1, 1, "mp.csv")
    assert found.card.bare_hull == 2
    row = cards_table([found]).iloc[0]
    assert row["share_dsun"] == pytest.approx(1 / 6)
    assert row["share_dsun_low"] < 1 / 6 < row["share_dsun_high"]


def test_the_command_shows_cards(folder):
    shown = CliRunner().invoke(app, ["card", str(folder)])
    assert shown.exit_code == 0, shown.output
    assert "mp.csv" in shown.output
    plain = json.loads(CliRunner().invoke(app, ["card", str(folder), "--json", "--near-hull", "0.01"]).stdout)
    lines = {line["name"]: line for line in plain["lines"]}
    assert (lines["dsun"]["count"], lines["dsun"]["total"]) == (0, 6)
    assert plain["tolerances"]["near_hull_ev_per_atom"] == 0.01
    assert (lines["by_dft"]["rate"], lines["by_dft"]["note"]) == (None, "none confirmed")
