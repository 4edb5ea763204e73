"""Force constants by finite displacements: phonopy makes the supercells, the potential gives their forces.

Protocol of the released PhononBench scripts: displacements of 0.01 Å in a 2x2x2 supercell of the cell as given,
the mean force of each supercell removed, phonopy's own solver, and its one-pass symmetrisation by translation and
permutation.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch_sim as ts
from phonopy import Phonopy
from phonopy.harmonic.displacement import get_least_displacements
from phonopy.harmonic.force_constants import full_fc_to_compact_fc
from phonopy.structure.atomic_data import get_atomic_data
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import PrimitiveMatrixAutoDefaultWarning
from phonopy.structure.symmetry import Symmetry
from pymatgen.core import Element, Structure
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget, Failure, FiniteOutputModel, bisect_failures, delivering
from phononbench_flows.engine.interpolation import THZ2, interpolation
from phononbench_flows.engine.lattices import commensurate_points
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ForceConstantsSettings

# Batches sent off while others are displaced and solved, so that the potential never waits.
_AHEAD = 3

_ABOVE_ALL = 1e6  # THz^2
GAMMA = "gamma"

PLUSMINUS: dict[str, Literal["auto"] | bool] = {"auto": "auto", "both": True, "plus": False}


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
        noise: what the forces leave undetermined, by where it shows, THz; see :func:`_noise`.
        seconds: this crystal's share of the time of the calls, and what else was done for it.
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
    noise: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def largest_noise(self) -> float:
        """The largest of what the forces leave undetermined but at Γ, THz; 0 where it is not known."""
        return max((value for name, value in self.noise.items() if name != GAMMA), default=0.0)

    @classmethod
    def of(cls, phonon: Phonopy, **more: Any) -> ForceConstants:
        """Those of a Phonopy object whose force constants are set.

        Parameters:
            more: ``n_displacements``, ``max_drift``, ``noise`` and ``seconds``, where they are known.
        """
        unit, array = phonon.unitcell, phonon.force_constants
        if array is None:
            raise RuntimeError("phonopy has no force constants")
        return cls(
            cell=np.array(unit.cell),
            numbers=np.array(unit.numbers),
            positions=np.array(unit.scaled_positions),
            supercell=np.array(phonon.supercell_matrix),
            primitive=np.array(phonon.primitive_matrix),
            array=full_fc_to_compact_fc(phonon.primitive, array) if len(array) == len(phonon.supercell) else array,
            symprec=phonon.symmetry.tolerance,
            **({"n_displacements": 0, "max_drift": 0.0} | more),
        )

    def phonopy(self, *, symmetry: bool = True) -> Phonopy:
        """The Phonopy object from which every frequency can be had.

        Parameters:
            symmetry: whether it knows its symmetry, which takes most of the time and few need.
        """
        phonon = Phonopy(
            phonopy_cell(self.cell, self.numbers, self.positions),
            supercell_matrix=self.supercell,
            primitive_matrix=self.primitive,
            symprec=self.symprec,
            is_symmetry=symmetry,
        )
        phonon.force_constants = self.array
        return phonon

    def arrays(self) -> dict[str, np.ndarray]:
        """What has to be kept to have the same spectrum again."""
        names = ("cell", "numbers", "positions", "supercell", "primitive", "array")
        scalars = {"symprec": self.symprec, "n_displacements": self.n_displacements, "max_drift": self.max_drift}
        scalars |= {f"noise_{name}": value for name, value in self.noise.items()}
        return {name: getattr(self, name) for name in names} | {k: np.asarray(v) for k, v in scalars.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ForceConstants:
        """Inverse of :meth:`arrays`."""
        scalars: dict[str, Any] = {
            "symprec": float(arrays["symprec"]),
            "n_displacements": int(arrays["n_displacements"]),
            "max_drift": float(arrays["max_drift"]),
            "noise": {
                name.removeprefix("noise_"): float(value) for name, value in arrays.items() if name.startswith("noise_")
            },
        }
        kept = {name: value for name, value in arrays.items() if not name.startswith("noise_")}
        return cls(**(kept | scalars))


@dataclass
class _Crystal:
    """A crystal whose supercells are under way."""

    index: int
    phonon: Phonopy
    n_supercells: int
    forces: dict[int, np.ndarray] = field(default_factory=dict)
    failed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class _Supercell:
    crystal: _Crystal
    number: int
    cell: PhonopyAtoms


@dataclass(frozen=True)
class _Computed:
    """Forces (n_atoms, 3) in eV/Å in a supercell, or why there are none."""

    item: _Supercell
    forces: np.ndarray | Failure
    seconds: float


def _ignore(index: int, result: ForceConstants | Failure) -> None:
    """Nobody wants to hear of single results."""


def phonopy_cell(cell: np.ndarray, numbers: Sequence[int] | np.ndarray, positions: np.ndarray) -> PhonopyAtoms:
    """A phonopy cell; elements without a standard atomic weight, on which phonopy stops, get pymatgen's mass."""
    weights = get_atomic_data().atom_data
    masses = [weights[z][3] or float(Element.from_Z(z).atomic_mass) for z in map(int, numbers)]
    return PhonopyAtoms(cell=cell, numbers=numbers, scaled_positions=positions, masses=masses)


def undisplaced(structure: Structure, settings: ForceConstantsSettings, *, symmetry: bool = True) -> Phonopy:
    """A Phonopy object of this crystal, of which nothing is displaced.

    Parameters:
        symmetry: whether it knows its symmetry.
    """
    cell = phonopy_cell(structure.lattice.matrix, structure.atomic_numbers, structure.frac_coords)
    with warnings.catch_warnings():
        # "auto" is what the protocol asks for; phonopy warns of it as a default that has changed.
        warnings.simplefilter("ignore", PrimitiveMatrixAutoDefaultWarning)
        return Phonopy(
            cell, supercell_matrix=np.diag(settings.supercell), symprec=settings.symprec, is_symmetry=symmetry
        )


def n_displacements(primitive: PhonopyAtoms, settings: ForceConstantsSettings) -> int:
    """How many displacements a primitive cell takes, if its supercell has the same symmetry."""
    symmetry, plusminus = Symmetry(primitive, settings.symprec), PLUSMINUS[settings.plusminus]
    return len(get_least_displacements(symmetry, is_plusminus=plusminus, is_diagonal=settings.diagonal))


def displace(structure: Structure, settings: ForceConstantsSettings) -> Phonopy:
    """A Phonopy object of this crystal with its displacements made."""
    phonon = undisplaced(structure, settings)
    phonon.generate_displacements(
        distance=settings.distance, is_diagonal=settings.diagonal, is_plusminus=PLUSMINUS[settings.plusminus]
    )
    return phonon


def force_constants(
    structures: Sequence[Structure],
    model: ModelInterface,
    settings: ForceConstantsSettings,
    *,
    budget: Budget | None = None,
    on_result: Callable[[int, ForceConstants | Failure], None] = _ignore,
) -> list[ForceConstants | Failure]:
    """Force constants of many relaxed crystals; a result or a Failure in each place.

    The supercells of many crystals share the calls of the model, which go on while others are displaced and solved.
    Crystals are finished in order, so that few are under way at any time.

    Parameters:
        structures: relaxed crystals.
        model: float64 torch-sim model with forces.
        settings: supercell, displacement and symmetrisation.
        budget: atoms per batch.
        on_result: called with index and result as soon as a crystal is finished, in the caller's thread.
    """
    # Only a model that says so may be called by several threads; see ThreadedModel.
    computing = ThreadPoolExecutor(getattr(model, "concurrent_calls", 1), "forces")
    try:
        run = _Run(structures, model, settings, budget or Budget.for_device(model.device), on_result, computing)
        for index in range(len(structures)):
            run.prepare(index)
            run.submit(everything=index == len(structures) - 1)
        run.collect(at_most=0)
    finally:  # what waits is not begun if something went wrong
        computing.shutdown(cancel_futures=True)
    return [run.results[i] for i in range(len(structures))]


class _Run:
    """Crystals on their way from displacement to force constants."""

    def __init__(
        self,
        structures: Sequence[Structure],
        model: ModelInterface,
        settings: ForceConstantsSettings,
        budget: Budget,
        on_result: Callable[[int, ForceConstants | Failure], None],
        computing: ThreadPoolExecutor,
    ) -> None:
        self.structures, self.model, self.settings, self.budget = structures, model, settings, budget
        self.on_result = delivering(on_result)
        self._threads = computing
        self.results: dict[int, ForceConstants | Failure] = {}
        self._waiting: list[_Supercell] = []
        self._computing: deque[Future[list[_Computed]]] = deque()

    def prepare(self, index: int) -> None:
        """Displace one crystal and queue its supercells."""

        def displaced(_: list[int]) -> None:
            began = time.perf_counter()
            phonon = displace(self.structures[index], self.settings)
            cells = phonon.supercells_with_displacements or []
            crystal = _Crystal(index, phonon, len(cells), seconds=time.perf_counter() - began)
            self._waiting += [_Supercell(crystal, number, cell) for number, cell in enumerate(cells)]

        self._alone(index, displaced, len(self.structures[index]))

    def submit(self, *, everything: bool) -> None:
        """Send off full batches, or all that waits."""
        while self._waiting and (everything or sum(map(_size, self._waiting)) >= self.budget.max_atoms):
            batch = self.budget.fill(self._waiting, _size)
            self._waiting = self._waiting[len(batch) :]
            self._computing.append(self._threads.submit(_forces_of, batch, self.model, self.budget))
            self.collect(at_most=_AHEAD)

    def collect(self, *, at_most: int) -> None:
        """Take back the oldest batches until at most so many are computed; solve the crystals that they complete."""
        while len(self._computing) > at_most:
            for computed in self._computing.popleft().result():
                self._take_back(computed)

    def _take_back(self, computed: _Computed) -> None:
        crystal = computed.item.crystal
        crystal.seconds += computed.seconds
        if crystal.failed:
            return
        if isinstance(computed.forces, Failure):
            crystal.failed = True
            self._end(crystal.index, computed.forces)
            return
        crystal.forces[computed.item.number] = computed.forces
        if len(crystal.forces) == crystal.n_supercells:
            atoms = len(crystal.phonon.supercell)
            self._alone(crystal.index, lambda _: self._end(crystal.index, _solved(crystal, self.settings)), atoms)

    def _alone(self, index: int, compute: Callable[[list[int]], None], atoms: int) -> None:
        """Compute something of one crystal, with so many atoms; what it raises is this crystal's failure."""
        bisect_failures(
            [index],
            compute,
            atoms=lambda _: atoms,
            budget=self.budget,
            unfinished=lambda i: i not in self.results,
            fail=self._end,
        )

    def _end(self, index: int, result: ForceConstants | Failure) -> None:
        self.results[index] = result
        self.on_result(index, result)


def _size(item: _Supercell) -> int:
    return len(item.cell)


def _forces_of(batch: list[_Supercell], model: ModelInterface, budget: Budget) -> list[_Computed]:
    """Forces, or a Failure, for each supercell of a batch whose crystal has not failed; runs beside everything else."""
    wanted = [item for item in batch if not item.crystal.failed]
    finite = FiniteOutputModel(model)
    done: dict[int, _Computed] = {}

    def compute(items: list[_Supercell]) -> None:
        began = time.perf_counter()
        state = ts.initialize_state([item.cell for item in items], finite.device, finite.dtype)
        forces = torch.split(finite(state)["forces"].cpu(), [_size(item) for item in items])
        seconds = (time.perf_counter() - began) / len(items)
        for item, values, bad in zip(items, forces, finite.bad.tolist(), strict=True):
            not_finite = Failure(Reason.NOT_FINITE, f"no finite forces in displaced supercell {item.number + 1}")
            done[id(item)] = _Computed(item, not_finite if bad else values.numpy(), seconds)

    def fail(item: _Supercell, failure: Failure) -> None:
        done[id(item)] = _Computed(item, failure, 0.0)

    def unfinished(item: _Supercell) -> bool:
        return id(item) not in done

    if wanted:
        bisect_failures(
            wanted, compute, atoms=_size, budget=budget, unfinished=lambda item: id(item) not in done, fail=fail
        )
    return [done[id(item)] for item in wanted]


def _solved(crystal: _Crystal, settings: ForceConstantsSettings) -> ForceConstants:
    began = time.perf_counter()
    phonon = crystal.phonon
    forces = np.array([crystal.forces[j] for j in range(len(crystal.forces))])
    drift = forces.mean(axis=1, keepdims=True)
    phonon.forces = forces - drift if settings.remove_drift else forces
    phonon.produce_force_constants()
    measured = frequencies_held(phonon)
    if settings.symmetrize:
        phonon.symmetrize_force_constants()
    return ForceConstants.of(
        phonon,
        n_displacements=len(forces),
        max_drift=float(np.linalg.norm(drift, axis=2).max()),
        noise=_noise(phonon, drift[:, 0], measured, settings.distance),
        seconds=crystal.seconds + time.perf_counter() - began,
    )


def symmetrised(phonon: Phonopy) -> ForceConstants:
    """Force constants of another program, symmetrised as our own, which changes them; with what that says of noise."""
    measured = frequencies_held(phonon)
    phonon.symmetrize_force_constants()
    return ForceConstants.of(phonon, noise=_noise(phonon, np.empty((0, 3)), measured, distance=1.0))


def _noise(phonon: Phonopy, drift: np.ndarray, measured: np.ndarray, distance: float) -> dict[str, float]:
    """What the forces leave undetermined, as frequencies in THz.

    ``drift``: forces of a displaced supercell add up to zero; what is left, over the displacement, is as a rule what
    the acoustic modes at Γ would have before the sum rule, its signs at random from atom to atom. ``symmetrisation``:
    how far that moved the lowest mode, squared, at a q-point that the supercell holds. ``gamma``: the same of the
    lowest optical mode at Γ, which also has the forces that are there before a displacement: where symmetry makes one
    direction of two, they are not taken out, and potentials that are not invariant under reflections leave some.

    Parameters:
        drift: mean forces that were removed, (n_displacements, 3), eV/Å.
        measured: squared frequencies before the symmetrisation, (n_q, n_bands), THz^2.
        distance: displacement, Å.
    """
    primitive = phonon.primitive
    sums = np.linalg.norm(drift, axis=1) * len(phonon.supercell) / distance
    acoustic = np.sqrt(len(primitive) * (sums**2).mean()) / primitive.masses.sum() * THZ2 if len(sums) else 0.0
    moved = np.sqrt(np.abs(measured[:, 0] - frequencies_held(phonon)[:, 0]))
    elsewhere = moved[1:].max(initial=0.0)
    return {"drift": float(np.sqrt(acoustic)), "symmetrisation": float(elsewhere), GAMMA: float(moved[0])}


def frequencies_held(phonon: Phonopy) -> np.ndarray:
    """Squared frequencies (n_q, n_bands) in THz^2 at the supercell's q-points: Γ first, without acoustic ones.

    Force constants whose rows alone add up to zero mix acoustic and optical modes there; in the place of the acoustic
    ones is a number above all others.
    """
    found = interpolation(phonon, tolerance=phonon.symmetry.tolerance, take_out_rotations=False)
    points = commensurate_points(found.supercell)
    matrices = found.matrices(points)
    masses = found.cell.masses
    acoustic = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    optical = np.eye(len(acoustic)) - acoustic @ acoustic.T
    gamma = int(np.abs(points).max(axis=1).argmin())
    matrices[[0, gamma]] = matrices[[gamma, 0]]
    matrices[0] = optical @ matrices[0] @ optical + _ABOVE_ALL * acoustic @ acoustic.T
    return np.linalg.eigvalsh(matrices)
