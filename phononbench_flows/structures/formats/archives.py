"""Archives: their members one by one, in memory, in the order in which they lie there. Nothing is unpacked to disk."""

from __future__ import annotations

import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

from phononbench_flows.harmless import harmless
from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.formats.base import Format, Found, Level, refusing
from phononbench_flows.structures.raw import BrokenOffError, ReadLimits, RejectedError, Rejection, TooLargeError
from phononbench_flows.structures.streams import UNREADABLE, GuardedReader, Stream, why

ZIP, TAR = ".zip", ".tar"


@dataclass(frozen=True)
class Member:
    """A file in an archive, and why it is not to be read whatever is in it, if it is not."""

    found: Found
    refusal: Rejection | None = None


def members(archive: Found) -> Iterator[Member]:
    """The files in an archive."""
    if archive.plain_name.lower().endswith(ZIP):
        with archive.opened() as stream:
            yield from _zip_members(archive, stream)
    else:
        with archive.open() as stream:
            yield from _tar_members(archive, _ArchiveReader(stream, archive.size, archive.limits))


class _ArchiveReader(GuardedReader):
    """The stream of a whole archive: what goes wrong with it is not a member's fault, and ends the archive."""

    def read(self, size: int = -1) -> bytes:
        with _ending():
            return super().read(size)

    def readline(self, size: int = -1) -> bytes:
        with _ending():
            return super().readline(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        with _ending():
            return super().seek(position, whence)


@contextmanager
def _ending() -> Iterator[None]:
    try:
        yield
    except TooLargeError as error:
        raise BrokenOffError(Reason.FILE_TOO_LARGE, f"The rest is not read: {error}") from error
    except UNREADABLE as error:
        raise BrokenOffError(Reason.UNREADABLE_FILE, f"The rest cannot be read: {why(error)}.") from error


def _member_name(name: str) -> str:
    return harmless(name.removeprefix("./"))


def _refusal(name: str, special: bool) -> Rejection | None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
        return Rejection(Reason.UNSAFE_ARCHIVE_MEMBER, "The member's name leads out of the archive.")
    if special:
        return Rejection(Reason.UNSAFE_ARCHIVE_MEMBER, "The member is a link or a device, not a file.")
    return None


# -- zip -------------------------------------------------------------------------------------------------------


def _zip_members(archive: Found, stream: Stream) -> Iterator[Member]:
    position = 0
    with zipfile.ZipFile(cast("IO[bytes]", stream)) as opened:
        for info in opened.infolist():
            if info.is_dir():
                continue
            name = _member_name(info.filename)
            refusal = _refusal(info.filename, stat.S_ISLNK(info.external_attr >> 16))
            if refusal is None and info.flag_bits & 0x1:
                refusal = Rejection(Reason.UNSUPPORTED_FILE, "The member is encrypted.")
            # The sizes in the archive may lie, so what is really read is counted, across all members.
            offset = _Offset(opened, info, position)
            guarded = _ZipReader(offset, archive.size, archive.limits)
            found = Found(
                name, f"{archive.source}!{name}", info.file_size, _zip_opener(guarded, offset), archive.limits
            )
            yield Member(found, refusal)
            position = offset.furthest


class _ZipReader(GuardedReader):
    """The stream of a member. That it is damaged costs itself alone; that all unpack to too much ends the archive."""

    def _check(self, position: int) -> None:
        with _ending():
            super()._check(position)


def _zip_opener(guarded: GuardedReader, offset: _Offset) -> Any:
    @contextmanager
    def opened() -> Iterator[Stream]:
        offset.rewind()
        try:
            yield guarded
        except NotImplementedError as error:
            detail = "The member is compressed in a way that is not supported."
            raise RejectedError(Reason.UNSUPPORTED_FILE, detail) from error
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError) as error:
            raise RejectedError(Reason.UNREADABLE_FILE, f"The member cannot be read: {why(error)}.") from error

    return opened


class _Offset(io.RawIOBase):
    """A zip member that tells its position as that in all members read so far together."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, start: int) -> None:
        self._archive, self._member, self._start, self._position = archive, member, start, start
        self._stream: IO[bytes] | None = None

    @property
    def furthest(self) -> int:
        """Position after what was read."""
        return self._position

    def rewind(self) -> None:
        """Begin again; what was read counts on."""
        self._stream = None

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


# -- tar -------------------------------------------------------------------------------------------------------


def _tar_members(archive: Found, guarded: GuardedReader) -> Iterator[Member]:
    # Members are taken one by one, in the order in which they lie there; skipping one goes through the guard.
    with tarfile.open(fileobj=guarded, mode="r:") as opened:  # type: ignore[call-overload]
        while (info := opened.next()) is not None:
            opened.members = []  # type: ignore[attr-defined]  # tarfile keeps them all, and needs none of them
            if info.isdir():
                continue
            name = _member_name(info.name)
            found = Found(
                name, f"{archive.source}!{name}", info.size, _tar_opener(opened, info, archive.limits), archive.limits
            )
            yield Member(found, _refusal(info.name, not info.isreg()))
        # Tarfile takes a damaged header for the end. A whole archive ends with a block of zeros.
        guarded.seek(opened.offset)  # type: ignore[attr-defined]
        if guarded.read(tarfile.BLOCKSIZE).strip(b"\0") or guarded.tell() <= opened.offset:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the archive is damaged or cut off")


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo, limits: ReadLimits) -> Any:
    """A small member is kept when it is opened: to go back in a compressed archive is to read it all again."""
    kept: list[bytes] = []

    @contextmanager
    def opened() -> Iterator[Any]:
        with _ending():
            stream: Any = archive.extractfile(info)
            if info.size <= limits.max_bytes:
                kept[:] = kept or [stream.read()]
        if kept:
            yield io.BytesIO(kept[0])
            return
        try:
            yield stream
        except tarfile.TarError as error:
            raise BrokenOffError(Reason.UNREADABLE_FILE, f"The rest cannot be read: {why(error)}.") from error

    return opened


_NESTED = "The member is an archive in an archive."

FORMATS = (Format("archive", (TAR, ZIP), refusing(_NESTED), Level.ARCHIVE),)
