"""ORB's own code path, with random weights: none come with it."""

from __future__ import annotations

import pytest
import torch

from phononbench_flows import potentials
from phononbench_flows.potentials import PotentialError
from phononbench_flows.potentials.source import is_installed

pytestmark = [
    pytest.mark.orb,
    pytest.mark.skipif(not is_installed("orb_models"), reason="the extra orb is not installed"),
]
MODEL = "orb-v3-conservative-inf-omat"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from orb_models.forcefield.pretrained import orb_v3_conservative_architecture

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("orb") / "random.ckpt"
    torch.save(orb_v3_conservative_architecture(device="cpu").state_dict(), path)
    return path


def test_batches_give_what_its_own_calculator_gives(checkpoint, assert_as_its_own_calculator):
    from orb_models.forcefield.inference.calculator import ORBCalculator
    from orb_models.forcefield.pretrained import ORB_PRETRAINED_MODELS

    loaded = potentials.load(f"orb:{checkpoint}#{MODEL}", "cpu")
    network, adapter = ORB_PRETRAINED_MODELS[MODEL](
        weights_path=str(checkpoint), device="cpu", precision="float32-highest", compile=False
    )
    assert_as_its_own_calculator(loaded.model, ORBCalculator(network, adapter, device="cpu"), tolerance=1e-5)
    assert loaded.dtype == "float32"
    assert loaded.elements is None
    loaded.check()


@pytest.mark.parametrize("head", ["", "#orb-v2"])
def test_a_path_needs_the_name_of_a_model_whose_forces_are_gradients(checkpoint, head):
    with pytest.raises(PotentialError, match=f"orb:PATH#MODEL.*{MODEL}"):
        potentials.load(f"orb:{checkpoint}{head}", "cpu")


def test_weights_that_are_not_here_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr("cached_path.get_cache_dir", lambda: tmp_path)
    assert f"m['{MODEL}']" in potentials.readiness(MODEL)
