"""Files that are there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends, and is on disk then.

    If the block raises, ``path`` stays as it was and nothing is left beside it.

    Parameters:
        path: the file; its folder has to be there.
        mode: of a file that is made, less the process' umask.

    Raises:
        OSError: there is a folder, a pipe or a device, which no file should take the place of.
    """
    if path.exists() and not path.is_file():
        raise OSError(0, "it is not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch(mode=mode, exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            flush(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def at_home(path: Path) -> Path:
    """The path with ``~`` or ``~user`` written out; as it is where there is no such user, as the shell has it."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file. A pipe or device, which may have no end, is not opened.

    Raises:
        OSError: it is no regular file, has more than ``most`` bytes, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would be waited for
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        data = stream.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"it may have at most {most} bytes", str(path))
    return data


def flush(handle: int) -> None:
    """Have what was written to an open file on disk. On macOS ``fsync`` alone leaves it in the disk's own cache."""
    to_the_disk = getattr(fcntl, "F_FULLFSYNC", None)
    if to_the_disk is not None:
        try:
            fcntl.fcntl(handle, to_the_disk)
        except OSError:  # not every file system knows it
            os.fsync(handle)
    else:
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make sure that the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
