"""What the commands share: the application, its consoles, its options, and how a command stops."""

from __future__ import annotations

import gc
import json
import math
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.harmless import harmless
from phononbench_flows.protocol import PRESETS, Protocol, load_protocol
from phononbench_flows.sets.set_names import generated_of, is_children_set

if TYPE_CHECKING:
    from phononbench_flows.sets.ingest import Ingested
    from phononbench_flows.structures import Ignored

app = typer.Typer(no_args_is_help=True, help="Judge the dynamical stability of generated crystals.")


class _HarmlessConsole(Console):
    """Names that it shows may come from files of others: what is in them is not obeyed, and brackets are no markup."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, markup=False, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=_lines(segment.text))


def _lines(text: str) -> str:
    return "\n".join(harmless(line) for line in text.split("\n"))


out = _HarmlessConsole()
err = _HarmlessConsole(stderr=True)
wide_out = _HarmlessConsole(width=10_000)
"""For ``--wide``: lines as long as they are, for a pager or a file."""

# The extra that brings a package which only some commands need.
_EXTRAS = {
    "fastapi": "serve",
    "fireworks": "fireworks",
    "psutil": "fireworks",
    "pyarrow": "parquet",
    "starlette": "serve",
    "uvicorn": "serve",
}

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended."""

_TOLD = 10  # names of crystals told of, at most
_LARGEST = 2**63  # integers beyond it no database holds
_SET_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def _there(paths: list[Path]) -> list[Path]:
    for path in paths:
        try:
            mode = path.stat().st_mode
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            stop(f"input {harmless(path)} cannot be found: {why}")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            stop(f"input {harmless(path)} is neither a file nor a folder")
    return paths


def there(paths: list[Path] | None) -> list[Path] | None:
    """For options that are inputs: those that cannot be read end the command."""
    return paths and _there(paths)


def there_if_given(path: Path | None) -> Path | None:
    """The same for an option that takes one."""
    return path and _there([path])[0]


Inputs = Annotated[
    list[Path],
    typer.Argument(
        callback=_there,
        help="Folders, zip or tar archives, files of crystals (CIF, POSCAR, extxyz, JSON, phonopy yaml), tables (csv, "
        "tsv, parquet), ASE databases and trajectories, .pt of generators, lists of paths; compressed or not.",
    ),
]
SetOption = Annotated[str, typer.Option("--set", help="Name of the set that these crystals are.")]
ConditionOption = Annotated[
    list[str] | None, typer.Option("--condition", help="KEY=VALUE that the generator was asked for; repeatable.")
]
AboutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--about",
        metavar="KEY=VALUE|FILE.yaml",
        help="What the tables need to know of the set: model, training_set, architecture, parameters, n_generated, "
        "generation_seconds, generation_hardware; repeatable. A set.yaml in the folder of the crystals says it too.",
    ),
]
ReferenceOption = Annotated[
    Path | None,
    typer.Option(
        "--reference", callback=there_if_given, help="Crystals that count as known (any input that `run` takes)."
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first so many crystals.")]
Results = Annotated[Path, typer.Option("--out", help="Directory of the results, of any number of sets.")]
PotentialOption = Annotated[
    str,
    typer.Option(
        "--potential", help="Name, path of a MatterSim checkpoint (.pth), FAMILY:PATH, or package.module:source."
    ),
]
ProtocolOption = Annotated[str, typer.Option("--protocol", help=f"Preset ({', '.join(PRESETS)}) or YAML file.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BatchOption = Annotated[int | None, typer.Option("--batch-atoms", min=1, help="Atoms per call of the potential.")]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes that compute side by side: one for each core, or one on a GPU, without it."
    ),
]
WideOption = Annotated[bool, typer.Option("--wide", help="All columns in one line each, however narrow the terminal.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="KEY=VALUE", help="A setting of the potential's family; repeatable."),
]
RetryOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REASON",
        help="Compute those again that failed for this reason, or `all-failed`; `proven`: compute all of those that a "
        "proof settled. Repeatable.",
    ),
]
DEFAULT_OUT = Path("phononbench-results")


def _version(wanted: bool) -> None:
    if wanted:
        from phononbench_flows import __version__

        out.print(f"phononbench-flows {__version__}")
        raise typer.Exit


@app.callback()
def main(
    _wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Judge the dynamical stability of generated crystals."""
    # Imports make millions of objects that stay. To look through them for garbage again and again took 2.4 of the 18 s
    # in which torch, SevenNet and the rest are loaded.
    gc.set_threshold(100_000, 50, 50)


def stop(message: str) -> NoReturn:
    """End the command with exit code 2 and a sentence on standard error."""
    err.print(f"phononbench: {_lines(message)}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def tell_ignored(ignored: Ignored) -> None:
    """Say on standard error which files of the inputs are no crystals, if there are any."""
    if ignored:
        err.print(f"ignored: {ignored}", style="dim", highlight=False, soft_wrap=True)


@contextmanager
def sentences() -> Iterator[None]:
    """Errors that a person can mend end the command with their sentence, and so does a package that is not there."""
    try:
        yield
    except PhononBenchError as error:
        stop(str(error))
    except OSError as error:
        said = error.strerror or str(error)
        stop(f"{error.filename}: {said}" if error.filename else said)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        stop(f"this needs the package {error.name}, which is not installed: pip install 'phononbench-flows[{extra}]'")


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C ends a command that goes on when it is called again with a sentence and the exit code of shells."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("\nstopped; the same command goes on from here", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


def finite(value: float | None) -> float | None:
    """For options that are numbers: bounds let through what is no number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to count with")
    return value


def chosen_protocol(name: str) -> Protocol:
    """The protocol of ``--protocol``, all of whose steps are here."""
    with sentences():
        from phononbench_flows.steps import steps_of

        chosen = load_protocol(name)
        steps_of(chosen)
    return chosen


def checked_target(path: Path | None, *, folder: bool = False) -> None:
    """Stop at a place to write to that cannot be a file, or a folder: what is found could not be written there."""
    if path is None:
        return
    if "\0" in str(path):
        stop(f"{path} cannot be written to: no name holds a zero byte")
    with sentences():
        place = next(place for place in (path, *path.absolute().parents) if place.exists())
    if place != path and not place.is_dir():
        stop(f"{path} cannot be made: {place} is no folder")
    if place == path and folder and not place.is_dir():
        stop(f"{path} is there, and is no folder")
    if place == path and not folder and not place.is_file():
        stop(f"{path} is there, and is no file")


def say_ingested(found: Ingested, again: int) -> None:
    """What a run has found: counts, and the crystals that are not what they were."""
    counts = f"{len(found.keys)} crystals, {found.new} new, {found.changed} changed since the last run"
    err.print(counts + (f", {again} tried again" if again else ""), style="dim", soft_wrap=True)
    say_told(found)


def say_told(found: Ingested) -> None:
    """The crystals that are not what they were, by name as far as these are few."""
    told = {
        "changed, judged anew": found.changed_ids,
        "gone, no longer counted": found.gone_ids,
        "compared anew with others": found.again_ids,
    }
    for what, names in told.items():
        if names:
            more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
            err.print(f"{len(names)} {what}: {', '.join(names[:_TOLD])}{more}", style="dim", soft_wrap=True)


def checked_set_name(name: str, *, children: bool = False) -> str:
    """The name of ``--set``; it begins every structure id.

    Parameters:
        children: whether it may be the set of what was made of the crystals of another.
    """
    if not _SET_PATTERN.fullmatch(generated_of(name) if children else name):
        stop(f"--set {name!r}: at most 40 letters, digits, '.', '_' and '-', the first a letter or digit")
    if is_children_set(name) and not children:
        stop(f"--set {name}: so the set is called of what `follow` makes of the crystals of a set; choose another name")
    return name


def read_conditions(texts: list[str] | None) -> dict[str, str | float | bool]:
    """``KEY=VALUE`` of every ``--condition``; a value that reads as a JSON number or boolean is one."""
    return dict(_condition(text) for text in texts or [])


def _condition(text: str) -> tuple[str, str | float | bool]:
    key, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
        stop(f"--condition {text!r}: KEY=VALUE is needed, with a KEY of letters, digits and '_'")
    if any("\ud800" <= c <= "\udfff" for c in value):  # what the shell gave is no UTF-8
        stop(f"--condition {text!r}: the value is no text")
    try:
        read = json.loads(value, parse_constant=str)
    except (ValueError, RecursionError):
        return key, value
    if isinstance(read, int | float) and not abs(read) < _LARGEST:  # nor is it, where it is not a number
        stop(f"--condition {text!r}: {value[:30]} is no number that can be kept")
    return key, read if isinstance(read, (bool, int, float)) else value
