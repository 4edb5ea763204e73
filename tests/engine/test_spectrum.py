from __future__ import annotations

import numpy as np
import pytest
from toy_potentials import Toy

from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.batch import Failure
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.relax import relax
from phononbench_flows.engine.spectrum import Spectrum, spectra, spectrum
from phononbench_flows.engine.verdict import judge
from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import PRESETS, Judgement

PAPER = PRESETS["paper"]


@pytest.fixture
def constants(fcc, simple_cubic) -> list[ForceConstants]:
    rested = relax([fcc, simple_cubic], Toy(), PAPER.relaxation)
    return force_constants([r.structure for r in rested], Toy(), PAPER.force_constants)


def test_close_packed_is_stable_and_simple_cubic_is_not(constants):
    stable, unstable = (spectrum(c.phonopy(), PAPER.spectrum) for c in constants)
    assert [v.stable for v in judge(stable, PAPER.judgement)] == [True, True]
    assert [v.stable for v in judge(unstable, PAPER.judgement)] == [False, False]
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
    results = spectra([broken, constants[0]], PAPER.spectrum, on_result=lambda i, r: None)
    assert isinstance(results[0], Failure)
    assert results[0].reason in {Reason.NOT_FINITE, Reason.EXCEPTION}
    assert isinstance(results[1], Spectrum)


def test_where_and_at_what_threshold_the_verdict_looks(constants):
    found = spectrum(constants[1].phonopy(), PAPER.spectrum)
    lowest = found.mesh.minimum
    assert not judge(found, Judgement(q_points="mesh", threshold=lowest + 1e-6, also=()))[0].stable
    assert judge(found, Judgement(q_points="mesh", threshold=lowest - 1e-6, also=()))[0].stable
