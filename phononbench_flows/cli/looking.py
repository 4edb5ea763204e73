"""What the terminal and a table show of crystals that were read and screened, and not computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from phononbench_flows.harmless import harmless
from phononbench_flows.results.export import write_csv
from phononbench_flows.sets.looking import Looked, counts

_COLUMNS = (
    *("file", "formula", "natoms", "space_group", "outcome", "reason", "detail", "duplicate_of", "known_as", "label"),
)


def show_looked(found: Sequence[Looked]) -> None:
    """A line for each crystal, and the counts."""
    sources = {each.label: each.source for each in found}
    for each in found:
        typer.echo("  ".join(harmless(part) for part in _parts(each, sources) if part))
    counted = ", ".join(f"{number} {name}" for name, number in counts(found).items())
    typer.echo(f"{len(found)} crystals: {counted}")


def _parts(each: Looked, sources: Mapping[str, str]) -> tuple[str | None, ...]:
    atoms = None if each.natoms is None else f"{each.natoms} atoms"
    return each.source, each.formula, atoms, each.space_group, _outcome(each, sources)


def _outcome(each: Looked, sources: Mapping[str, str]) -> str:
    if each.reason is not None:
        return f"{each.outcome}: {each.reason}: {each.detail}"
    if each.duplicate_of is not None:
        return f"{each.outcome} of {sources[each.duplicate_of]}"
    return each.outcome if each.known_as is None else f"{each.outcome} as {each.known_as}"


def write_looked(found: Sequence[Looked], path: Path) -> None:
    """The same as a table, with whole names."""
    sources = {each.label: each.source for each in found}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        write_csv(stream, _COLUMNS, (_row(each, sources) for each in found))


def _row(each: Looked, sources: Mapping[str, str]) -> dict[str, object]:
    return {
        "file": each.source,
        "formula": each.formula,
        "natoms": each.natoms,
        "space_group": each.space_group,
        "outcome": each.outcome,
        "reason": each.reason,
        "detail": each.detail,
        "duplicate_of": None if each.duplicate_of is None else sources[each.duplicate_of],
        "known_as": each.known_as,
        "label": each.label,
    }


def show_costs(number: int, by_step: Mapping[str, float]) -> None:
    """How much there is to compute."""
    parts = ", ".join(f"{cost:.3g} for {name.replace('_', ' ')}" for name, cost in by_step.items())
    total = sum(by_step.values())
    typer.echo(
        f"{number} crystals would be computed: about {total:.3g} evaluations (atoms through the potential): {parts}"
    )
