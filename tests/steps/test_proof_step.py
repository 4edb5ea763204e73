"""A proof as a step: it settles a crystal, all that reads documents bears it, and the rest can be had later."""

from __future__ import annotations

import csv
import io
import json

import pytest
from jobflow import JobStore
from jobflow.managers.local import run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure
from screened import crystal_set, put_waiting

from phononbench_flows import judge, judge_many
from phononbench_flows.cli.display import crystal_table, exact_looks_table
from phononbench_flows.flows import ChunkMaker
from phononbench_flows.protocol import PRESETS, SpectrumSettings
from phononbench_flows.results.export import write_emmet, write_results
from phononbench_flows.sets.retry import retry
from phononbench_flows.stability import filter_disputed, filter_published
from phononbench_flows.steps import steps_of
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"
QUICK = PRESETS["converged"].model_copy(update={"spectrum": SpectrumSettings(path_points=21, mesh=(6, 6, 6))})
WITHOUT = QUICK.model_copy(update={"further_steps": {k: v for k, v in QUICK.further_steps.items() if k != "proof"}})


def stacked(*elements: str) -> Structure:
    """Simple cubic with its elements in order along one axis: unstable under the toy potential."""
    n = len(elements)
    return Structure(Lattice.tetragonal(2.4, 2.4 * n), elements, [[0, 0, i / n] for i in range(n)])


def test_a_crystal_is_settled_and_the_document_says_how():
    found = judge(stacked("Cu", "Ag", "Au"), potential=TOY, protocol=QUICK)
    document, whole = found.document, judge(stacked("Cu", "Ag", "Au"), potential=TOY, protocol=WITHOUT)
    assert (document.status, document.stage) == ("unstable", "proof")
    assert whole.stability == "unstable"
    assert set(document.timings) == {"relaxation", "proof"}
    assert found.published == whole.published == {-0.001: "unstable", -0.1: "unstable"}
    look = document.evidence.looks["exact"]
    assert look.at_most
    assert look.frequency < -0.3
    assert whole.document.evidence.looks["commensurate"].frequency <= look.frequency + 0.05
    assert [each.how for each in document.evidence.exact] == ["proof"]
    assert f"the lowest mode lies below {look.frequency:.4g} THz" in found.why
    assert document.assessments[0].threshold == -0.3
    assert document.evidence.noise == 0.3
    displacements = whole.document.phonon.n_displacements
    assert document.results["proof"]["displacements"] < displacements
    assert document.results["proof"]["evaluations"] < 24 * displacements
    assert document.results["proof"]["proof"].endswith(f"of {displacements} displacements")
    assert set(found.arrays) == {"displaced"}
    assert not found.has_phonons
    assert found.minimum == look


def test_what_is_not_proven_goes_up_the_ladder(cu3au, simple_cubic):
    stable, simple = judge_many([cu3au, simple_cubic], potential=TOY, protocol=QUICK)
    assert (stable.stability, simple.stability) == ("stable", "unstable")
    for each in (stable, simple):
        assert each.document.stage == "exact_looks"
        assert each.document.results["proof"]["proof"] in {
            "not found",
            "not sought: few displacements tell everything",
        }
    layer = Structure([[2.5, 0, 0], [0, 2.5, 0], [0, 0, 20.0]], ["Cu"], [[0, 0, 0.5]])
    assert judge(layer, potential=TOY, protocol=QUICK).document.results["proof"] == {
        "evaluations": 0,
        "displacements": 0,
        "proof": "not sought: not a bulk crystal",
    }


def test_a_proof_never_says_otherwise_than_the_whole(cu3au, low_symmetry, simple_cubic):
    """The toy set in both ways: the same verdicts, own and published; and what is not proven has the same spectrum."""
    crystals = [cu3au, low_symmetry, simple_cubic, stacked("Cu", "Ag"), stacked("Cu", "Cu", "Au"), stacked(*"NOFC")]
    proven, whole = (judge_many(crystals, potential=TOY, protocol=each) for each in (QUICK, WITHOUT))
    assert [each.stability for each in proven] == [each.stability for each in whole]
    assert [each.published for each in proven] == [each.published for each in whole]
    assert {each.document.stage for each in proven} == {"proof", "exact_looks"}
    for one, other in zip(proven, whole, strict=True):
        if one.document.stage == "exact_looks":
            assert one.document.phonon.n_displacements == other.document.phonon.n_displacements
            assert one.minimum.frequency == pytest.approx(other.minimum.frequency, abs=1e-4)


@pytest.mark.slow
@pytest.mark.sevennet
@pytest.mark.shared
def test_small_generated_crystals_have_the_same_verdict(shared_data):
    names = {"CrystaLLM": ["BiBrF_47", "KSrP_156", "GdAsIr_156"], "CDVAE": ["BaTl_8", "CdGa_47"]}
    files = [shared_data / "generated" / of / f"{name}.cif" for of, found in names.items() for name in found]
    ways = (PRESETS["converged"], PRESETS["converged"].model_copy(update={"further_steps": WITHOUT.further_steps}))
    proven, whole = (judge_many(files, potential="sevennet-0", protocol=each, device="cpu") for each in ways)
    assert [each.stability for each in proven] == [each.stability for each in whole]
    assert {each.document.stage for each in proven} == {"proof", "exact_looks"}


@pytest.fixture
def store(tmp_path, cu3au):
    with ResultsStore.open(tmp_path / "store", create=True) as found:
        crystals = crystal_set(protocol=QUICK)
        keys = put_waiting(found, crystals, {"proven": stacked("Cu", "Ag", "Au"), "stable": cu3au})
        compute(found, keys)
        yield found, crystals, keys


def compute(store: ResultsStore, keys: list[str]) -> None:
    maker = ChunkMaker(potential=TOY, store=store.spec, protocol=QUICK.model_dump(mode="json"), device="cpu")
    run_locally(maker.make(keys), store=JobStore(MemoryStore()), log=False, raise_immediately=True)


def test_the_whole_spectrum_can_be_had_later(store):
    store, crystals, keys = store
    before = {d.id: d for d in store.documents()}
    assert before["toys-proven"].stage == "proof"
    assert retry(store, crystals, keys, ["all-failed"]) == 0
    assert retry(store, crystals, keys, ["proven"]) == 1
    waiting = next(store.documents({"key": keys[0]}))
    assert (waiting.status, waiting.assessments, waiting.minimum) == ("pending", [], None)
    compute(store, keys)
    after = {d.id: d for d in store.documents()}
    assert after["toys-stable"] == before["toys-stable"]
    proven = after["toys-proven"]
    assert (proven.status, proven.stage) == ("unstable", "exact_looks")
    assert {"force_constants", "band_structure"} <= set(proven.arrays)
    for name in ("relaxation", "proof"):  # not computed again
        assert proven.timings[name] == before["toys-proven"].timings[name]
    whole = judge(stacked("Cu", "Ag", "Au"), potential=TOY, protocol=WITHOUT)
    assert proven.phonon.n_displacements == whole.document.phonon.n_displacements
    assert proven.evidence.looks["path"].frequency == pytest.approx(whole.document.evidence.looks["path"].frequency)
    assert not any(look.at_most for look in proven.evidence.looks.values())
    assert proven.evidence.looks["commensurate"].frequency <= before["toys-proven"].minimum.frequency + 0.05
    assert retry(store, crystals, keys, ["proven"]) == 0


def test_all_that_reads_documents_bears_it(store, tmp_path):
    store, _, keys = store
    document = next(store.documents({"key": keys[0]}))
    assert store.count(filter_published("unstable")) == 1
    assert store.count(filter_disputed()) == 0
    table = write_results(store.documents(sort={"id": 1}), tmp_path / "out", steps_of(QUICK))
    rows = {row["id"]: row for row in csv.DictReader(table.open())}
    row = rows["toys-proven"]
    assert (row["status"], row["stage"], row["published_strict"]) == ("unstable", "proof", "unstable")
    assert row["proof"].endswith(" displacements")
    assert float(row["min_frequency_exact_thz"]) < -0.3
    assert row["n_displacements"] == ""
    stream = io.StringIO()
    assert write_emmet(stream, store.documents(), store) == 1
    assert "toys-stable" in json.dumps(stream.getvalue())
    assert crystal_table(document, None).row_count > 10
    assert exact_looks_table(document).row_count == 1


def test_one_crystal_is_saved_and_shown_without_bands(tmp_path):
    found = judge(stacked("Cu", "Ag", "Au"), potential=TOY, protocol=QUICK)
    assert [path.suffix for path in found.save(tmp_path)] == [".cif"]
    assert "unstable" in found._repr_html_()
    with pytest.raises(Exception, match="has no band structure"):
        found.plot()
