"""Symmetry operations of a crystal as exact numbers, and what can be asked of a set of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import product
from math import lcm

import gemmi
import numpy as np
import spglib

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures.cif.digits import MINUS, read
from phononbench_flows.structures.raw import RejectedError

MAX_OPERATIONS = 2_000

_TERM = re.compile(r"([+-]?)(\d+/\d+|\d*\.\d+|\d+\.?)?\*?([xyz]?)", re.ASCII)
# Translations of crystals are multiples of this, which a decimal number may only come near to.
_STEP = Fraction(1, 24)
_MAX_DENOMINATOR = 60_000

Vector = tuple[Fraction, ...]
Rotation = tuple[tuple[int, ...], ...]
Operation = tuple[Rotation, Vector]

_UNIT: Rotation = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_IDENTITY: Operation = (_UNIT, (Fraction(0), Fraction(0), Fraction(0)))


@dataclass(frozen=True)
class Operations:
    """Rotations and translations (fractional, modulo 1), each once."""

    members: frozenset[Operation]

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Operations:
        """These operations, whose translations may be any."""
        return cls(frozenset((rotation, tuple(t % 1 for t in shift)) for rotation, shift in operations))

    def __len__(self) -> int:
        return len(self.members)

    @property
    def is_trivial(self) -> bool:
        """Whether there is only the identity."""
        return self.members == {_IDENTITY}

    @cached_property
    def ordered(self) -> list[Operation]:
        """In an order that depends on the operations only, the identity first."""
        return sorted(self.members, key=lambda member: (member != _IDENTITY, member))

    @cached_property
    def rotations(self) -> np.ndarray:
        """Integers, shape (n, 3, 3)."""
        return np.array([rotation for rotation, _ in self.ordered], dtype=np.int64)

    @cached_property
    def translations(self) -> np.ndarray:
        """Shape (n, 3)."""
        return np.array([[float(t) for t in shift] for _, shift in self.ordered])

    def is_group(self) -> bool:
        """Whether each two in a row make a third that is there."""
        denominator = lcm(*(t.denominator for _, shift in self.members for t in shift))
        if denominator > _MAX_DENOMINATOR or _IDENTITY not in self.members:
            return False
        shifts = np.array([[int(t * denominator) for t in shift] for _, shift in self.ordered], dtype=np.int64)
        there = set(_codes(self.rotations, shifts, denominator))
        for rotation, shift in zip(self.rotations, shifts, strict=True):
            rotations = rotation @ self.rotations
            if np.abs(rotations).max() > 1:
                return False
            if not there.issuperset(_codes(rotations, shifts @ rotation.T + shift, denominator)):
                return False
        return True

    def fit(self, matrix: np.ndarray, tolerance: float, degrees: float) -> bool:
        """Whether every rotation leaves lengths (relatively) and angles of the lattice as they are."""
        given_lengths, given_angles = _metric(matrix[None])
        # An operation takes the lattice's vectors, the rows of the matrix, to those of its transpose.
        lengths, angles = _metric(np.einsum("nji,jk->nik", self.rotations, matrix))
        return bool(
            (np.abs(lengths / given_lengths - 1) < tolerance).all() and (np.abs(angles - given_angles) < degrees).all()
        )

    def is_shifted(self, other: Operations, matrix: np.ndarray) -> bool:
        """Whether the other operations are the same but for the origin: axes, screws, glides and type are."""
        if len(self) != len(other) or self.screws_and_glides != other.screws_and_glides:
            return False
        return self.number(matrix) is not None and self.number(matrix) == other.number(matrix)

    @cached_property
    def screws_and_glides(self) -> frozenset[Operation]:
        """Each rotation with the part of its translation that no choice of the origin changes."""
        return frozenset((rotation, _intrinsic(rotation, shift)) for rotation, shift in self.members)

    def number(self, matrix: np.ndarray) -> int | None:
        """Number of the space group, if spglib finds one."""
        found = spglib.get_spacegroup_type_from_symmetry(self.rotations, self.translations, lattice=matrix)
        return None if found is None else int(found.number)


TRIVIAL = Operations(frozenset({_IDENTITY}))


def from_hall(symbol: str) -> Operations | None:
    """Operations of a Hall symbol, or None if it is none."""
    words = symbol.replace("_", " ").split()
    if not words:
        return None
    # The lattice's letter is a capital, all others are not.
    spelled = " ".join([words[0].upper(), *(word.lower() for word in words[1:])])
    try:
        group = gemmi.symops_from_hall(spelled)
    except (ValueError, RuntimeError):
        return None
    found = from_gemmi(group)
    return found if found.is_group() else None


def from_gemmi(group: gemmi.GroupOps) -> Operations:
    """Operations of gemmi, whose numbers are multiples of 1/24."""
    scale = gemmi.Op.DEN
    return Operations.of(
        (tuple(tuple(x // scale for x in row) for row in op.rot), tuple(Fraction(x, scale) for x in op.tran))
        for op in group
    )


def from_triplets(triplets: list[str]) -> Operations:
    """Operations as ``-x, y+1/2, z``. What few digits leave open is taken for a multiple of 1/24.

    Raises:
        RejectedError: one is no operation of a crystal, or there are too many.
    """
    if len(triplets) > MAX_OPERATIONS:
        detail = f"The file lists {len(triplets)} symmetry operations, the limit is {MAX_OPERATIONS}."
        raise RejectedError(Reason.UNPARSABLE, detail)
    return Operations.of(_from_triplet(triplet) for triplet in triplets)


def _from_triplet(triplet: str) -> Operation:
    parts = re.sub(r"\s+", "", triplet.replace(MINUS, "-").lower()).split(",")
    rows = [_from_expression(part) for part in parts]
    rotation = tuple(row[0] for row in rows if row is not None)
    if len(parts) != 3 or len(rotation) != 3 or abs(round(np.linalg.det(rotation))) != 1:
        raise RejectedError(Reason.UNPARSABLE, f"{triplet!r} is no symmetry operation of a crystal.")
    return rotation, tuple(row[1] for row in rows if row is not None)


@lru_cache(maxsize=4096)  # the same few make up most operations
def _from_expression(text: str) -> tuple[tuple[int, ...], Fraction] | None:
    """Factors of x, y and z and what is added; None if the text is no such sum."""
    factors, shift, position = [0, 0, 0], Fraction(0), 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None or found.end() == position or (position > 0 and not found[1]):
            return None
        sign, digits, axis = found.groups()
        number = read(digits) if digits else None
        if (digits and number is None) or not (digits or axis):
            return None
        factor = -1 if sign == "-" else 1
        if axis:
            if number is not None and number.value != 1:
                return None
            factors["xyz".index(axis)] += factor
        elif number is not None:
            near = [_STEP * n for n in range(25) if number.could_be(_STEP * n)]
            shift += factor * (near[0] if len(near) == 1 else number.value)
        position = found.end()
    return (tuple(factors), shift) if any(factors) and max(map(abs, factors)) == 1 else None


def _codes(rotations: np.ndarray, shifts: np.ndarray, denominator: int) -> list[int]:
    """A number for each operation, other for others as long as no element of a rotation is beyond 1."""
    codes = (rotations.reshape(-1, 9) + 1) @ (3 ** np.arange(9))
    for axis in range(3):
        codes = codes * denominator + shifts[:, axis] % denominator
    return codes.tolist()


def _metric(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths, shape (n, 3), and angles in degrees, shape (n, 3, 3), of lattice vectors in rows."""
    lengths = np.linalg.norm(matrices, axis=2)
    cosines = np.einsum("nix,njx->nij", matrices, matrices) / (lengths[:, :, None] * lengths[:, None, :])
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def _intrinsic(rotation: Rotation, shift: Vector) -> Vector:
    """Mean of the operation's powers' translations: what it moves along its axis or in its plane.

    A lattice vector more in the translation changes it, so it is the least of what such vectors make of it.
    """
    powers = [np.eye(3, dtype=int)]
    while not np.array_equal(following := np.array(rotation) @ powers[-1], powers[0]):
        powers.append(following)
    mean, order = np.sum(powers, axis=0), len(powers)
    moved = [tuple(a + b for a, b in zip(shift, lattice, strict=True)) for lattice in product((-1, 0, 1), repeat=3)]
    return min(
        tuple(sum((int(f) * v for f, v in zip(row, vector, strict=True)), Fraction(0)) / order % 1 for row in mean)
        for vector in moved
    )
