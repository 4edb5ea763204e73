"""Commands beyond the verdict: hull, committee, card. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phononbench_flows.cli.common import (
    BatchOption,
    DeviceOption,
    WorkersOption,
    app,
    checked_target,
    err,
    finite,
    out,
    resumable,
    there,
    there_if_given,
)
from phononbench_flows.cli.opening import opened
from phononbench_flows.cli.progress import Progress
from phononbench_flows.cli.results import JudgedByOption, SetsOption, Where, spec_of

if TYPE_CHECKING:
    from phononbench_flows.hulls import HullRun
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.sets.references import References
    from phononbench_flows.store import ResultsStore


@app.command()
def hull(
    where: Where = None,
    *,
    sets: SetsOption = None,
    protocol: JudgedByOption = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            callback=there,
            help="Reference crystals (any input that `run` takes), with those of the elements; repeatable.",
        ),
    ] = None,
    entries: Annotated[
        Path | None,
        typer.Option(
            callback=there_if_given,
            metavar="FILE.json",
            help="Ready-made energies of the same potential (pymatgen's ComputedEntry).",
        ),
    ] = None,
    write_entries: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the references' energies there, for --entries.")
    ] = None,
    kept: Annotated[
        str | None,
        typer.Option(
            "--kept",
            metavar="STORE",
            help="Where relaxed references are kept: a directory or mongo:DATABASE; without it beside the results.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_atoms: BatchOption = None,
    workers: WorkersOption = None,
) -> None:
    """Place relaxed crystals over the hull of a reference set, relaxed once with their own potential.

    Run again, it relaxes only what is missing.
    """
    if not reference and entries is None:
        raise typer.BadParameter("give --reference or --entries: without energies there is no hull")
    checked_target(write_entries)
    spec = spec_of(where)
    beside = None if kept is None else spec_of(kept)
    with opened(spec) as store:
        from phononbench_flows.hulls import HullWatchers, find_hulls
        from phononbench_flows.sets.references import reference_spec
        from phononbench_flows.structures import start_early
        from phononbench_flows.tables.rows import read_judge

        start_early()
        sets, judge = read_judge(store, sets=sets, protocol=protocol)
        with resumable(), err.status("reading reference crystals") as status:

            def read(found: References, waiting: int) -> None:
                status.stop()
                said = f"{len(found.names)} reference crystals of these chemical systems, {waiting} to relax"
                err.print(said, style="dim", highlight=False)

            run = find_hulls(
                store,
                sets,
                judge.protocol_id,
                references=reference or (),
                kept=beside or reference_spec(spec),
                entries=entries,
                write_entries=write_entries,
                device=device,
                batch_atoms=batch_atoms,
                workers=workers or 1,
                watchers=HullWatchers(
                    on_crystal=lambda n: status.update(f"reading reference crystals: {n}"),
                    on_read=read,
                    on_load=lambda: err.print(f"loading {judge.potential}", style="dim"),
                    computing=_progress,
                ),
            )
        _tell(run)


def _progress(store: ResultsStore, crystals: CrystalSet) -> Progress:
    return Progress(
        lambda: store.status_counts(crystals.name, crystals.protocol_id),
        stages=lambda: store.stage_counts(crystals.name, crystals.protocol_id),
        words={"relaxation": "relaxed"},
        shares={"relaxation": 1.0},
    )


def _tell(run: HullRun) -> None:
    out.print(f"{run.with_hull} of {run.crystals} relaxed crystals lie over a hull of {run.references} references")
    if run.bare:
        bare = f"{run.bare} of them over one of the elements alone, which may lie far above the true one"
        out.print(bare, soft_wrap=True, highlight=False)
    if run.missing:
        worst = ", ".join(f"{element} ({number})" for element, number in run.missing.items())
        out.print(f"no hull for the others: no reference of {worst}", soft_wrap=True, highlight=False)
    if run.failed:
        out.print(f"{run.failed} references could not be computed, and are not in the hull", highlight=False)
    if run.known is not None:
        out.print(f"{run.known} relaxed crystals repeat a reference", highlight=False)
    if run.seconds:
        out.print(f"the references took {run.seconds:.0f} s to relax, once", highlight=False)


@app.command()
def committee(
    where: Where = None,
    *,
    sets: SetsOption = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Name of the protocol, where the store holds several; or its id with each potential."),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write the tables to, as CSV and Markdown.")
    ] = None,
) -> None:
    """Compare potentials on the crystals that all of them have finished: rates, confusion matrices, where they part."""
    checked_target(out_dir, folder=True)
    with opened(spec_of(where)) as store:
        from phononbench_flows.potentials.softening import SOURCE
        from phononbench_flows.tables import committee as tables
        from phononbench_flows.tables.files import markdown, write_table

        found = tables.read_committee(store, sets=sets, protocols=protocol)
        for name, title, table in (
            ("committee", "Each potential", tables.members_table(found)),
            ("committee_votes", "Agreement", tables.votes_table(found)),
            ("committee_pairs", "Every two potentials", tables.pairs_table(found)),
            ("committee_parted", "Where potentials part", tables.parted_table(found)),
        ):
            typer.echo(f"{title}\n\n{markdown(table)}")
            if out_dir is not None:
                write_table(table, out_dir, name, title)
        typer.echo(f"softness: {SOURCE}")
        if found.left_out:
            err.print(f"{found.left_out} crystals are not finished under all potentials", style="dim", highlight=False)


@app.command()
def card(
    where: Where = None,
    *,
    sets: SetsOption = None,
    protocol: JudgedByOption = None,
    near_hull: Annotated[
        float, typer.Option(min=0, callback=finite, help="How far above the hull is near it, in eV per atom.")
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a set, with all that is known.")] = False,
) -> None:
    """Show what the field asks of a generator: a card a set, with intervals and the cost of a credible crystal."""
    with opened(spec_of(where)) as store:
        from phononbench_flows.cli.display import card_table
        from phononbench_flows.tables.cards import read_cards
        from phononbench_flows.tables.rows import read_crystals

        for found in read_cards(store, read_crystals(store, sets=sets, protocol=protocol), near_hull):
            if as_json:
                typer.echo(json.dumps(found.as_dict()))
            else:
                out.print(card_table(found))
