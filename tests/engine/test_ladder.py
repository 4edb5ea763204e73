"""Where a crystal is looked at, in which order, until its stability is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from toy_potentials import Toy

from phononbench_flows.engine import ladder
from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.exact import by_displacements, cells_needed, displaced_cells
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.ladder import Climbed, climb
from phononbench_flows.engine.lattices import commensurate_points, same_point
from phononbench_flows.engine.layers import BULK, Periodicity
from phononbench_flows.engine.q_symmetry import equivalent_points, operations
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.potentials import load
from phononbench_flows.potentials.source import is_installed
from phononbench_flows.protocol import ExactLooksSettings, ForceConstantsSettings

SETTINGS = ForceConstantsSettings()
LADDER = ExactLooksSettings()


def constants_of(crystal: Structure, model) -> ForceConstants:
    return force_constants([crystal], model, SETTINGS)[0]


def climbed(
    crystal: Structure, model=None, settings: ExactLooksSettings = LADDER, noise: float = 0.01, **more
) -> Climbed:
    model = model or Toy()
    begun = partial(climb, constants_of(crystal, model), SETTINGS, settings, noise=noise, **more)
    [found] = hold([begun], model)
    assert not isinstance(found, Failure), found
    return found.result


def test_a_stable_crystal_is_looked_at_until_nothing_is_left(cu3au):
    found = climbed(cu3au)
    assert found.missing == []
    assert found.held.n_q == 8
    assert found.held.frequency > 0
    assert all(seen.frequency > 0 for seen in found.seen)
    names = {seen.label for seen in found.seen if seen.label}
    assert {"Γ-X", "M-Γ", "Γ-R"} <= names
    # Each point once, and none that the supercell holds.
    symmetry = operations(found.final.cell, 1e-5)
    keys = [tuple(equivalent_points(seen.q, symmetry)[0]) for seen in found.seen]
    assert len(keys) == len(set(keys))
    held = commensurate_points(found.final.supercell)
    assert not any(same_point(seen.q, q) for seen in found.seen for q in held)
    # Afterwards the interpolation says what was found.
    for seen in found.seen:
        assert found.final.frequencies(seen.q)[0, 0] == pytest.approx(seen.frequency, abs=1e-3)


def test_one_that_its_supercell_proves_unstable_costs_no_more(simple_cubic):
    found = climbed(simple_cubic)
    assert found.held.frequency < -1
    assert (found.seen, found.missing, found.amplitudes) == ([], [], {})


def test_what_is_below_the_noise_proves_nothing(simple_cubic):
    found = climbed(simple_cubic, noise=50.0)
    assert found.seen


def test_where_the_allowance_ends_it_says_what_is_missing(simple_cubic):
    """A crystal whose interpolation is imaginary, and nothing may be spent on it."""
    nothing = LADDER.model_copy(
        update={"labelled_evaluations": 0, "labelled_share": 0, "minima_evaluations": 0, "minima_share": 0}
    )
    constants = constants_of(simple_cubic, Toy())
    lowest = climbed(simple_cubic).held.frequency
    # With a noise that just hides the supercell's own modes, the minima between them are open.
    [found] = hold([partial(climb, constants, SETTINGS, nothing, noise=-lowest + 1e-3)], Toy())
    assert found.result.seen == []
    if found.result.missing:
        assert "interpolated minimum of -" in found.result.missing[0]


def test_a_larger_supercell_has_the_crystals_symmetry_and_is_looked_at_as_a_whole(cu3au):
    climber = ladder._begun(constants_of(cu3au, Toy()), SETTINGS, LADDER, noise=0.01, connected=BULK, memory=())
    assert climber.larger_supercell(100) is None
    supercell = climber.larger_supercell(1e5)
    assert supercell.tolist() == (3 * np.eye(3, dtype=int)).tolist()
    before = climber.image_distance
    hold([lambda: climber.look_at_all_of(supercell)], Toy())
    assert all(climber.was_seen(q) for q in commensurate_points(supercell))
    assert len(climber.seen) == 3  # of 27 points, symmetry and Γ left out: (1/3, 0, 0), (1/3, 1/3, 0), (1/3, 1/3, 1/3)
    assert before * 1.25 <= np.linalg.norm(supercell.T @ climber.interpolation.cell.cell, axis=1).min()
    for seen in climber.seen:
        phonon = displaced_cells(climber.interpolation.cell, seen.q, SETTINGS)
        alone = partial(by_displacements, phonon, seen.q, SETTINGS, tolerance=LADDER.tolerance)
        [found] = hold([alone], Toy())
        assert seen.exact.lowest == pytest.approx(found.result.lowest, abs=0.05)
        assert climber.interpolation.frequencies(seen.q)[0, 0] == pytest.approx(seen.frequency, abs=1e-6)
    assert climber.spent == sum(seen.exact.evaluations for seen in climber.seen) > 108


def test_labelled_points_come_before_the_middles_of_segments():
    """K of a hexagonal crystal has to be looked at though the middles alone would use up what they may cost."""
    hexagonal = AseAtomsAdaptor.get_structure(bulk("Cu", "hcp", a=2.5, c=4.1))
    found = climbed(hexagonal, settings=LADDER.model_copy(update={"labelled_evaluations": 0, "labelled_share": 0.0}))
    names = [seen.label for seen in found.seen if seen.label]
    assert {"K", "H"} == set(names)
    usual = [seen.label for seen in climbed(hexagonal).seen if seen.label]
    assert set(usual[:2]) == {"K", "H"}
    assert any("-" in name for name in usual)


def test_low_modes_are_computed_by_two_displacements(cu3au):
    every = LADDER.model_copy(update={"low": 100.0})
    found = climbed(cu3au, settings=every)
    lowest = min([found.held.frequency, *(seen.frequency for seen in found.seen)])
    assert list(found.amplitudes) == [0.003, 0.01]
    for value in found.amplitudes.values():
        assert value == pytest.approx(lowest, abs=0.02)


def test_no_cell_is_larger_than_it_may_be(cu3au):
    found = climbed(cu3au, settings=LADDER.model_copy(update={"max_cells": 4}))
    assert {cells_needed(seen.q) for seen in found.seen} <= {2, 3, 4}


def test_layers_are_looked_at_in_their_plane_and_chains_not_at_all(cu3au):
    layer = Periodicity(2, plane=np.array([[1, 0, 0], [0, 1, 0]]), normal=np.array([0, 0, 1.0]))
    found = climbed(cu3au, connected=layer)
    assert found.held.n_q == 4
    assert found.held.q[2] == 0
    assert found.seen
    assert all(seen.q[2] == 0 for seen in found.seen)
    for dimension, parts in enumerate(("molecules", "chains")):
        found = climbed(cu3au, connected=Periodicity(dimension))
        assert found.seen == []
        assert parts in found.missing[0]


@pytest.mark.sevennet
@pytest.mark.skipif(not is_installed("sevenn"), reason="the extra sevennet is not installed")
class TestRealCrystals:
    """What a real potential says of crystals of which a 2x2x2 supercell says something else."""

    @pytest.fixture(scope="class")
    def model(self):
        return load("sevennet-0", "cpu").model

    def test_molybdenum_is_unstable_at_a_point_that_its_supercell_does_not_hold(self, model):
        crystal = AseAtomsAdaptor.get_structure(bulk("Mo", "bcc", a=3.162))
        found = climbed(crystal, model)
        assert found.held.frequency > 1
        worst = found.seen[-1] if found.seen[-1].frequency < 0 else min(found.seen, key=lambda seen: seen.frequency)
        assert worst.label == "P"
        assert worst.interpolated > 1
        assert worst.frequency == pytest.approx(-2.45, abs=0.15)

    def test_titanium_is_clean_wherever_it_is_looked_at(self, model):
        crystal = AseAtomsAdaptor.get_structure(bulk("Ti", "bcc", a=3.245))
        constants = constants_of(crystal, model)
        found = climbed(crystal, model)
        path = constants.phonopy().run_qpoints([[1 / 6, -1 / 6, 1 / 6]]).frequencies
        assert path.min() < -0.5
        assert found.missing == []
        assert all(seen.frequency > 0 for seen in found.seen)
