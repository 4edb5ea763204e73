"""Documents that name code: refused, and nothing that they name is imported by any command."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest
import synthetic
import yaml
from forged import documents_of, rewritten, with_documents
from pymatgen.core import DummySpecies, Lattice, Structure
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument, CrystalDocument
from phononbench_flows.judging import JudgedCrystal
from phononbench_flows.protocol import PRESETS
from phononbench_flows.results.bundle import CRYSTALS, DOCUMENTS, MANIFEST, PROTOCOL, BundleError, pack, unpack, verify
from phononbench_flows.sets.relaxed import compare_relaxed
from phononbench_flows.steps import StepError, StepInput, installed_step
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.sqlite import SQLiteStore
from phononbench_flows.structures import StoredStructureError, stored_structure

TRAP = {"@module": "trap", "@class": "Trap", "@version": None}
CALLED = {"@module": "trap", "@callable": "spring"}
STEP = "trap:STEP"


@pytest.fixture(autouse=True)
def trap(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported; the test fails if it is there at the end."""
    (tmp_path / "trap").mkdir()
    sprung = tmp_path / "sprung"
    (tmp_path / "trap" / "trap.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path / "trap")
    yield
    assert not sprung.exists()
    assert "trap" not in sys.modules


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "alpha.zip"
    with synthetic.fill(path.parent / "store", 24) as store:
        pack(store, "Alpha", path)
    return path


def armed(structure: dict, place: str, what: dict = TRAP) -> dict:
    """A crystal's dictionary with code named in a place."""
    armed = json.loads(json.dumps(structure))
    {
        "site": armed["sites"][0]["properties"],
        "second site": armed["sites"][-1]["properties"],
        "crystal": armed["properties"],
        "lattice": armed["lattice"],
        "species": armed["sites"][0]["species"][0],
        "top": armed,
    }[place]["magmom"] = what
    return armed


PLACES = ("site", "second site", "crystal", "lattice", "species", "top")


@pytest.fixture
def crystal() -> dict:
    return Structure(Lattice.cubic(4.2), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict()


def test_pymatgens_own_reader_would_import_it(crystal, tmp_path):
    (tmp_path / "trap" / "loud.py").write_text("raise RuntimeError('sprung')")
    with pytest.raises(RuntimeError, match="sprung"):
        Structure.from_dict(armed(crystal, "site", TRAP | {"@module": "loud"}))


@pytest.mark.parametrize("what", [TRAP, CALLED, [TRAP], {"deep": TRAP}, "text", 1.5])
@pytest.mark.parametrize("place", PLACES)
def test_a_crystal_that_holds_more_than_numbers_and_symbols_is_refused(crystal, place, what):
    with pytest.raises(StoredStructureError, match=r"^NaCl: .*magmom|^NaCl: .*properties"):
        stored_structure(armed(crystal, place, what), "NaCl")


@pytest.mark.parametrize("change", [{"@module": "trap"}, {"@class": "Trap"}, {"sites": [TRAP]}, {"lattice": TRAP}])
def test_another_class_is_refused(crystal, change):
    with pytest.raises(StoredStructureError):
        stored_structure(crystal | change, "NaCl")


@pytest.mark.parametrize("plain", [None, [], "trap", {}, {"fmt": "abivars"}, 7])
def test_what_is_no_crystal_is_refused_with_its_name(plain):
    with pytest.raises(StoredStructureError, match=r"^x: "):
        stored_structure(plain, "x")


def test_a_name_in_the_message_does_not_move_the_cursor(crystal):
    with pytest.raises(StoredStructureError, match=r"^x: [ -~]+$"):
        stored_structure(crystal | {"\x1b[2J\u202e": 1}, "x")


@pytest.mark.parametrize(
    "structure",
    [
        Structure(Lattice.from_parameters(3, 4.1, 5, 80, 95, 101), ["D", "O", "Uue"[:1]], [[0.1, -0.2, 1.3]] * 3),
        Structure(Lattice.cubic(3), [DummySpecies("Xx", 0), "Fe3+"], [[0, 0, 0], [1 / 3, 2 / 3, 0.1]]),
        Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.25}], [[0, 0, 0]]),
        Structure(Lattice.cubic(3), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], charge=1),
    ],
    ids=["skew", "species", "disordered", "charged"],
)
def test_a_crystal_comes_back_to_the_last_bit(structure):
    plain = json.loads(json.dumps(structure.as_dict()))
    assert stored_structure(plain, "x") == Structure.from_dict(plain)
    assert stored_structure(plain, "x").as_dict() == Structure.from_dict(plain).as_dict()


# -- a bundle --------------------------------------------------------------------------------------------------


def forged(packed: Path, out: Path, member: str, field: str, place: str = "site") -> Path:
    def change(members: dict[str, bytes]) -> None:
        documents = documents_of(members, member)
        one = next(each for each in documents if each[field])
        one[field] = armed(one[field], place)
        with_documents(members, documents, member)

    return rewritten(packed, out, change)


@pytest.mark.parametrize(
    ("member", "field", "place"), [(DOCUMENTS, "relaxed_structure", "site"), (CRYSTALS, "structure", "lattice")]
)
def test_a_bundle_that_names_code_is_refused(packed, tmp_path, member, field, place):
    with pytest.raises(BundleError, match=rf"{member}: Alpha-\d+: .* is refused"):
        verify(forged(packed, tmp_path / "forged.zip", member, field, place))


def test_nothing_of_it_is_unpacked(packed, tmp_path):
    path = forged(packed, tmp_path / "forged.zip", DOCUMENTS, "relaxed_structure")
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        with pytest.raises(BundleError):
            unpack(path, store)
        assert store.count() == 0
    for command in (["verify", str(path)], ["unpack", str(path), str(tmp_path / "other")]):
        answer = CliRunner().invoke(app, command)
        assert answer.exit_code == 2, answer.output
        assert "is refused" in " ".join(answer.stderr.split())


def test_a_bundle_whose_documents_name_steps_of_their_own_is_refused(packed, tmp_path):
    def change(members: dict[str, bytes]) -> None:
        documents = documents_of(members)
        documents[3]["steps"] += [STEP]
        with_documents(members, documents)

    with pytest.raises(BundleError, match="other steps than its protocol"):
        verify(rewritten(packed, tmp_path / "forged.zip", change))


def test_a_bundle_by_a_protocol_with_a_step_of_its_own_verifies_and_imports_nothing(packed, tmp_path):
    protocol = PRESETS["paper"].model_copy(update={"further_steps": {STEP: {}}})
    protocol_id = protocol.id_with(synthetic.CHECKPOINT)

    def change(members: dict[str, bytes]) -> None:
        documents = documents_of(members)
        for each in documents:
            each |= {"protocol_id": protocol_id, "key": f"{each['id']}@{protocol_id}", "steps": [*each["steps"], STEP]}
        with_documents(members, documents)
        members[PROTOCOL] = yaml.safe_dump(protocol.model_dump(mode="json")).encode()

    path = rewritten(packed, tmp_path / "own.zip", change)
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    manifest = json.loads(members.pop(MANIFEST)) | {"protocol_id": protocol_id, "protocol_hash": protocol.hash}
    again = tmp_path / "again.zip"
    with zipfile.ZipFile(again, "w") as bundle:
        for name, data in (members | {MANIFEST: json.dumps(manifest, indent=1).encode() + b"\n"}).items():
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o644 << 16
            bundle.writestr(member, data)
    assert verify(again).protocol_id == protocol_id
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        unpack(again, store)
    answer = CliRunner().invoke(app, ["query", str(tmp_path / "results"), "--format", "csv"])
    assert answer.exit_code == 0, answer.output
    assert f"without the columns of the step {STEP}" in " ".join(answer.stderr.split())


# -- a store that holds such documents, as one of before does if it was unpacked into it ---------------------------


@pytest.fixture
def armed_store(tmp_path) -> Path:
    """Two formulas of one crystal each and two of another, all of them relaxed, with code named in all places."""
    folder = tmp_path / "results"
    synthetic.fill(folder, 24).close()
    calculations, crystals = (SQLiteStore(str(folder / name)) for name in ("results.sqlite", "crystals.sqlite"))
    documents = list(calculations.query({}))
    relaxed = next(each["relaxed_structure"] for each in documents if each.get("relaxed_structure"))
    for each in documents:
        each["steps"] = [*each["steps"], STEP]
        if each.get("relaxed_structure"):
            each |= {"relaxed_structure": armed(relaxed, "site"), "formula_pretty": "NaCl"}
    calculations.update(documents)
    read = list(crystals.query({}))
    for each in read:
        each["structure"] = each["structure"] and armed(each["structure"], "second site")
    crystals.update(read)
    return folder


def test_no_command_imports_what_documents_name(armed_store, tmp_path):
    where = str(armed_store)
    stable = json.loads(CliRunner().invoke(app, ["query", where, "--format", "jsonl", "--limit", "1"]).stdout)["id"]
    refusing = [
        ["query", where, "--format", "cif", "--out", str(tmp_path / "cif")],
        ["query", where, "--format", "extxyz", "--out", str(tmp_path / "all.xyz")],
        ["show", stable, where],
        ["pack", where, "--set", "Alpha", "--out", str(tmp_path / "a.zip")],
        ["report", where, "--out", str(tmp_path / "report")],
    ]
    others = [
        ["query", where],
        ["query", where, "--format", "csv"],
        ["query", where, "--format", "parquet", "--out", str(tmp_path / "all.parquet")],
        ["query", where, "--format", "emmet"],
        ["query", where, "--format", "phonopy", "--out", str(tmp_path / "phonopy")],
    ]
    for command in (*refusing, *others):
        answer = CliRunner().invoke(app, command)
        assert answer.exception is None or isinstance(answer.exception, SystemExit), (command, answer.exception)
        assert "trap" not in sys.modules, command
        if command in refusing:
            assert answer.exit_code == 2, command
            assert "what should be its crystal is refused" in " ".join(answer.stderr.split()), command


def test_neither_does_comparing_nor_a_step_nor_a_judged_crystal(armed_store):
    with ResultsStore.open(armed_store) as store:
        document = next(store.documents({"relaxed_structure": {"$ne": None}}))
        with pytest.raises(StoredStructureError, match=document.id):
            compare_relaxed(store, {"set": document.set})
    arrays: dict = {}
    with pytest.raises(StoredStructureError, match=document.id):
        _ = StepInput(document, lambda: None, arrays.__getitem__).relaxed
    crystal = CrystalDocument(id=document.id, set=document.set, origin=document.origin)
    with pytest.raises(StoredStructureError, match=document.id):
        _ = JudgedCrystal(CalculationDocument(**document.model_dump()), crystal).structure


def test_a_step_that_a_document_names_by_its_place_is_not_imported():
    with pytest.raises(StepError, match="code that a document names"):
        installed_step(STEP)
    assert installed_step("relaxation").name == "relaxation"
