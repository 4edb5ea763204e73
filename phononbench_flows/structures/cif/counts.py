"""What a CIF says of how many atoms there are, which its sites and its symmetry have to bear out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from pymatgen.core.periodic_table import Element

from phononbench_flows.structures.cif.blocks import Block
from phononbench_flows.structures.cif.digits import Number, read

_FORMULAS = ("_chemical_formula_sum", "_chemical_formula_structural")
_UNITS = "_cell_formula_units_z"
_DENSITY = "_exptl_crystal_density_diffrn"
_PART = re.compile(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?", re.ASCII)
_DENSITY_TOLERANCE = 0.05  # relative
_GRAMS = 1.66053907  # g/cm^3 in u/Å^3
_LARGEST = 10**6

Content = dict[str, int]
"""Atoms in the cell by element."""


@dataclass(frozen=True)
class Counts:
    """What is said: a formula by element, formula units in the cell, density in g/cm^3; None where it is not."""

    formula: dict[str, Number] | None
    text: str
    units: int | None
    density: float | None

    def objection(self, content: Content, volume: float) -> str | None:
        """What speaks against these atoms in a cell of that volume (Å^3), in a sentence."""
        made = " ".join(f"{symbol}{count}" for symbol, count in sorted(content.items()))
        if self.formula is not None and not self._is_cell(content, self.formula):
            units = "" if self.units is None else f" and Z is {self.units}"
            return f"The formula is {self.text!r}{units}, but the sites make {made}."
        if self.formula is None and self.units and any(count % self.units for count in content.values()):
            return f"Z is {self.units}, but the sites make {made}."
        if self.density is not None:
            found = _density(content, volume)
            if abs(found / self.density - 1) > _DENSITY_TOLERANCE:
                return f"The density is {self.density:g} g/cm^3, but that of {made} is {found:.3g} g/cm^3."
        return None

    def confirm(self, content: Content, volume: float) -> bool:
        """Whether the number of atoms, not only their proportion, follows from what is said, and is this one."""
        if self.objection(content, volume) is not None:
            return False
        if self.density is not None or (self.formula is not None and self.units is not None):
            return True
        # A formula alone counts the cell only where it is not that of a unit.
        counts = [number.value for number in (self.formula or {}).values()]
        return bool(counts) and gcd(*map(int, counts)) > 1 and sum(counts) == sum(content.values())

    def _is_cell(self, content: Content, formula: dict[str, Number]) -> bool:
        if content.keys() != formula.keys():
            return False
        if self.units is None:
            repeats = round(sum(content.values()) / sum(number.value for number in formula.values()))
            return repeats >= 1 and _is_same(content, formula, repeats)
        # Some writers give the whole cell for the formula; then there are Z units in it.
        is_whole = all((number.value / self.units).denominator == 1 for number in formula.values())
        return _is_same(content, formula, self.units) or (is_whole and _is_same(content, formula, 1))


def read_counts(block: Block) -> Counts:
    """What the block says of it; what is not understood there says nothing."""
    formulas = [(_formula(text), text) for _, text in block.said(*_FORMULAS)]
    formula, text = next((pair for pair in formulas if pair[0] is not None), (None, ""))
    units = _positive(block, _UNITS)
    density = _positive(block, _DENSITY)
    whole = int(units) if units is not None and units.denominator == 1 else None
    return Counts(formula, text, whole, None if density is None else float(density))


def _positive(block: Block, tag: str) -> Fraction | None:
    numbers = [number.value for _, text in block.said(tag) if (number := read(text)) is not None]
    return next((number for number in numbers if Fraction(1, _LARGEST) < number < _LARGEST), None)


def _formula(text: str) -> dict[str, Number] | None:
    """Counts by element, or None if it is no plain formula: with brackets, charges, or names that are no elements."""
    counts: dict[str, Number] = {}
    for word in text.split():
        parts = list(_PART.finditer(word))
        if "".join(part[0] for part in parts) != word:
            return None
        for symbol, digits in (part.groups() for part in parts):
            number = read(digits or "1")
            if symbol in counts or not Element.is_valid_symbol(symbol) or number is None or number.value <= 0:
                return None
            counts[symbol] = number
    return counts or None


def _is_same(content: Content, formula: dict[str, Number], repeats: int) -> bool:
    return all(number.could_be(Fraction(content[symbol], repeats)) for symbol, number in formula.items())


def _density(content: Content, volume: float) -> float:
    mass = sum(float(Element(symbol).atomic_mass) * count for symbol, count in content.items())
    return mass * _GRAMS / volume
