"""The command that follows unstable crystals along their modes. Heavy imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from phononbench_flows.cli.cluster import (
    ChunkCostOption,
    LaunchpadOption,
    ReplaceOption,
    identified,
    tell_handed_out,
)
from phononbench_flows.cli.common import (
    DEFAULT_OUT,
    BatchOption,
    DeviceOption,
    PotentialOption,
    ProtocolOption,
    ReferenceOption,
    Results,
    SettingOption,
    WorkersOption,
    app,
    checked_set_name,
    checked_target,
    chosen_protocol,
    err,
    out,
    resumable,
    sentences,
    stop,
)
from phononbench_flows.cli.opening import mongo_spec, opened_launchpad, told_if_slow
from phononbench_flows.harmless import harmless
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL

if TYPE_CHECKING:
    from phononbench_flows.engine.following import FollowSettings
    from phononbench_flows.follow import FollowedSet
    from phononbench_flows.potentials.source import Setting
    from phononbench_flows.protocol import Protocol


@app.command("follow")
def follow(
    set_name: Annotated[str, typer.Option("--set", help="Name of a set that was judged.")],
    potential: PotentialOption = DEFAULT,
    setting: SettingOption = None,
    protocol: ProtocolOption = DEFAULT_PROTOCOL,
    out_dir: Results = DEFAULT_OUT,
    reference: ReferenceOption = None,
    generations: Annotated[int, typer.Option(min=1, help="Children of children, and so on.")] = 3,
    atoms: Annotated[int, typer.Option(min=1, help="A child has no more atoms.")] = 40,
    modes: Annotated[int, typer.Option(min=1, help="Worst modes of a crystal, a degenerate one counted once.")] = 4,
    children: Annotated[int, typer.Option(min=1, help="Children of a crystal, those of the lowest energy.")] = 4,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Follow only so many crystals, those of the fewest atoms first.")
    ] = None,
    device: DeviceOption = "auto",
    batch_atoms: BatchOption = None,
    workers: WorkersOption = None,
    submit: Annotated[
        bool,
        typer.Option("--submit", help="Hand it to the cluster; called again, it writes the tables when all is done."),
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="With --submit: the store of the results, as of `submit`.", show_default="mongo")
    ] = None,
    launchpad_file: LaunchpadOption = None,
    replace: ReplaceOption = False,
    chunk_cost: ChunkCostOption = None,
) -> None:
    """Displace the unstable crystals of a set along their modes, and judge what they become.

    Run again, it computes only what is missing.
    """
    if submit and (workers or batch_atoms):
        stop("--submit leaves --workers and --batch-atoms to the workers of the cluster")
    if not submit and (store or launchpad_file or replace or chunk_cost):
        stop("--store, --launchpad, --replace and --chunk-cost say how to hand out to a cluster: give --submit, too")
    checked_set_name(set_name)
    chosen = chosen_protocol(protocol)
    checked_target(out_dir, folder=True)
    with sentences():
        from phononbench_flows.potentials import check_asked, parse_settings

        settings = parse_settings(setting or ())
        check_asked(potential, device, settings)
        from phononbench_flows.settings_files import import_jobflow

        import_jobflow()
        from phononbench_flows.engine.following import FollowSettings

        wanted = FollowSettings(generations=generations, atoms=atoms, modes=modes, children=children)
        if submit:
            _by_workers(
                set_name,
                chosen,
                wanted,
                store,
                launchpad_file,
                out_dir=out_dir,
                reference=reference,
                limit=limit,
                potential=potential,
                settings=settings,
                device=device,
                replace=replace,
                chunk_cost=chunk_cost,
            )
            return
        from phononbench_flows.follow import follow_set

        with resumable(), err.status("following modes") as status:
            followed = follow_set(
                set_name,
                out=out_dir,
                potential=potential,
                potential_settings=settings,
                protocol=chosen,
                settings=wanted,
                reference=reference,
                limit=limit,
                device=device,
                batch_atoms=batch_atoms,
                workers=workers,
                on_parents=lambda n, total: status.update(f"following {n} of {total} unstable crystals"),
            )
        _tell(followed)


def _tell(followed: FollowedSet) -> None:
    from phononbench_flows.tables.followed import describe

    table = Table(show_header=False, show_edge=False)
    for what, value in describe(followed.followed).items():
        table.add_row(what, value)
    out.print(table)
    folder = harmless(followed.table.parent)
    said = f"children: {folder}/{followed.table.name}\nstable children: {folder}/stable"
    out.print(said, soft_wrap=True, highlight=False)


def _by_workers(
    set_name: str,
    chosen: Protocol,
    wanted: FollowSettings,
    store: str | None,
    launchpad_file: Path | None,
    *,
    out_dir: Path,
    reference: Path | None,
    limit: int | None,
    potential: str,
    settings: dict[str, Setting],
    device: str,
    replace: bool,
    chunk_cost: float | None,
) -> None:
    """Hand out what is left to a cluster, and say so; if nothing is, say what became of it."""
    spec = mongo_spec(store)
    lp = opened_launchpad(launchpad_file, spec)
    from phononbench_flows.cluster.following import Left, follow_by_workers
    from phononbench_flows.cluster.launch import require_ready_at_once
    from phononbench_flows.potentials import name_in_full
    from phononbench_flows.sets.chunks import TARGET
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore

    with told_if_slow("the LaunchPad"):
        require_ready_at_once(lp, set_name)
    found = identified(potential)
    crystals = CrystalSet(set_name, {}, chosen, found.record(settings), found.elements)
    with resumable(), ResultsStore.open(spec) as results:
        done = follow_by_workers(
            lp,
            results,
            crystals,
            wanted,
            out=out_dir,
            reference=reference,
            limit=limit,
            potential=name_in_full(potential),
            potential_settings=settings,
            device=device,
            target=chunk_cost or TARGET,
            replace_waiting=replace,
        )
    if not isinstance(done, Left):
        _tell(done)
        return
    out.print(f"{done.number} of {done.unstable} unstable crystals are left to be followed")
    tell_handed_out(done.submission, "added to the LaunchPad", replaced=replace)
    out.print("when workers have followed them, the same command writes what they lead to", soft_wrap=True)
