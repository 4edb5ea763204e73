"""What there is to say of a potential before it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.files import at_home

if TYPE_CHECKING:
    from torch_sim.models.interface import ModelInterface

Setting = bool | int | float | str
"""A value of an option; a plain value of JSON, since documents keep it."""


class PotentialError(PhononBenchError):
    """A potential that cannot be used here; the message says what to do about it."""


@dataclass(frozen=True)
class Download:
    """Where a checkpoint can be had, and the git object id that its bytes must have."""

    url: str
    git_blob: str


@dataclass(frozen=True)
class Option:
    """A setting that a potential offers. It changes speed or memory; what changes the physics is a source of its own.

    Attributes:
        summary: one line.
        default: value if nothing is said; its type is the option's.
        package: module that has to be importable for any other value.
        install: the command that installs that package.
        gpu: whether any other value needs a GPU.
        accelerates: whether, if true, the same network runs in faster code, and may where nobody asked for it.
    """

    summary: str
    default: Setting
    package: str = ""
    install: str = ""
    gpu: bool = False
    accelerates: bool = False


@dataclass(frozen=True)
class Source:
    """How one potential is found, identified and loaded.

    Attributes:
        summary: one line for ``phononbench potentials``.
        load: makes the torch-sim model from the checkpoint and the device, and from the settings given by name. Its
            dtype may be float32; it is brought to float64 here.
        elements: symbols of the elements that it was made for, from the checkpoint; None if it takes any or if that is
            not known.
        checkpoint: path of the weights, raising :class:`PotentialError` if they cannot be there; None for a
            potential without weights.
        settings: what decides the physics beside the checkpoint, such as the head of a checkpoint with several; hashed
            after it, or in place of it.
        download: where ``phononbench potentials fetch`` gets the weights.
        obtain: what to do if the weights are not there and cannot be fetched.
        threads: whether several threads may call the model at once; on a CPU it then runs on all cores.
        package: module that has to be importable.
        extra: extra of this package that brings it.
        options: settings that may be given to ``potentials.load``, by name.
        cutoff: tells from the loaded model how far an atom sees others, in Å, in one layer of a network with several;
            None if that is not known.
    """

    summary: str
    load: Callable[..., ModelInterface]
    elements: Callable[[Path | None], frozenset[str] | None]
    checkpoint: Callable[[], Path] | None = None
    settings: str = ""
    download: Download | None = None
    threads: bool = False
    obtain: str = "give the path of a checkpoint that exists"
    package: str = ""
    extra: str = ""
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)
    cutoff: Callable[[Any], float] | None = None


@dataclass(frozen=True)
class Family:
    """One kind of potential; the constant ``FAMILY`` of a file in ``families``.

    Attributes:
        extra: the family's name in ``family:PATH``, and the extra that installs it.
        distribution: name of its package as it is installed.
        sources: the potentials with a name of their own.
        from_file: source for a checkpoint at a path and one of its heads ("" if it has but one).
    """

    extra: str
    distribution: str
    sources: Mapping[str, Source]
    from_file: Callable[[Path, str], Source]


def symbols(numbers: Iterable[int], without: Iterable[str] = ()) -> frozenset[str]:
    """Chemical symbols of atomic numbers, less some."""
    from ase.data import chemical_symbols

    return frozenset(chemical_symbols[z] for z in numbers) - set(without)


def elements_of_mptrj(_: Path | None) -> frozenset[str]:
    """For :attr:`Source.elements`: the 89 elements of MPtrj, the first 94 without five."""
    return symbols(range(1, 95), without=("Po", "At", "Rn", "Fr", "Ra"))


def any_element(_: Path | None) -> None:
    """For :attr:`Source.elements`, where a checkpoint does not tell."""
    return


def is_installed(package: str) -> bool:
    """Whether a module could be imported; does not import it."""
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:  # nor is the package around it
        return False
    return spec is not None and spec.origin is not None  # any folder of that name would do for one without


def package_file(package: str, relative: str) -> Callable[[], Path]:
    """For :attr:`Source.checkpoint`, where the weights come with a package; does not import it."""

    def path() -> Path:
        spec = find_spec(package)
        folders = (spec and spec.submodule_search_locations) or [package]
        return Path(folders[0]) / relative

    return path


def given_file(path: Path) -> Callable[[], Path]:
    """For :attr:`Source.checkpoint`, where the user names the file."""
    return lambda: at_home(path).absolute()


def without_heads(family: str, path: Path, head: str) -> None:
    """Raise if a head is asked for in a family whose checkpoints have but one."""
    if head:
        raise PotentialError(f"checkpoints of {family} have no heads: leave `#{head}` away in {family}:{path}#{head}")
