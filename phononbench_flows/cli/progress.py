"""How far a run is, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from phononbench_flows.cli.common import err
from phononbench_flows.outcomes import Status

POLL_SECONDS = 0.5
_GIVE_UP_SECONDS = 10.0  # how long the end of a run waits for a count that hangs


@dataclass(frozen=True)
class _State:
    """What was last counted: crystals in all, finished, those on their way by what they are called, failed; finished
    ones per second, and seconds left.
    """

    total: int
    done: int
    passed: Mapping[str, int]
    failed: int
    rate: float
    left: float | None

    def tail(self) -> str:
        """Everything but the number of crystals."""
        left = "" if self.left is None else f", {timedelta(seconds=round(self.left))} left"
        passed = "".join(f"{number} {words}, " for words, number in self.passed.items() if number)
        return f"{passed}{self.failed} failed, {self.rate:.3g} per second{left}"


class Progress:
    """Shows how far a run is while the ``with`` block lasts.

    Args:
        counts: number of crystals by status; called twice a second from a thread of its own. All but ``pending``
            are finished. What it raises is shown once, and does no harm to the run.
        stages: number of crystals that are not finished by the stage that they have reached, so that a run is seen to
            move before the first is finished; called as often.
        words: what the crystals of a stage are called, in the order in which they are shown.
        shares: the part of a crystal's work that is done when it has reached a stage, roughly: the time left is told
            from that, long before the first crystal is finished.
        interval: seconds between two lines where there is no terminal.
        console: where to show it; standard error without it.
    """

    def __init__(
        self,
        counts: Callable[[], Mapping[str, int]],
        *,
        stages: Callable[[], Mapping[str, int]] = dict,
        words: Mapping[str, str] | None = None,
        shares: Mapping[str, float] | None = None,
        interval: float = 10.0,
        console: Console | None = None,
    ) -> None:
        self._counts = counts
        self._stages = stages
        self._words = words or {}
        self._shares = shares or {}
        self._interval = interval
        self._console = console or err
        self._bar: Bar | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._began = time.monotonic()
        self._before: tuple[int, float] | None = None
        self._state: _State | None = None
        self._complained = False

    def __enter__(self) -> Self:
        # Counted before the run does anything: what is finished now does not count for the rate.
        self._began = time.monotonic()
        self._count()
        if self._console.is_terminal:
            self._bar = Bar(
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("crystals, {task.fields[tail]}", markup=False),
                console=self._console,
                expand=True,
            )
            self._bar.add_task("", total=None, tail="counting")
            self._bar.start()
            self._show()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_GIVE_UP_SECONDS)
        if self._bar is not None:
            self._bar.stop()

    def _watch(self) -> None:
        shown = time.monotonic()
        stopped = False
        while not stopped:
            stopped = self._stop.wait(POLL_SECONDS)
            self._count()
            now = time.monotonic()
            if self._bar is not None or stopped or now - shown >= self._interval:
                shown = now
                self._show()

    def _count(self) -> None:
        try:
            counts = self._counts()
            total = sum(counts.values())
            done = total - counts.get(Status.PENDING, 0)
            failed = counts.get(Status.FAILED, 0)
            stages = self._stages()
            passed = {words: stages.get(stage, 0) for stage, words in self._words.items()}
        except Exception as error:  # noqa: BLE001  # showing progress must not stop the run
            if not self._complained:
                self._complained = True
                self._print(f"The crystals cannot be counted: {type(error).__name__}: {error}")
            return
        work = done + sum(self._shares.get(stage, 0.0) * number for stage, number in stages.items())
        if self._before is None:
            self._before = done, work
        seconds = max(time.monotonic() - self._began, 1e-9)
        finished, worked = (max(now - before, 0) for now, before in zip((done, work), self._before, strict=True))
        left = seconds * (total - work) / worked if worked else None
        self._state = _State(total, done, passed, failed, finished / seconds, left)

    def _show(self) -> None:
        state = self._state
        if state is None:
            return
        if self._bar is None:
            self._print(f"{state.done}/{state.total} crystals, {state.tail()}")
        else:
            # A total of zero would look finished.
            self._bar.update(self._bar.task_ids[0], completed=state.done, total=state.total or None, tail=state.tail())

    def _print(self, line: str) -> None:
        try:
            self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
        except (OSError, ValueError):  # standard error was closed: there is nobody to tell
            return
