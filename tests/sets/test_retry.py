"""Failed crystals are put back in line by their reasons, and nothing else is."""

from __future__ import annotations

import pytest
from screened import blank, crystal_set

from phononbench_flows.outcomes import SCREENED, Reason, Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.retry import RetryError, checked_reasons, retry
from phononbench_flows.store import ResultsStore

TOYS = crystal_set()
KINDS = [
    (Status.FAILED, Reason.EXCEPTION),
    (Status.FAILED, Reason.NOT_CONVERGED),
    (Status.FAILED, Reason.KILLED_WORKER),
    (Status.PENDING, None),
    (Status.STABLE, None),
    (Status.UNDECIDED, None),
    (Status.REJECTED, Reason.DISORDERED),
]


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        yield store


def put(store: ResultsStore, crystals, n: int = 1) -> list[str]:
    """So many crystals of each kind; gives their keys."""
    documents = []
    for number, (status, reason) in enumerate(KINDS * n):
        document = blank(crystals, str(number))
        document.status, document.reason, document.stage = status, reason, "relaxation"
        document.detail, document.attempts = ("why", 4) if reason else (None, 0)
        documents.append(document)
    store.put(*documents)
    return [document.key for document in documents]


def everything(store: ResultsStore) -> dict[str, tuple]:
    return {d.key: (d.status, d.reason, d.detail, d.attempts, d.stage) for d in store.documents()}


@pytest.mark.parametrize(
    ("reasons", "again"),
    [
        (["exception"], {Reason.EXCEPTION}),
        (["exception", "not_converged"], {Reason.EXCEPTION, Reason.NOT_CONVERGED}),
        (["all-failed"], {Reason.EXCEPTION, Reason.NOT_CONVERGED, Reason.KILLED_WORKER}),
        (["not_finite"], set()),
        (["disordered"], set()),
    ],
)
def test_those_of_these_reasons_wait_again_where_they_were(store, reasons, again):
    keys = put(store, TOYS)
    before = everything(store)
    assert retry(store, TOYS, keys, reasons) == len(again)
    for key, (status, reason, *rest) in before.items():
        kept = (status, reason, *rest)
        wait = status == Status.FAILED and reason in again
        assert everything(store)[key] == (("pending", None, None, 0, "relaxation") if wait else kept)


def test_other_sets_protocols_and_crystals_are_left_alone(store):
    others = [crystal_set("others"), crystal_set("toys", PRESETS["paper"].model_copy(update={"spectrum": _coarse()}))]
    for other in others:
        put(store, other)
    left = everything(store)
    first, *rest = put(store, TOYS)
    assert retry(store, TOYS, [first], ["all-failed"]) == 1
    found = everything(store)
    assert found[first][0] == "pending"
    assert {key: found[key] for key in left} == left
    assert [found[key][0] for key in rest[:2]] == ["failed", "failed"]


def _coarse():
    return PRESETS["paper"].spectrum.model_copy(update={"path_points": 5})


def test_a_large_set_is_put_back_whole(store):
    keys = put(store, TOYS, 300)
    assert retry(store, TOYS, keys, ["all-failed"]) == 900
    assert store.count({"status": "failed"}) == 0
    assert store.count({"status": "pending"}) == 1200
    assert retry(store, TOYS, keys, ["all-failed"]) == 0


def test_reasons_that_there_are_not():
    assert checked_reasons([*Reason, "all-failed"]) == [*Reason, "all-failed"]
    for wrong in ("bad_luck", "ALL-FAILED", SCREENED, ""):
        with pytest.raises(
            RetryError, match=f"there is no reason '{wrong}' to retry; there are all-failed, .*exception"
        ):
            checked_reasons(["exception", wrong])
