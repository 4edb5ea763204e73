"""Numbers as they are written: exact, with the place of their last digit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MINUS = "\N{MINUS SIGN}"

_LONGEST = 60
_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,3}))?(?:\(\d+\))?", re.ASCII)
_FRACTION = re.compile(r"([+-]?\d+)/(\d+)", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A value, and what one more in its last digit would add; 0 for whole numbers and fractions, which are exact."""

    value: Fraction
    unit: Fraction

    def could_be(self, other: Fraction) -> bool:
        """Whether ``other``, rounded or cut to the digits of this number, is this number."""
        if abs(other - self.value) * 2 <= self.unit:
            return True
        return other * self.value >= 0 and 0 <= abs(other) - abs(self.value) < self.unit


def read(text: str) -> Number | None:
    """The number that the text is, whole; None if it is none. U+2212 can only be meant as a minus."""
    text = text.strip().replace(MINUS, "-")
    if len(text) > _LONGEST:
        return None
    if (found := _FRACTION.fullmatch(text)) and int(found[2]):
        return Number(Fraction(int(found[1]), int(found[2])), Fraction(0))
    if not (found := _DECIMAL.fullmatch(text)) or not (found[2] or found[3]):
        return None
    decimals, exponent = found[3] or "", int(found[4] or 0)
    unit = Fraction(10) ** (exponent - len(decimals))
    value = int(f"{found[1]}{found[2]}{decimals}") * unit
    return Number(value, unit if decimals else Fraction(0))


def is_not_finite(text: str) -> bool:
    """Whether the text is a name for what is no finite number, as C and Python write it."""
    return _NOT_FINITE.fullmatch(text.strip()) is not None
