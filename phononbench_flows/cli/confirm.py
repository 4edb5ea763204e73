"""The command confirm: crystals drawn for DFT, answers collected, labels of others. Heavy imports wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phononbench_flows.cli.cluster import LaunchpadOption
from phononbench_flows.cli.common import app, checked_target, chosen_protocol, err, finite, out, stop
from phononbench_flows.cli.opening import opened, opened_launchpad
from phononbench_flows.cli.results import PotentialJudgedWith, Where, spec_of
from phononbench_flows.protocol import PRESETS

if TYPE_CHECKING:
    from fireworks import LaunchPad
    from jobflow import JobStore

    from phononbench_flows.confirmation.flows import Method
    from phononbench_flows.protocol import Protocol
    from phononbench_flows.store import ResultsStore


@app.command()
def confirm(
    where: Where = None,
    *,
    set_name: Annotated[str, typer.Option("--set", help="Name of the set.")],
    number: Annotated[
        int | None, typer.Option("--n", min=1, help="Draw so many judged crystals in all, and hand their phonons out.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="verdict|margin|JSON",
            help="Strata to draw within: by verdict (default), by verdict and distance from zero, or by MongoDB "
            "filters (repeatable).",
        ),
    ] = None,
    filter_text: Annotated[
        str | None, typer.Option("--where", metavar="JSON", help="Draw only crystals for which this filter holds.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw; the same one draws the same crystals.")] = 0,
    maker: Annotated[
        str | None,
        typer.Option(help="Maker of the phonon flows by its dotted path; by default atomate2's PhononMaker for VASP."),
    ] = None,
    settings: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Settings of the Maker.")] = None,
    functional: Annotated[str | None, typer.Option(help="Functional to note, such as PBE.")] = None,
    code: Annotated[str | None, typer.Option(help="Program to note, if the answer does not say it.")] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a file of each flow instead of adding it to the LaunchPad."),
    ] = None,
    launchpad_file: LaunchpadOption = None,
    collect: Annotated[bool, typer.Option("--collect", help="Read what has finished from jobflow's store.")] = False,
    job_store: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="jobflow's store of outputs; by default the one of its settings."),
    ] = None,
    imported: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="FILE|phononbench",
            help="Labels of others: tables, phonopy files with forces, or the released ones that crystals came with.",
        ),
    ] = None,
    named: Annotated[
        str | None, typer.Option("--as", help="Whose labels they are; by default the file's name.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="id|structure|label|frequency=NAME", help="Which column of a table it is; repeatable."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(callback=finite, help="Below this (THz), a frequency without label is an instability."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help=f"Preset ({', '.join(PRESETS)}) or YAML file: how the set was judged, if not by one preset."),
    ] = None,
    potential: PotentialJudgedWith = None,
) -> None:
    """Ask DFT, or others, about crystals drawn at random: every rate then has a corrected one beside it."""
    if sum((number is not None, collect, imported is not None)) != 1:
        stop("give one of --n, --collect and --import")
    chosen = None if protocol is None else chosen_protocol(protocol)
    checked_target(write, folder=True)
    spec = spec_of(where)
    with opened(spec) as store:
        from phononbench_flows.confirmation.known import mark
        from phononbench_flows.results.bundle import judged_by

        protocol_id, judged = judged_by(store, set_name, chosen, potential)
        mine = {"set": set_name, "protocol_id": protocol_id}
        if number is not None:
            method = _method(maker, settings, functional, code)
            target = write or opened_launchpad(launchpad_file, {"database": "fireworks", **spec})
            _draw(store, mine, judged, (number, seed, by or ["verdict"], filter_text), method, target)
        elif collect:
            _collect(store, mine, judged, job_store)
        else:
            _import(store, mine, judged, imported or [], (named, functional, code, column or [], threshold))
        mark(store, set_name)
        _say_rates(store, set_name, protocol_id)


def _method(maker: str | None, settings: Path | None, functional: str | None, code: str | None) -> Method:
    from phononbench_flows.confirmation.flows import VASP, VASP_SETTINGS, Method, read_settings

    given = read_settings(settings) if settings is not None else {}
    by_default = VASP_SETTINGS if maker is None or maker == VASP else {}
    return Method(maker or VASP, {**by_default, **given}, functional, code)


def _draw(
    store: ResultsStore,
    mine: dict[str, str],
    protocol: Protocol,
    asked: tuple[int, int, list[str], str | None],
    method: Method,
    launchpad_or_folder: LaunchPad | Path,
) -> None:
    from phononbench_flows.confirmation.draw import draw, strata_by
    from phononbench_flows.confirmation.flows import hand_out, record_drawn
    from phononbench_flows.results.query import parse_where

    number, seed, by, filter_text = asked
    method.made()  # what is wrong with it is said before anything is written
    where = None if filter_text is None else parse_where(filter_text)
    drawn = draw(store, mine, strata_by(store, mine, by), number, seed, where)
    confirmations = record_drawn(store, drawn, method)
    handed = hand_out(store, confirmations, method, protocol, launchpad_or_folder)
    place = f"written to {launchpad_or_folder}" if isinstance(launchpad_or_folder, Path) else "added to the LaunchPad"
    out.print(f"{len(drawn)} crystals drawn, {handed} phonon flows {place}", soft_wrap=True)
    for name in dict.fromkeys(how.stratum for how in drawn.values()):
        out.print(f"  {sum(how.stratum == name for how in drawn.values())} of {name}", highlight=False)


def _collect(store: ResultsStore, mine: dict[str, str], protocol: Protocol, job_store: Path | None) -> None:
    from phononbench_flows.confirmation.collect import collect

    waiting = list(store.confirmations({**mine, "status": {"$in": ["drawn", "handed_out"]}}))
    with err.status("collecting"):
        found = collect(store, _jobs(job_store), waiting, protocol)
    counts = f"{found.known} answers, {found.unusable} that cannot be used, {found.waiting} still to come"
    out.print(counts, highlight=False, soft_wrap=True)


def _jobs(file: Path | None) -> JobStore:
    from phononbench_flows.settings_files import import_jobflow

    import_jobflow()
    from jobflow import SETTINGS, JobStore

    jobs = SETTINGS.JOB_STORE if file is None else JobStore.from_file(str(file))
    jobs.connect()
    return jobs


def _import(
    store: ResultsStore,
    mine: dict[str, str],
    protocol: Protocol,
    given: list[str],
    how: tuple[str | None, str | None, str | None, list[str], float | None],
) -> None:
    from phononbench_flows.confirmation import labels

    named, functional, code, columns, threshold = how
    if given == [labels.RELEASED]:
        found = labels.import_released(store, mine)
    else:
        files = [Path(each) for each in given]
        pairs = [_pair(each, labels.COLUMNS) for each in columns]
        name = named or files[0].name.partition(".")[0]
        said = labels.Labelling(name, functional, code, dict(pairs))
        if threshold is not None:
            said = replace(said, threshold=threshold)
        found = labels.import_labels(store, mine, files, said, protocol)
    out.print(
        f"{found.known} crystals labelled; {found.without_crystal} labels of crystals that are not in the set, "
        f"{found.unusable} that say nothing usable",
        highlight=False,
        soft_wrap=True,
    )


def _pair(text: str, known: tuple[str, ...]) -> tuple[str, str]:
    what, _, name = text.partition("=")
    if what not in known or not name:
        stop(f"--column {text!r}: WHAT=NAME is needed, WHAT one of {', '.join(known)}")
    return what, name


def _say_rates(store: ResultsStore, set_name: str, protocol_id: str) -> None:
    from phononbench_flows.tables.confirmed import corrected_table
    from phononbench_flows.tables.files import percent
    from phononbench_flows.tables.rows import read_crystals

    for row in corrected_table(read_crystals(store, sets=[set_name], protocol=protocol_id)).to_dict("records"):
        raw = percent(row["per_relaxed"], row["per_relaxed_low"], row["per_relaxed_high"])
        better = (
            percent(row["corrected"], row["corrected_low"], row["corrected_high"])
            if row["not_available"] is None
            else f"not available: {row['not_available']}"
        )
        rule = "verdict" if row["rule"] == "own" else "published rule"
        out.print(f"stable per relaxed by {rule}: {raw}; corrected: {better}", highlight=False, soft_wrap=True)
