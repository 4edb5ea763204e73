"""Force constants by finite displacements: phonopy makes the supercells, the potential gives their forces.

Protocol of the released PhononBench scripts: displacements of 0.01 Å in a 2x2x2 supercell of the cell as given,
the mean force of each supercell removed, phonopy's own solver, and its one-pass symmetrisation by translation and
permutation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from phonopy import Phonopy
from phonopy.harmonic.force_constants import full_fc_to_compact_fc
from phonopy.structure.atomic_data import get_atomic_data
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import PrimitiveMatrixAutoDefaultWarning
from pymatgen.core import Element, Structure
from torch_sim.models.interface import ModelInterface

from phononbench_flows.engine.batch import Budget
from phononbench_flows.engine.dialogues import Dialogue, hold
from phononbench_flows.engine.interpolation import THZ2, interpolation, without_translations
from phononbench_flows.engine.lattices import commensurate_points
from phononbench_flows.engine.solver import solve
from phononbench_flows.engine.trouble import Failure, Found
from phononbench_flows.protocol import ForceConstantsSettings

_SAME_DISPLACEMENT = 1e-8  # Å
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

    @property
    def largest_noise(self) -> float:
        """The largest of what the forces leave undetermined but at Γ, THz; 0 where it is not known."""
        return max((value for name, value in self.noise.items() if name != GAMMA), default=0.0)

    @classmethod
    def of(cls, phonon: Phonopy, **more: Any) -> ForceConstants:
        """Those of a Phonopy object whose force constants are set.

        Parameters:
            more: ``n_displacements``, ``max_drift`` and ``noise``, where they are known.
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


@dataclass(frozen=True)
class Displaced:
    """Some of a crystal's displaced supercells: what was displaced, and the forces.

    Attributes:
        displacements: rows of an atom of the supercell and its displacement in Å, (n, 4).
        forces: (n, n_atoms, 3), eV/Å.
    """

    displacements: np.ndarray
    forces: np.ndarray

    @classmethod
    def of(cls, phonon: Phonopy, forces: Mapping[int, np.ndarray]) -> Displaced:
        """Those of a Phonopy object whose forces are given by their numbers, one at least."""
        return cls(np.array([phonon.displacements[number] for number in forces]), np.array(list(forces.values())))

    def in_order_of(self, phonon: Phonopy) -> dict[int, np.ndarray]:
        """The forces by the number of each displacement in a Phonopy object, without those that it does not have."""
        apart = np.abs(np.array(phonon.displacements)[:, None] - self.displacements).max(axis=2)
        return {int(n): self.forces[k] for n, k in np.argwhere(apart < _SAME_DISPLACEMENT)}


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
    known: Callable[[int], Displaced | None] = lambda _: None,
    budget: Budget | None = None,
    on_result: Callable[[int, ForceConstants | Failure], None] = _ignore,
) -> list[ForceConstants | Failure]:
    """Force constants of many relaxed crystals; a result or a Failure in each place.

    Parameters:
        model: float64 torch-sim model with forces.
        settings: supercell, displacement, symmetrisation.
        known: gives what was computed before of the crystal at an index, if anything; it is not computed again.
        budget: atoms per batch.
        on_result: called with index and result as soon as a crystal is finished.
    """

    def tell(index: int, found: Found[ForceConstants] | Failure) -> None:
        on_result(index, found if isinstance(found, Failure) else found.result)

    dialogues = [
        partial(finite_displacements, structure, settings, known(index)) for index, structure in enumerate(structures)
    ]
    found = hold(dialogues, model, budget=budget, on_result=tell)
    return [each if isinstance(each, Failure) else each.result for each in found]


def finite_displacements(
    structure: Structure, settings: ForceConstantsSettings, known: Displaced | None = None
) -> Dialogue:
    """Dialogue about a relaxed crystal, which ends with its :class:`ForceConstants`.

    Parameters:
        known: what was computed before; it is not computed again.
    """
    phonon = displace(structure, settings)
    cells = list(phonon.supercells_with_displacements or [])
    forces = known.in_order_of(phonon) if known else {}
    missing = [number for number in range(len(cells)) if number not in forces]
    if missing:
        answers = yield [cells[number] for number in missing]
        forces |= {number: answer.forces for number, answer in zip(missing, answers, strict=True)}
    return _solved(phonon, np.array([forces[number] for number in range(len(cells))]), settings)


def _solved(phonon: Phonopy, forces: np.ndarray, settings: ForceConstantsSettings) -> ForceConstants:
    """Force constants from the forces (n_displacements, n_atoms, 3), eV/Å, in the displaced supercells."""
    drift = forces.mean(axis=1, keepdims=True)
    solve(phonon, forces - drift if settings.remove_drift else forces)
    measured = frequencies_held(phonon)
    if settings.symmetrize:
        phonon.symmetrize_force_constants()
    return ForceConstants.of(
        phonon,
        n_displacements=len(forces),
        max_drift=float(np.linalg.norm(drift, axis=2).max()),
        noise=_noise(phonon, drift[:, 0], measured, settings.distance),
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
    gamma = int(np.abs(points).max(axis=1).argmin())
    matrices[[0, gamma]] = matrices[[gamma, 0]]
    matrices[0] = without_translations(matrices[0], found.cell.masses)
    return np.linalg.eigvalsh(matrices)
