"""A server that is killed, hangs or is shared by many: what was stored is there, whole and once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import gridfs
import numpy as np
import pytest
from made_documents import make, make_crystal
from servers import MongoServer

from phononbench_flows.documents import SetDocument
from phononbench_flows.store import ResultsStore, mongo
from phononbench_flows.store.blobs import BlobError
from phononbench_flows.store.collection import StoreError
from phononbench_flows.store.connection import client
from phononbench_flows.store.counts import FIELDS
from phononbench_flows.store.mongo import GridFSBlobs

FORK = multiprocessing.get_context("fork")
# Two and a bit pieces of GridFS, since random bytes do not compress.
LARGE = {"fc": np.random.default_rng(0).integers(0, 256, 600_000, dtype=np.uint8)}


def after(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


# ----------------------------------------------------------------------------------------------------------------------
# The server goes away
# ----------------------------------------------------------------------------------------------------------------------
def test_killed_during_puts_and_restarted(own_mongo: MongoServer) -> None:
    def outage() -> None:
        own_mongo.kill()
        time.sleep(2.0)
        own_mongo.restart()

    with ResultsStore.open("mongo:results") as store:
        told, longest = 0, 0.0
        breaker = after(0.5, outage)
        while breaker.is_alive():
            before = time.monotonic()
            store.put(make(told))
            longest = max(longest, time.monotonic() - before)
            told += 1
        assert longest > 2.0
        assert store.count() == told
        assert sorted(row["id"] for row in store.query({}, ["id"])) == sorted(f"gen_{n}" for n in range(told))


def test_queries_and_blobs_wait_for_the_server(own_mongo: MongoServer) -> None:
    with ResultsStore.open("mongo:results") as store:
        store.put(make(1))
        ref = store.blobs.put(LARGE)
        asked: list[Callable[[], object]] = [
            lambda: [row["id"] for row in store.query({}, ["id"])] == ["gen_1"],
            lambda: store.blobs.put(LARGE) == ref,
        ]
        for ask in asked:
            own_mongo.kill()
            restarter = after(0.2, own_mongo.restart)
            assert ask()
            restarter.join()


def test_killed_in_the_middle_of_a_query(own_mongo: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mongo, "_LOT", 8)
    with ResultsStore.open("mongo:results") as store:
        store.put(*map(make, range(150)))  # a cursor's first batch are 101
        rows = store.query({}, ["id"], sort={"nsites": 1}, skip=2, limit=140)
        found = [next(rows)["id"]]
        own_mongo.kill()
        own_mongo.restart()
        found += [row["id"] for row in rows]
        assert found == [row["id"] for row in store.query({}, ["id"], sort={"nsites": 1}, skip=2, limit=140)]
        assert len(set(found)) == len(found) == 140


def test_hanging_server(own_mongo: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", f"{own_mongo.uri}?socketTimeoutMS=500&heartbeatFrequencyMS=500")
    with ResultsStore.open("mongo:results") as store:
        store.put(make(0))
        os.kill(own_mongo.pid, signal.SIGSTOP)
        waker = after(2.0, lambda: os.kill(own_mongo.pid, signal.SIGCONT))
        store.put(make(1))
        waker.join()
        assert store.count() == 2


def test_patience_ends(own_mongo: MongoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONONBENCH_MONGO_URI", f"{own_mongo.uri}?serverSelectionTimeoutMS=100")
    monkeypatch.setenv("PHONONBENCH_WRITE_RETRY_S", "1")
    with ResultsStore.open("mongo:results") as store:
        own_mongo.kill()
        for write in (lambda: store.put(make(1)), lambda: store.blobs.put(LARGE)):
            before = time.monotonic()
            with pytest.raises(StoreError, match=r"^MongoDB at mongodb://127\.0\.0\.1:\d+/: .*refused\.$"):
                write()
            assert 1 <= time.monotonic() - before < 5


# ----------------------------------------------------------------------------------------------------------------------
# Many at once
# ----------------------------------------------------------------------------------------------------------------------
def race(target: Callable[..., None], count: int, *arguments: Any) -> None:
    """Run a function in processes that all begin at the same moment."""
    barrier = FORK.Barrier(count)

    def begin(worker: int) -> None:
        barrier.wait()
        target(worker, *arguments)

    processes = [FORK.Process(target=begin, args=(worker,), daemon=True) for worker in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def take_ids(worker: int, database: str) -> None:
    for _ in range(40):
        taken = client()[database].ids.find_one_and_update({}, {"$inc": {"next": 1}})
        client()[database].taken.insert_one({"id": taken["next"]})


def test_the_server_hands_out_no_id_twice(mongo_database: str) -> None:
    # FireWorks' own way, without which nothing that is said of several workers here would mean anything.
    client()[mongo_database].ids.insert_one({"next": 0})
    race(take_ids, 4, mongo_database)
    assert sorted(row["id"] for row in client()[mongo_database].taken.find()) == list(range(160))


def put_all(worker: int, database: str) -> None:
    with ResultsStore.open(f"mongo:{database}") as store:
        for number in range(25):
            store.put(make(number, detail=str(worker)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_same_new_keys_at_once(mongo_database: str) -> None:
    race(put_all, 4, mongo_database)
    raw = client()[mongo_database].calculations
    assert raw.count_documents({}) == len(raw.distinct("key")) == 25


def put_blob(_: int, database: str) -> None:
    GridFSBlobs(database).put(LARGE)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_same_blob_at_once(mongo_database: str) -> None:
    race(put_blob, 4, mongo_database)
    raw = client()[mongo_database]
    assert raw["blobs.files"].count_documents({}) == 1
    assert raw["blobs.chunks"].count_documents({}) == 3


# ----------------------------------------------------------------------------------------------------------------------
# GridFS
# ----------------------------------------------------------------------------------------------------------------------
def test_gridfs_reads_it(mongo_database: str) -> None:
    ref = GridFSBlobs(mongo_database).put(LARGE)
    with gridfs.GridFSBucket(client()[mongo_database], "blobs").open_download_stream(ref.sha256) as stream:
        assert stream.length == ref.size
        assert hashlib.sha256(stream.read()).hexdigest() == ref.sha256


@pytest.mark.parametrize("damage", ["flipped", "piece lost", "all pieces lost"])
def test_damaged_blob_is_noticed_and_mended(mongo_database: str, damage: str) -> None:
    blobs, chunks = GridFSBlobs(mongo_database), client()[mongo_database]["blobs.chunks"]
    ref = blobs.put(LARGE)
    if damage == "flipped":
        data = bytearray(chunks.find_one({"n": 1})["data"])  # type: ignore[index]
        data[1000] ^= 1
        chunks.update_one({"n": 1}, {"$set": {"data": bytes(data)}})
    else:
        chunks.delete_many({"n": 1} if damage == "piece lost" else {})
    said = "missing" if damage == "all pieces lost" else "damaged"
    with pytest.raises(BlobError, match=f"{ref.sha256}.*{mongo_database}.*{said}"):
        blobs.get(ref)
    assert blobs.put(LARGE) == ref
    np.testing.assert_array_equal(blobs.get(ref)["fc"], LARGE["fc"])
    assert chunks.count_documents({}) == 3


def put_and_die(database: str) -> None:
    blobs = GridFSBlobs(database)
    blobs._files = lambda action: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign, return-value]
    blobs.put(LARGE)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_upload_that_was_cut_off(mongo_database: str) -> None:
    process = FORK.Process(target=put_and_die, args=(mongo_database,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    raw = client()[mongo_database]
    assert raw["blobs.chunks"].count_documents({}) == 3
    assert raw["blobs.files"].count_documents({}) == 0
    blobs = GridFSBlobs(mongo_database)
    ref = blobs.put(LARGE)
    np.testing.assert_array_equal(blobs.get(ref)["fc"], LARGE["fc"])
    raw["blobs.chunks"].delete_many({})
    with pytest.raises(BlobError, match="missing"):
        blobs.get(ref)


# ----------------------------------------------------------------------------------------------------------------------
# The database
# ----------------------------------------------------------------------------------------------------------------------
def test_indexes(mongo_database: str) -> None:
    with ResultsStore.open(f"mongo:{mongo_database}") as store:  # makes what is not there
        assert store.missing_indexes() == []
        raw = client()[mongo_database]
        raw.calculations.drop_index("elements_1")
        raw.calculations.drop_index("_".join(f"{field}_1" for field in FIELDS))
        raw.crystals.drop_index("protocol_id_1")
        assert store.missing_indexes() == [
            *(f"calculations({', '.join(FIELDS)})", "calculations(elements)", "crystals(protocol_id)")
        ]
        raw.calculations.create_index("key", unique=True)  # as older versions did
        raw.crystals.create_index("set")
        store.create_indexes()
        assert store.missing_indexes() == []
        assert "key_1" not in raw.calculations.index_information()
        assert "set_1" not in raw.crystals.index_information()
        client().drop_database(mongo_database)
        assert "blobs.chunks(files_id, n)" in store.missing_indexes()


def test_keys_find_by_index(mongo_database: str) -> None:
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        store.put(*map(make, range(20)))
        keys = ["gen_1@p", "gen_2@p"]
        assert sorted(row["key"] for row in store.query({"key": {"$in": keys}})) == keys
        assert store.count({"key": "gen_3@p", "set": "left"}) == 1
    # The only index of the server itself, under which every document stands by its key.
    assert mongo._checked({"set": "left", "key": {"$in": keys}}) == {"_id": {"$in": keys}, "set": "left"}


def test_what_lies_in_the_database(mongo_database: str, tmp_path: Any) -> None:
    with ResultsStore.open({"kind": "mongo", "database": mongo_database, "blobs": str(tmp_path)}) as store:
        store.put_crystals(make_crystal(1))
        store.put(make(1))
        store.put_set(SetDocument(set="left"))
        ref = store.blobs.put(LARGE)
        raw = client()[mongo_database]
        assert raw.calculations.find_one() == {"_id": "gen_1@p", **next(store.query())}
        crystal = store.crystal("gen_1")
        assert crystal is not None
        assert raw.crystals.find_one() == {"_id": "gen_1", "key": "gen_1", **crystal.model_dump(mode="json")}
        assert [raw[name].count_documents({}) for name in ("calculations", "crystals")] == [1, 1]
        assert raw.sets.distinct("_id") == ["left"]
        assert raw["blobs.files"].find_one() is None
        assert (tmp_path / ref.sha256[:2] / f"{ref.sha256}.npz").is_file()


def test_too_large_or_too_many_digits(mongo_database: str) -> None:
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        for changes in ({"detail": "x" * 17_000_000}, {"condition": {"seed": 2**70}}):
            with pytest.raises(StoreError, match="gen_2@p"):
                store.put(make(1), make(2, **changes))
        assert store.count() == 0


def test_foreign_document_is_named(mongo_database: str) -> None:
    with ResultsStore.open(f"mongo:{mongo_database}") as store:
        for name in ("calculations", "crystals", "sets"):
            client()[mongo_database][name].insert_one({"_id": "odd", "key": "odd", "id": "odd"})
        with pytest.raises(StoreError, match="'odd' is no CalculationDocument"):
            store.get("odd")
        with pytest.raises(StoreError, match="'odd' is no CrystalDocument"):
            store.crystal("odd")
        with pytest.raises(StoreError, match="'odd' is no SetDocument"):
            store.sets()
