"""All 530 settings of the space groups, said in each way that there is: read right, or rejected."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import gemmi
import numpy as np
import pytest
from known_crystals import Known, hall, is_same, known, names, operation_loop, quoted, written

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import Parsed, Rejection, parse

HALL_NUMBERS = range(1, 531)
GENERAL = np.array([0.1237, 0.2741, 0.3869])


@pytest.fixture(scope="module")
def crystals() -> list[Known]:
    rng = np.random.default_rng(11)
    return [known(number, [("Si", GENERAL)], rng) for number in HALL_NUMBERS]


def without_empty_axes(crystal: Known) -> str:
    """``P 21/c`` for ``P 1 21/c 1``; the other names as they are."""
    name = names(crystal.hall_number)[0]
    words = name.split()
    return " ".join(word for word in words if word != "1") if 3 <= crystal.setting.number <= 15 else name


def ways(crystal: Known) -> dict[str, str]:
    number = crystal.hall_number
    short, full = names(number)
    return {
        "operations": operation_loop(number),
        "dotted operations": operation_loop(number, "_space_group_symop.operation_xyz"),
        "Hall": f"_space_group_name_Hall {quoted(hall(number))}",
        "name": f"_symmetry_space_group_name_H-M {quoted(short)}",
        "full name": f"_space_group.name_H-M_full {quoted(full)}",
        "name without setting": f"_space_group_name_H-M_alt {quoted(short.split(' :')[0])}",
        "closed-up name": f"_space_group_name_H-M_alt {quoted(short.replace(' ', ''))}",
        "table name": f"_space_group_name_H-M_alt {quoted(TABLE[hall(number)])}",
        "short name": f"_symmetry_space_group_name_H-M {quoted(without_empty_axes(crystal))}",
        "number": f"_symmetry_Int_Tables_number {crystal.setting.number}",
    }


TABLE = {group.hall: group.xhm() for group in islice(gemmi.spacegroup_table(), len(HALL_NUMBERS))}
ALWAYS_READ = {
    "table name",
    "operations",
    "dotted operations",
    "Hall",
    "name",
    "full name",
    "closed-up name",
    "short name",
}


def test_every_setting_in_every_way(crystals: list[Known]) -> None:
    read: Counter[str] = Counter()
    for crystal in crystals:
        for way, symmetry in ways(crystal).items():
            parsed = parse("cif", written(crystal, symmetry).encode())
            what = (crystal.hall_number, crystal.setting.international, way, parsed)
            if isinstance(parsed, Rejection):
                # `C m m e` is the name of two settings, so it may be refused.
                assert way not in ALWAYS_READ or "e" in "".join(names(crystal.hall_number)), what
                assert parsed.reason == Reason.AMBIGUOUS, what
            else:
                assert is_same(parsed.structure, crystal, 1e-3), what
                read[way] += 1
    assert all(read[way] >= len(crystals) - 24 for way in ALWAYS_READ)
    assert read["operations"] == read["dotted operations"] == read["Hall"] == read["table name"] == len(crystals)
    assert read["name without setting"] > 450
    assert read["number"] > 120


@pytest.mark.parametrize("number", [14, 48, 62, 146, 227])
def test_counts_decide_what_the_name_leaves_open(crystals: list[Known], number: int) -> None:
    """A special position of the one origin is another of the other, or none."""
    settings = [crystal.hall_number for crystal in crystals if crystal.setting.number == number]
    rng = np.random.default_rng(12)
    for hall_number in settings:
        crystal = known(hall_number, [("Si", GENERAL), ("O", np.array([0.0, 0.0, 0.0]))], rng)
        formula = "_chemical_formula_sum '{}'".format(" ".join(f"{s}{n}" for s, n in crystal.counts.items()))
        parsed = parse(
            "cif",
            written(crystal, f"_symmetry_Int_Tables_number {number}", formula, "_cell_formula_units_Z 1").encode(),
        )
        if isinstance(parsed, Parsed):
            assert is_same(parsed.structure, crystal, 1e-3)
        else:
            assert parsed.reason == Reason.AMBIGUOUS


def test_name_and_operations_of_another_setting_contradict(crystals: list[Known]) -> None:
    """Where the rest of the file leaves no doubt, the one may still belong to another crystal than the other."""
    for first, second in ((227, "1"), (129, "1"), (48, "2")):
        mine, other = (
            next(c for c in crystals if c.setting.number == first and (c.setting.choice == choice))
            for choice in (second, "12".replace(second, ""))
        )
        text = written(
            mine, f"_symmetry_space_group_name_H-M '{names(other.hall_number)[0]}'", operation_loop(mine.hall_number)
        )
        parsed = parse("cif", text.encode())
        assert isinstance(parsed, Rejection)
        assert parsed.reason == Reason.CONTRADICTORY
