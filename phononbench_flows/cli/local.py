"""Commands for one machine: init, run, protocol, potentials. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from phononbench_flows.cli.asked import asked_for
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
    WorkersOption,
    app,
    checked_target,
    chosen_protocol,
    err,
    out,
    resumable,
    say_ingested,
    sentences,
    tell_ignored,
)
from phononbench_flows.files import at_home
from phononbench_flows.harmless import harmless
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL, PRESETS, Protocol

if TYPE_CHECKING:
    from phononbench_flows.cli.progress import Progress
    from phononbench_flows.judging import JudgedCrystal
    from phononbench_flows.run import JudgedSet, Work
    from phononbench_flows.sets.ingest import CrystalSet, Ingested
    from phononbench_flows.sets.looking import Looked
    from phononbench_flows.store import ResultsStore

_USUAL_ATOMS = 8  # of a crystal, to tell how its work is shared out among the steps

potentials_app = typer.Typer(help="List interatomic potentials, and fetch their weights.")
app.add_typer(potentials_app, name="potentials")


@app.command("screen")
def screen_crystals(
    inputs: Inputs,
    protocol: ProtocolOption = DEFAULT_PROTOCOL,
    reference: ReferenceOption = None,
    limit: LimitOption = None,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the lines as a table there, too.")
    ] = None,
) -> None:
    """Read and screen crystals, a line each: accepted, rejected and why, duplicate of what. Nothing is computed."""
    chosen = chosen_protocol(protocol)
    checked_target(csv_path)
    with sentences():
        from phononbench_flows.cli.looking import show_looked, write_looked

        found = _look(inputs, chosen, None, reference, limit)
        show_looked(found)
        if csv_path is not None:
            write_looked(found, csv_path)


def _look(
    inputs: list[Path], protocol: Protocol, elements: frozenset[str] | None, reference: Path | None, limit: int | None
) -> list[Looked]:
    from phononbench_flows.structures import start_early

    start_early()
    from phononbench_flows.sets.looking import look
    from phononbench_flows.structures import Ignored

    ignored = Ignored()
    with err.status("reading and screening crystals") as status:
        found = look(
            inputs,
            protocol,
            elements=elements,
            reference=reference,
            limit=limit,
            ignored=ignored,
            on_crystal=lambda n: status.update(f"reading and screening crystals: {n}"),
        )
    tell_ignored(ignored)
    return found


@app.command()
def run(
    inputs: Inputs,
    set_name: SetOption,
    condition: ConditionOption = None,
    about: AboutOption = None,
    potential: PotentialOption = DEFAULT,
    setting: SettingOption = None,
    protocol: ProtocolOption = DEFAULT_PROTOCOL,
    out_dir: Results = DEFAULT_OUT,
    reference: ReferenceOption = None,
    limit: LimitOption = None,
    retry: RetryOption = None,
    device: DeviceOption = "auto",
    batch_atoms: BatchOption = None,
    workers: WorkersOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be computed, and what it costs; write nothing.")
    ] = False,
) -> None:
    """Judge every crystal of a set on this machine. Run again, it computes only what is missing."""
    asked = asked_for(
        set_name,
        condition=condition,
        about=about,
        potential=potential,
        setting=setting,
        protocol=protocol,
        retry=retry,
        device=device,
    )
    checked_target(out_dir, folder=True)
    if dry_run:
        _dry_run(inputs, set_name, asked.protocol, potential, out_dir, reference, limit)
        return
    with sentences():
        from phononbench_flows.settings_files import import_jobflow
        from phononbench_flows.structures import start_early

        start_early()
        import_jobflow()
        from phononbench_flows.run import StoppedRun, Watchers, judge_folder

        with resumable(), err.status("reading and screening crystals") as status:

            def ingested(found: Ingested, again: int) -> None:
                status.stop()
                say_ingested(found, again)
                tell_ignored(found.ignored)

            try:
                judged = judge_folder(
                    inputs,
                    set_name,
                    out=out_dir,
                    potential=potential,
                    potential_settings=asked.settings,
                    protocol=asked.protocol,
                    device=device,
                    batch_atoms=batch_atoms,
                    workers=workers,
                    condition=asked.conditions,
                    about=asked.about,
                    reference=reference,
                    limit=limit,
                    retry_reasons=asked.reasons,
                    watchers=Watchers(
                        on_crystal=lambda n: status.update(f"reading and screening crystals: {n}"),
                        on_ingested=ingested,
                        on_work=lambda work: _say_work(work, potential, asked.protocol),
                        on_load=lambda: err.print(f"loading {potential}", style="dim"),
                        computing=_progress,
                    ),
                )
            except StoppedRun as stopped:
                _tell(stopped.judged)
                raise
            _tell(judged)


def _tell(judged: JudgedSet) -> None:
    from phononbench_flows.cli.display import funnel_table

    out.print(funnel_table(judged.funnel, judged.name, judged.published))
    folder = harmless(judged.table.parent)
    said = f"results: {folder}/{judged.table.name}\nstable crystals: {folder}/stable"
    out.print(said, soft_wrap=True, highlight=False)


def _say_work(work: Work, potential: str, protocol: Protocol) -> None:
    """Said before the potential is loaded: what is computed, how, and how much of it there is."""
    before = f", {work.finished} are finished already" if work.finished else ""
    number = f"{work.processes} processes" if work.processes > 1 else "one process"
    err.print(
        f"{work.waiting} crystals to compute{before}: about {work.cost:.2g} evaluations (atoms through the potential)\n"
        f"{potential} on {work.device} in {number}, protocol {protocol.name}; Ctrl-C stops, the same command goes on",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )


def _dry_run(
    inputs: list[Path],
    set_name: str,
    protocol: Protocol,
    potential: str,
    out_dir: Path,
    reference: Path | None,
    limit: int | None,
) -> None:
    with sentences():
        from phononbench_flows import potentials
        from phononbench_flows.cli.looking import show_costs, show_looked
        from phononbench_flows.sets.earlier import known_calculations
        from phononbench_flows.sets.ingest import CrystalSet
        from phononbench_flows.sets.looking import costs, left_to_compute
        from phononbench_flows.store import ResultsStore

        identified = potentials.identify(potential)
        crystals = CrystalSet(set_name, {}, protocol, identified.record(), identified.elements)
        found = _look(inputs, protocol, crystals.elements, reference, limit)
        there = {}
        if (out_dir / "results.sqlite").is_file():
            with ResultsStore.open(out_dir.absolute()) as store:
                there = known_calculations(crystals.mine, store)
        waiting = left_to_compute(found, set_name, there)
        show_looked(found)
        show_costs(len(waiting), costs(waiting, protocol))


def _progress(store: ResultsStore, crystals: CrystalSet) -> Progress:
    from phononbench_flows.cli.progress import Progress
    from phononbench_flows.steps import CrystalSize, steps_of

    steps = steps_of(crystals.protocol)
    usual = CrystalSize(_USUAL_ATOMS)
    costs = [step.cost(usual, crystals.protocol) if step.resource == "potential" else 0.0 for step in steps]
    return Progress(
        lambda: store.status_counts(crystals.name, crystals.protocol_id),
        stages=lambda: store.stage_counts(crystals.name, crystals.protocol_id),
        words={step.name: step.passed for step in steps},
        shares={step.name: done / sum(costs) for step, done in zip(steps, accumulate(costs), strict=True)},
    )


@app.command("judge")
def judge_files(
    inputs: Inputs,
    potential: PotentialOption = DEFAULT,
    setting: SettingOption = None,
    protocol: ProtocolOption = DEFAULT_PROTOCOL,
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
    checked_target(save, folder=True)
    with sentences():
        from phononbench_flows.potentials import check_asked, parse_settings

        settings = parse_settings(setting or ())
        check_asked(potential, device, settings)
        from phononbench_flows.structures import Ignored, parse_all, read_inputs, start_early

        start_early()
        from phononbench_flows.judging import given, judge_given

        with err.status("reading crystals") as status:
            ignored = Ignored()
            crystals = [given(raw, parsed) for raw, parsed in parse_all(read_inputs(inputs, ignored=ignored))]
            tell_ignored(ignored)
            status.update(Text(f"loading {potential}"))
            results = judge_given(
                crystals,
                protocol=chosen,
                potential=potential,
                device=device,
                batch_atoms=batch_atoms,
                potential_settings=settings,
                on_passed=lambda found: status.update(Text(f"{found.id}: {found.stage or ''}".replace("_", " "))),
            )
        for result in results:
            typer.echo(json.dumps(result.as_dict()) if as_json else harmless(_line(result)))
            if save is not None:
                result.save(save)
        if not all(result.was_judged for result in results):
            raise typer.Exit(2)
        if not all(result.is_stable for result in results):
            raise typer.Exit(1)


def _line(result: JudgedCrystal) -> str:
    from phononbench_flows.stability import explain_published

    name = f"{result.crystal.origin.source}  {result.document.formula_pretty or ''}".rstrip()
    said = explain_published(result.document.evidence) if result.document.is_judged_otherwise else None
    return f"{name}  {result.why}{f'; published rule: {said}' if said else ''}"


@app.command("protocol")
def show_protocol(
    protocol: Annotated[str, typer.Argument(help=f"Preset ({', '.join(PRESETS)}) or YAML file.")] = DEFAULT_PROTOCOL,
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


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for them; what is there stays as it is.")],
) -> None:
    """Put launchers for a cluster, scripts that analyse, and examples into a folder, to be made your own."""
    path = at_home(folder).absolute()
    checked_target(path, folder=True)
    with sentences():
        from phononbench_flows.shipped import copy_shipped

        new = copy_shipped(path)
    counts = Counter(name.partition("/")[0] for name in new)
    said = ", ".join(f"{name}/ ({number} files)" for name, number in counts.items()) or "all of it is there"
    out.print(f"{path}: {said}", soft_wrap=True, highlight=False)
