"""What a set costs the MongoDB server: commands and bytes a crystal for submitting, one worker, and status.

Alloys of two elements on the fcc lattice are handed in as CIFs and judged with the tests'
Lennard-Jones potential by one worker in this process, whose commands pymongo's listener counts. Bytes are those of the
commands and of their answers as BSON.

    python benchmarks/round_trips.py --crystals 96 --protocol paper

The server is the one of PHONONBENCH_MONGO_URI, or the tests' own, which is started. The database is a new one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import bson
from pymatgen.core import Lattice, Structure
from pymongo import monitoring

TESTS = Path(__file__).resolve().parents[1] / "tests"
POTENTIAL = "toy_potentials:lj"
_SILENT = {"hello", "ismaster", "ping", "endSessions", "saslStart", "saslContinue", "buildInfo"}


class Listener(monitoring.CommandListener):
    """Counts commands by collection, and their bytes."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.sent = self.received = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Count it."""
        if event.command_name not in _SILENT:
            name = event.command.get(event.command_name)
            self.commands[f"{event.command_name} {name if isinstance(name, str) else ''}".strip()] += 1
            self.sent += len(bson.encode(dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Count the bytes of its answer."""
        if event.command_name not in _SILENT:
            self.received += len(bson.encode(dict(event.reply)))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Counted when it began."""

    @contextmanager
    def phase(self, name: str, crystals: int, *, detail: bool) -> Iterator[None]:
        """Print what happens meanwhile."""
        self.commands.clear()
        self.sent = self.received = 0
        began = time.perf_counter()
        yield
        total = sum(self.commands.values())
        print(
            f"{name}: {total} commands, {total / crystals:.2f} a crystal; {self.sent / crystals / 1e3:.1f} kB sent and "
            f"{self.received / crystals / 1e3:.1f} kB received a crystal; {time.perf_counter() - began:.1f} s",
            flush=True,
        )
        for each, number in self.commands.most_common() if detail else ():
            print(f"    {number / crystals:7.3f}  {each}")


def write_crystals(folder: Path, number: int) -> None:
    """Files of crystals of four atoms, no two of them alike."""
    sites = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    pairs = list(permutations(["Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Rh", "Ir", "Al", "Pb", "Ca", "Sr", "Fe", "Co"], 2))
    folder.mkdir()
    for place in range(number):
        one, other = pairs[place % len(pairs)]
        cell = Lattice.cubic(3.5 + 0.1 * (place // len(pairs)))
        Structure(cell, [one, other, other, other], sites).to(str(folder / f"{place:06d}.cif"))


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """A server, and its URI in the environment."""
    if "PHONONBENCH_MONGO_URI" in os.environ:
        yield
        return
    from servers import MongoServer

    own = MongoServer(folder / "mongo")
    os.environ["PHONONBENCH_MONGO_URI"] = own.uri
    try:
        yield
    finally:
        own.kill()


def run(given: Any, listener: Listener, folder: Path) -> None:
    """Submit, compute and look."""
    from fireworks import FWorker, LaunchPad
    from jobflow import SETTINGS, JobStore

    from phononbench_flows import potentials
    from phononbench_flows.cluster.launch import submit
    from phononbench_flows.cluster.launchpad import init_launchpad, launchpad_settings
    from phononbench_flows.cluster.outputs import OutputsStore
    from phononbench_flows.cluster.status import set_statuses
    from phononbench_flows.cluster.worker import work
    from phononbench_flows.documents import PotentialRecord
    from phononbench_flows.protocol import load_protocol
    from phononbench_flows.sets.chunks import waiting_crystals
    from phononbench_flows.sets.ingest import CrystalSet, ingest
    from phononbench_flows.store import ResultsStore
    from phononbench_flows.store.connection import mongo_uri

    write_crystals(folder / "set", given.crystals)
    protocol = load_protocol(given.protocol)
    record = PotentialRecord(name=POTENTIAL, checkpoint_sha256=potentials.identify(POTENTIAL).sha256)
    crystals = CrystalSet("trips", {}, protocol, record)
    database = f"round_trips_{uuid.uuid4().hex[:8]}"
    settings = launchpad_settings(mongo_uri(), database) | {"strm_lvl": "ERROR"}
    lp = LaunchPad.from_dict(settings)
    init_launchpad(lp)
    outputs = OutputsStore(database)
    outputs.connect()
    outputs.create_indexes()
    SETTINGS.JOB_STORE = JobStore(outputs)
    n, detail = given.crystals, given.detail
    with ResultsStore.open(f"mongo:{database}") as store:
        with listener.phase("read and screen", n, detail=detail):
            found = ingest([folder / "set"], crystals, store)
        with listener.phase("submit", n, detail=detail):
            waiting = waiting_crystals(store, crystals, found.keys)
            submit(lp, crystals, waiting, store=store.spec, potential=POTENTIAL, device="cpu")
        work_folder = folder / "work"
        work_folder.mkdir()
        with listener.phase("worker", n, detail=detail):
            work(lp, FWorker(), work_folder)
        with listener.phase("status", 1, detail=detail):
            (said,) = set_statuses(store, LaunchPad.from_dict(settings))
        print(said.statuses)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=96)
    parser.add_argument("--protocol", default="paper")
    parser.add_argument("--detail", action="store_true", help="every kind of command")
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    os.environ["PYTHONPATH"] = f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    listener = Listener()
    monitoring.register(listener)
    with tempfile.TemporaryDirectory(prefix="round-trips-") as name, server(Path(name)):
        run(given, listener, Path(name))


if __name__ == "__main__":
    main()
