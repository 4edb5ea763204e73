"""Formats that crystals come in: each module here is a family of them and names them in ``FORMATS``.

A new format is one new file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from phononbench_flows.structures.formats.base import Format
from phononbench_flows.structures.streams import split_compression

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


@cache
def all_formats() -> tuple[Format, ...]:
    """Every format of every module here."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return tuple(found for module in modules for found in getattr(module, "FORMATS", ()))


@cache
def parsers() -> dict[str, Callable[[str], Structure]]:
    """What parses the text of one crystal, by its raw format."""
    return {name: parser for found in all_formats() for name, parser in found.parsers.items()}


def format_of(name: str) -> Format | None:
    """The format that a file's name tells, or None if it tells none."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    if base.startswith("._"):  # macOS puts a companion of this name beside each file it packs
        return None
    lower = base.lower()
    plain = split_compression(lower)[0]
    for candidate in (lower, plain):
        for found in all_formats():
            if candidate.endswith(found.suffixes):
                return found
    return next((found for found in all_formats() if found.pattern and found.pattern.search(plain)), None)


def kind_of(name: str) -> str:
    """What people call a file that is not taken: its format's kind, or the ending of its name."""
    found = format_of(name)
    if found is not None:
        return found.kind
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    if base.startswith("._"):
        return "companion of macOS"
    _, dot, ending = base.lower().rpartition(".")
    return f".{ending}" if dot and 0 < len(ending) <= 8 else "without an ending"
