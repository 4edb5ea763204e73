"""Files that are read apart: in a process of its own, with limits on time and memory, that may be killed.

Binary formats are read by large libraries in C, which may crash, hang, or take all memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.memory import limit_memory
from phononbench_flows.structures.raw import NoCrystalsError, RawCrystal, RejectedError, Rejection, TooLargeError
from phononbench_flows.structures.streams import open_regular, why

if TYPE_CHECKING:
    from phononbench_flows.structures.formats.base import Found

SECONDS = 120.0
"""What a process may take for one crystal; for the first, with its imports."""

_MEMORY = 4 * 2**30
_PRELOADED = "phononbench_flows.structures.parsing"


def context() -> BaseContext:
    """Where processes come from: a server that has imported the parsers once and nothing of the caller's.

    A copy of the caller would carry its memory, threads and GPU along; a fresh interpreter for every process would
    import for seconds. On macOS, where libraries of the system may have threads that no fork survives, the server
    imports nothing, and each process does.
    """
    made = get_context("forkserver")
    made.set_forkserver_preload([] if sys.platform == "darwin" else [_PRELOADED])
    return made


def read_apart(
    reader: Callable[[Found, Path | bytes], Iterator[RawCrystal]],
    found: Found,
    content: Path | bytes | None = None,
    imports: Sequence[str] = (),
) -> Iterator[RawCrystal]:
    """What a reader gives, in a process of its own.

    Parameters:
        reader: function of a module, which gets the file's path, or its bytes if it is in an archive or packed.
        content: these bytes, where they have been read.
        imports: modules that are imported before memory is limited.

    Raises:
        NoCrystalsError: the reader did.
        RejectedError: it took too long, died or failed.
    """
    if content is None and found.path is not None and not found.is_packed:
        open_regular(found.path).close()
        content = found.path
    elif content is None:
        content = found.whole(found.limits.max_whole_bytes)
    size = len(content) if isinstance(content, bytes) else found.size
    ours, theirs = context().Pipe(duplex=False)
    sent = replace(found, opened=_unopened)
    process: Any = context().Process(target=_serve, args=(theirs, reader, sent, content, tuple(imports)), daemon=True)  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    try:
        # A crystal needs some bytes of a file; a file that gives crystals without end means harm.
        yield from _received(ours, most=200 * size + 64 * 2**20)
    except EOFError as error:
        process.join(5)
        detail = f"The process that read it died (exit code {process.exitcode})."
        raise RejectedError(Reason.PARSER_CRASH, detail) from error
    finally:
        ours.close()
        process.kill()
        process.join()


def _unopened() -> Any:
    raise RuntimeError("the file's content is handed over")


def _received(connection: Connection, most: int) -> Iterator[RawCrystal]:
    while connection.poll(SECONDS):
        head, _, data = connection.recv_bytes(2**30).partition(b"\n")
        message = json.loads(head)
        if message["kind"] == "end":
            return
        if message["kind"] == "nothing":
            raise NoCrystalsError(message["detail"])
        rejection = Rejection(Reason(message["reason"]), message["detail"]) if message["reason"] else None
        if message["kind"] == "failure" and rejection:
            raise RejectedError(rejection.reason, rejection.detail)
        most -= len(data) + 100
        if most < 0:
            raise TooLargeError("It gives more crystals than a file of its size can hold.")
        yield RawCrystal(message["source"], message["label"], message["format"], data, rejection)
    raise RejectedError(Reason.PARSER_TIMEOUT, f"Reading took more than {SECONDS:g} s.")


# -- in the process --------------------------------------------------------------------------------------------


def _serve(
    connection: Connection,
    reader: Callable[[Found, Path | bytes], Iterator[RawCrystal]],
    found: Found,
    content: Path | bytes,
    imports: tuple[str, ...],
) -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    for name in imports:
        import_module(name)
    limit_memory(_MEMORY)
    with contextlib.suppress(BrokenPipeError):
        connection.send_bytes(_last_words(connection, reader, found, content))


def _last_words(
    connection: Connection, reader: Callable[[Found, Path | bytes], Iterator[RawCrystal]], found: Found, content: Any
) -> bytes:
    try:
        for raw in reader(found, content):
            connection.send_bytes(_message("crystal", raw, raw.rejection) + raw.data)
    except NoCrystalsError as error:
        return _message("nothing", None, Rejection(Reason.UNPARSABLE, str(error)))
    except RejectedError as error:
        return _message("failure", None, error.rejection)
    except TooLargeError as error:
        return _message("failure", None, Rejection(Reason.FILE_TOO_LARGE, str(error)))
    except MemoryError:
        return _message("failure", None, Rejection(Reason.PARSER_CRASH, "Reading it ran out of memory."))
    except BrokenPipeError:
        raise
    # Bad input makes libraries raise whatever there is.
    except Exception as error:  # noqa: BLE001
        detail = f"It cannot be read: {type(error).__name__}: {why(error)}"
        return _message("failure", None, Rejection(Reason.UNPARSABLE, detail[:300]))
    return _message("end", None, None)


def _message(kind: str, raw: RawCrystal | None, rejection: Rejection | None) -> bytes:
    said = {
        "kind": kind,
        "source": raw.source if raw else "",
        "label": raw.label if raw else "",
        "format": raw.format if raw else "",
        "reason": rejection.reason.value if rejection else "",
        "detail": rejection.detail if rejection else "",
    }
    return json.dumps(said).encode() + b"\n"
