"""Pages of the table of `phononbench serve` under load: many requests at once, on an address of this machine.

    python benchmarks/serve_pages.py FOLDER [--crystals 100000] [--at-once 100] [--bursts 10]

FOLDER is filled with made-up crystals if it is empty. Each request of a burst asks for another page: other filters,
order and place. Says the median and 95th percentile of the time from the start of a burst until each answer is there,
and the memory of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def fill(folder: Path, number: int) -> None:
    """Write so many made-up crystals into a new store."""
    import synthetic

    synthetic.fill(folder, number).close()


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A server that has read the store, and its address."""
    command = [sys.executable, "-m", "phononbench_flows", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1].rstrip("/")
    began = time.monotonic()
    while not json.load(urllib.request.urlopen(f"{address}/api/status"))["complete"]:
        time.sleep(0.2)
    print(f"the store was read in {time.monotonic() - began:.1f} s")
    return process, address


def question(chance: random.Random) -> str:
    """The address of a page that hardly anybody asked for before."""
    parts = [
        chance.choice(
            ["", "set=Alpha", "set=Beta", "status=stable", "status=unstable&set=Gamma-2", "published=stable"]
        ),
        chance.choice(["", "elements=O", "elements=Li,F", "none_of=U", "any_of=Fe,Ti", "crystal_system=cubic"]),
        chance.choice(["", f"natoms={chance.randint(1, 5)}:{chance.randint(6, 14)}", "nelements=2"]),
        f"sort={chance.choice(['id', 'lowest', 'natoms', 'formula', 'space_group'])}",
        chance.choice(["", "down=true"]),
        f"page={chance.randint(1, 20)}",
    ]
    return "/api/crystals?" + "&".join(filter(None, parts))


async def burst(client: httpx.AsyncClient, chance: random.Random, number: int) -> list[float]:
    """Seconds until each of so many requests, sent at once, is answered."""
    began = time.perf_counter()

    async def one() -> float:
        answer = await client.get(question(chance))
        answer.raise_for_status()
        return time.perf_counter() - began

    return list(await asyncio.gather(*(one() for _ in range(number))))


async def measured(address: str, at_once: int, bursts: int) -> list[float]:
    """The times of all bursts but the first, which opens the connections."""
    assert urlsplit(address).hostname == "127.0.0.1"
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    chance = random.Random(0)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        await burst(client, chance, at_once)
        return [seconds for _ in range(bursts) for seconds in await burst(client, chance, at_once)]


def memory(pid: int) -> str:
    """Resident memory of a process, and the most that it had."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return ", ".join(" ".join(line.split()) for line in status if line.startswith(("VmRSS", "VmHWM")))


def main() -> None:
    """Fill, serve, ask, tell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crystals", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--bursts", type=int, default=10)
    asked = parser.parse_args()
    if not (asked.folder / "results.sqlite").is_file():
        fill(asked.folder, asked.crystals)
    process, address = started(asked.folder)
    try:
        times = asyncio.run(measured(address, asked.at_once, asked.bursts))
        print(f"{len(times)} pages, {asked.at_once} at once: median {1e3 * median(times):.0f} ms, ", end="")
        print(f"95th percentile {1e3 * quantiles(times, n=20)[-1]:.0f} ms; server {memory(process.pid)}")
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
