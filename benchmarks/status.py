"""How long `phononbench status` takes over a large set, with the start of the program and without.

    python benchmarks/status.py large --crystals 100000
    python benchmarks/status.py mongo:large --crystals 10000

The store, a directory or a database, is filled up to so many crystals of one set, half-way through `converged`: 45 %
wait, 5 % are under way, 40 % were judged (in the last two hours), 6 % failed, 4 % were rejected. Their documents are
those of some alloys that are judged for real first. Then the command runs as a process of its own, a few times.
SecantusDB reads whole documents where MongoDB has all in an index: do not fill it with 100,000.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import batched, count, islice
from typing import Any

from round_trips import TESTS
from workers import recorded

from phononbench_flows.outcomes import READ, SCREENED, Reason, Status
from phononbench_flows.store import ResultsStore

SET = "large"


def documents(found: list[dict[str, Any]], start: int) -> Any:
    """Plain documents without an end, from this number on, made of those of crystals that were judged."""
    dice, now = random.Random(start), datetime.now(UTC)
    for number in count(start):
        name, protocol_id = f"{SET}-{number:07d}", found[0]["protocol_id"]
        written = (now - timedelta(hours=2 * dice.random())).isoformat()
        own = {"id": name, "set": SET, "key": f"{name}@{protocol_id}", "updated_at": written}
        yield dice.choice(found) | own | _state(dice.random(), dice)


def _state(place: float, dice: random.Random) -> dict[str, Any]:
    bare: dict[str, Any] = {
        "arrays": {},
        "assessments": [],
        "evidence": {"looks": {}},
        "minimum": None,
        "phonon": None,
        "results": {},
    }
    bare |= {"relaxed_structure": None, "provenance": None, "provenance_by_step": {}}
    if place < 0.40:
        return bare | {"stage": SCREENED, "status": Status.PENDING.value}
    if place < 0.45:
        return bare | {"stage": SCREENED, "status": Status.PENDING.value, "attempts": 1, "begun_by": "0" * 32}
    if place < 0.50:
        return bare | {"stage": "relaxation", "status": Status.PENDING.value}
    if place < 0.56:
        reason = dice.choice([Reason.NOT_CONVERGED, Reason.KILLED_WORKER, Reason.EXCEPTION])
        return bare | {"stage": "relaxation", "status": Status.FAILED.value, "reason": reason.value}
    if place < 0.60:
        return bare | {"stage": READ, "status": Status.REJECTED.value, "reason": Reason.DISORDERED.value}
    return {"status": Status.UNSTABLE.value} if place < 0.80 else {}


def fill(store: ResultsStore, number: int) -> None:
    """Put crystals into the store until it has so many of the set."""
    there = store.count({"set": SET})
    if there >= number:
        return
    found = [crystal[-1][0] for crystal in recorded("converged", 16)]
    for lot in batched(islice(documents(found, there), number - there), 500):
        # As they are: documents that are put say that they were written now.
        store._calculations.update(list(lot))  # noqa: SLF001


def timed(spec: str) -> str:
    """The command in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "phononbench_flows", "status", "--store", spec, "--set", SET, "--json"]
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:.2f} s, {spent:.2f} s of processor time"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a directory, or mongo:DATABASE on the server of PHONONBENCH_MONGO_URI")
    parser.add_argument("--crystals", type=int, default=100_000)
    parser.add_argument("--tries", type=int, default=3)
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    with ResultsStore.open(given.store, create=True) as store:
        store.create_indexes()
        fill(store, given.crystals)
        for _ in range(given.tries):
            began, spent = time.perf_counter(), time.process_time()
            total = sum(each.number for each in store.counts({"set": SET}))
            wall, spent = time.perf_counter() - began, time.process_time() - spent
            print(f"{total} crystals counted: {wall:.2f} s, {spent:.2f} s of processor time; command: ", end="")
            print(timed(given.store), flush=True)


if __name__ == "__main__":
    main()
