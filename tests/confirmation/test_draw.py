"""Draws: the same whenever they are made, within strata, and every crystal in one of them."""

from __future__ import annotations

from collections import Counter

import pytest
from made_sets import crystal, judged

from phononbench_flows.confirmation.draw import ConfirmationError, allocate, draw, strata_by, stratum_of
from phononbench_flows.results.query import QueryError
from phononbench_flows.store import ResultsStore

MINE = {"set": "A", "protocol_id": "p"}


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path, create=True) as store:
        stable = [judged(0.01 * place, nsites=1 + place % 3) for place in range(30)]
        unstable = [judged(-0.1 * (1 + place), nsites=1 + place % 3) for place in range(12)]
        store.put(*stable, *unstable, crystal("rejected"), crystal("pending"), judged(0.0, "B"))
        yield store


def test_more_are_drawn_beside_those_of_before(store):
    strata = strata_by(store, MINE, ["verdict"])
    few, same, many = (draw(store, MINE, strata, number, 7, None) for number in (12, 12, 20))
    assert few == same
    assert few.keys() < many.keys()
    assert draw(store, MINE, strata, 12, 8, None).keys() != few.keys()
    assert len(draw(store, MINE, strata, 1000, 7, None)) == 42
    assert Counter(how.stratum for how in few.values()) == {"stable": 7, "unstable": 5}


@pytest.mark.parametrize("by", [["verdict"], ["margin"], ['{"nsites": 1}', '{"nsites": {"$lte": 2}}']])
def test_each_crystal_is_in_the_stratum_that_it_was_drawn_from(store, by):
    drawn = draw(store, MINE, strata_by(store, MINE, by), 30, 0, None)
    how = next(iter(drawn.values()))
    strata = stratum_of(store, MINE, how)
    assert all(strata[key.partition("@")[0]] == each.stratum for key, each in drawn.items())
    judged_ones = {row["id"] for row in store.query({**MINE, "status": {"$in": ["stable", "unstable"]}}, ["id"])}
    assert judged_ones <= strata.keys()


def test_what_a_filter_leaves_out_is_in_no_stratum(store):
    drawn = draw(store, MINE, strata_by(store, MINE, ["verdict"]), 10, 0, {"nsites": 1})
    strata = stratum_of(store, MINE, next(iter(drawn.values())))
    assert len(strata) == 10 + 4
    assert all(document.nsites == 1 for document in store.documents({"key": {"$in": list(drawn)}}))


def test_margins_are_halves(store):
    drawn = draw(store, MINE, strata_by(store, MINE, ["margin"]), 1000, 0, None)
    assert sorted(Counter(how.stratum for how in drawn.values()).values()) == [6, 6, 15, 15]


def test_small_strata_get_five_and_the_rest_goes_by_roots():
    assert allocate({"a": 1900, "b": 90, "c": 10}, 50) == {"a": 37, "b": 8, "c": 5}
    assert allocate({"a": 3, "b": 100}, 20) == {"a": 3, "b": 17}
    assert allocate({"a": 3, "b": 4}, 20) == {"a": 3, "b": 4}


def test_bad_questions(store):
    with pytest.raises(ConfirmationError, match="one of the three"):
        strata_by(store, MINE, ["verdict", '{"nsites": 1}'])
    with pytest.raises(QueryError, match="no JSON"):
        strata_by(store, MINE, ["nonsense"])
    with pytest.raises(ConfirmationError, match="nothing to confirm"):
        draw(store, {"set": "C"}, strata_by(store, MINE, ["verdict"]), 5, 0, None)
