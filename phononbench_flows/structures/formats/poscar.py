"""POSCAR and CONTCAR of VASP, as its manual describes them.

pymatgen and ASE guess what is missing (elements from the comment), and pymatgen misplaces atoms under a negative scale
factor; here a file says everything itself, or is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Format, whole_file
from phononbench_flows.structures.formats.numbers import MAX_ATOMS, element, is_number, number
from phononbench_flows.structures.raw import RejectedError

_FLAG = re.compile(r"\.?[TtFf][A-Za-z]*\.?")
_COMMENT = ("!", "#", "//")


def parse_poscar(text: str) -> Structure:
    """The crystal in a POSCAR.

    Raises:
        RejectedError: it does not determine one.
    """
    lines = iter(text.split("\n"))
    next(lines, None)  # a comment
    scale = _numbers(_next(lines, "scale factor"))
    matrix = np.array([_vector(_next(lines, "lattice vectors")) for _ in range(3)])
    names, counts = _species(lines)
    scaled = _scaled(matrix, scale)
    cartesian, selective = _mode(lines)
    rows = [
        _row(_next(lines, "atoms"), name, selective)
        for name, count in zip(names, counts, strict=True)
        for _ in range(count)
    ]
    _require_end(lines, len(rows))
    species = [element(name) for name, count in zip(names, counts, strict=True) for _ in range(count)]
    coordinates = np.array(rows)
    if cartesian:
        coordinates = _scale_each(coordinates, matrix, scale)
    return Structure(Lattice(scaled), species, coordinates, coords_are_cartesian=cartesian)


def _next(lines: Iterator[str], what: str) -> str:
    line = next(lines, None)
    if line is None or not line.strip():
        raise RejectedError(Reason.UNPARSABLE, f"The file ends, or has an empty line, where its {what} should be.")
    return line


def _numbers(line: str) -> list[float]:
    """The numbers that a line begins with."""
    found: list[float] = []
    for word in line.split():
        if not is_number(word):
            break
        found.append(number(word))
    return found


def _vector(line: str) -> list[float]:
    words = line.split()
    if len(words) < 3 or (len(words) > 3 and not words[3].startswith(_COMMENT)):
        raise RejectedError(Reason.UNPARSABLE, f"{line.strip()!r} should be three numbers.")
    return [number(word) for word in words[:3]]


def _species(lines: Iterator[str]) -> tuple[list[str], list[int]]:
    """Names of the elements, and how many atoms each has."""
    named = _next(lines, "elements")
    names = _without_comment(named)
    if all(name.isdigit() for name in names):
        raise RejectedError(Reason.UNPARSABLE, "The file does not name its elements.")
    words = _without_comment(_next(lines, "counts of atoms"))
    if not all(re.fullmatch(r"\d+", word, re.ASCII) for word in words):
        raise RejectedError(Reason.UNPARSABLE, f"The counts of atoms are {' '.join(words)!r}, not whole numbers.")
    if len(names) != len(words):
        detail = f"The file names {len(names)} elements and counts the atoms of {len(words)}."
        raise RejectedError(Reason.CONTRADICTORY, detail)
    # Counts are believed before there are lines to bear them out, so they are looked at first.
    if any(len(word) > 9 for word in words) or sum(map(int, words)) > MAX_ATOMS:
        raise RejectedError(Reason.TOO_MANY_ATOMS, f"The file counts more than {MAX_ATOMS} atoms.")
    return [_symbol(name) for name in names], [int(word) for word in words]


def _without_comment(line: str) -> list[str]:
    words = line.split()
    return words[: next((n for n, word in enumerate(words) if word.startswith(_COMMENT)), len(words))]


def _symbol(name: str) -> str:
    """The element in a potential's name, such as ``Sr_sv`` or ``Sr/4f2a``."""
    symbol = re.split(r"[_/.]", name)[0]
    if not Element.is_valid_symbol(symbol):
        raise RejectedError(Reason.UNSUPPORTED_ELEMENT, f"The name {name!r} is no element.")
    return symbol


def _scaled(matrix: np.ndarray, scale: list[float]) -> np.ndarray:
    if not all(np.isfinite(matrix).ravel()):
        raise RejectedError(Reason.BAD_NUMBERS, "The cell holds a number that is not finite.")
    if abs(np.linalg.det(matrix)) == 0 or 0 in scale:
        raise RejectedError(Reason.BAD_CELL, "The lattice vectors span no volume.")
    if len(scale) not in {1, 3} or (len(scale) == 3 and min(scale) < 0):
        raise RejectedError(Reason.UNPARSABLE, "There should be one scale factor, or three positive ones.")
    return _scale_each(matrix, matrix, scale)


def _scale_each(vectors: np.ndarray, matrix: np.ndarray, scale: list[float]) -> np.ndarray:
    """Vectors times the factors: one for all axes, one for each, or (negative) one volume in Å^3."""
    if scale[0] < 0:
        return vectors * (-scale[0] / abs(np.linalg.det(matrix))) ** (1 / 3)
    return vectors * np.array(scale)


def _mode(lines: Iterator[str]) -> tuple[bool, bool]:
    """Whether coordinates are Cartesian, and whether flags for the motion of atoms follow them."""
    line = _next(lines, "kind of coordinates").strip().lower()
    selective = line.startswith("s")
    if selective:
        line = _next(lines, "kind of coordinates").strip().lower()
    # VASP takes all others for direct, and would take an atom's line for this one if it is missing.
    if line[0] not in "ckdf":
        raise RejectedError(Reason.UNPARSABLE, f"The coordinates are {line!r}, neither direct nor Cartesian.")
    return line[0] in "ck", selective


def _row(line: str, name: str, selective: bool) -> list[float]:
    words = line.split()
    if len(words) < 3 or (len(words) > 3 and is_number(words[3])):
        raise RejectedError(Reason.UNPARSABLE, f"{line.strip()!r} should be the three coordinates of an atom.")
    rest = words[3:]
    flags = len(rest) >= 3 and all(_FLAG.fullmatch(word) for word in rest[:3])
    if flags and (selective or all(len(word) == 1 for word in rest[:3])):
        rest = rest[3:]
    said = re.match(r"[A-Za-z]+", rest[0]) if rest else None
    if said and Element.is_valid_symbol(said.group()) and said.group() != name:
        detail = f"An atom is {name} by the counts, and {rest[0]!r} by its own line."
        raise RejectedError(Reason.CONTRADICTORY, detail)
    return [number(word) for word in words[:3]]


def _require_end(lines: Iterator[str], natoms: int) -> None:
    """After the atoms come velocities, after an empty line or a line that says so."""
    if natoms == 0:
        raise RejectedError(Reason.UNPARSABLE, "The file counts no atom.")
    line = next(lines, "")
    if len(_numbers(line)) >= 3:
        raise RejectedError(Reason.UNPARSABLE, f"The file counts {natoms} atoms, but has more coordinates.")


def vasp_name(*names: str) -> re.Pattern[str]:
    """Tells files that are named as VASP names them, in lower case.

    Such as POSCAR, SPOSCAR, POSCAR_12, 123-POSCAR, mp-1_POSCAR and 0.poscar.txt, but no picture or script of that name.
    """
    return re.compile(
        rf"(?:^|[^a-z])[a-z]?(?:{'|'.join(names)})(?![a-z])"
        r"(?!.*\.(?:png|jpe?g|svg|pdf|gif|py|ipynb|sh|log|md|html?|toml|ini|np[yz]|h5|hdf5|out|err|dat)$)"
    )


FORMATS = (
    Format(
        "POSCAR",
        (".vasp", ".poscar", ".contcar"),
        whole_file("poscar"),
        pattern=vasp_name("poscar", "contcar"),
        parsers={"poscar": parse_poscar},
    ),
)
