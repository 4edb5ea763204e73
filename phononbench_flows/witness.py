"""A small process beside a worker that sees how the worker ends: by itself, or killed from outside.

A worker that dies of a signal of its own making (a segmentation fault, an abort) tells so with its last breath,
through Python's ``faulthandler``; one that the kernel kills for its memory is counted by the kernel. Whoever is killed
otherwise, by a scheduler that wants the node back or by a person, says nothing, and no crystal is to blame for that. If
the witness goes down as well, it was the job, or the node.
"""

from __future__ import annotations

import faulthandler
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phononbench_flows.store import ResultsStore, Spec

_FATAL = b"Fatal Python error: "
_READY = b"\n"


@dataclass
class _State:
    """The witness of this process; None if it has none, or lost it."""

    process: subprocess.Popen[bytes] | None = None
    ready: bool = False


_state = _State()


def begin() -> None:
    """Have this process watched from now on. It is not waited for until it is needed."""
    command = [sys.executable, "-m", "phononbench_flows.witness"]
    # In a session of its own, so that Ctrl-C at a terminal does not end it first.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603
    _state.process, _state.ready = process, False
    if process.stdin is not None:
        faulthandler.enable(process.stdin)


def is_watching() -> bool:
    """Whether somebody would see how this process ends."""
    process = _state.process
    if process is None or process.stdout is None or process.poll() is not None:
        return False
    _state.ready = _state.ready or process.stdout.read(1) == _READY
    return _state.ready


def tell(spec: Spec, keys: Sequence[str]) -> None:
    """From now on the crystals of these keys, of the store of this spec, are in work."""
    _tell({"store": dict(spec), "keys": list(keys)})


@contextmanager
def until_the_end() -> Iterator[None]:
    """What is in work in here is so no longer afterwards."""
    try:
        yield
    finally:
        _tell({"keys": []})


def _tell(what: dict[str, Any]) -> None:
    process = _state.process
    if process is None or process.stdin is None:
        return
    try:
        process.stdin.write(json.dumps(what).encode() + b"\n")
        process.stdin.flush()
    except OSError:  # it was killed; whoever comes after us is none the wiser
        _state.process = None
        faulthandler.enable()


# --------------------------------------------------------------------------------------- the process of the witness


def main() -> None:
    """Read what the worker tells until its end, and lay that to the crystals in work, if it was of its own making."""
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    store: ResultsStore | None = None
    keys: list[str] = []
    fatal, killed_before = False, _killed_for_memory()
    for line in sys.stdin.buffer:
        if line.startswith(b'{"'):
            told = json.loads(line)
            if told["keys"] and store is None:
                store = ResultsStore.open(told["store"])
            keys, killed_before = told["keys"], _killed_for_memory()
        else:
            fatal = fatal or line.startswith(_FATAL)
            sys.stderr.buffer.write(line)  # where it would have stood without a witness
    if store is not None and keys and (fatal or _killed_for_memory() > killed_before):
        lay_to(store, keys)


def lay_to(store: ResultsStore, keys: Sequence[str]) -> None:
    """The end of a worker is no longer excused with those of these crystals that are still as it left them."""
    left = list(store.documents({"key": {"$in": list(keys)}, "attempts": {"$gt": 0}, "excused": {"$gt": 0}}))
    for document in left:
        document.excused, document.begun_by = document.excused - 1, None
    store.put(*left)


def _killed_for_memory() -> int:
    """How many processes of this machine the kernel has killed for want of memory; 0 where it does not say."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text().splitlines() if counters.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


if __name__ == "__main__":
    main()
