"""The unit cell of a CIF."""

from __future__ import annotations

from math import cos, radians

from pymatgen.core.lattice import Lattice

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.cif.blocks import Block
from phononbench_flows.structures.cif.digits import is_not_finite, read
from phononbench_flows.structures.raw import RejectedError

_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
_VOLUME = "_cell_volume"
_VOLUME_TOLERANCE = 0.01  # relative
_LARGEST = 1e6  # Å


def read_cell(block: Block) -> Lattice:
    """Lattice in Å; the first vector along x, as pymatgen puts it.

    Raises:
        RejectedError: a number is missing, or there is no such cell, or not of the volume that is given.
    """
    lengths = [_number(block, tag) for tag in _LENGTHS]
    angles = [_number(block, tag) for tag in _ANGLES]
    for tag, length in zip(_LENGTHS, lengths, strict=True):
        if not 0 < length < _LARGEST:
            raise RejectedError(
                Reason.BAD_CELL, f"{tag} is {length:g}, it must be positive and below {_LARGEST:.0e} Å."
            )
    if not _is_possible(angles):
        given = ", ".join(f"{angle:g}" for angle in angles)
        raise RejectedError(Reason.CONTRADICTORY, f"No cell has the angles {given}.")
    lattice = Lattice.from_parameters(*lengths, *angles)
    for _, text in block.said(_VOLUME):
        volume = read(text)
        if volume is not None and abs(float(volume.value) / lattice.volume - 1) > _VOLUME_TOLERANCE:
            detail = f"The volume is {text} Å^3, but that of the cell is {lattice.volume:.6g} Å^3."
            raise RejectedError(Reason.CONTRADICTORY, detail)
    return lattice


def _number(block: Block, tag: str) -> float:
    said = [text for _, text in block.said(tag)]
    if len(said) != 1:
        raise RejectedError(Reason.UNPARSABLE, f"The file does not give one {tag}.")
    number = read(said[0])
    if number is None and not is_not_finite(said[0]):
        raise RejectedError(Reason.UNPARSABLE, f"{tag} is {said[0]!r}, which is no number.")
    if number is None or abs(number.value) > _LARGEST:
        raise RejectedError(Reason.BAD_NUMBERS, f"{tag} is {said[0]!r}.")
    return float(number.value)


def _is_possible(angles: list[float]) -> bool:
    """Whether three vectors can have these angles (degrees) between them and span a volume."""
    if not all(0 < angle < 180 for angle in angles):
        return False
    alpha, beta, gamma = (cos(radians(angle)) for angle in angles)
    return 1 + 2 * alpha * beta * gamma - alpha**2 - beta**2 - gamma**2 > 1e-12
