"""Unstable crystals followed by a cluster's workers: handed out once, killed or not, told as a local run tells them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cubic_crystals import FCC_SITES, cubic
from pymatgen.io.cif import CifWriter
from screened import TOY
from typer.testing import CliRunner
from worker_processes import finish, lines, ready_launchpad, start_worker, states

from phononbench_flows import judge_folder
from phononbench_flows.cli import app
from phononbench_flows.cluster.launch import chunks
from phononbench_flows.cluster.launchpad import LEDGER, launchpad_settings, write_launchpad
from phononbench_flows.cluster.status import set_statuses
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.following import FollowSettings
from phononbench_flows.follow import as_waiting, follow_set
from phononbench_flows.protocol import PRESETS
from phononbench_flows.steps import references
from phononbench_flows.store import ResultsStore

CONVERGED = PRESETS["converged"]
SMALL = FollowSettings(atoms=3)
KEPT = ("set", "status", "stage", "reason", "duplicate_of", "same_as", "attempts", "origin")
UNSTABLE = ["toys-simple", "toys-alloy", "toys-body"]  # the smallest first; the alloy's modes need larger cells


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    """Results of a set of a stable and three unstable crystals."""
    folder, results = tmp_path_factory.mktemp("crystals"), tmp_path_factory.mktemp("judged")
    centred = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystals = {
        "close": cubic(3.6, ["Cu"] * 4, FCC_SITES),
        "simple": cubic(2.55, ["Po"], [[0, 0, 0]]),
        "alloy": cubic(2.95, ["Cs", "Cl"], centred),
        "body": cubic(2.9, ["Fe"] * 2, centred),
    }
    for name, structure in crystals.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    judge_folder(folder, "toys", out=results, potential=TOY, device="cpu", workers=1)
    return results


@pytest.fixture(scope="module")
def expected(judged, tmp_path_factory) -> dict[str, Any]:
    """What following leaves that was never disturbed, on this machine."""
    results = tmp_path_factory.mktemp("followed")
    with ResultsStore.open(results, create=True) as store:
        copy(judged, store)
    follow_set("toys", out=results, potential=TOY, device="cpu", workers=1, settings=SMALL)
    with ResultsStore.open(results) as store:
        return found(store)


@pytest.fixture
def site(judged, mongo_uri, mongo_database, tmp_path):
    """A cluster with the results of the set: its store, its LaunchPad, and the command there."""
    lp = ready_launchpad(mongo_database)
    write_launchpad(tmp_path / "my_launchpad.yaml", launchpad_settings(mongo_uri, mongo_database))

    def follow(*options: object) -> str:
        where = ["--store", f"mongo:{mongo_database}", "-l", tmp_path / "my_launchpad.yaml", "--out", tmp_path / "out"]
        words = ["follow", "--set", "toys", "--potential", TOY, "--submit", "--atoms", SMALL.atoms, *where, *options]
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        copy(judged, store)
        yield store, lp, follow


def copy(results: Path, store: ResultsStore) -> None:
    """Put what a directory holds into a store."""
    with ResultsStore.open(results) as given:
        documents = list(given.documents())
        store.put_crystals(*given.crystals([each.id for each in documents]))
        for each in documents:
            each.arrays = {name: store.blobs.put(given.blobs.get(ref)) for name, ref in each.arrays.items()}
        store.put(*documents)


def found(store: ResultsStore) -> dict[str, Any]:
    """Verdicts, lines and families. Rounding, and with it where a path is looked at, depends on a crystal's company."""
    return {each.id: rounded(_found(each)) for each in store.documents()}


def _found(document: CalculationDocument) -> dict[str, Any]:
    whole = document.model_dump(mode="json")
    kept = {name: whole[name] for name in KEPT}
    return kept | {
        "arrays": sorted(whole["arrays"]),
        "children": document.followed and document.followed.children,
        "family": whole["family"] and {**whole["family"], "seconds": None},
        "energy": document.relaxation and document.relaxation.energy_per_atom,
        "lowest": document.minimum and document.minimum.frequency,
        "exact": [each.frequency for each in document.evidence.exact],
    }


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 4) + 0.0 if isinstance(value, float) else value


def two_in_a_chunk(store: ResultsStore) -> float:
    """The cost of the two smallest crystals."""
    parents = list(store.documents({"status": "unstable"}, sort={"nsites": 1, "id": 1}))
    return sum(each.cost for each in as_waiting(parents[:2], CONVERGED, SMALL))


def test_two_workers_leave_what_a_local_run_leaves(site, expected, mongo_database, tmp_path):
    store, lp, follow = site
    chunked = ["--chunk-cost", two_in_a_chunk(store)]
    said = follow(*chunked)
    assert "3 of 3 unstable crystals are left to be followed 3 crystals in 2 chunks added to the LaunchPad" in said
    assert [[key.partition("@")[0] for key in chunk.keys] for chunk, _ in chunks(lp, "toys.children")] == [
        UNSTABLE[:2],
        UNSTABLE[2:],
    ]
    again = follow(*chunked)
    assert (
        "0 crystals in 0 chunks added to the LaunchPad 3 crystals left alone, since they wait on the LaunchPad" in again
    )
    assert (len(states(lp)), lp.db[LEDGER].count_documents({})) == (2, 2)
    [status] = set_statuses(store, lp, "toys.children")
    assert (status.waiting, status.needed) == (0, {"gpu": 2})

    workers = [start_worker(mongo_database, tmp_path / name, idle=20.0) for name in ("one", "two")]
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    assert set(states(lp).values()) == {"COMPLETED"}
    [status] = set_statuses(store, lp, "toys.children")
    assert (status.waiting, status.running, status.statuses) == (0, 0, {"stable": 2, "unstable": 2})
    assert status.fireworks == {"COMPLETED": len(states(lp))}

    assert "stable children" in follow()
    assert len(list((tmp_path / "out").glob("toys.children/*/stable/*.cif"))) == 2
    assert found(store) == expected
    assert {name: expected[name]["family"]["outcome"] for name in UNSTABLE} == {
        "toys-simple": "stable",
        "toys-alloy": "none",
        "toys-body": "stable",
    }


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(each, marks=[] if each == "leave_children" else pytest.mark.slow)
        for each in ("leave_children", "tell_ended", "set_apart", "tell_families", *references(CONVERGED))
    ],
)
def test_a_worker_killed_anywhere_loses_and_doubles_nothing(where, site, expected, mongo_database, tmp_path):
    """In a step of the children, or before something is done to them or their parents."""
    store, lp, follow = site
    follow()
    told = str(tmp_path / "finished")
    killing = {"killed_in": where} if where in references(CONVERGED) else {"killed_before": where}
    worker = start_worker(mongo_database, tmp_path / "work", finished=told, **killing)
    worker.join(300)
    assert worker.exitcode == -9
    assert found(store) != expected
    finish(mongo_database, tmp_path / "work", lp, finished=told)
    assert set(Counter(lines(Path(told))).values()) == {1}
    assert "stable children" in follow()
    assert found(store) == expected
    assert lp.db[LEDGER].count_documents({}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--submit", "--workers", "2"], "leaves --workers and --batch-atoms"),
        (["--store", "mongo"], "give --submit, too"),
        (["--submit", "--store", "somewhere"], "need a MongoDB server"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    done = CliRunner().invoke(app, ["follow", "--set", "toys", "--potential", TOY, *options])
    assert (done.exit_code, words in " ".join(done.output.split())) == (2, True), done.output
