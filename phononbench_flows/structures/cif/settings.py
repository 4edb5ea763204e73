"""The settings of the space groups, by number and by every way in which their names are written.

The tables are gemmi's (names, origins, axes, Hall symbols) and spglib's (full names).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import gemmi
import spglib

from phononbench_flows.structures.cif.operations import Operations, from_gemmi

_TABULATED = 530  # of International Tables; gemmi lists others after them
_SHIFTED = re.compile(r"\(a\)$|\da\)?$")  # CCP4's marks for origins of its own
# Groups of which a name of before 1992 has a, b or c where two glide planes coincide, and one of today an e.
_DOUBLE_GLIDES = {39, 41, 64, 67, 68}
_CENTRIC_CUBIC = {*range(200, 207), *range(221, 231)}
_TWO_ORIGINS = re.compile(r"\(?\s*origin\s*(?:choice|at)?\s*([12])\s*\)?$", re.IGNORECASE)
# Databases write S and Z for the first and the second origin, and leave out the colon.
_ENDINGS = {"1": "1", "2": "2", "s": "1", "z": "2", "h": "H", "r": "R", "hr": "H"}


@dataclass(frozen=True)
class Setting:
    """A space group with its axes and its origin."""

    number: int
    name: str
    choice: str  # of the origin (1, 2) or of the axes (H, R); empty where the name leaves none
    code: str  # of the axes, as b1 or cab
    hall: str

    @cached_property
    def operations(self) -> Operations:
        """All of them, those of centred cells too."""
        return from_gemmi(gemmi.symops_from_hall(self.hall))

    def has(self, ending: str) -> bool:
        """Whether the ending of a name, or a code of its own, stands for this origin or these axes."""
        ending = ending.lower()
        return _ENDINGS.get(ending, ending) in {self.choice, self.code, self.choice + self.code}

    def __str__(self) -> str:
        return f"{self.name}:{self.choice}" if self.choice else self.name


def by_number(number: int) -> list[Setting]:
    """The settings of the group in International Tables."""
    return [setting for setting in _settings()[:_TABULATED] if setting.number == number]


def by_name(name: str) -> list[Setting]:
    """The settings that a Hermann-Mauguin symbol may stand for: short, full or extended, spaced or not; none if none.

    It may end with its setting: ``:1``, ``:2``, ``:H``, ``:R``, ``:b1``, the same after a blank, ``Z``, ``S``.
    """
    for symbol, ending in _readings(name):
        words = _words(symbol)
        found = _index().get(" ".join(words), [])
        if not found and len(words) <= 2:
            # Blanks left out inside, as in `P 63/mmc`. With more of them, `P 3 2` would be taken for `P 32`.
            found = _index().get("".join(words), [])
        if ending is not None:
            found = [setting for setting in found if setting.has(ending)]
        if found:
            return found
    return []


def _readings(name: str) -> Iterator[tuple[str, str | None]]:
    """The symbol and its ending, in the order in which they are to be tried."""
    if found := _TWO_ORIGINS.search(name):
        yield name[: found.start()].rstrip(" :,"), found[1]
        return
    symbol, colon, ending = name.partition(":")
    if colon:
        yield symbol, ending.strip()
        return
    yield name, None
    if found := re.fullmatch(r"(.*\S)\s+\(?(1|2|S|Z|HR|H|R)\)?", name, re.IGNORECASE):
        yield found[1], found[2]
    if found := re.fullmatch(r"(\S{2,}?)(S|Z|HR|H|R)", name.rstrip(), re.IGNORECASE):
        yield found[1], found[2]


def _words(symbol: str) -> list[str]:
    """``P 2_1/c``, ``P 2(1)/c`` and ``p21/C`` are one."""
    return re.sub(r"[_()]", "", symbol).lower().split()


@cache
def _settings() -> tuple[Setting, ...]:
    return tuple(
        Setting(sg.number, sg.hm, sg.ext.strip("\0 "), sg.qualifier, sg.hall)
        for sg in gemmi.spacegroup_table()
        if not _SHIFTED.search(sg.hm)
    )


@cache
def _index() -> dict[str, list[Setting]]:
    """Settings by spaced and by closed-up name; what may be confused stands together."""
    full = _full_names()
    found: defaultdict[str, dict[Setting, None]] = defaultdict(dict)
    for number, setting in enumerate(_settings()):
        # A setting that is in no table goes by its whole name only, so that `C 2` stays what it is.
        spellings = [*_spellings(setting), *full.get(setting.hall, [])] if number < _TABULATED else [setting.name]
        for words in map(_words, spellings):
            found[" ".join(words)][setting] = None
            found["".join(words)][setting] = None
    return {name: list(settings) for name, settings in found.items()}


def _spellings(setting: Setting) -> Iterable[str]:
    """The name, without the axes that hold nothing, with an e-glide, and in the manner of before 1935."""
    words = setting.name.split()
    yield setting.name
    if setting.number <= 15 and len(words) == 4:
        yield " ".join([words[0], *(word for word in words[1:] if word != "1")])
    if setting.number in _DOUBLE_GLIDES:
        place = 1 + "ABC".index(words[0])
        yield " ".join([*words[:place], "e", *words[place + 1 :]])
    if setting.number in _CENTRIC_CUBIC:
        yield setting.name.replace("-3", "3")


def _full_names() -> dict[str, list[str]]:
    """Full names by Hall symbol."""
    types = (spglib.get_spacegroup_type(number) for number in range(1, _TABULATED + 1))
    return {found.hall_symbol.replace("=", '"'): [found.international_full] for found in types if found}
