"""From paths to raw crystals: the bytes of one crystal each, with its name, or why there are none.

Nothing is parsed here, nothing is unpacked to disk, and nothing is dropped: what looks like a crystal and
cannot be read is yielded with a :class:`Rejection`, and every other file is counted as ignored. Sizes are in bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from phononbench_flows.harmless import harmless
from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats import format_of, kind_of
from phononbench_flows.structures.formats.archives import Member, members
from phononbench_flows.structures.formats.base import Format, Found, Level
from phononbench_flows.structures.formats.released import MAX_BYTES as MAX_LABELS
from phononbench_flows.structures.formats.released import Labels, is_label_file
from phononbench_flows.structures.labels import MAX_LABEL, label_of, with_unique_labels
from phononbench_flows.structures.raw import (
    BrokenOffError,
    Ignored,
    InputError,
    NoCrystalsError,
    RawCrystal,
    ReadLimits,
    RejectedError,
    Rejection,
    TooLargeError,
)
from phononbench_flows.structures.streams import UNREADABLE, open_regular, read_whole, why
from phononbench_flows.structures.text import as_utf8

__all__ = ["MAX_LABEL", "Ignored", "InputError", "RawCrystal", "ReadLimits", "Rejection", "read_inputs"]

_LIMITS = ReadLimits()
_LISTS = (".txt", ".lst")
_MAX_LIST_BYTES = 100_000_000
# Files that say something of the crystals, and are read by somebody else.
_METADATA = frozenset({"set.yaml"})


def read_inputs(
    paths: Sequence[Path], limits: ReadLimits = _LIMITS, ignored: Ignored | None = None
) -> Iterator[RawCrystal]:
    """All crystals of all inputs, one after the other, in an order that depends on the names only.

    An input is a folder, a file of any of the ``formats``, an archive, or a ``.txt`` or ``.lst`` list of paths. In
    folders and archives, tables and databases are taken only where no file of one crystal is, and in folders archives
    only where there are none of these either: generators write the same crystals twice.

    Parameters:
        ignored: where files that are not taken are counted.

    Raises:
        InputError: an input does not exist or is of a format that can run code (at once), or holds no crystal (when it
            is reached).
    """
    if not paths:
        raise InputError("No input was given.")
    for path in paths:
        try:
            path.stat()
        except (OSError, ValueError) as error:
            raise InputError(f"Input '{harmless(path)}' cannot be found: {why(error)}") from error
        _require_safe(path)
    reader = _Reader(limits, Ignored() if ignored is None else ignored)
    return with_unique_labels(reader.inputs(paths))


def _require_safe(path: Path) -> None:
    found = format_of(path.name)
    if found is not None and found.level == Level.REFUSED and not path.is_dir():
        try:
            list(found.read(_file(path, path.name, ReadLimits())))
        except RejectedError as error:
            raise InputError(f"Input '{harmless(path)}' is not read. {error}") from error


def _file(path: Path, name: str, limits: ReadLimits) -> Found:
    """A file as formats get it. What it is, and whether it may be read, shows when it is opened."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return Found(harmless(name), harmless(path), size, lambda: open_regular(path), limits, path)


@dataclass(frozen=True)
class _Reader:
    """Reads inputs within limits, and counts what it leaves alone.

    Attributes:
        labels: what is said of the crystals of the input by files beside them.
    """

    limits: ReadLimits
    ignored: Ignored
    labels: Labels = field(default_factory=Labels)

    def inputs(self, paths: Sequence[Path]) -> Iterator[RawCrystal]:
        for path in paths:
            empty = True
            reader = replace(self, ignored=Ignored(), labels=Labels())
            for raw in reader.one_input(path, path.name):
                empty = False
                yield raw
            for name in reader.labels.without_crystal():
                reader.ignored.add("label without a crystal", name)
            self.ignored.update(reader.ignored)
            if empty:
                left = f" It has {reader.ignored}: give by name what holds crystals." if reader.ignored else ""
                raise InputError(f"Input '{harmless(path)}' holds no crystal.{left}")

    def one_input(self, path: Path, name: str, *, listed: bool = False) -> Iterator[RawCrystal]:
        """One input; ``name`` is what its label is made of. A list's own entries are no lists again."""
        if path.is_dir():
            yield from self.folder(path)
            return
        file, found = _file(path, name, self.limits), format_of(path.name)
        if found is not None and found.level == Level.ARCHIVE:
            yield from self.archive(file)
        elif found is not None:
            try:
                yield from self.file(file, found)
            except NoCrystalsError as error:
                if not listed:
                    raise InputError(f"Input '{file.source}' holds no crystal. {error}") from error
                yield _rejected(file, Reason.UNPARSABLE, str(error))
        elif path.name.lower().endswith(_LISTS) and not listed:
            yield from self.list_of_paths(path)
        else:
            detail = "It is neither a crystal file, an archive, a table nor a list by its name."
            yield _rejected(file, Reason.UNSUPPORTED_FILE, detail)

    def file(self, file: Found, found: Format) -> Iterator[RawCrystal]:
        """The crystals of a file or member; what breaks it off is one rejection for the rest.

        Raises:
            NoCrystalsError: it is about something else.
        """
        started = False
        try:
            for raw in found.read(file):
                started = True
                labels = self.labels.of(file.name)
                yield replace(raw, labels=labels) if labels else raw
        except BrokenOffError:
            raise
        except RejectedError as error:
            yield _rejected(file, error.rejection.reason, error.rejection.detail)
        except TooLargeError as error:
            yield _rejected(file, Reason.FILE_TOO_LARGE, f"The rest is not read: {error}" if started else str(error))
        except UNREADABLE as error:
            what = "The rest" if started else "It"
            yield _rejected(file, Reason.UNREADABLE_FILE, f"{what} cannot be read: {why(error)}.")

    # -- folders and archives: places that hold files ----------------------------------------------------------

    def folder(self, root: Path) -> Iterator[RawCrystal]:
        unreadable: dict[str, OSError] = {}

        def note(error: OSError) -> None:
            unreadable[os.fsdecode(error.filename or root)] = error

        yield from self.place(lambda: _files_in(root, self.limits, note), Level.ARCHIVE)
        for folder, error in unreadable.items():
            path = Path(folder)
            name = str(path.relative_to(root)) if path != root else root.name
            detail = f"The folder cannot be read: {why(error)}."
            yield _rejected(_file(path, name, self.limits), Reason.UNREADABLE_FILE, detail)

    def archive(self, file: Found) -> Iterator[RawCrystal]:
        try:
            yield from self.place(lambda: members(file), Level.COLLECTION)
        except RejectedError as error:
            yield _rejected(file, error.rejection.reason, error.rejection.detail)
        except TooLargeError as error:
            yield _rejected(file, Reason.FILE_TOO_LARGE, f"The rest is not read: {error}")
        except UNREADABLE as error:
            yield _rejected(file, Reason.UNREADABLE_FILE, f"The rest cannot be read: {why(error)}.")

    def place(self, files: Callable[[], Iterator[Member]], highest: Level) -> Iterator[RawCrystal]:
        """The crystals of the lowest level of formats that holds any."""
        self.read_labels(files)
        for level in range(Level.CRYSTALS, highest + 1):
            empty, later = True, Ignored()
            for member in files():
                found = format_of(member.found.name)
                nested = found is not None and found.level == Level.ARCHIVE > highest
                if found is not None and (found.level == level or (nested and level == Level.CRYSTALS)):
                    for raw in self.member(member, found):
                        empty = False
                        yield raw
                elif found is not None and level < found.level <= highest:
                    later.add(found.kind, member.found.name)
                elif level == Level.CRYSTALS and not nested and not _is_metadata(member.found.name):
                    self.ignored.add(_kind(member.found), member.found.name)
            if not empty:
                self.ignored.update(later)
                return
            if not later:
                return

    def member(self, member: Member, found: Format) -> Iterator[RawCrystal]:
        if member.refusal is not None:
            yield _rejected(member.found, member.refusal.reason, member.refusal.detail)
        elif found.level == Level.ARCHIVE and member.found.path is not None:
            yield from self.archive(member.found)
        else:
            try:
                yield from self.file(member.found, found)
            except NoCrystalsError:
                self.ignored.add(f"{found.kind} without crystals", member.found.name)

    def read_labels(self, files: Callable[[], Iterator[Member]]) -> None:
        """Take the labels that lie beside crystals. What goes wrong here goes wrong again when crystals are read."""
        try:
            for member in files():
                if is_label_file(member.found.name) and member.refusal is None:
                    self.labels.add(member.found.name, member.found.whole(MAX_LABELS))
        except (RejectedError, TooLargeError, *UNREADABLE):
            return

    # -- lists -------------------------------------------------------------------------------------------------

    def list_of_paths(self, path: Path) -> Iterator[RawCrystal]:
        try:
            with open_regular(path) as stream:
                content = read_whole(stream, _MAX_LIST_BYTES)
        except OSError as error:
            raise InputError(f"List '{harmless(path)}' cannot be read: {why(error)}.") from error
        except TooLargeError as error:
            raise InputError(f"List '{harmless(path)}' has more than {_MAX_LIST_BYTES} bytes.") from error
        for line in as_utf8(content).splitlines():
            entry = os.fsdecode(line).strip()
            if not entry or entry.startswith("#"):
                continue
            target = path.parent / entry
            try:
                target.stat()
            except (OSError, ValueError) as error:
                detail = f"It is listed, but cannot be found: {why(error)}."
                yield _bad(harmless(entry), harmless(target), Rejection(Reason.UNREADABLE_FILE, detail))
                continue
            yield from self.one_input(target, entry, listed=True)


def _files_in(root: Path, limits: ReadLimits, on_error: Callable[[OSError], None]) -> Iterator[Member]:
    """All files of a folder and its subfolders, in the order of their names."""
    real_root = root.resolve()
    for folder, subfolders, names in os.walk(root, onerror=on_error):
        subfolders.sort()
        # A link to a folder is not followed; one that is named like a crystal is a crystal that cannot be read.
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            yield Member(_file(path, str(path.relative_to(root)), limits), _refusal(path, real_root))


def _refusal(path: Path, real_root: Path) -> Rejection | None:
    """Why an entry of a folder is not to be opened, if it is not."""
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(real_root):
            return Rejection(Reason.UNREADABLE_FILE, "It is a link that leads out of its folder.")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        return Rejection(Reason.UNREADABLE_FILE, f"It cannot be read: {why(error)}.")
    return None


def _kind(file: Found) -> str:
    return "link to a folder" if file.path is not None and file.path.is_dir() else kind_of(file.name)


def _is_metadata(name: str) -> bool:
    return name in _METADATA or is_label_file(name)


def _rejected(file: Found, reason: Reason, detail: str) -> RawCrystal:
    return _bad(file.name, file.source, Rejection(reason, detail))


def _bad(name: str, source: str, rejection: Rejection) -> RawCrystal:
    return RawCrystal(source, label_of(name), "", b"", rejection)
