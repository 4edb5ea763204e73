"""The one data block of a CIF that holds a crystal, with its tags in one spelling.

gemmi reads the grammar. Here the spellings are made one: tags do not depend on case, and the dictionaries write
some of them with a dot and some without.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import cast

from gemmi import cif

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.raw import RejectedError

COORDINATES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
UNKNOWN = {"", "?", "."}

# One triple-quoted string of CIF 2, which gemmi does not know.
_TRIPLE = re.compile(r"(?<=\s)('''|\"\"\")(.*?)\1(?=\s)", re.DOTALL)
_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5})", re.ASCII)
_IN_A_FRAME = re.compile(r"_(cell|atom_site|symmetry|space_group)_")


@dataclass(frozen=True)
class _Column:
    values: list[str]
    loop: int | None


class Block:
    """Values by tag. Every tag is asked for in lower case and with underscores in place of dots."""

    def __init__(self, block: cif.Block) -> None:
        self._columns: defaultdict[str, list[_Column]] = defaultdict(list)
        for place, item in enumerate(block):
            if item.pair is not None:
                tag, value = cast("list[str]", item.pair)
                self._columns[_plain(tag)].append(_Column([_value(value)], None))
            elif item.loop is not None:
                tags = item.loop.tags
                values = [_value(value) for value in item.loop.values]
                for number, tag in enumerate(tags):
                    self._columns[_plain(tag)].append(_Column(values[number :: len(tags)], place))
            elif item.frame is not None and any(_IN_A_FRAME.match(tag) for tag in Block(item.frame).tags()):
                raise RejectedError(Reason.AMBIGUOUS, f"The save frame {item.frame.name!r} holds a crystal, too.")

    def tags(self) -> list[str]:
        """All tags."""
        return list(self._columns)

    def has(self, tag: str) -> bool:
        """Whether the tag is there, whatever it says."""
        return tag in self._columns

    def column(self, tag: str) -> list[str]:
        """All values of the tag; none if it is not there.

        Raises:
            RejectedError: the tag is there twice, and says different things.
        """
        found = self._columns.get(tag, [])
        if any(other.values != found[0].values for other in found[1:]):
            raise RejectedError(Reason.AMBIGUOUS, f"The data block gives {tag} more than once, and differently.")
        return found[0].values if found else []

    def said(self, *tags: str) -> list[tuple[str, str]]:
        """Tag and value for all of these tags that say something, without repeats."""
        pairs = [(tag, value.strip()) for tag in tags for value in self.column(tag)]
        return list(dict.fromkeys(pair for pair in pairs if pair[1] not in UNKNOWN))

    def loop(self, *tags: str) -> dict[str, list[str]]:
        """The columns of those tags that are there, which have to lie in one loop.

        Raises:
            RejectedError: they lie in several loops, or in several copies of one.
        """
        found = {tag: self._columns[tag] for tag in tags if tag in self._columns}
        twice = next((tag for tag, columns in found.items() if len(columns) > 1), None)
        if twice is not None:
            raise RejectedError(Reason.AMBIGUOUS, f"The data block gives {twice} more than once.")
        if len({columns[0].loop for columns in found.values()}) > 1:
            raise RejectedError(Reason.UNPARSABLE, f"{', '.join(found)} do not lie in one loop.")
        return {tag: columns[0].values for tag, columns in found.items()}


def block_with_atoms(text: str) -> Block:
    """The only data block with fractional coordinates; a second one makes it unclear which crystal is meant.

    Raises:
        RejectedError: there is no such block, or more than one, or the text is no CIF.
    """
    if text.lstrip().startswith("#\\#CIF_2"):
        # What such strings say is of no use here, so it is enough that they end where they do.
        text = _TRIPLE.sub(lambda found: f"'{re.sub(r'[^A-Za-z0-9]+', '_', found[2])}'", text)
    try:
        # gemmi takes ASCII only outside of quotes. Tags that repeat are looked at here, not there.
        document = cif.read_string(text.encode("ascii", "backslashreplace").decode(), check_level=0)
    except (ValueError, RuntimeError) as error:
        raise RejectedError(Reason.UNPARSABLE, f"The file is no CIF: {_where(error)}.") from error
    found = [block for block in map(Block, document) if block.has(COORDINATES[0])]
    if not found:
        raise RejectedError(Reason.UNPARSABLE, "The file has no data block with fractional coordinates.")
    if len(found) > 1:
        raise RejectedError(Reason.AMBIGUOUS, f"The file has {len(found)} data blocks with coordinates, not one.")
    return found[0]


def _where(error: Exception) -> str:
    """Message of gemmi, whose place is ``string:LINE:COLUMN(BYTE): ``."""
    return re.sub(r"^string:(\d+)(:\d+\(\d+\))?:? ?", r"line \1: ", str(error).splitlines()[0])


def _plain(tag: str) -> str:
    return _unescaped(tag).lower().replace(".", "_")


def _value(raw: str) -> str:
    return raw if raw in UNKNOWN else _unescaped(cif.as_string(raw))


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[0].encode().decode("unicode-escape"), text) if "\\" in text else text
