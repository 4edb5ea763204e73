"""Stores of an older version, in which crystal and calculation were one document: refused, migrated, and then right."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument, CrystalDocument, SetDocument
from phononbench_flows.protocol import PRESETS
from phononbench_flows.results.bundle import pack, verify
from phononbench_flows.stability import assess, decisive, published
from phononbench_flows.store import ResultsStore, migration
from phononbench_flows.store.blobs import BlobStore
from phononbench_flows.store.collection import StoreError
from phononbench_flows.store.connection import client
from phononbench_flows.store.migration import migrate
from phononbench_flows.store.mongo import GridFSBlobs, MongoCollection
from phononbench_flows.store.sqlite import SQLiteStore

Row = dict[str, Any]

CHECKPOINT = "ab" * 32
PAPER, COMMENSURATE = (PRESETS[name].id_with(CHECKPOINT) for name in ("paper", "commensurate"))
# As the older version made its tables.
SCHEMA = (
    (
        'CREATE TABLE documents (number INTEGER PRIMARY KEY, "key" TEXT NOT NULL UNIQUE, "id" TEXT, "set" TEXT, '
        '"status" TEXT, "protocol_id" TEXT, "stage" TEXT, document TEXT NOT NULL)'
    ),
    'CREATE INDEX by_set ON documents ("set", "protocol_id", "status", "stage")',
    'CREATE INDEX by_status ON documents ("status")',
    'CREATE INDEX by_protocol ON documents ("protocol_id")',
    'CREATE INDEX by_id ON documents ("id")',
    "PRAGMA user_version = 2",
)
SYMMETRY = {
    "crystal_system": "Cubic",
    "symbol": "Fm-3m",
    "hall": "-F 4 2 3",
    "number": 225,
    "point_group": "m-3m",
    "symprec": 0.01,
    "angle_tolerance": None,
    "version": "2.7.0",
}
POTENTIAL = {"name": "mattersim-v1-5m", "checkpoint_sha256": CHECKPOINT, "dtype": "float32", "device": "cuda"}
RELAXATION = {
    "steps": 41,
    "rounds": 2,
    "energy_per_atom": -3.25,
    "max_force": 0.002,
    "max_stress": 1e-5,
    "volume_change": -0.0125,
    "refined": True,
}
PROVENANCE = {
    "host": "node1",
    "pid": 4711,
    "versions": {"torch": "2.9"},
    "job_uuid": "u",
    "gpu": "H100",
    "fw_id": 3,
    "launch_id": 7,
}
SHORT = {"supercell": [2, 2, 2], "supercell_natoms": 64, "primitive_natoms": 2, "n_displacements": 2, "max_drift": 1e-6}
CREATED, UPDATED = "2026-02-03T04:05:06.789012Z", "2026-03-04T05:06:07.890123Z"


def structure(number: int) -> Row:
    """What stands for a crystal: it goes through unread."""
    return {"@class": "Structure", "charge": 0, "lattice": {"a": 3.0 + number}, "sites": [{"xyz": [0.0, 0.1, 0.2]}]}


def old_document(number: int, protocol: str = "paper", **changes: Any) -> Row:
    """All that the older version wrote of a crystal that has been screened."""
    protocol_id = {"paper": PAPER, "commensurate": COMMENSURATE}[protocol]
    return {
        "key": f"gen_{number}@{protocol_id}",
        "id": f"gen_{number}",
        "set": "gen",
        "source": f"set.zip/{number}.cif",
        "source_sha256": f"{number:064x}",
        "content_hash": f"{number:032x}",
        "condition": {"band_gap": 1.5},
        "protocol_id": protocol_id,
        "protocol_name": protocol,
        "potential": POTENTIAL,
        "stage": "screened",
        "status": "pending",
        "reason": None,
        "detail": None,
        "duplicate_of": None,
        "known_as": None,
        "nsites": 8,
        "elements": ["Cl", "Na"],
        "nelements": 2,
        "formula_pretty": "NaCl",
        "chemsys": "Cl-Na",
        "symmetry_initial": SYMMETRY,
        "symmetry_relaxed": None,
        "structure": structure(number),
        "relaxed_structure": None,
        "relaxation": None,
        "phonon": None,
        "verdicts": [],
        "force_constants": None,
        "band_structure": None,
        "attempts": 0,
        "timings": {},
        "provenance": None,
        "created_at": CREATED,
        "updated_at": UPDATED,
    } | changes


def relaxed(number: int, stage: str, protocol: str = "paper", **changes: Any) -> Row:
    fields: Row = {
        "stage": stage,
        "symmetry_relaxed": SYMMETRY,
        "relaxed_structure": structure(100 + number),
        "relaxation": RELAXATION,
        "timings": {"relaxed": 1.5},
        "provenance": PROVENANCE,
    }
    if stage in {"force_constants", "judged"}:
        bare = dict.fromkeys(
            ("judged", "path", "commensurate", "mesh", "gamma_optical", "n_imaginary", "max_frequency")
        )
        fields |= {"phonon": SHORT | bare, "timings": {"relaxed": 1.5, "force_constants": 2.5}}
    return old_document(number, protocol, **(fields | changes))


def judged(number: int, lowest: dict[str, float], refs: list[Row], protocol: str = "paper") -> Row:
    """A judged crystal, with its lowest frequencies on the path, at the commensurate q-points and on the mesh."""
    n_q = {"path": 808, "commensurate": 8, "mesh": 84}
    looks = {place: {"frequency": f, "q": [0.5, 0.0, number / 8], "n_q": n_q[place]} for place, f in lowest.items()}
    minimum = looks["commensurate" if protocol == "commensurate" else "path"]
    verdicts = [{"threshold": t, "stable": minimum["frequency"] >= t} for t in (-1e-3, -0.1)]
    phonon = SHORT | looks | {"judged": minimum, "gamma_optical": 3.5, "n_imaginary": 7, "max_frequency": 9.25}
    return relaxed(
        number,
        "judged",
        protocol,
        status="stable" if verdicts[0]["stable"] else "unstable",
        phonon=phonon,
        verdicts=verdicts,
        timings={"relaxed": 1.5, "force_constants": 2.5, "judged": 0.5},
        force_constants=refs[0],
        band_structure=refs[1],
    )


def old_documents(refs: list[Row]) -> list[Row]:
    """Of every status and stage; crystals 1 and 2 were judged in two ways."""
    gallium_nitride = {"path": -0.29, "commensurate": 0.0, "mesh": -0.05}
    borderline = {"path": -1e-3, "commensurate": -0.1, "mesh": -2.0}
    unread: Row = dict.fromkeys(
        ("content_hash", "nsites", "nelements", "formula_pretty", "chemsys", "symmetry_initial")
    )
    unread |= {"stage": "read", "elements": [], "structure": None}
    return [
        old_document(0, stage="read"),
        judged(1, gallium_nitride, refs),
        judged(1, gallium_nitride, refs, "commensurate"),
        judged(2, borderline, refs),
        judged(2, borderline, refs, "commensurate"),
        judged(3, {"path": 0.125, "commensurate": 0.25, "mesh": 0.125}, refs),
        judged(4, {"path": -7.5, "commensurate": -7.5, "mesh": -7.5}, refs),
        old_document(5, status="pending", attempts=2),
        relaxed(6, "relaxed"),
        relaxed(7, "force_constants", force_constants=refs[0]),
        old_document(8, status="failed", reason="not_converged", detail="after 15 rounds"),
        relaxed(9, "relaxed", status="failed", reason="killed_worker", attempts=3),
        relaxed(10, "force_constants", status="failed", reason="not_finite", force_constants=refs[0]),
        old_document(11, status="rejected", reason="unparsable", detail="no CIF", **(unread | {"source_sha256": None})),
        old_document(12, status="rejected", reason="atoms_too_close", stage="read", symmetry_initial=None),
        old_document(13, status="duplicate", duplicate_of="gen_3"),
        old_document(14, status="known", known_as="mp-1", condition={}),
    ]


def expected(old: Row) -> tuple[CrystalDocument, CalculationDocument]:
    """What a document of the older version says, said anew, field by field."""
    shared = {
        "id": old["id"],
        "set": "gen",
        "origin": {"source": old["source"], "sha256": old["source_sha256"], "parent": None, "mode": None},
        "condition": old["condition"],
        "content_hash": old["content_hash"],
        "nsites": old["nsites"],
        "elements": old["elements"],
        "nelements": old["nelements"],
        "formula_pretty": old["formula_pretty"],
        "chemsys": old["chemsys"],
        "created_at": CREATED,
        "updated_at": UPDATED,
    }
    phonon = old["phonon"] or {}
    looks = {
        place: phonon[place] | {"exact": place == "commensurate"}
        for place in ("path", "mesh", "commensurate")
        if phonon.get(place)
    }
    where = ("commensurate" if old["protocol_name"] == "commensurate" else "path") if looks else None
    kept = ("gamma_optical", "n_imaginary", "max_frequency")
    same = ("reason", "detail", "duplicate_of", "known_as", "symmetry_initial", "symmetry_relaxed", "relaxed_structure")
    same += ("relaxation", "attempts", "provenance", "key", "protocol_id", "protocol_name", "potential", "status")
    names = {"relaxed": "relaxation", "judged": "spectrum"}
    calculation = {
        **shared,
        **{name: old[name] for name in same},
        "steps": ["relaxation", "force_constants", "spectrum"],
        "stage": names.get(old["stage"], old["stage"]),
        "phonon": SHORT | {name: phonon[name] for name in kept} if phonon else None,
        "evidence": {"looks": looks, "noise": None, "not_looked_at": []},
        "minimum": looks[where] if where else None,
        "assessments": [
            {
                "threshold": verdict["threshold"],
                "stability": "stable" if verdict["stable"] else "unstable",
                "where": where,
                "next": [],
            }
            for verdict in old["verdicts"]
        ],
        "results": {},
        "arrays": {name: old[name] for name in ("force_constants", "band_structure") if old[name]},
        "timings": {names.get(stage, stage): seconds for stage, seconds in old["timings"].items()},
    }
    crystal = CrystalDocument.model_validate(shared | {"structure": old["structure"]})
    return crystal, CalculationDocument.model_validate(calculation)


# ----------------------------------------------------------------------------------------------------------------------
# An old store of either kind
# ----------------------------------------------------------------------------------------------------------------------
ABOUT = SetDocument(set="gen", model="M-Net", n_generated=20, updated_at=UPDATED)


def write_file(path: Path, documents: list[Row]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        indexed = ("key", "id", "set", "status", "protocol_id", "stage")
        rows = [(*(row.get(name) for name in indexed), json.dumps(row)) for row in documents]
        names = ", ".join(f'"{name}"' for name in indexed)
        connection.executemany(f"INSERT INTO documents ({names}, document) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()


class Old:
    """A store as the older version left it: how to name it, and what is in it."""

    def __init__(self, spec: str, blobs: Any, write: Callable[[list[Row]], None]) -> None:
        refs = [blobs.put({"x": np.arange(n)}).model_dump() for n in (3, 4)]
        self.spec, self.documents = spec, old_documents(refs)
        write(self.documents)

    def check(self) -> None:
        """The store holds what it held before, and nothing beside."""
        told = [expected(old) for old in self.documents]
        with ResultsStore.open(self.spec) as store:
            assert {found.key: found for found in store.documents()} == {each.key: each for _, each in told}
            crystals = {crystal.id: crystal for crystal, _ in told}
            assert {found.id: found for found in store.crystals(store.distinct("id"))} == crystals
            assert store.count() == len(told) == 17
            assert len(list(store._crystals.query())) == len(crystals) == 15
            assert store.sets() == [ABOUT]
            assert store.missing_indexes() == []
            for calculation in store.documents():
                for ref in calculation.arrays.values():
                    assert store.blobs.get(ref)["x"].tolist() in ([0, 1, 2], [0, 1, 2, 3])


def embedded(root: Path) -> Old:
    def write(documents: list[Row]) -> None:
        write_file(root / "results.sqlite", documents)
        write_file(root / "sets.sqlite", [{"key": "gen", **ABOUT.model_dump(mode="json")}])

    root.mkdir()
    return Old(str(root), BlobStore(root / "blobs"), write)


def served(name: str) -> Old:
    def write(documents: list[Row]) -> None:
        database = client()[name]
        for old in documents:
            database.crystals.insert_one({"_id": old["key"], **old})
        # Of the older version's indices, those that the newer one makes of other collections.
        for fields in (
            "elements",
            "status",
            [("set", 1), ("protocol_id", 1), ("status", 1)],
            "phonon.judged.frequency",
        ):
            database.crystals.create_index(fields)
        for part in (database.crystals, database.sets):
            part.create_index("key", unique=True)
        GridFSBlobs(name).create_indexes()
        database.sets.insert_one({"_id": "gen", "key": "gen", **ABOUT.model_dump(mode="json")})

    return Old(f"mongo:{name}", GridFSBlobs(name), write)


@pytest.fixture(params=["embedded", "mongo"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    if request.param == "embedded":
        return embedded(tmp_path / "old")
    return served(request.getfixturevalue("mongo_database"))


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_an_old_store_is_refused_migrated_and_then_the_same(old):
    how = rf"was written by an older version.*run `phononbench migrate {old.spec}`\."
    for _ in range(2):  # to be refused changes nothing
        with pytest.raises(StoreError, match=how):
            ResultsStore.open(old.spec)
    refused = invoke("query", old.spec)
    assert refused.exit_code == 2
    assert f"run `phononbench migrate {old.spec}`" in refused.stderr
    done = invoke("migrate", old.spec)
    assert done.exit_code == 0, done.output
    assert "17 crystals brought up to date" in done.output
    old.check()
    again = invoke("migrate", old.spec)
    assert again.exit_code == 0, again.output
    assert "the results are up to date" in again.output
    assert migrate(old.spec) == 0
    old.check()


def test_what_migrated_follows_from_its_evidence(old, tmp_path):
    migrate(old.spec)
    with ResultsStore.open(old.spec) as store:
        for name in ("paper", "commensurate"):
            protocol = PRESETS[name]
            found = list(store.documents({"protocol_name": name, "assessments": {"$ne": []}}))
            assert len(found) == {"paper": 4, "commensurate": 2}[name]
            for document in found:
                assert assess(document.evidence, protocol.judgement) == document.assessments
                beside = published(document.evidence)
                assert set(beside) == {-1e-3, -0.1}
                if document.protocol_name == "paper":
                    assert beside[-1e-3] == document.status
                assert document.why.startswith(f"{document.status}: ")
                assert decisive(document.evidence, document.assessments[0]) == document.minimum
                assert document.status == document.assessments[0].stability
        assert {row["status"] for row in store.query({"id": "gen_1"})} == {"stable", "unstable"}
        for document in list(store.documents()):
            document.relaxed_structure = None  # what stands for crystals here is none
            if document.status == "pending":
                document.status, document.reason = "failed", "exception"
            store.put(document)
        for crystal in list(store.crystals(store.distinct("id"))):
            store.put_crystals(crystal.model_copy(update={"structure": None}))
        for name in ("paper", "commensurate"):
            counts = pack(store, "gen", tmp_path / f"{name}.zip", protocol=PRESETS[name]).counts
            assert verify(tmp_path / f"{name}.zip").counts == counts
            assert counts["judged"] == {"paper": 4, "commensurate": 2}[name]


class KilledError(Exception):
    """The migration is no more."""


WRITES = [
    (SQLiteStore, "update"),
    (SQLiteStore, "set_layout"),
    (MongoCollection, "update"),
    (MongoCollection, "remove"),
]


def kill_at(patch: pytest.MonkeyPatch, place: int, *, after: bool) -> None:
    """Break off at the write of this number: before it is done, or just after."""
    numbers = count()

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def die(*arguments: Any) -> Any:
            last = next(numbers) == place
            if last and not after:
                raise KilledError
            result = write(*arguments)
            if last:
                raise KilledError
            return result

        return die

    for kind, name in WRITES:
        patch.setattr(kind, name, dying(getattr(kind, name)))


@pytest.mark.parametrize("kind", ["embedded", "mongo"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_migration_killed_at_any_write_is_gone_on_with(kind, after, tmp_path, request, monkeypatch):
    monkeypatch.setattr(migration, "_LOT", 5)
    if kind == "mongo":
        database = request.getfixturevalue("mongo_database")
    # Four lots, each with its crystals and its calculations; then the layouts, or what is removed after each lot.
    writes = {"embedded": 4 * 2 + 2, "mongo": 4 * 3}[kind]
    for place in range(writes + 1):
        old = embedded(tmp_path / f"old{place}") if kind == "embedded" else served(f"{database}_{place}")
        try:
            with monkeypatch.context() as patch:
                kill_at(patch, place, after=after)
                migrate(old.spec)
        except KilledError:
            if place < writes - 1 or not after:
                with pytest.raises(StoreError, match="phononbench migrate"):
                    ResultsStore.open(old.spec)
            assert migrate(old.spec) <= 17
            old.check()
            assert migrate(old.spec) == 0
            assert place < writes
            if kind == "mongo":
                client().drop_database(old.spec.removeprefix("mongo:"))
        else:
            assert place == writes
            old.check()


def test_killed_at_random_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(migration, "_LOT", 2)
    old, draw, kills = embedded(tmp_path / "old"), random.Random(1), 0
    while True:
        try:
            with monkeypatch.context() as patch:
                kill_at(patch, draw.randrange(7), after=draw.random() < 0.5)
                migrate(old.spec)
        except KilledError:
            kills += 1
        else:
            break
    assert kills > 2
    old.check()


def test_a_document_that_no_version_wrote_is_named(old):
    odd = {name: value for name, value in old.documents[3].items() if name != "source"}
    spec = old.spec
    if spec.startswith("mongo:"):
        client()[spec.removeprefix("mongo:")].crystals.replace_one({"_id": odd["key"]}, {"_id": odd["key"], **odd})
    else:
        with closing(sqlite3.connect(f"{spec}/results.sqlite")) as connection:
            connection.execute('UPDATE documents SET document = ? WHERE "key" = ?', (json.dumps(odd), odd["key"]))
            connection.commit()
    failed = invoke("migrate", spec)
    assert failed.exit_code == 2
    assert f"Document '{odd['key']}' is not as an older version wrote it: KeyError('source')" in failed.stderr
    with pytest.raises(StoreError, match="phononbench migrate"):
        ResultsStore.open(spec)


def test_progress_is_told(old, monkeypatch):
    monkeypatch.setattr(migration, "_LOT", 5)
    told: list[int] = []
    assert migrate(old.spec, told.append) == 17
    assert told == [0, 5, 10, 15]


@pytest.mark.usefixtures("mongo_uri")
def test_stores_that_need_no_migration(tmp_path, mongo_database):
    with pytest.raises(StoreError, match="no results in"):
        migrate(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    for spec in (str(tmp_path / "new"), f"mongo:{mongo_database}"):
        ResultsStore.open(spec, create=True).close()
        assert migrate(spec) == 0
    (tmp_path / "odd").mkdir()
    for statement in ("PRAGMA user_version = 1", "PRAGMA user_version = 4", "CREATE TABLE other (x)"):
        path = tmp_path / "odd" / "results.sqlite"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"results\.sqlite"):
            migrate(path.parent)
        assert path.read_bytes() == before
        assert [found.name for found in path.parent.iterdir()] == ["results.sqlite"]
