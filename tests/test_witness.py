"""How a process ended is seen by its witness, and laid to the crystals in work only if it was of its own making."""

from __future__ import annotations

import subprocess
import sys

import pytest
from screened import blank, crystal_set

from phononbench_flows.store import ResultsStore

WORKER = """
import os, signal, sys
from phononbench_flows import witness
witness.begin()
assert witness.is_watching()
with witness.until_the_end():
    witness.tell({"kind": "embedded", "path": sys.argv[1]}, ["toys-0@" + sys.argv[2]])
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


@pytest.mark.parametrize(("how", "excused"), [("SIGSEGV", 0), ("SIGABRT", 0), ("SIGKILL", 1), ("SIGTERM", 1)])
def test_only_an_end_of_its_own_making_is_not_excused(how, excused, tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        documents = [blank(crystal_set(), str(i)) for i in range(2)]
        for document in documents:
            document.attempts = document.excused = 1
        store.put(*documents)
    command = [sys.executable, "-c", WORKER, tmp_path / "results", documents[0].protocol_id, how]
    # Its witness holds the pipe, too: both are gone when this is done.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode < 0
    assert ("Fatal Python error" in done.stderr) == (excused == 0)
    with ResultsStore.open(tmp_path / "results") as store:
        found = {d.id: (d.attempts, d.excused) for d in store.documents()}
    assert found == {"toys-0": (1, excused), "toys-1": (1, 1)}
