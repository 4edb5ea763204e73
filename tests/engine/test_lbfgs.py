"""Relaxation by L-BFGS: the same crystals as by FIRE, in fewer steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_potentials import Toy

from phononbench_flows.engine.batch import FiniteOutputModel
from phononbench_flows.engine.fire import symmetric
from phononbench_flows.engine.lbfgs import _MEMORY, _SOFTEST, _STIFFEST, LbfgsBatch, _inverse_times
from phononbench_flows.engine.relax import Relaxed, relax
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.protocol import PRESETS, RelaxationSettings

FIRE = PRESETS["paper"].relaxation
LBFGS = FIRE.model_copy(update={"optimizer": "lbfgs"})


def relaxed(structures, settings: RelaxationSettings) -> list[Relaxed]:
    found = relax(structures, Toy(), settings)
    assert not any(isinstance(each, Failure) for each in found), found
    return found


def test_it_ends_where_fire_ends_in_fewer_steps(fcc, cu3au, low_symmetry):
    crystals = [fcc, cu3au, low_symmetry]
    slow, fast = relaxed(crystals, FIRE), relaxed(crystals, LBFGS)
    for one, other in zip(slow, fast, strict=True):
        assert other.energy_per_atom == pytest.approx(one.energy_per_atom, abs=1e-5)
        assert other.structure.volume == pytest.approx(one.structure.volume, rel=2e-3)
        assert other.max_force <= FIRE.accept_force
    assert sum(each.steps for each in fast) < 0.6 * sum(each.steps for each in slow)


def test_a_crystal_does_not_depend_on_its_neighbours(fcc, cu3au, low_symmetry):
    """Neither on their memory, nor on how many atoms they have, nor on when they join."""
    alone = relaxed([low_symmetry], LBFGS)[0]
    larger = cu3au.copy()
    larger.make_supercell([2, 1, 1])
    together = relaxed([fcc, low_symmetry, larger], LBFGS)[1]
    late = relax([larger, fcc, low_symmetry], Toy(), LBFGS, budget=None)[2]
    for each in (together, late):
        assert each.steps == alone.steps
        np.testing.assert_allclose(each.structure.lattice.matrix, alone.structure.lattice.matrix, rtol=0, atol=1e-8)


def test_crystals_that_it_fails_start_again_with_fire(cu3au, low_symmetry, monkeypatch):
    step = LbfgsBatch.step

    def stuck(self) -> None:
        before = self._state.positions.clone(), self._state.cell.clone()
        step(self)
        if len(self._structures[0]) == 4 and self._structures[0].composition.reduced_formula != "AuCu3":
            self._state.positions, self._state.cell = before

    monkeypatch.setattr(LbfgsBatch, "step", stuck)
    few = LBFGS.model_copy(update={"steps_per_round": 40})
    told = []
    found = relax([low_symmetry, cu3au], Toy(), few, on_result=lambda index, result: told.append(index))
    assert sorted(told) == [0, 1]
    assert all(isinstance(each, Relaxed) for each in found)
    by_fire = relaxed([low_symmetry], FIRE.model_copy(update={"steps_per_round": 40}))[0]
    assert found[0].energy_per_atom == pytest.approx(by_fire.energy_per_atom, abs=1e-5)
    assert found[0].steps == by_fire.steps + 3 * 40  # what was tried in vain counts


def test_the_inverse_hessian_is_that_of_the_two_loops():
    random = np.random.default_rng(0)
    hessian = random.normal(size=(12, 12))
    hessian = hessian @ hessian.T / 12 * 20 + 15 * np.eye(12)
    for pairs in (0, 1, 5):
        steps = random.normal(size=(pairs, 12)) * 0.1
        changes = steps @ hessian
        gradient = random.normal(size=12)
        q, alphas = gradient.copy(), []
        for s, y in zip(steps[::-1], changes[::-1], strict=True):
            alphas.append(s @ q / (s @ y))
            q -= alphas[-1] * y
        stiffness = _STIFFEST
        if pairs:
            stiffness = np.clip(changes[-1] @ changes[-1] / (steps[-1] @ changes[-1]), _SOFTEST, _STIFFEST)
        z = q / stiffness
        for s, y, alpha in zip(steps, changes, alphas[::-1], strict=True):
            z += s * (alpha - y @ z / (s @ y))
        memory = np.zeros((2, 1, _MEMORY, 4, 3))
        for where, rows in zip(memory, (steps, changes), strict=True):
            where[0, _MEMORY - pairs :] = rows.reshape(-1, 4, 3)
        found = _inverse_times(*torch.tensor(memory), torch.tensor(gradient.reshape(1, 4, 3)))
        np.testing.assert_allclose(found.numpy().ravel(), z, rtol=1e-9, atol=1e-12)


def test_one_call_of_the_potential_a_step(cu3au):
    calls = []
    batch = LbfgsBatch(FiniteOutputModel(Toy(lambda state: calls.append(state.n_systems))))
    batch.join([symmetric(cu3au, 0.01)] * 3)
    batch.step()
    batch.step()
    assert calls == [3, 3, 3]
    assert len(batch.leave([1])) == 1
    batch.step()
    assert calls[-1] == 2
