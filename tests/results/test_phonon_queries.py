"""Phonons that ``query`` exports from a store of computed crystals, read by other programs, against that store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import pytest
import yaml
from emmet.core.phonon import PhononBSDOSDoc
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.force_constants import ForceConstants
from phononbench_flows.protocol import Protocol
from phononbench_flows.run import judge_folder
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"
SMALL = Protocol.model_validate({"name": "small", "spectrum": {"path_points": 21, "mesh": [4, 4, 4]}})
OTHER = SMALL.model_copy(update={"judgement": SMALL.judgement.model_copy(update={"q_points": "commensurate"})})
FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
# THz. Acoustic modes at Gamma are the root of rounding, so no two diagonalisations agree better there.
CLOSE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two stable crystals and an unstable one, and two that have no phonons."""
    path = tmp_path_factory.mktemp("phonons")
    (path / "crystals").mkdir()
    for name, structure in {
        "fcc": Structure(Lattice.cubic(3.6), ["Cu"] * 4, FCC),
        "cu3au": Structure(Lattice.cubic(3.7), ["Au", "Cu", "Cu", "Cu"], FCC),
        "po": Structure(Lattice.cubic(2.4), ["Po"], [[0, 0, 0]]),
        "nan": Structure(Lattice.cubic(3.7), ["Xe", "Cu", "Cu", "Cu"], FCC),
    }.items():
        CifWriter(structure).write_file(path / "crystals" / f"{name}.cif")
    (path / "crystals" / "broken.cif").write_text("data_broken\n_cell_length_a")
    judge_folder(path / "crystals", "toys", out=path / "results", potential=TOY, protocol=SMALL, device="cpu")
    return path / "results"


Computed = dict[str, tuple[CalculationDocument, ForceConstants, Bands]]


@pytest.fixture(scope="module")
def computed(folder) -> Iterator[Computed]:
    with ResultsStore.open(folder) as store:
        yield {
            document.id: (
                document,
                ForceConstants.from_arrays(store.blobs.get(document.arrays["force_constants"])),
                Bands.from_arrays(store.blobs.get(document.arrays["band_structure"])),
            )
            for document in store.documents({"arrays.band_structure": {"$exists": True}}, sort={"id": 1})
        }


def asked(folder: Path, *arguments: object) -> Any:
    return CliRunner().invoke(app, ["query", str(folder), *map(str, arguments)])


def test_what_there_is(folder, computed):
    with ResultsStore.open(folder) as store:
        assert {row["id"]: row["status"] for row in store.query({}, ["id", "status"])} == {
            "toys-broken": "rejected",
            "toys-cu3au": "stable",
            "toys-fcc": "stable",
            "toys-nan": "failed",
            "toys-po": "unstable",
        }
    assert list(computed) == ["toys-cu3au", "toys-fcc", "toys-po"]
    for document, _, bands in computed.values():
        lowest = min(float(frequencies.min()) for frequencies in bands.frequencies)
        assert document.minimum is not None
        assert document.minimum.frequency == document.evidence.looks["path"].frequency == lowest


def check_emmet(line: str, computed: Computed, name: str) -> None:
    calculation, constants, bands = computed[name]
    document = PhononBSDOSDoc.model_validate_json(line)
    assert document.phonon_bandstructure.identifier == document.calc_meta[0].identifier == name
    assert document.code == TOY
    assert document.last_updated == calculation.updated_at
    path = document.phonon_bandstructure.to_pmg
    np.testing.assert_allclose([point.frac_coords for point in path.qpoints], np.concatenate(bands.q), atol=1e-12)
    np.testing.assert_allclose(path.bands.T, np.concatenate(bands.frequencies), atol=1e-12)
    assert path.bands.min() == pytest.approx(calculation.minimum.frequency, abs=1e-12)
    np.testing.assert_allclose(np.array(document.force_constants), constants.array, atol=1e-12)
    relaxed = Structure.from_dict(calculation.relaxed_structure)
    np.testing.assert_allclose(document.structure.lattice.matrix, relaxed.lattice.matrix, atol=1e-9)
    assert [site.specie.symbol for site in document.structure] == [site.specie.symbol for site in relaxed]
    assert np.array(document.supercell_matrix).tolist() == np.diag([2, 2, 2]).tolist()


def test_emmet_to_the_terminal_and_to_a_file(folder, computed, tmp_path):
    result = asked(folder, "--format", "emmet")
    assert result.exit_code == 0, result.output
    assert "5 crystals, 2 of them without phonons" in result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(computed)
    for line, name in zip(lines, computed, strict=True):
        check_emmet(line, computed, name)
    out = tmp_path / "new" / "stable.jsonl"
    again = asked(folder, "--status", "stable", "--format", "emmet", "--out", out)
    assert again.exit_code == 0, again.output
    assert "2 crystals" in again.stderr
    assert "without" not in again.stderr
    assert out.read_text().splitlines() == lines[:2]


def test_phonopy_loads_what_was_exported(folder, computed, tmp_path):
    out = tmp_path / "new" / "params"
    result = asked(folder, "--format", "phonopy", "--out", out)
    assert result.exit_code == 0, result.output
    assert "5 crystals, 2 of them without phonons" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.phonopy.yaml" for name in computed]
    for name, (_, constants, bands) in computed.items():
        phonon = phonopy.load(out / f"{name}.phonopy.yaml", log_level=0)
        np.testing.assert_allclose(phonon.force_constants, constants.array, rtol=0, atol=1e-15)
        np.testing.assert_allclose(phonon.unitcell.cell, constants.cell, rtol=0, atol=1e-14)
        frequencies = phonon.run_qpoints(np.concatenate(bands.q)).frequencies
        np.testing.assert_allclose(frequencies, np.concatenate(bands.frequencies), **CLOSE)


def test_band_structures_are_those_of_the_store(folder, computed, tmp_path):
    out = tmp_path / "bands"
    result = asked(folder, "--format", "band", "--out", out, "--status", "stable", "--status", "unstable")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.band.yaml" for name in computed]
    for name, (document, _, bands) in computed.items():
        data = yaml.load((out / f"{name}.band.yaml").read_text(), yaml.CSafeLoader)
        q = np.array([point["q-position"] for point in data["phonon"]])
        frequencies = np.array([[mode["frequency"] for mode in point["band"]] for point in data["phonon"]])
        np.testing.assert_allclose(q, np.concatenate(bands.q), rtol=0, atol=1e-7)
        np.testing.assert_allclose(frequencies, np.concatenate(bands.frequencies), **CLOSE)
        assert data["segment_nqpoint"] == [len(segment) for segment in bands.q]
        assert frequencies.min() == pytest.approx(document.minimum.frequency, abs=1e-6)


@pytest.mark.parametrize("form", ["phonopy", "band"])
def test_files_go_into_an_empty_folder(folder, tmp_path, form):
    needed = asked(folder, "--format", form)
    assert needed.exit_code == 2
    assert f"--format {form} needs --out" in needed.output
    (tmp_path / "mine.txt").write_text("kept")
    refused = asked(folder, "--format", form, "--out", tmp_path)
    assert refused.exit_code == 2
    assert "is not empty" in refused.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_that_has_phonons_is_found(folder, tmp_path):
    result = asked(folder, "--status", "failed", "--format", "band", "--out", tmp_path / "none")
    assert result.exit_code == 0, result.output
    assert "1 crystals, 1 of them without phonons" in result.stderr
    assert list((tmp_path / "none").iterdir()) == []
    assert asked(folder, "--status", "rejected", "--format", "emmet").stdout == ""


@pytest.mark.parametrize("form", ["cif", "phonopy", "band"])
def test_one_crystal_under_two_protocols_is_refused(folder, computed, tmp_path, form):
    document, _, _ = computed["toys-fcc"]
    protocol_id = OTHER.id_with(document.potential.checkpoint_sha256)
    with ResultsStore.open(folder, create=True) as source, ResultsStore.open(tmp_path / "both", create=True) as store:
        for ref in document.arrays.values():
            store.blobs.put_bytes(source.blobs.read(ref))
        second = document.model_copy(update={"protocol_id": protocol_id, "key": f"{document.id}@{protocol_id}"})
        store.put(document, second)
    refused = asked(tmp_path / "both", "--format", form, "--out", tmp_path / "files")
    assert refused.exit_code == 2
    assert "toys-fcc was judged under two protocols: choose one" in refused.output
    chosen = asked(tmp_path / "both", "--protocol", protocol_id, "--format", form, "--out", tmp_path / "chosen")
    assert chosen.exit_code == 0, chosen.output
    assert len(list((tmp_path / "chosen").iterdir())) == 1
