"""What only hands out work imports no torch: to read a job, FireWorks' commands import the module of its class."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pymatgen.core import Lattice, Structure
from worker_processes import ready_launchpad

from phononbench_flows.cluster.launch import Chunk, chunk_workflow
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.potentials.source import is_installed
from phononbench_flows.protocol import PRESETS

SITES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]

READ = """
import sys
from fireworks import Workflow
workflow = Workflow.from_file(sys.argv[1])
import phononbench_flows.cluster.launch
print(len(workflow.fws), [name for name in ("torch", "torch_sim", "phonopy", "warp") if name in sys.modules])
"""


def test_a_chunk_is_read_and_handed_out_without_torch(tmp_path):
    protocol = PRESETS["converged"].model_dump(mode="json")
    flow = {"protocol": protocol, "potential": "sevennet-0", "store": {"kind": "mongo", "database": "none"}}
    workflow = chunk_workflow(Chunk("0" * 24, "toys", "some", ["toys-1@some"], flow))
    (tmp_path / "chunk.json").write_text(workflow.to_format("json"))
    command = [sys.executable, "-c", READ, str(tmp_path / "chunk.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{len(workflow.fws)} []"
    assert not done.stderr


SUBMIT = """
import atexit, sys
from phononbench_flows.cli import main
if __name__ == "__main__":  # not in the processes that parse crystals
    atexit.register(lambda: print([name for name in ("torch", "torch_sim", "phonopy", "warp") if name in sys.modules]))
    main()
"""


@pytest.mark.sevennet
@pytest.mark.skipif(not is_installed("sevenn"), reason="the extra sevennet is not installed")
def test_a_set_is_submitted_without_torch(mongo_uri, mongo_database, tmp_path):
    ready_launchpad(mongo_database)
    write_launchpad(tmp_path / "my_launchpad.yaml", launchpad_settings(mongo_uri, mongo_database))
    Structure(Lattice.cubic(3.6), ["Cu"] * 4, SITES).to(str(tmp_path / "copper.cif"))
    script = tmp_path / "submit.py"
    script.write_text(SUBMIT)
    command = [sys.executable, str(script), "submit", str(tmp_path / "copper.cif"), "--set", "metals"]
    command += ["--potential", "sevennet-0", "--store", f"mongo:{mongo_database}"]
    command += ["-l", str(tmp_path / "my_launchpad.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 crystals in 1 chunks added to the LaunchPad" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
