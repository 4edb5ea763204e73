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

from phononbench_flows.engine.batch import Budget, Failure, Guard, isolate
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ForceConstants as Settings

_PLUSMINUS: dict[str, str | bool] = {"auto": "auto", "both": True, "plus": False}


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
        scalars = {
            "symprec": float(arrays["symprec"]),
            "n_displacements": int(arrays["n_displacements"]),
            "max_drift": float(arrays["max_drift"]),
        }
        return cls(**{k: v for k, v in arrays.items() if k not in scalars}, **scalars)


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
    guard, budget = Guard(model), budget or Budget.for_device(model.device)
    results: list[ForceConstants | Failure | None] = [None] * len(structures)

    def finish(index: int, result: ForceConstants | Failure) -> None:
        results[index] = result
        on_result(index, result)

    def fail(item: _Supercell, failure: Failure) -> None:
        if not item.crystal.failed:
            item.crystal.failed = True
            finish(item.crystal.index, failure)

    def compute(batch: list[_Supercell]) -> None:
        _forces(batch, guard, fail)

    def prepare(indices: list[int]) -> None:
        (index,) = indices
        began = time.perf_counter()
        crystal = _Crystal(index, displace(structures[index], settings))
        crystal.seconds = time.perf_counter() - began
        waiting.extend(_Supercell(crystal, j, c) for j, c in enumerate(crystal.phonon.supercells_with_displacements))
        crystals.append(crystal)

    def solve(crystal_list: list[_Crystal]) -> None:
        (crystal,) = crystal_list
        finish(crystal.index, _solve(crystal, settings))

    waiting: list[_Supercell] = []
    crystals: list[_Crystal] = []
    for index in range(len(structures)):
        isolate(
            [index],
            prepare,
            atoms=lambda i: len(structures[i]),
            budget=budget,
            unfinished=lambda i: results[i] is None,
            fail=finish,
        )
        final = index == len(structures) - 1
        while waiting and (final or sum(len(s.cell) for s in waiting) >= budget.max_atoms):
            batch = next(budget.fill(waiting, lambda s: len(s.cell)))
            waiting = waiting[len(batch) :]
            isolate(
                [s for s in batch if not s.crystal.failed],
                compute,
                atoms=lambda s: len(s.cell),
                budget=budget,
                unfinished=lambda s: s.number not in s.crystal.forces and not s.crystal.failed,
                fail=fail,
            )
            under_way = {s.crystal.index for s in waiting}
            for crystal in [c for c in crystals if c.index not in under_way]:
                crystals.remove(crystal)
                if not crystal.failed:
                    isolate(
                        [crystal],
                        solve,
                        atoms=lambda c: len(c.phonon.supercell),
                        budget=budget,
                        unfinished=lambda c: results[c.index] is None,
                        fail=lambda c, failure: finish(c.index, failure),
                    )
    return [r if r is not None else Failure(Reason.EXCEPTION, "no result") for r in results]


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


def _solve(crystal: _Crystal, settings: Settings) -> ForceConstants:
    began = time.perf_counter()
    phonon = crystal.phonon
    forces = np.array([crystal.forces[j] for j in range(len(crystal.forces))])
    drift = forces.mean(axis=1, keepdims=True)
    phonon.forces = forces - drift if settings.remove_drift else forces
    phonon.produce_force_constants()
    if settings.symmetrize:
        phonon.symmetrize_force_constants()
    unit, array = phonon.unitcell, phonon.force_constants
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
