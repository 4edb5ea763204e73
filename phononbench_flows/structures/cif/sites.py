"""The atoms that a CIF lists: element, place and what is said of their number, each as it is written."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from pymatgen.core.periodic_table import Element

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.checks import MAX_FRACTIONAL
from phononbench_flows.structures.cif.blocks import COORDINATES, UNKNOWN, Block
from phononbench_flows.structures.cif.digits import Number, is_not_finite, read
from phononbench_flows.structures.raw import RejectedError

MAX_ATOM_LINES = 5_000

_LABEL, _TYPE, _OCCUPANCY = "_atom_site_label", "_atom_site_type_symbol", "_atom_site_occupancy"
_CALCULATED = "_atom_site_calc_flag"
_DISORDER = ("_atom_site_disorder_group", "_atom_site_disorder_assembly")
_HYDROGENS = "_atom_site_attached_hydrogens"
_MULTIPLICITY = ("_atom_site_site_symmetry_multiplicity", "_atom_site_symmetry_multiplicity")
_WYCKOFF = ("_atom_site_wyckoff_symbol", "_atom_site_wyckoff_label")
_ORDER = "_atom_site_site_symmetry_order"
_COLUMNS = (
    *COORDINATES,
    _LABEL,
    _TYPE,
    _OCCUPANCY,
    _CALCULATED,
    *_DISORDER,
    _HYDROGENS,
    *_MULTIPLICITY,
    *_WYCKOFF,
    _ORDER,
)

_SYMBOLS = {element.name for element in Element} | {"D", "T"}
# Element, then a charge or a number: Fe, Fe3+, Fe+3, O2-, Fe2.5+, Na1.
_TYPE_SYMBOL = re.compile(r"([A-Za-z]{1,2})(?:\d*(?:\.\d+)?[+-]?|[+-]\d+(?:\.\d+)?)", re.ASCII)
_LABEL_PARTS = re.compile(r"(\d*)([A-Za-z]+)", re.ASCII)
_LETTERS = "abcdefghijklmnopqrstuvwxyzA"
_ROUNDING = Fraction(1, 10**6)  # of an occupancy that is one


@dataclass(frozen=True, slots=True)
class Site:
    """An atom as listed; ``certain`` is whether its element is, without looking at the formula."""

    label: str
    symbol: str
    certain: bool
    place: tuple[Number, ...]
    multiplicity: int | None
    order: int | None

    @property
    def coordinates(self) -> tuple[Fraction, ...]:
        """As written, exactly."""
        return tuple(number.value for number in self.place)


def read_sites(block: Block, formula: Collection[str], notes: list[str]) -> list[Site]:
    """All atoms. ``formula`` are the elements of the file's formula, which decide where a label does not.

    Raises:
        RejectedError: one of them is not understood exactly, not wholly there, or not told where it is.
    """
    columns = block.loop(*_COLUMNS)
    count = len(columns[COORDINATES[0]])
    if count > MAX_ATOM_LINES:
        detail = f"The file has {count} lines of atoms, the limit is {MAX_ATOM_LINES}."
        raise RejectedError(Reason.TOO_MANY_ATOMS, detail)
    missing = [tag for tag in COORDINATES if tag not in columns]
    if missing:
        raise RejectedError(Reason.UNPARSABLE, f"The atoms have no {missing[0]}.")
    rows = [{tag: values[row].strip() for tag, values in columns.items()} for row in range(count)]
    sites = []
    for number, row in enumerate(rows, start=1):
        name = _name(row, number)
        if row.get(_CALCULATED, "").lower() == "dum":
            notes.append(f"Site {name} is marked as a dummy and is no atom.")
        else:
            sites.append(_site(row, name, formula, notes))
    if not sites:
        raise RejectedError(Reason.UNPARSABLE, "The file lists no atom.")
    return sites


def _name(row: dict[str, str], number: int) -> str:
    label = row.get(_LABEL, "")
    return f"{number} ({label!r})" if label in UNKNOWN else label


def _site(row: dict[str, str], name: str, formula: Collection[str], notes: list[str]) -> Site:
    for tag in _DISORDER:
        if row.get(tag, "") not in UNKNOWN | {"0"}:
            raise RejectedError(Reason.DISORDERED, f"Site {name} is one of several alternatives ({tag} {row[tag]}).")
    if row.get(_HYDROGENS, "") not in UNKNOWN | {"0"}:
        detail = f"Site {name} counts hydrogen atoms without saying where they are."
        raise RejectedError(Reason.UNPARSABLE, detail)
    _check_occupancy(row.get(_OCCUPANCY, "."), name, notes)
    symbol, certain = _element(row, name, formula)
    place = tuple(_coordinate(row[tag], name) for tag in COORDINATES)
    multiplicity = next((count for tag in _MULTIPLICITY if (count := _count(row.get(tag, "")))), None)
    if multiplicity is None:
        # `4a`: the letter says nothing without the setting, the number does.
        multiplicity = next((count for tag in _WYCKOFF if (count := _count(row.get(tag, "").rstrip(_LETTERS)))), None)
    return Site(name, symbol, certain, place, multiplicity, _count(row.get(_ORDER, "")))


def _check_occupancy(text: str, name: str, notes: list[str]) -> None:
    """It has to be one. Not applicable (a dot) means the dictionary's default, which is one; unknown does not."""
    if text == ".":
        return
    number = read(text)
    if number is None:
        reason = Reason.AMBIGUOUS if text in UNKNOWN else Reason.UNPARSABLE
        raise RejectedError(reason, f"Site {name} has the occupancy {text!r}, which is no number.")
    if number.value == 1:
        return
    if abs(number.value - 1) <= _ROUNDING:
        notes.append(f"Site {name} has the occupancy {text}, which was taken for 1.")
    elif not 0 <= number.value <= 1:
        detail = f"Site {name} has the occupancy {text}, it must be between 0 and 1."
        raise RejectedError(Reason.BAD_NUMBERS, detail)
    else:
        detail = f"Site {name} has the occupancy {text}, it is not fully occupied by one element."
        raise RejectedError(Reason.DISORDERED, detail)


def _coordinate(text: str, name: str) -> Number:
    number = read(text)
    if number is None and not is_not_finite(text):
        raise RejectedError(Reason.UNPARSABLE, f"Site {name} has the coordinate {text!r}, which is no number.")
    if number is None or abs(number.value) > MAX_FRACTIONAL:
        detail = f"Site {name} has the coordinate {text!r}, the limit is {MAX_FRACTIONAL:.0e}."
        raise RejectedError(Reason.BAD_NUMBERS, detail)
    return number


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _element(row: dict[str, str], name: str, formula: Collection[str]) -> tuple[str, bool]:
    """Symbol of the site's element, and whether it is certain by itself; the type comes before the label."""
    given = row.get(_TYPE, "")
    if given not in UNKNOWN:
        possible, certain = _of_type(given)
        said = f"the type {given!r}"
    else:
        possible, certain = _of_label(row.get(_LABEL, ""))
        said = "no type"
    if not certain:
        possible = [symbol for symbol in possible if symbol in formula]
    if len(possible) != 1:
        detail = f"Site {name} has {said}, and nothing tells exactly which element it is."
        raise RejectedError(Reason.UNSUPPORTED_ELEMENT, detail)
    return possible[0], certain


def _of_type(text: str) -> tuple[list[str], bool]:
    found = _TYPE_SYMBOL.fullmatch(text)
    if found is None or found[1].capitalize() not in _SYMBOLS:
        return [], True
    letters = found[1]
    # CO may be cobalt, or carbon and oxygen in a hurry.
    certain = letters in _SYMBOLS or not all(letter.upper() in _SYMBOLS for letter in letters) or len(letters) == 1
    return [letters.capitalize()], certain


def _of_label(text: str) -> tuple[list[str], bool]:
    """A label starts with its element, but often goes on with letters of its own: CaM1, OA, HO2."""
    found = _LABEL_PARTS.match(text)
    if found is None:
        return [], True
    digits, letters = found.groups()
    if letters in _SYMBOLS and not digits:
        return [letters], True
    starts = dict.fromkeys([letters[:2].capitalize(), letters[0].upper()])
    return [symbol for symbol in starts if symbol in _SYMBOLS], False
