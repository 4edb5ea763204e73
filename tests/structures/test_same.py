"""Which crystals are the same, on known crystals that are written differently, and on phases that are not the same."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from phononbench_flows.structures import Tolerance, content_hash, is_same, originals, shape
from phononbench_flows.symmetry import symmetry

TOLERANCE = Tolerance.of(0.05, 0.01)
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def of(structure: Structure):
    return shape(structure.as_dict(), symmetry(structure, 0.01).number, content_hash(structure), TOLERANCE)


def same(one: Structure, other: Structure) -> bool:
    found = is_same(of(one), of(other), TOLERANCE)
    assert found == is_same(of(other), of(one), TOLERANCE)
    assert found == (len(set(originals({"a": of(one), "b": of(other)}, TOLERANCE).values())) == 1)
    return found


def spacegroup(group: str, lattice: Lattice, species: list[str], coordinates: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, lattice, species, coordinates)


def layer(kind: str, c: float = 25.0, shift: float = 0.0) -> Structure:
    """MoS2 of prisms (1H) or octahedra (1T), in a vacuum."""
    below = [1 / 3, 2 / 3] if kind == "1H" else [2 / 3, 1 / 3]
    half = 1.56 / c
    coordinates = [[0, 0, 0.5], [1 / 3, 2 / 3, 0.5 + half], [*below, 0.5 - half]]
    return Structure(Lattice.hexagonal(3.18, c), ["Mo", "S", "S"], np.add(coordinates, [0, 0, shift]))


KNOWN = {
    "NaCl": spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "rutile": spacegroup("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
    "quartz": spacegroup(
        "P3_121", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], [[0.47, 0, 1 / 3], [0.4135, 0.2669, 0.4524]]
    ),
    "wurtzite": spacegroup(
        "P6_3mc", Lattice.hexagonal(3.19, 5.189), ["Ga", "N"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.377]]
    ),
    "perovskite": Structure(Lattice.cubic(3.905), ["Sr", "Ti", "O", "O", "O"], PEROVSKITE),
    "1H": layer("1H"),
    "hcp": spacegroup("P6_3/mmc", Lattice.hexagonal(3.2, 5.2), ["Mg"], [[1 / 3, 2 / 3, 0.25]]),
    "triclinic": Structure(
        Lattice.from_parameters(4.1, 5.3, 6.2, 81, 97, 103), ["Li", "P", "O", "O"],
        [[0.1, 0.2, 0.3], [0.6, 0.71, 0.8], [0.35, 0.9, 0.15], [0.83, 0.4, 0.52]],
    ),
}  # fmt: skip


def written_differently(crystal: Structure, chance: np.random.Generator) -> Structure:
    """The same crystal in another cell, from another origin, turned, mirrored, its sites in another order."""
    sheared = np.eye(3, dtype=int)
    for _ in range(3):
        i, j = chance.choice(3, 2, replace=False)
        sheared[i] += int(chance.integers(-1, 2)) * sheared[j]
    found = crystal.make_supercell(sheared * chance.integers(1, 3, (3, 1)), in_place=False)
    turned = np.linalg.qr(chance.normal(size=(3, 3)))[0]
    coordinates = found.frac_coords + chance.random(3) + chance.integers(-2, 3, (len(found), 3))
    order = chance.permutation(len(found))
    return Structure(found.lattice.matrix @ turned, [found.species[i] for i in order], coordinates[order])


@pytest.mark.parametrize("name", KNOWN)
def test_the_same_crystal_however_it_is_written(name):
    chance = np.random.default_rng(len(name))
    for _ in range(4):
        assert same(KNOWN[name], written_differently(KNOWN[name], chance))


@pytest.mark.parametrize("name", KNOWN)
def test_small_noise_changes_nothing_and_another_place_does(name):
    noisy = KNOWN[name].copy()
    noisy.perturb(0.012)
    assert same(KNOWN[name], noisy)
    moved = KNOWN[name] * (1, 1, 2)
    moved.translate_sites([0], [0.12, 0, 0.02], frac_coords=False)
    assert not same(KNOWN[name], moved)


def test_handedness_is_no_difference():
    quartz = KNOWN["quartz"]
    mirrored = Structure(
        quartz.lattice, quartz.species, quartz.frac_coords @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    )
    assert {symmetry(each, 0.01).number for each in (quartz, mirrored)} == {152, 154}
    assert same(quartz, mirrored)


def tetragonal(c_over_a: float, species: list[str]) -> Structure:
    a = (28.0 / c_over_a) ** (1 / 3)
    return Structure(Lattice.tetragonal(a, a * c_over_a), species, [[0, 0, 0], [0.5, 0.5, 0.5]])


def polar() -> Structure:
    coordinates = np.array(PEROVSKITE) + np.array([[0, 0, 0], [0, 0, 0.04], [0, 0, 0.11], [0, 0, 0.12], [0, 0, 0.12]])
    return Structure(Lattice.tetragonal(3.905, 4.156), ["Pb", "Ti", "O", "O", "O"], coordinates)


def tilted(degrees: float) -> Structure:
    """SrTiO3 with octahedra turned about c, in opposite senses one above the other."""
    turn = np.tan(np.radians(degrees)) / 4
    return spacegroup(
        "I4/mcm", Lattice.tetragonal(3.905 * 2**0.5, 7.81), ["Sr", "Ti", "O", "O"],
        [[0, 0.5, 0.25], [0, 0, 0], [0, 0, 0.25], [0.25 + turn, 0.75 + turn, 0]],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (tetragonal(1.0, ["Cu", "Au"]), tetragonal(1.31, ["Cu", "Au"])),
        (tetragonal(1.0, ["Cu", "Au"]), tetragonal(1.03, ["Cu", "Au"])),
        (Structure(Lattice.cubic(3.97), ["Pb", "Ti", "O", "O", "O"], PEROVSKITE), polar()),
        (KNOWN["perovskite"], tilted(5)),
        (KNOWN["perovskite"], tilted(2)),
        (layer("1H"), layer("1T")),
        (layer("1H", 60.0), layer("1T", 60.0)),
        (layer("1H", 25.0), layer("1H", 26.0)),
        (KNOWN["NaCl"], KNOWN["NaCl"].copy().scale_lattice(190)),
        (KNOWN["NaCl"], Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])),
        (KNOWN["NaCl"], spacegroup("Fm-3m", Lattice.cubic(5.64), ["K", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])),
    ],
    ids=lambda crystal: f"{crystal.composition.reduced_formula}-{crystal.volume:.0f}",
)
def test_phases_stay_apart(one, other):
    assert not same(one, other)


def test_layers_meet_wherever_they_lie_in_the_cell():
    assert same(layer("1T"), layer("1T", shift=0.5))


def test_a_distortion_that_breaks_the_symmetry_is_no_noise():
    """Of one group two crystals may differ by more than noise; of two groups by no more."""
    rutile = KNOWN["rutile"]
    wider = spacegroup("P4_2/mnm", rutile.lattice, ["Ti", "O"], [[0, 0, 0], [0.311, 0.311, 0]])
    polar = rutile.copy()
    polar.translate_sites([i for i, site in enumerate(rutile) if site.specie.symbol == "Ti"], [0, 0, 0.05], False)
    assert same(rutile, wider)
    assert not same(rutile, polar)


def chain(step: float, length: int) -> list[Structure]:
    """Crystals each of which is the same as the next, and the last is another than the first."""
    found = []
    for number in range(length):
        x = 0.30 + number * step / (4.594 * 2**0.5)
        found.append(spacegroup("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [x, x, 0]]))
    return found


def test_chains_fall_into_the_same_classes_in_any_order_and_under_any_names():
    crystals = chain(0.03, 12) + [written_differently(c, np.random.default_rng(1)) for c in chain(0.03, 3)]
    crystals += [tetragonal(1 + 0.002 * n, ["Cu", "Au"]) for n in range(12)]
    shapes = [of(each) for each in crystals]
    assert is_same(shapes[0], shapes[1], TOLERANCE)
    assert not is_same(shapes[0], shapes[11], TOLERANCE)
    names = [f"{number:02}" for number in range(len(shapes))]

    def classes(given: list[str]) -> set[frozenset[int]]:
        found = originals(dict(sorted(zip(given, shapes, strict=True), key=lambda _: random.random())), TOLERANCE)
        assert all(found[original] == original <= name for name, original in found.items())
        place = {name: number for number, name in enumerate(given)}
        by_original = itertools.groupby(sorted(found, key=found.__getitem__), key=found.__getitem__)
        return {frozenset(place[name] for name in members) for _, members in by_original}

    random.seed(3)
    expected = classes(names)
    assert 4 <= len(expected) < len(shapes) - 8
    for _ in range(200):
        assert classes(random.sample(names, len(names))) == expected


def test_maps_are_tried_only_where_numbers_that_are_compared_at_once_agree(monkeypatch):
    tried = 0
    plain = is_same

    def counted(*given):
        nonlocal tried
        tried += 1
        return plain(*given)

    monkeypatch.setattr("phononbench_flows.structures.same.is_same", counted)
    chance = np.random.default_rng(0)
    shapes = {}
    for number in range(400):
        coordinates = [[0, 0, 0], *(0.25 + 0.5 * chance.random((3, 3)))]
        crystal = Structure(Lattice.orthorhombic(6, 7, 8), ["Na", "Cl", "O", "O"], coordinates)
        shapes[f"{number}"] = shape(crystal.as_dict(), 1, f"{number}", TOLERANCE)
        shapes[f"{number}-again"] = shape(crystal.as_dict(), 1, f"{number}-again", TOLERANCE)
    assert len(set(originals(shapes, TOLERANCE).values())) == 400
    assert 400 <= tried < 500
