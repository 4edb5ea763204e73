"""Commands for a cluster: init-db, launchpad, submit. Heavy imports wait until they are needed."""

from __future__ import annotations

import json
import re
from functools import partial
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
    checked_set_name,
    checked_target,
    err,
    finite,
    out,
    resumable,
    say_told,
    sentences,
    stop,
    tell_ignored,
)
from phononbench_flows.cli.narrow import lines
from phononbench_flows.cli.opening import mongo_spec, opened_launchpad, told_if_slow
from phononbench_flows.files import at_home
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL

if TYPE_CHECKING:
    from phononbench_flows.cluster.launch import Submission
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
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Take back first what no worker has begun, and hand it out as asked for now.")
]
ChunkCostOption = Annotated[
    float | None,
    typer.Option(min=1, callback=finite, help="Bound on a chunk's cost: atoms through the potential, estimated."),
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
        with told_if_slow("MongoDB"):
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
        from phononbench_flows.cluster.site_files import point_fireworks_to

        launchpad.write_launchpad(path, launchpad.launchpad_settings(mongo_uri(), spec["database"]))
        out.print(f"{path} (mode 600)", soft_wrap=True)
        if path.parent == at_home(Path("~/.fireworks")) and (otherwise := point_fireworks_to(path)):
            err.print(otherwise, style="yellow", soft_wrap=True)


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
    device: Annotated[
        str, typer.Option(help="Force workers onto cpu, cuda or cuda:N; auto: what each of them has.")
    ] = "auto",
    store: StoreOption = None,
    launchpad_file: LaunchpadOption = None,
    write: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a file per chunk for `lpad add` instead.")
    ] = None,
    adopt_files: Annotated[
        bool, typer.Option("--adopt-files", help="Add chunks that an earlier --write left in files, too.")
    ] = False,
    replace: ReplaceOption = False,
    chunk_cost: ChunkCostOption = None,
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
        from phononbench_flows.cluster.launch import require_ready_at_once
        from phononbench_flows.cluster.launch import submit as hand_out
        from phononbench_flows.cluster.launchpad import address
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
        found = identified(potential)
        record = found.record(asked.settings)
        with told_if_slow("the LaunchPad"):
            require_ready_at_once(lp, set_name)
        with resumable(), ResultsStore.open(spec) as results, err.status("reading and screening crystals") as status:
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
                    replace_waiting=replace,
                    on_chunks=lambda n: status.update(f"handing out chunks: {n}"),
                ),
                address(lp),
            )
    say_told(ingested)
    counts = f"{len(ingested.keys)} crystals, {ingested.new} new, {ingested.changed} changed"
    out.print(f"{counts}, {f'{again} tried again, ' if again else ''}{len(waiting)} waiting")
    tell_ignored(ingested.ignored)
    tell_handed_out(done, f"written to {write}" if write else "added to the LaunchPad", replaced=replace)


def tell_handed_out(done: Submission, where: str, *, replaced: bool) -> None:
    """Say what a submission did, and what it left alone.

    Parameters:
        replaced: whether it was to take back what nobody had begun.
    """
    out.print(f"{done.crystals} crystals in {done.chunks} chunks {where}", soft_wrap=True)
    if done.repaired:
        out.print(f"{done.repaired} of these chunks had been left by a submission that was broken off")
    if done.withdrawn:
        out.print(f"{done.withdrawn} chunks that nobody had begun were taken back first")
    for how, number in done.differing.items():
        advice = "begun, so they stay as they are" if replaced else "--replace hands out anew what nobody has begun"
        out.print(f"{number} crystals were handed out before with {how}: {advice}", soft_wrap=True)
    for place, number in done.elsewhere.items():
        out.print(f"{number} crystals left alone, since they wait {place}", soft_wrap=True)


_CHUNK = re.compile(r"[0-9a-f]{24}-[0-9]{1,9}")


@app.command("chunks")
def show_chunks(
    set_name: Annotated[str | None, typer.Option("--set", help="Only this set's.")] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option("--forget", metavar="CHUNK", help="Take this chunk back, if nobody has begun it; repeatable."),
    ] = None,
    store: StoreOption = None,
    launchpad_file: LaunchpadOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the chunks that were handed out, and take some of them back, to be handed out anew."""
    if set_name is not None:
        checked_set_name(set_name, children=True)
    for name in forget or ():
        if not _CHUNK.fullmatch(name):
            stop(f"--forget {name[:80]!r}: that is no chunk, such as {'0' * 24}-0; `phononbench chunks` shows them")
    with sentences():
        spec = mongo_spec(store)
        lp = opened_launchpad(launchpad_file, spec)
        from phononbench_flows.cluster.launch import chunks
        from phononbench_flows.cluster.launchpad import address
        from phononbench_flows.cluster.withdrawal import withdraw
        from phononbench_flows.store.connection import attempt

        with told_if_slow("the LaunchPad"):
            found = attempt(lambda: list(chunks(lp, set_name)), address(lp), patience=0)
        by_id = {chunk.id: chunk for chunk, _ in found}
        for name in forget or ():
            if name not in by_id:
                stop(f"there is no chunk {name!r}")
            chunk = by_id[name]
            if not attempt(partial(withdraw, lp, chunk.hash, chunk.id), address(lp)):
                stop(f"{name} is left as it is: a worker has begun it")
            out.print(f"{name} was taken back: {len(chunk.keys)} crystals are free", soft_wrap=True)
    if forget:
        return
    shown = [
        {"chunk": chunk.id, "set": chunk.set, "state": state, "crystals": len(chunk.keys), "keys": chunk.keys}
        | {name: chunk.flow.get(name) for name in ("potential", "device", "potential_settings", "store")}
        for chunk, state in found
    ]
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for each in shown:
        said = f"{each['state']}, {each['crystals']} crystals of {each['set']}, {each['potential']} on {each['device']}"
        out.print(lines([(str(each["chunk"]), said)]))


def identified(potential: str) -> Checkpoint:
    """The checkpoint of a potential, which is told: of a large one it takes a while."""
    from phononbench_flows import potentials

    err.print(f"identifying {potential}", style="dim")
    return potentials.identify(potential)
