"""MACE's own code path, with a small network of random weights: no weights come with it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from phononbench_flows import potentials
from phononbench_flows.potentials import PotentialError
from phononbench_flows.potentials.families.mace import _variable_kept
from phononbench_flows.potentials.source import is_installed

pytestmark = [
    pytest.mark.mace,
    pytest.mark.skipif(not is_installed("mace"), reason="the extra mace is not installed"),
]
NUMBERS = [8, 12, 29]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with two heads."""
    with _variable_kept():
        from mace import modules

    from e3nn import o3

    heads = ["a", "b"]
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        model = modules.ScaleShiftMACE(
            r_max=5.0,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(NUMBERS),
            hidden_irreps=o3.Irreps("8x0e+8x1o"),
            MLP_irreps=o3.Irreps("8x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.zeros((len(heads), len(NUMBERS))),
            avg_num_neighbors=12.0,
            atomic_numbers=NUMBERS,
            correlation=2,
            atomic_inter_scale=[1.0] * len(heads),
            atomic_inter_shift=[0.0] * len(heads),
            heads=heads,
        )
    finally:
        torch.set_default_dtype(before)
    path = tmp_path_factory.mktemp("mace") / "small.model"
    torch.save(model, path)
    return path


@pytest.mark.parametrize("head", ["a", "b"])
def test_batches_give_what_its_own_calculator_gives(checkpoint, head, assert_as_its_own_calculator):
    loaded = potentials.load(f"mace:{checkpoint}#{head}", "cpu")
    with _variable_kept():
        from mace.calculators import MACECalculator

    model = torch.load(checkpoint, weights_only=False)
    own = MACECalculator(models=[model], device="cpu", default_dtype="float64", head=head)
    assert_as_its_own_calculator(loaded.model, own, tolerance=1e-8)
    assert loaded.elements == {"O", "Mg", "Cu"}
    assert loaded.dtype == "float64"
    loaded.check()


def test_a_head_that_is_not_there_ends_with_those_that_are(checkpoint):
    with pytest.raises(PotentialError, match=r"\['a', 'b'\]"):
        potentials.load(f"mace:{checkpoint}#c", "cpu")


def test_other_potentials_can_still_be_loaded_safely(checkpoint):
    """MACE sets a variable that lets every checkpoint run code."""
    potentials.load(f"mace:{checkpoint}#a", "cpu")
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    potentials.load("toy_potentials:lj", "cpu")
