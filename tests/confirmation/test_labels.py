"""Labels of others: found by id or structure, kept beside the verdicts, in tables and exports."""

from __future__ import annotations

import csv
import gzip
import io

import phonopy
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from made_documents import CONVERGED_ID, crystal_of, make_exact
from phonopy.file_IO import write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.report.contents import gather
from phononbench_flows.store import ResultsStore
from phononbench_flows.tables.confirmed import confusion_table, corrected, corrected_table
from phononbench_flows.tables.frames import funnel_table
from phononbench_flows.tables.rows import read_crystals

ELEMENTS = ["Cu", "Ag", "Au", "Al", "Ni", "Pd", "Pt", "Pb", "Ca", "Sr", "Yb", "Rh"]


def fcc(symbol: str) -> Structure:
    return Structure(Lattice.cubic(4.0), [symbol] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


@pytest.fixture
def results(tmp_path):
    """A dozen fcc crystals, of which the potential calls eight stable."""
    folder = tmp_path / "results"
    with ResultsStore.open(folder, create=True) as store:
        for place, symbol in enumerate(ELEMENTS):
            lowest = 1.0 if place < 8 else -1.0
            facts = {"id": f"m-{symbol}", "key": f"m-{symbol}@{CONVERGED_ID}", "set": "m", "nsites": 4}
            facts |= {"elements": [symbol], "nelements": 1, "formula_pretty": symbol}
            document = make_exact(place, min(lowest, 0.0), lowest, **facts)
            document.relaxed_structure = fcc(symbol).as_dict()
            store.put_crystals(crystal_of(document, structure=fcc(symbol).as_dict()))
            store.put(document)
    return folder


def run(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(each) for each in arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


def table(path, rows, columns):
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    path.write_bytes(gzip.compress(text.getvalue().encode()))
    return path


def test_a_table_of_labels_gives_matrix_and_rates(results, tmp_path):
    rows = [(symbol, place >= 6, -0.5 if place >= 6 else 0.0) for place, symbol in enumerate(ELEMENTS)]
    path = table(tmp_path / "mp.csv.gz", [*rows, ("Xe", True, -1)], ["name", "has_imag", "f"])
    columns = ["--column", "id=name", "--column", "label=has_imag", "--column", "frequency=f"]
    said = run("confirm", results, "--set", "m", "--import", path, *columns, "--functional", "PBE")
    assert "12 crystals labelled; 1 labels of crystals that are not in the set" in said
    assert "by verdict: 66.7 % (39.1 to 86.2); corrected: 50.0 %" in said
    with ResultsStore.open(results) as store:
        crystals = read_crystals(store)
        assert store.count({"labels.dft": "unstable"}) == 6
        [matrix, unstable] = confusion_table(crystals).query("rule == 'own'").to_dict("records")
        assert (matrix["verdict"], matrix["confirmed_stable"], matrix["confirmed_unstable"]) == ("stable", 6, 2)
        assert (unstable["confirmed_unstable"], unstable["by_label"]) == (4, 1.0)
        [row] = funnel_table(crystals).to_dict("records")
        assert row["corrected"] == row["corrected_per_generated"] == pytest.approx(0.5)
        assert {"corrected", "confusion"} <= gather(crystals).keys()
    shown = run("show", "m-Pd", results, "--figures", tmp_path / "figures")
    assert "stable, by the published rule stable (PBE, mp)" in shown
    exported = list(csv.DictReader(io.StringIO(run("query", results, "--format", "csv"))))
    assert {row["id"]: row["dft_label"] for row in exported}["m-Ca"] == "unstable"


def test_labels_that_nobody_drew_correct_nothing(results, tmp_path):
    path = table(tmp_path / "few.csv.gz", [(f"m-{each}", "stable") for each in ELEMENTS[:11]], ["id", "label"])
    said = run("confirm", results, "--set", "m", "--import", path)
    assert "not available: none of the 11 labelled crystals was drawn at random" in said


def test_crystals_are_found_by_structure_and_frequencies_meet_the_threshold(results, tmp_path):
    rows = [
        (fcc(symbol).get_primitive_structure().to(fmt="cif"), frequency)
        for symbol, frequency in (("Ni", -0.05), ("Pb", -2))
    ]
    path = table(
        tmp_path / "by.csv.gz",
        [*rows, (fcc("Fe").to(fmt="cif"), 0.0), ("nonsense", 0.0), (rows[0][0], "")],
        ["structure", "frequency"],
    )
    said = run("confirm", results, "--set", "m", "--import", path, "--threshold", -0.1)
    assert "2 crystals labelled; 2 labels of crystals that are not in the set, 1 that say nothing" in said
    with ResultsStore.open(results) as store:
        found = {each.id: each.stability for each in store.confirmations()}
        assert found == {"m-Ni": "stable", "m-Pb": "unstable"}


def test_released_labels_come_with_the_crystals(results):
    with ResultsStore.open(results) as store:
        documents = list(store.documents({"id": {"$in": ["m-Cu", "m-Ag"]}}))
        for document, label in zip(documents, ("Stable", "unStable"), strict=True):
            document.labels = {"phononbench": label}
        store.put(*documents)
        assert "2 crystals labelled" in run("confirm", results, "--set", "m", "--import", "phononbench")
        labels = [document.labels for document in store.documents({"labels.phononbench": {"$exists": True}})]
        assert {(each["phononbench"], each["dft"]) for each in labels} == {
            ("Stable", "stable"),
            ("unStable", "unstable"),
        }


def pt() -> phonopy.Phonopy:
    """fcc platinum with the forces of a potential that knows it."""
    unit = PhonopyAtoms(symbols=["Pt"], cell=bulk("Pt", "fcc", a=4.0).cell.array, scaled_positions=[[0, 0, 0]])
    phonon = phonopy.Phonopy(unit, supercell_matrix=[2, 2, 2])
    phonon.generate_displacements()
    forces = []
    for cell in phonon.supercells_with_displacements:
        atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True, calculator=EMT())
        forces.append(atoms.get_forces())
    phonon.forces = forces
    return phonon


def test_what_a_phonopy_file_lacks_is_not_taken_from_files_that_lie_about(results, tmp_path, monkeypatch):
    phonon = pt()
    phonon.save(
        tmp_path / "phonopy.yaml", settings={"force_sets": False, "force_constants": False, "displacements": True}
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_FORCE_SETS(phonon.dataset)
    assert phonopy.load(tmp_path / "phonopy.yaml").force_constants is not None  # so phonopy has it
    said = run("confirm", results, "--set", "m", "--import", tmp_path / "phonopy.yaml")
    assert "0 crystals labelled" in said


def test_phonopy_files_are_judged(results, tmp_path):
    pt().save(tmp_path / "phonopy_params.yaml")
    assert "1 crystals labelled" in run("confirm", results, "--set", "m", "--import", tmp_path / "phonopy_params.yaml")
    with ResultsStore.open(results) as store:
        [found] = store.confirmations()
        assert found.id == "m-Pt"
        assert found.stability == "stable"
        assert found.evidence.looks["commensurate"].frequency == pytest.approx(0, abs=0.05)
        assert store.blobs.get(found.arrays["force_constants"])["array"].shape == (1, 8, 3, 3)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir>",
        "!<tag:yaml.org,2002:python%2Fobject%2Fapply:os.mkdir>",
    ],
)
def test_code_in_a_phonopy_file_is_not_run(results, tmp_path, tag):
    path = tmp_path / "evil.yaml"
    path.write_text(f"phonopy: {tag} ['{tmp_path / 'made'}']\n")
    found = CliRunner().invoke(app, ["confirm", str(results), "--set", "m", "--import", str(path)])
    assert found.exit_code == 2
    assert "holds code" in found.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one of --n, --collect and --import"),
        (["--n", "3", "--collect"], "give one of --n, --collect and --import"),
        (["--n", "3", "--maker", "no.such.Maker", "--write", "x"], "there is no no.such.Maker"),
        (["--import", "missing.csv"], "missing.csv cannot be read"),
        (["--import", "a.csv", "--column", "x=y"], "WHAT=NAME is needed"),
    ],
)
def test_bad_questions_get_a_sentence(results, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["confirm", str(results), "--set", "m", *arguments])
    assert found.exit_code == 2
    assert said in " ".join(found.stderr.split())


def test_rates_count_only_what_was_drawn(results):
    with ResultsStore.open(results) as store:
        rows = read_crystals(store).rows.assign(confirmed="stable", drawn=False)
        assert corrected(rows).rate == 1.0  # all of them
        part = rows.assign(confirmed=["stable"] * 11 + [None])
        assert corrected(part).rate is None
        assert corrected(part.assign(drawn=[True] * 11 + [False])).confirmed == 11
        assert corrected_table(read_crystals(store)).empty
