"""XDATCAR of VASP: each configuration of a trajectory is a POSCAR, whose head stands before it or was given before.

It is repeated where the cell varies. pymatgen and ASE read all of a file or nothing, and take what follows a broken
configuration for coordinates; here that one alone is rejected.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Format, Found, Level
from phononbench_flows.structures.formats.numbers import is_number
from phononbench_flows.structures.formats.poscar import vasp_name
from phononbench_flows.structures.raw import RawCrystal, RejectedError, Rejection
from phononbench_flows.structures.text import Utf8Lines

_MARK = re.compile(rb"\s*Direct configuration\s*=", re.IGNORECASE)
_HEAD = 7  # lines: title, scale factor, three vectors, elements, counts


def read_xdatcar(found: Found) -> Iterator[RawCrystal]:
    """Each configuration by itself, numbered in the order of the file.

    Raises:
        RejectedError: there is none.
    """
    number = 0
    with found.open() as stream:
        sections = _sections(Utf8Lines(stream, found.limits.max_bytes + 1), found.limits.max_bytes)
        head: list[bytes] | None = next(sections).lines
        for number, section in enumerate(sections, 1):
            following = section.take_head()
            plain = not section.is_too_large and all(map(_is_vector, filter(bytes.strip, section.lines)))
            yield _configuration(found, number, head, section, plain=plain)
            head = following if following or not plain else head
    if number == 0:
        raise RejectedError(Reason.UNPARSABLE, "It has no line `Direct configuration=`: it is no XDATCAR of VASP 5.")


def _configuration(
    found: Found, number: int, head: list[bytes] | None, section: _Section, *, plain: bool
) -> RawCrystal:
    if section.is_too_large:
        detail = f"The configuration has more than {found.limits.max_bytes} bytes."
        return found.bad_part(number, Rejection(Reason.FILE_TOO_LARGE, detail), "poscar")
    if head is None or not plain:
        what = "The configuration" if not plain else "What stands before the configuration, and tells its cell,"
        detail = f"{what} has lines that are no coordinates."
        return found.bad_part(number, Rejection(Reason.UNPARSABLE, detail), "poscar")
    return found.part(number, "poscar", b"".join([*head, b"Direct\n", *section.lines]))


class _Section:
    """The lines before the first mark, or after one: coordinates, and perhaps the head of the next configuration.

    Of more bytes than the limit only the last lines are kept.
    """

    def __init__(self, limit: int) -> None:
        self.lines: list[bytes] = []
        self._limit, self._size = limit, 0
        self._last: deque[bytes] = deque(maxlen=_HEAD)

    @property
    def is_too_large(self) -> bool:
        return self._size > self._limit

    def add(self, line: bytes) -> None:
        self._size += len(line)
        self._last.append(line)
        if self.is_too_large:
            self.lines.clear()
        else:
            self.lines.append(line)

    def take_head(self) -> list[bytes] | None:
        """Take the head of the next configuration from the end, if it is there."""
        last = list(self._last)
        if not _is_head(last):
            return None
        del self.lines[-_HEAD:]
        return last


def _sections(text: Utf8Lines, limit: int) -> Iterator[_Section]:
    section = _Section(limit)
    while line := text.readline():
        if _MARK.match(line):
            yield section
            section = _Section(limit)
        else:
            section.add(line)
    yield section


def _is_head(lines: list[bytes]) -> bool:
    if len(lines) < _HEAD:
        return False
    _, scale, *_, elements, counts = (line.decode("ascii", "replace").split() for line in lines)
    return (
        bool(scale and elements and counts)
        and all(map(is_number, scale))
        and all(map(_is_vector, lines[2:5]))
        and not is_number(elements[0])
        and all(count.isdigit() for count in counts)
    )


def _is_vector(line: bytes) -> bool:
    words = line.decode("ascii", "replace").split()
    return len(words) == 3 and all(map(is_number, words))


FORMATS = (Format("XDATCAR", (".xdatcar",), read_xdatcar, Level.COLLECTION, pattern=vasp_name("xdatcar")),)
