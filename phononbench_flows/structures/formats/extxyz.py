"""Extended XYZ: any number of frames, each a crystal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Format, Found
from phononbench_flows.structures.formats.dictionaries import OCCUPANCIES, structure_of_atoms
from phononbench_flows.structures.formats.numbers import element, number, require_full
from phononbench_flows.structures.raw import RawCrystal, ReadLimits, RejectedError, Rejection
from phononbench_flows.structures.text import BLANK_LINES, Utf8Lines

# -- frames of a file ------------------------------------------------------------------------------------------


def read_extxyz(found: Found) -> Iterator[RawCrystal]:
    """Each frame by itself, cut at the lines that hold nothing but the number of atoms.

    A frame with more or fewer lines than it says is rejected, and reading goes on at the next such line: it
    would otherwise turn into another crystal, or take the next frame with it. A frame has its number in its name, also
    where it is the only one so far.
    """
    with found.open() as stream:
        lines = _lines(Utf8Lines(stream, found.limits.max_bytes + 1))
        line = next((line for line in lines if line.strip()), None)
        number = 0
        while line is not None:
            number += 1
            frame, problem, line = _next_frame(line, lines, found.limits)
            yield found.bad_part(number, problem, "extxyz") if problem else found.part(number, "extxyz", frame)
    if number == 0:
        raise RejectedError(Reason.UNPARSABLE, "The file is empty.")


def _lines(text: Utf8Lines) -> Iterator[bytes]:
    """Lines; of several empty ones the first."""
    while line := text.readline():
        yield line
        if not line.strip():
            text.skip(BLANK_LINES)


def _next_frame(
    first: bytes, lines: Iterator[bytes], limits: ReadLimits
) -> tuple[bytes, Rejection | None, bytes | None]:
    """The frame that starts with ``first``, what is wrong with it, and the line after it that is not blank."""
    if not _is_count(first):
        detail = "The frame does not start with its number of atoms."
        return b"", Rejection(Reason.UNPARSABLE, detail), _skip_to_count(lines)
    count = int(first.strip()[:18])
    frame, size = [first], len(first)
    problem: Rejection | None = None
    for index in range(count + 1):
        line = next(lines, None)
        if line is None or (index > 0 and _is_count(line)):
            detail = f"The frame says {count} atoms, but has {max(index - 1, 0)} lines of atoms."
            return b"", problem or Rejection(Reason.UNPARSABLE, detail), line
        size += len(line)
        if size <= limits.max_bytes:
            frame.append(line)
        elif problem is None:
            frame.clear()
            problem = Rejection(Reason.FILE_TOO_LARGE, f"The frame has more than {limits.max_bytes} bytes.")
    following = next((line for line in lines if line.strip()), None)
    if following is not None and not _is_count(following):
        if problem is None:
            problem = Rejection(Reason.UNPARSABLE, f"The frame says {count} atoms, but more lines follow.")
        following = _skip_to_count(lines)
    return b"".join(frame), problem, following


def _is_count(line: bytes) -> bool:
    return line.strip().isdigit()


def _skip_to_count(lines: Iterator[bytes]) -> bytes | None:
    return next((line for line in lines if _is_count(line)), None)


# -- one frame -------------------------------------------------------------------------------------------------


def parse_extxyz(text: str) -> Structure:
    """The crystal in a frame.

    Raises:
        RejectedError: it does not determine one.
    """
    from ase.io import read

    _require_exact(text.split("\n"))
    frames = read(io.StringIO(text), index=":", format="extxyz")
    if len(frames) != 1:
        raise RejectedError(Reason.AMBIGUOUS, f"The file has {len(frames)} frames, not one.")
    [atoms] = frames
    for name in OCCUPANCIES & set(atoms.arrays):
        for symbol, occupancy in zip(atoms.get_chemical_symbols(), np.ravel(atoms.arrays[name]), strict=False):
            require_full(float(occupancy), symbol)
    return structure_of_atoms(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, atoms.info)


def _require_exact(lines: list[str]) -> None:
    """Reject what ASE lets pass or reads as something else.

    Columns beyond those that are named, a key that is given twice, ``1_0`` as ten, ``CO`` as cobalt, and an element
    that is another one by its number.
    """
    count, comment = [*lines, "", ""][:2]
    for key in ("lattice", "properties", "pbc"):
        given = re.findall(rf"(?:^|[\s,])[\"']?({key})[\"']?\s*=", comment, re.IGNORECASE)
        if len(given) > 1:
            raise RejectedError(Reason.AMBIGUOUS, f"The frame gives {given[0]} more than once.")
    cell = re.search(r"lattice[\"']?\s*=\s*[\"'{\[]([^\"'}\]]*)", comment, re.IGNORECASE)
    for word in cell.group(1).replace(",", " ").split() if cell else ():
        number(word)
    columns = _columns(comment)
    width = sum(count for _, count in columns)
    for line in lines[2 : 2 + int(count[:9])]:
        words = line.split()
        if len(words) not in {0, width}:
            raise RejectedError(Reason.UNPARSABLE, f"A line of an atom has {len(words)} columns, {width} are named.")
        if words:
            _require_exact_atom(words, columns)


def _columns(comment: str) -> list[tuple[str, int]]:
    """Names of the columns, in lower case, and how many words each takes."""
    named = re.search(r"(?:^|\s)[\"']?properties[\"']?\s*=\s*[\"']?([^\s\"']+)", comment, re.IGNORECASE)
    parts = (named.group(1) if named else "species:S:1:pos:R:3").split(":")
    if len(parts) % 3 or not all(re.fullmatch(r"\d{1,6}", count, re.ASCII) for count in parts[2::3]):
        raise RejectedError(Reason.UNPARSABLE, f"The columns are not understood: {':'.join(parts)}.")
    return [(name.lower(), int(count)) for name, count in zip(parts[::3], parts[2::3], strict=True)]


def _require_exact_atom(words: list[str], columns: list[tuple[str, int]]) -> None:
    rest, symbol, other = iter(words), "", ""
    for name, count in columns:
        values = [next(rest) for _ in range(count)]
        if name == "pos":
            for value in values:
                number(value)
        elif name == "species" and values:
            symbol = str(element(values[0]).symbol)
        elif name in _NUMBERS and values:
            other = str(Element.from_Z(int(values[0])).symbol)
    if symbol and other and symbol != other:
        raise RejectedError(Reason.CONTRADICTORY, f"An atom is {symbol} by its name, and {other} by its number.")


_NUMBERS = frozenset({"z", "numbers", "atomic_numbers"})


FORMATS = (Format("extxyz", (".extxyz", ".xyz"), read_extxyz, parsers={"extxyz": parse_extxyz}),)
