"""Submission: every crystal in one chunk, every chunk once, whatever is broken off, and FireWorks takes it all."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from fireworks import FWorker, LaunchPad, Workflow
from fireworks.scripts.lpad_run import lpad
from pymatgen.io.cif import CifWriter
from pymongo import monitoring
from typer.testing import CliRunner

from phononbench_flows import potentials
from phononbench_flows.cli import app
from phononbench_flows.cluster.launch import submit
from phononbench_flows.cluster.launchpad import (
    INDEXES,
    LEDGER,
    LaunchError,
    init_launchpad,
    launchpad,
    launchpad_settings,
    missing_indexes,
    write_launchpad,
)
from phononbench_flows.documents import PotentialRecord
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.chunks import WaitingCrystal
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.store import ResultsStore, full_spec

PAPER = PRESETS["paper"]
TOY = "toy_potentials:lj"


def crystal_set(name: str = "toys") -> CrystalSet:
    return CrystalSet(name, {}, PAPER, PotentialRecord(name=TOY, checkpoint_sha256="0" * 64))


def waiting(n: int, crystals: CrystalSet, start: int = 0) -> list[WaitingCrystal]:
    return [WaitingCrystal(f"{crystals.name}-{i}@{crystals.protocol_id}", 4, 1.0) for i in range(start, n)]


def connect(uri: str, database: str, **mongoclient_kwargs) -> LaunchPad:
    settings = launchpad_settings(uri, database)
    settings["mongoclient_kwargs"] |= mongoclient_kwargs
    return LaunchPad.from_dict(settings | {"strm_lvl": "WARNING"})


@pytest.fixture
def lp(mongo_uri, mongo_database) -> LaunchPad:
    lp = connect(mongo_uri, mongo_database)
    init_launchpad(lp)
    return lp


@pytest.fixture
def hand_out(lp, mongo_database):
    """Submit crystals of a set in chunks of three; the LaunchPad may be another connection to the same one."""

    def hand_out(items, crystals=None, lp=lp, **options):
        options = {"target": 3.0, "store": full_spec(f"mongo:{mongo_database}"), "potential": TOY} | options
        return submit(lp, crystals or crystal_set(), items, **options)

    return hand_out


def chunks_on(lp: LaunchPad, set_name: str = "toys") -> Counter[tuple[str, ...]]:
    """How often each chunk is on the LaunchPad, by its crystals; every workflow has to be whole and runnable."""
    found: Counter[tuple[str, ...]] = Counter()
    for document in lp.workflows.find({"metadata.set": set_name}):
        fireworks = [lp.get_fw_dict_by_id(number) for number in document["nodes"]]
        assert [(fw["name"], fw["state"]) for fw in fireworks] == [("stability of a chunk", "READY")]
        found[tuple(fireworks[0]["spec"]["_tasks"][0]["job"]["function_args"][0])] += 1
    numbers = [n for document in lp.workflows.find({"metadata.set": set_name}) for n in document["nodes"]]
    assert sorted(fw["fw_id"] for fw in lp.fireworks.find({"spec.set": set_name})) == sorted(numbers)
    return found


def names(chunk: tuple[str, ...]) -> str:
    return " ".join(key.partition("@")[0].partition("-")[2] for key in chunk)


# --------------------------------------------------------------------------------------------------- submission


def test_a_set_becomes_chunks_and_a_second_submission_adds_nothing(lp, hand_out):
    crystals = crystal_set()
    first = hand_out(waiting(7, crystals))
    assert (first.chunks, first.crystals, first.elsewhere) == (3, 7, {})
    assert {names(chunk): n for chunk, n in chunks_on(lp).items()} == {"0 1 2": 1, "3 4 5": 1, "6": 1}
    again = hand_out(waiting(7, crystals))
    assert (again.chunks, again.elsewhere) == (0, {"on the LaunchPad": 7})
    more = hand_out(waiting(9, crystals))
    assert (more.chunks, more.crystals) == (1, 2)
    assert {names(chunk): n for chunk, n in chunks_on(lp).items()} == {"0 1 2": 1, "3 4 5": 1, "6": 1, "7 8": 1}


def test_fireworks_are_routed_and_can_be_asked_for_by_set(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(3, crystals))
    hand_out(waiting(3, crystal_set("others")), crystal_set("others"))
    [firework] = lp.fireworks.find({"spec.set": "toys"})
    assert (firework["spec"]["_category"], firework["spec"]["protocol_id"]) == ("gpu", crystals.protocol_id)
    assert lp.get_wf_ids({"metadata.set": "toys"}) != lp.get_wf_ids({"metadata.set": "others"})
    assert lp.checkout_fw(FWorker(category="cpu"), "") == (None, None)
    assert lp.checkout_fw(FWorker(category=["gpu", "cpu"]), "")[0].name == "stability of a chunk"


def test_documents_hold_plain_types_and_no_store(lp, hand_out):
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(type(key) is str and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in {str, int, float, bool}

    hand_out(waiting(3, crystal_set()))
    for firework in lp.fireworks.find():
        assert plain(firework["spec"]), firework["spec"]
        assert firework["spec"]["_tasks"][0]["store"] is None


def test_crystals_that_wait_again_after_their_chunk_has_ended_are_handed_out_again(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(6, crystals))
    ended = {"metadata.chunk": lp.workflows.find_one(sort=[("nodes", 1)])["metadata"]["chunk"]}
    lp.workflows.update_one(ended, {"$set": {"state": "COMPLETED"}})
    again = hand_out(waiting(6, crystals))
    assert (again.chunks, again.crystals, again.elsewhere) == (1, 3, {"on the LaunchPad": 3})
    assert sorted(chunks_on(lp).values()) == [1, 2]
    assert hand_out(waiting(6, crystals)).chunks == 0


def test_fizzled_chunks_are_left_alone_and_told(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(3, crystals))
    lp.workflows.update_one({}, {"$set": {"state": "FIZZLED"}})
    assert hand_out(waiting(3, crystals)).elsewhere == {"on the LaunchPad, fizzled": 3}


def test_workflows_that_were_deleted_are_added_again(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(6, crystals))
    lp.delete_wf(1)
    assert hand_out(waiting(6, crystals)).chunks == 1
    lp.reset(None, require_password=False)
    assert hand_out(waiting(6, crystals)).chunks == 2
    assert list(chunks_on(lp).values()) == [1, 1]


class Killed(BaseException):
    """Takes the place of SIGKILL: nothing in the code under test may catch it."""


class KillAfter(monitoring.CommandListener):
    """Ends the submission as soon as so many database commands have been answered."""

    def __init__(self) -> None:
        self.left = 10**6

    def started(self, event) -> None: ...

    def failed(self, event) -> None: ...

    def succeeded(self, event) -> None:
        if event.command_name not in {"endSessions", "hello"}:
            self.left -= 1
            if self.left == 0:
                raise Killed


def test_killed_after_any_command_and_repeated_it_adds_every_chunk_once(lp, hand_out, mongo_uri, mongo_database):
    killer = KillAfter()
    mortal = connect(mongo_uri, mongo_database, event_listeners=[killer])
    survived = False
    for commands in range(1, 40):
        crystals = crystal_set(f"set{commands}")
        killer.left = commands
        try:
            hand_out(waiting(4, crystals), crystals, lp=mortal)
            survived = True
        except Killed:
            pass
        hand_out(waiting(4, crystals), crystals)
        found = {names(chunk): n for chunk, n in chunks_on(lp, crystals.name).items()}
        assert found == {"0 1 2": 1, "3": 1}, f"killed after {commands} commands"
        if survived:
            break
    assert survived
    assert commands > 8
    mortal.connection.close()


def test_a_workflow_of_which_only_some_fireworks_arrived_is_completed(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(3, crystals))
    before = chunks_on(lp)
    lp.fireworks.delete_many({"name": {"$ne": "spectrum"}})
    repaired = hand_out(waiting(3, crystals))
    assert (repaired.chunks, repaired.repaired) == (1, 1)
    assert chunks_on(lp) == before


def test_submissions_at_the_same_time_add_every_chunk_once(lp, hand_out, mongo_uri, mongo_database):
    crystals = crystal_set()
    others = [connect(mongo_uri, mongo_database) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda other: hand_out(waiting(12, crystals), crystals, lp=other), others))
    assert list(chunks_on(lp).values()) == [1] * 4


def test_a_launchpad_without_indices_and_a_name_that_fireworks_would_change_are_refused(
    mongo_uri, mongo_database, lp, hand_out
):
    empty = connect(mongo_uri, f"{mongo_database}_empty")
    with pytest.raises(LaunchError, match="init-db"):
        hand_out(waiting(3, crystal_set()), lp=empty)
    with pytest.raises(LaunchError, match="date"):
        hand_out([], crystal_set("20240101T000000"))


# -------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def launchpad_file(tmp_path, mongo_uri, mongo_database) -> Path:
    file = tmp_path / "my_launchpad.yaml"
    write_launchpad(file, launchpad_settings(mongo_uri, mongo_database))
    return file


def test_files_for_lpad_add_and_the_launchpad_never_both_get_a_chunk(lp, hand_out, launchpad_file, tmp_path):
    crystals, folder = crystal_set(), tmp_path / "flows"
    written = hand_out(waiting(6, crystals), folder=folder)
    files = sorted(folder.iterdir())
    assert (written.chunks, len(files), lp.workflows.count_documents({})) == (2, 2, 0)
    assert {file.suffix for file in files} == {".json"}
    again = hand_out(waiting(6, crystals), folder=folder)
    assert (again.chunks, again.elsewhere) == (0, {f"in files in {folder}": 6})
    assert hand_out(waiting(9, crystals)).elsewhere == {f"in files in {folder}": 6}
    assert {names(chunk) for chunk in chunks_on(lp)} == {"6 7 8"}

    lpad(["-l", str(launchpad_file), "add", *map(str, files)])
    assert {names(chunk): n for chunk, n in chunks_on(lp).items()} == {"0 1 2": 1, "3 4 5": 1, "6 7 8": 1}
    assert hand_out(waiting(9, crystals)).elsewhere == {"on the LaunchPad": 9}


def test_files_that_were_lost_are_written_again_and_files_can_be_taken_back(lp, hand_out, tmp_path):
    crystals, folder = crystal_set(), tmp_path / "flows"
    hand_out(waiting(6, crystals), folder=folder)
    lost, _ = sorted(folder.iterdir())
    before = json.loads(lost.read_text())
    lost.unlink()
    again = hand_out(waiting(6, crystals), folder=folder)
    assert (again.chunks, again.repaired) == (1, 1)
    assert json.loads(lost.read_text())["metadata"] == before["metadata"]
    assert Workflow.from_file(str(lost)).metadata["crystals"] == 3
    adopted = hand_out(waiting(6, crystals), adopt_files=True)
    assert adopted.crystals == 6
    assert not list(folder.iterdir())
    assert list(chunks_on(lp).values()) == [1, 1]


# -------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def crystals(tmp_path, fcc, simple_cubic) -> Path:
    folder = tmp_path / "crystals"
    folder.mkdir()
    for name, crystal in {"fcc": fcc, "again": fcc.get_primitive_structure(), "simple": simple_cubic}.items():
        CifWriter(crystal).write_file(folder / f"{name}.cif")
    (folder / "broken.cif").write_text("data_broken\n_cell_length_a")
    return folder


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return f"{result.exit_code} {' '.join(result.output.split())}"


def test_the_command_screens_as_a_run_does_and_loads_no_potential(
    lp, launchpad_file, mongo_database, crystals, monkeypatch
):
    monkeypatch.setattr(potentials, "load", None)
    options = ["--set", "toys", "--potential", TOY, "--store", f"mongo:{mongo_database}", "-l", launchpad_file]
    options += ["--protocol", "paper"]
    said = invoke("submit", crystals, *options, "--condition", "band_gap=1.5")
    assert said.startswith("0 ")
    assert "4 crystals, 4 new, 0 changed, 2 waiting 2 crystals in 1 chunks added to the LaunchPad" in said
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        found = {document.id: document for document in store.documents()}
    assert {name: document.status for name, document in found.items()} == {
        "toys-fcc": "duplicate",
        "toys-again": "pending",
        "toys-simple": "pending",
        "toys-broken": "rejected",
    }
    sha256 = potentials.identify(TOY).sha256
    assert found["toys-simple"].potential == PotentialRecord(name=TOY, checkpoint_sha256=sha256)
    assert found["toys-simple"].condition == {"band_gap": 1.5}
    assert {names(chunk) for chunk in chunks_on(lp)} == {"again simple"}
    again = invoke("submit", crystals, *options)
    assert (
        "0 crystals in 0 chunks added to the LaunchPad 2 crystals left alone, since they wait on the LaunchPad" in again
    )


def test_the_command_refuses_what_cannot_be(launchpad_file, tmp_path, crystals):
    submit_toys = ["submit", crystals, "--set", "toys", "--potential", TOY]
    for options, words in (
        (["--store", tmp_path], "need a MongoDB server"),
        (["--write", tmp_path, "--adopt-files"], "give one of the two"),
        (["-l", launchpad_file], "init-db"),
        (["-l", tmp_path / "absent.yaml"], "cannot be read"),
    ):
        said = invoke(*submit_toys, *options)
        assert said.startswith("2 ")
        assert words in said


# ------------------------------------------------------------------------------------------- the LaunchPad's file


def test_initialising_resets_nothing(lp, hand_out):
    hand_out(waiting(3, crystal_set()))
    counters = lp.fw_id_assigner.find_one()
    init_launchpad(lp)
    assert missing_indexes(lp) == []
    assert list(lp.fw_id_assigner.find()) == [counters]
    assert lp.fireworks.count_documents({}) == 1
    for name in INDEXES:
        lp.db[name].drop_indexes()
    assert any(each.startswith(LEDGER) for each in missing_indexes(lp))
    assert "fireworks (fw_id)" in missing_indexes(lp)


def test_the_launchpads_file_keeps_login_and_host_apart(tmp_path):
    uri = "mongodb://m+e:p%40ss@db1:27017,db2/?replicaSet=rs0&tls=true&authSource=admin"
    settings = launchpad_settings(uri, "phonons")
    assert settings["host"] == "mongodb://db1:27017,db2/?replicaSet=rs0&tls=true&authSource=admin"
    assert settings["mongoclient_kwargs"] == {"username": "m e", "password": "p@ss"}
    file = tmp_path / "deep" / "my_launchpad.yaml"
    write_launchpad(file, settings)
    assert file.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load(file.read_text()) == settings
    file.chmod(0o640)
    with pytest.raises(LaunchError, match="chmod 600"):
        launchpad(file, database="phonons")


@pytest.mark.parametrize("text", ["", "name: phonons", "host: [", "- host"])
def test_a_file_that_is_no_launchpads_is_refused(tmp_path, text):
    file = tmp_path / "my_launchpad.yaml"
    file.write_text(text)
    with pytest.raises(LaunchError, match="my_launchpad"):
        launchpad(file, database="phonons")
    with pytest.raises(LaunchError, match="cannot be read"):
        launchpad(tmp_path / "absent.yaml", database="phonons")


# --------------------------------------------------------------------------------------------------- corrections


def flows_on(lp: LaunchPad) -> Counter[str]:
    """Devices of the jobs that may be run first."""
    found = lp.fireworks.find({"state": "READY"}, {"spec._tasks": 1})
    return Counter(each["spec"]["_tasks"][0]["job"]["function"]["@bound"]["device"] for each in found)


def test_a_submission_is_corrected_but_for_what_was_begun(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(7, crystals), device="cuda")
    begun = lp.fireworks.find_one({"state": "READY"}, sort=[("fw_id", 1)])["fw_id"]
    lp.checkout_fw(FWorker(), "/nowhere", fw_id=begun)
    told = hand_out(waiting(7, crystals))
    assert (told.chunks, told.withdrawn, told.differing) == (0, 0, {"device cuda instead of auto": 7})
    assert flows_on(lp) == {"cuda": 2}
    done = hand_out(waiting(7, crystals), replace_waiting=True)
    assert (done.chunks, done.withdrawn, done.crystals) == (2, 2, 4)
    assert done.differing == {"device cuda instead of auto": 3}
    assert flows_on(lp) == {"auto": 2}
    assert lp.fireworks.find_one({"fw_id": begun})["state"] == "RUNNING"
    numbers = [n for document in lp.workflows.find({}) for n in document["nodes"]]
    assert sorted(fw["fw_id"] for fw in lp.fireworks.find({})) == sorted(numbers)
    assert hand_out(waiting(7, crystals)).chunks == 0
    # Other chunks of the same crystals, and the old ones once more.
    assert hand_out(waiting(7, crystals), replace_waiting=True, target=1.0).chunks == 4
    assert hand_out(waiting(7, crystals), replace_waiting=True).chunks == 2
    assert flows_on(lp) == {"auto": 2}


def test_a_workflow_that_was_deleted_is_withdrawn_and_one_that_never_came_is_not(lp, hand_out):
    crystals = crystal_set()
    hand_out(waiting(6, crystals))
    lost = lp.workflows.find_one({})
    lp.delete_wf(lost["nodes"][0])
    again = hand_out(waiting(6, crystals), device="cpu")
    assert (again.chunks, again.repaired, again.crystals) == (1, 0, 3)
    assert flows_on(lp) == {"auto": 1, "cpu": 1}


def test_chunks_are_shown_and_forgotten(lp, hand_out, mongo_uri, mongo_database, tmp_path):
    write_launchpad(tmp_path / "my_launchpad.yaml", launchpad_settings(mongo_uri, mongo_database))
    where = ["--store", f"mongo:{mongo_database}", "-l", str(tmp_path / "my_launchpad.yaml")]
    crystals = crystal_set()
    hand_out(waiting(6, crystals))
    first, second = json.loads(CliRunner().invoke(app, ["chunks", "--json", *where]).stdout)
    assert (first["state"], first["crystals"], first["device"]) == ("ready", 3, "auto")
    begun = lp.workflows.find_one({"metadata.chunk": second["chunk"]})["nodes"]
    lp.checkout_fw(FWorker(), "/nowhere", fw_id=max(begun, key=lambda n: lp.get_fw_dict_by_id(n)["state"] == "READY"))
    said = CliRunner().invoke(app, ["chunks", "--forget", first["chunk"], *where])
    assert (said.exit_code, "3 crystals are free" in said.output) == (0, True), said.output
    refused = CliRunner().invoke(app, ["chunks", "--forget", second["chunk"], *where])
    assert (refused.exit_code, "a worker has begun it" in refused.output) == (2, True)
    shown = CliRunner().invoke(app, ["chunks", *where]).stdout
    assert "withdrawn" in shown
    again = hand_out(waiting(6, crystals))
    assert (again.chunks, again.crystals) == (1, 3)
