"""Commands that take care of a cluster's work: worker, doctor, status, janitor. Heavy imports wait."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from phononbench_flows.cli.cluster import LaunchpadOption, StoreOption
from phononbench_flows.cli.common import app, checked_set_name, checked_target, err, finite, out, sentences, stop
from phononbench_flows.cli.opening import mongo_spec, opened, opened_launchpad

if TYPE_CHECKING:
    from fireworks import FWorker, LaunchPad

    from phononbench_flows.cluster.janitor import Report
    from phononbench_flows.cluster.status import SetStatus

FworkerOption = Annotated[
    Path | None,
    typer.Option("--fworker", "-w", help="A my_fworker.yaml; by default the one that `rlaunch` finds, else any work."),
]

_LONGEST = 1e9  # the system's clocks end some nine times later


def _seconds(least: float, what: str) -> Any:
    return typer.Option(min=least, max=_LONGEST, callback=finite, help=what)


def _who_and_where(launchpad: Path | None, fworker: Path | None, store: str | None) -> tuple[LaunchPad, FWorker]:
    """What a worker is given; all of it is looked at before the potentials' packages are loaded."""
    lp = opened_launchpad(launchpad, mongo_spec(store))
    from phononbench_flows.cluster import fworker as fworkers
    from phononbench_flows.settings_files import import_jobflow

    found = fworkers.fworker(fworker)
    import_jobflow()
    return lp, found


@app.command()
def worker(
    launchpad_file: LaunchpadOption = None,
    fworker_file: FworkerOption = None,
    store: StoreOption = None,
    timeout: Annotated[float | None, _seconds(0, "Begin nothing new after so many seconds.")] = None,
    idle: Annotated[float, _seconds(0, "Seconds to wait for work when there is none.")] = 60.0,
    folder: Annotated[Path, typer.Option(help="Where each firework gets a folder of its own.")] = Path(),
) -> None:
    """Compute what waits on the LaunchPad, until nothing does or the Slurm job is nearly over."""
    checked_target(folder, folder=True)
    with sentences():
        lp, fworker = _who_and_where(launchpad_file, fworker_file, store)
        _work(lp, fworker, store, timeout, idle, folder)


def _work(lp: LaunchPad, fworker: FWorker, store: str | None, timeout: float | None, idle: float, folder: Path) -> None:
    import logging

    from phononbench_flows.cluster.worker import UnfitError, work
    from phononbench_flows.flows import time_limit

    # Ours only: FireWorks' loggers have handlers of their own, and would tell everything twice.
    ours, told = logging.getLogger("phononbench_flows"), logging.StreamHandler()
    ours.addHandler(told)
    if timeout is not None:
        time_limit.begin_nothing_after(timeout)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        work(lp, fworker, folder.absolute(), store=store, idle=idle)
    except UnfitError as error:
        stop(f"this worker does not start, and nothing was taken: {error}")
    finally:
        ours.removeHandler(told)


@app.command()
def doctor(
    launchpad_file: LaunchpadOption = None, fworker_file: FworkerOption = None, store: StoreOption = None
) -> None:
    """Check whether a worker could work here, and say what to do where it could not."""
    with sentences(), err.status("looking around"):
        lp, fworker = _who_and_where(launchpad_file, fworker_file, store)
        from phononbench_flows.cluster.preflight import State, preflight

        table = Table("check", "", "found", "what to do")
        colours = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}
        failed = False
        for check in preflight(lp, fworker, store):
            failed = failed or check.state == State.FAILED
            state = Text(check.state, style=colours[check.state])
            table.add_row(check.name, state, check.said, check.advice)
    out.print(table)
    if failed:
        raise typer.Exit(1)


@app.command()
def status(
    set_name: Annotated[str | None, typer.Option("--set", help="Only this set.")] = None,
    store: StoreOption = None,
    launchpad_file: LaunchpadOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how far each set is: waiting, running, judged, failed and why, rate, time left."""
    if set_name is not None:
        checked_set_name(set_name)
    with sentences():
        from phononbench_flows.store import cluster_spec

        spec = cluster_spec(store)
        lp = opened_launchpad(launchpad_file, mongo_spec(store)) if spec["kind"] == "mongo" else None
        from pymongo.errors import PyMongoError

        from phononbench_flows.cluster.status import set_statuses

        try:
            with opened(spec) as results:
                found = list(set_statuses(results, lp, set_name))
        except PyMongoError as error:
            stop(f"the LaunchPad does not answer: {type(error).__name__}")
    if set_name and not found:
        stop(f"there is no set {set_name!r} in {' '.join(spec.values())}")
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        out.print(_status_table(found))


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return "\n".join(f"{number} {name}" for name, number in counts)


def _status_table(found: list[SetStatus]) -> Table:
    columns = ("set", "protocol", "waiting", "passed", "running", "finished", "failed", "per hour", "left", "fireworks")
    table = Table(*columns)
    for each in found:
        left = "" if each.seconds_left is None else str(timedelta(seconds=round(each.seconds_left)))
        rate = "" if each.per_hour is None else f"{each.per_hour:.3g}"
        passed = _listed(each.passed.items())
        counts = (each.statuses, each.reasons, each.fireworks)
        finished, failed, fireworks = (_listed(sorted(c.items())) for c in counts)
        if each.published is not None:
            finished += f"\n({each.published.stable} stable by the published rule)"
        numbers = (str(each.waiting), passed, str(each.running))
        table.add_row(each.set, each.protocol_id, *numbers, finished, failed, rate, left, fireworks)
    return table


@app.command()
def janitor(
    launchpad_file: LaunchpadOption = None,
    store: StoreOption = None,
    every: Annotated[
        float | None, _seconds(1, "Go on, with so many seconds between two rounds; by default one round.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is out of order, and mend nothing.")] = False,
    lock_seconds: Annotated[
        float, _seconds(0, "A workflow locked so long without a break is locked by nobody.")
    ] = 60.0,
    lost_seconds: Annotated[
        float | None,
        _seconds(0, "Without a word from a worker elsewhere; by default FireWorks' RUN_EXPIRATION_SECS."),
    ] = None,
) -> None:
    """Mend what killed workers and lost connections left on the LaunchPad."""
    with sentences():
        lp = opened_launchpad(launchpad_file, mongo_spec(store))
        from pymongo.errors import PyMongoError

        from phononbench_flows.cluster.janitor import Limits, look_after

        limits = Limits(lock=lock_seconds) if lost_seconds is None else Limits(lock=lock_seconds, ping=lost_seconds)
        said: set[Report] = set()
        while True:
            try:
                for report in look_after(lp, limits, dry_run=dry_run):
                    # What is left for a person is not told anew every round.
                    if report not in said:
                        said_of = f"firework {report.fw_id}: {report.said}: {report.outcome}"
                        out.print(said_of, soft_wrap=True)
                    if report.outcome == "left":
                        said.add(report)
            except PyMongoError as error:
                if every is None:
                    stop(f"the LaunchPad does not answer: {type(error).__name__}")
                err.print(f"the LaunchPad does not answer: {type(error).__name__}", style="yellow")
            if every is None:
                return
            time.sleep(every)
