"""Four small crystals from the verdict of a potential to that of real DFT: GPAW in an environment of its own.

``scripts/install_gpaw.sh FOLDER`` makes it, and ``PHONONBENCH_GPAW_PYTHON=FOLDER/bin/python`` names it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from phononbench_flows import judge_folder
from phononbench_flows.cli import app
from phononbench_flows.store import ResultsStore

ROOT = Path(__file__).parents[2]


def crystals() -> dict[str, Structure]:
    def fcc(a: float) -> Lattice:
        return Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])

    return {
        "si": Structure(fcc(5.43), ["Si", "Si"], [[0] * 3, [0.25] * 3]),
        "c": Structure(fcc(3.567), ["C", "C"], [[0] * 3, [0.25] * 3]),
        "mgo": Structure(fcc(4.21), ["Mg", "O"], [[0] * 3, [0.5] * 3]),
        "mgo-b2": Structure(Lattice.cubic(2.66), ["Mg", "O"], [[0] * 3, [0.5] * 3]),
    }


@pytest.mark.slow
@pytest.mark.sevennet
def test_four_crystals(tmp_path):
    python = os.environ.get("PHONONBENCH_GPAW_PYTHON")
    if python is None:
        pytest.skip("PHONONBENCH_GPAW_PYTHON names no interpreter with GPAW")
    (tmp_path / "four").mkdir()
    for name, structure in crystals().items():
        structure.to(str(tmp_path / "four" / f"{name}.cif"))
    results = tmp_path / "results"
    judge_folder(tmp_path / "four", set_name="four", potential="sevennet-0", device="cpu", out=results)
    store = {
        "docs_store": {"type": "JSONStore", "paths": [str(tmp_path / "docs.json")], "read_only": False},
        "additional_stores": {
            "data": {"type": "JSONStore", "paths": [str(tmp_path / "data.json")], "read_only": False}
        },
    }
    (tmp_path / "store.yaml").write_text(yaml.safe_dump(store))
    (tmp_path / "jobflow.yaml").write_text(yaml.safe_dump({"JOB_STORE": store}))

    def confirm(*arguments: object) -> str:
        found = CliRunner().invoke(app, ["confirm", str(results), "--set", "four", *map(str, arguments)])
        assert found.exit_code == 0, found.output
        return found.stdout

    asked = ("--n", 4, "--maker", "atomate2.forcefields.flows.phonons.PhononMaker", "--functional", "PBE")
    confirm(*asked, "--settings", ROOT / "examples/confirm/gpaw.yaml", "--code", "gpaw", "--write", tmp_path / "flows")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"JOBFLOW_CONFIG_FILE": str(tmp_path / "jobflow.yaml"), "OMP_NUM_THREADS": "1"}
    environment.setdefault("GPAW_SETUP_PATH", "/usr/share/gpaw-setups")
    command = [python, str(ROOT / "scripts/run_flows.py"), str(tmp_path / "flows")]
    subprocess.run(command, env=environment, check=True)
    assert "4 answers" in confirm("--collect", "--job-store", tmp_path / "store.yaml")
    with ResultsStore.open(results) as opened:
        found = {each.id: each for each in opened.confirmations()}
        labels = {document.id: document.labels["dft"] for document in opened.documents()}
    assert {name: each.stability for name, each in found.items()} == labels
    assert labels["four-mgo"] == labels["four-c"] == labels["four-si"] == "stable"
    assert labels["four-mgo-b2"] == "unstable"
    assert all(each.code == "gpaw" and each.functional == "PBE" and each.uuid for each in found.values())
