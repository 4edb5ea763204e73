"""Who is tried with whom, who is set aside, and when nothing new is begun."""

from __future__ import annotations

import math
import os
import signal
import time

import pytest
from screened import blank, crystal_set

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.trouble import DeviceError
from phononbench_flows.flows import sub_batches, time_limit
from phononbench_flows.flows.launched import Launch
from phononbench_flows.flows.sub_batches import (
    Admission,
    OutOfTimeError,
    by_suspicion,
    excuse,
    set_aside,
    work_through,
)
from phononbench_flows.outcomes import SCREENED, Reason, Status
from phononbench_flows.store import ResultsStore, Saver

PACE = ("relaxation", "protocol", "potential", "cpu")


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        yield store


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(time_limit, "_state", time_limit._State())
    monkeypatch.setattr(sub_batches, "_throughput", {})


def crystals(store: ResultsStore, attempts: list[int]) -> list[CalculationDocument]:
    documents = [blank(crystal_set(), str(i)) for i in range(len(attempts))]
    for document, n in zip(documents, attempts, strict=True):
        document.stage, document.attempts, document.nsites = SCREENED, n, 1
    store.put(*documents)
    return documents


def by_id(store: ResultsStore, crystal_id: str) -> CalculationDocument:
    (found,) = store.documents({"id": crystal_id})
    return found


def save(admission: Admission, store: ResultsStore, document: CalculationDocument, *, goes_on: bool) -> None:
    admission.passed(document, goes_on=goes_on)
    with Saver(store, admission.mine) as saver:
        saver.save(document, {})


class Engine:
    """Computes crystals one after another: each passes its step but those that kill the worker."""

    def __init__(self, store: ResultsStore, deadly: set[str] = frozenset(), sleep=lambda seconds: None) -> None:
        self.store, self.deadly, self.sleep = store, deadly, sleep
        self.begun: list[list[str]] = []

    def __call__(self, admission: Admission) -> None:
        for documents in admission:
            if documents:
                self.begun.append([d.id for d in documents])
            self.compute(documents, admission)

    def compute(self, documents: list[CalculationDocument], admission: Admission) -> None:
        for document in documents:
            assert self.store.get(document.key).attempts == document.attempts > 0
            if document.id in self.deadly:
                raise Killed
            self.sleep(1.0)
            document.stage = "relaxation"
            save(admission, self.store, document, goes_on=False)


class Killed(BaseException):
    """Stands for a killed worker: nothing is written after it."""


def run(documents, store, engine) -> bool:
    return work_through(documents, store, engine, cost=lambda d: 1.0, pace=PACE)


def killed_run(store: ResultsStore, engine: Engine, monkeypatch) -> None:
    """One worker from its start to its end or its death."""
    waiting = set_aside(list(store.documents({"status": "pending", "stage": "screened"}, sort={"key": 1})), store)
    with monkeypatch.context() as patched:
        # A killed worker takes no mark back.
        for name in ("put", "set_fields"):
            write = getattr(store, name)
            patched.setattr(engine.store, name, lambda *given, write=write: None if dead else write(*given))
        dead = []

        def compute(admission):
            try:
                engine(admission)
            except Killed:
                dead.append(True)
                raise

        try:
            run(waiting, store, compute)
        except Killed:
            return


def test_all_fresh_crystals_come_together_and_marks_go_with_the_stage(store):
    documents = crystals(store, [0] * 5)
    engine = Engine(store)
    assert run(documents, store, engine)
    assert [len(p) for p in engine.begun] == [5]
    assert {d.attempts for d in store.documents()} == {0}


def test_those_that_were_there_at_a_kill_come_later_and_alone():
    documents = [CalculationDocument.model_construct(id=str(i), attempts=n) for i, n in enumerate([2, 1, 0, 1, 0])]
    assert [[d.id for d in sub_batch] for sub_batch in by_suspicion(documents)] == [["2", "4"], ["1"], ["3"], ["0"]]
    assert list(by_suspicion([])) == []


def test_crystals_whose_workers_were_killed_unseen_stay_together_at_first_and_are_halved_then():
    made = CalculationDocument.model_construct
    documents = [made(id=str(i), attempts=n, excused=n) for i, n in enumerate([0, 2, 3, 3, 3, 4, 4, 9])]
    groups = [[d.id for d in sub_batch] for sub_batch in by_suspicion(documents)]
    assert groups == [["0", "1"], ["2", "3", "4"], ["5", "6"], ["7"]]
    documents.append(made(id="seen", attempts=3, excused=2))
    assert list(by_suspicion(documents))[-1] == [documents[-1]]


def test_only_after_sixteen_unseen_ends_is_a_crystal_set_aside(store):
    documents = crystals(store, [15, 16, 4])
    for document in documents[:2]:
        document.excused = document.attempts
    assert [d.id for d in set_aside(documents, store)] == ["toys-0"]
    assert by_id(store, "toys-1").detail.startswith("16 workers were killed")
    assert by_id(store, "toys-2").detail.startswith("3 workers ended")


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize(("forgotten", "left"), [(True, (2, 1)), (False, (3, 2))])
def test_an_end_that_somebody_made_is_held_against_no_crystal_of_that_launch(
    watched, forgotten, left, store, monkeypatch
):
    """Of crystals that were there at two ends, one of them excused."""
    documents = crystals(store, [2] * 3)
    for document in documents:
        document.excused = 1
    store.put(*documents)
    monkeypatch.setattr(sub_batches.witness, "is_watching", lambda: watched)
    for launch_id, begun in ((17, documents[:2]), (1, documents[2:])):
        monkeypatch.setattr(sub_batches, "current_launch", lambda launch_id=launch_id: Launch(3, launch_id))
        assert list(Admission(begun, store, lambda d: 1.0, PACE))
    for _ in range(2):
        excuse(store, [document.key for document in documents[1:]], 17, forgotten=forgotten)
    found = [(d.attempts, d.excused) for d in store.documents(sort={"key": 1})]
    assert found == [(3, 1 + watched), left, (3, 1 + watched)]


def test_a_deadly_crystal_is_set_aside_once_it_killed_three_alone_and_its_neighbours_come_through(store, monkeypatch):
    crystals(store, [0] * 12)
    engine = Engine(store, deadly={"toys-5"})
    for _ in range(4):
        killed_run(store, engine, monkeypatch)
        assert by_id(store, "toys-5").status == Status.PENDING
    killed_run(store, engine, monkeypatch)
    culprit = by_id(store, "toys-5")
    assert (culprit.status, culprit.reason, culprit.stage) == (Status.FAILED, Reason.KILLED_WORKER, SCREENED)
    assert "3 workers" in culprit.detail
    assert engine.begun.count(["toys-5"]) == 3
    others = list(store.documents({"id": {"$ne": "toys-5"}}))
    assert {(d.stage, d.status, d.attempts) for d in others} == {("relaxation", Status.PENDING, 0)}
    assert len(others) == 11


def test_an_error_of_the_device_is_laid_to_nobody_until_one_is_alone_with_it_time_and_again(store):
    crystals(store, [0] * 5)
    engine = Engine(store)
    tried = []

    def device(admission):
        for documents in admission:
            tried.append([d.id for d in documents])
            if "toys-2" in tried[-1]:
                raise DeviceError("an illegal memory access")
            engine.compute(documents, admission)

    processes = 0
    while waiting := set_aside(
        list(store.documents({"status": "pending", "stage": "screened"}, sort={"key": 1})), store
    ):
        processes += 1
        with pytest.raises(DeviceError):
            run(waiting, store, device)
        assert {d.attempts for d in store.documents()} == {0}
    everybody = [f"toys-{i}" for i in range(5)]
    # Twice together, then alone: those before it end, it meets the error, and those after it end in the next process.
    assert tried[:2] == [everybody, everybody]
    assert all(len(sub_batch) == 1 for sub_batch in tried[2:])
    assert tried.count(["toys-2"]) == 3
    assert processes == 5
    culprit = by_id(store, "toys-2")
    assert (culprit.status, culprit.reason) == (Status.FAILED, Reason.KILLED_WORKER)
    assert store.count({"stage": "relaxation", "status": "pending"}) == 4


def test_an_error_that_the_worker_outlives_counts_for_nothing(store):
    documents = crystals(store, [0, 0, 1])

    def failing(admission):
        (first, second) = next(iter(admission))
        first.stage = "relaxation"
        save(admission, store, first, goes_on=False)
        second.stage = "relaxation"  # and cannot be written
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        run(documents, store, failing)
    found = [(d.stage, d.attempts) for d in store.documents(sort={"key": 1})]
    assert found == [("relaxation", 0), ("screened", 0), ("screened", 1)]


def test_while_a_crystal_goes_on_it_stays_marked(store):
    documents = crystals(store, [2])

    def killed(admission):
        (document,) = next(iter(admission))
        assert by_id(store, "toys-0").attempts == 3
        document.stage = "relaxation"
        save(admission, store, document, goes_on=True)
        assert [(d.stage, d.attempts) for d in store.documents()] == [("relaxation", 1)]
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        run(documents, store, killed)
    assert by_id(store, "toys-0").attempts == 0


def test_what_another_worker_ends_while_it_is_under_way_here_stands(store):
    documents = crystals(store, [0])

    def overtaken(admission):
        (document,) = next(iter(admission))
        other = by_id(store, "toys-0")
        other.stage, other.status = "spectrum", Status.STABLE
        store.put(other)
        document.stage = "relaxation"
        save(admission, store, document, goes_on=True)
        save(admission, store, document, goes_on=False)

    assert run(documents, store, overtaken)
    assert [(d.stage, d.status) for d in store.documents()] == [("spectrum", "stable")]


def test_what_another_worker_has_done_meanwhile_is_left_as_it_is(store):
    stale = crystals(store, [0, 0, 0])
    for document in store.documents({"id": {"$in": ["toys-0", "toys-1"]}}):
        document.stage, document.status = "spectrum", Status.STABLE
        store.put(document)
    engine = Engine(store)
    assert run(stale, store, engine)
    assert engine.begun == [["toys-2"]]
    assert [d.stage for d in store.documents(sort={"key": 1})] == ["spectrum", "spectrum", "relaxation"]


def test_near_the_end_of_the_slurm_job_nothing_is_begun(store, monkeypatch):
    documents = crystals(store, [0] * 3)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + time_limit.MARGIN_SECONDS - 1)))
    engine = Engine(store)
    with pytest.raises(OutOfTimeError, match="run it again"):
        run(documents, store, engine)
    assert engine.begun == []
    assert {d.attempts for d in store.documents()} == {0}
    assert run([], store, engine), "where nothing waits, nothing is left over"


class Clock:
    """Stands for the module ``time``; goes on only while something sleeps."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_the_rest_is_left_when_time_runs_out_on_the_way(store, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(sub_batches, "time", clock)
    monkeypatch.setattr(time_limit, "time", clock)
    documents = crystals(store, [0] * 30)
    time_limit.begin_nothing_after(20.0)
    engine = Engine(store, sleep=clock.sleep)
    assert not run(documents, store, engine)
    # Four to see how long one takes, then always half of what the time left allows.
    assert [len(begun) for begun in engine.begun] == [4, 8, 4, 2, 1, 1]
    assert clock.now == 1e9 + 20.0
    assert store.count({"stage": "relaxation"}) == 20
    assert store.count({"attempts": {"$gt": 0}}) == 0


def test_a_crystal_longer_than_the_time_left_is_not_begun(store):
    time_limit.begin_nothing_after(10.0)
    sub_batches._throughput[PACE] = 1 / 11.0
    with pytest.raises(OutOfTimeError):
        run(crystals(store, [0]), store, Engine(store))


def test_the_throughput_of_another_step_protocol_potential_or_device_says_nothing(store):
    time_limit.begin_nothing_after(10.0)
    for place in range(len(PACE)):
        other = (*PACE[:place], "another", *PACE[place + 1 :])
        sub_batches._throughput[other] = 1 / 11.0
    engine = Engine(store)
    assert run(crystals(store, [0] * 5), store, engine)
    assert [len(sub_batch) for sub_batch in engine.begun] == [4, 1]
    assert set(sub_batches._throughput) > {PACE}


def test_without_a_limit_there_is_all_the_time(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert time_limit.seconds_left() == math.inf


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    time_limit.stop_on_signals()
    yield
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_a_portion_is_ended_and_none_begun(number, store, signals):
    documents = crystals(store, [0, 0, 1, 1])
    engine = Engine(store)

    def told(admission):
        for documents in admission:
            os.kill(os.getpid(), number)
            engine.begun.append([d.id for d in documents])
            engine.compute(documents, admission)

    assert not run(documents, store, told)
    assert engine.begun == [["toys-0", "toys-1"]]
    assert [d.attempts for d in store.documents(sort={"key": 1})] == [0, 0, 1, 1]


def test_after_the_grace_a_portion_is_left_without_a_mark(store, signals, monkeypatch):
    monkeypatch.setattr(time_limit, "GRACE_SECONDS", 1)
    documents = crystals(store, [0, 0])

    def endless(admission):
        (first, _) = next(iter(admission))
        first.stage = "relaxation"
        save(admission, store, first, goes_on=False)
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.01)

    assert not run(documents, store, endless)
    assert [(d.stage, d.attempts) for d in store.documents(sort={"key": 1})] == [("relaxation", 0), ("screened", 0)]
