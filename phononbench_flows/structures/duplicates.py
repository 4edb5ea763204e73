"""Which crystals are the same: exactly (a hash), or by StructureMatcher (within a set, or in a reference)."""

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

from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures.checks import check
from phononbench_flows.structures.parsing import parse_all
from phononbench_flows.structures.raw import Rejection
from phononbench_flows.structures.readers import read_inputs

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
    """A crystal in a fraction of a Structure's memory: a Matcher may keep a hundred thousand."""

    matrix: np.ndarray
    species: tuple[Any, ...]
    coordinates: np.ndarray

    @classmethod
    def of(cls, structure: Structure) -> _Packed:
        return cls(structure.lattice.matrix.copy(), tuple(structure.species), structure.frac_coords)

    def structure(self) -> Structure:
        return Structure(self.matrix, self.species, self.coordinates)


class Matcher:
    """Representatives by name, and the question which of them a crystal repeats.

    It answers as ``StructureMatcher(ltol, stol, angle_tol).fit`` does, with each crystal reduced once, and
    compared only with those of its formula and its number of atoms in the reduced primitive cell.
    """

    def __init__(self, rules: ScreeningSettings) -> None:
        self._matcher = StructureMatcher(ltol=rules.ltol, stol=rules.stol, angle_tol=rules.angle_tol)
        self._added: defaultdict[str, list[tuple[str, _Packed]]] = defaultdict(list)
        self._reduced: defaultdict[tuple[str, int], list[tuple[str, _Packed]]] = defaultdict(list)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, name: str, structure: Structure) -> None:
        """Make the crystal a representative. It is reduced only when its formula is asked for."""
        self._added[_formula(structure)].append((name, _Packed.of(structure)))
        self._size += 1

    def find(self, structure: Structure) -> str | None:
        """Name of the first representative that the crystal repeats, or None."""
        return self._find(structure)[0]

    def find_or_add(self, name: str, structure: Structure) -> str | None:
        """Like :meth:`find`; a crystal that repeats none becomes a representative itself."""
        found, key, reduced = self._find(structure)
        if found is None:
            self._reduced[key].append((name, _Packed.of(reduced)))
            self._size += 1
        return found

    def _find(self, structure: Structure) -> tuple[str | None, tuple[str, int], Structure]:
        formula = _formula(structure)
        for name, waiting in self._added.pop(formula, ()):
            reduced = _reduce(waiting.structure())
            self._reduced[formula, len(reduced)].append((name, _Packed.of(reduced)))
        reduced = _reduce(structure)
        key = (formula, len(reduced))
        for name, representative in self._reduced.get(key, ()):
            if self._matcher.fit(representative.structure(), reduced, skip_structure_reduction=True):
                return name, key, reduced
        return None, key, reduced


def _formula(structure: Structure) -> str:
    return structure.composition.reduced_formula


def _reduce(structure: Structure) -> Structure:
    """Primitive cell of the Niggli cell, in the order in which StructureMatcher does it."""
    try:
        return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        # A cell that cannot be reduced is no reason to lose the crystal: it is compared as it is.
        return structure


def load_reference(path: Path, rules: ScreeningSettings) -> Matcher:
    """The crystals of a folder, archive or table as a matcher to ask. Unusable ones are counted in the log."""
    matcher = Matcher(rules)
    unusable = 0
    for raw, parsed in parse_all(read_inputs([path])):
        if isinstance(parsed, Rejection) or check(parsed.structure, rules, None) is not None:
            unusable += 1
        else:
            matcher.add(raw.label, parsed.structure)
    level = logging.WARNING if unusable else logging.INFO
    logger.log(level, "reference %s: %d crystals, %d left out as unusable", path, len(matcher), unusable)
    return matcher
