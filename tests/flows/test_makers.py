"""Every Maker goes through FireWorks' own serialisation and still does the same."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from fireworks import Workflow
from fireworks.utilities.fw_serializers import load_object
from jobflow import Flow, JobStore
from jobflow.managers.fireworks import flow_to_workflow
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure
from screened import TOY, crystal_set, put_waiting

from phononbench_flows.cli.display import _provenance_lines
from phononbench_flows.engine.trouble import MachineError
from phononbench_flows.flows import ChunkMaker, StabilityMaker, StepsMaker, machine, step_runs
from phononbench_flows.flows.step_runs import WrongPotentialError
from phononbench_flows.outcomes import SCREENED, Reason, Status
from phononbench_flows.protocol import PRESETS, Protocol, load_protocol
from phononbench_flows.steps import ALWAYS
from phononbench_flows.store import ResultsStore

PAPER = PRESETS["paper"]


def waiting(store: ResultsStore, structures: list[Structure], protocol: Protocol = PAPER) -> list[str]:
    return put_waiting(store, crystal_set(protocol=protocol), {str(i): each for i, each in enumerate(structures)})


def chunk_maker(store: ResultsStore, protocol: Protocol = PAPER, potential: str = TOY) -> ChunkMaker:
    return ChunkMaker(store=store.spec, protocol=protocol.model_dump(mode="json"), potential=potential, device="cpu")


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        yield store


def back_from_the_launchpad(flow: Flow) -> Flow:
    """The flow that a worker would run: serialised by FireWorks and back, not the objects that were built here."""
    workflow = flow_to_workflow(flow, store=JobStore(MemoryStore()))
    again = Workflow.from_dict(json.loads(json.dumps(workflow.to_dict(), default=str)))
    jobs = [load_object(firework.tasks[0])["job"] for firework in again.fws]
    for job in jobs:
        job.hosts = []
    return Flow(jobs)


def run(flow) -> dict:
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    return run_locally(flow, store=store, log=False, raise_immediately=True)


def test_a_steps_maker_survives_fireworks_own_serialisation():
    made = StepsMaker(
        name="a few",
        steps=["relaxation", "spectrum"],
        protocol=PAPER.model_copy(update={"name": "mine"}).model_dump(mode="json"),
        store={"kind": "embedded", "path": "/somewhere"},
        potential=TOY,
        potential_settings={"accelerated": True, "modal": "omat24"},
        device="cuda:1",
        batch_atoms=7,
    )
    # A field that were lost would come back as its default.
    assert all(getattr(made, each.name) != each.default for each in fields(made))
    (job,) = back_from_the_launchpad(Flow([made.make(["a@p", "b@p"])])).jobs
    assert (job.maker, job.name) == (made, "a few")
    assert list(job.function_args) == [["a@p", "b@p"]]


def test_a_chunks_maker_survives_fireworks_own_serialisation_and_makes_one_job_of_all_steps():
    given = {
        "store": {"kind": "embedded", "path": "/somewhere"},
        "protocol": PAPER.model_dump(mode="json"),
        "potential": TOY,
        "potential_settings": {"accelerated": True},
        "device": "cpu",
        "batch_atoms": 7,
    }
    restored = back_from_the_launchpad(ChunkMaker(**given).make(["a@p", "b@p"]))
    (job,) = restored.jobs
    assert job.maker.steps == list(ALWAYS)
    assert {name: getattr(job.maker, name) for name in given} == given


def test_a_chunks_maker_takes_keys_and_names_the_maker_for_a_structure(fcc):
    for given in (fcc, [fcc], "a@p", ("a@p",)):
        with pytest.raises(TypeError, match="StabilityMaker"):
            ChunkMaker().make(given)


def test_a_chunk_is_judged_and_each_crystal_written(store, fcc, simple_cubic):
    poisoned = Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords)
    keys = waiting(store, [fcc, simple_cubic, poisoned])
    flow = chunk_maker(store).make(keys)
    run(back_from_the_launchpad(flow))
    stable, unstable, failed = (store.get(key) for key in keys)
    assert (stable.status, stable.stage) == (Status.STABLE, "spectrum")
    assert (unstable.status, unstable.stage) == (Status.UNSTABLE, "spectrum")
    assert (failed.status, failed.reason, failed.stage) == (Status.FAILED, Reason.EXCEPTION, SCREENED)
    assert stable.symmetry_relaxed.number == 225
    assert [(each.threshold, each.stability) for each in stable.assessments] == [(-1e-3, "stable"), (-0.1, "stable")]
    assert [each.stability for each in unstable.assessments] == ["unstable", "unstable"]
    assert set(unstable.evidence.looks) == {"path", "mesh", "commensurate"}
    assert unstable.evidence.looks["path"].frequency < -1
    assert unstable.minimum == unstable.evidence.looks["path"]
    assert (failed.minimum, failed.assessments, failed.arrays) == (None, [], {})
    assert unstable.phonon.n_imaginary > 0
    assert set(stable.timings) == set(ALWAYS)
    assert stable.provenance.job_uuid == flow.jobs[-1].uuid
    assert store.blobs.get(stable.arrays["band_structure"])["frequencies"].shape[1] == 3
    assert store.blobs.get(stable.arrays["force_constants"])["array"].shape == (1, 32, 3, 3)


def test_a_stage_computes_only_what_is_missing(store, fcc, simple_cubic, monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    keys = waiting(store, [fcc, simple_cubic])
    maker = chunk_maker(store)
    run(maker.of_steps(["relaxation"]).make(keys[:1]))
    before = store.get(keys[0])
    first = len(log.read_text().splitlines())
    run(maker.make(keys))
    assert store.get(keys[0]).relaxation == before.relaxation
    sizes = [int(line.split()[1]) for line in log.read_text().splitlines()[first:]]
    assert 4 not in sizes, "the crystal of four atoms was relaxed twice"
    whole = len(log.read_text())
    run(maker.make(keys))
    assert len(log.read_text()) == whole


def test_a_worker_with_another_checkpoint_stops_and_touches_nothing(store, fcc):
    keys = waiting(store, [fcc])
    flow = chunk_maker(store, potential="toy_potentials:lj32")
    with pytest.raises(WrongPotentialError, match="checkpoint"):
        run(flow.make(keys))
    assert store.get(keys[0]).status == Status.PENDING


def test_the_protocol_travels_with_the_flow(store, fcc, tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("force_constants: {supercell: [1, 1, 1]}\n")
    protocol = load_protocol(str(file))
    keys = waiting(store, [fcc], protocol)
    run(chunk_maker(store, protocol).make(keys))
    assert store.get(keys[0]).phonon.supercell_natoms == 4


# Any other protocol travels as plain JSON.
@pytest.mark.parametrize("protocol", ["paper", PAPER.model_copy(update={"name": "mine"}).model_dump(mode="json")])
def test_the_maker_for_one_crystal_survives_fireworks_own_serialisation(protocol, fcc, simple_cubic):
    maker = StabilityMaker(potential=TOY, protocol=protocol, device="cpu", batch_atoms=64)
    for structure, stability in ((fcc, "stable"), (simple_cubic, "unstable")):
        flow = back_from_the_launchpad(maker.make(structure))
        ((response,),) = [list(each.values()) for each in run(flow).values()]
        assert (response.output.stability, response.output.is_stable) == (stability, stability == "stable")
        assert response.stop_children == (stability != "stable")


def test_whoever_finds_the_machine_broken_leaves_word_for_the_worker(store, fcc, monkeypatch):
    monkeypatch.setenv("TOY_BREAKS_AT", "1")
    assert machine.found_broken() is None
    keys = waiting(store, [fcc])
    for flow in (chunk_maker(store).make(keys), StabilityMaker(potential=TOY, device="cpu").make(fcc)):
        with pytest.raises(MachineError, match="illegal memory access"):
            run(flow)
        assert machine.found_broken() == "the device failed: CUDA error: an illegal memory access was encountered"
        machine._broken.clear()
    assert (store.get(keys[0]).status, store.get(keys[0]).attempts) == (Status.PENDING, 0)


def test_after_an_error_of_the_device_a_healthy_crystal_comes_first(store, fcc, monkeypatch):
    keys = waiting(store, [fcc])
    (document,) = store.documents()
    document.device_errors = 1
    store.put(document)
    monkeypatch.setenv("TOY_OUT_OF_ORDER", "1")
    with pytest.raises(MachineError, match="the device failed before, and a healthy crystal fails too"):
        run(chunk_maker(store).make(keys))
    (document,) = store.documents()
    assert (document.status, document.attempts, document.device_errors) == ("pending", 0, 1), (
        "nothing speaks against it"
    )
    monkeypatch.delenv("TOY_OUT_OF_ORDER")
    run(chunk_maker(store).make(keys))
    (document,) = store.documents()
    assert (document.status, document.device_errors) == ("stable", 0)


def test_a_crystal_whose_arrays_are_gone_fails_alone(store, fcc, cu3au):
    keys = waiting(store, [fcc, cu3au])
    maker = chunk_maker(store)
    run(maker.of_steps(["relaxation", "force_constants"]).make(keys))
    first, _ = store.documents(sort={"key": 1})
    store.blobs.path(first.arrays["force_constants"]).unlink()
    run(maker.make(keys))
    found = {d.id: (d.status, d.reason) for d in store.documents()}
    assert found == {"toys-0": ("failed", "exception"), "toys-1": ("stable", None)}
    assert "is missing" in store.get(first.key).detail


def test_each_step_keeps_where_it_was_computed(store, fcc, monkeypatch):
    (key,) = waiting(store, [fcc])
    for host, step in zip("abc", ALWAYS, strict=True):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        monkeypatch.setattr(step_runs, "versions", lambda host=host: {"torch": host})
        run(chunk_maker(store).of_steps([step]).make([key]))
    document = store.get(key)
    assert document.provenance.host == "c"
    found = {step: (each.host, each.versions["torch"]) for step, each in document.provenance_by_step.items()}
    assert found == {"relaxation": ("a", "a"), "force_constants": ("b", "b"), "spectrum": ("c", "c")}
    assert len({each.job_uuid for each in document.provenance_by_step.values()}) == 3
    shown = dict(_provenance_lines(document))
    assert (shown["computed on"], shown["relaxation on"], shown["force constants on"]) == (
        "c",
        "a, torch a",
        "b, torch b",
    )
