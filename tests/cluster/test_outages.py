"""The server is killed and comes back, and no finished crystal is lost."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from worker_processes import add_chunk, finish, lines, ready_launchpad, slow_crystals, start_worker, states, wait_for

from phononbench_flows.store import ResultsStore

CRYSTALS = 4

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("where", ["checkout", "middle", "completion"])
@pytest.mark.parametrize(
    ("seconds", "patience"),
    [(2, 600), (12, 600), (45, 600), pytest.param(12, 1, id="longer than anybody waits")],
)
def test_a_server_that_dies_takes_no_finished_crystal_with_it(
    where, seconds, patience, own_mongo, tmp_path, monkeypatch
):
    monkeypatch.setenv("PHONONBENCH_WRITE_RETRY_S", str(patience))
    lp = ready_launchpad("outage")
    finished = tmp_path / "finished"
    with ResultsStore.open("mongo:outage") as store:
        keys = slow_crystals(store, CRYSTALS, "toys")
        add_chunk(lp, store, keys)
        worker = start_worker("outage", tmp_path / "first", finished=str(finished), held=where)
        wait_for((tmp_path / "first" / "held").exists)
        own_mongo.kill()
        (tmp_path / "first" / "go on").touch()
        time.sleep(seconds)
        own_mongo.restart()
        worker.join(300)
        assert not worker.is_alive()
        finish("outage", tmp_path / "second", lp, finished=str(finished))
        assert set(states(lp).values()) == {"COMPLETED"}
        results = list(store.documents())
    assert sorted(d.key for d in results) == sorted(keys)
    assert {(d.status, d.attempts) for d in results} == {("stable", 0)}
    computed = Counter(lines(finished))
    assert len(computed) == 3 * CRYSTALS
    assert computed.total() - len(computed) <= 1
