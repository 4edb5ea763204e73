from __future__ import annotations

import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from phononbench_flows.structures import limited, memory

PROGRAM = """
from pathlib import Path
from phononbench_flows.structures import memory
memory._STATM = Path({statm!r})
memory.limit_memory(50 * 2**20)
small = bytes(2**20)
print("small", flush=True)
try:
    large = bytearray(b"1") * (400 * 2**20)
except MemoryError:
    raise SystemExit(3)
while True:
    pass
"""


@pytest.mark.parametrize(
    ("statm", "code"),
    [
        pytest.param("/proc/self/statm", 3, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")),
        ("/nowhere", 137),  # as on macOS
    ],
)
def test_a_process_that_takes_too_much_ends(statm: str, code: int) -> None:
    # By way of a shell: a program that is run begins with the largest memory that whoever ran it ever had.
    command = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, PROGRAM.format(statm=statm)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout == "small\n"
    assert found.returncode == code, found.stderr


@pytest.mark.parametrize(("platform", "size"), [("linux", 3 * 1024), ("darwin", 3)])
def test_units_of_the_largest_size(monkeypatch: pytest.MonkeyPatch, platform: str, size: int) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3))
    assert memory.largest_resident() == size


@pytest.mark.parametrize(("platform", "preloaded"), [("linux", 1), ("darwin", 0)])
def test_on_macos_nothing_is_imported_before_a_fork(
    monkeypatch: pytest.MonkeyPatch, platform: str, preloaded: int
) -> None:
    lists: list[list[str]] = []

    def get_context(method: str) -> SimpleNamespace:
        assert method == "forkserver"
        return SimpleNamespace(set_forkserver_preload=lists.append)

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(limited, "get_context", get_context)
    limited.context()
    [found] = lists
    assert len(found) == preloaded
