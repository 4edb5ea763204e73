"""What is faster here than in phonopy: the solver, frequencies and the path, against phonopy's own."""

from __future__ import annotations

import numpy as np
import pytest
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from pymatgen.core import Lattice, Structure
from toy_potentials import Toy

from phononbench_flows.engine.force_constants import ForceConstants, displace, force_constants
from phononbench_flows.engine.paths import released_walk
from phononbench_flows.engine.solver import solve
from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.protocol import PRESETS

PAPER = PRESETS["paper"]


def crystals() -> dict[str, Structure]:
    """With much symmetry, with sites of several kinds and multiplicities, and with none."""
    hexagonal = Structure(
        Lattice.hexagonal(3.2, 5.2),
        ["Zn", "Zn", "S", "S"],
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.376], [2 / 3, 1 / 3, 0.876]],
    )
    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )
    rattled = Structure(
        Lattice.from_parameters(4.1, 4.6, 5.0, 80, 95, 110), ["Cu", "Au"], [[0, 0, 0], [0.45, 0.5, 0.6]]
    )
    return {"hexagonal": hexagonal, "perovskite": perovskite, "without symmetry": rattled}


@pytest.mark.parametrize("name", crystals())
def test_solver_gives_what_phonopy_does(name):
    phonon = displace(crystals()[name], PAPER.force_constants)
    n = len(phonon.supercells_with_displacements)
    # Not forces of any crystal: what the least squares make of contradictions has to be the same, too.
    forces = np.random.default_rng(0).normal(size=(n, len(phonon.supercell), 3))
    solve(phonon, forces)
    ours = phonon.force_constants.copy()
    phonon.forces = forces
    phonon.produce_force_constants()
    assert np.abs(ours - phonon.force_constants).max() < 1e-9 * np.abs(ours).max()


@pytest.mark.parametrize("name", ["hexagonal", "without symmetry"])
def test_spectrum_is_that_of_phonopy(name):
    (constants,) = force_constants([crystals()[name]], Toy(), PAPER.force_constants)
    assert isinstance(constants, ForceConstants)
    phonon = constants.phonopy(symmetry=False)
    found = spectrum(phonon, PAPER.spectrum)
    for at in (found.path, found.mesh, found.commensurate):
        theirs = phonon.run_qpoints(at.q).frequencies
        assert np.abs(at.values * np.abs(at.values) - theirs * np.abs(theirs)).max() < 1e-9  # THz^2
    drawn = phonon.run_qpoints(np.concatenate(found.bands.q)).frequencies
    assert np.abs(np.concatenate(found.bands.frequencies) - drawn).max() < 1e-4  # THz; at Γ they are roots of noise


@pytest.mark.parametrize("name", crystals())
def test_released_path_is_the_one_that_phonopy_walks(name):
    cell = displace(crystals()[name], PAPER.force_constants).primitive
    ours = released_walk(cell, 101)
    q, labels, connections = get_band_qpoints_by_seekpath(cell, npoints=101, is_const_interval=True)
    assert (ours.labels, ours.connections) == (labels, connections)
    assert [len(each) for each in ours.q] == [len(each) for each in q]
    assert np.abs(np.concatenate(ours.q) - np.concatenate(q)).max() < 1e-12
