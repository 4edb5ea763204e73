"""What only hands out work imports no torch: to read a job, FireWorks' commands import the module of its class."""

from __future__ import annotations

import subprocess
import sys

from phononbench_flows.cluster.launch import Chunk, chunk_workflow
from phononbench_flows.protocol import PRESETS

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
