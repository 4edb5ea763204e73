"""From paths to raw crystals: the bytes of one crystal each, with its name, or why there are none.

Nothing is parsed here, nothing is unpacked to disk, and nothing is dropped: what looks like a crystal and
cannot be read is yielded with a :class:`Rejection`. Whatever is no crystal by its name is ignored in folders
and archives. Sizes are in bytes.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason


class InputError(PhononBenchError):
    """An input that is the user's mistake: it does not exist, or holds no crystal at all."""


@dataclass(frozen=True)
class Rejection:
    """Why something is no usable crystal; the detail is one sentence."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class ReadLimits:
    """What is too large to be read, in bytes. A ratio is uncompressed over compressed size."""

    max_bytes: int = 2_000_000
    max_total_bytes: int = 20_000_000_000
    max_ratio: float = 200.0


@dataclass(frozen=True)
class RawCrystal:
    """One crystal, not yet parsed.

    ``source`` says where it came from and may hold anything; ``label`` is safe in ids, and unique in one call.
    """

    source: str
    label: str
    format: str
    data: bytes
    rejection: Rejection | None = None


MAX_LABEL = 80
# A small archive does no harm however well it is packed, and near-identical crystals pack very well.
_RATIO_COUNTS_FROM = 64 * 2**20
# No single read of an archive's headers is ever this large unless the archive means harm.
_MAX_HEADER_READ = 16 * 2**20
_MAX_LIST_BYTES = 100_000_000

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_OTHER_ARCHIVES = (".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")
_TABLES = (".csv", ".csv.gz")
_LISTS = (".txt", ".lst")
_ID_COLUMNS = ("id", "material_id", "name")
_STRUCTURE_COLUMNS = ("cif", "structure")
_SUFFIX = re.compile(r"\.(cif|vasp|poscar|extxyz|xyz|ya?ml)(\.(bz2|xz))?$", re.IGNORECASE)
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, ValueError)


class _TooLargeError(Exception):
    """A limit was passed; the message is the sentence for the rejection."""


class _Stream(Protocol):
    """What is asked of a binary stream here."""

    def read(self, size: int = ..., /) -> bytes: ...
    def readline(self, size: int = ..., /) -> bytes: ...
    def seek(self, position: int, whence: int = ..., /) -> int: ...
    def tell(self) -> int: ...


class _GuardedReader:
    """A binary stream that refuses to be read or skipped past the limits.

    Tarfile trusts the sizes in an archive's headers and gzip expands whatever it is given, so the limits are
    held where the bytes pass.
    """

    def __init__(self, stream: _Stream, compressed: int, limits: ReadLimits) -> None:
        self._stream, self._compressed, self._limits = stream, max(compressed, 1), limits

    def _check(self, position: int) -> None:
        if position > self._limits.max_total_bytes:
            raise _TooLargeError(f"It unpacks to more than {self._limits.max_total_bytes} bytes.")
        ratio = position / self._compressed
        if position > _RATIO_COUNTS_FROM and ratio > self._limits.max_ratio:
            raise _TooLargeError(
                f"It unpacks to {ratio:.0f} times its size, the limit is {self._limits.max_ratio:g} times."
            )

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > max(_MAX_HEADER_READ, self._limits.max_bytes + 1):
            raise _TooLargeError("It asks for more memory at once than any crystal needs.")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def readline(self, size: int = -1) -> bytes:
        line = self._stream.readline(size)
        self._check(self._stream.tell())
        return line

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._check(position)
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


def read_inputs(paths: Sequence[Path], limits: ReadLimits = ReadLimits()) -> Iterator[RawCrystal]:
    """All crystals of all inputs, one after the other, in an order that depends on the names only.

    An input is a folder, a crystal file (CIF, POSCAR, extxyz, phonopy yaml), a ``.zip``, ``.tar``, ``.tar.gz``
    or ``.tgz`` archive, a ``.csv`` or ``.csv.gz`` table with a column ``cif`` or ``structure``, or a ``.txt`` or
    ``.lst`` list of paths.

    Raises:
        InputError: an input does not exist (at once), or holds no crystal (when it is reached).
    """
    if not paths:
        raise InputError("No input was given.")
    for path in paths:
        try:
            path.stat()
        except (OSError, ValueError) as error:
            raise InputError(f"Input {_text(path)!r} cannot be found: {_why(error)}") from error
    return _with_unique_labels(_read_all(paths, limits))


def _read_all(paths: Sequence[Path], limits: ReadLimits) -> Iterator[RawCrystal]:
    for path in paths:
        empty = True
        for raw in _read_input(path, path.name, limits):
            empty = False
            yield raw
        if empty:
            raise InputError(f"Input {_text(path)!r} holds no crystal.")


def _read_input(path: Path, name: str, limits: ReadLimits, listed: bool = False) -> Iterator[RawCrystal]:
    """One input; ``name`` is what its label is made of. A list's own entries are no lists again."""
    lower = path.name.lower()
    if path.is_dir():
        yield from _read_folder(path, limits)
    elif lower.endswith(_LISTS) and not listed:
        yield from _read_list(path, limits)
    elif lower.endswith(_ARCHIVES + _TABLES):
        yield from _read_container(path, limits)
    elif (found := _format_of(path.name)) is None:
        detail = "It is neither a crystal file, an archive, a table nor a list by its name."
        yield _rejected(_text(path), name, "", Reason.UNSUPPORTED_FILE, detail)
    else:
        yield from _read_file(path, name, found, limits)


# -- names ---------------------------------------------------------------------------------------------------


def _format_of(name: str) -> str | None:
    """The format that a file name tells, or None if it is no crystal's name."""
    lower = name.lower()
    if name.startswith("._"):  # macOS puts a companion of this name beside each file it packs
        return None
    if lower.endswith(".cif"):
        return "cif"
    if lower.endswith((".extxyz", ".xyz")):
        return "extxyz"
    if lower.endswith((".yaml.bz2", ".yaml.xz")) or (lower.startswith("phonopy") and lower.endswith(".yaml")):
        return "phonopy"
    if lower.endswith((".vasp", ".poscar")) or name.startswith(("POSCAR", "CONTCAR")):
        return "poscar"
    return None


def _text(path: Path | str) -> str:
    """The path as text that can be stored: bytes that are no UTF-8 become backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _why(error: BaseException) -> str:
    """The operating system's or parser's message, without the path, which the source tells already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def _label(name: str, source: str) -> str:
    """The name without its suffix as part of an id; with a digest of the source if it had to be changed."""
    stem = _SUFFIX.sub("", name).replace("/", ".")
    clean = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]", "_", stem))
    clean = re.sub(r"^[^A-Za-z0-9]+", "", clean)
    if clean == stem and len(clean) <= MAX_LABEL:
        return clean
    return _with_suffix(clean or "crystal", _digest(source))


def _with_suffix(label: str, suffix: str) -> str:
    return f"{label[: MAX_LABEL - 1 - len(suffix)]}-{suffix}"


def _with_unique_labels(raws: Iterator[RawCrystal]) -> Iterator[RawCrystal]:
    seen: set[str] = set()
    for raw in raws:
        label, tries = raw.label, 0
        while label in seen:
            digest = _digest(raw.source)
            label = _with_suffix(raw.label, f"{digest}-{tries}" if tries else digest)
            tries += 1
        seen.add(label)
        yield replace(raw, label=label)


def _rejected(source: str, name: str, found: str, reason: Reason, detail: str) -> RawCrystal:
    return RawCrystal(source, _label(name, source), found, b"", Rejection(reason, detail))


# -- files and folders ---------------------------------------------------------------------------------------


def _open_regular(path: Path) -> IO[bytes]:
    """Open a regular file; a pipe or device is refused without being opened."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "not a regular file")
    # Should a pipe be put in the file's place meanwhile, opening it must still not wait for a writer.
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(0, "not a regular file")
    return stream


def _read_folder(root: Path, limits: ReadLimits) -> Iterator[RawCrystal]:
    real_root = root.resolve()
    unreadable: list[OSError] = []
    for folder, subfolders, names in os.walk(root, onerror=unreadable.append):
        subfolders.sort()
        # A link to a folder is not followed; one that is named like a crystal is a crystal that cannot be read.
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            found = _format_of(name)
            if found is None:
                continue
            path = Path(folder) / name
            relative = _text(path.relative_to(root))
            refusal = _refused(path, real_root)
            if refusal is None:
                yield from _read_file(path, relative, found, limits)
            else:
                yield _rejected(_text(path), relative, found, refusal.reason, refusal.detail)
    for error in unreadable:
        detail = f"The folder cannot be read: {_why(error)}."
        path = Path(os.fsdecode(error.filename or root))
        name = _text(path.relative_to(root)) if path != root else root.name
        yield _rejected(_text(path), name, "", Reason.UNREADABLE_FILE, detail)


def _refused(path: Path, real_root: Path) -> Rejection | None:
    """Why an entry of a folder is not to be opened, if it is not."""
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(real_root):
            return Rejection(Reason.UNREADABLE_FILE, "It is a link that leads out of its folder.")
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        return Rejection(Reason.UNREADABLE_FILE, f"It cannot be read: {_why(error)}.")
    return None


def _read_file(path: Path, name: str, found: str, limits: ReadLimits) -> Iterator[RawCrystal]:
    source = _text(path)
    try:
        with _open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            yield from _read_stream(stream, source, name, found, size, limits)
    except OSError as error:
        yield _rejected(source, name, found, Reason.UNREADABLE_FILE, f"It cannot be read: {_why(error)}.")


def _read_stream(
    stream: _Stream, source: str, name: str, found: str, size: int, limits: ReadLimits
) -> Iterator[RawCrystal]:
    """The crystal in a file or archive member of that size, or all frames of an extxyz."""
    if found == "extxyz":
        yield from _read_frames(stream, source, name, limits)
        return
    if size > limits.max_bytes:
        detail = f"It has {size} bytes, the limit is {limits.max_bytes}."
        yield _rejected(source, name, found, Reason.FILE_TOO_LARGE, detail)
        return
    data = stream.read(limits.max_bytes + 1)
    packed = name.lower().endswith((".bz2", ".xz"))
    if packed:
        try:
            data = _unpacked(data, name, limits)
        except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
            detail = f"It cannot be decompressed: {_why(error)}."
            yield _rejected(source, name, found, Reason.UNREADABLE_FILE, detail)
            return
    if len(data) > limits.max_bytes:
        detail = f"It has more than {limits.max_bytes} bytes{' when decompressed' if packed else ''}."
        yield _rejected(source, name, found, Reason.FILE_TOO_LARGE, detail)
        return
    yield RawCrystal(source, _label(name, source), found, data)


def _unpacked(data: bytes, name: str, limits: ReadLimits) -> bytes:
    """At most one byte more than the limit, so that the caller sees that it was passed."""
    unpack = bz2.open if name.lower().endswith(".bz2") else lzma.open
    with unpack(io.BytesIO(data)) as stream:
        return stream.read(limits.max_bytes + 1)


def _read_list(path: Path, limits: ReadLimits) -> Iterator[RawCrystal]:
    try:
        with _open_regular(path) as stream:
            content = stream.read(_MAX_LIST_BYTES + 1)
    except OSError as error:
        raise InputError(f"List {_text(path)!r} cannot be read: {_why(error)}.") from error
    if len(content) > _MAX_LIST_BYTES:
        raise InputError(f"List {_text(path)!r} has more than {_MAX_LIST_BYTES} bytes.")
    for line in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        entry = os.fsdecode(line).strip()
        if not entry or entry.startswith("#"):
            continue
        target = path.parent / entry
        try:
            target.stat()
        except (OSError, ValueError) as error:
            detail = f"It is listed, but cannot be found: {_why(error)}."
            yield _rejected(_text(target), _text(entry), "", Reason.UNREADABLE_FILE, detail)
            continue
        yield from _read_input(target, _text(entry), limits, listed=True)


# -- frames of an extxyz ---------------------------------------------------------------------------------------


def _read_frames(stream: _Stream, source: str, name: str, limits: ReadLimits) -> Iterator[RawCrystal]:
    """Each frame by itself, cut at the lines that hold nothing but the number of atoms.

    A frame with more or fewer lines than it says is rejected, and reading goes on at the next such line: it
    would otherwise turn into another crystal, or take the next frame with it.
    """
    stem = _SUFFIX.sub("", name)
    lines = _lines(stream, limits)
    line = next(lines, None)
    number = 0
    while line is not None:
        if not line.strip():
            line = next(lines, None)
            continue
        number += 1
        frame, problem, line = _next_frame(line, lines, limits)
        # A file with one frame is that crystal; only the further frames carry their number in the name.
        alone = number == 1 and line is None
        where = source if alone else f"{source}#{number}"
        label = _label(name if alone else f"{stem}.{number}", where)
        yield RawCrystal(where, label, "extxyz", b"" if problem else frame, problem)
    if number == 0:
        yield _rejected(source, name, "extxyz", Reason.UNPARSABLE, "The file is empty.")


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


def _lines(stream: _Stream, limits: ReadLimits) -> Iterator[bytes]:
    """Lines, cut where they are longer than a crystal may be."""
    while line := stream.readline(limits.max_bytes + 1):
        yield line


def _is_count(line: bytes) -> bool:
    return line.strip().isdigit()


def _skip_to_count(lines: Iterator[bytes]) -> bytes | None:
    return next((line for line in lines if _is_count(line)), None)


# -- archives and tables ---------------------------------------------------------------------------------------


def _read_container(path: Path, limits: ReadLimits) -> Iterator[RawCrystal]:
    """An archive or table; what breaks it off is one rejection for the rest."""
    source, lower = _text(path), path.name.lower()
    try:
        with _open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if lower.endswith(".zip"):
                yield from _read_zip(stream, source, size, limits)
                return
            plain: _Stream = gzip.open(stream) if lower.endswith("gz") else stream  # noqa: SIM115
            guarded = _GuardedReader(plain, size, limits)
            if lower.endswith(_TABLES):
                yield from _read_table(guarded, source, path.name, limits)
            else:
                yield from _read_tar(guarded, source, limits)
    except InputError:
        raise
    except _TooLargeError as error:
        yield _rejected(source, path.name, "", Reason.FILE_TOO_LARGE, f"The rest is not read: {error}")
    except _UNREADABLE as error:
        detail = f"The rest cannot be read: {_why(error)}."
        yield _rejected(source, path.name, "", Reason.UNREADABLE_FILE, detail)


def _member_refused(name: str, special: bool) -> Rejection | None:
    """Why an archive member is not to be read whatever is in it, if it is not."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
        return Rejection(Reason.UNSAFE_ARCHIVE_MEMBER, "The member's name leads out of the archive.")
    if special:
        return Rejection(Reason.UNSAFE_ARCHIVE_MEMBER, "The member is a link or a device, not a file.")
    if name.lower().endswith(_ARCHIVES + _OTHER_ARCHIVES):
        return Rejection(Reason.UNSUPPORTED_FILE, "The member is an archive in an archive.")
    return None


def _is_wanted(name: str) -> bool:
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return _format_of(base) is not None or base.lower().endswith(_ARCHIVES + _OTHER_ARCHIVES)


def _read_zip(stream: IO[bytes], source: str, size: int, limits: ReadLimits) -> Iterator[RawCrystal]:
    with zipfile.ZipFile(stream) as archive:
        position = 0
        for member in archive.infolist():
            if member.is_dir() or not _is_wanted(member.filename):
                continue
            name = _printable(member.filename)
            where, found = f"{source}!{name}", _format_of(PurePosixPath(name).name) or ""
            refusal = _member_refused(member.filename, stat.S_ISLNK(member.external_attr >> 16))
            if refusal is None and member.flag_bits & 0x1:
                refusal = Rejection(Reason.UNSUPPORTED_FILE, "The member is encrypted.")
            if refusal is not None:
                yield _rejected(where, name, found, refusal.reason, refusal.detail)
                continue
            if member.file_size > limits.max_bytes and found != "extxyz":
                detail = f"The member has {member.file_size} bytes, the limit is {limits.max_bytes}."
                yield _rejected(where, name, found, Reason.FILE_TOO_LARGE, detail)
                continue
            # The sizes in the archive may lie, so what is really read is counted, across all members.
            counter = _GuardedReader(_Offset(archive, member, position), size, limits)
            try:
                yield from _read_stream(counter, where, name, found, member.file_size, limits)
            except NotImplementedError:
                detail = "The member is compressed in a way that is not supported."
                yield _rejected(where, name, found, Reason.UNSUPPORTED_FILE, detail)
            except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError) as error:
                detail = f"The member cannot be read: {_why(error)}."
                yield _rejected(where, name, found, Reason.UNREADABLE_FILE, detail)
            position = counter.tell()


class _Offset(io.RawIOBase):
    """A zip member that tells its position as that in all members read so far together."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, start: int) -> None:
        self._archive, self._member, self._position = archive, member, start
        self._stream: IO[bytes] | None = None

    def _opened(self) -> IO[bytes]:
        if self._stream is None:
            self._stream = self._archive.open(self._member)
        return self._stream

    def read(self, size: int = -1) -> bytes:
        data = self._opened().read(size)
        self._position += len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = self._opened().readline(-1 if size is None else size)
        self._position += len(line)
        return line

    def tell(self) -> int:
        return self._position


def _read_tar(guarded: _GuardedReader, source: str, limits: ReadLimits) -> Iterator[RawCrystal]:
    # Members are taken one by one, in the order in which they lie there; skipping one goes through the guard.
    with tarfile.open(fileobj=guarded, mode="r:") as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all, and needs none of them
            if member.isdir() or not _is_wanted(member.name):
                continue
            name = _printable(member.name)
            where, found = f"{source}!{name}", _format_of(PurePosixPath(name).name) or ""
            refusal = _member_refused(member.name, not member.isreg())
            if refusal is not None:
                yield _rejected(where, name, found, refusal.reason, refusal.detail)
                continue
            opened = archive.extractfile(member)
            if opened is None:
                raise tarfile.ReadError(f"member {name} cannot be opened")
            with opened as stream:
                yield from _read_stream(stream, where, name, found, member.size, limits)
        # Tarfile takes a damaged header for the end. A whole archive ends with a block of zeros.
        guarded.seek(archive.offset)  # type: ignore[attr-defined]
        if guarded.read(tarfile.BLOCKSIZE).strip(b"\0") or guarded.tell() <= archive.offset:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the archive is damaged or cut off")


def _printable(name: str) -> str:
    """A member's name as text that can be stored."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_table(guarded: _GuardedReader, source: str, name: str, limits: ReadLimits) -> Iterator[RawCrystal]:
    # The csv module's limit is one for the whole process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(4 * limits.max_bytes, sys.maxsize)))
    text = (line.decode("utf-8", "replace") for line in _table_lines(guarded, limits))
    rows = csv.reader(text)
    header = [column.strip().lower() for column in next(rows, [])]
    header[:1] = [column.removeprefix("\ufeff") for column in header[:1]]
    column = next((header.index(wanted) for wanted in _STRUCTURE_COLUMNS if wanted in header), None)
    if column is None:
        raise InputError(f"Table {source!r} has no column {' or '.join(_STRUCTURE_COLUMNS)}.")
    named = next((header.index(wanted) for wanted in _ID_COLUMNS if wanted in header), None)
    stem = re.sub(r"\.csv(\.gz)?$", "", name, flags=re.IGNORECASE)
    number = 0
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if row is None:
            return
        if not row:  # a blank line
            continue
        number += 1
        yield _read_row(row, column, named, f"{source}#{number}", f"{stem}.{number}", limits)


def _read_row(
    row: list[str], column: int, named: int | None, source: str, default: str, limits: ReadLimits
) -> RawCrystal:
    name = (row[named].strip() if named is not None and named < len(row) else "") or default
    cell = row[column].strip() if column < len(row) else ""
    if not cell:
        return _rejected(source, name, "", Reason.UNPARSABLE, "The row has no structure in its cell.")
    data = cell.encode("utf-8", "replace")
    found = _format_of_cell(cell)
    if len(data) > limits.max_bytes:
        detail = f"The structure has {len(data)} bytes, the limit is {limits.max_bytes}."
        return _rejected(source, name, found, Reason.FILE_TOO_LARGE, detail)
    return RawCrystal(source, _label(name, source), found, data)


def _format_of_cell(cell: str) -> str:
    if cell.startswith("{"):
        return "json"
    is_cif = re.search(r"^[ \t]*(data_|loop_|_cell_|_atom_)", cell, re.MULTILINE | re.IGNORECASE)
    return "cif" if is_cif else "poscar"


def _table_lines(guarded: _GuardedReader, limits: ReadLimits) -> Iterator[bytes]:
    longest = 4 * limits.max_bytes
    while line := guarded.readline(longest + 1):
        if len(line) > longest:
            raise _TooLargeError(f"a line has more than {longest} bytes.")
        yield line
