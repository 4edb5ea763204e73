from __future__ import annotations

import faulthandler
import gc
import logging
import os
from pathlib import Path

import pytest

# Consoles keep the width that is told when they are made; tests tell another when they run a command.
os.environ.pop("COLUMNS", None)
# Four test processes, and what they start, with all cores each would be in each other's way: threads wait in loops.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

from cubic_crystals import FCC_SITES, cubic
from pymatgen.core import Structure

pytest_plugins = ["browser", "servers", "slurm_cluster"]

ROOT = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """What is there once all tests are known stays. Where memory is freed, all that may go is looked through."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real crystals kept beside the checkout; a test that needs them skips where they are absent."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no shared data beside the checkout")
    return path


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Each test stands for a process that has just begun: it logged nothing, found no machine broken, has no witness.

    Handlers of jobflow's and FireWorks' loggers hold the streams of the test that first ran one.
    """
    loggers = [each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in loggers:
        monkeypatch.setattr(logger, "handlers", [])
    from phononbench_flows import witness
    from phononbench_flows.flows import machine
    from phononbench_flows.steps import passing

    beside = witness._State()
    monkeypatch.setattr(witness, "_state", beside)
    monkeypatch.setattr(machine, "_broken", [])
    monkeypatch.setattr(passing, "_logged", set())
    yield
    if beside.process is not None:
        faulthandler.enable()
        beside.process.communicate()  # what it reads ends, and so does it


@pytest.fixture
def fcc() -> Structure:
    """Close-packed: stable under the toy potential."""
    return cubic(3.6, ["Cu"] * 4, FCC_SITES)


@pytest.fixture
def cu3au() -> Structure:
    """Ordered on the fcc lattice: stable under the toy potential."""
    return cubic(3.7, ["Au", "Cu", "Cu", "Cu"], FCC_SITES)


@pytest.fixture
def simple_cubic() -> Structure:
    """One atom a cell: unstable under the toy potential."""
    return cubic(2.4, ["Po"], [[0, 0, 0]])


@pytest.fixture
def low_symmetry() -> Structure:
    """A strained and rattled fcc cell without symmetry."""
    structure = cubic(3.6, ["Cu", "Ag", "Au", "Cu"], FCC_SITES)
    structure.apply_strain([0.01, -0.015, 0.02])
    return structure.perturb(0.05, seed=7) or structure
