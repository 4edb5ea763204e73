"""Phonons of crystals that exact frequencies decided: files whose bands pass through what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy_potentials
import yaml
from emmet.core.phonon import PhononBSDOSDoc
from pymatgen.core import Lattice, Structure

from phononbench_flows import judge, judge_phonons, load_protocol
from phononbench_flows.documents import SetDocument
from phononbench_flows.engine.corrected import PhonopyMatrix, looks_arrays, through_looks
from phononbench_flows.engine.interpolation import Known, interpolation
from phononbench_flows.engine.spectrum import mesh_points
from phononbench_flows.judging import JudgedCrystal
from phononbench_flows.results.export import with_phonons
from phononbench_flows.results.phonon_files import (
    PHONON_FORMATS,
    PhononFileError,
    band_yaml,
    emmet_json,
)
from phononbench_flows.store import ResultsStore

CLOSE = {"rtol": 0, "atol": 1e-6}  # THz
_converged = load_protocol("converged")
CONVERGED = _converged.model_copy(
    update={"spectrum": _converged.spectrum.model_copy(update={"path_points": 9, "mesh": (4, 4, 4)})}
)


def crystals() -> dict[str, Structure]:
    low = Structure(Lattice.cubic(3.6), ["Cu", "Ag"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    low.apply_strain([0.0, 0.0, 0.4])
    hcp = Structure(Lattice.hexagonal(2.55, 4.16), ["Mg"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    return {"hcp": hcp, "tetragonal": low}


@pytest.fixture(scope="module", params=sorted(crystals()))
def judged(request) -> JudgedCrystal:
    found = judge(crystals()[request.param], potential="toy_potentials:lj", protocol=CONVERGED)
    assert found.was_judged
    assert len(found.document.evidence.exact) > 3
    return found


def lowest_of(data: dict) -> np.ndarray:
    return np.array([[mode["frequency"] for mode in point["band"]] for point in data["phonon"]])


def test_the_interpolation_is_made_again(judged):
    found = through_looks(judged.force_constants, judged.arrays["exact_looks"])
    points = np.concatenate(judged.bands.q)
    np.testing.assert_allclose(found.frequencies(points), np.concatenate(judged.bands.frequencies), **CLOSE)
    for look in judged.document.evidence.exact[1:]:
        assert found.frequencies(np.array(look.q))[0, 0] == pytest.approx(look.frequency, abs=1e-6)
        assert look.interpolated is not None
    plain = interpolation(judged.phonopy(), tolerance=0.05).frequencies(points)
    assert np.abs(plain - np.concatenate(judged.bands.frequencies)).max() > 1e-3  # the looks do change it


def test_the_cured_minimum_is_recorded(judged):
    cured = judged.document.evidence.looks["cured"]
    start = interpolation(judged.phonopy(), tolerance=0.05)
    path, mesh = np.concatenate(judged.bands.q), mesh_points(start.cell, (4, 4, 4), 1e-5)
    assert cured.n_q == len(path) + len(mesh)
    assert cured.frequency == pytest.approx(start.frequencies(np.concatenate([path, mesh])).min(), abs=1e-6)
    assert not cured.exact


def test_points_of_a_mesh_stand_for_all_of_it(judged):
    start = interpolation(judged.phonopy(), tolerance=0.05)
    for mesh in ((4, 4, 4), (4, 4, 6)):
        steps = [np.arange(n) / n for n in mesh]
        whole = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
        few = mesh_points(start.cell, mesh, 1e-5)
        assert len(few) < len(whole) / 2
        spectra = {tuple(np.round(each, 4)) for each in np.abs(start.eigenvalues(few))}
        assert {tuple(np.round(each, 4)) for each in np.abs(start.eigenvalues(whole))} == spectra


def test_band_yaml_passes_through_exact_frequencies(judged):
    data = yaml.load(PHONON_FORMATS["band"].text(judged.phonons), yaml.CSafeLoader)
    frequencies = lowest_of(data)
    np.testing.assert_allclose(frequencies, np.concatenate(judged.bands.frequencies), **CLOSE)
    points = np.array([point["q-position"] for point in data["phonon"]])
    met = 0
    for look in judged.document.evidence.exact:
        for at in np.flatnonzero(np.abs(points - look.q).max(axis=1) < 1e-6):
            met += 1
            assert frequencies[at, 0] == pytest.approx(look.frequency, abs=1e-6)
    assert met


def test_its_eigenvectors_solve_the_corrected_matrix(judged):
    data = yaml.load(PHONON_FORMATS["band"].text(judged.phonons), yaml.CSafeLoader)
    phonon = judged.phonopy()
    matrix = PhonopyMatrix(phonon, through_looks(judged.force_constants, judged.arrays["exact_looks"]))
    for point, q in list(zip(data["phonon"], np.concatenate(judged.bands.q), strict=True))[::7]:
        modes = point["band"]
        vectors = (np.array([mode["eigenvector"] for mode in modes]) @ [1, 1j]).reshape(len(modes), -1).T
        np.testing.assert_allclose(vectors.conj().T @ vectors, np.eye(len(modes)), atol=1e-10)
        matrix.run(q)  # the file's have seven digits
        f = np.array([mode["frequency"] for mode in modes]) / phonon.unit_conversion_factor
        np.testing.assert_allclose(matrix.dynamical_matrix @ vectors, vectors * (np.abs(f) * f), atol=1e-9)


def test_the_matrix_has_phonopys_phases_and_units(judged):
    """Where nothing was looked at and nothing is cured, it is phonopy's own."""
    phonon = judged.phonopy()
    plain = interpolation(phonon, tolerance=1e-5, take_out_rotations=False)
    matrix = PhonopyMatrix(phonon, plain)
    for q in np.random.default_rng(1).uniform(-0.6, 0.6, size=(6, 3)):
        matrix.run(q)
        theirs = phonon.run_qpoints(q[None], with_dynamical_matrices=True).dynamical_matrices[0]
        np.testing.assert_allclose(matrix.dynamical_matrix, theirs, atol=1e-9)


def test_without_the_looks_it_is_refused(judged):
    with pytest.raises(PhononFileError, match="not those of the force constants"):
        band_yaml(judged.force_constants, judged.bands)


def test_emmet_has_the_same_bands_and_density_of_states(judged):
    result = judged.phonons
    document = PhononBSDOSDoc.model_validate_json(emmet_json(replace(result, mesh=(5, 5, 5))))
    line = document.phonon_bandstructure.to_pmg
    found = through_looks(judged.force_constants, judged.arrays["exact_looks"])
    points = np.array([point.frac_coords for point in line.qpoints])
    # A segment of two points has got its middle, from the same interpolation.
    np.testing.assert_allclose(line.bands.T, found.frequencies(points), **CLOSE)
    dos = document.phonon_dos
    states = np.trapezoid(dos.densities, dos.frequencies)
    assert states == pytest.approx(3 * len(document.structure), rel=0.02)
    # It begins a tenth of its width below the lowest frequency.
    on_mesh = found.frequencies(mesh_points(found.cell, (5, 5, 5), 1e-5))
    assert min(dos.frequencies) == pytest.approx(on_mesh.min() - 0.1 * (on_mesh.max() - on_mesh.min()), abs=1e-6)


def test_from_a_store(judged, tmp_path):
    with ResultsStore.open(tmp_path, create=True) as store:
        document = judged.document.model_copy(deep=True)
        document.arrays = {name: store.blobs.put(dict(arrays)) for name, arrays in judged.arrays.items()}
        store.put_crystals(judged.crystal)
        store.put(document)
        store.put_set(SetDocument(set=document.set))
        [found] = with_phonons(store.documents(), store)
    text = PHONON_FORMATS["band"].text(found)
    assert text == PHONON_FORMATS["band"].text(judged.phonons)


def test_nothing_looked_at_is_the_cured_interpolation(judged):
    found = through_looks(judged.force_constants, looks_arrays([], 0.05))
    q = np.array([[0.13, 0.0, 0.21]])
    assert found.frequencies(q).tolist() == interpolation(judged.phonopy(), tolerance=0.05).frequencies(q).tolist()
    kept = looks_arrays([Known(q[0], np.eye(6))], 0.05)
    assert {name: value.shape for name, value in kept.items()} == {"q": (1, 3), "matrices": (1, 6, 6), "tolerance": ()}


def test_a_result_tells_the_published_verdict(judged, tmp_path):
    assert judged.as_dict()["published"] == {f"{at:g}": said for at, said in judged.published.items()}
    assert set(judged.as_dict()["published"]) == {"-0.001", "-0.1"}
    assert "published rule" in judged._repr_html_()
    assert {path.suffix for path in judged.save(tmp_path)} == {".cif", ".json", ".yaml", ".png"}


def test_a_matrix_at_gamma_that_was_computed_again_is_kept_and_remembered(monkeypatch):
    """Under a potential that leaves forces which symmetry forbids: they are taken for force constants at Γ."""
    honest = toy_potentials.Toy.forward

    def crooked(self, state, **kwargs):
        output = dict(honest(self, state, **kwargs))
        push = torch.where(state.atomic_numbers == 29, 0.004, -0.002)[:, None] * torch.tensor([0.0, 1.0, 1.0])
        return output | {"forces": output["forces"] + push}

    monkeypatch.setattr(toy_potentials.Toy, "forward", crooked)
    # Copper lies at an inversion centre, where one direction tells of the other; silver is displaced in both.
    vectors = 1.8 * np.array([[0, 3, 3], [1, 0, 1], [1, 1, 0]])
    crystal = Structure(vectors, ["Cu", "Ag", "Ag"], [[0, 0, 0], [1 / 3, 0, 0], [2 / 3, 0, 0]])
    judged = judge(crystal, potential="toy_potentials:lj", protocol=CONVERGED)
    assert judged.document.evidence.noise_from["gamma"] > 0.05
    kept = judged.arrays["exact_looks"]
    assert np.abs(kept["q"][0]).max() == 0
    optical = np.sort(np.linalg.eigvalsh(kept["matrices"][0]))[3:]
    before = interpolation(judged.phonopy(), tolerance=0.05).eigenvalues(np.zeros(3))[0, 3:]
    assert np.abs(optical - before).max() > 0.01
    data = yaml.safe_load(band_yaml(judged.force_constants, judged.bands, exact_looks=kept))
    np.testing.assert_allclose(lowest_of(data), np.concatenate(judged.bands.frequencies), **CLOSE)
    again = judge_phonons(
        judged.force_constants, protocol=CONVERGED, looks=kept, elastic=judged.document.evidence.elastic
    )
    assert again.stability == judged.stability
    assert "Γ, displaced" not in " ".join(again.evidence.not_looked_at)
    assert again.evidence.looks["exact"].frequency == pytest.approx(
        judged.document.evidence.looks["exact"].frequency, abs=1e-6
    )
