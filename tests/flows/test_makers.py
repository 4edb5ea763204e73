"""Every Maker goes through FireWorks' own serialisation and still does the same."""

from __future__ import annotations

import json

import pytest
from fireworks import Workflow
from fireworks.utilities.fw_serializers import load_object
from jobflow import Flow, JobStore
from jobflow.managers.fireworks import flow_to_workflow
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure

from phononbench_flows import potentials
from phononbench_flows.documents import CrystalDocument, PotentialRecord, document_key
from phononbench_flows.flows import ForceConstantsMaker, RelaxMaker, SpectrumMaker, StabilityFlowMaker
from phononbench_flows.flows.stages import WrongPotentialError
from phononbench_flows.outcomes import Reason, Stage, Status
from phononbench_flows.protocol import PRESETS, load_protocol
from phononbench_flows.store import ResultsStore

PAPER = PRESETS["paper"]
TOY = "toy_potentials:lj"


def waiting(store: ResultsStore, structures: list[Structure], protocol=PAPER, potential=TOY) -> list[str]:
    sha256 = potentials.identify(potential).sha256
    protocol_id = protocol.id_with(sha256)
    keys = []
    for i, structure in enumerate(structures):
        crystal_id = f"toys-{i}"
        document = CrystalDocument(
            key=document_key(crystal_id, protocol_id),
            id=crystal_id,
            set="toys",
            source=f"{i}.cif",
            source_sha256=None,
            protocol_id=protocol_id,
            protocol_name=protocol.name,
            potential=PotentialRecord(name=potential, checkpoint_sha256=sha256, dtype="float64", device="cpu"),
            stage=Stage.SCREENED,
            structure=structure.as_dict(),
        )
        store.put(document)
        keys.append(document.key)
    return keys


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results") as store:
        yield store


def back_from_the_launchpad(flow: Flow) -> Flow:
    """The flow that a worker would run: serialised by FireWorks and back, not the objects that were built here."""
    workflow = flow_to_workflow(flow, store=JobStore(MemoryStore()))
    again = Workflow.from_dict(json.loads(json.dumps(workflow.to_dict(), default=str)))
    jobs = [load_object(firework.tasks[0])["job"] for firework in again.fws]
    for job in jobs:
        job.hosts = []
    return Flow(jobs)


def run(flow) -> None:
    run_locally(flow, store=JobStore(MemoryStore()), log=False, raise_immediately=True)


@pytest.mark.parametrize("maker", [RelaxMaker, ForceConstantsMaker, SpectrumMaker, StabilityFlowMaker])
def test_makers_survive_fireworks_own_serialisation(maker):
    given = {"kind": "embedded", "path": "/somewhere"}
    made = (
        StabilityFlowMaker.configured(store=given, protocol=PAPER, potential=TOY, device="cpu", batch_atoms=7)
        if maker is StabilityFlowMaker
        else maker(store=given)
    )
    flow = made.make(["a@p", "b@p"])
    restored = back_from_the_launchpad(flow if isinstance(flow, Flow) else Flow([flow]))
    assert len(restored.jobs) == (3 if maker is StabilityFlowMaker else 1)
    for job in restored.jobs:
        assert job.maker == (getattr(made, job.name.replace(" ", "_")) if maker is StabilityFlowMaker else made)
        assert job.maker.store == given
        assert job.maker.protocol == PAPER.model_dump(mode="json")


def test_a_chunk_is_judged_and_each_crystal_written(store, fcc, simple_cubic):
    poisoned = Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords)
    keys = waiting(store, [fcc, simple_cubic, poisoned])
    flow = StabilityFlowMaker.configured(store=store.spec, protocol=PAPER, potential=TOY, device="cpu").make(keys)
    run(back_from_the_launchpad(flow))
    stable, unstable, failed = (store.get(key) for key in keys)
    assert (stable.status, stable.stage) == (Status.STABLE, Stage.JUDGED)
    assert (unstable.status, unstable.stage) == (Status.UNSTABLE, Stage.JUDGED)
    assert (failed.status, failed.reason, failed.stage) == (Status.FAILED, Reason.EXCEPTION, Stage.SCREENED)
    assert stable.symmetry_relaxed.number == 225
    assert [v.threshold for v in stable.verdicts] == [-1e-3, -0.1]
    assert unstable.phonon.path.frequency < -1
    assert unstable.phonon.n_imaginary > 0
    assert set(stable.timings) == {"relaxed", "force_constants", "judged"}
    assert stable.provenance.job_uuid == flow.jobs[-1].uuid
    assert store.blobs.get(stable.band_structure)["frequencies"].shape[1] == 3
    assert store.blobs.get(stable.force_constants)["array"].shape == (1, 32, 3, 3)


def test_a_stage_computes_only_what_is_missing(store, fcc, simple_cubic, monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    keys = waiting(store, [fcc, simple_cubic])
    maker = StabilityFlowMaker.configured(store=store.spec, protocol=PAPER, potential=TOY, device="cpu")
    run(maker.relax.make(keys[:1]))
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
    flow = StabilityFlowMaker.configured(
        store=store.spec, protocol=PAPER, potential="toy_potentials:lj32", device="cpu"
    )
    with pytest.raises(WrongPotentialError, match="checkpoint"):
        run(flow.make(keys))
    assert store.get(keys[0]).status == Status.PENDING


def test_the_protocol_travels_with_the_flow(store, fcc, tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text("force_constants: {supercell: [1, 1, 1]}\n")
    protocol = load_protocol(str(file))
    keys = waiting(store, [fcc], protocol)
    run(StabilityFlowMaker.configured(store=store.spec, protocol=protocol, potential=TOY, device="cpu").make(keys))
    assert store.get(keys[0]).phonon.supercell_natoms == 4
