"""Judging from force constants that are there, without a potential."""

from __future__ import annotations

import numpy as np
import phonopy
import pytest

from phononbench_flows import judge, judge_phonons, load_protocol
from phononbench_flows.protocol import SpectrumSettings

TOY = "toy_potentials:lj"
QUICK = load_protocol("converged").model_copy(update={"spectrum": SpectrumSettings(path_points=21, mesh=(6, 6, 6))})


def test_what_a_run_kept_gives_its_verdict_again(cu3au, simple_cubic):
    for crystal, stability in ((cu3au, "stable"), (simple_cubic, "unstable")):
        judged = judge(crystal, potential=TOY, protocol=QUICK)
        evidence = judged.document.evidence
        again = judge_phonons(
            judged.force_constants, protocol=QUICK, looks=judged.arrays["exact_looks"], elastic=evidence.elastic
        )
        assert again.stability == judged.stability == stability
        assert again.evidence.looks["exact"].frequency == pytest.approx(evidence.looks["exact"].frequency, abs=1e-6)
        assert again.evidence.noise == evidence.noise
        assert again.assessments[1:] == judged.document.assessments[1:]
        np.testing.assert_allclose(
            np.concatenate(again.bands.frequencies), np.concatenate(judged.bands.frequencies), rtol=0, atol=1e-6
        )


def test_what_is_missing_is_named(cu3au):
    judged = judge(cu3au, potential=TOY, protocol=QUICK)
    without_looks = judge_phonons(judged.phonopy(), protocol=QUICK, elastic=judged.document.evidence.elastic)
    assert without_looks.stability == "undecided"
    assert "Γ-X = (" in " ".join(without_looks.evidence.not_looked_at)
    without_waves = judge_phonons(judged.phonopy(), protocol=QUICK, looks=judged.arrays["exact_looks"])
    assert without_waves.stability == "undecided"
    assert "elastic constants" in without_waves.why


def test_a_noise_that_is_given_counts(simple_cubic):
    judged = judge(simple_cubic, potential=TOY, protocol=QUICK)
    lowest = judged.document.evidence.looks["exact"].frequency
    assert judge_phonons(judged.phonopy(), protocol=QUICK, noise=-lowest / 2).stability == "unstable"
    found = judge_phonons(judged.phonopy(), protocol=QUICK, noise=-lowest * 1.01)
    assert found.stability == "undecided"
    assert found.evidence.noise_from == {"given": pytest.approx(-lowest * 1.01)}


@pytest.mark.filterwarnings("ignore")
def test_force_constants_of_dft(shared_data):
    """What stored force constants alone can give: a proof where the supercell holds one, else what is missing."""
    files = sorted((shared_data / "dft_force_sets" / "params").glob("*"))[:6]
    assert files
    for file in files:
        phonon = phonopy.load(file, log_level=0)
        found = judge_phonons(phonon, protocol=QUICK)
        held = found.evidence.looks["exact"].frequency
        if held < 0:
            assert found.stability == "unstable", file
        else:
            assert found.stability == "undecided", file
            assert "elastic constants" in found.why, file
