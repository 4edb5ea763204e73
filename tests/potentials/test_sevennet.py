from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_sim as ts

from phononbench_flows import potentials
from phononbench_flows.potentials import PotentialError
from phononbench_flows.potentials.families import sevennet
from phononbench_flows.potentials.source import is_installed

pytestmark = [
    pytest.mark.sevennet,
    pytest.mark.skipif(not is_installed("sevenn"), reason="the extra sevennet is not installed"),
]
MODELS = {
    "sevennet-0": {"model": "7net-0"},
    "sevennet-l3i5": {"model": "7net-l3i5"},
    "sevennet-mf-0-pbe": {"model": "7net-mf-0", "modal": "PBE"},
    "sevennet-mf-0-r2scan": {"model": "7net-mf-0", "modal": "R2SCAN"},
}


@pytest.mark.parametrize(
    "name", [each if each == "sevennet-0" else pytest.param(each, marks=pytest.mark.slow) for each in MODELS]
)
def test_batches_give_what_its_own_calculator_gives(name, assert_as_its_own_calculator):
    from sevenn.calculator import SevenNetCalculator

    loaded = potentials.load(name, "cpu")
    assert_as_its_own_calculator(loaded.model, SevenNetCalculator(device="cpu", **MODELS[name]))
    assert len(loaded.elements) == 89
    assert loaded.dtype == "float32"
    loaded.check()


@pytest.mark.parametrize("name", MODELS)
def test_the_elements_of_a_shipped_model_are_those_of_its_checkpoint(name):
    found = potentials.identify(name)
    assert found.elements() == potentials.identify(f"sevennet:{found.path}").elements()


def test_nothing_is_said_of_a_gpu_that_is_not_there():
    script = "from phononbench_flows import potentials; potentials.load('sevennet-0', 'cpu')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "CUDA" not in done.stdout + done.stderr


def test_a_model_is_identified_by_its_checkpoint():
    found = potentials.identify("sevennet-0")
    assert found.sha256 == hashlib.sha256(Path(found.path).read_bytes()).hexdigest()
    by_path = potentials.identify(f"sevennet:{found.path}")
    assert by_path.sha256 == found.sha256


def test_heads_of_one_checkpoint_are_two_potentials():
    pbe, r2scan = (potentials.identify(f"sevennet-mf-0-{head}") for head in ("pbe", "r2scan"))
    assert pbe.path == r2scan.path
    assert pbe.sha256 != r2scan.sha256
    assert potentials.identify(f"sevennet:{pbe.path}#PBE").sha256 == pbe.sha256


@pytest.mark.parametrize("head", ["", "#SCAN"])
def test_a_head_that_is_missing_or_not_there_ends_with_the_heads_that_are(head):
    path = potentials.identify("sevennet-mf-0-pbe").path
    with pytest.raises(PotentialError, match=r"PBE.*sevennet:PATH#HEAD"):
        potentials.load(f"sevennet:{path}{head}", "cpu")


def test_dense_crystals_are_not_refused(low_symmetry):
    dense = low_symmetry.copy()
    dense.scale_lattice(12.0)  # 3 Å^3 per atom: more neighbours than torch-sim's list allows for
    state = ts.io.structures_to_state([dense], device=torch.device("cpu"), dtype=torch.float64)
    assert torch.isfinite(potentials.load("sevennet-0", "cpu").model(state)["forces"]).all()


def test_an_accelerator_that_sevennet_would_leave_away_silently_is_refused():
    """Without a GPU SevenNet warns and goes on with e3nn."""
    path = potentials.identify("sevennet-0").path
    for key in set(potentials.find_source("sevennet-0").options) - {"accelerate"}:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        with pytest.raises(PotentialError, match=f"{key} cannot be used here"):
            sevennet.FAMILY.sources["sevennet-0"].load(path, torch.device("cpu"), **{key: True})
    with pytest.raises(PotentialError, match="only one of enable_cueq, enable_oeq"):
        sevennet.FAMILY.sources["sevennet-0"].load(path, torch.device("cpu"), enable_cueq=True, enable_oeq=True)
