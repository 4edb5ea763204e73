"""An unstable crystal displaced along its worst modes, or strained as it is soft: where its energy leads it.

Modes are those at q-points where nothing is interpolated, each frozen into the smallest cell that holds it, along the
directions of its degenerate space that differ by symmetry, as far as the energy falls. What comes out is no crystal at
rest, but lies lower than the crystal that it was made of, and has the symmetry that the mode left. Conventions are
those of :mod:`phononbench_flows.engine.interpolation`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from phonopy.structure.atoms import PhonopyAtoms
from pydantic import BaseModel, ConfigDict, Field

from phononbench_flows.engine.dialogues import Answer, side_by_side
from phononbench_flows.engine.exact import (
    WavesInSupercell,
    by_displacements,
    cells_needed,
    displaced_cells,
    look_at_gamma,
    smallest_supercell,
)
from phononbench_flows.engine.interpolation import Interpolation, Known, frequency_of, without_translations
from phononbench_flows.engine.lattices import commensurate_points, same_point
from phononbench_flows.engine.order_parameters import ModeDirection, directions, mode_directions
from phononbench_flows.engine.q_symmetry import Operation, equivalent_points, little_group
from phononbench_flows.protocol import ForceConstantsSettings
from phononbench_flows.stability import is_imaginary

_AMPLITUDES = (0.05, 0.1, 0.2, 0.35, 0.55, 0.8)  # Å, of the atom that moves most
_STRAINS = (0.01, 0.02, 0.04, 0.08, 0.14)
_UNTRIED = 0.03  # a strain that does not pay before the atoms follow it
_DIGITS = 3  # of a frequency in THz; by more, symmetry's equals differ from machine to machine
_LOWER = 2e-6  # eV per atom; a potential in single precision tells no less
_MANDEL = np.sqrt(2.0)
_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class FollowSettings(BaseModel):
    """How far unstable crystals are followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generations: int = Field(3, ge=1, description="Children of children, and so on.")
    atoms: int = Field(40, ge=1, description="A child has no more.")
    modes: int = Field(4, ge=1, description="Worst modes of a crystal, a degenerate one counted once.")
    children: int = Field(4, ge=1, description="Of a crystal: those of the lowest energy before they are relaxed.")


@dataclass(frozen=True)
class SoftMode:
    """An imaginary mode (3n,) at a q-point, which of those there it is from below, and its frequency in THz."""

    q: np.ndarray
    number: int
    frequency: float
    mode: np.ndarray


@dataclass(frozen=True)
class SoftStrain:
    """A strain (3, 3) of length one under which the elastic energy falls, and its ``modulus`` in GPa."""

    number: int
    tensor: np.ndarray
    modulus: float
    is_even: bool
    letter: str


@dataclass(frozen=True)
class Distorted:
    """A crystal that was made of another.

    Attributes:
        name: of the way it was made, unique for a crystal: q-point, mode, direction and sign.
        cell: distorted; amplitude: of the atom that moves most, Å; 0 for a strain.
        energy: less that of the crystal that it was made of, eV per atom.
        mode, degeneracy: that it was displaced along; strain: (3, 3), that it was strained by, and ``modulus`` in GPa.
    """

    name: str
    cell: PhonopyAtoms
    energy: float
    amplitude: float = 0.0
    mode: SoftMode | None = None
    degeneracy: int = 1
    strain: np.ndarray | None = None
    modulus: float = 0.0


@dataclass(frozen=True)
class Followed:
    """What a crystal was made into, the lowest energy first, and what was left out and why, a sentence each."""

    distorted: list[Distorted] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def soft_modes(
    matrices: Sequence[Known], masses: np.ndarray, symmetry: Sequence[Operation], *, threshold: float
) -> list[SoftMode]:
    """The imaginary modes of dynamical matrices, the worst first: one of each degenerate space, at one q-point of each
    star.

    Parameters:
        masses: of the primitive cell's atoms, (n,), u.
        threshold: frequencies below this are imaginary, THz.
    """
    found: list[SoftMode] = []
    seen: set[tuple[float, ...]] = set()
    for known in matrices:
        key = tuple(equivalent_points(known.q, list(symmetry))[0].tolist())
        if key in seen:
            continue
        seen.add(key)
        matrix = known.matrix.real if same_point(2 * known.q, np.zeros(3)) else known.matrix
        if same_point(known.q, np.zeros(3)):
            matrix = without_translations(matrix, masses)
        values, vectors = np.linalg.eigh(matrix)
        spaces: list[np.ndarray] = []
        for value, mode in zip(values, vectors.T, strict=True):
            if not is_imaginary(frequency_of(value), threshold):
                break
            if any(np.linalg.norm(space.conj() @ mode) > 0.5 for space in spaces):
                continue
            number = len(spaces) + 1
            spaces.append(_images(mode, known.q, symmetry))
            found.append(SoftMode(known.q, number, frequency_of(value), mode))
    return sorted(found, key=lambda each: round(each.frequency, _DIGITS))  # those that are alike in their order


def _images(mode: np.ndarray, q: np.ndarray, symmetry: Sequence[Operation]) -> np.ndarray:
    """What symmetry makes of a mode at its q-point, (k, 3n)."""
    turned = [each.matrix(q) @ mode for each in little_group(q, list(symmetry))]
    vectors, lengths, _ = np.linalg.svd(np.array(turned).T, full_matrices=False)
    return np.asarray(vectors[:, lengths > 0.1 * lengths[0]].T)


def held_matrices(interpolated: Interpolation) -> list[Known]:
    """Dynamical matrices where nothing is interpolated: at the supercell's q-points, and where it was looked."""
    points = [*(each.q for each in interpolated.known), *commensurate_points(interpolated.supercell)]
    return [Known(q, matrix) for q, matrix in zip(points, interpolated.matrices(np.array(points)), strict=True)]


def matrix_at(
    primitive: PhonopyAtoms, q: np.ndarray, settings: ForceConstantsSettings, *, tolerance: float
) -> Generator[list[PhonopyAtoms], list[Answer], Known]:
    """Dialogue: the dynamical matrix at one q-point, of a crystal of which there are no force constants."""
    if same_point(q, np.zeros(3)):
        found = yield from look_at_gamma(primitive, settings, tolerance=tolerance)
    else:
        phonon = displaced_cells(primitive, q, settings)
        found = yield from by_displacements(phonon, q, settings, tolerance=tolerance)
    return found.known


def soft_strains(
    tensor: np.ndarray, symmetry: Sequence[Operation], plane: np.ndarray | None = None
) -> list[SoftStrain]:
    """Strains of length one with a negative modulus, the softest first.

    Parameters:
        tensor: elastic, in Voigt's order, GPa: (6, 6), or (3, 3) for xx, yy and xy of a layer.
        symmetry: operations of the crystal.
        plane: axes of a layer, (2, 3); None for a bulk crystal.
    """
    axes = np.eye(3) if plane is None else np.asarray(plane)
    pairs = _VOIGT if plane is None else ((0, 0), (1, 1), (0, 1))
    units_of = [_unit_strain(axes, *pair) for pair in pairs]
    scale = np.array([1.0 if i == j else _MANDEL for i, j in pairs])
    values, vectors = np.linalg.eigh(tensor * np.outer(scale, scale))
    groups = np.split(np.arange(len(values)), np.flatnonzero(np.diff(values) > 1e-3 * np.abs(values).max()) + 1)
    found = []
    for number, group in enumerate(groups, start=1):
        modulus = float(values[group].mean())
        if not is_imaginary(modulus, 0.0):
            break
        basis = [sum(c * unit for c, unit in zip(vectors[:, k], units_of, strict=True)) for k in group]
        turns = [
            np.array([[np.sum(one * (r @ other @ r.T)) for other in basis] for one in basis])
            for r in (each.cartesian for each in symmetry)
        ]
        for letter, each in zip(_LETTERS, directions(turns), strict=False):
            strain = sum(c * unit for c, unit in zip(each.vector, basis, strict=True))
            found.append(SoftStrain(number, np.asarray(strain), modulus, each.is_even, letter))
    return found


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _unit_strain(axes: np.ndarray, i: int, j: int) -> np.ndarray:
    strain = (np.outer(axes[i], axes[j]) + np.outer(axes[j], axes[i])) / 2
    return np.asarray(strain / np.linalg.norm(strain))


def distort(
    primitive: PhonopyAtoms,
    modes: Sequence[SoftMode],
    strains: Sequence[SoftStrain],
    symmetry: Sequence[Operation],
    settings: FollowSettings,
) -> Generator[list[PhonopyAtoms], list[Answer], Followed]:
    """Dialogue: displace and strain a crystal as far as its energy falls.

    Parameters:
        primitive: its primitive cell.
        modes, strains: along which, the worst first.
        symmetry: its operations.
    """
    left_out: list[str] = []
    searches: list[_Search] = []
    for mode in modes[: settings.modes]:
        name, natoms = _mode_name(mode, symmetry), cells_needed(mode.q) * len(primitive)
        if natoms > settings.atoms:
            left_out.append(f"{name}: a cell of {natoms} atoms holds the mode, and {settings.atoms} are allowed")
            continue
        ways = mode_directions(mode.mode, mode.q, symmetry)
        searches += [
            _along_mode(primitive, name + letter, mode, way) for letter, way in zip(_LETTERS, ways, strict=False)
        ]
    if modes[settings.modes :]:
        left_out.append(f"{len(modes) - settings.modes} modes that are less imaginary")
    searches += [_along_strain(primitive, strain) for strain in strains]
    if not searches:
        return Followed([], left_out)
    results = yield from side_by_side([_fall(search) for search in searches])
    left_out += [
        f"{search.name}: the energy does not fall" for search, found in zip(searches, results, strict=True) if not found
    ]
    # Ways of the same energy stay in their order, which rounding errors would shuffle from machine to machine.
    falling = sorted(itertools.chain.from_iterable(results), key=lambda each: round(each.energy / _LOWER))
    left_out += [
        f"{each.name}: others gain more than its {-each.energy:.2g} eV per atom"
        for each in falling[settings.children :]
    ]
    return Followed(falling[: settings.children], left_out)


@dataclass(frozen=True)
class _Search:
    """A way to distort a crystal.

    Attributes:
        name: of the way.
        at: gives the cell for an amplitude, which may be negative.
        amplitudes: to begin with, all positive.
        is_even: whether the opposite way is the same.
        made: of the way, with all but its energy and amplitude.
        untried: amplitude that is taken if the energy does not fall; None if nothing is taken then.
    """

    name: str
    at: Callable[[float], PhonopyAtoms]
    amplitudes: Sequence[float]
    is_even: bool
    made: Callable[[PhonopyAtoms, float], Distorted]
    untried: float | None = None


def _fall(search: _Search) -> Generator[list[PhonopyAtoms], list[Answer], list[Distorted]]:
    """Dialogue: the lowest energies along a way, in each of its directions that are not the same: a short line search.

    Amplitudes that grow by the same factor bracket the minimum; a parabola through the lowest and its neighbours says
    where it is.
    """
    signs = (1.0,) if search.is_even else (1.0, -1.0)
    asked = [sign * each for sign in signs for each in search.amplitudes]
    rest, *answers = yield [search.at(0.0), *map(search.at, asked)]
    natoms = len(rest.forces)
    energies = {0.0: 0.0} | {a: (x.energy - rest.energy) / natoms for a, x in zip(asked, answers, strict=True)}
    better = {sign: _vertex(energies, sign) for sign in signs}
    wanted = [each for each in better.values() if each is not None]
    if wanted:
        answers = yield [search.at(each) for each in wanted]
        energies |= {a: (x.energy - rest.energy) / natoms for a, x in zip(wanted, answers, strict=True)}
    found = []
    for sign in signs:
        lowest = min((a for a in energies if a * sign > 0), key=energies.__getitem__)
        if energies[lowest] >= -_LOWER:
            if search.untried is None:
                continue
            lowest = sign * search.untried
        made = search.made(search.at(lowest), lowest)
        suffix = "" if search.is_even else "pn"[sign < 0]
        found.append(replace(made, name=search.name + suffix, energy=energies.get(lowest, 0.0)))
    return found


def _vertex(energies: dict[float, float], sign: float) -> float | None:
    """Amplitude of the minimum of a parabola through the lowest energy on one side and its neighbours."""
    side = sorted((a for a in energies if a * sign >= 0), key=abs)
    k = min(range(len(side)), key=lambda i: energies[side[i]])
    if k in {0, len(side) - 1}:
        return None
    (a, b, c), (ea, eb, ec) = side[k - 1 : k + 2], (energies[each] for each in side[k - 1 : k + 2])
    first, second = (eb - ea) / (b - a), (ec - eb) / (c - b)
    bend = (second - first) / (c - a)
    return None if bend <= 0 else (a + b) / 2 - first / (2 * bend)


def _along_mode(primitive: PhonopyAtoms, name: str, mode: SoftMode, way: ModeDirection) -> _Search:
    waves = WavesInSupercell.of(primitive, smallest_supercell(mode.q, primitive.cell))
    wave = waves.wave(mode.q)

    def at(amplitude: float) -> PhonopyAtoms:
        return waves.displaced([(wave, way.mode)], amplitude)[0]

    def made(cell: PhonopyAtoms, amplitude: float) -> Distorted:
        return Distorted(name, cell, 0.0, abs(amplitude), replace(mode, mode=way.mode), way.degeneracy)

    return _Search(name, at, _AMPLITUDES, way.is_even, made)


def _along_strain(primitive: PhonopyAtoms, strain: SoftStrain) -> _Search:
    def at(amplitude: float) -> PhonopyAtoms:
        cell = primitive.copy()
        cell.cell = primitive.cell @ (np.eye(3) + amplitude * strain.tensor)
        return cell

    def made(cell: PhonopyAtoms, amplitude: float) -> Distorted:
        return Distorted(name, cell, 0.0, strain=amplitude * strain.tensor, modulus=strain.modulus)

    name = f"strain{strain.number}{strain.letter}"
    return _Search(name, at, _STRAINS, strain.is_even, made, _UNTRIED)


def _mode_name(mode: SoftMode, symmetry: Sequence[Operation]) -> str:
    """Such as ``q1_1_1-2m1``: the q-point (1/2, 1/2, 1/2), whose lowest mode it is."""
    q = equivalent_points(mode.q, list(symmetry))[0]
    n = cells_needed(q)
    point = "0" if n == 1 else "_".join(str(round(x * n) % n) for x in q) + f"-{n}"
    return f"q{point}m{mode.number}"
