"""The results store: Mongo's meaning of queries, durability, concurrency, and blobs."""

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

from phononbench_flows.blobs import BlobError, BlobStore
from phononbench_flows.documents import BlobRef, CrystalDocument, PotentialRecord, Verdict
from phononbench_flows.outcomes import Stage, Status
from phononbench_flows.sqlite_store import SQLiteStore, StoreError
from phononbench_flows.store import ResultsStore, open_store

# Forked, so that a child does not pay for the imports again.
FORK = multiprocessing.get_context("fork")
POTENTIAL = PotentialRecord(name="test", checkpoint_sha256="0" * 64, dtype="float64", device="cpu")
STATUSES = [Status.STABLE, Status.UNSTABLE, Status.FAILED, Status.PENDING]
ELEMENTS = [["O", "Ti"], ["O"], ["N", "Sr", "Ti"], []]


def make(number: int, **changes: Any) -> CrystalDocument:
    sites = [{"species": "O", "abc": [0.1 * number, 1 / 3, 2 / 3]}] * 20
    fields: dict[str, Any] = {
        "key": f"gen_{number}@p",
        "id": f"gen_{number}",
        "set": "left" if number % 2 else "right",
        "source": "set.zip/gen.cif",
        "source_sha256": None,
        "protocol_id": "p",
        "protocol_name": "paper",
        "potential": POTENTIAL,
        "status": STATUSES[number % 4],
        "stage": Stage.JUDGED,
        "nsites": number % 7 or None,
        "elements": ELEMENTS[number % 4],
        "structure": {"lattice": {"a": 3.9 + number / 7}, "sites": sites},
        "verdicts": [Verdict(threshold=-0.1, stable=number % 3 == 0), Verdict(threshold=-0.5, stable=True)],
        "timings": {"relax": 0.1 * number},
    }
    return CrystalDocument(**(fields | changes))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultsStore]:
    with ResultsStore.open(tmp_path / "results") as opened:
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
    docs[6]["verdicts"] = []
    del docs[7]["status"]
    docs[8]["detail"] = "Out of memory\nwhile relaxing"
    return docs


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[SQLiteStore, Any]:
    embedded = SQLiteStore(str(tmp_path_factory.mktemp("pair") / "results.sqlite"))
    embedded.update(raw_documents())
    collection: Any = mongomock_ng.MongoClient().db.documents
    collection.insert_many(raw_documents())
    return embedded, collection


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
    {"verdicts": {"$elemMatch": {"threshold": -0.1, "stable": True}}},
    {"verdicts": {"$elemMatch": {"threshold": {"$lt": -0.2}, "stable": False}}},
    {"verdicts": {"$not": {"$elemMatch": {"stable": False}}}},
    {"verdicts.stable": False},
    {"verdicts.0.stable": True},
    {"verdicts": []},
    {"timings.relax": {"$lt": 1.0}},
    {"structure.lattice.a": {"$gte": 5, "$lt": 7}},
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
def test_criteria(pair: tuple[SQLiteStore, Any], criteria: dict[str, Any]) -> None:
    embedded, collection = pair
    expected = [doc["id"] for doc in collection.find(criteria)]
    assert [doc["id"] for doc in embedded.query(criteria)] == expected
    assert embedded.count(criteria) == len(expected)
    order = {"nsites": -1, "structure.lattice.a": 1}
    expected = [doc["id"] for doc in collection.find(criteria, sort=list(order.items()), skip=1, limit=5)]
    assert [doc["id"] for doc in embedded.query(criteria, ["id"], order, skip=1, limit=5)] == expected
    for field in ("status", "elements", "nsites"):
        values = collection.distinct(field, criteria)
        assert sorted(map(repr, embedded.distinct(field, criteria))) == sorted(map(repr, values))


@pytest.mark.parametrize(
    "order", [{"nsites": 1}, {"nsites": -1}, {"status": 1, "id": -1}, {"condition.band_gap": 1}, {"elements": 1}]
)
def test_sort(pair: tuple[SQLiteStore, Any], order: dict[str, int]) -> None:
    embedded, collection = pair
    expected = [doc["id"] for doc in collection.find(sort=list(order.items()))]
    assert [doc["id"] for doc in embedded.query(sort=order)] == expected


@pytest.mark.parametrize(
    "fields",
    [["id"], ["id", "nsites"], ["structure.lattice.a", "id"], ["verdicts.stable"], ["no.such"], ["condition.tags.n"]],
)
def test_projection(pair: tuple[SQLiteStore, Any], fields: list[str]) -> None:
    embedded, collection = pair
    wanted = dict.fromkeys(fields, 1)
    expected = list(collection.find({}, wanted | {"_id": 0}))
    assert list(embedded.query(properties=fields)) == expected
    assert list(embedded.query(properties=wanted | {"_id": 0})) == expected


def test_what_cannot_be_answered(pair: tuple[SQLiteStore, Any], tmp_path: Path) -> None:
    embedded, _ = pair
    empty = SQLiteStore(str(tmp_path / "empty.sqlite"))
    wrong: list[dict[str, Any]] = [{"nsites": {"$grater": 1}}, {"$where": "1"}, {"$or": [{"$where": "1"}]}, {"$or": []}]
    for criteria in wrong:
        for each in (embedded, empty):
            with pytest.raises(StoreError):
                list(each.query(criteria))
            with pytest.raises(StoreError):
                each.count(criteria)
            with pytest.raises(StoreError):
                each.remove_docs(criteria)
    for properties in ({"structure": 0}, ["structure", "structure.lattice"], {"verdicts": {"$slice": 1}}):
        with pytest.raises(StoreError):
            list(embedded.query(properties=properties))
    with pytest.raises(StoreError):
        embedded.tally("status", {"nsites": 1})


def test_maggma_interface(pair: tuple[SQLiteStore, Any]) -> None:
    embedded, _ = pair
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
    assert list(store.documents()) == docs
    assert list(store.documents({"status": "stable"}, sort={"id": -1}, limit=2)) == [docs[8], docs[4]]
    assert store.get("nobody") is None
    assert store.status_counts("left", "p") == {"unstable": 3, "pending": 3}
    assert store.status_counts("left", "q") == {}
    assert store.distinct("elements", {"set": "right"}) == ["O", "Ti", "N", "Sr"]
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
        ({"timings": {"relax": bad}}, "timings.relax"),
        ({"structure": {"sites": [{"xyz": [0.0, bad]}]}}, "structure.sites.0.xyz.1"),
    ]
    for changes, path in wrong:
        with pytest.raises(StoreError, match=rf"gen_2@p.*{path}"):
            store.put(make(1), make(2, **changes))
    assert [doc.id for doc in store.documents()] == ["gen_0"]  # all or none
    with pytest.raises(StoreError, match=r"timings\.relax"):
        store._collection.update(make(3).model_dump(mode="json") | {"timings": {"relax": bad}})


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


def test_writing_while_reading(store: ResultsStore) -> None:
    store.put(*map(make, range(600)))
    seen = 0
    for doc in store.documents({"status": {"$in": ["pending", "failed"]}}):
        seen += 1
        doc.status = Status.STABLE
        store.put(doc)
    assert seen == 300
    assert store.count({"status": "stable"}) == 450


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


def put_forever(path: Path, first: int, pipe: int) -> None:
    with ResultsStore.open(path) as store:
        for number in range(first, first + 100_000):
            store.put(make(number))
            os.write(pipe, f"{number}\n".encode())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_writer_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(0)
    told: list[int] = []
    for kill in range(1, 6):
        source, sink = os.pipe()
        process = start(put_forever, tmp_path, 1_000_000 * kill, sink)
        os.close(sink)
        with os.fdopen(source) as lines:
            told.append(int(lines.readline()))
            time.sleep(rng.uniform(0.0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            told.extend(int(line) for line in lines)
        process.join()
        with ResultsStore.open(tmp_path) as store:
            assert len(told) <= store.count() <= len(told) + kill
            for number in told:
                kept, expected = store.get(f"gen_{number}@p"), make(number)
                assert kept is not None
                unstamped = {"created_at", "updated_at"}
                assert kept.model_dump(exclude=unstamped) == expected.model_dump(exclude=unstamped)


def write_many(path: Path, writer: int, count: int) -> None:
    store = SQLiteStore(str(path))
    for number in range(count):
        shared = {"key": "shared", "set": f"w{writer}", "payload": [writer] * 2_000}
        store.update({"key": f"{writer}-{number}", "set": f"w{writer}", "payload": [number] * 2_000})
        store.update(shared)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_writers_and_reader_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    writers = [start(write_many, path, writer, 60) for writer in range(3)]  # all of them find no file
    reader, seen = SQLiteStore(str(path)), 0
    while any(writer.is_alive() for writer in writers):
        for doc in reader.query():
            seen += 1
            assert len(doc["payload"]) == 2_000
            assert len(set(doc["payload"])) == 1
            assert doc["key"] != "shared" or doc["set"] == f"w{doc['payload'][0]}"
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert seen
    assert reader.count() == 3 * 60 + 1
    assert reader.count({"set": "w1", "key": {"$ne": "shared"}}) == 60


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
        with ResultsStore.open(given) as store:
            assert store.spec == spec
    assert open_store("there") is open_store(spec)
    assert min(file.name for file in (tmp_path / "there").iterdir()) == "results.sqlite"
    for wrong in ({"kind": "mongo", "host": "localhost"}, {"path": "x"}, {"kind": "embedded"}, spec | {"user": "me"}):
        with pytest.raises(StoreError):
            ResultsStore.open(wrong)


@pytest.mark.parametrize("statements", ["PRAGMA user_version = 2", "CREATE TABLE other (x)"])
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
            ResultsStore.open(path)


# ----------------------------------------------------------------------------------------------------------------------
# Blobs
# ----------------------------------------------------------------------------------------------------------------------
ARRAYS = {
    "fc": np.random.default_rng(0).normal(size=(3, 4, 3, 3)),
    "numbers": np.array([8, 22]),
    "scale": np.array(0.5),
    "labels": np.array(["GAMMA", "X"]),
}


def test_blob_round_trip(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    ref = blobs.put(ARRAYS)
    turned = {name: np.asfortranarray(ARRAYS[name]) if ARRAYS[name].ndim else ARRAYS[name] for name in reversed(ARRAYS)}
    assert blobs.put(turned) == ref
    assert blobs.put({**ARRAYS, "scale": np.array(0.25)}) != ref
    path = tmp_path / ref.sha256[:2] / f"{ref.sha256}.npz"
    assert path.stat().st_size == ref.size
    back = blobs.get(ref)
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


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


def test_reference_cannot_lead_out(tmp_path: Path) -> None:
    with pytest.raises(BlobError):
        BlobStore(tmp_path).get(BlobRef(sha256="../../etc/passwd", size=1))


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
