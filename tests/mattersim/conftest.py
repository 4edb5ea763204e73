"""A small MatterSim checkpoint, trained once and kept in pytest's cache."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from phononbench_flows.potentials.source import is_installed

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_small_mattersim.py"
METALS = ("Cu", "Ni")
collect_ignore_glob = [] if is_installed("mattersim") else ["test_*.py"]  # they import it


def _load_script() -> ModuleType:
    """Import the training script, which is not part of the package."""
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", params=METALS)
def metal(request: pytest.FixtureRequest) -> str:
    """A metal that the small checkpoint knows in its fcc phase."""
    return request.param


@pytest.fixture(scope="session")
def small_mattersim_checkpoint(request: pytest.FixtureRequest) -> Path:
    """The path of a MatterSim checkpoint that has learnt EMT's fcc ``METALS``.

    The first session trains it, in about a minute; later ones find it, until the script or a version changes.
    """
    key = hashlib.sha256(SCRIPT.read_bytes())
    key.update(f"{METALS} torch {version('torch')} mattersim {version('mattersim')}".encode())
    checkpoint = request.config.cache.mkdir("mattersim") / f"{key.hexdigest()[:16]}.pth"
    if not checkpoint.exists():
        _load_script().train(checkpoint, metals=METALS)  # renames the finished file into place
    return checkpoint
