from __future__ import annotations

import hashlib

import pytest
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from phononbench_flows.documents import PotentialRecord
from phononbench_flows.outcomes import READ, SCREENED, Reason, Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.ingest import CrystalSet, ingest
from phononbench_flows.store import ResultsStore

POTENTIAL = PotentialRecord(name="toy", checkpoint_sha256="0" * 64, dtype="float64", device="cpu")
SET = CrystalSet("gen", {"band_gap": 1.5}, PRESETS["paper"], POTENTIAL, lambda: frozenset({"Cu", "Au", "Ag"}))


@pytest.fixture
def store(tmp_path):
    with ResultsStore.open(tmp_path / "results", create=True) as store:
        yield store


@pytest.fixture
def folder(tmp_path, fcc, cu3au, low_symmetry):
    path = tmp_path / "crystals"
    path.mkdir()
    primitive = fcc.get_primitive_structure()
    for name, structure in {
        "a": fcc,
        "b": cu3au,
        "c": primitive,
        "d": Structure(fcc.lattice, ["Xe"] * 4, fcc.frac_coords),
        "e": low_symmetry,
    }.items():
        CifWriter(structure).write_file(path / f"{name}.cif")
    (path / "f.cif").write_text("not a crystal")
    return path


def statuses(store: ResultsStore) -> dict[str, str]:
    return {d.id: d.status for d in store.documents()}


def test_every_crystal_leaves_as_a_document(store, folder):
    found = ingest([folder], SET, store)
    assert (len(found.keys), found.new, found.changed) == (6, 6, 0)
    assert statuses(store) == {
        "gen-a": Status.PENDING,
        "gen-b": Status.PENDING,
        "gen-c": Status.DUPLICATE,
        "gen-d": Status.REJECTED,
        "gen-e": Status.PENDING,
        "gen-f": Status.REJECTED,
    }
    documents = {d.id: d for d in store.documents()}
    assert documents["gen-c"].duplicate_of == "gen-a"
    assert documents["gen-d"].reason == Reason.UNSUPPORTED_ELEMENT
    assert "Xe" in documents["gen-d"].detail
    assert documents["gen-f"].reason == Reason.UNPARSABLE
    assert {name: d.stage for name, d in documents.items() if d.stage != SCREENED} == {"gen-d": READ, "gen-f": READ}
    assert documents["gen-a"].steps == ["relaxation", "force_constants", "spectrum"]
    assert documents["gen-a"].symmetry_initial.number == 225
    assert documents["gen-b"].elements == ["Au", "Cu"]
    assert documents["gen-b"].condition == {"band_gap": 1.5}
    assert documents["gen-b"].content_hash


def test_a_crystals_own_facts_are_those_of_its_calculation(store, folder, fcc):
    ingest([folder], SET, store)
    shared = {"id", "set", "origin", "condition", "content_hash", "nsites", "elements", "nelements", "formula_pretty"}
    documents = {d.id: d for d in store.documents()}
    crystals = {crystal.id: crystal for crystal in store.crystals(documents)}
    assert crystals.keys() == documents.keys()
    for name, crystal in crystals.items():
        assert crystal.model_dump(include=shared) == documents[name].model_dump(include=shared)
        assert crystal.origin.source == str(folder / name.replace("gen-", "")) + ".cif"
        assert crystal.origin.sha256 == hashlib.sha256((folder / f"{name[-1]}.cif").read_bytes()).hexdigest()
        assert (crystal.structure is None) == (name == "gen-f")
    assert Structure.from_dict(crystals["gen-a"].structure).matches(fcc)


def test_again_nothing_is_new_and_what_changed_is_screened_anew(store, folder, cu3au):
    first = ingest([folder], SET, store)
    again = ingest([folder], SET, store)
    assert (again.keys, again.new, again.changed) == (first.keys, 0, 0)
    before = store.get(first.keys[1])
    assert store.crystal(before.id).content_hash == before.content_hash
    cu3au.scale_lattice(60.0)
    CifWriter(cu3au).write_file(folder / "b.cif")
    CifWriter(Structure(cu3au.lattice, ["Ag"] * 4, cu3au.frac_coords)).write_file(folder / "g.cif")
    third = ingest([folder], SET, store)
    assert (len(third.keys), third.new, third.changed) == (7, 1, 1)
    after = store.get(first.keys[1])
    assert after.origin.sha256 != before.origin.sha256
    assert after.content_hash != before.content_hash
    assert store.crystal(after.id).content_hash == after.content_hash
    assert after.status == Status.PENDING  # alike its former self, which is no longer there


def test_what_was_seen_in_an_earlier_run_counts_as_seen(store, folder, fcc, tmp_path):
    ingest([folder], SET, store)
    later = tmp_path / "later"
    later.mkdir()
    CifWriter(fcc * (1, 1, 2)).write_file(later / "z.cif")
    ingest([later], SET, store)
    document = next(store.documents({"id": "gen-z"}))
    assert (document.status, document.duplicate_of) == (Status.DUPLICATE, "gen-a")


def test_known_crystals_are_recorded_with_what_they_are(store, folder, fcc, tmp_path):
    reference = tmp_path / "reference"
    reference.mkdir()
    CifWriter(fcc).write_file(reference / "mp-30.cif")
    ingest([folder], SET, store, reference=reference)
    documents = {d.id: d for d in store.documents()}
    assert documents["gen-a"].status == documents["gen-c"].status == Status.KNOWN
    assert documents["gen-a"].known_as == "mp-30"
    assert documents["gen-b"].status == Status.PENDING


def test_limit_takes_the_first(store, folder):
    assert len(ingest([folder], SET, store, limit=2).keys) == 2
    assert set(statuses(store)) == {"gen-a", "gen-b"}


def test_labels_are_kept_and_what_is_ignored_is_told(store, folder):
    (folder / "Lable.txt").write_text("a\tStable\ngone\tunStable\n")
    (folder / "picture[1].png").write_bytes(b"x")
    found = ingest([folder], SET, store)
    assert str(found.ignored) == "1 .png (picture[1].png), 1 label without a crystal (gone)"
    assert {d.id: d.labels for d in store.documents() if d.labels} == {"gen-a": {"phononbench": "Stable"}}
    assert {c.id: c.labels for c in store.crystals(["gen-a", "gen-b"])} == {
        "gen-a": {"phononbench": "Stable"},
        "gen-b": {},
    }
