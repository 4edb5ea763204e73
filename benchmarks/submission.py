"""What it takes to submit a large set to a LaunchPad: time, documents, the largest of them, and the submitter's memory.

Random crystals lie in an extxyz file. All but a few of them are in the results store already, as a `phononbench
submit` would have left them had it been killed while it read; how they came there is not measured. The rest of the way
is that of the command, in this process: the file is read, the few new crystals are parsed, screened against all others
and stored, all are split into chunks, and the chunks are added to the LaunchPad; then all of it once more, which has to
add nothing. Nothing is computed.

The server is the one of PHONONBENCH_MONGO_URI; the database is dropped before and after. With `--results DIRECTORY` the
crystals are kept in an embedded store instead, which is for test servers that look at every document where a MongoDB
uses an index.

    python benchmarks/submission.py --crystals 100000 --atoms 20 --new 1000
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from fireworks import LaunchPad
from pymatgen.core import Lattice, Structure

from phononbench_flows.cluster.launch import Submission, submit
from phononbench_flows.cluster.launchpad import LEDGER, init_launchpad, launchpad_settings
from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin, PotentialRecord, Symmetry
from phononbench_flows.outcomes import SCREENED
from phononbench_flows.protocol import PRESETS
from phononbench_flows.sets.chunks import waiting_crystals
from phononbench_flows.sets.ingest import CrystalSet, calculation, describe, ingest
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.connection import client, mongo_uri
from phononbench_flows.structures import RawCrystal, read_inputs
from phononbench_flows.structures.memory import largest_resident

ELEMENTS = np.array(chemical_symbols[3:84])
_RAW = CodecOptions(RawBSONDocument)


def random_crystals(n: int, natoms: int) -> Iterator[Structure]:
    """Atoms of five elements on a jittered grid, so that none are too close; always the same ones."""
    random = np.random.default_rng(0)
    side = int(np.ceil(natoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for _ in range(n):
        lattice = Lattice(np.diag(side * random.uniform(2.2, 3.2, 3)))
        sites = random.permutation(grid)[:natoms] + random.uniform(-0.15, 0.15, (natoms, 3))
        symbols = random.choice(random.choice(ELEMENTS, 5, replace=False), natoms)
        yield Structure(lattice, symbols.tolist(), sites / side)


def extxyz(structure: Structure) -> str:
    """One frame."""
    lattice = " ".join(f"{x:.6f}" for x in structure.lattice.matrix.ravel())
    sites = "".join(f"{s.specie.symbol} {s.x:.6f} {s.y:.6f} {s.z:.6f}\n" for s in structure)
    return f'{len(structure)}\nLattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T"\n{sites}'


def screened(
    raw: RawCrystal, structure: Structure, crystals: CrystalSet
) -> tuple[CrystalDocument, CalculationDocument]:
    """The documents that the ingest of a crystal without symmetry leaves."""
    origin = Origin(source=raw.source, sha256=hashlib.sha256(raw.data).hexdigest())
    crystal = CrystalDocument(id=f"{crystals.name}-{raw.label}", set=crystals.name, origin=origin)
    describe(crystal, structure)
    document = calculation(crystal, crystals)
    document.stage = SCREENED
    document.symmetry_initial = Symmetry(number=1, point_group="1", symbol="P1", symprec=0.01)
    return crystal, document


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return largest_resident() / 2**20


def hand_out(file: Path, crystals: CrystalSet, store: ResultsStore, lp: LaunchPad) -> Submission:
    """The way of the command, with the time of each step."""
    began = time.perf_counter()
    found = ingest([file], crystals, store)
    read = time.perf_counter()
    waiting = waiting_crystals(store, crystals, found.keys)
    done = submit(lp, crystals, waiting, store=store.spec, potential=crystals.potential.name)
    ended = time.perf_counter()
    print(
        f"{len(found.keys)} crystals, {found.new} new, {len(waiting)} waiting: "
        f"read and screened in {read - began:.1f} s; "
        f"{done.crystals} crystals in {done.chunks} chunks handed out in {ended - read:.1f} s; "
        f"peak memory {peak_mib():.0f} MiB",
        flush=True,
    )
    return done


def report_documents(database: str) -> None:
    """Number of documents of each collection, and the size of the largest."""
    for name in ("crystals", "calculations", LEDGER, "workflows", "fireworks"):
        collection: Any = client()[database].get_collection(name, codec_options=_RAW)
        sizes = [len(document.raw) for document in collection.find({})]
        largest, total = max(sizes, default=0) / 1e3, sum(sizes) / 1e6
        print(f"{name}: {len(sizes)} documents, largest {largest:.1f} kB, together {total:.1f} MB")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=100_000)
    parser.add_argument("--atoms", type=int, default=20)
    parser.add_argument("--new", type=int, default=1_000, help="crystals that are not in the store yet")
    parser.add_argument("--database", default=f"phononbench_benchmark_{os.getpid()}")
    parser.add_argument("--results", type=Path, help="a new directory for an embedded store of the crystals")
    given = parser.parse_args()
    potential = PotentialRecord(name="mattersim-v1-5m", checkpoint_sha256="0" * 64)
    crystals = CrystalSet("random", {}, PRESETS["paper"], potential)
    client().drop_database(given.database)
    lp = LaunchPad.from_dict(launchpad_settings(mongo_uri(), given.database) | {"strm_lvl": "WARNING"})
    init_launchpad(lp)
    with (
        tempfile.TemporaryDirectory() as folder,
        ResultsStore.open(given.results or f"mongo:{given.database}") as store,
    ):
        store.create_indexes()
        file = Path(folder) / "random.extxyz"
        with file.open("w") as frames:
            frames.writelines(map(extxyz, random_crystals(given.crystals, given.atoms)))
        old = zip(read_inputs([file]), random_crystals(given.crystals - given.new, given.atoms), strict=False)
        for batch in batched(old, 200):
            pairs = [screened(raw, structure, crystals) for raw, structure in batch]
            store.put_crystals(*(crystal for crystal, _ in pairs))
            store.put(*(document for _, document in pairs))
        print(f"peak memory before the submission {peak_mib():.0f} MiB", flush=True)
        first = hand_out(file, crystals, store, lp)
        again = hand_out(file, crystals, store, lp)
    report_documents(given.database)
    client().drop_database(given.database)
    if again.chunks or first.crystals != sum(again.elsewhere.values()):
        raise SystemExit("the second submission handed something out again")


if __name__ == "__main__":
    main()
