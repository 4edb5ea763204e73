"""Sites without FireWorks: the flow of a chunk runs under another of jobflow's managers, with results in MongoDB."""

from __future__ import annotations

import importlib
import sys

import pytest
from jobflow import JobStore
from jobflow.managers.local import run_locally


@pytest.fixture
def no_fireworks(monkeypatch):
    """As in an environment without FireWorks: whoever imports it gets an ImportError."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {"phononbench_flows", "fireworks", "toy_potentials"} or "fireworks" in name:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fireworks", None)


def test_the_flow_of_a_chunk_runs_under_jobflows_local_manager(
    no_fireworks, mongo_database, tmp_path, monkeypatch, fcc, simple_cubic
):
    monkeypatch.chdir(tmp_path)
    documents = importlib.import_module("phononbench_flows.documents")
    flows = importlib.import_module("phononbench_flows.flows")
    outputs = importlib.import_module("phononbench_flows.cluster.outputs")
    potentials = importlib.import_module("phononbench_flows.potentials")
    protocol = importlib.import_module("phononbench_flows.protocol").PRESETS["paper"]
    store = importlib.import_module("phononbench_flows.store").open_store(f"mongo:{mongo_database}")
    sha256 = potentials.identify("toy_potentials:lj").sha256
    protocol_id = protocol.id_with(sha256)
    for name, structure in {"fcc": fcc, "simple": simple_cubic}.items():
        store.put(
            documents.CrystalDocument(
                key=f"toys-{name}@{protocol_id}",
                id=f"toys-{name}",
                set="toys",
                source="",
                source_sha256=None,
                protocol_id=protocol_id,
                protocol_name=protocol.name,
                potential=documents.PotentialRecord(name="toy_potentials:lj", checkpoint_sha256=sha256),
                stage="screened",
                structure=structure.as_dict(),
            )
        )
    maker = flows.StabilityFlowMaker.configured(store=store.spec, protocol=protocol, potential="toy_potentials:lj")
    flow = maker.make([row["key"] for row in store.query({}, ["key"], sort={"key": 1})])
    jobs = JobStore(outputs.OutputsStore(mongo_database))
    run_locally(flow, store=jobs, log=False, raise_immediately=True)
    assert {d.id: d.status for d in store.documents()} == {"toys-fcc": "stable", "toys-simple": "unstable"}
    assert jobs.get_output(flow.jobs[-1].uuid) == [d.key for d in store.documents(sort={"key": 1})]
    assert {d.provenance.fw_id for d in store.documents()} == {None}
    with pytest.raises(ImportError):
        importlib.import_module("phononbench_flows.cluster.launch")
