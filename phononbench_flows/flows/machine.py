"""Whether this process has found its machine broken: a worker looks here after each firework, and ends if it is so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phononbench_flows.engine.trouble import MachineError

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
