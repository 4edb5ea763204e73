"""Streams of bytes that come from untrusted files: opened only if they are files, unpacked only within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Protocol, cast

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.raw import ReadLimits, RejectedError, TooLargeError

UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, ValueError)
"""What reading a damaged file may raise."""

# A small archive does no harm however well it is packed, and near-identical crystals pack very well.
_RATIO_COUNTS_FROM = 64 * 2**20
# No single read of an archive's headers is ever this large unless the archive means harm.
_MAX_HEADER_READ = 16 * 2**20
_PIECE = 2**20

_CODECS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".lzma": "xz", ".zst": "zstd"}
_SHORT = {".tgz": ".tar.gz", ".tbz2": ".tar.bz2", ".tbz": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}


class Stream(Protocol):
    """What is asked of a binary stream here."""

    def read(self, size: int = ..., /) -> bytes:
        """At most so many bytes."""
        ...

    def readline(self, size: int = ..., /) -> bytes:
        """A line, or so many bytes of it."""
        ...

    def seek(self, position: int, whence: int = ..., /) -> int:
        """Go there."""
        ...

    def tell(self) -> int:
        """Where it is."""
        ...


class GuardedReader:
    """A binary stream that refuses to be read or skipped past the limits.

    Tarfile trusts the sizes in an archive's headers and gzip expands whatever it is given, so the limits are
    held where the bytes pass.
    """

    def __init__(self, stream: Stream, compressed: int, limits: ReadLimits) -> None:
        self._stream, self._compressed, self._limits = stream, max(compressed, 1), limits

    def _check(self, position: int) -> None:
        if position > self._limits.max_total_bytes:
            raise TooLargeError(f"It unpacks to more than {self._limits.max_total_bytes} bytes.")
        ratio = position / self._compressed
        if position > _RATIO_COUNTS_FROM and ratio > self._limits.max_ratio:
            raise TooLargeError(
                f"It unpacks to {ratio:.0f} times its size, the limit is {self._limits.max_ratio:g} times."
            )

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; never all that there are."""
        if size < 0 or size > max(_MAX_HEADER_READ, self._limits.max_bytes + 1):
            raise TooLargeError("It asks for more memory at once than any crystal needs.")
        data = self._stream.read(size)
        self._check(self._stream.tell())
        return data

    def readline(self, size: int = -1) -> bytes:
        """A line, or so many bytes of it."""
        line = self._stream.readline(size)
        self._check(self._stream.tell())
        return line

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Skip to a place."""
        if whence == os.SEEK_SET:
            self._check(position)
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        """How much was unpacked."""
        return self._stream.tell()


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file; a pipe or device is refused without being opened."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "not a regular file")
    # Should a pipe be put in the file's place meanwhile, opening it must still not wait for a writer.
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(0, "not a regular file")
    return stream


def split_compression(name: str) -> tuple[str, str | None]:
    """A name without the ending that a packer gave it, and the packer: ``x.cif.gz`` is ``x.cif`` of ``gzip``."""
    lower = name.lower()
    for short, long in _SHORT.items():
        if lower.endswith(short):
            name = name[: -len(short)] + long
    for ending, codec in _CODECS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], codec
    return name, None


def unpacked(stream: Stream, codec: str | None, size: int, limits: ReadLimits) -> Stream:
    """The stream as it was before it was packed, within limits; ``size`` is that of the packed one in bytes.

    Raises:
        RejectedError: nothing here unpacks it.
    """
    if codec is None:
        return stream
    plain: Any
    if codec == "gzip":
        plain = gzip.GzipFile(fileobj=cast("Any", stream))
    elif codec == "bzip2":
        plain = bz2.BZ2File(cast("Any", stream))
    elif codec == "xz":
        plain = lzma.LZMAFile(cast("Any", stream))  # noqa: SIM115
    else:
        plain = _unzstd(stream)
    return GuardedReader(plain, size, limits)


def _unzstd(stream: Stream) -> Any:
    """Python has no Zstandard of its own before 3.14; pyarrow has."""
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        detail = "It is packed by Zstandard, which needs pyarrow: pip install 'phononbench-flows[parquet]'."
        raise RejectedError(Reason.UNSUPPORTED_FILE, detail) from error
    return io.BufferedReader(_Forward(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")))


class _Forward(io.RawIOBase):
    """A stream of pyarrow's, which tells no position and goes forward only."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._position = stream, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise OSError(0, "the stream cannot go back")
        while self._position < position and self.read(min(_PIECE, position - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position


def read_whole(stream: Stream, limit: int) -> bytes:
    """All bytes of a stream.

    Raises:
        TooLargeError: there are more than ``limit``.
    """
    pieces, size = [], 0
    while piece := stream.read(min(_PIECE, limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise TooLargeError(f"It has more than {limit} bytes.")
    return b"".join(pieces)


def why(error: BaseException) -> str:
    """The operating system's or parser's message, without the path, which the source tells already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
