"""The command line. Thin: every command parses, calls, and prints; heavy imports wait until they are needed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from phononbench_flows import __version__
from phononbench_flows.potentials import DEFAULT, PotentialError
from phononbench_flows.protocol import PRESETS, Protocol, ProtocolError, load_protocol

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Judge the dynamical stability of generated crystals."
)
potentials_app = typer.Typer(help="List interatomic potentials, and fetch their weights.")
app.add_typer(potentials_app, name="potentials")

out = Console()
err = Console(stderr=True)

_SET_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")

Results = Annotated[Path, typer.Option("--out", help="Directory of the results, of any number of sets.")]
PotentialOption = Annotated[
    str, typer.Option("--potential", help="Name, path of a MatterSim checkpoint (.pth), or package.module:source.")
]
ProtocolOption = Annotated[str, typer.Option("--protocol", help=f"Preset ({', '.join(PRESETS)}) or YAML file.")]
_DEFAULT_OUT = Path("phononbench-results")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"phononbench-flows {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Judge the dynamical stability of generated crystals."""


@app.command()
def run(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders, CIF, POSCAR, extxyz or phonopy yaml files, zip or tar archives, csv tables, lists of paths."
        ),
    ],
    set_name: Annotated[str, typer.Option("--set", help="Name of the set that these crystals are.")],
    condition: Annotated[
        list[str] | None, typer.Option("--condition", help="KEY=VALUE that the generator was asked for; repeatable.")
    ] = None,
    potential: PotentialOption = DEFAULT,
    protocol: ProtocolOption = "paper",
    out_dir: Results = _DEFAULT_OUT,
    reference: Annotated[
        Path | None, typer.Option(help="Crystals that count as known (any input that `run` takes).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first so many crystals.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_atoms: Annotated[int | None, typer.Option(min=1, help="Atoms per call of the potential.")] = None,
) -> None:
    """Judge every crystal of a set on this machine. Run again, it computes only what is missing."""
    from phononbench_flows import potentials
    from phononbench_flows.blobs import BlobError
    from phononbench_flows.display import funnel_table
    from phononbench_flows.engine.batch import UndeliverableError
    from phononbench_flows.export import write_results
    from phononbench_flows.ingest import CrystalSet, ingest
    from phononbench_flows.progress import Progress
    from phononbench_flows.run import run_here
    from phononbench_flows.statistics import funnel
    from phononbench_flows.store import ResultsStore, StoreError
    from phononbench_flows.structures import InputError, start_early

    if not _SET_PATTERN.match(set_name):
        _stop(f"--set {set_name!r}: at most 40 letters, digits, '.', '_' and '-', the first a letter or digit")
    chosen = _protocol(protocol)
    conditions = dict(_condition(text) for text in condition or [])
    err.print(f"loading {potential}", style="dim")
    start_early()
    try:
        loaded = potentials.load(potential, device)
        crystals = CrystalSet(set_name, conditions, chosen, loaded.record(), loaded.elements)
        with ResultsStore.open(out_dir.absolute()) as store:
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
            with Progress(lambda: store.status_counts(set_name, crystals.protocol_id)):
                run_here(crystals, found.keys, store, loaded, batch_atoms)
            criteria = {"set": set_name, "protocol_id": crystals.protocol_id}
            table = write_results(
                store.documents(criteria, sort={"id": 1}), out_dir / set_name / f"{_slug(potential)}-{chosen.name}"
            )
            out.print(funnel_table(funnel(store.query(criteria, ["status", "stage"])), set_name))
            out.print(f"results: {table}\nstable crystals: {table.parent / 'stable'}", soft_wrap=True)
    except (PotentialError, InputError, StoreError, BlobError, UndeliverableError) as error:
        _stop(str(error))


@app.command()
def show(
    crystal_id: Annotated[str, typer.Argument(metavar="ID", help="Structure id, as in results.csv.")],
    out_dir: Results = _DEFAULT_OUT,
    figures: Annotated[Path | None, typer.Option(help="Directory for the band structure's PNG and HTML.")] = None,
) -> None:
    """Print one crystal, and draw its band structure."""
    from phononbench_flows.blobs import BlobError
    from phononbench_flows.display import crystal_table
    from phononbench_flows.show import draw
    from phononbench_flows.store import ResultsStore, StoreError

    if not out_dir.is_dir():
        _stop(f"there are no results in {out_dir}: name their directory with --out")
    try:
        with ResultsStore.open(out_dir.absolute()) as store:
            documents = list(store.documents({"id": crystal_id}, sort={"updated_at": 1}))
            if not documents:
                _stop(f"no crystal {crystal_id!r} in {out_dir}")
            for document in documents:
                out.print(crystal_table(document))
                for path in draw(document, store, figures or out_dir / "figures"):
                    out.print(str(path), soft_wrap=True)
    except (StoreError, BlobError) as error:
        _stop(str(error))


@app.command("protocol")
def show_protocol(
    protocol: Annotated[str, typer.Argument(help=f"Preset ({', '.join(PRESETS)}) or YAML file.")] = "paper",
    schema: Annotated[bool, typer.Option("--schema", help="Show what every key means, as JSON schema.")] = False,
) -> None:
    """Print a protocol as YAML: a file to change and to give to --protocol."""
    if schema:
        typer.echo(json.dumps(Protocol.model_json_schema(), indent=2, ensure_ascii=False))
        return
    chosen = _protocol(protocol)
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
        _stop(str(error))


def _stop(message: str) -> None:
    err.print(f"phononbench: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def _protocol(name: str) -> Protocol:
    try:
        return load_protocol(name)
    except ProtocolError as error:
        _stop(str(error))
        raise


def _condition(text: str) -> tuple[str, str | float | bool]:
    """``KEY=VALUE``; a value that reads as a JSON number or boolean is one."""
    key, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
        _stop(f"--condition {text!r}: KEY=VALUE is needed, with a KEY of letters, digits and '_'")
    try:
        read = json.loads(value, parse_constant=str)
    except ValueError:
        return key, value
    return key, read if isinstance(read, (bool, int, float)) else value


def _slug(name: str) -> str:
    """A potential's name, or its checkpoint's path, as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip("-") or "potential"


if __name__ == "__main__":
    sys.exit(app())
