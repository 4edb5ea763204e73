"""The table and the structures that other programs read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Lattice, Structure

from phononbench_flows.documents import (
    CalculationDocument,
    PhononRecord,
    PotentialRecord,
    RelaxationRecord,
    Symmetry,
)
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.protocol import PRESETS
from phononbench_flows.results.export import ExportError, columns, write_cifs, write_results
from phononbench_flows.stability import Evidence, Look
from phononbench_flows.steps import Column, references, steps_of

POTENTIAL = PotentialRecord(name="test", checkpoint_sha256="0" * 64, dtype="float64", device="cpu")
STEPS = steps_of(PRESETS["paper"])
SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def make(number: int, **changes: Any) -> CalculationDocument:
    fields: dict[str, Any] = {
        "key": f"gen_{number}@p",
        "id": f"gen_{number}",
        "set": "gen",
        "origin": {"source": "set.zip/gen.cif"},
        "protocol_id": "p",
        "protocol_name": "paper",
        "potential": POTENTIAL,
        "steps": references(PRESETS["paper"]),
    }
    return CalculationDocument(**(fields | changes))


def judged(number: int, status: Status, **changes: Any) -> CalculationDocument:
    path = Look(frequency=-1.5, q=[-0.5, 0.0, 0.5], n_q=100, exact=False)
    phonon = PhononRecord(
        supercell=[2, 2, 2],
        supercell_natoms=64,
        primitive_natoms=2,
        n_displacements=2,
        max_drift=0.0,
        gamma_optical=3.5,
        n_imaginary=7,
    )
    relaxation = RelaxationRecord(
        steps=9,
        rounds=1,
        energy_per_atom=-3.5,
        max_force=0.002,
        max_stress=1e-5,
        volume_change=0.0,
        refined=True,
    )
    fields: dict[str, Any] = {
        "status": status,
        "stage": "spectrum",
        "phonon": phonon,
        "evidence": Evidence(looks={"path": path, "commensurate": path.model_copy(update={"frequency": -0.25})}),
        "minimum": path,
        "relaxation": relaxation,
        "formula_pretty": "NaCl",
        "nsites": 8,
        "elements": ["Cl", "Na"],
        "condition": {"target": "=Na", "bulk_modulus": 20.5},
        "symmetry_initial": Symmetry(symbol="P1", number=1),
        "symmetry_relaxed": Symmetry(symbol="Fm-3m", number=225),
        "relaxed_structure": SALT.as_dict(),
        "timings": {"relaxation": 1.5, "force_constants": 2.5, "spectrum": 0.5},
    }
    return make(number, **(fields | changes))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_columns_and_values(tmp_path):
    documents = [judged(0, Status.STABLE), make(1, status=Status.REJECTED, reason=Reason.BAD_CELL, detail='a, "b"\nc')]
    path = write_results(iter(documents), tmp_path / "new" / "out", STEPS)
    assert path == tmp_path / "new" / "out" / "results.csv"
    head = path.read_text().splitlines()[0]
    assert head.startswith(
        "id,set,source,formula,natoms,status,reason,min_frequency_judged_thz,spacegroup_initial,spacegroup_relaxed,"
    )
    first, second = rows_of(path)
    assert list(first) == head.split(",") == [column.name for column in columns(STEPS)]
    assert len(set(first)) == len(first)
    # A negative number is a number, not a formula.
    assert (first["min_frequency_path_thz"], first["min_frequency_mesh_thz"]) == ("-1.5", "")
    assert (first["min_frequency_judged_thz"], first["min_frequency_commensurate_thz"]) == ("-1.5", "-0.25")
    assert (first["min_frequency_gamma_optical_thz"], first["n_imaginary"], first["n_displacements"]) == (
        *("3.5", "7", "2"),
    )
    assert (first["max_force_ev_per_angstrom"], first["energy_per_atom_ev"]) == ("0.002", "-3.5")
    assert (first["stage"], first["protocol_id"], first["protocol_name"], first["potential"]) == (
        *("spectrum", "p", "paper", "test"),
    )
    assert (first["id"], first["set"], first["source"], first["elements"]) == (
        "gen_0",
        "gen",
        "set.zip/gen.cif",
        "Cl Na",
    )
    assert (first["formula"], first["natoms"], first["status"]) == ("NaCl", "8", "stable")
    assert (first["spacegroup_initial"], first["spacegroup_relaxed"]) == ("P1", "Fm-3m")
    assert json.loads(first["min_frequency_path_q"]) == [-0.5, 0.0, 0.5]
    assert json.loads(first["conditions"]) == {"target": "=Na", "bulk_modulus": 20.5}
    assert [first[f"{name}_seconds"] for name in ("relaxation", "force_constants", "spectrum")] == ["1.5", "2.5", "0.5"]
    assert (second["reason"], second["detail"], second["natoms"]) == ("bad_cell", 'a, "b"\nc', "")
    assert second["min_frequency_judged_thz"] == second["min_frequency_path_q"] == second["relaxation_seconds"] == ""


def test_every_step_brings_its_columns(tmp_path):
    hardness = Column("hardness", lambda document: document.results.get("press", {}).get("hardness"), "Hardness.")
    steps = [*STEPS, replace(STEPS[-1], name="press", after="spectrum", columns=(hardness,))]
    documents = [
        judged(0, Status.STABLE, results={"press": {"hardness": 7}}, timings={"press": 0.25}),
        judged(1, Status.STABLE),
    ]
    first, second = rows_of(write_results(documents, tmp_path, steps))
    names = [column.name for column in columns(STEPS)]
    assert set(first) - set(names) == {"hardness", "press_seconds"}
    assert [name for name in first if name in names] == names
    assert list(first)[list(first).index("spectrum_seconds") + 1 :][:2] == ["hardness", "press_seconds"]
    assert (first["hardness"], first["press_seconds"], second["hardness"]) == ("7", "0.25", "")


def test_every_column_is_described():
    for column in columns(STEPS):
        assert column.description.endswith(".")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula(tmp_path, start):
    hostile = f"{start}cmd|' /C calc'!A0"
    document = make(
        0, origin={"source": hostile}, detail=hostile, known_as=hostile, elements=[hostile], formula_pretty=hostile
    )
    [row] = rows_of(write_results([document], tmp_path, STEPS))
    for column in ("source", "detail", "known_as", "elements", "formula"):
        assert row[column] == f"'{hostile}"


def test_text_that_is_no_unicode_is_written(tmp_path):
    [row] = rows_of(write_results([make(0, origin={"source": "a\udcffb"})], tmp_path, STEPS))
    assert row["source"] == "a\\udcffb"


def test_structures_of_the_stable_ones_only(tmp_path):
    documents = [judged(0, Status.STABLE), judged(1, Status.UNSTABLE), make(2), judged(3, Status.STABLE)]
    write_results(documents, tmp_path, STEPS)
    stable = tmp_path / "stable"
    assert sorted(path.name for path in stable.iterdir()) == ["gen_0.cif", "gen_3.cif"]
    read = Structure.from_file(stable / "gen_0.cif")
    assert read.matches(SALT)
    assert read.lattice.a == pytest.approx(5.64)
    assert "'P 1'" in (stable / "gen_0.cif").read_text()

    (stable / "notes.txt").write_text("kept")
    write_results([judged(0, Status.UNSTABLE), judged(3, Status.STABLE)], tmp_path, STEPS)
    assert sorted(path.name for path in stable.iterdir()) == ["gen_3.cif", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "stable"]


def test_ids_that_differ_in_case_alone_have_files_of_their_own_on_macos(tmp_path):
    named = [judged(0, Status.STABLE, id=name, key=f"{name}@p") for name in ("gen-A", "gen-a", "gen-b")]
    write_results(named, tmp_path / "results", STEPS)
    assert write_cifs(tmp_path / "cifs", [(document, SALT) for document in named]) == 3
    for folder in (tmp_path / "results" / "stable", tmp_path / "cifs"):
        names = sorted(path.stem for path in folder.iterdir())
        assert names == ["gen-A", "gen-a-ca6ad9cf", "gen-b"]
    with pytest.raises(ExportError, match="gen-A was judged under two protocols"):
        write_cifs(tmp_path / "twice", [(named[0], SALT), (named[0], SALT)])


def test_an_export_that_breaks_off_leaves_the_old_one(tmp_path):
    def broken() -> Iterator[CalculationDocument]:
        yield judged(5, Status.STABLE)
        raise OSError("disk on fire")

    write_results([judged(0, Status.STABLE)], tmp_path, STEPS)
    before = (tmp_path / "results.csv").read_bytes()
    with pytest.raises(OSError, match="disk on fire"):
        write_results(broken(), tmp_path, STEPS)
    assert (tmp_path / "results.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["gen_0.cif", "results.csv", "stable"]


def test_two_protocols_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one protocol"):
        write_results([make(0), make(0, key="gen_0@q", protocol_id="q")], tmp_path, STEPS)
    assert list(tmp_path.iterdir()) == []


def test_documents_are_not_kept(tmp_path):
    import gc
    import weakref

    alive: list[weakref.ref[CalculationDocument]] = []
    most = 0

    def stream() -> Iterator[CalculationDocument]:
        nonlocal most
        for number in range(50):
            document = make(number)
            alive.append(weakref.ref(document))
            yield document
            del document
            gc.collect(0)
            most = max(most, sum(reference() is not None for reference in alive))

    assert len(rows_of(write_results(stream(), tmp_path, STEPS))) == 50
    assert most <= 2


def test_no_document_at_all(tmp_path):
    assert rows_of(write_results([], tmp_path, STEPS)) == []
