"""Small inputs that the tests build their files from."""

from __future__ import annotations

from pymatgen.core import Structure

from phononbench_flows.structures import Parsed, Rejection, parse

DEFAULT_ATOMS = "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"


def cif(
    atoms: str = DEFAULT_ATOMS,
    *,
    a: str = "4.0",
    b: str = "4.0",
    c: str = "4.0",
    alpha: str = "90",
    group: str = "P 1",
    operations: str = "x,y,z",
    block: str = "x",
    extra: str = "",
) -> str:
    listed = "\n".join(f"'{operation}'" for operation in operations.split(";"))
    return f"""data_{block}
_cell_length_a {a}
_cell_length_b {b}
_cell_length_c {c}
_cell_angle_alpha {alpha}
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M '{group}'
{extra}
loop_
_symmetry_equiv_pos_as_xyz
{listed}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{atoms}
"""


CIF = cif()

POSCAR = """NaCl
1.0
4 0 0
0 4 0
0 0 4
Na Cl
1 1
Direct
0 0 0
0.5 0.5 0.5
"""

FRAME = """2
Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"
Na 0 0 0
Cl 2 2 2
"""

PHONOPY = """phonopy:
  version: "2.0"
unit_cell:
  lattice:
  - [ 4, 0, 0 ]
  - [ 0, 4, 0 ]
  - [ 0, 0, 4 ]
  points:
  - symbol: Na
    coordinates: [ 0, 0, 0 ]
  - symbol: Cl
    coordinates: [ 0.5, 0.5, 0.5 ]
"""


def parse_structure(raw_format: str, data: bytes) -> Structure | Rejection:
    """The crystal of a file without the notes on it."""
    parsed = parse(raw_format, data)
    return parsed.structure if isinstance(parsed, Parsed) else parsed
