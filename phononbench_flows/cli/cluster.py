"""Commands for a cluster: init-db, launchpad, submit. Heavy imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phononbench_flows.cli.asked import asked_for
from phononbench_flows.cli.common import (
    AboutOption,
    ConditionOption,
    Inputs,
    LimitOption,
    PotentialOption,
    ProtocolOption,
    ReferenceOption,
    RetryOption,
    SetOption,
    SettingOption,
    app,
    checked_target,
    err,
    finite,
    out,
    say_told,
    sentences,
    stop,
    tell_ignored,
)
from phononbench_flows.cli.opening import mongo_spec, opened_launchpad
from phononbench_flows.files import at_home
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL

if TYPE_CHECKING:
    from phononbench_flows.cluster.outputs import OutputsStore
    from phononbench_flows.potentials import Checkpoint

LaunchpadOption = Annotated[
    Path | None,
    typer.Option(
        "--launchpad", "-l", help="A my_launchpad.yaml; by default the one that `lpad` finds, else the environment."
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="PHONONBENCH_STORE",
        show_default="mongo",
        help="mongo, mongo:DATABASE or mongo:DATABASE:SHARED_DIRECTORY_OF_BLOBS.",
    ),
]


@app.command("init-db")
def init_db(store: StoreOption = None, launchpad_file: LaunchpadOption = None) -> None:
    """Make every index: of the results, of jobflow's outputs, and of the LaunchPad. Nothing is ever deleted."""
    with sentences():
        from phononbench_flows.settings_files import import_jobflow

        spec = mongo_spec(store)
        lp = opened_launchpad(launchpad_file, spec)
        import_jobflow()
        from jobflow import SETTINGS

        from phononbench_flows.cluster.launchpad import address, init_launchpad
        from phononbench_flows.cluster.outputs import OutputsStore
        from phononbench_flows.store import ResultsStore
        from phononbench_flows.store.connection import attempt, mongo_uri

        outputs = SETTINGS.JOB_STORE.docs_store
        if not isinstance(outputs, OutputsStore):
            stop("jobflow does not keep its outputs in MongoDB yet: set JOBFLOW_CONFIG_FILE to launchers/jobflow.yaml")
        with ResultsStore.open(spec) as results:
            results.create_indexes()
        attempt(lambda: _make_indexes(outputs), mongo_uri(), patience=0)
        attempt(lambda: init_launchpad(lp), address(lp), patience=0)
        out.print(f"results: database {spec['database']}; outputs: {outputs.name}; LaunchPad: database {lp.name}")


def _make_indexes(outputs: OutputsStore) -> None:
    outputs.connect()
    outputs.create_indexes()


@app.command("launchpad")
def write_launchpad(
    file: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("~/.fireworks/my_launchpad.yaml"),
    store: StoreOption = None,
) -> None:
    """Write a my_launchpad.yaml for `lpad`, `rlaunch` and `qlaunch`, with the environment's login and for you alone."""
    path = at_home(file)
    checked_target(path)
    with sentences():
        from phononbench_flows.settings_files import import_fireworks
        from phononbench_flows.store.connection import mongo_uri

        spec = mongo_spec(store)
        import_fireworks()
        from phononbench_flows.cluster import launchpad

        launchpad.write_launchpad(path, launchpad.launchpad_settings(mongo_uri(), spec["database"]))
        out.print(f"{path} (mode 600)", soft_wrap=True)


@app.command()
def submit(
    inputs: Inputs,
    set_name: SetOption,
    condition: ConditionOption = None,
    about: AboutOption = None,
    potential: PotentialOption = DEFAULT,
    setting: SettingOption = None,
    protocol: ProtocolOption = DEFAULT_PROTOCOL,
    reference: ReferenceOption = None,
    limit: LimitOption = None,
    retry: RetryOption = None,
    device: Annotated[str, typer.Option(help="What workers compute on: auto, cpu, cuda or cuda:N.")] = "auto",
    store: StoreOption = None,
    launchpad_file: LaunchpadOption = None,
    write: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a file per chunk for `lpad add` instead.")
    ] = None,
    adopt_files: Annotated[
        bool, typer.Option("--adopt-files", help="Add chunks that an earlier --write left in files, too.")
    ] = False,
    chunk_cost: Annotated[
        float | None,
        typer.Option(min=1, callback=finite, help="Bound on a chunk's cost: atoms through the potential, estimated."),
    ] = None,
) -> None:
    """Hand a set to the cluster, in chunks. Run again, it hands out only what is new or was broken off."""
    if write and adopt_files:
        stop("--write puts chunks into files, --adopt-files takes them out: give one of the two")
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
    checked_target(write, folder=True)
    with sentences():
        from phononbench_flows.settings_files import import_jobflow

        spec = mongo_spec(store)
        lp = opened_launchpad(launchpad_file, spec)
        import_jobflow()
        from phononbench_flows.cluster.launch import require_ready
        from phononbench_flows.cluster.launch import submit as hand_out
        from phononbench_flows.cluster.launchpad import address
        from phononbench_flows.documents import PotentialRecord
        from phononbench_flows.potentials import name_in_full
        from phononbench_flows.sets.chunks import TARGET, waiting_crystals
        from phononbench_flows.sets.ingest import CrystalSet, ingest
        from phononbench_flows.sets.metadata import describe_set
        from phononbench_flows.sets.relaxed import compare_relaxed
        from phononbench_flows.sets.retry import retry as try_again
        from phononbench_flows.store import ResultsStore
        from phononbench_flows.store.connection import attempt
        from phononbench_flows.structures import start_early

        start_early()
        found = _identified(potential)
        record = PotentialRecord(name=potential, checkpoint_sha256=found.sha256, settings=asked.settings)
        attempt(lambda: require_ready(lp, set_name), address(lp), patience=0)
        with ResultsStore.open(spec) as results, err.status("reading and screening crystals") as status:
            described = describe_set(results, set_name, inputs, asked.about, asked.conditions)
            crystals = CrystalSet(set_name, described.condition, asked.protocol, record, found.elements)
            ingested = ingest(
                inputs,
                crystals,
                results,
                reference=reference,
                limit=limit,
                on_crystal=lambda n: status.update(f"reading and screening crystals: {n}"),
            )
            compare_relaxed(results, crystals.mine)
            again = try_again(results, crystals, ingested.keys, asked.reasons) if asked.reasons else 0
            waiting = waiting_crystals(results, crystals, ingested.keys)
            # While the server is away it is simply done again, as it would be if this process had been killed.
            done = attempt(
                lambda: hand_out(
                    lp,
                    crystals,
                    waiting,
                    store=results.spec,
                    potential=name_in_full(potential),
                    potential_settings=asked.settings,
                    device=device,
                    target=chunk_cost or TARGET,
                    folder=write.absolute() if write else None,
                    adopt_files=adopt_files,
                    on_chunks=lambda n: status.update(f"handing out chunks: {n}"),
                ),
                address(lp),
            )
    say_told(ingested)
    counts = f"{len(ingested.keys)} crystals, {ingested.new} new, {ingested.changed} changed"
    out.print(f"{counts}, {f'{again} tried again, ' if again else ''}{len(waiting)} waiting")
    tell_ignored(ingested.ignored)
    where = f"written to {write}" if write else "added to the LaunchPad"
    out.print(f"{done.crystals} crystals in {done.chunks} chunks {where}", soft_wrap=True)
    if done.repaired:
        out.print(f"{done.repaired} of these chunks had been left by a submission that was broken off")
    for place, number in done.elsewhere.items():
        out.print(f"{number} crystals left alone, since they wait {place}", soft_wrap=True)


def _identified(potential: str) -> Checkpoint:
    from phononbench_flows import potentials

    err.print(f"identifying {potential}", style="dim")
    return potentials.identify(potential)
