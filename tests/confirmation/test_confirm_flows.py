"""Draw, hand out, compute with a stand-in through FireWorks, collect: what it gives, and that nothing comes twice."""

from __future__ import annotations

import json

import pytest
from ase.build import bulk
from fireworks import FWorker
from fireworks.core.rocket_launcher import rapidfire
from jobflow import SETTINGS, Flow, JobStore
from made_documents import CONVERGED_ID, crystal_of, make_exact
from made_sets import PHONON
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from typer.testing import CliRunner
from worker_processes import ready_launchpad

from phononbench_flows.cli import app
from phononbench_flows.cluster.launchpad import launchpad_settings, write_launchpad
from phononbench_flows.cluster.outputs import OutputDataStore, OutputsStore
from phononbench_flows.confirmation.flows import TAG, Method
from phononbench_flows.store import ResultsStore

MAKER = "atomate2.forcefields.flows.phonons.PhononMaker"
SETTINGS_TEXT = """
bulk_relax_maker: null
static_energy_maker: null
born_maker: null
phonon_displacement_maker:
  maker: atomate2.forcefields.jobs.ForceFieldStaticMaker
  calculator_meta: ase.calculators.emt.EMT
"""


def crystals() -> dict[str, Structure]:
    """Of which EMT, the stand-in, takes fcc ones for stable, and simple cubic ones not."""
    return {
        "cu": AseAtomsAdaptor.get_structure(bulk("Cu", "fcc", a=3.59)),
        "cu-sc": AseAtomsAdaptor.get_structure(bulk("Cu", "sc", a=2.42)),
    }


def put(store: ResultsStore) -> None:
    for place, (name, structure) in enumerate(crystals().items()):
        facts = {"id": f"m-{name}", "key": f"m-{name}@{CONVERGED_ID}", "set": "m", "nsites": 1}
        document = make_exact(place, 0.0, 1.0, phonon=PHONON, **facts)
        document.relaxed_structure = structure.as_dict()
        store.put_crystals(crystal_of(document, structure=structure.as_dict()))
        store.put(document)


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS_TEXT)
    return path


def run(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(each) for each in arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.filterwarnings("ignore")
def test_through_fireworks(mongo_uri, mongo_database, tmp_path, monkeypatch, settings):
    jobs = JobStore(OutputsStore(mongo_database), additional_stores={"data": OutputDataStore(mongo_database)})
    monkeypatch.setattr(SETTINGS, "JOB_STORE", jobs)
    lp = ready_launchpad(mongo_database)
    file = tmp_path / "my_launchpad.yaml"
    write_launchpad(file, launchpad_settings(mongo_uri, mongo_database))
    where = f"mongo:{mongo_database}"
    with ResultsStore.open(where, create=True) as store:
        put(store)
        asked = ["confirm", where, "--set", "m", "--n", 2, "--maker", MAKER, "--settings", settings]
        asked += ["--functional", "EMT", "--launchpad", file]
        assert "2 phonon flows added to the LaunchPad" in run(*asked)
        assert "0 phonon flows added to the LaunchPad" in run(*asked)
        # As if it had been killed before it could note that they are out.
        drawn = list(store.confirmations())
        for each in drawn:
            each.status, each.uuid = "drawn", None
        store.put_confirmations(*drawn)
        run(*asked)
        assert lp.workflows.count_documents({}) == 2
        assert all(each.uuid for each in store.confirmations())
        assert "0 answers, 0 that cannot be used, 2 still to come" in run("confirm", where, "--set", "m", "--collect")
        monkeypatch.chdir(tmp_path)
        rapidfire(lp, FWorker(), strm_lvl="ERROR")
        assert "2 answers" in run("confirm", where, "--set", "m", "--collect")
        found = {each.id: each for each in store.confirmations()}
        assert {name: each.stability for name, each in found.items()} == {"m-cu": "stable", "m-cu-sc": "unstable"}
        assert {(each.functional, each.code, each.status) for each in found.values()} == {
            ("EMT", "forcefields", "known")
        }
        stable = found["m-cu"]
        assert stable.frequency == pytest.approx(stable.evidence.looks["path"].frequency)
        assert jobs.query_one({"uuid": stable.uuid}) is not None
        assert store.count({"labels.dft": "unstable"}) == 1
        shown = run("show", "m-cu", where, "--figures", tmp_path / "figures")
        assert "confirmed" in shown
        assert "EMT, forcefields" in shown
        assert "0 answers, 0 that cannot be used, 0 still to come" in run("confirm", where, "--set", "m", "--collect")


def test_written_flows_are_on_our_cell_and_supercell(tmp_path, settings):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        put(store)
    folder = tmp_path / "flows"
    for _ in range(2):
        run(
            *("confirm", tmp_path / "results", "--set", "m", "--n", 2, "--maker", MAKER),
            *("--settings", settings, "--write", folder),
        )
    files = sorted(folder.glob("*.json"))
    assert len(files) == 2
    flow = Flow.from_dict(json.loads(files[0].read_text()))
    jobs = [job for job, _ in flow.iterflow()]
    assert all(job.metadata[TAG].startswith("m-cu@") for job in jobs)
    displaced = next(job for job in jobs if job.name == "generate_phonon_displacements")
    given = [*displaced.function_args, *displaced.function_kwargs.values()]
    assert [[2, 0, 0], [0, 2, 0], [0, 0, 2]] in given
    assert any(each == crystals()["cu"] for each in given if isinstance(each, Structure))


def test_vasp_flows_are_built_without_potcars(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        put(store)
    said = run("confirm", tmp_path / "results", "--set", "m", "--n", 2, "--write", tmp_path / "flows")
    assert "2 crystals drawn, 2 phonon flows written" in said
    flow = Flow.from_dict(json.loads((tmp_path / "flows" / f"m-cu-{CONVERGED_ID}-{Method().digest}.json").read_text()))
    names = [job.name for job, _ in flow.iterflow()]
    assert "tight relax" not in " ".join(names)
    assert names[-1] == "generate_frequencies_eigenvectors"
