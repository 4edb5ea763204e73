"""What a CIF says of its symmetry: the sets of operations that it may mean, and that it does not contradict itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.cif.blocks import UNKNOWN, Block
from phononbench_flows.structures.cif.operations import TRIVIAL, Operations, from_hall, from_triplets
from phononbench_flows.structures.cif.settings import Setting, by_name, by_number
from phononbench_flows.structures.raw import RejectedError

_NAMES = (
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m_alt",
    "_space_group_name_h-m_full",
    "_symmetry_space_group_name_h-m_full",
    "_space_group_name_h-m_ref",
)
_HALL = ("_symmetry_space_group_name_hall", "_space_group_name_hall")
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number", "_symmetry_intl_tables_number")
_CODE = "_space_group_it_coordinate_system_code"
_SYSTEMS = ("_space_group_crystal_system", "_symmetry_cell_setting")
_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
# Some say hexagonal or trigonal of the axes, others of the rotations.
_NUMBERS_OF_SYSTEMS = {
    "triclinic": range(1, 3),
    "monoclinic": range(3, 16),
    "orthorhombic": range(16, 75),
    "tetragonal": range(75, 143),
    "trigonal": range(143, 195),
    "rhombohedral": range(143, 195),
    "hexagonal": range(143, 195),
    "cubic": range(195, 231),
}
# How far a cell may be from the shape that its operations ask for: a unit in the third to fourth digit.
_LENGTHS, _DEGREES = 1e-3, 0.1


@dataclass(frozen=True)
class Reading:
    """One way to understand what the file says."""

    operations: Operations
    name: str


@dataclass
class Symmetry:
    """The readings that are left, of which none is empty; and whether the file says anything of it at all."""

    readings: list[Reading]
    stated: bool = True
    notes: list[str] = field(default_factory=list)


def symmetry(block: Block, matrix: np.ndarray) -> Symmetry:
    """All that the block says of its symmetry, for the lattice vectors in the rows of ``matrix``.

    Raises:
        RejectedError: it is not understood, or its parts do not agree with each other or with the cell.
    """
    notes: list[str] = []
    settings = _named(block, notes)
    hall = _hall(block, notes)
    listed = _listed(block, matrix)
    if listed is None and hall is None and settings is None:
        if notes:
            raise RejectedError(Reason.AMBIGUOUS, f"{notes[0]} There is nothing else that says what symmetry is meant.")
        return Symmetry([Reading(TRIVIAL, "no symmetry")], stated=False)
    if listed is not None and not listed.is_trivial:
        _check_listed(listed, settings, hall, matrix)
        return Symmetry([Reading(listed, "the operations listed")], notes=notes)
    readings = _by_symbols(settings, hall, matrix)
    if listed is None:
        return Symmetry(readings, notes=notes)
    if not readings and notes:
        raise RejectedError(Reason.AMBIGUOUS, f"{notes[0]} The only operation listed is x,y,z.")
    if any(reading.operations.is_trivial for reading in readings) or not readings:
        return Symmetry([Reading(listed, "the operation listed")], notes=notes)
    return Symmetry([Reading(listed, "x,y,z alone, as listed"), *readings], notes=notes)


def _named(block: Block, notes: list[str]) -> list[Setting] | None:
    """The settings that names and numbers leave, or None if there are none that are understood."""
    found: list[Setting] | None = None
    first = ""
    for tag, value in block.said(*_NAMES, *_NUMBERS):
        if tag in _NUMBERS:
            settings = by_number(_number(value))
        elif not (settings := by_name(value)):
            notes.append(f"The space group {value!r} is not known.")
            continue
        both = settings if found is None else [setting for setting in found if setting in settings]
        if not both:
            detail = f"The space group is {first} and {value!r} ({tag}), which is not the same."
            raise RejectedError(Reason.CONTRADICTORY, detail)
        found, first = both, first or repr(value)
    for _, code in block.said(_CODE):
        coded = [setting for setting in found or () if setting.has(code)]
        found = coded or found
    return found


def check_system(block: Block, operations: Operations, matrix: np.ndarray) -> None:
    """The crystal system that the block names has to be that of the operations.

    Raises:
        RejectedError: it is not.
    """
    number = None
    for tag, value in block.said(*_SYSTEMS):
        numbers = _NUMBERS_OF_SYSTEMS.get(value.lower())
        if numbers is None:
            continue
        number = number or operations.number(matrix)
        if number is not None and number not in numbers:
            detail = f"{tag} is {value!r}, but the operations are of the space group {number}."
            raise RejectedError(Reason.CONTRADICTORY, detail)


def _number(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= 230:
        raise RejectedError(Reason.CONTRADICTORY, f"{value!r} is no number of a space group.")
    return int(value)


def _hall(block: Block, notes: list[str]) -> Operations | None:
    found: Operations | None = None
    for _, value in block.said(*_HALL):
        operations = from_hall(value)
        if operations is None:
            notes.append(f"The Hall symbol {value!r} is not understood.")
        elif found is not None and found != operations:
            raise RejectedError(Reason.CONTRADICTORY, f"Another Hall symbol is given beside {value!r}.")
        else:
            found = operations
    return found


def _listed(block: Block, matrix: np.ndarray) -> Operations | None:
    """The operations that are listed, if any are."""
    found: Operations | None = None
    for tag in _OPERATIONS:
        values = [value.strip() for value in block.column(tag)]
        if set(values) <= UNKNOWN:
            continue
        operations = from_triplets(values)
        if found is not None and found != operations:
            raise RejectedError(Reason.CONTRADICTORY, f"{' and '.join(_OPERATIONS)} list different operations.")
        found = operations
    if found is not None and not found.is_group():
        detail = f"The {len(found)} symmetry operations are no group: two of them in a row make one that is not listed."
        raise RejectedError(Reason.CONTRADICTORY, detail)
    if found is not None and not found.fit(matrix, _LENGTHS, _DEGREES):
        raise RejectedError(Reason.CONTRADICTORY, "The symmetry operations do not fit the cell.")
    return found


def _check_listed(
    listed: Operations, settings: list[Setting] | None, hall: Operations | None, matrix: np.ndarray
) -> None:
    """Names and Hall symbol have to mean the operations that are listed, at most with the origin elsewhere."""
    if hall is not None and hall != listed:
        detail = f"The Hall symbol means {len(hall)} operations, which are not the {len(listed)} that are listed."
        raise RejectedError(Reason.CONTRADICTORY, detail)
    if settings is None or any(setting.operations == listed for setting in settings):
        return
    origin_is_named = {setting.choice for setting in settings} in ({"1"}, {"2"})
    if origin_is_named or not any(listed.is_shifted(setting.operations, matrix) for setting in settings):
        detail = (
            f"The space group {settings[0]} has {len(settings[0].operations)} operations, "
            f"which are not the {len(listed)} that are listed."
        )
        raise RejectedError(Reason.CONTRADICTORY, detail)


def _by_symbols(settings: list[Setting] | None, hall: Operations | None, matrix: np.ndarray) -> list[Reading]:
    """Readings of names, numbers and Hall symbol, those which fit the cell."""
    if hall is not None:
        if settings is not None and not any(setting.operations == hall for setting in settings):
            raise RejectedError(Reason.CONTRADICTORY, f"The Hall symbol does not mean the space group {settings[0]}.")
        readings = [Reading(hall, "the Hall symbol")]
    else:
        readings = [Reading(setting.operations, str(setting)) for setting in settings or ()]
    fitting = [reading for reading in readings if reading.operations.fit(matrix, _LENGTHS, _DEGREES)]
    if readings and not fitting:
        raise RejectedError(Reason.CONTRADICTORY, f"The cell does not have the shape that {readings[0].name} asks for.")
    return fitting
