"""Crystals are counted by all that is told of them: the sums are right, and no document is read for them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from made_documents import make

from phononbench_flows.stability import PATH_MINIMUM, Evidence, Look
from phononbench_flows.store import ResultsStore, StoreError
from phononbench_flows.store.counts import FIELDS, pipeline

OLDEST = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["embedded", "mongo"])
def store(request, tmp_path):
    spec = tmp_path / "made" if request.param == "embedded" else f"mongo:{request.getfixturevalue('mongo_database')}"
    with ResultsStore.open(spec, create=True) as opened:
        opened.put(*map(made, range(40)))
        yield opened


def made(number: int):
    document = make(number)
    document.attempts = number % 3
    if number % 5:
        looks = {"path": Look(frequency=-0.5 if number % 2 else 0.0, q=[0.0, 0.0, 0.0], n_q=1, exact=False)}
        document.evidence = Evidence(looks=looks)
    else:
        document.evidence = Evidence()
    return document


def by_hand(store: ResultsStore, criteria: dict[str, Any]) -> Counter:
    found: Counter = Counter()
    for each in store.documents(criteria):
        look = each.evidence.looks.get("path")
        alike = (each.set, each.protocol_id, each.status, each.stage, each.reason, each.attempts > 0)
        found[*alike, None if look is None else look.frequency >= -1e-3] += 1
    return found


@pytest.mark.parametrize("criteria", [{}, {"set": "left"}, {"set": "left", "protocol_id": "p"}, {"set": "nobody"}])
def test_each_is_counted_once(store, criteria):
    found: Counter = Counter()
    for each in store.counts(criteria):
        found[each.set, each.protocol_id, each.status, each.stage, each.reason, each.begun, each.above] += each.number
        assert (each.recent, each.first) == (0, None)
    assert found == by_hand(store, criteria)
    assert bool(found) == (criteria.get("set") != "nobody")


def test_what_was_written_since(store):
    now = datetime.now(UTC)
    assert sum(each.recent for each in store.counts({}, since=OLDEST)) == 40
    assert not any(each.recent for each in store.counts({}, since=now + timedelta(hours=1)))
    times = {each["updated_at"] for each in store.query()}
    assert {each.first for each in store.counts({}, since=OLDEST)} == times  # written at once
    late = next(store.documents({"set": "left"}))
    store.put(late)
    recent = [each for each in store.counts({}, since=late.updated_at) if each.recent]
    assert [(each.set, each.recent, datetime.fromisoformat(each.first)) for each in recent] == [
        ("left", 1, late.updated_at)
    ]


def test_documents_of_before_have_less(store):
    plain = make(1).model_dump(mode="json")
    for name in ("reason", "attempts", "evidence"):
        del plain[name]
    store._calculations.update([plain | {"set": "older"}])
    (count,) = store.counts({"set": "older"})
    assert (count.reason, count.begun, count.above, count.number) == (None, False, None, 1)


def test_an_index_has_all_that_is_asked_for():
    def fields(value: Any) -> set[str]:
        if isinstance(value, str):
            return {value[1:]} if value.startswith("$") else set()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return set().union(*map(fields, inner))

    match, group = pipeline({"protocol_id": "p"}, "2000")
    assert set(match["$match"]) | fields(group) == set(FIELDS)
    assert PATH_MINIMUM in FIELDS


def test_only_what_an_index_has_is_counted(tmp_path):
    with ResultsStore.open(tmp_path, create=True) as store, pytest.raises(StoreError, match="No index"):
        store.counts({"nsites": 1})


def test_a_directory_of_before_gets_the_index(tmp_path):
    with ResultsStore.open(tmp_path, create=True) as store:
        store.put(*map(made, range(40)))
        before = store.counts({})
        connection = store._calculations._connection()
        connection.execute("DROP INDEX by_counted")
        connection.execute('CREATE INDEX by_set ON documents ("set", "protocol_id", "status", "stage")')
        assert sorted(store.counts({}), key=str) == sorted(before, key=str)
        store.create_indexes()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert "by_counted" in names
        assert "by_set" not in names
        assert store.counts({}) == before
