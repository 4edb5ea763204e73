"""Embedded stores side by side: one upsert per finished crystal, then the queries that analysis makes.

Every store runs in two processes of its own: one writes documents of about 3 kB, one call each, the other opens what
was written, finds one document by key, answers a MongoDB query, and counts by status. Peak memory is the larger of
the two processes', in MB, and includes the imports. A store that needs longer than the cap stops where it is, and
its queries are timed on what it has.

    uv run --with montydb --with lmdb --with neosqlite benchmarks/embedded_stores.py --documents 10000 --cap 60
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

SETS = ("mattergen", "diffcsp")
STATUSES = ("stable", "unstable", "unstable", "failed")
QUERY = {"set": SETS[0], "status": "stable", "elements": {"$all": ["O"]}, "nsites": {"$lte": 8}}


class Candidate(Protocol):
    """A store as the benchmark sees it."""

    def upsert(self, doc: dict[str, Any]) -> None:
        """Write one document; a killed process must not lose it."""

    def find_one(self, key: str) -> dict[str, Any] | None:
        """The document of a key."""

    def find(self, criteria: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Documents that match."""

    def status_counts(self) -> dict[str, int]:
        """Number of documents for every status."""


class MaggmaCandidate:
    """Any maggma store."""

    def __init__(self, store: Any) -> None:
        self.store = store
        store.connect()

    def upsert(self, doc: dict[str, Any]) -> None:
        """Write one document; a killed process must not lose it."""
        self.store.update(doc)

    def find_one(self, key: str) -> dict[str, Any] | None:
        """The document of a key."""
        return self.store.query_one({"key": key})

    def find(self, criteria: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Documents that match."""
        return self.store.query(criteria)

    def status_counts(self) -> dict[str, int]:
        """Number of documents for every status."""
        return {status: self.store.count({"status": status}) for status in sorted(set(STATUSES))}


class JournalCandidate(MaggmaCandidate):
    """maggma's MemoryStore with an append-only journal that is flushed to disk at every upsert and read at start."""

    def __init__(self, store: Any, path: Path) -> None:
        super().__init__(store)
        if path.exists():
            last = {doc["key"]: doc for doc in map(json.loads, path.read_text().splitlines())}
            store._collection.insert_many(list(last.values()))  # noqa: SLF001 - update() takes quadratic time
        self.journal = path.open("a")

    def upsert(self, doc: dict[str, Any]) -> None:
        """Write one document; a killed process must not lose it."""
        self.journal.write(json.dumps(doc) + "\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())
        super().upsert(doc)


class NeoSQLiteCandidate:
    """NeoSQLite with a unique index on the key."""

    def __init__(self, path: Path) -> None:
        import neosqlite

        self.collection = neosqlite.Connection(str(path))["documents"]
        if "key" not in str(self.collection.index_information()):
            self.collection.create_index("key", unique=True)

    def upsert(self, doc: dict[str, Any]) -> None:
        """Write one document; a killed process must not lose it."""
        self.collection.replace_one({"key": doc["key"]}, doc, upsert=True)

    def find_one(self, key: str) -> dict[str, Any] | None:
        """The document of a key."""
        return self.collection.find_one({"key": key})

    def find(self, criteria: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Documents that match."""
        return self.collection.find(criteria)

    def status_counts(self) -> dict[str, int]:
        """Number of documents for every status."""
        return {status: self.collection.count_documents({"status": status}) for status in sorted(set(STATUSES))}


def _monty(storage: Literal["sqlite", "lightning", "flatfile"], folder: Path) -> Candidate:
    from maggma.stores import MontyStore

    return MaggmaCandidate(MontyStore("documents", database_path=str(folder), storage=storage, key="key"))


def _json(folder: Path) -> Candidate:
    from maggma.stores import JSONStore

    return MaggmaCandidate(JSONStore(str(folder / "documents.json"), read_only=False, key="key"))


def _journal(folder: Path) -> Candidate:
    from maggma.stores import MemoryStore

    return JournalCandidate(MemoryStore(key="key"), folder / "journal.jsonl")


def _sqlite(synchronous: str, folder: Path) -> Candidate:
    from phononbench_flows.store.sqlite import SQLiteStore

    store = SQLiteStore(str(folder / "results.sqlite"))
    # The store has no such option: this is only to see what the flush at every commit costs.
    store._connection().execute(f"PRAGMA synchronous = {synchronous}")  # noqa: SLF001
    return MaggmaCandidate(store)


CANDIDATES = {
    "SQLiteStore, synchronous=FULL": lambda folder: _sqlite("FULL", folder),
    "SQLiteStore, synchronous=NORMAL": lambda folder: _sqlite("NORMAL", folder),
    "NeoSQLite (its defaults: NORMAL)": lambda folder: NeoSQLiteCandidate(folder / "neo.sqlite"),
    "maggma MontyStore sqlite": lambda folder: _monty("sqlite", folder),
    "maggma MontyStore lightning": lambda folder: _monty("lightning", folder),
    "maggma MontyStore flatfile": lambda folder: _monty("flatfile", folder),
    "maggma JSONStore": _json,
    "maggma MemoryStore + journal": _journal,
}


def template() -> dict[str, Any]:
    """The document of a finished calculation, plain JSON."""
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.structure import Structure

    from phononbench_flows.documents import CalculationDocument

    sites = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0137], [0.5, 0.0137, 0.5]]
    structure = Structure(Lattice.cubic(3.9051234567), ["Sr", "Ti", "O", "O"], sites).as_dict()
    minimum = {"frequency": -0.123456789, "q": [0.5, 0.0, 0.0], "n_q": 808, "exact": False}
    sha256 = "0" * 64
    blob = {"sha256": sha256, "size": 12345}
    doc = CalculationDocument.model_validate(
        {
            "key": "a@p",
            "id": "a",
            "set": SETS[0],
            "origin": {"source": "generated_crystals.zip/gen_00000.cif", "sha256": sha256},
            "content_hash": sha256,
            "protocol_id": "p",
            "protocol_name": "paper",
            "potential": {
                "name": "mattersim-5m",
                "checkpoint_sha256": sha256,
                "dtype": "float32",
                "device": "cuda",
            },
            "steps": ["relaxation", "force_constants", "spectrum"],
            "stage": "spectrum",
            "relaxed_structure": structure,
            "relaxation": {
                "steps": 312,
                "rounds": 1,
                "energy_per_atom": -7.123456789,
                "max_force": 0.00213,
                "max_stress": 1.2e-5,
                "volume_change": 0.0123,
                "refined": True,
            },
            "phonon": {
                "supercell": [2, 2, 2],
                "supercell_natoms": 32,
                "primitive_natoms": 4,
                "n_displacements": 12,
                "max_drift": 1e-5,
                "n_imaginary": 3,
            },
            "evidence": {"looks": {"path": minimum, "mesh": minimum, "commensurate": minimum | {"exact": True}}},
            "minimum": minimum,
            "assessments": [
                {"threshold": -0.1, "stability": "unstable", "where": "path"},
                {"threshold": -0.5, "stability": "stable", "where": "path"},
            ],
            "arrays": {"force_constants": blob, "band_structure": blob},
            "timings": {"relaxation": 0.51, "force_constants": 0.32, "spectrum": 0.2},
        }
    )
    return doc.model_dump(mode="json")


def document(base: dict[str, Any], number: int) -> dict[str, Any]:
    """The template as crystal ``number``."""
    crystal = f"gen_{number:06d}"
    return base | {
        "key": f"{crystal}@p",
        "id": crystal,
        "set": SETS[number % 2],
        "status": STATUSES[number // 2 % 4],
        "nsites": 1 + number % 20,
        "elements": ["O", "Sr", "Ti"] if number % 3 else ["N", "Ti"],
    }


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def write(name: str, folder: Path, documents: int, cap: float) -> dict[str, Any]:
    """Upsert one document after the other until all are there or the time is up."""
    base = template()
    size = len(json.dumps(base))
    store = CANDIDATES[name](folder)
    start, written, elapsed = time.perf_counter(), 0, 0.0
    while written < documents and elapsed < cap:
        store.upsert(document(base, written))
        written += 1
        elapsed = time.perf_counter() - start
    return {"written": written, "write_s": elapsed, "bytes": size, "write_mb": _peak_mb()}


def read(name: str, folder: Path, written: int) -> dict[str, Any]:
    """Open what was written and ask, with times in seconds."""
    with tempfile.TemporaryDirectory() as elsewhere:
        CANDIDATES[name](Path(elsewhere))  # so that importing is not timed as opening
    marks = [time.perf_counter()]
    store = CANDIDATES[name](folder)
    marks.append(time.perf_counter())
    found = store.find_one(f"gen_{written // 2:06d}@p")
    marks.append(time.perf_counter())
    matches = sum(1 for _ in store.find(QUERY))
    marks.append(time.perf_counter())
    counts = store.status_counts()
    marks.append(time.perf_counter())
    expected = [document({}, number) for number in range(written)]
    wanted = sum(
        doc["set"] == QUERY["set"] and doc["status"] == "stable" and "O" in doc["elements"] and doc["nsites"] <= 8
        for doc in expected
    )
    right = found is not None and matches == wanted and counts == Counter(doc["status"] for doc in expected)
    names = ("open_s", "find_one_s", "query_s", "counts_s")
    times = {label: after - before for label, before, after in zip(names, marks, marks[1:], strict=False)}
    return times | {"right": right, "read_mb": _peak_mb()}


def _child(step: str, name: str, folder: Path, count: int, cap: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--store", name, "--folder", str(folder)]
    # A document that takes longer than the cap (a whole file rewritten) must not hang the run either.
    limit = 3 * cap + 60
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    options = ["--documents", str(count), "--cap", str(cap)]
    try:
        done = subprocess.run(
            command + options, check=False, capture_output=True, text=True, timeout=limit, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"error": f"{step}: more than {limit:.0f} s"}
    if done.returncode:
        return {"error": f"{step}: {done.stderr.strip().splitlines()[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, documents: int, cap: float) -> dict[str, Any]:
    """Both steps of one store."""
    with tempfile.TemporaryDirectory() as folder:
        result = _child("write", name, Path(folder), documents, cap)
        if "error" not in result:
            result |= _child("read", name, Path(folder), result["written"], cap)
    return result


def row(name: str, result: dict[str, Any], documents: int) -> str:
    """A line of the table."""
    if "error" in result:
        return f"| {name} | {result['error']} | | | | | | |"
    written, seconds = result["written"], result["write_s"]
    total = f"{seconds:.1f}" if written == documents else f"stopped after {written} upserts, {seconds:.0f} s"
    reads = " | ".join(f"{1e3 * result[label]:.1f}" for label in ("open_s", "find_one_s", "query_s", "counts_s"))
    memory = max(result["write_mb"], result["read_mb"])
    right = "" if result["right"] else " WRONG ANSWER"
    return f"| {name} | {total} | {1e3 * seconds / written:.2f} | {reads}{right} | {memory:.0f} |"


def main() -> None:
    """Measure every store, or do one step of one store in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="documents to write")
    parser.add_argument("--cap", type=float, default=120.0, help="seconds of writing a store may take")
    parser.add_argument("--store", choices=list(CANDIDATES), help="measure only this store")
    parser.add_argument("--step", choices=("write", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "write":
        print(json.dumps(write(args.store, args.folder, args.documents, args.cap)))
        return
    if args.step == "read":
        print(json.dumps(read(args.store, args.folder, args.documents)))
        return
    print(f"| store | {args.documents} upserts, s | ms each | open, ms | find_one, ms | query, ms | counts, ms | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in [args.store] if args.store else CANDIDATES:
        print(row(name, measure(name, args.documents, args.cap), args.documents), flush=True)


if __name__ == "__main__":
    main()
