"""Commands for one machine: run, protocol, potentials. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from phononbench_flows.cli.common import (
    DEFAULT_OUT,
    AboutOption,
    ConditionOption,
    Inputs,
    LimitOption,
    PotentialOption,
    ProtocolOption,
    ReferenceOption,
    Results,
    SetOption,
    app,
    checked_set_name,
    chosen_protocol,
    err,
    out,
    read_conditions,
    slug,
    stop,
)
from phononbench_flows.potentials import DEFAULT, PotentialError
from phononbench_flows.protocol import PRESETS, Protocol

potentials_app = typer.Typer(help="List interatomic potentials, and fetch their weights.")
app.add_typer(potentials_app, name="potentials")


@app.command()
def run(
    inputs: Inputs,
    set_name: SetOption,
    condition: ConditionOption = None,
    about: AboutOption = None,
    potential: PotentialOption = DEFAULT,
    protocol: ProtocolOption = "paper",
    out_dir: Results = DEFAULT_OUT,
    reference: ReferenceOption = None,
    limit: LimitOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_atoms: Annotated[int | None, typer.Option(min=1, help="Atoms per call of the potential.")] = None,
) -> None:
    """Judge every crystal of a set on this machine. Run again, it computes only what is missing."""
    from phononbench_flows import potentials
    from phononbench_flows.cli.display import funnel_table
    from phononbench_flows.cli.progress import Progress
    from phononbench_flows.engine.batch import UndeliverableError
    from phononbench_flows.flows.sub_batches import OutOfTimeError
    from phononbench_flows.results.export import write_results
    from phononbench_flows.run import run_here
    from phononbench_flows.sets.ingest import CrystalSet, ingest
    from phononbench_flows.sets.metadata import SetError, describe_set
    from phononbench_flows.statistics import funnel
    from phononbench_flows.store import BlobError, ResultsStore, StoreError
    from phononbench_flows.structures import InputError, start_early

    checked_set_name(set_name)
    chosen = chosen_protocol(protocol)
    conditions = read_conditions(condition)
    err.print(f"loading {potential}", style="dim")
    start_early()
    try:
        loaded = potentials.load(potential, device)
        with ResultsStore.open(out_dir.absolute()) as store:
            described = describe_set(store, set_name, inputs, about or (), conditions)
            crystals = CrystalSet(set_name, described.condition, chosen, loaded.record(), loaded.elements)
            with err.status("reading and screening crystals") as status:
                found = ingest(
                    inputs,
                    crystals,
                    store,
                    reference=reference,
                    limit=limit,
                    on_crystal=lambda n: status.update(f"reading and screening crystals: {n}"),
                )
            err.print(
                f"{len(found.keys)} crystals, {found.new} new, {found.changed} changed since the last run", style="dim"
            )
            criteria = {"set": set_name, "protocol_id": crystals.protocol_id}
            with Progress(
                lambda: store.status_counts(set_name, crystals.protocol_id),
                stages=lambda: store.stage_counts(set_name, crystals.protocol_id),
            ):
                run_here(crystals, found.keys, store, loaded, batch_atoms)
            table = write_results(
                store.documents(criteria, sort={"id": 1}), out_dir / set_name / f"{slug(potential)}-{chosen.name}"
            )
            found_funnel = funnel(store.query(criteria, ["status", "stage"]), described.n_generated)
            out.print(funnel_table(found_funnel, set_name))
            out.print(f"results: {table}\nstable crystals: {table.parent / 'stable'}", soft_wrap=True)
    except (PotentialError, InputError, SetError, StoreError, BlobError, UndeliverableError, OutOfTimeError) as error:
        stop(str(error))


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
    table = Table("name", "what it is", "ready")
    for name in potentials.names():
        mark = " (default)" if name == DEFAULT else ""
        table.add_row(name + mark, potentials.find_source(name).summary, potentials.readiness(name))
    out.print(table)


@potentials_app.command("fetch")
def fetch_potential(
    name: Annotated[str, typer.Argument(help="Name of a potential whose weights can be downloaded.")],
) -> None:
    """Download a potential's weights, whole and checked or not at all."""
    from phononbench_flows import potentials

    try:
        out.print(str(potentials.fetch(name)), soft_wrap=True)
    except PotentialError as error:
        stop(str(error))
