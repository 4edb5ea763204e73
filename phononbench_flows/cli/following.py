"""The command that follows unstable crystals along their modes. Heavy imports wait until they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

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
)
from phononbench_flows.harmless import harmless
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL

if TYPE_CHECKING:
    from phononbench_flows.follow import FollowedSet


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
) -> None:
    """Displace the unstable crystals of a set along their modes, and judge what they become.

    Run again, it computes only what is missing.
    """
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
        from phononbench_flows.follow import follow_set

        wanted = FollowSettings(generations=generations, atoms=atoms, modes=modes, children=children)
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
