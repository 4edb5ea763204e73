"""The results store, embedded and on a server: Mongo's meaning of queries, durability, concurrency, and blobs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mongomock_ng
import numpy as np
import pytest
from made_documents import POTENTIAL, crystal_of, make, make_crystal
from servers import fresh_database

from phononbench_flows.documents import BlobRef, SetDocument
from phononbench_flows.outcomes import Status
from phononbench_flows.store import (
    ResultsStore,
    Spec,
    cluster_spec,
    configured_spec,
    full_spec,
    mongo,
    open_store,
    sqlite,
)
from phononbench_flows.store.blobs import BlobError, Blobs, BlobStore
from phononbench_flows.store.collection import Collection, StoreError
from phononbench_flows.store.mongo import CALCULATION_INDEXES, GridFSBlobs, MongoCollection
from phononbench_flows.store.sqlite import SQLiteStore

# Forked, so that a child does not pay for the imports again.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["embedded", "mongo"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Spec:
    if request.param == "embedded":
        return full_spec(tmp_path / "results")
    return full_spec(f"mongo:{request.getfixturevalue('mongo_database')}")


@pytest.fixture
def store(spec: Spec) -> Iterator[ResultsStore]:
    with ResultsStore.open(spec, create=True) as opened:
        yield opened


# ----------------------------------------------------------------------------------------------------------------------
# Queries mean what they mean in MongoDB
# ----------------------------------------------------------------------------------------------------------------------
def raw_documents() -> list[dict[str, Any]]:
    docs = [make(number).model_dump(mode="json") for number in range(30)]
    for doc in docs[::5]:
        del doc["nsites"]  # a missing field, beside those that are null
    docs[3]["condition"] = {"band_gap": 1.5, "tags": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}
    docs[4]["condition"] = {"band_gap": 0.5, "tags": [{"name": "a", "n": 2}]}
    docs[5]["condition"] = {"band_gap": "metal", "tags": []}
    docs[6]["assessments"] = []
    del docs[7]["status"]
    docs[8]["detail"] = "Out of memory\nwhile relaxing"
    return docs


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> SQLiteStore:
    store = SQLiteStore(str(tmp_path_factory.mktemp("embedded") / "results.sqlite"))
    store.update(raw_documents())
    return store


@pytest.fixture(scope="module")
def served(mongo_server_uri: str) -> Iterator[MongoCollection]:
    with pytest.MonkeyPatch.context() as patch, fresh_database(mongo_server_uri) as database:
        patch.setenv("PHONONBENCH_MONGO_URI", mongo_server_uri)
        store = MongoCollection(database, "calculations", CALCULATION_INDEXES)
        store.create_indexes()
        store.update(raw_documents())
        yield store


@pytest.fixture(scope="module", params=["embedded", "served"])
def pair(request: pytest.FixtureRequest) -> tuple[Collection, Any]:
    """One of ours, and mongomock's with the same documents, which says what is right."""
    collection: Any = mongomock_ng.MongoClient().db.documents
    collection.insert_many(raw_documents())
    return request.getfixturevalue(request.param), collection


CRITERIA: list[dict[str, Any]] = [
    {},
    {"key": "gen_3@p"},
    {"key": "nobody"},
    {"set": "left"},
    {"set": Status.STABLE},
    {"set": "left", "status": "stable"},
    {"set": "left", "nsites": 3},
    {"key": {"$in": ["gen_1@p", "gen_2@p", "nobody"]}},
    {"key": {"$in": []}},
    {"set": {"$in": ["left"]}, "status": {"$in": ["stable", "unstable"]}, "nsites": {"$gt": 2}},
    {"status": {"$in": ["stable", None]}},
    {"status": None},
    {"status": {"$exists": False}},
    {"status": {"$ne": "stable"}},
    {"status": {"$nin": ["stable", "failed"]}},
    {"status": {"$in": ["stable", "failed"], "$ne": "failed"}},
    {"status": {"$eq": "stable"}},
    {"status": 3},
    {"status": {"$regex": "^un"}},
    {"set": {"$not": {"$regex": "(?i)^L"}}},
    {"set": {"$regex": "^L", "$options": "i"}},
    {"nsites": {"$gte": 3}},
    {"nsites": {"$gt": 1, "$lte": 4}},
    {"nsites": {"$lt": 3}},
    {"nsites": None},
    {"nsites": {"$exists": True}},
    {"nsites": {"$exists": False}},
    {"nsites": {"$ne": None}},
    {"elements": "O"},
    {"elements": ["O"]},
    {"elements": {"$all": ["O"]}},
    {"elements": {"$all": ["O", "Ti"]}},
    {"elements": {"$size": 1}},
    {"elements": {"$size": 0}},
    {"elements": {"$not": {"$in": ["O"]}}},
    {"elements": {"$nin": ["O", "N"]}},
    {"elements.0": "N"},
    {"assessments": {"$elemMatch": {"threshold": -0.1, "stability": "stable"}}},
    {"assessments": {"$elemMatch": {"threshold": {"$lt": -0.2}, "stability": "unstable"}}},
    {"assessments": {"$not": {"$elemMatch": {"stability": "unstable"}}}},
    {"assessments.stability": "unstable"},
    {"assessments.0.stability": "stable"},
    {"assessments": []},
    {"minimum.frequency": {"$lt": -0.1}},
    {"evidence.looks.path.frequency": {"$gte": -0.1}},
    {"origin.source": {"$regex": "zip"}},
    {"timings.relaxation": {"$lt": 1.0}},
    {"relaxed_structure.lattice.a": {"$gte": 5, "$lt": 7}},
    {"condition.band_gap": {"$gt": 0.1}},
    {"condition.band_gap": {"$type": "string"}},
    {"condition.tags.name": "a"},
    {"condition.tags": {"$elemMatch": {"name": "a", "n": {"$gte": 2}}}},
    {"condition.nothing.here": None},
    {"$or": [{"status": "stable"}, {"nsites": 2}]},
    {"$and": [{"set": "left"}, {"$or": [{"nsites": None}, {"elements": "N"}]}]},
    {"$nor": [{"status": "stable"}, {"elements": "O"}]},
    {"set": "right", "$or": [{"id": "gen_4"}, {"id": "gen_5"}]},
    {"detail": {"$regex": "memory.*relax", "$options": "s"}},
    {"potential": POTENTIAL.model_dump()},
    {"$expr": {"$gt": ["$nsites", 4]}},
]


@pytest.mark.parametrize("criteria", CRITERIA, ids=str)
def test_criteria(pair: tuple[Collection, Any], criteria: dict[str, Any]) -> None:
    ours, collection = pair
    expected = [doc["id"] for doc in collection.find(criteria, sort=[("key", 1)])]
    assert [doc["id"] for doc in ours.query(criteria, sort={"key": 1})] == expected
    assert sorted(doc["id"] for doc in ours.query(criteria)) == sorted(expected)
    assert ours.count(criteria) == len(expected)
    order = {"nsites": -1, "relaxed_structure.lattice.a": 1}
    expected = [doc["id"] for doc in collection.find(criteria, sort=list(order.items()), skip=1, limit=5)]
    assert [doc["id"] for doc in ours.query(criteria, ["id"], order, skip=1, limit=5)] == expected
    for field in ("status", "elements", "nsites"):
        values = collection.distinct(field, criteria)
        assert sorted(map(repr, ours.distinct(field, criteria))) == sorted(map(repr, values))


@pytest.mark.parametrize(
    "order", [{"nsites": 1}, {"nsites": -1}, {"status": 1, "id": -1}, {"condition.band_gap": 1}, {"elements": 1}]
)
def test_sort(pair: tuple[Collection, Any], order: dict[str, int]) -> None:
    ours, collection = pair
    order = order | {"key": 1}
    expected = [doc["id"] for doc in collection.find(sort=list(order.items()))]
    assert [doc["id"] for doc in ours.query(sort=order)] == expected


def test_embedded_order_is_that_of_arrival(embedded: SQLiteStore) -> None:
    assert [doc["id"] for doc in embedded.query()] == [f"gen_{number}" for number in range(30)]


@pytest.mark.parametrize(
    "fields",
    [
        ["id"],
        ["id", "nsites"],
        ["relaxed_structure.lattice.a", "id"],
        ["assessments.stability"],
        ["no.such"],
        ["condition.tags.n"],
    ],
)
def test_projection(pair: tuple[Collection, Any], fields: list[str]) -> None:
    ours, collection = pair
    wanted = dict.fromkeys(fields, 1)
    expected = list(collection.find({}, wanted | {"_id": 0}, sort=[("key", 1)]))
    assert list(ours.query(properties=fields, sort={"key": 1})) == expected
    assert list(ours.query(properties=wanted | {"_id": 0}, sort={"key": 1})) == expected


def test_what_cannot_be_answered(pair: tuple[Collection, Any]) -> None:
    ours, _ = pair
    code = {"$expr": {"$function": {"body": "function() {return true}", "args": [], "lang": "js"}}}
    wrong = [{"nsites": {"$grater": 1}}, {"$where": "1"}, {"$or": [{"$where": "1"}]}, {"$or": []}, code]
    for criteria in wrong:
        for ask in (ours.query, ours.count, lambda wrong: ours.distinct("status", wrong)):
            with pytest.raises(StoreError):
                list(ask(criteria))
    for properties in ({"origin": 0}, ["origin", "origin.source"], {"assessments": {"$slice": 1}}):
        with pytest.raises(StoreError):
            list(ours.query(properties=properties))


def test_embedded_refuses_before_it_looks(tmp_path: Path, embedded: SQLiteStore) -> None:
    empty = SQLiteStore(str(tmp_path / "empty.sqlite"))
    for each in (embedded, empty):
        with pytest.raises(StoreError):
            each.remove_docs({"nsites": {"$grater": 1}})
        with pytest.raises(StoreError):
            each.count({"nsites": {"$grater": 1}})
    with pytest.raises(StoreError):
        embedded.tally("status", {"nsites": 1})


def test_maggma_interface(embedded: SQLiteStore) -> None:
    again = pickle.loads(pickle.dumps(embedded))
    assert again == embedded == SQLiteStore.from_dict(embedded.as_dict())
    assert again.query_one({"id": "gen_2"}, ["id"]) == {"id": "gen_2"}
    groups = {group["potential"]["name"]: len(docs) for group, docs in embedded.groupby("potential.name")}
    assert groups == {"test": 30}
    by_two = {(group["set"], group.get("status")): docs for group, docs in embedded.groupby(["set", "status"])}
    assert sum(map(len, by_two.values())) == 29  # one has no status
    assert embedded.ensure_index("status")
    assert not embedded.ensure_index("nsites")
    assert embedded.last_updated.year >= 2024
    with pytest.raises(NotImplementedError):
        _ = embedded._collection
    with pytest.raises(StoreError):
        embedded.update({"key": "a"}, key="id")


# ----------------------------------------------------------------------------------------------------------------------
# Documents
# ----------------------------------------------------------------------------------------------------------------------
def test_round_trip(store: ResultsStore) -> None:
    docs = [make(number) for number in range(12)]
    store.put(*docs)
    assert [store.get(doc.key) for doc in docs] == docs
    assert list(store.documents(sort={"timings.relaxation": 1})) == docs
    assert list(store.documents({"status": "stable"}, sort={"id": -1}, limit=2)) == [docs[8], docs[4]]
    assert store.get("nobody") is None
    assert store.status_counts("left", "p") == {"unstable": 3, "pending": 3}
    assert store.status_counts("left", "q") == {}
    assert sum(store.stage_counts("left", "p").values()) == 3
    assert store.stage_counts("left", "q") == {}
    assert sorted(store.distinct("elements", {"set": "right"})) == ["N", "O", "Sr", "Ti"]
    before = docs[3].updated_at
    docs[3].status = Status.FAILED
    store.put(docs[3])
    assert docs[3].updated_at > before
    assert store.get(docs[3].key) == docs[3]
    assert store.count() == 12
    assert store.count({"status": "failed"}) == 4
    assert list(store.query({"id": "gen_3"}, ["id", "status"])) == [{"id": "gen_3", "status": "failed"}]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan")])
def test_not_finite_is_refused(store: ResultsStore, bad: float) -> None:
    store.put(make(0))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"timings": {"relaxation": bad}}, "timings.relaxation"),
        ({"relaxed_structure": {"sites": [{"xyz": [0.0, bad]}]}}, "relaxed_structure.sites.0.xyz.1"),
    ]
    for changes, path in wrong:
        with pytest.raises(StoreError, match=rf"gen_2@p.*{path}"):
            store.put(make(1), make(2, **changes))
    assert [doc.id for doc in store.documents()] == ["gen_0"]  # all or none
    with pytest.raises(StoreError, match=r"timings\.relaxation"):
        store._calculations.update([make(3).model_dump(mode="json") | {"timings": {"relaxation": bad}}])
    with pytest.raises(StoreError, match=r"gen_2.*structure\.sites\.0\.xyz\.1"):
        store.put_crystals(make_crystal(1), make_crystal(2, structure={"sites": [{"xyz": [0.0, bad]}]}))
    assert store.crystal("gen_1") is None  # here too


def test_text_that_is_none_is_refused(store: ResultsStore) -> None:
    with pytest.raises(StoreError, match="gen_2@p"):
        store.put(make(1), make(2, detail="\udcff"))
    assert store.count() == 0


def test_the_last_of_a_key_counts(store: ResultsStore) -> None:
    store.put(make(1), make(1, detail="later"))
    kept = store.get("gen_1@p")
    assert kept is not None
    assert kept.detail == "later"
    store.put()
    assert store.count() == 1


def test_dates_are_text_of_one_form(store: ResultsStore) -> None:
    doc = make(1)
    store.put(doc)
    (row,) = store.query({}, ["updated_at", "created_at"])
    assert row == doc.model_dump(mode="json", include={"updated_at", "created_at"})
    assert store.count({"updated_at": {"$gte": row["updated_at"], "$lt": "2100"}}) == 1


def test_crystals(store: ResultsStore) -> None:
    crystals = [make_crystal(number) for number in range(600)]  # more than are read at once
    store.put_crystals(*crystals)
    store.put_crystals()
    assert store.crystal("gen_3") == crystals[3]
    assert store.crystal("gen_3@p") is store.crystal("nobody") is None
    wanted = [f"gen_{number}" for number in range(0, 600, 2)]
    found = {crystal.id: crystal for crystal in store.crystals([*wanted, "nobody"])}
    assert found == {crystal.id: crystal for crystal in crystals[::2]}
    assert list(store.crystals([])) == []
    assert store.count() == 0  # no calculations
    before = crystals[3].updated_at
    crystals[3].formula_pretty = "TiO2"
    store.put_crystals(crystals[3], crystals[3])
    assert crystals[3].updated_at > before
    assert store.crystal("gen_3") == crystals[3]
    assert len(list(store.crystals(crystal.id for crystal in crystals))) == 600


def test_calculations_share_a_crystal(store: ResultsStore) -> None:
    mine, other = make(1), make(1, key="gen_1@q", protocol_id="q", status=Status.STABLE)
    crystal = crystal_of(mine, structure={"lattice": {"a": 3.0}})
    store.put_crystals(crystal)
    store.put(mine, other)
    assert {found.key: found for found in store.documents({"id": "gen_1"})} == {"gen_1@p": mine, "gen_1@q": other}
    assert list(store.crystals(["gen_1", "gen_1"])) == [crystal]
    assert "structure" not in next(store.query({"key": "gen_1@p"}))


def test_sets(store: ResultsStore) -> None:
    assert store.sets() == []
    assert store.get_set("MatterGen") is None
    first = SetDocument(set="MatterGen", model="MatterGen", parameters=46_800_000, condition={"band_gap": 1.5})
    store.put_set(first)
    store.put_set(SetDocument(set="CDVAE"))
    assert store.get_set("MatterGen") == first
    first.n_generated = 10_000
    store.put_set(first)
    assert [known.set for known in store.sets()] == ["CDVAE", "MatterGen"]
    assert store.sets()[1] == first
    assert store.count() == 0  # no crystals
    with pytest.raises(StoreError, match="generation_seconds"):
        store.put_set(SetDocument(set="a", generation_seconds=float("inf")))


@pytest.mark.parametrize(
    "changes", [{"status": ["stable"]}, {"key": 1}, {"detail": "\udcff"}, {"detail": b"x"}, {"detail": {1, 2}}]
)
def test_what_is_no_document(tmp_path: Path, changes: dict[str, Any]) -> None:
    embedded = SQLiteStore(str(tmp_path / "results.sqlite"))
    with pytest.raises(StoreError):
        embedded.update([{"key": "a"}, {"key": "b"} | changes])
    assert embedded.count() == 0


def test_remove(tmp_path: Path) -> None:
    embedded = SQLiteStore(str(tmp_path / "results.sqlite"))
    embedded.update(raw_documents())
    embedded.remove_docs({"nsites": {"$gte": 3}})
    assert embedded.count() == embedded.count({"nsites": {"$not": {"$gte": 3}}}) > 0


def test_writing_while_reading(store: ResultsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_CHUNK", 16)
    monkeypatch.setattr(mongo, "_LOT", 16)
    store.put(*map(make, range(100)))
    seen = 0
    for doc in store.documents({"status": {"$in": ["pending", "failed"]}}):
        seen += 1
        doc.status = Status.STABLE
        store.put(doc)
    assert seen == 50
    assert store.count({"status": "stable"}) == 75


def test_memory_stays_flat(tmp_path: Path) -> None:
    embedded = SQLiteStore(str(tmp_path / "results.sqlite"))
    base = {"elements": ["O"], "detail": "x" * 3_000}
    for start in range(0, 20_000, 2_000):
        embedded.update([base | {"key": str(number), "nsites": number} for number in range(start, start + 2_000)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in embedded.query({"elements": "O"})) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10e6  # bytes; all documents at once are 60 MB
    first = next(embedded.query({"elements": "O"}, ["nsites"], sort={"nsites": -1}))
    assert first == {"nsites": 19_999}


# ----------------------------------------------------------------------------------------------------------------------
# Processes
# ----------------------------------------------------------------------------------------------------------------------
def start(target: Callable[..., None], *arguments: Any) -> Any:
    process = FORK.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def put_forever(spec: Spec, first: int, pipe: int) -> None:
    with ResultsStore.open(spec, create=True) as store:
        for number in range(first, first + 100_000):
            store.put(make(number))
            os.write(pipe, f"{number}\n".encode())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_writer_loses_nothing(spec: Spec) -> None:
    rng = random.Random(0)
    told: list[int] = []
    for kill in range(1, 6):
        source, sink = os.pipe()
        process = start(put_forever, spec, 1_000_000 * kill, sink)
        os.close(sink)
        with os.fdopen(source) as lines:
            told.append(int(lines.readline()))
            time.sleep(rng.uniform(0.0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            told.extend(int(line) for line in lines)
        process.join()
        with ResultsStore.open(spec) as store:
            assert len(told) <= store.count() <= len(told) + kill
            for number in told:
                kept, expected = store.get(f"gen_{number}@p"), make(number)
                assert kept is not None
                unstamped = {"created_at", "updated_at"}
                assert kept.model_dump(exclude=unstamped) == expected.model_dump(exclude=unstamped)


def write_many(spec: Spec, writer: int, count: int) -> None:
    with ResultsStore.open(spec, create=True) as store:
        for number in range(count):
            store.put(make(number, key=f"{writer}-{number}", set=f"w{writer}"))
            store.put(make(writer, key="shared", set=f"w{writer}", condition=dict.fromkeys("abc", writer)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_writers_and_reader_at_once(spec: Spec) -> None:
    writers = [start(write_many, spec, writer, 30) for writer in range(3)]  # all of them find nothing
    reader, seen = ResultsStore.open(spec), 0
    while any(writer.is_alive() for writer in writers):
        for doc in reader.documents():
            seen += 1
            shared = doc.key == "shared"
            assert doc.condition == (dict.fromkeys("abc", int(doc.set[1:])) if shared else {})
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert seen
    assert reader.count() == 3 * 30 + 1
    assert reader.count({"set": "w1", "key": {"$ne": "shared"}}) == 30
    assert reader.count({"key": "shared"}) == 1
    reader.close()


def put_one(store: ResultsStore, number: int) -> None:
    store.put(make(number))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_and_threads_connect_by_themselves(store: ResultsStore) -> None:
    store.put(make(0))
    process = start(put_one, store, 1)
    process.join()
    assert process.exitcode == 0
    threads = [threading.Thread(target=put_one, args=(store, number)) for number in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 6
    store.close()
    assert store.count() == 6  # connects again


# ----------------------------------------------------------------------------------------------------------------------
# Opening
# ----------------------------------------------------------------------------------------------------------------------
def test_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"kind": "embedded", "path": str(tmp_path / "there")}
    for given in (spec, "there", Path("there")):
        with ResultsStore.open(given, create=True) as store:
            assert store.spec == spec
            assert store.missing_indexes() == []
    assert open_store("there") is open_store(spec)
    files = sorted(file.name for file in (tmp_path / "there").glob("*.sqlite"))
    assert files == ["confirmations.sqlite", "crystals.sqlite", "results.sqlite", "sets.sqlite"]
    assert full_spec("./mongo:x") == {"kind": "embedded", "path": str(tmp_path / "mongo:x")}
    assert full_spec(Path("mongo")) == {"kind": "embedded", "path": str(tmp_path / "mongo")}


def test_mongo_spec(tmp_path: Path) -> None:
    spec = {"kind": "mongo", "database": "phononbench", "blobs": "gridfs"}
    for given in ("mongo", "mongo:", "mongo:phononbench", {"kind": "mongo", "database": "phononbench"}, spec):
        assert full_spec(given) == spec
    shared = {"kind": "mongo", "database": "mine", "blobs": str(tmp_path)}
    assert full_spec(f"mongo:mine:{tmp_path}") == full_spec(shared) == shared


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "redis"},
        {"path": "x"},
        {"kind": "embedded"},
        {"kind": "embedded", "path": "x", "user": "me"},
        {"kind": "embedded", "path": 3},
        {"kind": "mongo"},
        {"kind": "mongo", "database": "x", "host": "localhost"},
        {"kind": "mongo", "database": "x", "uri": "mongodb://me:secret@host"},
        {"kind": "mongo", "database": "x", "blobs": None},
        {"kind": "mongo", "database": 3},
        "mongo:a.b",
        {"kind": "mongo", "database": "x", "blobs": "relative"},
        "mongo:mongodb://me:secret@host",
        "mongodb://me:secret@host",
    ],
)
def test_wrong_specs(wrong: Spec | str) -> None:
    with pytest.raises(StoreError) as caught:
        full_spec(wrong)
    assert "secret" not in str(caught.value)


def test_configured_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHONONBENCH_STORE", raising=False)
    assert configured_spec() == {"kind": "embedded", "path": str(tmp_path / "phononbench-results")}
    monkeypatch.setenv("PHONONBENCH_STORE", "mongo:hub")
    assert configured_spec() == {"kind": "mongo", "database": "hub", "blobs": "gridfs"}
    monkeypatch.setenv("PHONONBENCH_STORE", "elsewhere")
    assert configured_spec() == {"kind": "embedded", "path": str(tmp_path / "elsewhere")}


def test_store_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONONBENCH_STORE", "mongo:hub")
    assert cluster_spec() == full_spec("mongo:hub")
    assert cluster_spec("mongo:other") == full_spec("mongo:other")
    monkeypatch.setenv("PHONONBENCH_STORE", "")
    assert cluster_spec() == full_spec("mongo")
    monkeypatch.delenv("PHONONBENCH_STORE")
    assert cluster_spec() == full_spec("mongo")


@pytest.mark.parametrize(
    "statements",
    ["PRAGMA user_version = 1", "PRAGMA user_version = 4", "PRAGMA user_version = 99", "CREATE TABLE other (x)"],
)
def test_foreign_layouts_are_refused(tmp_path: Path, statements: str) -> None:
    connection = sqlite3.connect(tmp_path / "results.sqlite")
    connection.execute(statements)
    connection.close()
    before = (tmp_path / "results.sqlite").read_bytes()
    with pytest.raises(StoreError, match=r"results\.sqlite"):
        ResultsStore.open(tmp_path)
    assert (tmp_path / "results.sqlite").read_bytes() == before


def test_unusable_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_text("not a database" * 100)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError):
            ResultsStore.open(path, create=True)


# ----------------------------------------------------------------------------------------------------------------------
# Blobs
# ----------------------------------------------------------------------------------------------------------------------
ARRAYS = {
    "fc": np.random.default_rng(0).normal(size=(3, 4, 3, 3)),
    "numbers": np.array([8, 22]),
    "scale": np.array(0.5),
    "labels": np.array(["GAMMA", "X"]),
}


@pytest.fixture(params=["files", "gridfs"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "files":
        return BlobStore(tmp_path / "blobs")
    return GridFSBlobs(request.getfixturevalue("mongo_database"))


def test_blob_round_trip(blobs: Blobs) -> None:
    ref = blobs.put(ARRAYS)
    turned = {name: np.asfortranarray(ARRAYS[name]) if ARRAYS[name].ndim else ARRAYS[name] for name in reversed(ARRAYS)}
    assert blobs.put(turned) == ref
    assert blobs.put({**ARRAYS, "scale": np.array(0.25)}) != ref
    back = blobs.get(ref)
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


def test_files_are_named_by_their_hash(tmp_path: Path) -> None:
    ref = BlobStore(tmp_path).put(ARRAYS)
    assert (tmp_path / ref.sha256[:2] / f"{ref.sha256}.npz").stat().st_size == ref.size


def test_damaged_blob_is_noticed_and_mended(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    ref = blobs.put(ARRAYS)
    path = blobs.path(ref)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BlobError, match=ref.sha256):
        blobs.get(ref)
    assert blobs.put(ARRAYS) == ref
    blobs.get(ref)
    path.unlink()
    with pytest.raises(BlobError, match="missing"):
        blobs.get(ref)


@pytest.mark.parametrize(
    "arrays", [{"x": np.array([{}], dtype=object)}, {"../x": np.zeros(1)}, {"x": np.array([[1], None], dtype=object)}]
)
def test_unsuitable_arrays(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(BlobError):
        BlobStore(tmp_path).put(arrays)
    assert not list(tmp_path.iterdir())


def test_reference_cannot_lead_out(blobs: Blobs) -> None:
    with pytest.raises(BlobError):
        blobs.get(BlobRef(sha256="../../etc/passwd", size=1))


def put_and_die(root: Path) -> None:
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign, return-value]
    BlobStore(root).put(ARRAYS)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_partial_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(put_and_die, tmp_path)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(tmp_path.rglob("*.npz"))
    blobs = BlobStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(BlobError, match="No space left"):
            blobs.put(ARRAYS)
    assert not list(tmp_path.rglob("*.npz"))
    blobs.get(blobs.put(ARRAYS))


def test_a_directory_without_results_is_told_and_not_made(tmp_path):
    with pytest.raises(StoreError, match=f"there are no results in {tmp_path / 'mistyped'}"):
        ResultsStore.open(tmp_path / "mistyped")
    assert list(tmp_path.iterdir()) == []
    ResultsStore.open(tmp_path / "new", create=True).close()
    ResultsStore.open(tmp_path / "new").close()
