from __future__ import annotations

import threading

import pytest
import torch
import torch_sim as ts
from ase.build import bulk
from toy_potentials import Toy

from phononbench_flows.engine.threaded import ThreadedModel


def crystals(*repeats: int) -> ts.SimState:
    atoms = []
    for seed, n in enumerate(repeats):
        crystal = bulk("Cu", cubic=True).repeat((n, 1, 1))
        crystal.rattle(0.05, seed=seed)
        atoms.append(crystal)
    return ts.initialize_state(atoms, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("repeats", [(1,), (1, 1), (3, 1, 2, 20, 1), (40, 1), (1,) * 50])
def test_gives_what_the_model_gives_for_the_whole(repeats):
    state = crystals(*repeats)
    whole, parts = Toy()(state), ThreadedModel(Toy(), cores=3)(state)
    assert set(parts) == set(whole)
    for key, value in whole.items():
        assert torch.allclose(parts[key], value, rtol=0, atol=1e-10), key


def test_parts_run_side_by_side():
    both = threading.Barrier(2, timeout=30)
    ThreadedModel(Toy(lambda state: both.wait()), cores=2)(crystals(2, 2))


def test_what_the_model_raises_comes_through():
    def full(state: ts.SimState) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        ThreadedModel(Toy(full), cores=2)(crystals(1, 1, 1))
