"""Jobs that take no time, for tests of what happens around a job."""

from __future__ import annotations

import os
from pathlib import Path

from jobflow import Flow, JobOrder, Response, job
from pymatgen.core import Structure
from pymongo.errors import AutoReconnect

from phononbench_flows.engine.trouble import MachineError
from phononbench_flows.flows.sub_batches import OutOfTimeError


@job
def note(file: str, word: str, after: list[str] | None = None) -> list[str]:
    """Append a line to a file; gives all the words so far."""
    with Path(file).open("a") as lines:
        lines.write(f"{word} {os.getpid()}\n")
    return [*(after or []), word]


@job
def note_in_parts(file: str, word: str, parts: int) -> Response[list[str]]:
    """The same; then again, as often as there are parts, as a stage does whose time ran out."""
    with Path(file).open("a") as lines:
        lines.write(f"{word} {os.getpid()}\n")
    if parts == 1:
        return Response(output=[word])
    return Response(output=[word], replace=note_in_parts(file, word, parts - 1))


@job
def note_in_a_flow(file: str, word: str) -> Response[list[str]]:
    """The same; then two more, one after the other, as a crystal that is followed becomes jobs of its children."""
    with Path(file).open("a") as lines:
        lines.write(f"{word} {os.getpid()}\n")
    return Response(output=[word], replace=Flow([note(file, "a"), note(file, "b")], order=JobOrder.LINEAR))


@job
def fail(error: str) -> None:
    """Raise an error of this name."""
    kinds = {kind.__name__: kind for kind in (AutoReconnect, ValueError, OutOfTimeError, MachineError)}
    raise kinds[error]("as told")


@job
def natoms(structure: Structure) -> int:
    """Stands for a calculation that only a stable crystal is worth."""
    return len(structure)
