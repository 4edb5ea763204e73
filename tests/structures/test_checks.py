from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import check

RULES = ScreeningSettings()


def verdict(lattice: Lattice, species: list[object], coordinates: list[list[float]]) -> tuple[Reason | None, str]:
    rejection = check(Structure(lattice, species, coordinates), RULES, {"Na", "Cl", "H"})
    return (rejection.reason, rejection.detail) if rejection else (None, "")


def test_good_crystal_passes(nacl: Structure) -> None:
    assert check(nacl, RULES, {"Na", "Cl"}) is None
    assert check(nacl, RULES, None) is None


@pytest.mark.parametrize("species", ["K", "Og", "D", "X", "Na+", "T"])
def test_elements(species: str) -> None:
    reason, detail = verdict(Lattice.cubic(4), ["Na", species], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert reason == Reason.UNSUPPORTED_ELEMENT
    assert species.rstrip("+") in detail


def test_disorder() -> None:
    assert verdict(Lattice.cubic(4), [{"Na": 0.5}], [[0, 0, 0]])[0] == Reason.DISORDERED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12, -1e7])
def test_coordinates(value: float) -> None:
    assert verdict(Lattice.cubic(4), ["Na"], [[value, 0, 0]])[0] == Reason.BAD_NUMBERS


@pytest.mark.parametrize(
    ("lattice", "reason"),
    [
        (Lattice([[4, 0, 0], [0, float("nan"), 0], [0, 0, 4]]), Reason.BAD_NUMBERS),
        (Lattice([[4, 0, 0], [0, 4, 0], [0, 0, 0]]), Reason.BAD_CELL),
        (Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), Reason.BAD_CELL),
        (Lattice.orthorhombic(1.5, 1.5, 201), Reason.BAD_CELL),
        (Lattice.from_parameters(10, 10, 10, 4, 90, 90), Reason.BAD_CELL),
        (Lattice.from_parameters(10, 10, 10, 176, 90, 90), Reason.BAD_CELL),
        (Lattice.cubic(8), Reason.VOLUME_OUT_OF_RANGE),
        (Lattice.cubic(0.9), Reason.VOLUME_OUT_OF_RANGE),
        (Lattice.orthorhombic(0.4, 5, 5), Reason.ATOMS_TOO_CLOSE),  # an atom and its own image
        (Lattice.orthorhombic(0.6, 5, 5), None),
    ],
)
def test_cell(lattice: Lattice, reason: Reason | None) -> None:
    assert verdict(lattice, ["Na"], [[0, 0, 0]])[0] == reason


@pytest.mark.parametrize("shift", [0, 100_000])
def test_distance_is_told_across_the_boundary(shift: int) -> None:
    reason, detail = verdict(Lattice.cubic(4), ["Na", "H"], [[0.01 + shift, 0, 0], [0.95, 0, 0]])
    assert reason == Reason.ATOMS_TOO_CLOSE
    assert "0.240 Å" in detail
    assert "0.5 Å" in detail


def test_size() -> None:
    small = RULES.model_copy(update={"max_atoms": 1})
    rejection = check(Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0.5, 0.5, 0.5]]), small, None)
    assert rejection is not None
    assert rejection.reason == Reason.TOO_MANY_ATOMS
