"""The ladder as steps: what documents say, and that a kill at any rung loses nothing."""

from __future__ import annotations

import pytest
from jobflow import JobStore
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Structure
from screened import crystal_set, put_waiting

from phononbench_flows import judge, load_protocol
from phononbench_flows.flows import ChunkMaker, StepsMaker
from phononbench_flows.protocol import PRESETS, ElasticitySettings, ExactLooksSettings, ProofSettings, SpectrumSettings
from phononbench_flows.steps import find_step, references
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"
QUICK = PRESETS["converged"].model_copy(update={"spectrum": SpectrumSettings(path_points=21, mesh=(6, 6, 6))})
STEPS = ["relaxation", "proof", "force_constants", "spectrum", "elasticity", "exact_looks"]


def run(flow) -> None:
    run_locally(flow, store=JobStore(MemoryStore()), log=False, raise_immediately=True)


def test_the_default_protocol_states_all_that_it_is():
    converged = load_protocol("converged")
    assert references(converged) == STEPS
    assert converged.further_steps == {
        "proof": ProofSettings().model_dump(mode="json"),
        "elasticity": ElasticitySettings().model_dump(mode="json"),
        "exact_looks": ExactLooksSettings().model_dump(mode="json"),
    }
    first = PRESETS["paper"]
    for part in ("screening", "relaxation", "force_constants", "spectrum"):
        assert getattr(converged, part) == getattr(first, part)
    assert converged.hash != first.hash
    assert find_step("exact_looks").resource == "potential"


def test_documents_say_what_was_looked_at(cu3au, simple_cubic):
    stable = judge(cu3au, potential=TOY, protocol=QUICK).document
    assert [a.fixed for a in stable.assessments] == [False, True, True]
    assert (stable.status, stable.assessments[0].where) == ("stable", "exact")
    assert stable.evidence.dimension == 3
    assert stable.evidence.elastic.lowest > 1
    assert {"drift", "symmetrisation", "gamma"} == set(stable.evidence.noise_from)
    assert stable.evidence.noise == max(v for k, v in stable.evidence.noise_from.items() if k != "gamma")
    held, *looks = stable.evidence.exact
    assert held.how == "supercell"
    assert looks
    assert all(look.frequency > 0 and look.evaluations > 0 and look.interpolated is not None for look in looks)
    assert stable.results["exact_looks"]["evaluations"] >= sum(look.evaluations for look in looks)

    unstable = judge(simple_cubic, potential=TOY, protocol=QUICK)
    assert unstable.stability == "unstable"
    assert [a.stability for a in unstable.document.assessments] == ["unstable"] * 3
    assert "which the supercell of 8 atoms holds" in unstable.why
    assert unstable.document.results["elasticity"] == {"skipped": "not needed: unstable at a commensurate q-point"}


def test_layers_are_judged_in_their_plane_and_chains_are_undecided():
    distance = 2.58
    hexagonal = [[distance, 0, 0], [-distance / 2, distance * 3**0.5 / 2, 0], [0, 0, 20.0]]
    layer = judge(Structure(hexagonal, ["Cu"], [[0, 0, 0.5]]), potential=TOY, protocol=QUICK)
    assert layer.document.evidence.dimension == 2
    assert all(look.q[2] == 0 for look in layer.document.evidence.exact)
    chain = judge(Structure([[2.5, 0, 0], [0, 12, 0], [0, 0, 12]], ["Cu"], [[0, 0, 0]]), potential=TOY, protocol=QUICK)
    assert (chain.stability, chain.document.evidence.dimension) == ("undecided", 1)
    assert "chains" in chain.why


def evidence_of(store: ResultsStore) -> dict:
    return {
        d.id: (d.status, d.stage, round(d.evidence.looks["exact"].frequency, 4), len(d.evidence.exact))
        for d in store.documents()
    }


@pytest.mark.parametrize("done", range(1, len(STEPS)))
def test_a_run_that_ends_at_any_rung_goes_on_from_there(tmp_path, fcc, simple_cubic, done):
    whole = tmp_path / "whole"
    results = []
    for out, first in ((whole, 0), (tmp_path / "broken", done)):
        with ResultsStore.open(out, create=True) as store:
            crystals = crystal_set(protocol=QUICK)
            keys = put_waiting(store, crystals, {"fcc": fcc, "simple": simple_cubic})
            how = {"store": store.spec, "protocol": QUICK.model_dump(mode="json"), "device": "cpu"}
            run(StepsMaker(steps=list(STEPS[:first]), potential=TOY, **how).make(keys[:1]))
            run(ChunkMaker(potential=TOY, **how).make(keys))
            results.append(evidence_of(store))
    assert results[0] == results[1]
    assert {each[1] for each in results[0].values()} == {"exact_looks"}
