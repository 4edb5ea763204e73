"""A Maker for one crystal, in flows of others: locally, through FireWorks, and as a filter."""

from __future__ import annotations

import json

import pytest
from dummy_jobs import natoms
from fireworks import FWorker
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, JobStore
from jobflow.managers.fireworks import flow_to_workflow
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Structure

from phononbench_flows import StabilityMaker, judge
from phononbench_flows.cluster.launchpad import init_launchpad, launchpad_settings
from phononbench_flows.cluster.outputs import OutputDataStore, OutputsStore
from phononbench_flows.flows.stability import StabilityDocument
from phononbench_flows.protocol import ProtocolError

TOY = "toy_potentials:lj"


def behind(structure: Structure, **fields) -> tuple[Flow, Flow]:
    judging = StabilityMaker(potential=TOY, device="cpu", **fields).make(structure)
    after = natoms(judging.output.structure)
    return judging, Flow([judging, after], output=after.output)


@pytest.fixture
def outputs() -> JobStore:
    return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})


def test_a_job_finds_its_checkpoint_from_any_working_directory(fcc, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flow = StabilityMaker(potential="mace:mine.model#r2scan").make(fcc)
    assert flow.jobs[0].function_kwargs["potential"] == f"mace:{tmp_path}/mine.model#r2scan"


def test_structure_in_document_out(fcc, outputs):
    flow = StabilityMaker(potential=TOY, device="cpu").make(fcc)
    responses = run_locally(flow, store=outputs, ensure_success=True)
    (response,) = responses[flow.jobs[0].uuid].values()
    document = response.output
    assert isinstance(document, StabilityDocument)
    assert (document.is_stable, document.stability, document.formula_pretty) == (True, "stable", "Cu")
    assert document.elements == ["Cu"]
    assert document.calculation.symmetry_relaxed.number == 225
    expected = judge(fcc, potential=TOY)
    assert document.minimum == expected.minimum
    assert document.structure == expected.structure
    # Its phonons lie in the store `data`, and come back when they are asked for.
    kept = outputs.query_one({"uuid": flow.jobs[0].uuid}, load=False)["output"]
    assert set(kept["phonon"]) >= {"blob_uuid", "store"}
    loaded = outputs.query_one({"uuid": flow.jobs[0].uuid}, load=True)["output"]
    assert len(loaded["phonon"]["phonon_bandstructure"]["frequencies"]) == 3
    assert loaded["phonon"]["chemsys"] == "Cu"


def test_an_unstable_crystal_stops_its_children(fcc, simple_cubic, outputs):
    _, flow = behind(fcc)
    assert len(run_locally(flow, store=outputs)) == 2
    judging, flow = behind(simple_cubic)
    responses = run_locally(flow, store=outputs)
    assert set(responses) == {judging.jobs[0].uuid}
    assert not responses[judging.jobs[0].uuid][1].output.is_stable
    _, flow = behind(simple_cubic, stop_unless_stable=False)
    assert len(run_locally(flow, store=outputs)) == 2


def test_what_cannot_be_judged_is_not_stable_and_says_why(fcc, outputs):
    raises = Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords)
    judging, flow = behind(raises)
    responses = run_locally(flow, store=outputs)
    (response,) = responses[judging.jobs[0].uuid].values()
    assert (response.output.is_stable, response.output.stability) == (False, "failed")
    assert "krypton" in response.output.why
    assert len(responses) == 1


def test_a_protocol_goes_along_with_the_job(tmp_path):
    (tmp_path / "mine.yaml").write_text("spectrum: {path_points: 11}")
    flow = StabilityMaker(potential=TOY, protocol=str(tmp_path / "mine.yaml")).make(None)
    assert flow.jobs[0].function_kwargs["protocol"]["spectrum"]["path_points"] == 11
    with pytest.raises(ProtocolError):
        StabilityMaker(protocol="none").make(None)


def test_it_survives_json(fcc):
    """As jobflow-remote and every other manager keeps it."""
    flow = StabilityMaker(potential=TOY, device="cpu", potential_settings={}).make(fcc)
    again = MontyDecoder().process_decoded(json.loads(json.dumps(flow, cls=MontyEncoder)))
    assert again.jobs[0].function_kwargs == flow.jobs[0].function_kwargs
    maker = StabilityMaker(potential=TOY, protocol={"name": "mine"})
    assert MontyDecoder().process_decoded(json.loads(json.dumps(maker, cls=MontyEncoder))) == maker


@pytest.mark.parametrize(
    ("name", "ran"), [("fcc", ["COMPLETED", "COMPLETED"]), ("simple_cubic", ["COMPLETED", "DEFUSED"])]
)
def test_through_fireworks_with_its_own_commands(name, ran, mongo_database, mongo_uri, tmp_path, monkeypatch, request):
    from fireworks import LaunchPad

    lp = LaunchPad.from_dict(launchpad_settings(mongo_uri, mongo_database) | {"strm_lvl": "ERROR"})
    init_launchpad(lp)
    store = JobStore(OutputsStore(mongo_database), additional_stores={"data": OutputDataStore(mongo_database)})
    monkeypatch.setattr(SETTINGS, "JOB_STORE", store)
    monkeypatch.chdir(tmp_path)
    judging, flow = behind(request.getfixturevalue(name))
    ids = lp.add_wf(flow_to_workflow(flow))
    rapidfire(lp, FWorker(), str(tmp_path), sleep_time=0, max_loops=1)
    states = [lp.get_fw_by_id(fw_id).state for fw_id in sorted(ids.values(), reverse=True)]
    assert sorted(states) == sorted(ran)
    store.connect()
    kept = store.query_one({"uuid": judging.jobs[0].uuid}, load=True)["output"]
    assert kept["is_stable"] == (name == "fcc")
    assert kept["phonon"]["phonon_bandstructure"]["frequencies"]
