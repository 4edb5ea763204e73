"""What a worker knows of its machine: what it computes on, and whether it was found broken.

A worker looks here after each firework, and ends if it is so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from phononbench_flows.engine.trouble import MachineError

DEVICE = "PHONONBENCH_DEVICE"
"""The variable by which a worker says what it computes on, whatever was asked for when the crystals were submitted."""


def device(asked: str) -> str:
    """What is computed on here: the worker's word goes before that of the submission."""
    return os.environ.get(DEVICE) or asked


_broken: list[str] = []


@contextmanager
def watched() -> Iterator[None]:
    """Note it where a job finds that the machine cannot compute; the error goes on."""
    try:
        yield
    except MachineError as error:
        _broken.append(str(error))
        raise


def found_broken() -> str | None:
    """Why this process' machine is broken; None if it is not known to be."""
    return _broken[-1] if _broken else None
