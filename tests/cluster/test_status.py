"""How far a set is: every crystal is counted once, and the rate is that of the last hour."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from screened import blank, crystal_set
from typer.testing import CliRunner
from worker_processes import add_chunk, ready_launchpad, slow_crystals

from phononbench_flows.cli import app
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.status import set_statuses
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.outcomes import SCREENED, Reason, Status
from phononbench_flows.store import ResultsStore, mongo

NUMBERS = {
    (Status.PENDING, SCREENED, None, 0): 5,
    (Status.PENDING, "relaxation", None, 0): 2,
    (Status.PENDING, "relaxation", None, 1): 2,
    (Status.PENDING, "force_constants", None, 0): 1,
    (Status.STABLE, "spectrum", None, 0): 3,
    (Status.UNSTABLE, "spectrum", None, 0): 2,
    (Status.UNDECIDED, "spectrum", None, 0): 1,
    (Status.FAILED, "relaxation", Reason.NOT_CONVERGED, 0): 2,
    (Status.FAILED, SCREENED, Reason.KILLED_WORKER, 3): 1,
    (Status.REJECTED, "read", Reason.DISORDERED, 0): 4,
    (Status.DUPLICATE, SCREENED, None, 0): 1,
}


def document(
    i: int, status: Status, stage: str, reason: Reason | None, attempts: int, name: str
) -> CalculationDocument:
    found = blank(crystal_set(name), str(i))
    found.status, found.stage, found.reason, found.attempts = status, stage, reason, attempts
    return found


@pytest.fixture
def store(tmp_path):
    kinds = [kind for kind, n in NUMBERS.items() for _ in range(n)]
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        store.put(*(document(i, *kind, "toys") for i, kind in enumerate(kinds)))
        store.put(document(0, Status.STABLE, "spectrum", None, 0, "other"))
        yield store


def test_every_crystal_is_counted_once(store):
    other, toys = set_statuses(store)
    assert (other.set, toys.set) == ("other", "toys")
    assert (toys.waiting, toys.running) == (8, 2)
    assert toys.statuses == {"stable": 3, "unstable": 2, "undecided": 1, "failed": 3, "rejected": 4, "duplicate": 1}
    assert toys.reasons == {"not_converged": 2, "killed_worker": 1}
    assert toys.waiting + toys.running + sum(toys.statuses.values()) == sum(NUMBERS.values())
    assert (other.waiting, other.seconds_left, other.passed) == (0, 0.0, {})


def test_those_on_their_way_are_counted_by_the_last_step_that_they_have_passed(store):
    (toys,) = set_statuses(store, set_name="toys")
    assert toys.passed == {"relaxed": 4, "with force constants": 1}


def test_a_step_that_is_not_here_goes_by_its_name(store):
    for found in store.documents({"set": "toys"}):
        found.steps = [*found.steps, "no_such_package.steps:elastic"]
        if found.stage == "force_constants":
            found.stage = "elastic"
        store.put(found)
    (toys,) = set_statuses(store, set_name="toys")
    assert toys.passed == {"relaxed": 4, "elastic": 1}


def test_the_rate_is_that_of_the_last_hour_or_since_the_first(store, monkeypatch):
    now = datetime.now(UTC)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return now + timedelta(minutes=30)

    monkeypatch.setattr("phononbench_flows.cluster.status.datetime", Later)
    (toys,) = set_statuses(store, set_name="toys")
    assert toys.per_hour == pytest.approx(9 / 0.5, rel=0.01)
    assert toys.seconds_left == pytest.approx(10 / 18 * 3600, rel=0.01)
    now += timedelta(minutes=40)
    (toys,) = set_statuses(store, set_name="toys")
    assert (toys.per_hour, toys.seconds_left) == (None, None)


def test_the_command_for_people_and_for_programs(store):
    arguments = ["status", "--store", store.spec["path"], "--set", "toys"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for expected in (
        "toys",
        "3 stable",
        "1 undecided",
        "1 killed_worker",
        "4 rejected",
        "4 relaxed",
        "1 with force constants",
    ):
        assert expected in shown.output
    (found,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert (found["set"], found["waiting"], found["reasons"]["not_converged"]) == ("toys", 8, 2)
    assert found["passed"] == {"relaxed": 4, "with force constants": 1}


def test_a_set_that_is_not_there(store):
    result = CliRunner().invoke(app, ["status", "--store", store.spec["path"], "--set", "absent"])
    assert result.exit_code == 2
    assert "no set 'absent'" in result.output


def test_fireworks_of_the_set_by_state(mongo_uri, mongo_database, tmp_path):
    lp = ready_launchpad(mongo_database)
    write_launchpad(tmp_path / "my_launchpad.yaml", launchpad_settings(mongo_uri, mongo_database))
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        for name, n in (("toys", 2), ("others", 1)):
            for key in slow_crystals(store, n, name):
                add_chunk(lp, store, [key])
    arguments = ["status", "--store", f"mongo:{mongo_database}", "-l", str(tmp_path / "my_launchpad.yaml"), "--json"]
    others, toys = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (toys["fireworks"], toys["waiting"]) == ({"READY": 2}, 2)
    assert others["fireworks"] == {"READY": 1}


def test_all_sets_are_counted_by_one_command(mongo_database, monkeypatch):
    asked = []
    ask = mongo._ask
    monkeypatch.setattr(mongo, "_ask", lambda *which, **how: asked.append(which[:2]) or ask(*which, **how))
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        for name in ("one", "two", "three"):
            store.put(document(0, Status.PENDING, SCREENED, None, 0, name))
            store.put(document(1, Status.FAILED, SCREENED, Reason.EXCEPTION, 0, name))
        asked.clear()
        found = [(each.set, each.waiting, each.reasons) for each in set_statuses(store)]
    assert found == [(name, 1, {"exception": 1}) for name in ("one", "three", "two")]
    assert asked == [(mongo_database, "calculations")]
