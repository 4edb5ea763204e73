"""From raw bytes to a crystal, in worker processes that may be killed.

Parsers loop for ever, run out of memory and crash on bad input, and pymatgen leaves out without an exception
what it does not understand. Here all of that becomes a rejection. A file that can be understood in more than
one way is rejected too: it is not for a program to guess which crystal was meant.
"""

from __future__ import annotations

import io
import json
import math
import re
import resource
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from multiprocessing import forkserver, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.io import read as ase_read
from ase.units import Bohr
from pebble import ProcessExpired, ProcessPool
from pymatgen.core.composition import Composition
from pymatgen.core.lattice import Lattice
from pymatgen.core.operations import SymmOp
from pymatgen.core.periodic_table import DummySpecies, Element, Species
from pymatgen.core.structure import Structure
from pymatgen.io.cif import CifBlock, CifFile, CifParser, str2float
from pymatgen.io.vasp.inputs import Poscar
from pymatgen.symmetry.groups import PointGroup, SpaceGroup

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.checks import MAX_FRACTIONAL
from phononbench_flows.structures.readers import RawCrystal, Rejection

MAX_ATOM_LINES = 5_000  # the CIF parser's time grows with the square of this
_MAX_DETAIL = 300

_CIF_COORDINATES = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_CIF_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_CIF_OPERATIONS = ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
_CIF_GROUPS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_symmetry_space_group_name_Hall",
    "_space_group_name_Hall",
    "_symmetry_Int_Tables_number",
    "_space_group_IT_number",
)
_CIF_MAGNETIC = ("_space_group_magn", "_magnetic_space_group", "_space_group_symop_magn", "_atom_site_moment")
_CIF_TRIVIAL_GROUPS = {"", "?", ".", "1", "P1", "p1"}


class _RejectedError(Exception):
    """Carries a rejection out of a parser."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


# -- one crystal -----------------------------------------------------------------------------------------------


def parse(raw_format: str, data: bytes) -> Structure | Rejection:
    """The crystal in a file of that format: elements without charges, in a right-handed cell, or why not."""
    parsers = {"cif": _cif, "poscar": _poscar, "extxyz": _extxyz, "phonopy": _phonopy, "json": _json}
    if raw_format not in parsers:
        return Rejection(Reason.UNSUPPORTED_FILE, f"There is no parser for the format {_plain(raw_format)!r}.")
    if b"\0" in data:
        return Rejection(Reason.UNPARSABLE, "The file holds NUL bytes, it is no text.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
            return _clean(parsers[raw_format](text))
    except _RejectedError as rejected:
        return Rejection(rejected.rejection.reason, _plain(rejected.rejection.detail))
    except MemoryError:
        return Rejection(Reason.PARSER_CRASH, "The parser ran out of memory.")
    # Bad input makes parsers raise whatever there is: ZeroDivisionError, OverflowError, RecursionError, ...
    except Exception as error:  # noqa: BLE001
        message = str(error).removeprefix("No structure parsed for section 1 in CIF.").strip()
        return Rejection(Reason.UNPARSABLE, _plain(f"The parser gave up: {type(error).__name__}: {message}"))


def _plain(text: str) -> str:
    """One line that can be stored, whatever a file put into it."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    line = "".join(c for c in line if c.isprintable())
    return line if len(line) <= _MAX_DETAIL else f"{line[: _MAX_DETAIL - 4]} ..."


def clean(structure: Structure) -> Structure | Rejection:
    """A crystal as the steps want it: elements without charges, in a right-handed cell; or why it cannot be had."""
    try:
        return _clean(structure)
    except _RejectedError as rejected:
        return rejected.rejection


def _clean(structure: Structure) -> Structure:
    if len(structure) == 0:
        raise _RejectedError(Reason.UNPARSABLE, "The file holds no atom.")
    for site in structure:
        if not site.is_ordered:
            detail = f"A site is not fully occupied by one element: {site.species_string}."
            raise _RejectedError(Reason.DISORDERED, detail)
    species = [_element(_name(site.specie)) for site in structure]
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


def _element(symbol: str) -> Element | DummySpecies:
    """The element of that symbol, or a dummy that the checks find."""
    return Element(symbol) if Element.is_valid_symbol(symbol) else DummySpecies(symbol, 0)


# -- CIF -------------------------------------------------------------------------------------------------------


def _cif(text: str) -> Structure:
    block_text = _cif_block_with_atoms(text)
    [block] = CifFile.from_str(block_text).data.values()
    _check_cif_block(block)
    parser = CifParser.from_str(block_text)
    [structure] = parser.parse_structures(primitive=False, on_error="raise")
    noted = " ".join(parser.warnings)  # type: ignore[attr-defined]
    if "implicit_hydrogens" in structure.site_properties or "implicit hydrogens" in noted:
        raise _RejectedError(Reason.UNPARSABLE, "The file counts hydrogen atoms without saying where they are.")
    if "Defaulting to P1" in noted:
        groups = [_only(block, key) for key in (*_CIF_GROUPS, *_CIF_OPERATIONS)]
        named = [group for group in groups if re.sub(r"[\s_]", "", group) not in _CIF_TRIVIAL_GROUPS]
        if named:
            raise _RejectedError(Reason.UNPARSABLE, f"The symmetry {named[0]!r} is not understood.")
    structure = _clean(structure)
    _check_cif_formula(block, structure)
    return structure


def _cif_block_with_atoms(text: str) -> str:
    """The only data block with coordinates; a second one makes it unclear which crystal is meant."""
    # pymatgen lets a later block replace an earlier one of the same name, so blocks are counted before.
    starts = [match.start() for match in re.finditer(r"^[ \t]*data_", text, re.MULTILINE)]
    blocks = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    found = [block for block in blocks if _count_tag(block, _CIF_COORDINATES[0])]
    if not found:
        raise _RejectedError(Reason.UNPARSABLE, "The file has no data block with fractional coordinates.")
    if len(found) > 1:
        raise _RejectedError(Reason.AMBIGUOUS, f"The file has {len(found)} data blocks with coordinates, not one.")
    for tag in (_CIF_COORDINATES[0], _CIF_LENGTHS[0]):
        if _count_tag(found[0], tag) > 1:
            raise _RejectedError(Reason.AMBIGUOUS, f"The data block gives {tag} more than once.")
    return found[0]


def _count_tag(block: str, tag: str) -> int:
    return len(re.findall(rf"^[ \t]*{tag}(?!\S)", block, re.MULTILINE))


def _check_cif_block(block: CifBlock) -> None:
    """What pymatgen would read as something else than the file says, or leave out."""
    # Besides, this keeps untrusted text from pymatgen's magnetic groups, where CVE-2024-23346 was.
    if any(mark in key for mark in _CIF_MAGNETIC for key in block.data):
        raise _RejectedError(Reason.UNSUPPORTED_FILE, "It is a magnetic CIF, its moments would be lost.")
    columns = [_column(block, tag) for tag in _CIF_COORDINATES]
    if len(columns[0]) > MAX_ATOM_LINES:
        detail = f"The file has {len(columns[0])} lines of atoms, the limit is {MAX_ATOM_LINES}."
        raise _RejectedError(Reason.TOO_MANY_ATOMS, detail)
    for value in (value for column in columns for value in column):
        if value.strip() in {".", "?"}:
            raise _RejectedError(Reason.UNPARSABLE, f"A coordinate is {value.strip()!r}, not a number.")
        # pymatgen folds coordinates back into the cell, where this one could no longer be told.
        number = str2float(value)
        if not abs(number) <= MAX_FRACTIONAL:
            detail = f"A fractional coordinate is {number:.3g}, the limit is {MAX_FRACTIONAL:.0e}."
            raise _RejectedError(Reason.BAD_NUMBERS, detail)
    for tag in _CIF_LENGTHS:
        if tag in block.data and str2float(block.data[tag]) <= 0:
            raise _RejectedError(Reason.BAD_CELL, f"{tag} is {block.data[tag]}, it must be positive.")
    for value in _column(block, "_atom_site_occupancy"):
        _check_occupancy(value)
    for symbol in _column(block, "_atom_site_type_symbol"):
        letters = re.match(r"[A-Za-z]*", symbol)
        if letters is None or not Element.is_valid_symbol(letters.group().title()):
            raise _RejectedError(Reason.UNSUPPORTED_ELEMENT, f"The atom type {symbol!r} is no element.")
    _check_cif_symmetry(block)


def _check_occupancy(value: str) -> None:
    try:
        occupancy = str2float(value)
    except ValueError:
        return  # unknown: pymatgen takes it for 1, as the CIF dictionary does
    if occupancy < 0:
        raise _RejectedError(Reason.BAD_NUMBERS, f"An occupancy is {occupancy:g}, it must not be negative.")
    if occupancy == 0 and value.strip() != ".":
        raise _RejectedError(Reason.DISORDERED, "A site is given with occupancy 0.")


def _check_cif_symmetry(block: CifBlock) -> None:
    """The operations must be some, and as many (but for translations) as the space group that is named has."""
    operations = next(filter(None, (_column(block, key) for key in _CIF_OPERATIONS)), [])
    rotations = set()
    for text in operations:
        try:
            rotation = SymmOp.from_xyz_str(text).rotation_matrix
        except ValueError:
            return  # pymatgen then goes by the name of the space group, or finds none
        if not math.isclose(abs(np.linalg.det(rotation)), 1, abs_tol=1e-6) or not np.isin(rotation, (-1, 0, 1)).all():
            raise _RejectedError(Reason.UNPARSABLE, f"{text!r} is no symmetry operation of a crystal.")
        rotations.add(tuple(rotation.astype(int).ravel().tolist()))
    for key in _CIF_GROUPS:
        expected = _point_group_order(_only(block, key))
        if operations and expected not in (None, len(rotations)):
            detail = (
                f"The space group {_only(block, key)!r} has {expected} operations but for translations, "
                f"the file lists {len(rotations)}."
            )
            raise _RejectedError(Reason.AMBIGUOUS, detail)


def _point_group_order(group: str) -> int | None:
    """Operations of the point group of a space group's number or name; None if it is not known."""
    if re.sub(r"[\s_]", "", group) in _CIF_TRIVIAL_GROUPS:
        return 1 if group in {"1", "P1", "P 1"} else None
    try:
        found = SpaceGroup.from_int_number(int(group)) if group.isdigit() else SpaceGroup(group)
        return len(PointGroup(found.point_group).symmetry_ops)
    except (ValueError, KeyError):
        return None


def _check_cif_formula(block: CifBlock, structure: Structure) -> None:
    """A sum formula that the sites do not make up means that atoms are missing, or are others."""
    formula = _only(block, "_chemical_formula_sum")
    try:
        stated = Composition(formula).fractional_composition
    except Exception:  # noqa: BLE001  # no formula, or none that pymatgen reads, says nothing about the sites
        return
    made = structure.composition.fractional_composition
    if stated and not stated.almost_equals(made, rtol=0, atol=5e-3):
        detail = f"The formula is {formula!r}, but the sites make up {structure.composition.reduced_formula}."
        raise _RejectedError(Reason.AMBIGUOUS, detail)


def _column(block: CifBlock, key: str) -> list[str]:
    value = block.data.get(key, [])
    return value if isinstance(value, list) else [value]


def _only(block: CifBlock, key: str) -> str:
    return next(iter(_column(block, key)), "").strip()


# -- the other formats -----------------------------------------------------------------------------------------


def _poscar(text: str) -> Structure:
    lines = text.splitlines()
    counts = [line.split() for line in lines[5:7] if line.split() and all(x.isdigit() for x in line.split())]
    # Counts are believed before there are lines to bear them out, so they are looked at first.
    if any(sum(int(x) for x in numbers) > MAX_ATOM_LINES for numbers in counts):
        raise _RejectedError(Reason.TOO_MANY_ATOMS, f"The file counts more than {MAX_ATOM_LINES} atoms.")
    poscar = Poscar.from_str(text, read_velocities=False)
    if not poscar.true_names:
        raise _RejectedError(Reason.UNPARSABLE, "The file does not name its elements.")
    structure = poscar.structure
    chunk = next(part for part in re.split(r"\n[ \t\r]*\n", text) if part.strip())
    rows = chunk.split("Lattice velocities")[0].rstrip().splitlines()
    if len(rows) > len(structure) and _is_vector(rows[-len(structure) - 1]):
        raise _RejectedError(Reason.UNPARSABLE, f"The file counts {len(structure)} atoms, but has more coordinates.")
    return structure


def _is_vector(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()[:3]]) == 3
    except ValueError:
        return False


def _extxyz(text: str) -> Structure:
    frames = ase_read(io.StringIO(text), index=":", format="extxyz")
    if len(frames) != 1:
        raise _RejectedError(Reason.AMBIGUOUS, f"The file has {len(frames)} frames, not one.")
    [atoms] = frames
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        raise _RejectedError(Reason.BAD_CELL, "The frame is not periodic in three directions.")
    return Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True)


def _phonopy(text: str) -> Structure:
    # phonopy's own reader uses PyYAML's full loader, which runs code that a file asks for.
    content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    if not isinstance(content, dict):
        raise _RejectedError(Reason.UNPARSABLE, "The file holds no keys and values.")
    cell = content.get("unit_cell")
    if not isinstance(cell, dict):
        raise _RejectedError(Reason.UNPARSABLE, "The file has no unit_cell.")
    unit = (content.get("physical_unit") or {}).get("length", "angstrom")
    scales = {"angstrom": 1.0, "au": Bohr}
    if unit not in scales:
        raise _RejectedError(Reason.UNPARSABLE, f"The unit of length {unit!r} is not known.")
    points = cell["points"]
    if any("mixture" in point for point in points):
        raise _RejectedError(Reason.DISORDERED, "A site is a mixture of elements.")
    symbols = [str(point["symbol"]) for point in points]
    matrix = np.array(cell["lattice"], dtype=float) * scales[unit]
    return Structure(matrix, symbols, [point["coordinates"] for point in points])


def _json(text: str) -> Structure:
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("@class") not in (None, "Structure"):
        raise _RejectedError(Reason.UNPARSABLE, "It is not the JSON of a pymatgen Structure.")
    # Structure.from_dict imports whatever module a site's properties name, so only the numbers are taken.
    sites = content["sites"]
    species = [{_symbol_of(entry): float(entry["occu"]) for entry in site["species"]} for site in sites]
    return Structure(content["lattice"]["matrix"], species, [site["abc"] for site in sites])


def _symbol_of(entry: dict[str, Any]) -> Element | DummySpecies:
    return _element(str(entry["element"]))


# -- many crystals ---------------------------------------------------------------------------------------------


def parse_all(
    raws: Iterable[RawCrystal], *, timeout: float = 20.0, workers: int = 2, memory_bytes: int = 2 * 2**30
) -> Iterator[tuple[RawCrystal, Structure | Rejection]]:
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
                context=_context(),
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
    _context()
    forkserver.ensure_running()


def _context() -> BaseContext:
    """Where workers come from: a server that has imported this module once and nothing of the caller's.

    A copy of the caller would carry its memory, threads and GPU along; a fresh interpreter for every worker, and for
    every one that replaces a killed one, would import for seconds.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _finished(pool: _Pool, raw: RawCrystal, future: Future[Any] | None) -> tuple[RawCrystal, Structure | Rejection]:
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
    matrix, symbols, coordinates = result
    return raw, Structure(Lattice(matrix), [_element(symbol) for symbol in symbols], coordinates)


def _start_worker(memory_bytes: int) -> None:
    warnings.simplefilter("ignore")
    np.linalg.inv(np.eye(3))  # numpy's linear algebra takes its memory at its first use, and dies without it
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = mapped + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _parse_to_plain(raw_format: str, data: bytes) -> tuple[Any, list[str], Any] | Rejection:
    """What is sent back: three arrays are far cheaper to send than a Structure with its sites."""
    parsed = parse(raw_format, data)
    if isinstance(parsed, Rejection):
        return parsed
    return parsed.lattice.matrix, [_name(site.specie) for site in parsed], parsed.frac_coords
