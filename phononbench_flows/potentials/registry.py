"""Finding a potential by its name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from typing import Any

from phononbench_flows.potentials import families
from phononbench_flows.potentials.source import Family, PotentialError, Source, given_file

ENTRY_POINT_GROUP = "phononbench_flows.potentials"
DEFAULT = "mattersim-v1-5m"


def _families() -> dict[str, Family]:
    found = (import_module(f"{families.__name__}.{module.name}").FAMILY for module in iter_modules(families.__path__))
    ordered = sorted(found, key=lambda family: (DEFAULT not in family.sources, family.extra))  # the default's first
    return {family.extra: family for family in ordered}


FAMILIES: dict[str, Family] = _families()
"""All families by name, that of the default first."""

BUILT_IN: dict[str, Source] = {name: source for family in FAMILIES.values() for name, source in family.sources.items()}
"""The potentials that have a name of their own."""


def distributions() -> tuple[str, ...]:
    """Names of the packages, as installed, whose versions decide what the potentials of the families give."""
    return tuple(family.distribution for family in FAMILIES.values())


def names() -> list[str]:
    """Names that can be asked for: the built-in ones, then those that installed packages offer."""
    return [*BUILT_IN, *sorted(e.name for e in entry_points(group=ENTRY_POINT_GROUP) if e.name not in BUILT_IN)]


def find_source(name: str) -> Source:
    """The source behind a name, a path of a checkpoint, or ``module:attribute``.

    Raises:
        PotentialError: there is no such potential.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    source: Any = None
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            source = entry.load()
    if source is None:
        source = _of_a_file(name)
    if source is None and ":" in name:
        try:
            source = resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise PotentialError(f"potential {name!r} cannot be imported: {error}") from error
    if source is None:
        raise PotentialError(
            f"no potential {name!r}: use one of {', '.join(names())}, the path of a MatterSim checkpoint (.pth), "
            f"FAMILY:PATH for a checkpoint of {', '.join(FAMILIES)}, or package.module:source"
        )
    if not isinstance(source, Source):
        raise PotentialError(f"potential {name!r} leads to a {type(source).__name__}, not to a potentials.Source")
    return source


def name_in_full(name: str) -> str:
    """The name, with the whole path of a checkpoint that it leads to: it means the same from any working directory."""
    file = None if name in names() else _file_named(name)
    if file is None:
        return name
    family, path, head = file
    whole = str(given_file(path)())
    if not name.startswith(f"{family}:"):
        return whole
    return f"{family}:{whole}" + (f"#{head}" if head else "")


def _of_a_file(name: str) -> Source | None:
    file = _file_named(name)
    if file is None:
        return None
    family, path, head = file
    return FAMILIES[family].from_file(path, head)


def _file_named(name: str) -> tuple[str, Path, str] | None:
    """Family, path and head of a checkpoint that is named by its path."""
    family, colon, rest = name.partition(":")
    if colon and family in FAMILIES:
        path, _, head = rest.partition("#")
        return family, Path(path), head
    if Path(name).suffix == ".pth":
        return "mattersim", Path(name), ""
    return None
