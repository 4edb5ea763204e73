"""Commands for one machine: run, protocol, potentials. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from phononbench_flows.cli.common import (
    DEFAULT_OUT,
    AboutOption,
    BatchOption,
    ConditionOption,
    DeviceOption,
    Inputs,
    LimitOption,
    PotentialOption,
    ProtocolOption,
    ReferenceOption,
    Results,
    RetryOption,
    SetOption,
    SettingOption,
    app,
    checked_set_name,
    chosen_protocol,
    err,
    out,
    read_conditions,
    sentences,
    tell_ignored,
)
from phononbench_flows.harmless import harmless
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import PRESETS, Protocol

if TYPE_CHECKING:
    from phononbench_flows.cli.progress import Progress
    from phononbench_flows.judging import JudgedCrystal
    from phononbench_flows.sets.ingest import CrystalSet, Ingested
    from phononbench_flows.store import ResultsStore

potentials_app = typer.Typer(help="List interatomic potentials, and fetch their weights.")
app.add_typer(potentials_app, name="potentials")


@app.command()
def run(
    inputs: Inputs,
    set_name: SetOption,
    condition: ConditionOption = None,
    about: AboutOption = None,
    potential: PotentialOption = DEFAULT,
    setting: SettingOption = None,
    protocol: ProtocolOption = "paper",
    out_dir: Results = DEFAULT_OUT,
    reference: ReferenceOption = None,
    limit: LimitOption = None,
    retry: RetryOption = None,
    device: DeviceOption = "auto",
    batch_atoms: BatchOption = None,
) -> None:
    """Judge every crystal of a set on this machine. Run again, it computes only what is missing."""
    checked_set_name(set_name)
    chosen, conditions = chosen_protocol(protocol), read_conditions(condition)
    err.print(f"loading {potential}", style="dim")
    with sentences():
        from phononbench_flows.structures import start_early

        start_early()
        from phononbench_flows.cli.display import funnel_table
        from phononbench_flows.potentials import parse_settings
        from phononbench_flows.run import Watchers, judge_folder

        with err.status("reading and screening crystals") as status:

            def ingested(found: Ingested, again: int) -> None:
                status.stop()
                counts = f"{len(found.keys)} crystals, {found.new} new, {found.changed} changed since the last run"
                err.print(counts + (f", {again} tried again" if again else ""), style="dim")
                tell_ignored(found.ignored)

            judged = judge_folder(
                inputs,
                set_name,
                out=out_dir,
                potential=potential,
                potential_settings=parse_settings(setting or ()),
                protocol=chosen,
                device=device,
                batch_atoms=batch_atoms,
                condition=conditions,
                about=about or (),
                reference=reference,
                limit=limit,
                retry_reasons=retry or (),
                watchers=Watchers(
                    on_crystal=lambda n: status.update(f"reading and screening crystals: {n}"),
                    on_ingested=ingested,
                    computing=_progress,
                ),
            )
        out.print(funnel_table(judged.funnel, set_name))
        places = f"results: {harmless(judged.table)}\nstable crystals: {harmless(judged.table.parent / 'stable')}"
        out.print(places, soft_wrap=True, highlight=False)


def _progress(store: ResultsStore, crystals: CrystalSet) -> Progress:
    from phononbench_flows.cli.progress import Progress
    from phononbench_flows.steps import steps_of

    return Progress(
        lambda: store.status_counts(crystals.name, crystals.protocol_id),
        stages=lambda: store.stage_counts(crystals.name, crystals.protocol_id),
        words={step.name: step.passed for step in steps_of(crystals.protocol)},
    )


@app.command("judge")
def judge_files(
    inputs: Inputs,
    potential: PotentialOption = DEFAULT,
    setting: SettingOption = None,
    protocol: ProtocolOption = "paper",
    device: DeviceOption = "auto",
    batch_atoms: BatchOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a crystal, with all that is known.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the relaxed crystals, their phonons and band structures there."),
    ] = None,
) -> None:
    """Judge one or a few crystals, a line each; nothing is kept.

    Exit code 0: all are stable. 1: some are not. 2: some could not be judged, or the command could not run.
    """
    chosen = chosen_protocol(protocol)
    with sentences():
        from phononbench_flows.structures import Ignored, parse_all, read_inputs, start_early

        start_early()
        from phononbench_flows.judging import given, judge_given
        from phononbench_flows.potentials import parse_settings

        with err.status("reading crystals") as status:
            ignored = Ignored()
            crystals = [given(raw, parsed) for raw, parsed in parse_all(read_inputs(inputs, ignored=ignored))]
            tell_ignored(ignored)
            status.update(f"loading {potential}")
            results = judge_given(
                crystals,
                protocol=chosen,
                potential=potential,
                device=device,
                batch_atoms=batch_atoms,
                potential_settings=parse_settings(setting or ()),
                on_step=lambda name, number: status.update(f"{name.replace('_', ' ')} of {number} crystals"),
            )
        for result in results:
            typer.echo(json.dumps(result.as_dict()) if as_json else _line(result))
            if save is not None:
                result.save(save)
        if not all(result.was_judged for result in results):
            raise typer.Exit(2)
        if not all(result.is_stable for result in results):
            raise typer.Exit(1)


def _line(result: JudgedCrystal) -> str:
    name = f"{result.crystal.origin.source}  {result.document.formula_pretty or ''}".rstrip()
    return f"{name}  {result.why}"


@app.command("protocol")
def show_protocol(
    protocol: Annotated[str, typer.Argument(help=f"Preset ({', '.join(PRESETS)}) or YAML file.")] = "paper",
    schema: Annotated[bool, typer.Option("--schema", help="Show what every key means, as JSON schema.")] = False,
) -> None:
    """Print a protocol as YAML: a file to change and to give to --protocol."""
    if schema:
        typer.echo(json.dumps(Protocol.model_json_schema(), indent=2, ensure_ascii=False))
        return
    chosen = chosen_protocol(protocol)
    typer.echo(f"# hash {chosen.hash}\n{chosen.to_yaml()}", nl=False)


@potentials_app.callback(invoke_without_command=True)
def list_potentials(context: typer.Context) -> None:
    """List the potentials, and say which are ready."""
    from phononbench_flows import potentials

    if context.invoked_subcommand is not None:
        return
    table = Table(Column("name", no_wrap=True), "what it is", "ready")
    answers = {name: potentials.readiness(name) for name in potentials.names()}
    for name, answer in answers.items():
        mark = " (default)" if name == DEFAULT else ""
        ready = "yes" if answer == "ready" else "no"
        table.add_row(name + mark, potentials.find_source(name).summary, ready)
    out.print(table)
    # Below the table, so that the commands in them can be copied; not markup, which would eat `[sevennet]`.
    for answer in answers.values():
        if answer != "ready":
            out.print(answer, highlight=False, soft_wrap=True)
    families = ", ".join(potentials.FAMILIES)
    out.print(f"FAMILY:PATH is a checkpoint of one of the families {families}", soft_wrap=True)


@potentials_app.command("fetch")
def fetch_potential(
    name: Annotated[str, typer.Argument(help="Name of a potential whose weights can be downloaded.")],
) -> None:
    """Download a potential's weights, whole and checked or not at all."""
    from phononbench_flows import potentials

    with sentences():
        out.print(str(potentials.fetch(name)), soft_wrap=True)
