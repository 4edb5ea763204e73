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


async def asked_on(place: tuple[str, int], paths: asyncio.Queue[str], times: list[float]) -> None:
    """One connection, which asks for a page as soon as each burst begins; a client of few lines costs little itself."""
    reader, writer = await asyncio.open_connection(*place)
    while True:
        path = await paths.get()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {place[0]}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        times.append(time.perf_counter())
        paths.task_done()


async def measured(address: str, at_once: int, bursts: int) -> list[float]:
    """Seconds until each page is there, from the start of its burst; without the first, which opens connections."""
    found = urlsplit(address)
    assert found.hostname == "127.0.0.1"
    assert found.port is not None
    chance, paths = random.Random(0), asyncio.Queue[str]()
    ends: list[float] = []
    place = (found.hostname, found.port)
    tasks = [asyncio.create_task(asked_on(place, paths, ends)) for _ in range(at_once)]
    seconds: list[float] = []
    for number in range(bursts + 1):
        ends.clear()
        began = time.perf_counter()
        for _ in range(at_once):
            paths.put_nowait(question(chance))
        await paths.join()
        seconds += [end - began for end in ends] if number else []
    for task in tasks:
        task.cancel()
    return seconds


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
