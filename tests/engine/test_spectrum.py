from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from toy_potentials import Toy

from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.dialogues import hold
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.relax import relax
from phononbench_flows.engine.spectrum import Spectrum, finite_spectrum, spectrum, spring_crystal
from phononbench_flows.engine.trouble import Failure
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import PRESETS, Judgement, SpectrumSettings
from phononbench_flows.stability import Evidence, Look, assess

PAPER = PRESETS["paper"]


def stabilities(found: Spectrum, judgement: Judgement) -> list[str]:
    """What the spectrum says at each threshold of the judgement."""
    at = found.at(judgement.q_points)
    look = Look(frequency=at.minimum, q=at.minimum_q.tolist(), n_q=len(at.q), exact=False)
    return [each.stability for each in assess(Evidence(looks={judgement.q_points: look}), judgement)]


@pytest.fixture
def constants(fcc, simple_cubic) -> list[ForceConstants]:
    rested = relax([fcc, simple_cubic], Toy(), PAPER.relaxation)
    return force_constants([r.structure for r in rested], Toy(), PAPER.force_constants)


def test_close_packed_is_stable_and_simple_cubic_is_not(constants):
    stable, unstable = (spectrum(c.phonopy(), PAPER.spectrum) for c in constants)
    assert stabilities(stable, PAPER.judgement) == ["stable", "stable"]
    assert stabilities(unstable, PAPER.judgement) == ["unstable", "unstable"]
    assert abs(stable.path.minimum) < 1e-3
    assert unstable.path.minimum < -1


def test_frequencies_are_where_they_should_be(constants):
    found = spectrum(constants[0].phonopy(), PAPER.spectrum)
    # fcc cell of four atoms: its primitive cell has one, the 2x2x2 supercell 32 commensurate q-points
    assert found.commensurate.values.shape == (32, 3)
    assert found.gamma_optical is None
    assert max(len(q) for q in found.bands.q) == PAPER.spectrum.path_points
    # every commensurate q-point of this supercell lies on the 12x12x12 mesh
    assert found.mesh.values.max() >= found.commensurate.values.max() - 1e-9
    at = found.path.minimum_q
    assert found.path.values[np.all(found.path.q == at, axis=1)].min() == found.path.minimum


def test_bands_survive_storage(constants):
    bands = spectrum(constants[0].phonopy(), PAPER.spectrum).bands
    again = Bands.from_arrays(bands.arrays())
    assert again.labels == bands.labels
    assert again.connections == bands.connections
    for a, b in zip(again.frequencies, bands.frequencies, strict=True):
        assert np.array_equal(a, b)


def test_not_a_number_is_a_failure_and_never_a_verdict(constants):
    broken = ForceConstants(**{**vars(constants[0]), "array": np.full_like(constants[0].array, np.nan)})
    results = hold([partial(finite_spectrum, each, PAPER.spectrum) for each in (broken, constants[0])], Toy())
    assert isinstance(results[0], Failure)
    assert results[0].reason in {Reason.NOT_FINITE, Reason.EXCEPTION}
    assert isinstance(results[1].result, Spectrum)


def test_where_and_at_what_threshold_the_verdict_looks(constants):
    found = spectrum(constants[1].phonopy(), PAPER.spectrum)
    lowest = found.mesh.minimum
    assert stabilities(found, Judgement(q_points="mesh", threshold=lowest + 1e-6, also=())) == ["unstable"]
    assert stabilities(found, Judgement(q_points="mesh", threshold=lowest - 1e-6, also=())) == ["stable"]


def test_the_known_healthy_crystal_vibrates_as_springs_do():
    """Springs k between the 12 nearest neighbours of fcc, at a/2 (±1, ±1, 0) and so on.

    D(q) = k/m sum over the neighbours of (1 - cos q·r) times the projector on r. At X, q = 2π/a (0, 0, 1): q·r is 0 for
    the four neighbours in the plane and ±π for the other eight, each of which gives 2 k/m times its projector. Over
    (±1, 0, ±1)/√2 and (0, ±1, ±1)/√2 the projectors sum to diag(2, 2, 4), so that ω² = 8 k/m along q and 4 k/m across.
    At L, q = π/a (1, 1, 1), six neighbours have q·r = ±π: (1, 1, 0)/√2, ..., whose projectors sum to 1 + ones(3, 3),
    of eigenvalues 4 and 1, 1: ω² = 8 k/m along q and 2 k/m across.
    """
    per_ev, per_u, per_angstrom = 1.602176634e-19, 1.66053906660e-27, 1e-10
    k, mass = 1.5 * per_ev / per_angstrom**2, 26.9815385 * per_u
    one = np.sqrt(k / mass) / (2 * np.pi) / 1e12
    phonon = spring_crystal().phonopy()
    at_x, at_l, at_gamma = phonon.run_qpoints([[0.5, 0.5, 0], [0.5, 0.5, 0.5], [0, 0, 0]]).frequencies
    assert at_x == pytest.approx([2 * one, 2 * one, 8**0.5 * one], rel=1e-6)
    assert at_l == pytest.approx([2**0.5 * one, 2**0.5 * one, 8**0.5 * one], rel=1e-6)
    assert at_gamma == pytest.approx([0, 0, 0], abs=1e-5)
    found = spectrum(phonon, PAPER.spectrum)
    assert found.mesh.values.max() == pytest.approx(8**0.5 * one, rel=1e-6), "nothing is stiffer than X and L"


@pytest.mark.parametrize("settings", [PAPER.spectrum, SpectrumSettings(path_points=11, mesh=(4, 4, 4))])
def test_the_known_healthy_crystal_is_healthy_at_all_q(settings):
    found = spectrum(spring_crystal().phonopy(), settings)
    gamma_aside = [
        at.values[np.linalg.norm(at.q, axis=1) > 1e-9] for at in (found.path, found.commensurate, found.mesh)
    ]
    assert min(values.min() for values in gamma_aside) > 0.01
    assert min(at.minimum for at in (found.path, found.commensurate, found.mesh)) >= -1e-9
