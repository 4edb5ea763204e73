"""The door from Python, and `phononbench judge`, with a potential that needs no weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from typer.testing import CliRunner

import phononbench_flows
from phononbench_flows import ResultsStore, judge, judge_folder, judge_many, load_protocol
from phononbench_flows.cli import app
from phononbench_flows.judging import NotJudgedError
from phononbench_flows.structures import InputError

TOY = "toy_potentials:lj"


@pytest.fixture
def small() -> str:
    return load_protocol("paper").model_copy(
        update={"spectrum": load_protocol("paper").spectrum.model_copy(update={"path_points": 11, "mesh": (4, 4, 4)})}
    )


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, phononbench_flows; assert not {'torch', 'pymatgen', 'pydantic', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(phononbench_flows.__all__) <= set(dir(phononbench_flows))
    with pytest.raises(AttributeError, match="nobody"):
        _ = phononbench_flows.nobody


def test_one_crystal(fcc, simple_cubic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stable = judge(fcc, potential=TOY)
    assert (stable.stability, stable.is_stable, stable.was_judged) == ("stable", True, True)
    assert stable.minimum.frequency > -1e-3
    assert stable.minimum == stable.document.evidence.looks["exact"]
    assert stable.document.minimum == stable.document.evidence.looks["path"]
    assert stable.why.startswith("stable: the lowest mode at")
    assert stable.structure.volume == pytest.approx(stable.document.relaxed_structure["lattice"]["volume"])
    document = stable.document
    assert (document.formula_pretty, document.nsites, document.elements) == ("Cu", 4, ["Cu"])
    assert document.symmetry_relaxed.number == 225
    unstable = judge(simple_cubic, potential=TOY)
    assert unstable.stability == "unstable"
    assert unstable.minimum.frequency < -1
    assert f"{unstable.minimum.frequency:.4g} THz" in unstable.why
    assert list(tmp_path.iterdir()) == [], "nothing is left on disk"


def test_the_numbers_are_those_of_a_run(fcc, tmp_path):
    CifWriter(fcc).write_file(tmp_path / "fcc.cif")
    folder = judge_folder(tmp_path / "fcc.cif", "toys", out=tmp_path / "out", potential=TOY)
    assert (folder.funnel.generated, folder.funnel.stable) == (1, 1)
    assert folder.table == tmp_path / "out" / "toys" / "toy_potentials-lj-converged" / "results.csv"
    with ResultsStore.open(tmp_path / "out") as store:
        (of_the_run,) = store.documents()
    alone = judge(tmp_path / "fcc.cif", potential=TOY).document
    for field in ("evidence", "minimum", "assessments", "phonon", "protocol_id", "content_hash"):
        assert getattr(alone, field) == getattr(of_the_run, field), field
    assert Structure.from_dict(alone.relaxed_structure) == Structure.from_dict(of_the_run.relaxed_structure)


def test_whatever_it_comes_as(fcc, tmp_path):
    CifWriter(fcc).write_file(tmp_path / "fcc.cif")
    charged = fcc.copy()
    charged.add_oxidation_state_by_element({"Cu": 1})
    charged.add_site_property("magmom", [1.0] * 4)
    forms = [fcc, charged, AseAtomsAdaptor.get_atoms(fcc), tmp_path / "fcc.cif", str(tmp_path / "fcc.cif")]
    found = judge_many(forms, potential=TOY)
    assert [result.stability for result in found] == ["stable"] * 5
    assert len({result.document.content_hash for result in found}) <= 2  # a CIF has fewer digits
    assert len({result.document.id for result in found}) == 5
    assert found[3].document.origin.source == str(tmp_path / "fcc.cif")


def test_failures_stand_in_their_places(fcc, cu3au, tmp_path):
    disordered = Structure(fcc.lattice, [{"Cu": 0.5, "Au": 0.5}] * 4, fcc.frac_coords)
    raises = Structure(fcc.lattice, ["Kr"] * 4, fcc.frac_coords)
    nan = Structure(fcc.lattice, ["Xe"] * 4, fcc.frac_coords)
    close = Structure(Lattice.cubic(3.0), ["Cu", "Cu"], [[0, 0, 0], [0.01, 0, 0]])
    molecule = AseAtomsAdaptor.get_atoms(fcc)
    molecule.pbc = (True, True, False)
    (tmp_path / "broken.cif").write_text("data_broken\n_cell_length_a")
    frames = tmp_path / "two.extxyz"
    for _ in range(2):
        with frames.open("a") as file:
            file.write('1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"\nCu 0 0 0\n')
    found = judge_many(
        [fcc, disordered, raises, nan, close, molecule, tmp_path / "broken.cif", frames, cu3au], potential=TOY
    )
    assert [(result.stability, result.document.reason) for result in found] == [
        ("stable", None),
        ("rejected", "disordered"),
        ("failed", "exception"),
        ("failed", "not_finite"),
        ("rejected", "atoms_too_close"),
        ("rejected", "bad_cell"),
        ("rejected", "unparsable"),
        ("rejected", "ambiguous"),
        ("stable", None),
    ]
    assert found[2].why == "failed (exception): RuntimeError: this potential cannot bear krypton"
    assert [result.was_judged for result in found].count(True) == 2
    assert found[1].minimum is None
    with pytest.raises(NotJudgedError, match="no force constants: failed"):
        found[2].phonopy()
    assert "this potential cannot bear krypton" in found[2]._repr_html_()
    assert judge_many([], potential=TOY) == []


def test_what_is_no_crystal_is_an_error(tmp_path):
    with pytest.raises(TypeError, match="not a int"):
        judge(3, potential=TOY)
    with pytest.raises(InputError, match="nowhere"):
        judge(tmp_path / "nowhere.cif", potential=TOY)


def test_everything_can_be_had_from_a_result(cu3au, tmp_path, small):
    result = judge(cu3au, potential=TOY, protocol=small)
    phonon = result.phonopy()
    at_gamma = phonon.run_qpoints(np.zeros((1, 3))).frequencies[0]
    bands = result.bands
    place = next(i for i, q in enumerate(bands.q[0]) if not q.any())
    # The acoustic modes at Gamma are zero but for rounding, of which the square root makes much.
    assert np.allclose(bands.frequencies[0][place], at_gamma, atol=1e-5)
    doc = result.emmet()
    assert (doc.chemsys, doc.nelements) == ("Au-Cu", 2)
    path = doc.phonon_bandstructure.to_pmg
    lowest = min(float(frequencies.min()) for frequencies in bands.frequencies)
    assert path.bands.min() == pytest.approx(lowest, abs=1e-9)
    figure = result.plot()
    assert figure.axes[0].get_ylabel().startswith("Frequency (THz)")
    card = result._repr_html_()
    assert "data:image/png;base64," in card
    assert "Cu3Au" in card
    written = {path.name for path in result.save(str(tmp_path / "saved"))}
    assert written == {"1.cif", "1.emmet.json", "1.phonopy.yaml", "1.band.yaml", "1.png"}
    assert all((tmp_path / "saved" / name).stat().st_size for name in written)
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["minimum"]["frequency"] == result.minimum.frequency


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["judge", *map(str, arguments), "--potential", TOY])


def test_the_command_as_a_filter(fcc, cu3au, simple_cubic, tmp_path):
    for name, structure in {"fcc": fcc, "cu3au": cu3au, "po": simple_cubic}.items():
        CifWriter(structure).write_file(tmp_path / f"{name}.cif")
    (tmp_path / "broken.cif").write_text("data_broken")
    stable = invoke(tmp_path / "fcc.cif", tmp_path / "cu3au.cif")
    assert stable.exit_code == 0
    assert [line.split("  ")[1] for line in stable.stdout.splitlines()] == ["Cu", "Cu3Au"]
    some = invoke(tmp_path / "fcc.cif", tmp_path / "po.cif", "--json")
    assert some.exit_code == 1
    found = [json.loads(line) for line in some.stdout.splitlines()]
    assert [(Path(each["source"]).name, each["stability"]) for each in found] == [
        ("fcc.cif", "stable"),
        ("po.cif", "unstable"),
    ]
    assert found[1]["minimum"]["frequency"] < -1
    broken = invoke(tmp_path / "fcc.cif", tmp_path / "broken.cif")
    assert broken.exit_code == 2
    assert "rejected (unparsable)" in broken.stdout
    nowhere = invoke(tmp_path / "nowhere.cif")
    assert nowhere.exit_code == 2
    assert "nowhere.cif" in nowhere.stderr
    kept = invoke(tmp_path / "fcc.cif", "--save", tmp_path / "kept")
    assert kept.exit_code == 0
    assert (tmp_path / "kept" / "fcc.phonopy.yaml").is_file()


def test_no_library_is_heard(fcc, tmp_path):
    fcc.to(str(tmp_path / "fcc.cif"))
    script = f"from phononbench_flows import judge; print(judge({str(tmp_path / 'fcc.cif')!r}, potential={TOY!r}).why)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    environment["PYTHONPATH"] = os.pathsep.join(["tests", environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("stable")
    assert not done.stderr
