"""From raw bytes to a crystal, in worker processes that may be killed.

Parsers loop for ever, run out of memory and crash on bad input. Here all of that becomes a rejection. A file that can
be understood in more than one way is rejected too: it is not for a program to guess which crystal was meant.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool
from pymatgen.core.lattice import Lattice
from pymatgen.core.periodic_table import DummySpecies, Element, Species
from pymatgen.core.structure import Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import formats, limited
from phononbench_flows.structures.cif import parse_cif
from phononbench_flows.structures.formats.numbers import element
from phononbench_flows.structures.memory import limit_memory
from phononbench_flows.structures.parsed import Parsed
from phononbench_flows.structures.raw import RawCrystal, RejectedError, Rejection
from phononbench_flows.structures.text import as_text

_MAX_DETAIL = 300

# -- one crystal -----------------------------------------------------------------------------------------------


def parse(raw_format: str, data: bytes) -> Parsed | Rejection:
    """The crystal in a file of that format: elements without charges, in a right-handed cell, or why not."""
    parsers: dict[str, Callable[[str], Structure | Parsed]] = {"cif": parse_cif, **formats.parsers()}
    if raw_format not in parsers:
        return Rejection(Reason.UNSUPPORTED_FILE, f"There is no parser for the format {_plain(raw_format)!r}.")
    text = as_text(data).replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        return Rejection(Reason.UNPARSABLE, "The file holds NUL bytes, it is no text.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = parsers[raw_format](text)
            if isinstance(parsed, Parsed):
                return Parsed(_clean(parsed.structure), tuple(map(_plain, parsed.notes)))
            return Parsed(_clean(parsed))
    except RejectedError as rejected:
        return Rejection(rejected.rejection.reason, _plain(rejected.rejection.detail))
    except MemoryError:
        return Rejection(Reason.PARSER_CRASH, "The parser ran out of memory.")
    # Bad input makes parsers raise whatever there is: ZeroDivisionError, OverflowError, RecursionError, ...
    except Exception as error:  # noqa: BLE001
        return Rejection(Reason.UNPARSABLE, _plain(f"The parser gave up: {type(error).__name__}: {error}"))


def _plain(text: str) -> str:
    """One line that can be stored, whatever a file put into it."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    line = "".join(c for c in line if c.isprintable())
    return line if len(line) <= _MAX_DETAIL else f"{line[: _MAX_DETAIL - 4]} ..."


def clean(structure: Structure) -> Structure | Rejection:
    """A crystal as the steps want it: elements without charges, in a right-handed cell; or why it cannot be had."""
    try:
        return _clean(structure)
    except RejectedError as rejected:
        return rejected.rejection


def _clean(structure: Structure) -> Structure:
    if len(structure) == 0:
        raise RejectedError(Reason.UNPARSABLE, "The file holds no atom.")
    for site in structure:
        if not site.is_ordered:
            detail = f"A site is not fully occupied by one element: {site.species_string}."
            raise RejectedError(Reason.DISORDERED, detail)
    species = [element(_name(site.specie)) for site in structure]
    matrix, coordinates = structure.lattice.matrix, structure.frac_coords
    if np.linalg.det(matrix) < 0:
        # All three vectors and all coordinates negated: the cell is right-handed, and no atom has moved.
        matrix, coordinates = -matrix, -coordinates
    return Structure(Lattice(matrix), species, coordinates)


def _name(specie: Element | Species | DummySpecies) -> str:
    """The symbol; pymatgen's own ``symbol`` turns deuterium into hydrogen."""
    if isinstance(specie, DummySpecies):
        return specie.symbol
    return specie.element.name if isinstance(specie, Species) else specie.name


# -- many crystals ---------------------------------------------------------------------------------------------


def parse_all(
    raws: Iterable[RawCrystal], *, timeout: float = 20.0, workers: int = 2, memory_bytes: int = 2 * 2**30
) -> Iterator[tuple[RawCrystal, Parsed | Rejection]]:
    """Parse in worker processes, in the order of the input, reading only a little ahead.

    ``timeout`` is in seconds for each crystal, ``memory_bytes`` what a worker may take beyond its start. A
    script that calls this needs the usual ``if __name__ == "__main__":``, since workers import it.

    Raises:
        RuntimeError: no worker process can be started.
    """
    pool = _Pool(timeout, workers, memory_bytes)
    waiting: deque[tuple[RawCrystal, Future[Any] | None]] = deque()
    try:
        for raw in raws:
            waiting.append((raw, None if raw.rejection else pool.submit(raw)))
            if len(waiting) > 8 * workers:
                yield _finished(pool, *waiting.popleft())
        while waiting:
            yield _finished(pool, *waiting.popleft())
    finally:
        pool.stop()


class _Pool:
    """Workers that are started when the first crystal comes, and again should all of them have been killed."""

    def __init__(self, timeout: float, workers: int, memory_bytes: int) -> None:
        self._timeout, self._workers, self._memory_bytes = timeout, workers, memory_bytes
        self._pool: ProcessPool | None = None

    def submit(self, raw: RawCrystal) -> Future[Any]:
        if self._pool is None or not self._pool.active:
            self.stop()
            self._pool = ProcessPool(
                max_workers=self._workers,
                initializer=_start_worker,
                initargs=(self._memory_bytes,),
                context=limited.context(),
            )
        return self._pool.schedule(_parse_to_plain, args=(raw.format, raw.data), timeout=self._timeout)

    def result(self, future: Future[Any]) -> Any:
        """Plain result of the crystal, or its rejection if it took too long or its worker with it."""
        try:
            return future.result()
        except TimeoutError:
            return Rejection(Reason.PARSER_TIMEOUT, f"Parsing took more than {self._timeout:g} s.")
        except ProcessExpired as error:
            return Rejection(Reason.PARSER_CRASH, f"The parser's process died (exit code {error.exitcode}).")

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None


def start_early() -> None:
    """Let the workers' server import in the background while the caller imports what it needs itself."""
    limited.context()
    forkserver.ensure_running()


def _finished(pool: _Pool, raw: RawCrystal, future: Future[Any] | None) -> tuple[RawCrystal, Parsed | Rejection]:
    if raw.rejection is not None or future is None:
        return raw, raw.rejection or Rejection(Reason.UNPARSABLE, "It was not parsed.")
    try:
        result = pool.result(future)
    except BrokenProcessPool:
        # A worker was killed while it had nothing to do; what had been handed out is asked for again.
        try:
            result = pool.result(pool.submit(raw))
        except BrokenProcessPool as error:
            raise RuntimeError("No process for parsing can be started; is __main__ guarded?") from error
    if isinstance(result, Rejection):
        return raw, result
    matrix, symbols, coordinates, notes = result
    return raw, Parsed(Structure(Lattice(matrix), [element(symbol) for symbol in symbols], coordinates), notes)


def _start_worker(memory_bytes: int) -> None:
    warnings.simplefilter("ignore")
    np.linalg.inv(np.eye(3))  # numpy's linear algebra takes its memory at its first use, and dies without it
    limit_memory(memory_bytes)


def _parse_to_plain(raw_format: str, data: bytes) -> tuple[Any, list[str], Any, tuple[str, ...]] | Rejection:
    """What is sent back: three arrays and notes are far cheaper to send than a Structure with its sites."""
    parsed = parse(raw_format, data)
    if isinstance(parsed, Rejection):
        return parsed
    structure = parsed.structure
    return structure.lattice.matrix, [_name(site.specie) for site in structure], structure.frac_coords, parsed.notes
