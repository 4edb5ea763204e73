from __future__ import annotations

import pytest

from phononbench_flows.engine.hull import Energy, above_hull

# Ends at -1 and -3 eV per atom, and a compound 0.5 eV per atom below the line between them.
ENDS = [Energy("Na", -1.0), Energy("Cl", -3.0)]
SALT = Energy("NaCl", -2.5)


def test_a_crystal_is_placed_over_the_hull_of_the_references():
    [on, above, below] = above_hull([SALT, Energy("NaCl", -2.2), Energy("NaCl", -2.6)], [*ENDS, SALT])
    assert on.energy == pytest.approx(0.0)
    assert above.energy == pytest.approx(0.3)
    assert below.energy == pytest.approx(-0.1)  # the crystals asked are no part of the hull
    assert above.decomposition == pytest.approx({"NaCl": 1.0})


def test_it_falls_apart_into_the_phases_of_the_hull():
    # Between NaCl and Cl: Na1Cl3 has half its atoms in NaCl, half in Cl.
    [found] = above_hull([Energy("NaCl3", -2.0)], [*ENDS, SALT])
    assert found.decomposition == pytest.approx({"NaCl": 0.5, "Cl2": 0.5})
    assert found.energy == pytest.approx(-2.0 - (0.5 * -2.5 + 0.5 * -3.0))


def test_without_an_end_member_there_is_no_hull_and_never_a_zero():
    [found, alone] = above_hull([Energy("NaCl", -2.2), Energy("Na", -0.9)], [Energy("Na", -1.0), SALT])
    assert found.energy is None
    assert found.missing == ("Cl",)
    assert found.decomposition == {}
    assert alone.energy == pytest.approx(0.1)  # its own system is whole


def test_references_of_other_systems_do_not_count():
    [found] = above_hull([Energy("NaCl", -2.2)], [*ENDS, SALT, Energy("KCl", -9.0), Energy("NaClO3", -9.0)])
    assert (found.energy, found.n_references, found.n_compounds) == (pytest.approx(0.3), 3, 1)
