"""Phonons go out as files and come back, through other programs, as the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import phonopy
import pytest
import yaml
from emmet.core.phonon import PhononBSDOSDoc
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.phonopy import get_ph_bs_symm_line
from toy_potentials import Toy

from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.force_constants import ForceConstants, force_constants
from phononbench_flows.engine.paths import released_walk
from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.protocol import PRESETS, SpectrumSettings
from phononbench_flows.results import phonon_files
from phononbench_flows.results.phonon_files import (
    PHONON_FORMATS,
    PhononFileError,
    PhononResult,
    band_yaml,
    emmet_document,
    emmet_json,
    phonopy_params,
)

PAPER = PRESETS["paper"]
# THz. Acoustic modes at Gamma are the root of rounding, so no two diagonalisations agree better there.
CLOSE = {"rtol": 0, "atol": 1e-6}


def crystals() -> dict[str, Structure]:
    fcc = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    halves = [[x + 0.5, y, z] for x, y, z in fcc]
    low = Structure(Lattice.cubic(3.6), ["Cu", "Ag", "Au", "Cu"], fcc)
    low.apply_strain([0.01, -0.015, 0.02])
    low.perturb(0.05, seed=7)
    return {
        "fcc": Structure(Lattice.cubic(3.6), ["Cu"] * 4, fcc),  # one atom in the primitive cell, the path jumps U|K
        "hcp": Structure(Lattice.hexagonal(2.55, 4.16), ["Mg"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]),
        "rocksalt": Structure(Lattice.cubic(5.0), ["Na"] * 4 + ["Cl"] * 4, fcc + halves),  # imaginary modes
        "triclinic": low,
        "technetium": Structure(Lattice.cubic(3.6), ["Tc"] * 4, fcc),  # has no standard atomic weight
    }


@pytest.fixture(scope="module")
def results() -> dict[str, PhononResult]:
    names, structures = zip(*crystals().items(), strict=True)
    found = force_constants(structures, Toy(), PAPER.force_constants)
    return {name: result_of(name, constants) for name, constants in zip(names, found, strict=True)}


def result_of(name: str, constants: ForceConstants, settings: SpectrumSettings = PAPER.spectrum) -> PhononResult:
    bands = spectrum(constants.phonopy(), settings).bands
    kept, read = constants.arrays(), bands.arrays()
    return PhononResult(f"set-1/{name}.cif", ForceConstants.from_arrays(kept), Bands.from_arrays(read), code="toy")


@pytest.fixture(params=sorted(crystals()))
def result(request, results) -> PhononResult:
    return results[request.param]


def run(*command: str | Path, folder: Path, ends_with: int = 0) -> str:
    """What a program of this environment prints, run in a folder."""
    program, *arguments = map(str, command)
    path = Path(sys.executable).with_name(program)
    done = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == ends_with, done.stdout + done.stderr
    return done.stdout


def read_band_yaml(text: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """All of it, the q-points (n, 3) and the frequencies (n, n_bands)."""
    data = yaml.load(text, yaml.CSafeLoader)
    q = np.array([point["q-position"] for point in data["phonon"]])
    return data, q, np.array([[mode["frequency"] for mode in point["band"]] for point in data["phonon"]])


def same_as_pymatgen(result: PhononResult, document: PhononBSDOSDoc) -> None:
    line, bands = document.phonon_bandstructure.to_pmg, result.bands
    np.testing.assert_allclose([point.frac_coords for point in line.qpoints], np.concatenate(bands.q), atol=1e-12)
    np.testing.assert_allclose(line.bands.T, np.concatenate(bands.frequencies), atol=1e-12)
    np.testing.assert_allclose(line.distance, 2 * np.pi * np.concatenate(bands.distances), atol=1e-9)
    ends = np.cumsum([len(q) for q in bands.q])
    assert [(b["start_index"], b["end_index"]) for b in line.branches] == [
        (end - len(q), end - 1) for end, q in zip(ends, bands.q, strict=True)
    ]
    pairs = phonon_files.segment_names(bands)
    assert [branch["name"] for branch in line.branches] == [f"{start}-{end}" for start, end in pairs]


def test_emmet_gives_pymatgen_our_bands(result):
    document = PhononBSDOSDoc.model_validate_json(emmet_json(result))
    same_as_pymatgen(result, document)
    assert document.phonon_bandstructure.identifier == result.identifier == document.calc_meta[0].identifier
    assert (document.code, document.phonon_method.value) == ("toy", "phonopy")
    assert document.phonon_dos is None


def test_names_along_a_path_that_jumps(results):
    document = emmet_document(results["fcc"].constants, results["fcc"].bands, identifier="x")
    assert [branch["name"] for branch in document.phonon_bandstructure.to_pmg.branches] == [
        *("GAMMA-X", "X-U", "K-GAMMA", "GAMMA-L", "L-W", "W-X"),
    ]
    assert document.phonon_bandstructure.kpath == ["GAMMA", "X", "U", "K", "GAMMA", "L", "W", "X"]
    names = [r"$\Gamma$", r"$\Sigma_0$", r"$\mathrm{S_{12}}$", "GAMMA", "H_2"]
    assert [phonon_files.point_name(name) for name in names] == ["GAMMA", "SIGMA_0", "S_12", "GAMMA", "H_2"]


def test_emmet_holds_what_the_frequencies_come_from(result):
    document = PhononBSDOSDoc.model_validate_json(emmet_json(result))
    again = phonopy.Phonopy(
        phonopy.structure.atoms.PhonopyAtoms(
            symbols=[site.specie.symbol for site in document.structure],
            cell=document.structure.lattice.matrix,
            scaled_positions=document.structure.frac_coords,
            masses=result.constants.phonopy().unitcell.masses,
        ),
        document.supercell_matrix,
        document.primitive_matrix,
    )
    again.force_constants = np.array(document.force_constants)
    points = np.concatenate(result.bands.q)[::50]
    expected = np.concatenate(result.bands.frequencies)[::50]
    np.testing.assert_allclose(again.run_qpoints(points).frequencies, expected, **CLOSE)
    n_primitive = len(again.primitive)
    assert len(document.phonon_bandstructure.structure) == n_primitive


def test_segments_of_two_points_keep_their_length(results):
    result = result_of("fcc", results["fcc"].constants, SpectrumSettings(path_points=5))
    lengths = [len(q) for q in result.bands.q]
    assert 2 in lengths
    line = PhononBSDOSDoc.model_validate_json(emmet_json(result)).phonon_bandstructure.to_pmg
    assert len(line.branches) == len(lengths)
    ours = [2 * np.pi * d[i] for d in result.bands.distances for i in (0, -1)]
    theirs = [line.distance[branch[end]] for branch in line.branches for end in ("start_index", "end_index")]
    np.testing.assert_allclose(theirs, ours, atol=1e-9)
    whole = np.concatenate(result.bands.q)
    for point, values in zip(line.qpoints, line.bands.T, strict=True):
        if np.abs(whole - point.frac_coords).sum(axis=1).min() > 1e-9:  # a middle that was added
            exact = result.constants.phonopy().run_qpoints([point.frac_coords]).frequencies[0]
            np.testing.assert_allclose(values, exact, **CLOSE)


def test_density_of_states_counts_three_modes_an_atom(results):
    result = replace(results["fcc"], mesh=PAPER.spectrum.mesh)
    document = PhononBSDOSDoc.model_validate_json(emmet_json(result))
    dos = document.phonon_dos
    assert np.trapezoid(dos.densities, dos.frequencies) == pytest.approx(3 * len(document.structure), rel=1e-3)
    # Dulong and Petit, J/(K mol)
    assert document.heat_capacity(3000, normalization="atoms") == pytest.approx(3 * 8.314, rel=5e-3)


def test_emmet_is_one_line_and_keeps_the_time(results):
    when = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    text = emmet_json(replace(results["fcc"], last_updated=when))
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert json.loads(text)["last_updated"].startswith("2026-05-04T03:02:01")


def test_ids_that_look_like_those_of_materials_project_stay(results):
    for identifier in ("mp-149", "gen-123", "fcc", "a_b"):
        text = emmet_json(replace(results["fcc"], identifier=identifier))
        assert PhononBSDOSDoc.model_validate_json(text).phonon_bandstructure.identifier == identifier


def test_phonopy_loads_our_parameters(result, tmp_path):
    path = tmp_path / "phonopy_params.yaml"
    path.write_text(phonopy_params(result.constants))
    again, ours = phonopy.load(path, log_level=0), result.constants.phonopy()
    assert again.force_constants.shape == result.constants.array.shape
    np.testing.assert_allclose(again.force_constants, result.constants.array, rtol=0, atol=1e-15)
    np.testing.assert_allclose(again.unitcell.masses, ours.unitcell.masses, rtol=0, atol=5e-7)
    np.testing.assert_allclose(again.unitcell.cell, result.constants.cell, rtol=0, atol=1e-14)
    found = again.run_qpoints(np.concatenate(result.bands.q)).frequencies
    np.testing.assert_allclose(found, np.concatenate(result.bands.frequencies), **CLOSE)


def test_masses_that_phonopy_lacks_are_in_the_files(results):
    mass = float(Element("Tc").atomic_mass)
    result = results["technetium"]
    assert read_band_yaml(band_yaml(result.constants, result.bands))[0]["points"][0]["mass"] == mass
    cell = yaml.safe_load(phonopy_params(result.constants))["unit_cell"]
    assert {point["mass"] for point in cell["points"]} == {mass}


def test_the_program_phonopy_load_gives_our_spectrum(result, tmp_path):
    (tmp_path / "x.phonopy.yaml").write_text(PHONON_FORMATS["phonopy"].text(result))
    path = ("--band", "auto", "--band-points", str(PAPER.spectrum.path_points), "--band-const-interval")
    run("phonopy-load", "x.phonopy.yaml", *path, "--no-fc-symmetry", folder=tmp_path)
    _, q, frequencies = read_band_yaml((tmp_path / "band.yaml").read_text())
    # phonopy walks seekpath's numbers in its own primitive cell, as the released scripts do.
    phonon = result.constants.phonopy()
    walked = np.concatenate(released_walk(phonon.primitive, PAPER.spectrum.path_points).q)
    np.testing.assert_allclose(q, walked, rtol=0, atol=1e-7)
    np.testing.assert_allclose(frequencies, phonon.run_qpoints(walked).frequencies, **CLOSE)


def test_band_yaml_has_our_numbers_and_names(result):
    data, q, frequencies = read_band_yaml(band_yaml(result.constants, result.bands))
    bands = result.bands
    np.testing.assert_allclose(q, np.concatenate(bands.q), rtol=0, atol=1e-7)
    np.testing.assert_allclose(frequencies, np.concatenate(bands.frequencies), **CLOSE)
    distances = [point["distance"] for point in data["phonon"]]
    np.testing.assert_allclose(distances, np.concatenate(bands.distances), rtol=0, atol=1e-7)
    assert (data["nqpoint"], data["npath"]) == (len(q), len(bands.q))
    assert data["segment_nqpoint"] == [len(segment) for segment in bands.q]
    assert data["supercell_matrix"] == result.constants.supercell.tolist()
    pairs = phonon_files.segment_names(bands)
    assert [tuple(map(phonon_files.point_name, pair)) for pair in data["labels"]] == pairs
    ends = np.cumsum(data["segment_nqpoint"])
    labels = {i: point["label"] for i, point in enumerate(data["phonon"]) if "label" in point}
    assert labels == {
        at: name
        for end, size, pair in zip(ends, data["segment_nqpoint"], pairs, strict=True)
        for at, name in zip((end - size, end - 1), pair, strict=True)
    }
    primitive = result.constants.phonopy().primitive
    assert data["natom"] == len(primitive) == len(data["points"])
    np.testing.assert_allclose(data["lattice"], primitive.cell, atol=1e-12)
    np.testing.assert_allclose(data["reciprocal_lattice"], np.linalg.inv(primitive.cell).T, atol=1e-8)


def test_eigenvectors_solve_the_dynamical_matrix(result):
    data, _, _ = read_band_yaml(band_yaml(result.constants, result.bands))
    phonon, points = result.constants.phonopy(), np.concatenate(result.bands.q)
    for at in range(0, len(points), 40):
        modes = data["phonon"][at]["band"]
        vectors = np.array([mode["eigenvector"] for mode in modes]) @ [1, 1j]  # (n_bands, n_atoms, 3)
        vectors = vectors.reshape(len(modes), -1).T
        np.testing.assert_allclose(vectors.conj().T @ vectors, np.eye(len(modes)), atol=1e-10)
        # D is in eV/(Å^2 u)
        matrix = phonon.run_qpoints(points[at : at + 1], with_dynamical_matrices=True).dynamical_matrices[0]
        f = np.array([mode["frequency"] for mode in modes]) / phonon.unit_conversion_factor
        np.testing.assert_allclose(matrix @ vectors, vectors * (np.abs(f) * f), atol=1e-9)


def test_other_programs_read_band_yaml(results, tmp_path):
    result = results["fcc"]
    path = tmp_path / "x.band.yaml"
    path.write_text(PHONON_FORMATS["band"].text(result))
    line = get_ph_bs_symm_line(path)
    pairs = phonon_files.segment_names(result.bands)
    assert [branch["name"] for branch in line.branches] == [f"{start}-{end}" for start, end in pairs]
    assert line.has_eigendisplacements
    text = run("phonopy-bandplot", "--gnuplot", path, folder=tmp_path, ends_with=1)  # always, when it has printed all
    rows = [row.split() for row in text.splitlines()]
    plotted = sorted(float(row[1]) for row in rows if row and row[0] != "#")
    expected = np.sort(np.concatenate(result.bands.frequencies), axis=None)
    np.testing.assert_allclose(plotted, expected, rtol=0, atol=2e-6)


def test_band_yaml_without_eigenvectors(results):
    result = results["fcc"]
    text = band_yaml(result.constants, result.bands, eigenvectors=False)
    assert "eigenvector" not in text
    read, bands = read_band_yaml(text)[2], np.concatenate(result.bands.frequencies)
    # Squared, as they are computed: the roots of rounding errors near zero are no errors of 1e-10.
    np.testing.assert_allclose(read * np.abs(read), bands * np.abs(bands), rtol=1e-9, atol=1e-9)


def test_bands_of_another_crystal_are_refused(results):
    fcc, hcp, tc = (results[name] for name in ("fcc", "hcp", "technetium"))
    for write in (band_yaml, lambda constants, bands: emmet_document(constants, bands, identifier="x")):
        with pytest.raises(PhononFileError, match="6 branches, the force constants have 3"):
            write(fcc.constants, hcp.bands)
    with pytest.raises(PhononFileError, match="not those of the force constants"):
        band_yaml(fcc.constants, tc.bands)


def test_suffixes():
    assert {name: form.suffix for name, form in PHONON_FORMATS.items()} == {
        "emmet": ".emmet.json",
        "phonopy": ".phonopy.yaml",
        "band": ".band.yaml",
    }


def test_importing_it_is_cheap():
    heavy = {"torch", "phonopy", "emmet", "pymatgen"}
    code = f"import sys, {phonon_files.__name__}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["params/phonopy_params_Si.yaml", "params/phonopy_params_Zr3N4.yaml"])
def test_real_force_constants(shared_data, tmp_path, name):
    source = phonopy.load(shared_data / "dft_force_sets" / name, log_level=0, is_nac=False)
    constants = ForceConstants(
        cell=source.unitcell.cell,
        numbers=source.unitcell.numbers,
        positions=source.unitcell.scaled_positions,
        supercell=source.supercell_matrix,
        primitive=source.primitive_matrix,
        array=source.force_constants,
        symprec=1e-5,
        n_displacements=len(source.displacements),
        max_drift=0.0,
    )
    result = result_of("real", constants, SpectrumSettings(path_points=31, mesh=(2, 2, 2)))
    same_as_pymatgen(result, PhononBSDOSDoc.model_validate_json(emmet_json(result)))
    expected = np.concatenate(result.bands.frequencies)
    np.testing.assert_allclose(read_band_yaml(band_yaml(constants, result.bands))[2], expected, rtol=0, atol=3e-6)
    (tmp_path / "x.phonopy.yaml").write_text(phonopy_params(constants))
    points = np.concatenate(result.bands.q)[::30]
    flat = " ".join(f"{value:.17g}" for value in points.ravel())
    run("phonopy-load", "x.phonopy.yaml", "--no-fc-symmetry", f"--qpoints={flat}", folder=tmp_path)
    _, _, found = read_band_yaml((tmp_path / "qpoints.yaml").read_text())
    np.testing.assert_allclose(found, expected[::30], rtol=0, atol=3e-6)
