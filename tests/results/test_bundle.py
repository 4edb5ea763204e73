"""Bundles: packed, checked byte by byte, and put into another store."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from pathlib import Path

import ase.io
import pytest
import synthetic
from forged import documents_of, rewritten, with_documents
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument, CrystalDocument
from phononbench_flows.protocol import Judgement, Protocol
from phononbench_flows.results.bundle import (
    CRYSTALS,
    DOCUMENTS,
    PROTOCOL,
    SET,
    BundleError,
    pack,
    unpack,
    verify,
)
from phononbench_flows.stability import Evidence
from phononbench_flows.steps.passing import conclude
from phononbench_flows.store import ResultsStore

PARTS = ("rejected", "duplicate", "known", "failed", "judged")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store")
    synthetic.fill(path, 60).close()
    return path


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "alpha.zip"
    with ResultsStore.open(folder) as store:
        pack(store, "Alpha", path, force_constants=True)
    return path


def test_a_bundle_verifies(packed):
    manifest = verify(packed)
    assert manifest.set == "Alpha"
    assert manifest.counts["generated"] == 20
    assert sum(manifest.counts[part] for part in PARTS) == 20
    assert manifest.checkpoint_sha256 == synthetic.CHECKPOINT
    assert manifest.protocol_id == synthetic.PROTOCOL_ID


def test_what_is_in_it(packed, folder):
    with zipfile.ZipFile(packed) as bundle, ResultsStore.open(folder) as store:
        names = bundle.namelist()
        judged = [d for d in store.documents({"set": "Alpha"}, sort={"id": 1}) if d.arrays]
        assert {name for d in judged for name in d.arrays} == {"band_structure", "force_constants"}
        refs = {ref.sha256 for d in judged for ref in d.arrays.values()}
        assert {name.split("/")[-1].removesuffix(".npz") for name in names if name.startswith("blobs/")} == refs
        lines = gzip.decompress(bundle.read(DOCUMENTS)).splitlines()
        documents = [CalculationDocument.model_validate_json(line) for line in lines]
        assert documents == list(store.documents({"set": "Alpha"}, sort={"id": 1}))
        lines = gzip.decompress(bundle.read(CRYSTALS)).splitlines()
        crystals = [CrystalDocument.model_validate_json(line) for line in lines]
        assert [crystal.id for crystal in crystals] == [document.id for document in documents]
        assert {crystal.id: crystal for crystal in crystals} == {
            c.id: c for c in store.crystals(c.id for c in crystals)
        }
        assert sum(crystal.structure is not None for crystal in crystals) > len(judged)
        frames = io.StringIO(gzip.decompress(bundle.read("relaxed.extxyz.gz")).decode())
        assert [atoms.info["id"] for atoms in ase.io.read(frames, ":", format="extxyz")] == [d.id for d in judged]
        assert json.loads(bundle.read(SET))["model"] == "Model Alpha"


def test_the_same_content_makes_the_same_bytes(packed, folder, tmp_path):
    with ResultsStore.open(folder) as store:
        pack(store, "Alpha", tmp_path / "again.zip", force_constants=True)
        store.put_set(store.get_set("Alpha"))  # written again, but not another one
        pack(store, "Alpha", tmp_path / "later.zip", force_constants=True)
        pack(store, "Alpha", tmp_path / "small.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert (tmp_path / "later.zip").read_bytes() == packed.read_bytes()
    assert len(verify(tmp_path / "small.zip").files) == len(verify(packed).files) - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.zip", "later.zip", "small.zip"]


def test_a_report_may_go_along(folder, tmp_path):
    report = tmp_path / "report"
    (report / "tables").mkdir(parents=True)
    (report / "report.html").write_text("a page")
    (report / "tables" / "by_crystal_system.csv").write_text("a table")
    with ResultsStore.open(folder) as store:
        pack(store, "Alpha", tmp_path / "x.zip", report=report)
    names = {name for name in verify(tmp_path / "x.zip").files if name.startswith("report/")}
    assert names == {"report/report.html", "report/tables/by_crystal_system.csv"}


def test_a_changed_byte_of_any_file_is_found_and_named(packed, tmp_path):
    data = packed.read_bytes()
    with zipfile.ZipFile(packed) as bundle:
        members = bundle.infolist()
    for member in members:
        at = member.header_offset + 30 + len(member.filename) + member.file_size // 2
        changed = tmp_path / "changed.zip"
        changed.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(BundleError, match=member.filename):
            verify(changed)


def test_a_changed_byte_anywhere_is_found(packed, tmp_path):
    data = packed.read_bytes()
    with zipfile.ZipFile(packed) as bundle:
        starts = [member.header_offset for member in bundle.infolist()]
        directory = bundle.start_dir
    draw = random.Random(1)
    headers = [start + offset for start in starts[:2] for offset in range(40)]
    places = [*headers, *draw.sample(range(directory, len(data)), 80), *draw.sample(range(len(data)), 80)]
    changed = tmp_path / "changed.zip"
    for at in places:
        changed.write_bytes(data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :])
        with pytest.raises(BundleError):
            verify(changed)
    for other in (data[:-1], data + b"\0", b"\0" + data, data[: len(data) // 2], b""):
        changed.write_bytes(other)
        with pytest.raises(BundleError, match=r"changed\.zip"):
            verify(changed)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "blobs/../../x.npz", "report/../x.html", "C:\\x", "more.txt"]
)
def test_unsafe_names_are_refused(packed, tmp_path, name):
    forged = rewritten(packed, tmp_path / "forged.zip", lambda members: members.update({name: b"x"}))
    with pytest.raises(BundleError, match="no place"):
        verify(forged)


def test_a_member_twice_or_missing(packed, tmp_path):
    twice = tmp_path / "twice.zip"
    twice.write_bytes(packed.read_bytes())
    with zipfile.ZipFile(twice, "a") as bundle, pytest.warns(UserWarning, match="Duplicate"):
        bundle.writestr(SET, "{}")
    with pytest.raises(BundleError, match="twice"):
        verify(twice)
    with pytest.raises(BundleError, match=f"{PROTOCOL} is missing"):
        verify(rewritten(packed, tmp_path / "less.zip", lambda members: members.pop(PROTOCOL)))


def _first_judged(documents: list[dict]) -> dict:
    return next(each for each in documents if each["status"] in {"stable", "unstable"})


def _other_verdict(documents: list[dict]) -> None:
    judged = _first_judged(documents)
    judged["status"] = "stable" if judged["status"] == "unstable" else "unstable"


def _other_frequency(documents: list[dict]) -> None:
    judged = _first_judged(documents)
    other = 0.0 if judged["status"] == "unstable" else -5.0
    judged["evidence"]["looks"]["path"]["frequency"] = judged["minimum"]["frequency"] = other


def _other_minimum(documents: list[dict]) -> None:
    _first_judged(documents)["minimum"]["frequency"] = -0.05


def _other_assessment(documents: list[dict]) -> None:
    _first_judged(documents)["assessments"][1].update(stability="undecided")


def _less_assessments(documents: list[dict]) -> None:
    _first_judged(documents)["assessments"].pop()


def _no_look(documents: list[dict]) -> None:
    del _first_judged(documents)["evidence"]["looks"]["path"]


def _no_number(documents: list[dict]) -> None:
    judged = _first_judged(documents)
    judged["evidence"]["looks"]["path"]["frequency"] = judged["minimum"]["frequency"] = float("nan")


def _undecided(documents: list[dict]) -> None:
    _first_judged(documents).update(status="undecided")


def _other_set(documents: list[dict]) -> None:
    documents[3]["set"] = "Beta"


def _other_key(documents: list[dict]) -> None:
    documents[3]["key"] = "x"


def _other_protocol(documents: list[dict]) -> None:
    documents[3]["protocol_id"] = "p1"


def _other_potential(documents: list[dict]) -> None:
    documents[3]["potential"]["checkpoint_sha256"] = "0" * 64


def _pending(documents: list[dict]) -> None:
    failed = next(each for each in documents if each["status"] not in {"stable", "unstable"})
    failed.update(status="pending", reason=None)


def _other_bands(documents: list[dict]) -> None:
    _first_judged(documents)["arrays"]["band_structure"]["sha256"] = "0" * 64


def _twice(documents: list[dict]) -> None:
    documents[4] = documents[3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_verdict, "verdict"),
        (_other_frequency, "verdict"),
        (_other_minimum, "verdict"),
        (_other_assessment, "verdict"),
        (_less_assessments, "verdict"),
        (_no_look, "verdict"),
        (_no_number, "verdict"),
        (_undecided, "verdict"),
        (_other_set, "is of set"),
        (_other_key, "key"),
        (_other_protocol, "names protocol"),
        (_other_potential, "names protocol"),
        (_pending, "not finished"),
        (_other_bands, "not in both"),
        (_twice, "twice"),
        (lambda documents: documents.pop(), "does not hold one crystal for each"),
        (lambda documents: documents[0].update(status="good"), "line 1, is no CalculationDocument"),
        (lambda documents: documents[3].update(formula_pretty="Xx"), "differ in 'formula_pretty'"),
    ],
)
def test_what_does_not_hold_together_is_refused(packed, tmp_path, change, words):
    def forge(members: dict[str, bytes]) -> None:
        documents = documents_of(members)
        change(documents)
        with_documents(members, documents)

    with pytest.raises(BundleError, match=words):
        verify(rewritten(packed, tmp_path / "forged.zip", forge))


def _crystal_less(crystals: list[dict]) -> None:
    crystals.pop()


def _crystal_twice(crystals: list[dict]) -> None:
    crystals[4] = crystals[3]


def _other_source(crystals: list[dict]) -> None:
    crystals[3]["origin"]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_crystal_less, "crystals.jsonl.gz does not hold one crystal for each of documents.jsonl.gz"),
        (lambda crystals: crystals.append(crystals[-1]), "does not hold one crystal for each"),
        (_crystal_twice, "differ in"),
        (_other_source, "differ in 'origin'"),
        (lambda crystals: crystals[0].update(condition={"band_gap": 1.0}), "differ in 'condition'"),
        (lambda crystals: crystals[0].update(stability="stable"), "line 1, is no CrystalDocument"),
    ],
)
def test_crystals_that_do_not_belong_to_the_documents_are_refused(packed, tmp_path, change, words):
    def forge(members: dict[str, bytes]) -> None:
        crystals = documents_of(members, CRYSTALS)
        change(crystals)
        with_documents(members, crystals, CRYSTALS)

    with pytest.raises(BundleError, match=words):
        verify(rewritten(packed, tmp_path / "forged.zip", forge))


def test_a_document_less_is_a_count_less(packed, tmp_path):
    def forge(members: dict[str, bytes]) -> None:
        for name in (DOCUMENTS, CRYSTALS):
            with_documents(members, documents_of(members, name)[:-1], name)

    with pytest.raises(BundleError, match=r"manifest\.json: 'counts'"):
        verify(rewritten(packed, tmp_path / "forged.zip", forge))


def test_a_store_that_lacks_a_crystal_is_not_packed(tmp_path):
    with synthetic.fill(tmp_path / "store", 12) as store:
        store._crystals.remove_docs({"id": "Alpha-00003"})
        with pytest.raises(BundleError, match="the store lacks the crystal Alpha-00003"):
            pack(store, "Alpha", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_crystal_that_was_read_anew_since_is_not_packed(tmp_path):
    with synthetic.fill(tmp_path / "store", 12) as store:
        crystal = store.crystal("Alpha-00003")
        crystal.condition = {"band_gap": 1.0}
        store.put_crystals(crystal)
        with pytest.raises(BundleError, match="the crystal Alpha-00003 has changed its 'condition' since Alpha-00003@"):
            pack(store, "Alpha", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_undecided_crystals_are_packed_too(tmp_path):
    with synthetic.fill(tmp_path / "store", 30) as store:
        document = next(store.documents({"set": "Alpha", "status": "stable"}))
        looks = {place: look for place, look in document.evidence.looks.items() if place != "path"}
        document.evidence = Evidence(looks=looks)
        conclude(document, synthetic.PROTOCOL)
        assert document.status == "undecided"
        store.put(document)
        counts = pack(store, "Alpha", tmp_path / "x.zip").counts
        assert (counts["undecided"], counts["generated"]) == (1, 10)
        assert sum(counts[part] for part in (*PARTS, "undecided")) == 10
    assert verify(tmp_path / "x.zip").counts == counts
    with ResultsStore.open(tmp_path / "mine", create=True) as target:
        unpack(tmp_path / "x.zip", target)
        assert target.count({"status": "undecided"}) == 1


def test_another_protocol_is_refused(packed, tmp_path):
    other = Protocol(judgement=Judgement(threshold=-0.2)).to_yaml().encode()
    with pytest.raises(BundleError, match=r"protocol\.yaml"):
        verify(rewritten(packed, tmp_path / "forged.zip", lambda members: members.update({PROTOCOL: other})))


def test_only_finished_sets_judged_in_one_known_way_are_packed(tmp_path):
    own = Protocol(name="mine", judgement=Judgement(threshold=-0.05))
    out = tmp_path / "x.zip"
    with synthetic.fill(tmp_path / "store", 12) as store:
        with pytest.raises(BundleError, match="no crystals of set 'Nobody'"):
            pack(store, "Nobody", out)
        with pytest.raises(BundleError, match="no crystals of set 'Alpha' judged by this protocol"):
            pack(store, "Alpha", out, protocol=own)
        document = next(store.documents({"set": "Beta"}))
        document.status = "pending"
        store.put(document)
        with pytest.raises(BundleError, match="1 crystals of set 'Beta' are not finished"):
            pack(store, "Beta", out)
        ours = own.id_with(synthetic.CHECKPOINT)
        for rejected in list(store.documents({"set": "Gamma-2"})):
            changes = {"protocol_id": ours, "key": f"{rejected.id}@{ours}", "protocol_name": "mine", "phonon": None}
            changes |= {"status": "rejected", "reason": "unparsable", "assessments": [], "arrays": {}}
            store.put(rejected.model_copy(update=changes))
        with pytest.raises(BundleError, match="several ways"):
            pack(store, "Gamma-2", out)
        assert pack(store, "Gamma-2", out, protocol=own).protocol_hash == own.hash
        assert list(tmp_path.glob("*.zip")) == [out]
        assert verify(out).counts["rejected"] == 4
        for rejected in list(store.documents({"set": "Gamma-2", "protocol_id": ours})):
            other = rejected.potential.model_copy(update={"name": "other", "checkpoint_sha256": "f" * 64})
            theirs = own.id_with("f" * 64)
            changes = {"protocol_id": theirs, "key": f"{rejected.id}@{theirs}", "potential": other}
            store.put(rejected.model_copy(update=changes))
        with pytest.raises(BundleError, match=r"several ways .*: name the protocol or the potential"):
            pack(store, "Gamma-2", out, protocol=own)
        assert pack(store, "Gamma-2", out, protocol=own, potential="other").protocol_hash == own.hash
        with pytest.raises(BundleError, match="judged by this protocol with the potential 'nobody'"):
            pack(store, "Gamma-2", out, protocol=own, potential="nobody")
        store._calculations.remove_docs({"set": "Gamma-2", "protocol_id": {"$in": [synthetic.PROTOCOL_ID, theirs]}})
        with pytest.raises(BundleError, match="no preset: give its file"):
            pack(store, "Gamma-2", out)


def test_into_a_store_of_ones_own(packed, folder, tmp_path):
    with ResultsStore.open(folder, create=True) as source, ResultsStore.open(tmp_path / "mine", create=True) as target:
        for _ in range(2):
            unpack(packed, target)
            documents = {document.id: document for document in target.documents()}
            assert len(documents) == 20
        for document in source.documents({"set": "Alpha"}):
            found = documents[document.id]
            assert found == document.model_copy(update={"updated_at": found.updated_at})
            given, crystal = source.crystal(document.id), target.crystal(document.id)
            assert crystal == given.model_copy(update={"updated_at": crystal.updated_at})
            for ref in document.arrays.values():
                assert target.blobs.read(ref) == source.blobs.read(ref)
        assert any(document.arrays for document in documents.values())
        assert target.get_set("Alpha").model == "Model Alpha"


def test_nothing_is_overwritten(packed, tmp_path):
    with ResultsStore.open(tmp_path / "mine", create=True) as target:
        unpack(packed, target)
        mine = next(target.documents({"status": "stable"}))
        mine.detail = "mine"
        target.put(mine)
        target._calculations.remove_docs({"status": "unstable"})
        there = target.count()
        with pytest.raises(BundleError, match=mine.key):
            unpack(packed, target)
        assert target.count() == there
        assert target.get(mine.key).detail == "mine"
        target._calculations.remove_docs({})
        crystal = target.crystal(mine.id)
        crystal.formula_pretty = "Xx"
        target.put_crystals(crystal)
        with pytest.raises(BundleError, match=f"the store has {mine.id} already"):
            unpack(packed, target)
        assert target.count() == 0
        assert target.crystal(mine.id).formula_pretty == "Xx"


def test_another_description_of_the_set_is_kept(packed, tmp_path):
    with ResultsStore.open(tmp_path / "mine", create=True) as target:
        unpack(packed, target)
        about = target.get_set("Alpha")
        about.model = "Another"
        target.put_set(about)
        with pytest.raises(BundleError, match="describes set 'Alpha' otherwise"):
            unpack(packed, target)
        assert target.get_set("Alpha").model == "Another"


def test_into_mongodb(packed, mongo_database, tmp_path):
    with ResultsStore.open(f"mongo:{mongo_database}") as target:
        unpack(packed, target)
        assert target.count() == len(list(target.crystals(target.distinct("id")))) == 20
        pack(target, "Alpha", tmp_path / "again.zip", force_constants=True)
    assert verify(tmp_path / "again.zip").counts == verify(packed).counts


def test_the_commands(folder, tmp_path):
    def invoke(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    out, mine = tmp_path / "beta.zip", tmp_path / "mine"
    for arguments in (["pack", folder, "--set", "Beta", "--out", out], ["verify", out], ["unpack", out, mine]):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        assert "set Beta, 20 generated = " in result.output
    assert "no crystals" in invoke("pack", folder, "--set", "Nobody", "--out", out).output
    out.write_bytes(out.read_bytes()[:-5])
    broken = invoke("verify", out)
    assert broken.exit_code == 2
    assert "beta.zip" in broken.output
    assert invoke("unpack", out, tmp_path / "other").exit_code == 2
    assert invoke("verify", tmp_path / "nothing.zip").exit_code == 2
