"""The crystals of the quickstart are what its README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

FOLDER = Path(__file__).parent.parent / "examples" / "quickstart"
# file: reduced formula, atoms, space group at 0.01 Å, and at 0.5 Å (what a rattled one was before)
CRYSTALS = {
    "C_diamond.cif": ("C", 2, 227, 227),
    "Si_diamond.cif": ("Si", 2, 227, 227),
    "Si_diamond_again.cif": ("Si", 8, 227, 227),
    "MgO_rocksalt.cif": ("MgO", 2, 225, 225),
    "NaCl_rocksalt.cif": ("NaCl", 2, 225, 225),
    "SrTiO3_cubic.cif": ("SrTiO3", 5, 221, 221),
    "BaTiO3_cubic.cif": ("BaTiO3", 5, 221, 221),
    "NiTi_B2.cif": ("TiNi", 2, 221, 221),
    "GaN_wurtzite.cif": ("GaN", 4, 186, 186),
    "Mo_bcc.cif": ("Mo", 1, 229, 229),
    "CsCl_rattled.cif": ("CsCl", 2, 1, 221),
    "GaAs_rattled.cif": ("GaAs", 2, 1, 216),
    "Al_rattled.vasp": ("Al", 4, 1, 225),
}


@pytest.fixture(scope="module")
def crystals() -> dict[str, Structure]:
    return {name: Structure.from_file(FOLDER / name) for name in CRYSTALS}


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystal(crystals, name):
    crystal = crystals[name]
    formula, atoms, tight, loose = CRYSTALS[name]
    assert (crystal.reduced_formula, len(crystal)) == (formula, atoms)
    assert SpacegroupAnalyzer(crystal, symprec=0.01).get_space_group_number() == tight
    assert SpacegroupAnalyzer(crystal, symprec=0.5, angle_tolerance=10).get_space_group_number() == loose
    distances = crystal.distance_matrix + 10 * (crystal.distance_matrix < 1e-8)
    assert distances.min() > 1.4


def test_only_one_is_a_duplicate(crystals):
    matcher = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)
    names = sorted(crystals)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if matcher.fit(crystals[a], crystals[b])]
    assert pairs == [("Si_diamond.cif", "Si_diamond_again.cif")]


@pytest.mark.filterwarnings("ignore")
def test_broken_one_does_not_parse():
    with pytest.raises(ValueError, match="CIF"):
        Structure.from_file(FOLDER / "broken.cif")


def test_readme_lists_every_file():
    listed = re.findall(r"^\| `([^`]+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    present = [path.name for path in FOLDER.iterdir() if path.name != "README.md"]
    assert sorted(listed) == sorted(present) == sorted([*CRYSTALS, "broken.cif"])
