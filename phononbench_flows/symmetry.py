"""Space group of a crystal, in Materials Project terms."""

from __future__ import annotations

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError
from spglib import __version__ as spglib_version

from phononbench_flows.documents import Symmetry


def symmetry(structure: Structure, symprec: float) -> Symmetry:
    """Symmetry found by spglib at ``symprec`` (Å); its fields are None where spglib finds none at all.

    emmet-core's ``SymmetryData.from_structure`` looks at 0.1 Å, ten times what a relaxation here keeps; and pymatgen's
    analyzer by default lets angles be off by 5 degrees, which finds symmetry that is not there at ``symprec``.
    """
    try:
        analyzer = SpacegroupAnalyzer(structure, symprec=symprec, angle_tolerance=-1)
    except SymmetryUndeterminedError:
        return Symmetry(symprec=symprec, version=spglib_version)
    return Symmetry(
        crystal_system=analyzer.get_crystal_system().title(),
        symbol=analyzer.get_space_group_symbol(),
        number=analyzer.get_space_group_number(),
        point_group=analyzer.get_point_group_symbol(),
        hall=analyzer.get_hall(),
        symprec=symprec,
        version=spglib_version,
    )
