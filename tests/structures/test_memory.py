from __future__ import annotations

import subprocess
import sys

import pytest

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
