"""When this process has to stop computing: at a given time, or because it was told to. By default, never."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

logger = logging.getLogger(__name__)

MARGIN_SECONDS = 180.0
"""Nothing new is begun later than this before a Slurm job ends: what is under way has to be written and signed off."""

GRACE_SECONDS = 20
"""How long a batch may go on after SIGTERM or Ctrl-C. Slurm kills 30 s after its SIGTERM, by default."""


class StopNow(BaseException):
    """The grace is over: leave the batch. Like KeyboardInterrupt no error, so that it does not pass for a
    failure of the crystals.
    """


@dataclass
class _State:
    """What this process knows of its end."""

    deadline: float = math.inf
    told_to_stop: bool = False
    interruptible: bool = False


_state = _State()


def begin_nothing_after(seconds: float) -> None:
    """Begin nothing new later than so many seconds from now."""
    _state.deadline = min(_state.deadline, time.time() + seconds)


def seconds_left() -> float:
    """Seconds in which something new may be begun; infinite where there is no limit."""
    if _state.told_to_stop:
        return 0.0
    # Older versions of Slurm do not say so; see the worker.
    end_of_job = float(os.environ.get("SLURM_JOB_END_TIME") or math.inf)
    return min(_state.deadline, end_of_job - MARGIN_SECONDS) - time.time()


def stop_on_signals() -> None:
    """On SIGTERM or Ctrl-C begin nothing new, and after the grace end what is :func:`interruptible`."""
    signal.signal(signal.SIGTERM, _told)
    signal.signal(signal.SIGINT, _told)
    signal.signal(signal.SIGALRM, _grace_is_over)


@contextmanager
def interruptible() -> Iterator[None]:
    """Here :class:`StopNow` may be raised."""
    _state.interruptible = True
    try:
        yield
    finally:
        _state.interruptible = False


def _told(number: int, _frame: FrameType | None) -> None:
    if _state.told_to_stop:  # a Slurm job's script may pass on what its processes get anyway
        return
    logger.warning("%s: nothing new is begun, and this ends within %d s", signal.Signals(number).name, GRACE_SECONDS)
    _state.told_to_stop = True
    signal.alarm(GRACE_SECONDS)


def _grace_is_over(_number: int, _frame: FrameType | None) -> None:
    if _state.interruptible:
        raise StopNow
