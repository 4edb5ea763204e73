"""A crystal's hash, and which crystal of a reference set it repeats. Within a set see :mod:`.same`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core.structure import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from phononbench_flows.protocol import Protocol
from phononbench_flows.structures.checks import check
from phononbench_flows.structures.parsing import parse_all
from phononbench_flows.structures.raw import Rejection
from phononbench_flows.structures.readers import read_inputs
from phononbench_flows.structures.same import unhanded
from phononbench_flows.symmetry import symmetry

logger = logging.getLogger(__name__)

_STEPS = 10**6  # coordinates, Å and degrees are told apart at 1e-6


def content_hash(structure: Structure) -> str:
    """Sha256 of species, lattice parameters and fractional coordinates modulo 1, rounded to 1e-6.

    It does not depend on the order of the sites, nor on how the cell is turned in space.
    """
    lattice = np.rint(np.array(structure.lattice.parameters) * _STEPS).astype(np.int64)
    coordinates = np.rint((structure.frac_coords % 1) * _STEPS).astype(np.int64) % _STEPS
    symbols = [site.species_string for site in structure]
    sites = sorted(zip(symbols, coordinates.tolist(), strict=True))
    return hashlib.sha256(json.dumps([lattice.tolist(), sites]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Packed:
    """A crystal in a fraction of a Structure's memory: a reference set may hold a hundred thousand."""

    matrix: np.ndarray
    species: tuple[Any, ...]
    coordinates: np.ndarray

    @classmethod
    def of(cls, structure: Structure) -> _Packed:
        return cls(structure.lattice.matrix.copy(), tuple(structure.species), structure.frac_coords)

    def structure(self) -> Structure:
        return Structure(self.matrix, self.species, self.coordinates)


_Kind = tuple[str, int | None]


class ReferenceSet:
    """Crystals by name, and the question which of them another one repeats.

    It answers as ``StructureMatcher(ltol, stol, angle_tol).fit`` does, as the field asks whether a crystal is novel,
    but only among crystals of one space group: by these tolerances the phases of a perovskite are one.
    """

    def __init__(self, protocol: Protocol) -> None:
        rules = protocol.screening
        self._matcher = StructureMatcher(ltol=rules.ltol, stol=rules.stol, angle_tol=rules.angle_tol)
        self._symprec = protocol.relaxation.symprec
        self._added: defaultdict[str, list[tuple[str, _Packed]]] = defaultdict(list)
        self._reduced: defaultdict[_Kind, list[tuple[str, _Packed]]] = defaultdict(list)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, name: str, structure: Structure) -> None:
        """Add a crystal. It is looked at only when its formula is asked for."""
        self._added[_formula(structure)].append((name, _Packed.of(structure)))
        self._size += 1

    def find(self, structure: Structure, group: int | None) -> str | None:
        """Name of the first that the crystal, of the space group of this number, repeats; None if it repeats none."""
        formula = _formula(structure)
        for name, waiting in self._added.pop(formula, ()):
            found = waiting.structure()
            kind = (formula, unhanded(symmetry(found, self._symprec).number))
            self._reduced[kind].append((name, _Packed.of(_reduce(found))))
        likes = self._reduced.get((formula, unhanded(group)), ())
        if not likes:
            return None
        reduced = _reduce(structure)
        for name, reference in likes:
            if len(reference.species) == len(reduced) and self._matcher.fit(
                reference.structure(), reduced, skip_structure_reduction=True
            ):
                return name
        return None


def _formula(structure: Structure) -> str:
    return structure.composition.reduced_formula


def _reduce(structure: Structure) -> Structure:
    """Primitive cell of the Niggli cell, in the order in which StructureMatcher does it."""
    try:
        return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        # A cell that cannot be reduced is no reason to lose the crystal: it is compared as it is.
        return structure


def load_reference(path: Path, protocol: Protocol) -> ReferenceSet:
    """The crystals of a folder, archive or table, to be asked. Unusable ones are counted in the log."""
    found = ReferenceSet(protocol)
    unusable = 0
    for raw, parsed in parse_all(read_inputs([path])):
        if isinstance(parsed, Rejection) or check(parsed.structure, protocol.screening, None) is not None:
            unusable += 1
        else:
            found.add(raw.label, parsed.structure)
    level = logging.WARNING if unusable else logging.INFO
    logger.log(level, "reference %s: %d crystals, %d left out as unusable", path, len(found), unusable)
    return found
