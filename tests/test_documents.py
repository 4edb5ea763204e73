from __future__ import annotations

import subprocess
import sys

from emmet.core.structure import StructureMetadata
from emmet.core.symmetry import SymmetryData
from pymatgen.core import Lattice, Structure

from phononbench_flows.documents import CrystalDocument, Symmetry
from phononbench_flows.symmetry import symmetry

DESCRIPTION = ("nsites", "elements", "nelements", "formula_pretty", "chemsys")


def test_what_describes_a_crystal_has_the_names_of_emmet_core():
    assert set(DESCRIPTION) <= set(StructureMetadata.model_fields) & set(CrystalDocument.model_fields)
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
