from __future__ import annotations

import subprocess
import sys

import pytest
from emmet.core.structure import StructureMetadata
from emmet.core.symmetry import SymmetryData
from made_documents import crystal_of, make
from pydantic import ValidationError
from pymatgen.core import Lattice, Structure

from phononbench_flows.documents import CalculationDocument, CrystalDocument, Origin, Symmetry, calculation_key
from phononbench_flows.symmetry import symmetry

DESCRIPTION = ("nsites", "elements", "nelements", "formula_pretty", "chemsys")


def test_what_describes_a_crystal_has_the_names_of_emmet_core():
    for document in (CalculationDocument, CrystalDocument):
        assert set(DESCRIPTION) <= set(StructureMetadata.model_fields) & set(document.model_fields)
    assert set(Symmetry.model_fields) == set(SymmetryData.model_fields)


def test_emmet_core_reads_our_symmetry():
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    ours = symmetry(rutile, 0.01)
    theirs = SymmetryData.from_structure(rutile)
    read = SymmetryData.model_validate(ours.model_dump(mode="json"))
    for name in ("crystal_system", "symbol", "number", "point_group", "hall"):
        assert getattr(read, name) == getattr(theirs, name), name
    assert (ours.crystal_system, ours.number, ours.symprec) == ("Tetragonal", 136, 0.01)


def test_documents_are_imported_without_the_heavy_libraries():
    heavy = ("torch", "pymatgen", "emmet")
    script = f"import sys, phononbench_flows.documents; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_calculation_says_all_of_its_crystal_but_the_structure_and_how_it_was_read():
    own = {"structure", "notes"}
    assert set(CrystalDocument.model_fields) - set(CalculationDocument.model_fields) == own
    for name in set(CrystalDocument.model_fields) - own:
        ours, theirs = CrystalDocument.model_fields[name], CalculationDocument.model_fields[name]
        assert (ours.annotation, ours.description) == (theirs.annotation, theirs.description), name


def test_keys():
    calculation = make(3)
    assert crystal_of(calculation).key == calculation.id == "gen_3"
    assert calculation_key("gen_3", "p") == calculation.key == "gen_3@p"


@pytest.mark.parametrize("document", [make(3), crystal_of(make(3), structure={"charge": 0})], ids=["p", "crystal"])
def test_documents_are_plain_json_and_come_back(document):
    assert type(document).model_validate_json(document.model_dump_json()) == document
    assert type(document).model_validate(document.model_dump(mode="json")) == document


@pytest.mark.parametrize(
    "wrong", [{"id": "a/b"}, {"status": "judged"}, {"verdicts": []}, {"structure": {}}, {"origin": {"file": "x"}}]
)
def test_what_is_no_calculation(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        CalculationDocument.model_validate(make(1).model_dump() | wrong)


def test_a_crystal_may_come_from_another():
    mode = {"q": [0.5, 0.5, 0.5], "frequency": -1.5, "amplitude": 0.2}
    child = Origin.model_validate({"parent": "gen_3", "mode": mode})
    assert child.model_dump(exclude_defaults=True) == {"parent": "gen_3", "mode": mode}
