"""Where a crystal has to be looked at, in which order, until its stability is known: the exact looks of the ladder.

From the first force constants on, cheapest first: the q-points that the supercell holds; labelled points of the path
and the middles of its segments; minima of the interpolation, which is made to pass through all that is found, until
none is left. It ends at the first mode that is imaginary beyond the noise. Conventions: q-points in reciprocal lattice
units of the primitive cell, frequencies in THz, imaginary as negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
from phonopy.structure.atoms import PhonopyAtoms

from phononbench_flows.engine.dialogues import Answer, side_by_side
from phononbench_flows.engine.exact import (
    Exact,
    at_all_of,
    cells_needed,
    cost,
    displaced_supercell,
    look,
    look_at_gamma,
    rayleigh,
)
from phononbench_flows.engine.force_constants import GAMMA, ForceConstants
from phononbench_flows.engine.interpolation import Interpolation, Known, frequency_of, interpolation
from phononbench_flows.engine.lattices import commensurate_points, each_once, same_point, shortest_vectors, steps_within
from phononbench_flows.engine.layers import BULK, Periodicity
from phononbench_flows.engine.paths import labelled_points
from phononbench_flows.engine.q_symmetry import Operation, equivalent_points, operations, star
from phononbench_flows.protocol import ExactLooksSettings, ForceConstantsSettings
from phononbench_flows.stability import is_imaginary

_PATIENCE = 4  # minima that are looked at one by one, before a larger supercell is
_FARTHER = 1.25  # its images are farther apart than the first one's by this
_MOST_REPEATS = 5
_TOGETHER = 4  # labelled points that are looked at side by side
_ACOUSTIC = 3
_LAYERS = 2
_IN_PLANE = 1e-6
_PARTS = ("molecules", "chains")


@dataclass(frozen=True)
class Seen:
    """A look: where, what it is called, what interpolation said of it (THz), and what was found."""

    q: np.ndarray
    label: str | None
    interpolated: float
    exact: Exact

    @property
    def frequency(self) -> float:
        """Lowest frequency, THz."""
        return frequency_of(self.exact.lowest)


@dataclass(frozen=True)
class Held:
    """The lowest mode at the q-points that the first supercell holds, the acoustic ones at Γ apart."""

    q: np.ndarray
    frequency: float
    mode: np.ndarray
    n_q: int


@dataclass(frozen=True)
class Climbed:
    """What the ladder found.

    Attributes:
        held: at the first supercell's q-points.
        seen: looks, in their order.
        known: dynamical matrices at all q-points that were computed again, in their order: of the looks, and of Γ.
        missing: in words, what would have to be looked at, and was not.
        amplitudes: frequency of the lowest mode in THz by displacement in Å, if it is low.
        final: the interpolation that passes through all that was found.
        noise: what the first forces leave undetermined, by where it shows, THz.
        largest_noise: no frequency counts as imaginary above minus this, THz.
        supercell_natoms: atoms in the first supercell.
    """

    held: Held
    seen: list[Seen]
    known: list[Known]
    missing: list[str]
    amplitudes: dict[float, float]
    final: Interpolation
    noise: Mapping[str, float]
    largest_noise: float
    supercell_natoms: int


@dataclass
class _Climb:
    """A crystal on the ladder."""

    constants: ForceConstants
    displacement: ForceConstantsSettings
    settings: ExactLooksSettings
    noise: float
    plane: np.ndarray | None
    interpolation: Interpolation
    symmetry: list[Operation]
    memory: Sequence[Exact] = ()
    seen: list[Seen] = field(default_factory=list)
    seen_keys: set[tuple[float, ...]] = field(default_factory=set)
    known: list[Known] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    spent: int = 0

    @property
    def gamma_is_doubtful(self) -> bool:
        """Whether the first force constants tell little of Γ, and the supercell's other points prove nothing.

        Forces that a potential without mirror symmetry has at rest fall to Γ, and may make a mode there imaginary.
        """
        if is_imaginary(self._held(without_gamma=True).frequency, -self.noise):
            return False
        doubt = is_imaginary(self.settings.gamma_noise, self.constants.noise.get(GAMMA, 0.0))
        return bool(doubt or is_imaginary(self._held().frequency, -self.noise))

    @cached_property
    def held(self) -> Held:
        """The lowest mode at the first supercell's q-points."""
        return self._held()

    def _held(self, *, without_gamma: bool = False) -> Held:
        flat = [self.in_plane(q) for q in commensurate_points(self.interpolation.supercell)]
        points = [flat[place] for place in each_once(flat)]
        if without_gamma:
            points = [q for q in points if not same_point(q, np.zeros(3))]
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for q in points:
            values, vectors = np.linalg.eigh(self.interpolation.matrices(q)[0])
            if same_point(q, np.zeros(3)):
                optical = np.argsort(np.abs(values))[_ACOUSTIC:]
                values, vectors = values[np.sort(optical)], vectors[:, np.sort(optical)]
            if len(values) and (best is None or values[0] < best[0]):
                best = (float(values[0]), q, vectors[:, 0])
        if best is None:  # one atom in a cell that is its own supercell
            return Held(np.zeros(3), np.inf, np.zeros(_ACOUSTIC), len(points))
        return Held(best[1], frequency_of(best[0]), best[2], len(points))

    @property
    def first_cost(self) -> int:
        """Evaluations of the first force constants."""
        return self.constants.n_displacements * self.constants.array.shape[1]

    @property
    def image_distance(self) -> float:
        """Length of the first supercell's shortest lattice vector, within the plane for layers, Å."""
        cell = self.interpolation.cell.cell
        reduced = shortest_vectors(self.interpolation.supercell.T @ cell)
        vectors = steps_within(2) @ reduced
        if self.plane is not None:
            across = vectors @ np.linalg.inv(self.plane @ cell)[:, 2]
            vectors = vectors[np.abs(across) < _IN_PLANE]
        return float(np.linalg.norm(vectors, axis=1).min())

    @property
    def lowest(self) -> float:
        """Lowest exact frequency so far, THz."""
        return min([self.held.frequency, *(each.frequency for each in self.seen)])

    @property
    def is_proven(self) -> bool:
        """Whether an imaginary mode was found beyond the noise."""
        return bool(is_imaginary(self.lowest, -self.noise))

    def was_seen(self, q: np.ndarray) -> bool:
        """Whether a q-point, or one that symmetry makes of it, was looked at, or the supercell holds it."""
        return self.is_held(q) or self.key(q) in self.seen_keys

    def is_held(self, q: np.ndarray) -> bool:
        """Whether the first supercell holds a q-point."""
        return same_point(self.interpolation.supercell.T @ q, np.zeros(3))

    def key(self, q: np.ndarray) -> tuple[float, ...]:
        """The same for q-points that symmetry makes of each other."""
        return tuple(equivalent_points(q, self.symmetry)[0].tolist())

    def look_at(
        self, points: Sequence[tuple[np.ndarray, str | None]]
    ) -> Generator[list[PhonopyAtoms], list[Answer], None]:
        """Dialogue: look at some points side by side, and let the interpolation pass through what is found."""
        guess = self.interpolation
        remembered = [self._remembered(q) for q, _ in points]
        new = [point for point, exact in zip(points, remembered, strict=True) if exact is None]
        self.asked = [_named(q, label) for q, label in new]
        looks = [look(guess, q, self.displacement, self.symmetry, tolerance=self.settings.tolerance) for q, _ in new]
        computed = iter((yield from side_by_side(looks)))
        found = [next(computed) if exact is None else exact for exact in remembered]
        for (q, label), exact in zip(points, found, strict=True):
            self.seen.append(Seen(q, label, float(guess.frequencies(q)[0, 0]), exact))
            self.seen_keys.add(self.key(q))
            self.spent += exact.evaluations
        self._pass_through([exact.known for exact in found])

    def larger_supercell(self, allowance: float) -> np.ndarray | None:
        """The cheapest supercell with the crystal's symmetry whose images are clearly farther apart; None if there is
        none within so many evaluations. Columns are its lattice vectors in units of the primitive cell's, (3, 3).
        """
        if self.plane is not None:
            return None
        to_unit = np.rint(np.linalg.inv(self.constants.primitive)).astype(int)
        basis, wanted = self.interpolation.cell.cell, _FARTHER * self.image_distance
        supercells = [
            to_unit @ np.diag(repeats) for repeats in itertools.product(range(1, _MOST_REPEATS + 1), repeat=3)
        ]
        for supercell in sorted(supercells, key=self._price):
            if self._price(supercell) > allowance:
                break
            apart = np.linalg.norm(shortest_vectors(supercell.T @ basis), axis=1).min()
            if apart >= wanted and all(each.keeps(supercell) for each in self.symmetry):
                return np.asarray(supercell)
        return None

    def _price(self, supercell: np.ndarray) -> int:
        """Evaluations that the displacements of a supercell with the crystal's symmetry take."""
        return len(self.interpolation.cell) * abs(round(np.linalg.det(supercell))) * self.constants.n_displacements

    def look_at_all_of(self, supercell: np.ndarray) -> Generator[list[PhonopyAtoms], list[Answer], None]:
        """Dialogue: look at all q-points together that a supercell holds, and let the interpolation pass through."""
        guess = self.interpolation
        points = {self.key(q): q for q in commensurate_points(supercell) if not self.was_seen(q)}
        remembered = {key: self._remembered(q) for key, q in points.items()}
        new = [q for key, q in points.items() if remembered[key] is None]
        exact = [each for each in remembered.values() if each is not None]
        if new:
            natoms = len(guess.cell) * abs(round(np.linalg.det(supercell)))
            self.asked = [f"{len(new)} q-points that a supercell of {natoms} atoms holds"]
            phonon = displaced_supercell(guess.cell, supercell, self.displacement)
            exact += yield from at_all_of(phonon, new, self.displacement, tolerance=self.settings.tolerance)
        for each in exact:
            self.seen.append(Seen(each.known.q, None, float(guess.frequencies(each.known.q)[0, 0]), each))
            self.seen_keys.add(self.key(each.known.q))
            self.spent += each.evaluations
        self._pass_through([each.known for each in exact])

    def look_at_gamma(self) -> Generator[list[PhonopyAtoms], list[Answer], None]:
        """Dialogue: let the interpolation have another matrix at Γ."""
        self.asked = ["Γ, displaced in both directions"]
        found = self._remembered(np.zeros(3))
        if found is None:
            cell, tolerance = self.interpolation.cell, self.settings.tolerance
            found = yield from look_at_gamma(cell, self.displacement, tolerance=tolerance)
        self.spent += found.evaluations
        self._pass_through([found.known])

    def _remembered(self, q: np.ndarray) -> Exact | None:
        return next((each for each in self.memory if same_point(q, each.known.q)), None)

    def _pass_through(self, known: Sequence[Known]) -> None:
        self.known += known
        self.interpolation = self.interpolation.passing_through(
            [each for found in known for each in star(found, self.symmetry)]
        )

    def in_plane(self, q: np.ndarray) -> np.ndarray:
        """The q-point with the same phases within a layer, and none across it; the same for a bulk crystal."""
        return q if self.plane is None else project(q, self.plane)


def climb(
    constants: ForceConstants,
    displacement: ForceConstantsSettings,
    settings: ExactLooksSettings,
    *,
    noise: float,
    connected: Periodicity = BULK,
    memory: Sequence[Exact] = (),
) -> Generator[list[PhonopyAtoms], list[Answer], Climbed]:
    """Dialogue: take a crystal up the ladder.

    Parameters:
        constants: the first force constants.
        displacement: how they were made.
        settings: how far to go.
        noise: no frequency counts as imaginary above minus this, in THz.
        connected: directions in which the crystal goes on, in the primitive cell. Layers are looked at in their plane
            alone: across a gap that the potential does not see, frequencies do not depend on q.
        memory: what was found before at some q-points, which is not computed again.
    """
    climber = _begun(constants, displacement, settings, noise=noise, connected=connected, memory=memory)
    return _climbed(climber, *(yield from _rungs(climber, connected)))


def climb_from_memory(
    constants: ForceConstants,
    settings: ExactLooksSettings,
    *,
    noise: float,
    connected: Periodicity = BULK,
    memory: Sequence[Exact] = (),
) -> Climbed:
    """As far up the ladder as one comes without a potential; what it would ask for next is ``missing``."""
    climber = _begun(constants, ForceConstantsSettings(), settings, noise=noise, connected=connected, memory=memory)
    rungs = _rungs(climber, connected)
    try:
        next(rungs)
    except StopIteration as end:
        return _climbed(climber, *end.value)
    return _climbed(climber, climber.asked, {})


def _begun(
    constants: ForceConstants,
    displacement: ForceConstantsSettings,
    settings: ExactLooksSettings,
    *,
    noise: float,
    connected: Periodicity,
    memory: Sequence[Exact],
) -> _Climb:
    """A crystal before its first look."""
    start = interpolation(constants.phonopy(symmetry=False), tolerance=settings.tolerance)
    symmetry = operations(start.cell, constants.symprec)
    return _Climb(constants, displacement, settings, noise, connected.basis, start, symmetry, memory)


def _climbed(climber: _Climb, missing: list[str], amplitudes: dict[float, float]) -> Climbed:
    return Climbed(
        held=climber.held,
        seen=climber.seen,
        known=climber.known,
        missing=missing,
        amplitudes=amplitudes,
        final=climber.interpolation,
        noise=climber.constants.noise,
        largest_noise=climber.noise,
        supercell_natoms=climber.constants.array.shape[1],
    )


def _rungs(
    climber: _Climb, connected: Periodicity
) -> Generator[list[PhonopyAtoms], list[Answer], tuple[list[str], dict[float, float]]]:
    """Dialogue: gives what is missing in the end, and the lowest mode by two displacements."""
    missing: list[str] = []
    if climber.gamma_is_doubtful:
        yield from climber.look_at_gamma()
    if connected.dimension < _LAYERS:
        parts = _PARTS[connected.dimension]
        return [f"anything: the crystal is made of {parts}, and phonons say little of how they lie"], {}
    if not climber.is_proven:
        yield from _labelled(climber)
    if not climber.is_proven:
        missing = yield from _minima(climber)
    return missing, (yield from _by_two_displacements(climber))


def _named(q: np.ndarray, label: str | None) -> str:
    where = ", ".join(f"{round(x, 6) + 0.0:.4g}" for x in q)
    return f"{label} = ({where})" if label else f"q = ({where})"


def _labelled(climber: _Climb) -> Generator[list[PhonopyAtoms], list[Answer], None]:
    """Look at labelled points, then at the middles of segments, the softest first.

    At all of the points that cost no more than minima may; at all middles if the first supercell is small.
    """
    settings = climber.settings
    allowance = settings.labelled_share * climber.first_cost
    if climber.image_distance < settings.image_distance:
        allowance = max(allowance, settings.labelled_evaluations)
    most = max(allowance, settings.minima_evaluations)
    waiting: dict[tuple[float, ...], tuple[np.ndarray, str | None]] = {}
    for label, point in labelled_points(climber.interpolation.cell).items():
        q = climber.in_plane(point)
        if _is_rational(q, settings.max_cells) and not climber.was_seen(q):
            waiting.setdefault(climber.key(q), (q, label))
    if not waiting:
        return
    points = list(waiting.values())
    lowest = climber.interpolation.frequencies(np.array([q for q, _ in points]))[:, 0]
    middle = np.array(["-" in str(label) for _, label in points])
    batch: list[tuple[np.ndarray, str | None]] = []
    planned = 0
    for k in np.lexsort((lowest, middle)):
        price = cost(climber.interpolation, points[k][0], climber.symmetry)
        if climber.spent + planned + price > (allowance if middle[k] else most):
            continue
        batch.append(points[k])
        planned += price
        if len(batch) == _TOGETHER:
            yield from climber.look_at(batch)
            batch, planned = [], 0
            if climber.is_proven:
                return
    if batch:
        yield from climber.look_at(batch)


def _minima(climber: _Climb) -> Generator[list[PhonopyAtoms], list[Answer], list[str]]:
    """Look at minima of the interpolation until none is left; gives what was left for want of an allowance."""
    settings = climber.settings
    allowance = climber.spent + max(settings.minima_evaluations, settings.minima_share * climber.first_cost)
    candidates = [q for q in rational_points(settings.max_cells, climber.plane) if not climber.is_held(q)]
    if not candidates:
        return []
    points, looks, larger_tried = np.array(candidates), 0, False
    while True:
        lowest = climber.interpolation.frequencies(points)[:, 0]
        suspect = is_imaginary(lowest, settings.margin - climber.noise)
        low = [k for k in np.argsort(lowest, kind="stable") if suspect[k]]
        open_points = [k for k in low if not climber.was_seen(points[k])]
        if not open_points:
            return []
        looks += 1
        if looks > _PATIENCE and not larger_tried:  # much is wrong between the points of the first supercell
            larger_tried = True
            larger = climber.larger_supercell(allowance - climber.spent)
            if larger is not None:
                yield from climber.look_at_all_of(larger)
                if climber.is_proven:
                    return []
                continue
        k = _worth_most(points, lowest, open_points)
        if climber.spent + cost(climber.interpolation, points[k], climber.symmetry) > allowance:
            if not is_imaginary(lowest[k], -climber.noise):  # only near zero: nothing says that it is imaginary
                return []
            return [f"the interpolated minimum of {lowest[k]:.3g} THz at {_named(points[k], None)}"]
        yield from climber.look_at([(points[k], None)])
        if climber.is_proven:
            return []


def _worth_most(points: np.ndarray, lowest: np.ndarray, open_points: Sequence[int]) -> int:
    """Of points that are nearly as low as the lowest, that which costs least."""
    worst = lowest[open_points[0]]
    reach = worst + 0.3 * abs(worst)
    near = [k for k in open_points if lowest[k] - reach <= 0]
    return min(near, key=lambda k: (cells_needed(points[k]), lowest[k]))


def _by_two_displacements(climber: _Climb) -> Generator[list[PhonopyAtoms], list[Answer], dict[float, float]]:
    """The lowest mode's frequency by two displacements, where it is low enough for them to change its sign."""
    q, mode, frequency = climber.held.q, climber.held.mode, climber.held.frequency
    lowest = min(climber.seen, key=lambda each: each.frequency, default=None)
    if lowest is not None and lowest.frequency == climber.lowest:
        q, mode, frequency = lowest.q, lowest.exact.mode, lowest.frequency
    if not is_imaginary(abs(frequency), climber.settings.low):
        return {}
    distances = climber.settings.displacements
    climber.asked = [f"the mode of {frequency:.3g} THz at {_named(q, None)}, by two displacements"]
    squares = yield from side_by_side([rayleigh(climber.interpolation.cell, q, mode, each) for each in distances])
    return {each: frequency_of(square) for each, square in zip(distances, squares, strict=True)}


def rational_points(max_cells: int, plane: np.ndarray | None = None) -> list[np.ndarray]:
    """q-points but Γ that a supercell of so many primitive cells can hold, one of each q and -q.

    Parameters:
        max_cells: largest common denominator.
        plane: for layers, a basis of the lattice whose first two vectors span them; only points in it are given.
    """
    found: dict[tuple[int, ...], np.ndarray] = {}
    for n in range(2, max_cells + 1):
        ranges = [np.arange(n), np.arange(n), np.arange(n if plane is None else 1)]
        for step in np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)[1:]:
            q = step / n
            key = tuple(np.rint(q * 27720).astype(int).tolist())  # a multiple of all numbers up to 12
            opposite = tuple(np.rint(((-step) % n) / n * 27720).astype(int).tolist())
            if key not in found and opposite not in found:
                found[key] = q
    points = list(found.values())
    if plane is None:
        return points
    # q.t for the plane's lattice vectors t; none across it.
    inverse = np.linalg.inv(plane)
    return [inverse @ q for q in points]


def project(q: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """The q-point with the same phases along a layer's lattice vectors, and none along the third."""
    return np.asarray(np.linalg.inv(plane) @ ((plane @ q) * [1, 1, 0]))


def _is_rational(q: np.ndarray, max_cells: int) -> bool:
    if cells_needed(q, most=max_cells) > max_cells:
        return False
    near = np.array([float(Fraction(float(x)).limit_denominator(max_cells)) for x in q])
    return bool(np.abs(near - q).max() < 1e-6)
