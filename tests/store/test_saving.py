"""Finished crystals are written behind the back of who computes them: together, conditionally, never lost silently."""

from __future__ import annotations

import time

import numpy as np
import pytest
from made_documents import make

from phononbench_flows.store import ResultsStore, Saver, StoreError, saving
from phononbench_flows.store.mongo import GridFSBlobs

WAITING = {"status": "pending", "stage": "screened"}


@pytest.fixture(params=["embedded", "server"])
def store(request, tmp_path):
    where = tmp_path if request.param == "embedded" else f"mongo:{request.getfixturevalue('mongo_database')}"
    with ResultsStore.open(where, create=True) as store:
        yield store


def waiting(store: ResultsStore, number: int) -> list:
    documents = [make(place, status="pending", stage="screened") for place in range(number)]
    store.put(*documents)
    return documents


def test_all_are_there_with_their_arrays_when_the_block_has_ended(store):
    documents = waiting(store, 5)
    with Saver(store, WAITING) as saver:
        for place, document in enumerate(documents):
            document.stage = "relaxation"
            saver.save(document, {"forces": {"f": np.full(3, place)}})
    found = list(store.documents(sort={"id": 1}))
    assert [d.model_copy(update={"updated_at": None}) for d in found] == [
        d.model_copy(update={"updated_at": None}) for d in documents
    ]
    assert [store.blobs.get(d.arrays["forces"])["f"][0] for d in found] == list(range(5))
    read = store.blobs.get_many([d.arrays["forces"] for d in found])
    assert [read(d.arrays["forces"])["f"][0] for d in reversed(found)] == [4, 3, 2, 1, 0]


def test_what_another_has_brought_further_stays(store, caplog):
    mine, other = waiting(store, 2)
    ahead = mine.model_copy(update={"stage": "spectrum"})
    store.put(ahead)
    with Saver(store, WAITING) as saver:
        for document in (mine, other):
            document.stage = "relaxation"
            saver.save(document, {})
    assert {d.key: d.stage for d in store.documents()} == {mine.key: "spectrum", other.key: "relaxation"}
    assert f"{mine.key} was computed by another worker" in caplog.text
    assert other.key not in caplog.text


def test_a_crystal_that_is_gone_is_not_brought_back(store):
    (document,) = waiting(store, 1)
    assert store.put_if(WAITING, document.model_copy(update={"id": "x", "key": "x@p"})) == ["x@p"]
    assert store.count() == 1


def test_those_of_before_an_error_are_written(store):
    first, second = waiting(store, 2)

    def compute(saver: Saver) -> None:
        first.stage = "relaxation"
        saver.save(first, {})
        raise ValueError("the engine broke")

    with pytest.raises(ValueError, match="engine"), Saver(store, WAITING) as saver:
        compute(saver)
    assert {d.key: d.stage for d in store.documents()} == {first.key: "relaxation", second.key: "screened"}


def test_what_cannot_be_stored_is_said(store):
    (document,) = waiting(store, 1)
    document.stage, document.timings = "relaxation", {"relaxation": float("nan")}
    with pytest.raises(StoreError, match="NaN"), Saver(store, WAITING) as saver:
        saver.save(document, {})
    assert next(store.documents()).stage == "screened"


def test_the_first_is_written_at_once_and_those_that_come_fast_together(mongo_database, monkeypatch):
    lots = []
    write = GridFSBlobs.put_all
    monkeypatch.setattr(GridFSBlobs, "put_all", lambda self, blobs: (lots.append(len(blobs)), write(self, blobs)))
    monkeypatch.setattr(saving, "PACE_SECONDS", 2.0)
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        documents = waiting(store, 4)
        for place, document in enumerate(documents):
            document.stage = "relaxation"
            document.timings = {"relaxation": float(place)}
        with Saver(store, WAITING) as saver:
            saver.save(documents[0], {"forces": {"f": np.full(3, 0)}})
            assert store.count({"stage": "relaxation"}) == 1
            for place in (1, 2):
                saver.save(documents[place], {"forces": {"f": np.full(3, place)}})
            wait_until(lambda: store.count({"stage": "relaxation"}) == 3)  # though none follows
            saver.save(documents[3], {"forces": {"f": np.full(3, 3)}})
    assert lots == [1, 2, 1]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
