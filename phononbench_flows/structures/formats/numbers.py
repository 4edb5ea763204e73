"""Numbers and symbols as files write them: read exactly, or rejected by name."""

from __future__ import annotations

import re

from pymatgen.core.periodic_table import DummySpecies, Element

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.raw import RejectedError

MAX_ATOMS = 5_000  # more are rejected before time and memory are spent on them

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity|\*+)", re.IGNORECASE)
_ROUNDING = 1e-6


def is_number(word: str) -> bool:
    """Whether a word is a number, finite or not."""
    return bool(_NUMBER.fullmatch(word) or _NOT_FINITE.fullmatch(word))


def number(word: str) -> float:
    """The number in a word, Fortran's exponents too.

    Raises:
        RejectedError: it is none, or not finite.
    """
    if _NUMBER.fullmatch(word):
        return float(word.lower().replace("d", "e"))
    if _NOT_FINITE.fullmatch(word):
        raise RejectedError(Reason.BAD_NUMBERS, f"The number {word!r} is not finite.")
    raise RejectedError(Reason.UNPARSABLE, f"{word!r} is not a number.")


def element(symbol: str) -> Element | DummySpecies:
    """The element of that symbol, or a dummy that the checks find.

    Raises:
        RejectedError: it is no name at all.
    """
    if Element.is_valid_symbol(symbol):
        return Element(symbol)
    try:
        return DummySpecies(symbol, 0)
    except ValueError as error:
        raise RejectedError(Reason.UNSUPPORTED_ELEMENT, f"{symbol!r} is no element.") from error


def require_full(occupancy: float, site: str) -> None:
    """Reject a site that is not fully occupied; rounding errors of the sixth digit are none."""
    if not abs(occupancy - 1) <= _ROUNDING:
        raise RejectedError(Reason.DISORDERED, f"The site of {site} has the occupancy {occupancy:g}.")
