"""Unstable crystals followed to the end, with a potential without weights: in a set, killed, one by one, as jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobflow import Flow
from pymatgen.io.cif import CifWriter
from screened import TOY
from test_makers import back_from_the_launchpad

from phononbench_flows import judge, judge_folder
from phononbench_flows.flows.following import FollowMaker
from phononbench_flows.follow import FollowError, follow_set
from phononbench_flows.store import ResultsStore, StoreError


@pytest.fixture
def judged(tmp_path, fcc, simple_cubic) -> Path:
    """Results of a set with a stable and an unstable crystal."""
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name, structure in {"fcc": fcc, "simple": simple_cubic}.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    judge_folder(folder, "toys", out=tmp_path / "results", potential=TOY, device="cpu", workers=1)
    return tmp_path / "results"


def told(results: Path) -> dict[str, tuple[str, str | None]]:
    with ResultsStore.open(results) as store:
        return {
            each.id: (each.status, each.symmetry_relaxed and each.symmetry_relaxed.symbol) for each in store.documents()
        }


def test_simple_cubic_becomes_close_packed_and_the_set_stays_what_it_was(judged, monkeypatch, tmp_path):
    found = follow_set("toys", out=judged, potential=TOY, device="cpu", workers=1)
    [parent] = found.followed
    family = parent.family
    assert (parent.id, family.outcome, family.path[0]) == ("toys-simple", "stable", "Pm-3m")
    assert family.energy_gained > 0.1
    with ResultsStore.open(judged) as store:
        assert store.count({"set": "toys"}) == 2
        children = list(store.documents({"set": "toys.children"}))
        best = store.get(f"{family.stable}@{parent.protocol_id}")
        assert best.relaxation.energy_per_atom == parent.relaxation.energy_per_atom - family.energy_gained
    assert {each.origin.parent for each in children} >= {"toys-simple"}
    assert all(each.origin.mode.frequency < 0 < each.origin.mode.amplitude for each in children)
    assert all(each.status != "pending" for each in children)
    assert found.table.read_text().count("\n") == len(children) + 1
    # A second call has nothing to compute, and needs no potential.
    monkeypatch.setattr("phononbench_flows.potentials.load", lambda *_: pytest.fail("nothing is missing"))
    before = told(judged)
    follow_set("toys", out=judged, potential=TOY, device="cpu", workers=1)
    assert told(judged) == before


def command(results: Path) -> list[str]:
    script = "from phononbench_flows.cli import main; main()"
    arguments = [
        "follow",
        "--set",
        "toys",
        "--potential",
        TOY,
        "--out",
        str(results),
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    return [sys.executable, "-W", "ignore", "-c", script, *arguments]


def test_killed_in_the_middle_it_goes_on_and_loses_nothing(judged, tmp_path):
    log = tmp_path / "log"
    environment = os.environ | {"TOY_LOG": str(log), "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    first = subprocess.Popen(command(judged), start_new_session=True, **quiet)
    deadline, relaxed = time.monotonic() + 200, 0
    while time.monotonic() < deadline and first.poll() is None and not relaxed:
        time.sleep(0.02)
        with ResultsStore.open(judged) as store:
            relaxed = store.count({"set": "toys.children", "relaxation": {"$ne": None}})
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    with ResultsStore.open(judged) as store:
        made = {each.id: each.relaxation for each in store.documents({"set": "toys.children"})}
        assert store.count({"set": "toys.children", "status": "stable"}) == 0, "the kill has to fall in the middle"
    assert any(made.values())

    assert subprocess.run(command(judged), check=False, **quiet).returncode == 0
    with ResultsStore.open(judged) as store:
        after = {each.id: each for each in store.documents({"set": "toys.children"})}
        [parent] = store.documents({"id": "toys-simple"})
    assert set(made) <= set(after)
    assert all(after[name].relaxation == found for name, found in made.items() if found), "relaxed again"
    assert (parent.family.outcome, all(each.status != "pending" for each in after.values())) == ("stable", True)


def test_one_crystal_is_followed_without_a_store(simple_cubic, fcc):
    unstable, stable = (judge(each, potential=TOY, device="cpu", follow=True) for each in (simple_cubic, fcc))
    assert (stable.is_stable, stable.becomes, len(stable.descendants)) == (True, None, 0)
    assert (unstable.is_stable, unstable.becomes.is_stable) == (False, True)
    assert unstable.becomes.document.id == unstable.document.family.stable
    assert unstable.becomes.phonopy() is not None


def test_a_set_without_unstable_crystals_is_told(tmp_path):
    with pytest.raises(StoreError, match="no results in"):
        follow_set("nothing", out=tmp_path / "results", potential=TOY, device="cpu")
    ResultsStore.open(tmp_path / "results", create=True).close()
    with pytest.raises(FollowError, match="'nothing' has no unstable crystal under the protocol converged"):
        follow_set("nothing", out=tmp_path / "results", potential=TOY, device="cpu")


def test_the_maker_survives_fireworks_own_serialisation():
    made = FollowMaker(
        store={"kind": "embedded", "path": "/somewhere"}, potential=TOY, device="cuda:1", settings={"atoms": 7}
    )
    [job] = back_from_the_launchpad(Flow([made.make(["a@p"])])).jobs
    assert (job.maker, list(job.function_args)) == (made, [["a@p"]])
