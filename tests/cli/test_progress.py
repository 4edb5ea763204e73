"""What a run says about itself."""

from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from phononbench_flows.cli import progress
from phononbench_flows.cli.progress import Progress


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)


def plain() -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(file=stream, force_terminal=False, width=40)


def until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_plain_lines_and_one_at_the_end():
    counts = {"pending": 3, "stable": 1, "failed": 1}
    stream, console = plain()
    with Progress(lambda: counts, interval=0.05, console=console):
        until(lambda: stream.getvalue().count("\n") >= 2)
        counts = {"pending": 0, "stable": 3, "failed": 2}
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("2/5 crystals, 1 failed, 0 per second")
    assert "left" not in lines[0]
    assert lines[-1].startswith("5/5 crystals, 2 failed, ")
    assert lines[-1].endswith("0:00:00 left")


def test_crystals_on_their_way_are_shown():
    stream, console = plain()
    counts, stages = {"pending": 5, "stable": 1}, {"screened": 1, "relaxation": 3, "force_constants": 1}
    words = {"relaxation": "relaxed", "force_constants": "with force constants", "spectrum": "with a spectrum"}
    with Progress(lambda: counts, stages=lambda: stages, words=words, interval=60, console=console):
        time.sleep(0.05)
    assert stream.getvalue() == "1/6 crystals, 3 relaxed, 1 with force constants, 0 failed, 0 per second\n"


def test_one_line_where_the_interval_is_long():
    stream, console = plain()
    with Progress(lambda: {"pending": 1}, interval=60, console=console):
        time.sleep(0.1)
    assert stream.getvalue() == "0/1 crystals, 0 failed, 0 per second\n"


def test_a_resumed_run_starts_at_its_own_zero(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    counts = {"stable": 900, "pending": 100}
    shown = Progress(lambda: counts, console=plain()[1])
    shown._count()
    assert shown._state is not None
    assert (shown._state.rate, shown._state.left) == (0.0, None)
    now, counts = 110.0, {"stable": 920, "pending": 80}
    shown._count()
    assert (shown._state.done, shown._state.total, shown._state.rate, shown._state.left) == (920, 1000, 2.0, 40.0)


def test_the_time_left_is_told_before_the_first_crystal_is_finished(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    counts, stages = {"pending": 100}, {"screened": 90, "relaxation": 10}
    shown = Progress(
        lambda: counts, stages=lambda: stages, shares={"relaxation": 0.4, "spectrum": 0.8}, console=plain()[1]
    )
    shown._count()
    assert shown._state.left is None
    now, stages = 120.0, {"screened": 70, "relaxation": 20, "spectrum": 10}
    shown._count()
    # 4 crystals' work was done before, 16 now; 84 are left.
    assert shown._state.left == pytest.approx(20 * 84 / 12)
    assert "0 per second" in shown._state.tail()


def test_counting_that_fails_is_told_once_and_survived():
    calls = 0

    def counts() -> dict[str, int]:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise OSError("[red]database is locked[/]")
        return {"stable": calls, "pending": 0}

    stream, console = plain()
    with Progress(counts, interval=60, console=console):
        until(lambda: calls > 8)
    text = stream.getvalue()
    assert text.count("The crystals cannot be counted: OSError: [red]database is locked[/]") == 1
    assert " crystals, 0 failed" in text.splitlines()[-1]


def test_counting_that_never_works():
    def counts() -> dict[str, int]:
        raise RuntimeError("no")

    stream, console = plain()
    with Progress(counts, interval=0.02, console=console):
        time.sleep(0.1)
    assert stream.getvalue() == "The crystals cannot be counted: RuntimeError: no\n"


def test_an_error_of_the_run_passes_and_the_thread_ends():
    def run() -> None:
        with Progress(lambda: {"pending": 1}, console=plain()[1]):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run()
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_counting_that_hangs_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(progress, "_GIVE_UP_SECONDS", 0.1)
    release, calls = threading.Event(), 0

    def counts() -> dict[str, int]:
        nonlocal calls
        calls += 1
        if calls > 1:
            release.wait(20)
        return {"pending": 1}

    began = time.monotonic()
    with Progress(counts, console=plain()[1]):
        until(lambda: calls > 1)
    release.set()
    assert time.monotonic() - began < 5


def test_a_closed_stream_does_no_harm():
    stream, console = plain()
    with Progress(lambda: {"pending": 1}, interval=0.02, console=console):
        stream.close()
        time.sleep(0.05)


def test_bar_on_a_terminal():
    counts = {"pending": 3, "stable": 1}
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with Progress(lambda: counts, console=console):
        counts = {"pending": 0, "stable": 3, "failed": 1}
    text = stream.getvalue()
    assert "4/4" in text
    assert "1 failed" in text
