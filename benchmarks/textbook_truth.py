"""What is true of a crystal in a potential: exact frequencies and elastic constants, by phonopy and the model alone.

Nothing here is taken from the package's own rules, which this is to test. Frequencies in THz, imaginary ones negative;
q-points in reciprocal lattice units of the primitive cell; elastic constants in GPa.

A frequency is exact at a q-point that the supercell holds. The smallest supercell that holds q is the sublattice
{R: q.R integer} (Lloyd-Williams and Monserrat, Phys. Rev. B 92, 184301 (2015)). Small cells are looked at on whole
grids in this way; the others in a supercell of some 10 Å, at the labelled points of the path of seekpath, and wherever
the interpolation of the supercell has a minimum.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import spglib
import torch
import torch_sim as ts
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Structure
from torch_sim.models.interface import ModelInterface

DISTANCE = 0.01  # Å
OTHER_DISTANCES = (0.003, 0.03)  # Å, at which a low frequency is looked at again
LOW = 1.0  # THz: below, a frequency may be the displacement's
MARGINAL = 0.05  # THz: a frequency smaller than this is not told from zero
MARGINAL_GPA = 0.05  # and nor is such a modulus
SHALLOW = 0.5  # THz: below, a larger displacement may make an imaginary mode real
STRAIN, OTHER_STRAIN = 3e-3, 1e-3
SOFT = 5.0  # GPa: below, elastic constants are computed with the other strain as well
GRID = {1: 8, 2: 6, 3: 6}  # largest denominator of the q-points, by atoms in the primitive cell
IMAGES = (10.0, 8.0, 6.5, 5.0)  # Å between images in the larger cells' supercell: the first that is affordable
SUPERCELL_ATOMS = 300
BUDGET = 10_000  # atom-evaluations of a crystal
MINIMA_GRIDS, MINIMA = (6, 8), 8
CLEAR = 0.5  # THz: a larger cell with an imaginary frequency beyond this is not looked at further
LONG_WAVES, LONG_DIRECTIONS = (12, 24), 4  # denominators, and directions, of q-points of a crystal that shears
BATCH_ATOMS = 192
VACUUM = 8.0  # Å: a gap along the third axis that makes a crystal a layer
GPA = 160.21766208  # of an eV/Å^3

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass
class Truth:
    """What was found of a crystal.

    Attributes:
        lowest: lowest exact frequency but the acoustic ones at Γ, THz; where: its q-point.
        again: the same mode's frequency at :data:`OTHER_DISTANCES`, THz; empty if it was not in doubt.
        christoffel: lowest eigenvalue of the Christoffel matrix, GPa, at each strain that was tried.
        verdict: ``stable``, ``unstable`` or ``marginal``.
        looked, missing: what was looked at, and what would have cost too much.
        evaluations: atoms that went through the potential.
    """

    lowest: float = math.inf
    where: tuple[float, ...] = ()
    again: list[float] = field(default_factory=list)
    christoffel: list[float] = field(default_factory=list)
    verdict: str = ""
    looked: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    evaluations: int = 0

    def row(self) -> dict[str, str]:
        """As columns of a table."""
        looked = "; ".join(self.looked)
        return {
            "lowest_thz": f"{self.lowest:.4f}",
            "where": " ".join(f"{round(x, 5) + 0.0:.5g}" for x in self.where),
            "again_thz": " ".join(f"{x:.4f}" for x in self.again),
            "christoffel_gpa": " ".join(f"{x:.3f}" for x in self.christoffel),
            "class": self.verdict,
            "looked": looked + (f"; not looked at: {', '.join(self.missing)}" if self.missing else ""),
            "evaluations": str(self.evaluations),
        }


def truth(relaxed: Structure, model: ModelInterface) -> Truth:
    """Look at a relaxed crystal."""
    crystal = _Crystal(relaxed, model)
    if len(crystal.cell) in GRID:
        crystal.look_at_grid(GRID[len(crystal.cell)])
    else:
        crystal.look_at_supercell()
    crystal.look_at_labelled_points()
    found = crystal.found
    stiffness = crystal.stiffness(STRAIN)
    found.christoffel = [lowest_christoffel(stiffness, layer=crystal.layer)]
    if found.christoffel[0] < SOFT:
        found.christoffel.append(lowest_christoffel(crystal.stiffness(OTHER_STRAIN), layer=crystal.layer))
    if min(found.christoffel) < 0 and found.lowest > -MARGINAL:
        crystal.look_at_long_waves(stiffness)
    if found.lowest < LOW:
        found.again = [crystal.again(distance) for distance in OTHER_DISTANCES]
    found.verdict = _verdict(found)
    found.evaluations = crystal.spent
    return found


def _verdict(found: Truth) -> str:
    """Unstable where smaller displacements say so too; elastic constants alone tell it from stable, not more.

    A shallow mode that a larger displacement makes real is marginal: the crystal moves by more at zero temperature.
    """
    smaller, larger = found.again or (found.lowest, found.lowest)
    seen = [found.lowest, smaller] + ([larger] if abs(found.lowest) < SHALLOW else [])
    if max(seen) < -MARGINAL:
        return "unstable"
    return "marginal" if min(seen) < MARGINAL or min(found.christoffel) < MARGINAL_GPA else "stable"


class _Crystal:
    """A crystal that is being looked at; each q-point and all that symmetry makes of it are looked at once."""

    def __init__(self, relaxed: Structure, model: ModelInterface) -> None:
        self.model = model
        self.cell = primitive_cell(relaxed)
        self.layer = is_layer(self.cell)
        self.found = Truth()
        self._turns = _turns_of_q(self.cell)
        self._known: set[tuple[float, ...]] = set()
        self._spent = 0
        self._supercell: Phonopy | None = None

    def look_at_grid(self, largest: int) -> None:
        """Every q-point of the regular grids with up to so many points along each axis; the finest cells first."""
        for n in range(largest, 0, -1):
            for q in _grid(n, layer=self.layer):
                self._look_at(q)
        self.found.looked.append(f"all q-points of denominators up to {largest}")

    def look_at_supercell(self) -> None:
        """The points that a supercell holds; its interpolation then says where else to look."""
        for apart in IMAGES:
            phonon = self._displaced(_compact(self.cell, apart, layer=self.layer))
            cost = len(phonon.supercell) * len(_displacements(phonon))
            if len(phonon.supercell) <= SUPERCELL_ATOMS and cost <= BUDGET:
                break
        else:
            self.found.missing.append(f"a supercell of {cost} atom-evaluations")
            return
        self._solve(phonon)
        self._take(phonon)
        self._supercell = phonon
        self.found.looked.append(f"{len(phonon.supercell)} atoms, images {apart:g} Å apart")
        for q in self._interpolated_minima(phonon)[:MINIMA]:
            self._look_at(q, "minimum")
        self.found.looked.append("no further: clear" if self._is_clear else "interpolated minima")

    def look_at_labelled_points(self) -> None:
        """Ends and middles of the segments of seekpath's path, as fractions of denominators up to 8."""
        if self._is_clear:
            return
        paths, _, _ = get_band_qpoints_by_seekpath(self.cell, npoints=3)
        for path in paths:
            for q in (path[0], (path[0] + path[-1]) / 2, path[-1]):
                if self.layer and abs(q[2]) > 1e-6:
                    continue
                self._look_at(np.array([float(Fraction(float(x)).limit_denominator(8)) for x in q]), "labelled")
        self.found.looked.append("labelled points and middles")

    def look_at_long_waves(self, stiffness: np.ndarray) -> None:
        """Near Γ in the directions of small integers in which elastic constants (GPa) let the crystal shear.

        The softest direction is not always that in which the branch stays imaginary the longest.
        """
        found: dict[tuple[float, ...], tuple[float, np.ndarray]] = {}
        for steps in itertools.product(range(-2, 3), repeat=3):
            if math.gcd(*steps) == 1 and not (self.layer and steps[2]):
                direction = np.linalg.solve(self.cell.cell, np.array(steps, float))
                value = christoffel(stiffness, direction[None] / np.linalg.norm(direction), layer=self.layer)[0]
                found.setdefault(self._key(np.array(steps) / LONG_WAVES[-1]), (value, np.array(steps)))
        soft = sorted((each for each in found.values() if each[0] < 0), key=lambda each: each[0])
        for n, (_, steps) in itertools.product(LONG_WAVES, soft[:LONG_DIRECTIONS]):
            self._look_at(steps / n, "long wave")
        self.found.looked.append("long waves")

    def again(self, distance: float) -> float:
        """The frequency at the lowest q-point with another displacement."""
        q = np.array(self.found.where)
        phonon = self._displaced(smallest_supercell(q, self.cell), distance)
        self._solve(phonon)
        return float(_lowest(phonon, q[None])[0])

    def stiffness(self, strain: float) -> np.ndarray:
        """Elastic tensor (6, 6) in GPa, Voigt: stresses of strained cells in which the atoms are relaxed."""
        n = len(self.cell)
        phonon = self._displaced(np.eye(3, dtype=int))
        self._solve(phonon)
        hessian = np.asarray(phonon.force_constants).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
        # Uniform shifts cost nothing and are left out; a soft mode that is none stays.
        softness = np.linalg.pinv(hessian, rcond=1e-6, hermitian=True)
        cells: list[PhonopyAtoms] = []
        for a, b in _VOIGT:
            for sign in (1, -1):
                deformation = np.eye(3)
                deformation[a, b] += sign * strain / 2
                deformation[b, a] += sign * strain / 2
                cells.append(_with(self.cell, lattice=self.cell.cell @ deformation))
        for _ in range(12):
            forces = [each - each.mean(axis=0) for each in self._forces(cells)]
            if max(np.abs(each).max() for each in forces) < 5e-4:
                break
            cells = [
                _with(cell, shift=_at_most((softness @ force.ravel()).reshape(n, 3), 0.05))
                for cell, force in zip(cells, forces, strict=True)
            ]
        else:
            self.found.missing.append("relaxed atoms in strained cells")
        stresses = self._stresses(cells)
        rows = [(stresses[2 * k] - stresses[2 * k + 1]) / (2 * strain) for k in range(6)]
        found = np.array([[row[a, b] for a, b in _VOIGT] for row in rows])
        return (found + found.T) / 2

    @property
    def _is_clear(self) -> bool:
        return len(self.cell) not in GRID and self.found.lowest < -CLEAR

    def _look_at(self, q: np.ndarray, what: str = "") -> None:
        if self._key(q) in self._known or self._is_clear:
            return
        phonon = self._displaced(smallest_supercell(q, self.cell))
        cost = len(phonon.supercell) * len(_displacements(phonon))
        if self._spent + cost > BUDGET and len(self.cell) not in GRID:
            self.found.missing.append(f"{what} ({', '.join(f'{x:.4g}' for x in q)})")
            self._known.add(self._key(q))
            return
        self._solve(phonon)
        self._take(phonon)

    def _take(self, phonon: Phonopy) -> None:
        """The lowest frequency at every q-point that the supercell holds."""
        points = get_commensurate_points(np.array(phonon.supercell_matrix))
        if self.layer:
            points = points[np.abs(points[:, 2]) < 1e-6]
        lowest = _lowest(phonon, points)
        at = int(lowest.argmin())
        if lowest[at] < self.found.lowest:
            self.found.lowest, self.found.where = float(lowest[at]), tuple(points[at].tolist())
        self._known |= {self._key(q) for q in points}

    def _key(self, q: np.ndarray) -> tuple[float, ...]:
        """The same for all q-points that symmetry or a reciprocal lattice vector makes of one."""
        turned = np.round(self._turns @ q, 5) % 1.0
        return min(map(tuple, turned.tolist()))

    def _interpolated_minima(self, phonon: Phonopy) -> list[np.ndarray]:
        """q-points of two grids at which the lowest interpolated frequency is a local minimum, the lowest first."""
        found: list[tuple[float, np.ndarray]] = []
        for n in MINIMA_GRIDS:
            points = _grid(n, layer=self.layer)
            values = np.array(phonon.run_qpoints(points).frequencies)[:, 0]
            shape = (n, n, 1) if self.layer else (n, n, n)
            lowest = values.reshape(shape)
            steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
            neighbours = np.array([np.roll(lowest, step, axis=(0, 1, 2)) for step in steps])
            least = (lowest <= neighbours.min(axis=0) + 1e-6).ravel()
            found += [(float(values[k]), points[k]) for k in np.flatnonzero(least) if points[k].any()]
        return [q for _, q in sorted(found, key=lambda each: each[0])]

    def _displaced(self, supercell: np.ndarray, distance: float = DISTANCE) -> Phonopy:
        with warnings.catch_warnings():  # that such a supercell has less symmetry than the crystal is known
            warnings.simplefilter("ignore", UserWarning)
            phonon = Phonopy(self.cell, supercell_matrix=supercell, primitive_matrix=np.eye(3))
        phonon.generate_displacements(distance=distance)
        return phonon

    def _solve(self, phonon: Phonopy) -> None:
        forces = np.array(self._forces(_displacements(phonon)))
        phonon.forces = forces - forces.mean(axis=1, keepdims=True)
        phonon.produce_force_constants()
        phonon.symmetrize_force_constants()

    def _forces(self, cells: list[PhonopyAtoms]) -> list[np.ndarray]:
        """Forces (n, 3) in eV/Å, of each cell."""
        found: list[np.ndarray] = []
        for some, output in self._outputs(cells):
            parts = torch.split(output["forces"].cpu(), [len(cell) for cell in some])
            found += [part.numpy() for part in parts]
        return found

    def _stresses(self, cells: list[PhonopyAtoms]) -> list[np.ndarray]:
        """Stresses (3, 3) in GPa, of each cell."""
        return [each * GPA for _, output in self._outputs(cells) for each in output["stress"].cpu().numpy()]

    def _outputs(self, cells: list[PhonopyAtoms]) -> Iterator[tuple[list[PhonopyAtoms], dict[str, torch.Tensor]]]:
        each = max(1, BATCH_ATOMS // len(cells[0]))
        for some in itertools.batched(cells, each):
            self._spent += sum(len(cell) for cell in some)
            yield list(some), self.model(ts.initialize_state(list(some), self.model.device, torch.float64))

    @property
    def spent(self) -> int:
        """Atom-evaluations so far."""
        return self._spent


def primitive_cell(structure: Structure) -> PhonopyAtoms:
    """Primitive cell in spglib's standard setting, with atoms where symmetry wants them."""
    cell: Any = (structure.lattice.matrix, structure.frac_coords, structure.atomic_numbers)
    found = spglib.standardize_cell(cell, to_primitive=True, no_idealize=False, symprec=1e-3)
    lattice, positions, numbers = cell if found is None else found
    return PhonopyAtoms(cell=lattice, scaled_positions=positions, numbers=numbers)


def is_layer(cell: PhonopyAtoms) -> bool:
    """Whether there is a gap along the third axis, which must be normal to the others."""
    heights = np.sort(cell.scaled_positions[:, 2] % 1.0)
    gaps = np.diff([*heights, heights[0] + 1]) * cell.cell[2, 2]
    return bool(gaps.max() > VACUUM and np.abs(cell.cell[2, :2]).max() < 1e-3)


def smallest_supercell(q: np.ndarray, cell: PhonopyAtoms) -> np.ndarray:
    """Columns: lattice vectors, in units of the primitive cell's, of the smallest supercell that holds q; (3, 3).

    Its lattice is dual to that of the reciprocal lattice vectors and q. The basis is reduced, for compact supercells.
    """
    fractions = [Fraction(float(x)).limit_denominator(48) for x in q]
    d = math.lcm(*(x.denominator for x in fractions))
    rows = [[d, 0, 0], [0, d, 0], [0, 0, d], [int(x * d) for x in fractions]]
    dual = np.rint(np.linalg.inv(np.array(_row_echelon(rows)) / d).T).astype(int)
    reduced = Lattice(dual @ cell.cell).get_lll_reduced_lattice().matrix
    columns = np.rint(reduced @ np.linalg.inv(cell.cell)).astype(int).T
    return columns if np.linalg.det(columns) > 0 else -columns


def _row_echelon(rows: list[list[int]]) -> list[list[int]]:
    """Basis of the lattice that integer rows span, by Euclid's algorithm on their columns."""
    rest, basis = [list(row) for row in rows], []
    for column in range(3):
        while True:
            rest.sort(key=lambda row: abs(row[column]) or math.inf)
            first = rest[0]
            if all(row[column] == 0 for row in rest[1:]):
                break
            rest[1:] = [
                [x - row[column] // first[column] * y for x, y in zip(row, first, strict=True)] for row in rest[1:]
            ]
        basis.append(first)
        rest = rest[1:]
    return basis


def _compact(cell: PhonopyAtoms, apart: float, *, layer: bool) -> np.ndarray:
    """Columns of the smallest of the symmetric supercells whose images are so far apart, in Å; (3, 3).

    Those are repeats of the primitive and of the conventional cell.
    """
    dataset: Any = spglib.get_symmetry_dataset(_as_tuple(cell), symprec=1e-4)
    conventional = dataset.transformation_matrix
    found: list[np.ndarray] = []
    for basis in (np.eye(3, dtype=int), np.rint(np.linalg.inv(conventional)).astype(int)):
        lengths = np.linalg.norm(basis.T @ cell.cell, axis=1)
        most = [1 if layer and axis == 2 else math.ceil(apart / x) + 1 for axis, x in enumerate(lengths)]
        for repeats in itertools.product(*(range(1, n + 1) for n in most)):
            supercell = basis @ np.diag(repeats)
            if _image_distance(supercell.T @ cell.cell, layer=layer) >= apart:
                found.append(supercell)
    return min(found, key=lambda each: abs(round(np.linalg.det(each))))


def _image_distance(basis: np.ndarray, *, layer: bool) -> float:
    reduced = basis if layer else Lattice(basis).get_lll_reduced_lattice().matrix
    steps = np.array([step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)])
    if layer:
        steps = steps[steps[:, 2] == 0]
    return float(np.linalg.norm(steps @ reduced, axis=1).min())


def _as_tuple(cell: PhonopyAtoms) -> Any:
    """What spglib takes."""
    return cell.cell, cell.scaled_positions, cell.numbers


def _displacements(phonon: Phonopy) -> list[PhonopyAtoms]:
    return phonon.supercells_with_displacements or []


def _grid(n: int, *, layer: bool) -> np.ndarray:
    return np.array(list(itertools.product(range(n), range(n), range(1 if layer else n)))) / n


def _turns_of_q(cell: PhonopyAtoms) -> np.ndarray:
    """What point group and time reversal do to q-points, (n, 3, 3)."""
    symmetry: Any = spglib.get_symmetry(_as_tuple(cell), symprec=1e-4)
    rotations = np.unique(symmetry["rotations"], axis=0)
    turns = np.linalg.inv(rotations).transpose(0, 2, 1)
    return np.rint(np.concatenate([turns, -turns]))


def _lowest(phonon: Phonopy, points: np.ndarray) -> np.ndarray:
    """Lowest frequency at each q-point (n_q,); at Γ but the three acoustic ones, which are those nearest to zero."""
    found = []
    for q, values in zip(points, np.array(phonon.run_qpoints(points).frequencies), strict=True):
        kept = values if np.abs(q).max() > 1e-6 else values[np.argsort(np.abs(values))][3:]
        found.append(kept.min() if len(kept) else math.inf)
    return np.array(found)


def lowest_christoffel(stiffness: np.ndarray, *, layer: bool) -> float:
    """Lowest eigenvalue of the Christoffel matrix over all directions, in GPa; of a layer, over those in its plane."""
    if layer:
        angles = np.linspace(0, np.pi, 361)
        directions = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    else:
        directions = np.array([n for n in itertools.product(range(-12, 13), repeat=3) if max(map(abs, n)) == 12], float)
        directions /= np.linalg.norm(directions, axis=1)[:, None]
    return float(christoffel(stiffness, directions, layer=layer).min())


def christoffel(stiffness: np.ndarray, directions: np.ndarray, *, layer: bool) -> np.ndarray:
    """Lowest eigenvalue of C_ijkl n_j n_l, in GPa, for each unit vector n (n_directions, 3).

    Of a layer for displacements in its plane alone: the others are bending.
    """
    index = {pair: k for k, (a, b) in enumerate(_VOIGT) for pair in ((a, b), (b, a))}
    every = range(3)
    tensor = np.array(
        [[[[stiffness[index[i, j], index[k, m]] for m in every] for k in every] for j in every] for i in every]
    )
    matrices = np.einsum("ijkm,nj,nm->nik", tensor, directions, directions)
    return np.linalg.eigvalsh(matrices[:, :2, :2] if layer else matrices)[:, 0]


def _with(cell: PhonopyAtoms, lattice: np.ndarray | None = None, shift: np.ndarray | None = None) -> PhonopyAtoms:
    """The same with another lattice (fractional coordinates kept), or with its atoms shifted, in Å."""
    basis = cell.cell if lattice is None else lattice
    moved = cell.scaled_positions if shift is None else cell.scaled_positions + shift @ np.linalg.inv(basis)
    return PhonopyAtoms(cell=basis, scaled_positions=moved, numbers=cell.numbers)


def _at_most(shift: np.ndarray, length: float) -> np.ndarray:
    return shift * min(1.0, length / max(np.abs(shift).max(), 1e-12))
