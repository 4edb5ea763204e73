"""The symmetry of many crystals as one constraint: the same as torch-sim's, which goes through them one by one."""

from __future__ import annotations

import pytest
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure
from torch_sim.constraints import FixSymmetry
from torch_sim.symmetrize import refine_and_prep_symmetry

from phononbench_flows.engine.symmetry_constraint import KeptSymmetry, Projector


def operations(structure: Structure) -> tuple[torch.Tensor, torch.Tensor]:
    return refine_and_prep_symmetry(
        torch.tensor(structure.lattice.matrix),
        torch.tensor(structure.cart_coords),
        torch.tensor(structure.atomic_numbers),
        symprec=0.01,
    )[2:]


@pytest.fixture
def crystals(fcc, cu3au, low_symmetry) -> list[Structure]:
    hexagonal = Structure(
        Lattice.hexagonal(3.2, 5.2), ["Ga", "Ga", "N", "N"], [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5]] * 2
    )
    hexagonal.translate_sites([2, 3], [0, 0, 0.376])
    monoclinic = Structure(Lattice.monoclinic(4, 5, 6, 100), ["Na", "Cl"], [[0, 0.1, 0.2], [0, 0.6, 0.3]])
    return [fcc, low_symmetry, hexagonal, cu3au, monoclinic]


@pytest.fixture
def both(crystals) -> tuple[ts.SimState, FixSymmetry, KeptSymmetry]:
    """A state of which all but the second crystal are constrained, by torch-sim's class and by ours."""
    state = ts.io.structures_to_state(crystals, device=torch.device("cpu"), dtype=torch.float64)
    constrained = [0, 2, 3, 4]
    found = [operations(crystals[k]) for k in constrained]
    assert all(len(rotations) > 1 for rotations, _ in found)
    where = torch.tensor(constrained)
    theirs = FixSymmetry([r for r, _ in found], [m for _, m in found], system_idx=where)
    return state, theirs, KeptSymmetry([Projector.of(*each) for each in found], where)


def adjusted(state: ts.SimState, constraint) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    forces, stress = torch.randn(state.n_atoms, 3).double(), torch.randn(state.n_systems, 3, 3).double()
    positions = state.positions + 0.1 * torch.randn_like(state.positions)
    # One of the cells is strained by more than a step allows.
    strain = torch.tensor([0.02, 0.02, 0.9, 0.02, 0.02])[: state.n_systems, None, None]
    cell = state.cell + strain * torch.randn_like(state.cell)
    constraint.adjust_forces(state, forces)
    constraint.adjust_stress(state, stress)
    constraint.adjust_positions(state, positions)
    constraint.adjust_cell(state, cell)
    return {"forces": forces, "stress": stress, "positions": positions, "cell": cell}


def assert_same(state: ts.SimState, one, other) -> None:
    for (name, value), expected in zip(adjusted(state, one).items(), adjusted(state, other).values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12, msg=name)


def test_it_does_what_the_class_of_torch_sim_does(both):
    state, theirs, ours = both
    assert_same(state, ours, theirs)
    assert ours.get_removed_dof(state).sum() == 0


def test_what_is_kept_is_kept(both):
    """A projection: done twice, nothing more happens; and the unconstrained crystal is left alone."""
    state, _, ours = both
    torch.manual_seed(1)
    before = torch.randn(state.n_atoms, 3).double()
    once = before.clone()
    ours.adjust_forces(state, once)
    twice = once.clone()
    ours.adjust_forces(state, twice)
    torch.testing.assert_close(once, twice, rtol=0, atol=1e-12)
    free = state.system_idx == 1
    assert torch.equal(once[free], before[free])
    assert not torch.allclose(once[~free], before[~free])


@pytest.mark.parametrize("stays", [[0, 1, 2, 3, 4], [1, 3, 4], [2], [1], [4, 0]])
def test_crystals_join_and_leave(both, stays):
    state, theirs, ours = both
    mask = torch.zeros(5, dtype=torch.bool)
    mask[stays] = True
    kept = [constraint.select_constraint(mask[state.system_idx], mask) for constraint in (ours, theirs)]
    if kept[0] is None:
        assert kept[1] is None
        return
    rest = state[torch.tensor(sorted(stays))]
    assert_same(rest, *kept)
    # Joined to all of them again.
    whole = ts.concatenate_states([rest, state])
    merged = [
        type(one).merge([one, other.reindex(rest.n_atoms, rest.n_systems)])
        for one, other in zip(kept, (ours, theirs), strict=True)
    ]
    torch.manual_seed(2)
    forces = torch.randn(whole.n_atoms, 3).double()
    results = []
    for constraint in merged:
        results.append(forces.clone())
        constraint.adjust_forces(whole, results[-1])
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)


def test_one_system_alone(both):
    _, _, ours = both
    assert ours.select_sub_constraint(torch.arange(4), 1) is None
    alone = ours.select_sub_constraint(torch.arange(4), 3)
    assert alone.system_idx.tolist() == [0]
    assert alone.projectors == [ours.projectors[2]]
    assert alone.to(torch.device("cpu")).system_idx.tolist() == [0]


def test_the_number_of_calls_does_not_grow_with_the_crystals(cu3au):
    counts = []
    for number in (2, 20):
        state = ts.io.structures_to_state([cu3au] * number, device=torch.device("cpu"), dtype=torch.float64)
        ours = KeptSymmetry([Projector.of(*operations(cu3au))] * number, torch.arange(number))
        forces = torch.randn(state.n_atoms, 3).double()
        with torch.profiler.profile() as profile:
            ours.adjust_forces(state, forces)
        counts.append(sum(event.count for event in profile.key_averages()))
    assert counts[0] == counts[1]
