"""What many workers at once ask of the MongoDB server: commands and bytes a crystal, and crystals an hour.

    python benchmarks/workers.py --workers 20 --crystals 5000 --seconds 0

Worker processes take real chunks from a real LaunchPad, as `phononbench worker` does: the checks before they begin,
FireWorks, the marks on crystals that are begun, the saver that writes together what finishes within five seconds,
GridFS, and jobflow's outputs are those of the package. What they do not do is to compute. With a potential that costs
nothing a crystal still takes tenths of a second of a core, so that 20 workers beside a server on a few cores would
measure these cores. Instead some alloys are judged for real first, by the tests' Lennard-Jones potential, and each
crystal is given what was found of one of them, step by step: its document with these results, and arrays of the same
size, in which one number is changed so that no two are alike.

`--seconds` is how long a worker takes over a crystal, 32 of which are under way at once; it decides how many are
written together. With 0 the server, or whatever else is slowest here, sets the pace. Alloys of four atoms have smaller
arrays than most crystals: bytes are those of these alloys.

The server is the one of PHONONBENCH_MONGO_URI, or the tests' own, which is started. With `--database` the crystals come
beside what that database holds, such as what `benchmarks/status.py` left there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import random
import resource
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from pymongo import monitoring
from round_trips import POTENTIAL, TESTS, Listener, server, write_crystals
from submission import extxyz, random_crystals

from phononbench_flows.documents import CalculationDocument

SET = "replayed"
_UNDER_WAY = 32
# What a crystal is, and the bookkeeping of whoever computes it; all else is what was found.
_OWN = {
    *("id", "set", "origin", "condition", "labels", "content_hash", "nsites", "elements", "nelements", "chemsys"),
    *("formula_pretty", "created_at", "updated_at", "key", "protocol_id", "protocol_name", "potential", "steps"),
    *("attempts", "begun_by", "excused", "device_errors", "arrays", "provenance", "provenance_by_step"),
}

Arrays = Mapping[str, Mapping[str, np.ndarray]]
Recorded = list[list[tuple[dict[str, Any], Arrays]]]


def recorded(protocol: str, number: int) -> Recorded:
    """What is found of some alloys, judged for real: documents and arrays, step by step, for each of them."""
    from phononbench_flows.run import judge_folder
    from phononbench_flows.store import Saver

    found: defaultdict[str, list[tuple[dict[str, Any], Arrays]]] = defaultdict(list)
    save = Saver.save

    def kept(saver: Saver, document: CalculationDocument, arrays: Arrays) -> None:
        save(saver, document, arrays)
        found[document.key].append((document.model_dump(mode="json"), dict(arrays)))

    with tempfile.TemporaryDirectory() as folder, patch.object(Saver, "save", kept):
        crystals = Path(folder) / "crystals"
        write_crystals(crystals, number)
        out = Path(folder) / "results"
        judge_folder(crystals, "S", out=out, potential=POTENTIAL, protocol=protocol, device="cpu", workers=1)
    return list(found.values())


class Replay:
    """Takes the place of ``pass_steps``: writes what was recorded, at a pace."""

    def __init__(self, record: Recorded, seconds: float) -> None:
        self.record, self.seconds = record, seconds
        self.crystals, self.began = 0, 0.0

    def __call__(self, crystals: Iterable[Any], steps: Sequence[Any], _tools: Any, write: Callable[..., None]) -> None:
        """Take the crystals through all steps, so many at a time."""
        self.began = self.began or time.time()
        waiting = (crystal for crystal in crystals if crystal is not None)
        for lot in batched(waiting, _UNDER_WAY):
            chosen = [(crystal.document, random.choice(self.record)) for crystal in lot]
            for step in range(len(steps)):
                for document, found in chosen:
                    if step < len(found):
                        time.sleep(self.seconds / len(found))
                        _give(document, *found[step], write)
            self.crystals += len(lot)


def _give(document: CalculationDocument, found: dict[str, Any], arrays: Arrays, write: Callable[..., None]) -> None:
    for name in found.keys() - _OWN:
        setattr(document, name, found[name])
    write(document, {name: _unlike(kept) for name, kept in arrays.items()})


def _unlike(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays, but for one number."""
    name = next(name for name in sorted(arrays) if arrays[name].dtype.kind == "f" and arrays[name].size)
    changed = arrays[name].copy()
    changed.flat[0] += random.uniform(0, 1e-9)
    return {**arrays, name: changed}


def work_and_tell(database: str, folder: str, seconds: float, record: str, told: str) -> None:
    """A worker process: works until nothing is left, and writes what it asked of the server into a file."""
    began = _processor_time()
    listener = Listener()
    monitoring.register(listener)
    from fireworks import FWorker
    from jobflow import SETTINGS, JobStore

    from phononbench_flows.cluster.outputs import OutputsStore
    from phononbench_flows.cluster.worker import work
    from phononbench_flows.flows import step_runs

    replay = Replay(pickle.loads(Path(record).read_bytes()), seconds)
    step_runs.pass_steps = replay  # type: ignore[assignment]
    SETTINGS.JOB_STORE = JobStore(OutputsStore(database))
    Path(folder).mkdir()
    work(_launchpad(database), FWorker(), Path(folder), store=f"mongo:{database}")
    said = {name: getattr(listener, name) for name in ("commands", "sent", "received")}
    said |= {"crystals": replay.crystals, "began": replay.began, "ended": time.time()}
    Path(told).write_text(json.dumps(said | {"processor": _processor_time() - began}))


def _launchpad(database: str) -> Any:
    from fireworks import LaunchPad

    from phononbench_flows.cluster.launchpad import launchpad_settings
    from phononbench_flows.store.connection import mongo_uri

    return LaunchPad.from_dict(launchpad_settings(mongo_uri(), database) | {"strm_lvl": "ERROR"})


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_workers(given: argparse.Namespace, database: str, record: Recorded, folder: Path) -> Iterator[dict[str, Any]]:
    """Start the workers and wait for them; gives what each of them tells."""
    (folder / "record").write_bytes(pickle.dumps(record))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers", "toy_potentials", "phononbench_flows.cluster.worker"])
    processes = []
    for number in range(given.workers):
        arguments = (database, str(folder / f"w{number}"), given.seconds, str(folder / "record"))
        processes.append(context.Process(target=work_and_tell, args=(*arguments, str(folder / f"{number}.json"))))
        processes[-1].start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a worker ended with {process.exitcode}")
    for number in range(given.workers):
        yield json.loads((folder / f"{number}.json").read_text())


def tell_workers(told: Sequence[dict[str, Any]], n: int, *, detail: bool) -> None:
    """What the workers asked of the server, and how fast they were."""
    commands: Counter[str] = Counter()
    for each in told:
        commands.update(each["commands"])
    sent, received, processor = (sum(each[name] for each in told) for name in ("sent", "received", "processor"))
    busy = [each for each in told if each["crystals"]]
    print(
        f"workers: {commands.total()} commands, {commands.total() / n:.2f} a crystal; {sent / n / 1e3:.1f} kB sent and "
        f"{received / n / 1e3:.1f} kB received a crystal; {len(busy)} of {len(told)} got work; "
        f"{processor / n * 1e3:.1f} ms of processor time a crystal"
    )
    seconds = max(each["ended"] for each in busy) - min(each["began"] for each in busy)
    print(f"{n / seconds * 3600:.0f} crystals an hour, {n} in {seconds:.1f} s", flush=True)
    for kind, number in commands.most_common() if detail else ():
        print(f"    {number / n:7.3f}  {kind}")


def tell_sizes(database: str) -> None:
    """Documents of each collection, and their size in the mean."""
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument

    from phononbench_flows.store.connection import client

    for name in sorted(client()[database].list_collection_names()):
        collection: Any = client()[database].get_collection(name, codec_options=CodecOptions(RawBSONDocument))
        number = collection.estimated_document_count()
        newest = [len(document.raw) for document in collection.find({}, sort=[("$natural", -1)], limit=500)]
        print(f"{name}: {number} documents of {np.mean(newest or [0]) / 1e3:.1f} kB (the last 500)")


def run(given: argparse.Namespace, listener: Listener, folder: Path) -> None:
    """Submit, let the workers work, and look."""
    from phononbench_flows import potentials
    from phononbench_flows.cluster.launch import submit
    from phononbench_flows.cluster.launchpad import init_launchpad
    from phononbench_flows.cluster.outputs import OutputsStore
    from phononbench_flows.cluster.status import set_statuses
    from phononbench_flows.documents import PotentialRecord
    from phononbench_flows.protocol import load_protocol
    from phononbench_flows.sets.chunks import waiting_crystals
    from phononbench_flows.sets.ingest import CrystalSet, ingest
    from phononbench_flows.store import ResultsStore

    database, n = given.database or f"workers_{uuid.uuid4().hex[:8]}", given.crystals
    record = recorded(given.protocol, given.recorded)
    name = f"{SET}-{uuid.uuid4().hex[:6]}"
    sha = potentials.identify(POTENTIAL).sha256
    potential = PotentialRecord(name=POTENTIAL, checkpoint_sha256=sha)
    crystals = CrystalSet(name, {}, load_protocol(given.protocol), potential)
    lp = _launchpad(database)
    init_launchpad(lp)
    outputs = OutputsStore(database)
    outputs.connect()
    outputs.create_indexes()
    file = folder / "crystals.extxyz"
    with file.open("w") as frames:
        frames.writelines(map(extxyz, random_crystals(n, 4)))
    with ResultsStore.open(f"mongo:{database}") as store:
        print(f"{store.count()} crystals in the store", flush=True)
        with listener.phase("read and screen", n, detail=given.detail):
            found = ingest([file], crystals, store)
        with listener.phase("submit", n, detail=given.detail):
            waiting = waiting_crystals(store, crystals, found.keys)
            done = submit(lp, crystals, waiting, store=store.spec, potential=POTENTIAL, device="cpu")
        print(f"{done.crystals} crystals in {done.chunks} chunks", flush=True)
        tell_workers(list(run_workers(given, database, record, folder)), n, detail=given.detail)
        with listener.phase("status", 1, detail=given.detail):
            said = list(set_statuses(store, lp))
        print({each.set: each.statuses for each in said})
    tell_sizes(database)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--crystals", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=0.0, help="that a worker takes over a crystal")
    parser.add_argument("--protocol", default="converged")
    parser.add_argument("--recorded", type=int, default=16, help="alloys to judge for real")
    parser.add_argument("--database", help="one that is there, which keeps what it holds")
    parser.add_argument("--detail", action="store_true", help="every kind of command")
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    path = [str(TESTS), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    listener = Listener()
    monitoring.register(listener)
    with tempfile.TemporaryDirectory(prefix="workers-") as name, server(Path(name)):
        run(given, listener, Path(name))


if __name__ == "__main__":
    main()
