"""Force constants by finite displacements: phonopy makes the supercells, the potential gives their forces.

Protocol of the released PhononBench scripts: displacements of 0.01 Å in a 2x2x2 supercell of the cell as given,
the mean force of each supercell removed, phonopy's own solver, and its one-pass symmetrisation by translation and
permutation.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch_sim as ts
from phonopy import Phonopy
from phonopy.harmonic.force_constants import full_fc_to_compact_fc
from phonopy.structure.atomic_data import get_atomic_data
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import PrimitiveMatrixAutoDefaultWarning
from pymatgen.core import Element, Structure
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget, Failure, Guard, delivering, isolate
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ForceConstants as Settings

_PLUSMINUS: dict[str, Literal["auto"] | bool] = {"auto": "auto", "both": True, "plus": False}


@dataclass(frozen=True)
class ForceConstants:
    """Force constants of one crystal, with the cells they belong to.

    Attributes:
        cell: unit cell, rows are lattice vectors, (3, 3), Å; numbers: (n,); positions: fractional, (n, 3).
        supercell, primitive: matrices from the unit cell to either, (3, 3).
        array: compact force constants, (n_primitive, n_supercell, 3, 3), eV/Å^2.
        symprec: Å.
        n_displacements: supercells computed.
        max_drift: largest mean force that was removed, eV/Å.
        seconds: this crystal's share of the wall time.
    """

    cell: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    supercell: np.ndarray
    primitive: np.ndarray
    array: np.ndarray
    symprec: float
    n_displacements: int
    max_drift: float
    seconds: float = 0.0

    def phonopy(self) -> Phonopy:
        """The Phonopy object from which every frequency can be had."""
        phonon = Phonopy(
            _phonopy_cell(self.cell, self.numbers, self.positions),
            supercell_matrix=self.supercell,
            primitive_matrix=self.primitive,
            symprec=self.symprec,
        )
        phonon.force_constants = self.array
        return phonon

    def arrays(self) -> dict[str, np.ndarray]:
        """What has to be kept to have the same spectrum again."""
        names = ("cell", "numbers", "positions", "supercell", "primitive", "array")
        scalars = {"symprec": self.symprec, "n_displacements": self.n_displacements, "max_drift": self.max_drift}
        return {name: getattr(self, name) for name in names} | {k: np.asarray(v) for k, v in scalars.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ForceConstants:
        """Inverse of :meth:`arrays`."""
        scalars: dict[str, Any] = {
            "symprec": float(arrays["symprec"]),
            "n_displacements": int(arrays["n_displacements"]),
            "max_drift": float(arrays["max_drift"]),
        }
        return cls(**(dict(arrays) | scalars))


@dataclass
class _Crystal:
    """A crystal whose supercells are under way."""

    index: int
    phonon: Phonopy
    forces: dict[int, np.ndarray] = field(default_factory=dict)
    failed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class _Supercell:
    crystal: _Crystal
    number: int
    cell: PhonopyAtoms


def _ignore(index: int, result: ForceConstants | Failure) -> None:
    """Nobody wants to hear of single results."""


def _phonopy_cell(cell: np.ndarray, numbers: Sequence[int] | np.ndarray, positions: np.ndarray) -> PhonopyAtoms:
    """A phonopy cell; elements without a standard atomic weight, on which phonopy stops, get pymatgen's mass."""
    weights = get_atomic_data().atom_data
    masses = [weights[z][3] or float(Element.from_Z(z).atomic_mass) for z in map(int, numbers)]
    return PhonopyAtoms(cell=cell, numbers=numbers, scaled_positions=positions, masses=masses)


def displace(structure: Structure, settings: Settings) -> Phonopy:
    """A Phonopy object of this crystal with its displacements made."""
    cell = _phonopy_cell(structure.lattice.matrix, structure.atomic_numbers, structure.frac_coords)
    with warnings.catch_warnings():
        # "auto" is what the protocol asks for; phonopy warns of it as a default that has changed.
        warnings.simplefilter("ignore", PrimitiveMatrixAutoDefaultWarning)
        phonon = Phonopy(cell, supercell_matrix=np.diag(settings.supercell), symprec=settings.symprec)
    phonon.generate_displacements(
        distance=settings.distance, is_diagonal=settings.diagonal, is_plusminus=_PLUSMINUS[settings.plusminus]
    )
    return phonon


def force_constants(
    structures: Sequence[Structure],
    model: ModelInterface,
    settings: Settings,
    *,
    budget: Budget | None = None,
    on_result: Callable[[int, ForceConstants | Failure], None] = _ignore,
) -> list[ForceConstants | Failure]:
    """Force constants of many relaxed crystals; a result or a Failure in each place.

    The supercells of many crystals share the calls of the model. Crystals are finished in order, so that few are
    under way at any time.

    Parameters:
        structures: relaxed crystals.
        model: float64 torch-sim model with forces.
        settings: supercell, displacement and symmetrisation.
        budget: atoms per batch.
        on_result: called with index and result as soon as a crystal is finished.
    """
    run = _Run(structures, Guard(model), settings, budget or Budget.for_device(model.device), on_result)
    for index in range(len(structures)):
        run.prepare(index)
        run.compute(everything=index == len(structures) - 1)
    return [run.results[i] for i in range(len(structures))]


class _Run:
    """Crystals on their way from displacement to force constants."""

    def __init__(
        self,
        structures: Sequence[Structure],
        guard: Guard,
        settings: Settings,
        budget: Budget,
        on_result: Callable[[int, ForceConstants | Failure], None],
    ) -> None:
        self.structures, self.guard, self.settings, self.budget = structures, guard, settings, budget
        self.on_result = delivering(on_result)
        self.results: dict[int, ForceConstants | Failure] = {}
        self._isolate = partial(isolate, budget=budget)
        self._waiting: list[_Supercell] = []
        self._under_way: list[_Crystal] = []

    def prepare(self, index: int) -> None:
        """Displace one crystal and queue its supercells."""

        def displaced(indices: list[int]) -> None:
            (i,) = indices
            began = time.perf_counter()
            crystal = _Crystal(i, displace(self.structures[i], self.settings))
            cells = crystal.phonon.supercells_with_displacements or []
            crystal.seconds = time.perf_counter() - began
            self._under_way.append(crystal)
            self._waiting.extend(_Supercell(crystal, j, cell) for j, cell in enumerate(cells))

        self._isolate(
            [index],
            displaced,
            atoms=lambda i: len(self.structures[i]),
            unfinished=lambda i: i not in self.results,
            fail=self._end,
        )

    def compute(self, *, everything: bool) -> None:
        """Forces for full batches, or for all that waits, and force constants for the crystals completed by them."""
        while self._waiting and (everything or sum(map(_size, self._waiting)) >= self.budget.max_atoms):
            batch = next(self.budget.fill(self._waiting, _size))
            self._waiting = self._waiting[len(batch) :]
            self._isolate(
                [item for item in batch if not item.crystal.failed],
                lambda items: _forces(items, self.guard, self._fail),
                atoms=_size,
                unfinished=lambda item: item.number not in item.crystal.forces and not item.crystal.failed,
                fail=self._fail,
            )
            waited_for = {item.crystal.index for item in self._waiting}
            complete = [crystal for crystal in self._under_way if crystal.index not in waited_for]
            self._under_way = [crystal for crystal in self._under_way if crystal.index in waited_for]
            for crystal in complete:
                if not crystal.failed:
                    self._solve(crystal)

    def _solve(self, crystal: _Crystal) -> None:
        self._isolate(
            [crystal],
            lambda crystals: self._end(crystal.index, _solved(crystals[0], self.settings)),
            atoms=lambda c: len(c.phonon.supercell),
            unfinished=lambda c: c.index not in self.results,
            fail=lambda c, failure: self._end(c.index, failure),
        )

    def _fail(self, item: _Supercell, failure: Failure) -> None:
        if not item.crystal.failed:
            item.crystal.failed = True
            self._end(item.crystal.index, failure)

    def _end(self, index: int, result: ForceConstants | Failure) -> None:
        self.results[index] = result
        self.on_result(index, result)


def _size(item: _Supercell) -> int:
    return len(item.cell)


def _forces(batch: list[_Supercell], guard: Guard, fail: Callable[[_Supercell, Failure], None]) -> None:
    """One call of the model for many supercells."""
    if not batch:
        return
    began = time.perf_counter()
    state = ts.initialize_state([s.cell for s in batch], guard.device, guard.dtype)
    forces = guard(state)["forces"]
    bad = guard.bad.tolist()
    per_system = torch.split(forces.cpu(), [len(s.cell) for s in batch])
    share = (time.perf_counter() - began) / len(batch)
    for item, values, is_bad in zip(batch, per_system, bad, strict=True):
        item.crystal.seconds += share
        if is_bad:
            fail(item, Failure(Reason.NOT_FINITE, f"no finite forces in displaced supercell {item.number + 1}"))
        else:
            item.crystal.forces[item.number] = values.numpy()


def _solved(crystal: _Crystal, settings: Settings) -> ForceConstants:
    began = time.perf_counter()
    phonon = crystal.phonon
    forces = np.array([crystal.forces[j] for j in range(len(crystal.forces))])
    drift = forces.mean(axis=1, keepdims=True)
    phonon.forces = forces - drift if settings.remove_drift else forces
    phonon.produce_force_constants()
    if settings.symmetrize:
        phonon.symmetrize_force_constants()
    unit, array = phonon.unitcell, phonon.force_constants
    if array is None:
        raise RuntimeError("phonopy gave no force constants")
    return ForceConstants(
        cell=np.array(unit.cell),
        numbers=np.array(unit.numbers),
        positions=np.array(unit.scaled_positions),
        supercell=np.array(phonon.supercell_matrix),
        primitive=np.array(phonon.primitive_matrix),
        array=full_fc_to_compact_fc(phonon.primitive, array) if len(array) == len(phonon.supercell) else array,
        symprec=settings.symprec,
        n_displacements=len(forces),
        max_drift=float(np.linalg.norm(drift, axis=2).max()),
        seconds=crystal.seconds + time.perf_counter() - began,
    )
