"""Sites without FireWorks: the flow of a chunk runs under another of jobflow's managers, with results in MongoDB."""

from __future__ import annotations

import importlib
import sys

import pytest
from jobflow import JobStore
from jobflow.managers.local import run_locally
from typer.testing import CliRunner


@pytest.fixture
def no_fireworks(monkeypatch):
    """As in an environment without FireWorks: whoever imports it gets a ModuleNotFoundError."""
    for name in list(sys.modules):
        if (
            name.partition(".")[0] in {"phononbench_flows", "fireworks", "toy_potentials", "screened"}
            or "fireworks" in name
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fireworks", None)


def test_the_flow_of_a_chunk_runs_under_jobflows_local_manager(
    no_fireworks, mongo_database, tmp_path, monkeypatch, fcc, simple_cubic
):
    monkeypatch.chdir(tmp_path)
    flows = importlib.import_module("phononbench_flows.flows")
    outputs = importlib.import_module("phononbench_flows.cluster.outputs")
    screened = importlib.import_module("screened")
    store = importlib.import_module("phononbench_flows.store").open_store(f"mongo:{mongo_database}")
    protocol = importlib.import_module("phononbench_flows.protocol").load_protocol("converged")
    crystals = screened.crystal_set(protocol=protocol)
    keys = screened.put_waiting(store, crystals, {"fcc": fcc, "simple": simple_cubic})
    maker = flows.ChunkMaker(store=store.spec, potential=screened.TOY)
    assert maker.protocol == protocol.model_dump(mode="json")
    flow = maker.make(keys)
    jobs = JobStore(outputs.OutputsStore(mongo_database))
    run_locally(flow, store=jobs, log=False, raise_immediately=True)
    assert {d.id: d.status for d in store.documents()} == {"toys-fcc": "stable", "toys-simple": "unstable"}
    assert jobs.get_output(flow.jobs[-1].uuid) == [d.key for d in store.documents(sort={"key": 1})]
    assert {d.provenance.fw_id for d in store.documents()} == {None}
    with pytest.raises(ImportError):
        importlib.import_module("phononbench_flows.cluster.launch")


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "crystals", "--set", "toys", "--potential", "toy_potentials:lj"],
        ["serve", "mongo", "--potential", "toy_potentials:lj", "--cluster"],
        ["worker"],
        ["doctor"],
        ["status", "--store", "mongo"],
        ["janitor"],
        ["init-db"],
        ["launchpad", "--out", "my_launchpad.yaml"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_clusters_commands_say_what_to_install(no_fireworks, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crystals").mkdir()
    cli = importlib.import_module("phononbench_flows.cli")
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line == (
        "phononbench: this needs the package fireworks, which is not installed: "
        "pip install 'phononbench-flows[fireworks]'"
    )
    assert result.stdout == ""


def test_what_can_be_asked_without_fireworks_is_answered(no_fireworks, tmp_path):
    cli = importlib.import_module("phononbench_flows.cli")
    importlib.import_module("phononbench_flows.store").ResultsStore.open(tmp_path / "results", create=True).close()
    result = CliRunner().invoke(cli.app, ["status", "--store", str(tmp_path / "results"), "--json"])
    assert (result.exit_code, result.stdout.strip()) == (0, "[]")
