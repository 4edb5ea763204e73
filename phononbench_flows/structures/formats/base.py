"""What a format is: which names tell it, how its files become raw crystals, and how one of them is parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.labels import label_of
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, ReadLimits, RejectedError, Rejection
from phononbench_flows.structures.streams import Stream, read_whole, split_compression, unpacked

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


class Level(IntEnum):
    """In a folder or archive, files of a level are taken only where no file of a lower one holds a crystal.

    Generators write the same crystals twice: as files, and together in a table, a database or an archive beside them.
    """

    CRYSTALS = 1
    COLLECTION = 2
    ARCHIVE = 3
    REFUSED = 4


@dataclass(frozen=True)
class Found:
    """A file or a member of an archive.

    Attributes:
        name: in its folder or archive, harmless.
        source: where it is, harmless.
        size: in bytes, as it lies there.
        opened: opens it as it lies there.
        limits: on what is read.
        path: where it is as a file of its own; None in an archive.
    """

    name: str
    source: str
    size: int
    opened: Callable[[], AbstractContextManager[Stream]]
    limits: ReadLimits
    path: Path | None = None

    @property
    def plain_name(self) -> str:
        """The name without what a packer put to its end."""
        return split_compression(self.name)[0]

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed."""
        return split_compression(self.name)[1] is not None

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """What is in it, unpacked."""
        with self.opened() as stream:
            yield unpacked(stream, split_compression(self.name)[1], self.size, self.limits)

    def head(self, size: int) -> bytes:
        """Its first bytes, unpacked."""
        with self.open() as stream:
            return stream.read(size)

    def whole(self, limit: int) -> bytes:
        """All of it, unpacked.

        Raises:
            TooLargeError: it has more bytes than ``limit``.
        """
        with self.open() as stream:
            return read_whole(stream, limit)

    def crystal(self, raw_format: str, data: bytes) -> RawCrystal:
        """The only crystal in it."""
        label, limit = label_of(self.name), self.limits.max_bytes
        if len(data) > limit:
            rejection = Rejection(Reason.FILE_TOO_LARGE, f"The structure has {len(data)} bytes, the limit is {limit}.")
            return RawCrystal(self.source, label, raw_format, b"", rejection)
        return RawCrystal(self.source, label, raw_format, data)

    def part(self, key: int | str, raw_format: str, data: bytes, name: str = "") -> RawCrystal:
        """One of several crystals in it: its number or key, and its own name if it has one."""
        source = f"{self.source}#{key}"
        if len(data) > self.limits.max_bytes:
            detail = f"The structure has {len(data)} bytes, the limit is {self.limits.max_bytes}."
            return self.bad_part(key, Rejection(Reason.FILE_TOO_LARGE, detail), raw_format, name)
        return RawCrystal(source, label_of(name or f"{self.name}.{key}"), raw_format, data)

    def bad_part(self, key: int | str, rejection: Rejection, raw_format: str = "", name: str = "") -> RawCrystal:
        """One of several crystals in it that cannot be had."""
        label = label_of(name or f"{self.name}.{key}")
        return RawCrystal(f"{self.source}#{key}", label, raw_format, b"", rejection)


@dataclass(frozen=True)
class Format:
    """A format, or a family of them that look alike.

    Attributes:
        kind: what people call such a file.
        suffixes: endings of names that tell it, in lower case; those of packers may follow.
        read: crystals in a file. It may raise what ``readers`` turns into a rejection.
        level: when it is taken in folders and archives.
        pattern: what else tells it, of a whole name in lower case without its folder.
        parsers: from the formats of its raw crystals to what parses their text.
    """

    kind: str
    suffixes: tuple[str, ...]
    read: Callable[[Found], Iterator[RawCrystal]]
    level: Level = Level.CRYSTALS
    pattern: re.Pattern[str] | None = None
    parsers: Mapping[str, Callable[[str], Structure]] = field(default_factory=dict)


def whole_file(raw_format: str) -> Callable[[Found], Iterator[RawCrystal]]:
    """A reader of files that are one crystal each."""

    def read(found: Found) -> Iterator[RawCrystal]:
        if found.size > found.limits.max_bytes:
            detail = f"It has {found.size} bytes, the limit is {found.limits.max_bytes}."
            raise RejectedError(Reason.FILE_TOO_LARGE, detail)
        yield found.crystal(raw_format, found.whole(found.limits.max_bytes))

    return read


def refusing(detail: str) -> Callable[[Found], Iterator[RawCrystal]]:
    """A reader of files that are not read."""

    def read(_: Found) -> Iterator[RawCrystal]:
        raise RejectedError(Reason.UNSUPPORTED_FILE, detail)
        yield

    return read


def holding_crystals(raws: Iterator[RawCrystal], sentence: str) -> Iterator[RawCrystal]:
    """The crystals, if there is any among them that looks like one.

    Raises:
        NoCrystalsError: with this sentence, there is none. The file is about something else.
    """
    held: list[RawCrystal] = []
    for raw in raws:
        held.append(raw)
        if raw.rejection is None or raw.format:
            yield from held
            yield from raws
            return
        if len(held) > _MOST_HELD:
            break
    raise NoCrystalsError(sentence)


_MOST_HELD = 1000
