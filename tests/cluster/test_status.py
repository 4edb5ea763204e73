"""How far a set is: every crystal is counted once, and the rate is that of the last hour."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner
from worker_processes import add_chunk, ready_launchpad, slow_crystals

from phononbench_flows.cli import app
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.status import set_statuses
from phononbench_flows.documents import CrystalDocument, PotentialRecord
from phononbench_flows.outcomes import Reason, Stage, Status
from phononbench_flows.store import ResultsStore

NUMBERS = {
    (Status.PENDING, None, 0): 5,
    (Status.PENDING, None, 1): 2,
    (Status.STABLE, None, 0): 3,
    (Status.UNSTABLE, None, 0): 2,
    (Status.FAILED, Reason.NOT_CONVERGED, 0): 2,
    (Status.FAILED, Reason.KILLED_WORKER, 3): 1,
    (Status.REJECTED, Reason.DISORDERED, 0): 4,
    (Status.DUPLICATE, None, 0): 1,
}


def document(i: int, status: Status, reason: Reason | None, attempts: int, name: str) -> CrystalDocument:
    return CrystalDocument(
        key=f"{name}-{i}@p",
        id=f"{name}-{i}",
        set=name,
        source=f"{i}.cif",
        source_sha256=None,
        protocol_id="p",
        protocol_name="paper",
        potential=PotentialRecord(name="toy", checkpoint_sha256="0" * 64),
        stage=Stage.SCREENED,
        status=status,
        reason=reason,
        attempts=attempts,
    )


@pytest.fixture
def store(tmp_path):
    kinds = [kind for kind, n in NUMBERS.items() for _ in range(n)]
    with ResultsStore.open(tmp_path / "results") as store:
        store.put(*(document(i, *kind, "toys") for i, kind in enumerate(kinds)))
        store.put(document(0, Status.STABLE, None, 0, "other"))
        yield store


def test_every_crystal_is_counted_once(store):
    other, toys = set_statuses(store)
    assert (other.set, toys.set) == ("other", "toys")
    assert (toys.waiting, toys.running) == (5, 2)
    assert toys.statuses == {"stable": 3, "unstable": 2, "failed": 3, "rejected": 4, "duplicate": 1}
    assert toys.reasons == {"not_converged": 2, "killed_worker": 1}
    assert toys.waiting + toys.running + sum(toys.statuses.values()) == sum(NUMBERS.values())
    assert (other.waiting, other.seconds_left) == (0, 0.0)


def test_the_rate_is_that_of_the_last_hour_or_since_the_first(store, monkeypatch):
    now = datetime.now(UTC)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return now + timedelta(minutes=30)

    monkeypatch.setattr("phononbench_flows.cluster.status.datetime", Later)
    (toys,) = set_statuses(store, set_name="toys")
    assert toys.per_hour == pytest.approx(8 / 0.5, rel=0.01)
    assert toys.seconds_left == pytest.approx(7 / 16 * 3600, rel=0.01)
    now += timedelta(minutes=40)
    (toys,) = set_statuses(store, set_name="toys")
    assert (toys.per_hour, toys.seconds_left) == (None, None)


def test_the_command_for_people_and_for_programs(store):
    arguments = ["status", "--store", store.spec["path"], "--set", "toys"]
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for expected in ("toys", "3 stable", "1 killed_worker", "4 rejected"):
        assert expected in shown.output
    (found,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert (found["set"], found["waiting"], found["reasons"]["not_converged"]) == ("toys", 5, 2)


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
    others, toys = json.loads(CliRunner().invoke(app, arguments).output)
    assert (toys["fireworks"], toys["waiting"]) == ({"READY": 2, "WAITING": 4}, 2)
    assert others["fireworks"] == {"READY": 1, "WAITING": 2}
