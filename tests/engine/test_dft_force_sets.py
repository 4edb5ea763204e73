"""Spectrum and assessment from DFT forces agree with what was published beside them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import phonopy
import pytest

from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.protocol import PRESETS, Judgement, SpectrumSettings
from phononbench_flows.stability import Evidence, Look, assess

# The summary's meshes: the protocol's, and a coarser one for cells above 30 atoms. It rounds to 1e-4 THz.
USUAL, LARGE = PRESETS["paper"].spectrum, SpectrumSettings(mesh=(6, 6, 6))


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
    present = [row for row in listed if (folder / row["files"]).exists()]
    assert len(present) > 30
    for row in present:
        found = spectrum(load(folder / row["files"]), LARGE if int(row["n_unitcell"]) > 30 else USUAL)
        expected = float(row["min_freq_mesh_THz"])
        assert found.mesh.minimum == pytest.approx(expected, abs=2e-4), row["name"]
        look = Look(frequency=found.mesh.minimum, q=found.mesh.minimum_q.tolist(), n_q=len(found.mesh.q), exact=False)
        judgement = Judgement(q_points="mesh", threshold=-0.05, also=())
        (assessment,) = assess(Evidence(looks={"mesh": look}), judgement)
        assert assessment.stability == ("stable" if expected >= -0.05 else "unstable"), row["name"]
