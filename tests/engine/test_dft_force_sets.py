"""Spectrum and verdict from DFT forces agree with what was published beside them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import phonopy
import pytest

from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.engine.verdict import judge
from phononbench_flows.protocol import Judgement, Spectrum

# The summary's mesh; its minima are rounded to 1e-4 THz.
MESH = Spectrum(mesh=(10, 10, 10))


def load(path: Path) -> phonopy.Phonopy:
    if path.is_file():
        return phonopy.load(path, log_level=0)
    matrix = np.array((path / "supercell.txt").read_text().split(), dtype=int)
    return phonopy.load(
        unitcell_filename=path / "POSCAR-unitcell",
        supercell_matrix=np.diag(matrix) if len(matrix) == 3 else matrix.reshape(3, 3),
        force_sets_filename=path / "FORCE_SETS",
        log_level=0,
    )


def test_minimum_on_the_mesh_is_the_published_one(shared_data):
    folder = shared_data / "dft_force_sets"
    with (folder / "summary.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert listed
    for row in listed:
        found = spectrum(load(folder / row["files"]), MESH)
        expected = float(row["min_freq_mesh_THz"])
        assert found.mesh.minimum == pytest.approx(expected, abs=2e-4), row["name"]
        (verdict,) = judge(found, Judgement(q_points="mesh", threshold=-0.05, also=()))
        assert verdict.stable == (expected >= -0.05), row["name"]
