from __future__ import annotations

import gc

import pytest
import torch
import torch_sim as ts
from ase.build import bulk

from phononbench_flows import potentials
from phononbench_flows.potentials.source import is_installed

pytestmark = [
    pytest.mark.chgnet,
    pytest.mark.skipif(not is_installed("chgnet"), reason="the extra chgnet is not installed"),
]


@pytest.mark.parametrize("name", ["chgnet-0.3.0", "chgnet-r2scan"])
def test_batches_give_what_its_own_calculator_gives(name, assert_as_its_own_calculator):
    from chgnet.model import CHGNet, CHGNetCalculator

    loaded = potentials.load(name, "cpu")
    own = CHGNet.load(model_name=name.removeprefix("chgnet-"), use_device="cpu", verbose=False)
    assert_as_its_own_calculator(loaded.model, CHGNetCalculator(own, use_device="cpu"))
    assert len(loaded.elements) == 89
    assert loaded.dtype == "float32"
    loaded.check()


def test_a_crystal_with_and_one_without_angles_share_a_batch():
    """Bonds above 3 Å have no angles in CHGNet."""
    model = potentials.load("chgnet-0.3.0", "cpu").model
    wide, dense = bulk("Ar", "fcc", a=5.3), bulk("C", "diamond", a=3.57)
    for atoms in (wide, dense):
        atoms.rattle(0.05, seed=3)
    both, alone = (
        model(ts.initialize_state(atoms, torch.device("cpu"), torch.float64)) for atoms in ([wide, dense], dense)
    )
    assert torch.allclose(both["forces"][1:], alone["forces"], atol=1e-4)
    assert torch.allclose(both["stress"][1], alone["stress"][0], atol=1e-5)
    assert float(both["energy"][1]) == pytest.approx(float(alone["energy"][0]), abs=1e-4)


def test_calls_from_several_threads_leave_the_garbage_collector_on():
    before = gc.get_threshold()
    model = potentials.load("chgnet-0.3.0", "cpu").model
    crystals = [bulk("MgO", "rocksalt", a=4.21) * (2, 2, 2)] * 8
    model(ts.initialize_state(crystals, torch.device("cpu"), torch.float64))
    assert gc.get_threshold() == before
