"""The hull of a set through the command line: references relaxed once, kept, and never mixed with others' energies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cubic_crystals import FCC_SITES, cubic
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.protocol import PRESETS
from phononbench_flows.store import ResultsStore

TOY = "toy_potentials:lj"


def invoke(*arguments: object):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result, " ".join(result.output.split())


def write(folder: Path, **structures) -> Path:
    folder.mkdir(exist_ok=True)
    for name, structure in structures.items():
        CifWriter(structure).write_file(folder / f"{name}.cif")
    return folder


def documents(results: Path) -> dict[str, CalculationDocument]:
    with ResultsStore.open(results) as store:
        return {document.id.partition("-")[2]: document for document in store.documents()}


def evaluations(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    """A set of two crystals: ordered Cu3Au, and one that holds silver."""
    folder = tmp_path_factory.mktemp("judged")
    made = write(
        folder / "crystals",
        cu3au=cubic(3.7, ["Au", "Cu", "Cu", "Cu"], FCC_SITES),
        cu3ag=cubic(3.7, ["Ag", "Cu", "Cu", "Cu"], FCC_SITES),
    )
    options = ("--set", "toys", "--potential", TOY, "--protocol", "paper", "--out", folder / "results")
    result, said = invoke("run", made, *options)
    assert result.exit_code == 0, said
    return folder / "results"


@pytest.fixture
def references(tmp_path) -> Path:
    """Copper twice, gold, the crystal that was generated, and one of another chemical system."""
    return write(
        tmp_path / "references",
        cu=cubic(3.6, ["Cu"] * 4, FCC_SITES),
        simple=cubic(2.4, ["Cu"], [[0, 0, 0]]),
        au=cubic(3.8, ["Au"] * 4, FCC_SITES),
        found_before=cubic(3.65, ["Au", "Cu", "Cu", "Cu"], FCC_SITES),
        other=cubic(3.6, ["Ni"] * 4, FCC_SITES),
    )


def test_references_are_relaxed_once(judged, references, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    kept, energies = tmp_path / "kept", tmp_path / "entries.json"
    asked = ("hull", judged, "--reference", references, "--kept", kept, "--write-entries", energies)
    result, said = invoke(*asked)
    assert result.exit_code == 0, said
    assert "4 reference crystals of these chemical systems, 4 to relax" in said
    assert "1 of 2 relaxed crystals lie over a hull of 4 references" in said
    assert "no reference of Ag (1)" in said

    found = documents(judged)
    hull = found["cu3au"].results["hull"]
    # One potential for all atoms, and the same crystal among the references.
    assert hull["energy_above_hull"] == pytest.approx(0.0, abs=1e-4)
    assert hull["known_as"] == "found_before"
    assert hull["reference"] == "references"
    without = found["cu3ag"].results["hull"]
    assert (without["energy_above_hull"], without["missing"], without["known_as"]) == (None, ["Ag"], None)

    with ResultsStore.open(kept) as store:
        assert {each.stage for each in store.documents()} == {"relaxation"}
        assert store.count({"elements": "Ni"}) == 0
    before = evaluations(log)
    assert before > 0
    result, said = invoke(*asked)
    assert "0 to relax" in said
    assert evaluations(log) == before

    # The energies alone place the crystals as their references do, but know nothing of novelty.
    result, said = invoke("hull", judged, "--entries", energies)
    assert result.exit_code == 0, said
    by_entries = documents(judged)["cu3au"].results["hull"]
    assert by_entries["energy_above_hull"] == pytest.approx(hull["energy_above_hull"])
    assert "known_as" not in by_entries


def test_a_run_that_was_broken_off_goes_on(judged, references, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    monkeypatch.setenv("TOY_OUT_OF_ORDER", "1")
    result, said = invoke("hull", judged, "--reference", references, "--kept", kept)
    assert result.exit_code != 0
    monkeypatch.delenv("TOY_OUT_OF_ORDER")
    with ResultsStore.open(kept) as store:
        assert {each.status for each in store.documents()} == {"pending"}  # a broken machine fails nobody
    result, said = invoke("hull", judged, "--reference", references, "--kept", kept)
    assert result.exit_code == 0, said
    assert "1 of 2 relaxed crystals" in said


def test_a_reference_that_cannot_be_relaxed_is_told(judged, references, tmp_path, monkeypatch):
    monkeypatch.setattr("toy_potentials.RAISING_ELEMENT", 79)  # gold
    result, said = invoke("hull", judged, "--reference", references, "--kept", tmp_path / "kept")
    assert result.exit_code == 0, said
    assert "0 of 2 relaxed crystals" in said
    assert "2 references could not be computed" in said
    assert documents(judged)["cu3au"].results["hull"]["missing"] == ["Au"]


def test_energies_of_another_potential_are_refused(judged, tmp_path):
    from pymatgen.entries.computed_entries import ComputedEntry

    file = tmp_path / "entries.json"
    for said in ({}, {"potential": "another"}, {"potential": TOY, "checkpoint_sha256": "0" * 64}):
        file.write_text(json.dumps([ComputedEntry("Cu4", -14.0, parameters=said).as_dict()]))
        result, told = invoke("hull", judged, "--entries", file)
        assert result.exit_code == 2
        assert "energies of two methods have no hull" in told
    for text in ("[", "{}", '["x"]', "[{}]"):
        file.write_text(text)
        result, told = invoke("hull", judged, "--entries", file)
        assert result.exit_code == 2, told
        assert "no JSON list of pymatgen's ComputedEntry" in told
    assert invoke("hull", judged)[0].exit_code == 2


def test_a_file_of_energies_runs_no_code(judged, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("class Trap: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    trap = {"@module": "trap", "@class": "Trap", "@version": None}
    entries = [
        {"composition": {symbol: 1.0}, "energy": -3.0, "correction": 0.0, "parameters": {"potential": TOY, "x": trap}}
        | {"energy_adjustments": [trap], "data": {"x": trap}}
        for symbol in ("Cu", "Ag", "Au")
    ]
    file = tmp_path / "entries.json"
    file.write_text(json.dumps(entries))
    result, told = invoke("hull", judged, "--entries", file)
    assert result.exit_code == 0, told
    assert "trap" not in sys.modules


def test_references_are_relaxed_as_every_preset_asks():
    from phononbench_flows.sets.references import PROTOCOL

    for preset in PRESETS.values():
        other = preset.relaxation.model_copy(update={"optimizer": PROTOCOL.relaxation.optimizer})
        assert other == PROTOCOL.relaxation
