"""Chunks of a local run in processes side by side."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest
from pymatgen.core import Lattice, Structure
from screened import TOY

from phononbench_flows import judge_folder, local_workers
from phononbench_flows.engine.trouble import MachineError
from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import Protocol
from phononbench_flows.store import ResultsStore

SMALL = Protocol.model_validate({"name": "small", "spectrum": {"path_points": 11, "mesh": [4, 4, 4]}})
SITES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sixteen crystals, in two chunks, and all that a new process needs to find the toy potential."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", os.environ.get("PYTHONPATH", "")]))
    crystals = tmp_path / "crystals"
    crystals.mkdir()
    elements = ["Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al", "Ar"]
    for number, (one, other) in enumerate([(a, b) for a in elements for b in elements if a < b][:16]):
        Structure(Lattice.cubic(3.6), [one, other, other, other], SITES).to(str(crystals / f"{number:02d}.cif"))
    Structure(Lattice.cubic(3.6), ["Yb"] * 4, SITES).to(str(tmp_path / "known.cif"))
    return crystals


def judged(folder, out, workers):
    how = {"potential": TOY, "protocol": SMALL, "device": "cpu", "workers": workers}
    found = judge_folder([str(folder)], "S", out=str(out), reference=str(folder.parent / "known.cif"), **how)
    with ResultsStore.open(out) as store:
        return found, {d.id: d for d in store.documents()}


def test_two_processes_find_what_one_finds(folder, tmp_path):
    one, alone = judged(folder, tmp_path / "one", 1)
    two, beside = judged(folder, tmp_path / "two", 2)
    assert one.funnel == two.funnel
    assert one.funnel.judged == 16
    for key, document in alone.items():
        assert beside[key].status == document.status
        assert beside[key].minimum.frequency == pytest.approx(document.minimum.frequency, abs=1e-3)
    pids = {d.provenance.pid for d in beside.values()}
    assert os.getpid() not in pids
    assert {d.provenance.pid for d in alone.values()} == {os.getpid()}
    # Nothing is left to compute: no process is started.
    before = psutil.Process().children(recursive=True)
    judged(folder, tmp_path / "two", 2)
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= {p.pid for p in before}


def test_a_process_that_is_killed_ends_the_run_and_loses_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_SLEEP", "0.5")
    out, mine = tmp_path / "out", psutil.Process()

    def kill() -> None:
        """The process that computes, once something is relaxed."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with ResultsStore.open(out, create=True) as store:
                seen = [d.provenance.pid for d in store.documents({"stage": "relaxation"}) if d.provenance]
            if seen:
                os.kill(seen[0], signal.SIGKILL)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(MachineError, match="killed"):
        judge_folder(folder, "S", out=out, potential=TOY, protocol=SMALL, device="cpu", workers=2)
    killer.join()
    assert not [child for child in mine.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    monkeypatch.delenv("TOY_SLEEP")
    found, documents = judged(folder, out, 1)
    assert found.funnel.judged == 16
    assert {d.status for d in documents.values()} <= {Status.STABLE.value, Status.UNSTABLE.value}
    assert {d.attempts for d in documents.values()} == {0}


def test_as_many_processes_as_there_are_cores_crystals_and_memory_for(monkeypatch):
    monkeypatch.setattr(local_workers, "_cores", lambda: 16)
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": (64 << 30) // 4096}
    monkeypatch.setattr(os, "sysconf", memory.__getitem__)
    assert local_workers.usual_number(100_000, "cpu") == 16
    assert local_workers.usual_number(40, "cpu") == 5
    assert local_workers.usual_number(3, "cpu") == 1
    assert local_workers.usual_number(100_000, "cuda:0") == 1
    memory["SC_PHYS_PAGES"] = (9 << 30) // 4096
    assert local_workers.usual_number(100_000, "cpu") == 2
