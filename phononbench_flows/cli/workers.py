"""Commands that take care of a cluster's work: worker, doctor, status, janitor. Heavy imports wait."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from phononbench_flows.cli.cluster import LaunchpadOption, StoreOption
from phononbench_flows.cli.common import (
    WideOption,
    app,
    checked_set_name,
    checked_target,
    err,
    finite,
    out,
    sentences,
    stop,
    wide_out,
)
from phononbench_flows.cli.narrow import lines
from phononbench_flows.cli.opening import mongo_spec, opened, opened_launchpad, told_if_slow

if TYPE_CHECKING:
    from fireworks import FWorker, LaunchPad

    from phononbench_flows.cluster.janitor import Report
    from phononbench_flows.cluster.preflight import Check
    from phononbench_flows.cluster.refusals import Refusal
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
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N, whatever the submission asks for.")
    ] = None,
) -> None:
    """Compute what waits on the LaunchPad, until nothing does or the Slurm job is nearly over."""
    checked_target(folder, folder=True)
    with sentences():
        if device is not None:
            _compute_on(device)
        lp, fworker = _who_and_where(launchpad_file, fworker_file, store)
        _work(lp, fworker, store, timeout, idle, folder)


def _compute_on(device: str) -> None:
    from phononbench_flows.flows import machine
    from phononbench_flows.potentials import check_device

    check_device(device)
    os.environ[machine.DEVICE] = device


def _work(lp: LaunchPad, fworker: FWorker, store: str | None, timeout: float | None, idle: float, folder: Path) -> None:
    import logging

    from phononbench_flows.cluster.preflight import UnfitError
    from phononbench_flows.cluster.worker import work
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


def _all_checks(lp: LaunchPad, fworker: FWorker, store: str | None) -> Iterator[Check]:
    """Of this machine, and, where the LaunchPad answers, of the site."""
    from phononbench_flows.cluster.preflight import State, preflight
    from phononbench_flows.cluster.site import site

    answers = False
    for check in preflight(lp, fworker, store):
        answers = answers or (check.name == "LaunchPad" and check.state != State.FAILED)
        yield check
    if answers:
        yield from site(lp, mongo_spec(store))


def _one_by_one(checks: Iterator[Check]) -> Iterator[Check]:
    """The checks as they come; for one that takes long it is said that it does."""
    awaited = "the LaunchPad"
    while True:
        with told_if_slow(awaited):
            check = next(checks, None)
        if check is None:
            return
        awaited = f"what comes after {check.name}"
        yield check


@app.command()
def doctor(
    launchpad_file: LaunchpadOption = None,
    fworker_file: FworkerOption = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    wide: WideOption = False,
) -> None:
    """Check whether a worker could work here, and say what to do where it could not."""
    console = wide_out if wide else out
    with sentences(), told_if_slow("the packages of the potentials"):
        lp, fworker = _who_and_where(launchpad_file, fworker_file, store)
        from phononbench_flows.cluster.preflight import State

        colours = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}
        checks = []
        for check in _one_by_one(_all_checks(lp, fworker, store)):
            checks.append(check)
            if not as_json:  # each as soon as it is known
                advice = f"\n→ {check.advice}" if check.advice else ""
                state = Text(f"{check.state:7}", style=colours[check.state])
                console.print(lines([(state, f"{check.name}: {check.said}{advice}")]))
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    if any(check.state == State.FAILED for check in checks):
        raise typer.Exit(1)


@app.command()
def status(
    set_name: Annotated[str | None, typer.Option("--set", help="Only this set.")] = None,
    store: StoreOption = None,
    launchpad_file: LaunchpadOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    wide: WideOption = False,
) -> None:
    """Show how far each set is: waiting, running, judged, failed and why, rate, time left."""
    if set_name is not None:
        checked_set_name(set_name, children=True)
    with sentences():
        from phononbench_flows.store import cluster_spec

        spec = cluster_spec(store)
        lp = opened_launchpad(launchpad_file, mongo_spec(store)) if spec["kind"] == "mongo" else None
        from pymongo.errors import PyMongoError

        from phononbench_flows.cluster.status import set_statuses

        if lp is not None:
            from phononbench_flows.cluster.refusals import refusals

        try:
            with opened(spec) as results, told_if_slow("the counts"):
                found = list(set_statuses(results, lp, set_name))
                refused = refusals(lp) if lp is not None else []
        except PyMongoError as error:
            stop(f"the LaunchPad does not answer: {type(error).__name__}")
    if set_name and not found:
        stop(f"there is no set {set_name!r} in {' '.join(spec.values())}")
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        console = wide_out if wide else out
        for each in found:
            console.print(lines(_status_lines(each)))
        console.print(lines(map(_refused, refused)))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def _status_lines(each: SetStatus) -> Iterator[tuple[str | Text, str | Text]]:
    yield Text(each.set, style="bold"), each.protocol_id
    passed = f" ({_listed(each.passed)})" if each.passed else ""
    yield "  waiting", f"{each.waiting}{passed}"
    yield "  running", str(each.running)
    published = "" if each.published is None else f" ({each.published.stable} stable by the published rule)"
    yield "  finished", _listed(dict(sorted(each.statuses.items()))) + published
    if each.reasons:
        yield "  failed", _listed(dict(sorted(each.reasons.items())))
    if each.per_hour is not None:
        left = "" if each.seconds_left is None else f", {timedelta(seconds=round(each.seconds_left))} left"
        yield "  rate", f"{each.per_hour:.3g} per hour{left}"
    if each.fireworks:
        yield "  fireworks", _listed(dict(sorted(each.fireworks.items())))
    for category, number in sorted(each.needed.items()):
        working = each.at_work.get(category, 0)
        now = f"{working} at work" if working else "none is at work"
        after = "; the steps after them wait for that" if each.fireworks.get("WAITING") else ""
        yield "  needed", f"{category} workers: {number} jobs are ready, {now}{after}"


def _refused(refusal: Refusal) -> tuple[Text, str]:
    said = f"{refusal.number} {refusal.fworker} workers in a row, on {refusal.host} at {refusal.at:%H:%M} UTC last: "
    fed = f" No Slurm job {refusal.job_name} is submitted before {refusal.until:%H:%M} UTC." if refusal.job_name else ""
    return Text("refused", style="red"), f"{said}{refusal.why}.{fed}"


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
    settle_seconds: Annotated[
        float, _seconds(0, "What a worker may be about to write is left alone for so long.")
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

        limits = Limits(lock=lock_seconds, settle=settle_seconds)
        if lost_seconds is not None:
            limits = replace(limits, ping=lost_seconds)
        said: set[Report] = set()
        while True:
            err.print(f"looking; workflows that are locked are watched for {lock_seconds:g} s", style="dim")
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
