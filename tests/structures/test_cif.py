"""Kinds of CIF that readers get wrong, each in a small file of its own."""

from __future__ import annotations

import pytest
from pymatgen.core import Structure
from samples import CIF, DEFAULT_ATOMS, cif

from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import Parsed, Rejection, check, parse

HEXAGONAL = ["3.19", "3.19", "5.19", "90", "90", "120"]
CUBIC = ["5.64"] * 3 + ["90"] * 3
RHOMBOHEDRAL = ["4.7"] * 3 + ["57.2"] * 3
NACL = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5"
FACES = "x,y,z;x,y+1/2,z+1/2;x+1/2,y,z+1/2;x+1/2,y+1/2,z"


def made(cell: list[str], atoms: str, *lines: str, columns: str = "label type_symbol fract_x fract_y fract_z") -> str:
    tags = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    head = [f"_cell_{tag} {value}" for tag, value in zip(tags, cell, strict=True)]
    loop = ["loop_", *(f"_atom_site_{column}" for column in columns.split())]
    return "\n".join(["data_x", *head, *lines, *loop, atoms, ""])


def listed(operations: str, tag: str = "_symmetry_equiv_pos_as_xyz") -> str:
    return "\n".join(["loop_", tag, *(f"'{operation}'" for operation in operations.split(";"))])


def read(text: str) -> Structure:
    parsed = parse("cif", text.encode())
    assert isinstance(parsed, Parsed), parsed
    return parsed.structure


def formula(text: str) -> str:
    return read(text).composition.formula.replace(" ", "")


def rejection(text: str) -> tuple[str, str]:
    parsed = parse("cif", text.encode())
    found = parsed if isinstance(parsed, Rejection) else check(parsed.structure, ScreeningSettings(), None)
    assert found is not None, parsed
    return found.reason.value, found.detail


# -- symmetry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "symmetry",
    [
        "_symmetry_space_group_name_H-M 'F m -3 m'",
        "_SPACE_GROUP_NAME_h-m_alt Fm-3m",
        "_space_group.name_H-M_full 'F 4/m -3 2/m'",
        "_space_group_name_H-M_alt 'F m 3 m'",
        "_space_group_IT_number 225",
        "_symmetry.Int_Tables_number 225",
        "_space_group_name_Hall '-F 4 2 3'",
        "_symmetry_space_group_name_Hall -f_4_2_3",
        listed(FACES),
        listed(FACES.upper(), "_Space_Group_Symop.Operation_XYZ"),
        listed("x,y,z;x,.5+y,.5+z;0.5+x,y,1/2+z;x + 1/2, y + 0.50, z"),
        "_symmetry_space_group_name_H-M 'Q 17'\n" + listed(FACES),
    ],
)
def test_symmetry_is_understood_in_every_spelling(symmetry: str) -> None:
    assert formula(made(CUBIC, NACL, symmetry)) == "Na4Cl4"


@pytest.mark.parametrize("ending", [":2", " :2", ":Z", " Z", " 2", " (origin choice 2)", " S", ":1"])
def test_an_origin_is_named(ending: str) -> None:
    expected = "Si8" if "2" in ending or "Z" in ending else "Si16"
    name = f"_symmetry_space_group_name_H-M 'F d -3 m{ending}'"
    assert formula(made(CUBIC, "Si1 Si 0.125 0.125 0.125", name)) == expected


@pytest.mark.parametrize("name", ["R -3 m", "R -3 m :R", "R -3 m R", "R-3mr", "R -3 m:r", "R -3 2/m"])
def test_axes_are_named_or_follow_from_the_cell(name: str) -> None:
    text = made(RHOMBOHEDRAL, "Bi1 Bi 0.234 0.234 0.234", f"_symmetry_space_group_name_H-M '{name}'")
    assert formula(text) == "Bi2"
    hexagonal = made(["4.5", "4.5", "11.8", *HEXAGONAL[3:]], "Bi1 Bi 0 0 0.234", "_space_group_name_H-M_alt 'R -3 m'")
    assert formula(hexagonal) == "Bi6"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("", "ambiguous"),
        ("_chemical_formula_sum Si1", "ambiguous"),
        ("_chemical_formula_sum Si1\n_cell_formula_units_Z 8", "Si8"),
        (
            "_chemical_formula_sum Si8\n_cell_formula_units_Z 2",
            "ambiguous",
        ),  # Z times the formula, or the whole cell as some write it
        ("_chemical_formula_sum Si2\n_cell_formula_units_Z 8", "Si16"),
        ("_chemical_formula_sum Si4\n_cell_formula_units_Z 1", "contradictory"),
        ("_exptl_crystal_density_diffrn 2.08", "Si8"),
        ("_exptl_crystal_density_diffrn 4.16", "Si16"),
        ("_symmetry_Int_Tables_number 227", "ambiguous"),
    ],
)
def test_counts_decide_an_origin_that_is_not_stated(counts: str, expected: str) -> None:
    text = made(CUBIC, "Si1 Si 0.125 0.125 0.125", "_symmetry_space_group_name_H-M 'F d -3 m'", counts)
    parsed = parse("cif", text.encode())
    if isinstance(parsed, Rejection):
        assert parsed.reason.value == expected
    else:
        assert parsed.structure.formula.replace(" ", "") == expected
        assert f"F d -3 m:{2 if expected == 'Si8' else 1}, not" in parsed.notes[0]


def test_multiplicity_decides_too() -> None:
    columns = "label symmetry_multiplicity type_symbol fract_x fract_y fract_z"
    for multiplicity, expected in ((8, "Si8"), (16, "Si16")):
        atoms = f"Si1 {multiplicity} Si 0.125 0.125 0.125"
        assert formula(made(CUBIC, atoms, "_space_group_IT_number 227", columns=columns)) == expected
        letters = made(
            CUBIC,
            atoms.replace(f" {multiplicity} ", f" {multiplicity}c "),
            "_space_group_IT_number 227",
            columns=columns.replace("symmetry_multiplicity", "Wyckoff_symbol"),
        )
        assert formula(letters) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("", "ambiguous"),
        ("_chemical_formula_sum 'Na Cl'", "ambiguous"),
        ("_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4", "Na4Cl4"),
        ("_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 1", "Na1Cl1"),
    ],
)
def test_only_the_identity_beside_the_name_of_a_group(counts: str, expected: str) -> None:
    text = made(CUBIC, NACL, "_symmetry_space_group_name_H-M 'F m -3 m'", counts, listed("x,y,z"))
    parsed = parse("cif", text.encode())
    assert parsed.reason.value == expected if isinstance(parsed, Rejection) else formula(text) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("", "ambiguous"),
        ("_chemical_formula_sum 'Na Cl'", "ambiguous"),
        ("_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 1", "good"),
        ("_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 4", "contradictory"),
        ("_cell_formula_units_Z 4", "contradictory"),
        ("_space_group_ssg_name 'F m -3 m(00g)'\n_cell_modulation_dimension 1", "unsupported_file"),
        ("loop_\n_space_group_symop_ssg_operation_algebraic\nx1,x2,x3,x4", "unsupported_file"),
    ],
)
def test_no_symmetry_at_all(counts: str, expected: str) -> None:
    parsed = parse("cif", made(["3.9"] * 3 + ["90"] * 3, NACL, counts).encode())
    assert (parsed.reason.value if isinstance(parsed, Rejection) else "good") == expected


@pytest.mark.parametrize(
    "lines",
    [
        ["_symmetry_space_group_name_H-M 'F m -3 m'", "_symmetry_Int_Tables_number 216"],
        ["_symmetry_space_group_name_H-M 'F m -3 m'", "_space_group_name_H-M_alt 'P m -3 m'"],
        ["_symmetry_space_group_name_H-M 'F -4 3 m'", "_space_group_name_Hall '-F 4 2 3'"],
        ["_symmetry_space_group_name_H-M 'F m -3 m'", listed(FACES)],
        ["_symmetry_space_group_name_H-M 'P 1'", listed(FACES)],
        ["_symmetry_Int_Tables_number 999"],
        [listed(FACES), listed("x,y,z;-x,-y,-z", "_space_group_symop_operation_xyz")],
        [listed("x,y,z;x,y+1/2,z+1/2;x+1/2,y,z+1/2")],
        [listed("-x,-y,-z")],
        [listed("x,y,z;-y,x-y,z;-x+y,-x,z")],
        [listed(FACES), "_cell_volume 200"],
        [listed(FACES), "_exptl_crystal_density_diffrn 1.1"],
        [listed(FACES), "_cell_formula_units_Z 3"],
        [listed(FACES), "_chemical_formula_sum 'Na Cl2'"],
        [listed(FACES), "_chemical_formula_sum 'Na Cl'", "_cell_formula_units_Z 2"],
        [listed(FACES), "_chemical_formula_sum 'Na8 Cl8'"],
    ],
)
def test_contradictions(lines: list[str]) -> None:
    reason, _ = rejection(made(CUBIC, NACL, *lines))
    assert reason == "contradictory"


def test_cell_that_does_not_have_the_shape_of_the_group() -> None:
    name = "_symmetry_space_group_name_H-M 'P m -3 m'"
    assert rejection(made(["4", "4", "4.1", "90", "90", "90"], NACL, name))[0] == "contradictory"
    assert rejection(made(["4", "4", "4", "90", "90", "91"], NACL, name))[0] == "contradictory"
    assert formula(made(["4", "4", "4.0004", "90", "90", "90"], NACL, name)) == "Na1Cl1"


@pytest.mark.parametrize("angles", [(40, 45, 100), (125, 125, 125), (90, 90, 180), (90, 90, -90), (90, 0, 90)])
def test_angles_that_no_cell_has(angles: tuple[int, ...]) -> None:
    cell = ["5", "5", "5", *map(str, angles)]
    assert rejection(made(cell, NACL, listed("x,y,z")))[0] == "contradictory"


def test_shifted_origin_is_the_same_group() -> None:
    """No table lists it, but the operations say all."""
    text = made(CUBIC, "Si1 Si 0.1 0.2 0.3", "_symmetry_space_group_name_H-M 'P -1'", listed("x,y,z;-x+1/4,-y,-z"))
    assert formula(text) == "Si2"
    other = made(CUBIC, "Si1 Si 0.1 0.2 0.3", "_symmetry_space_group_name_H-M 'P 1 m 1'", listed("x,y,z;x+1/2,-y,z"))
    assert rejection(other)[0] == "contradictory"


def test_tags_that_repeat() -> None:
    once = made(CUBIC, NACL, listed(FACES), "_cell_formula_units_Z 4", "_cell.formula_units_Z 4")
    assert formula(once) == "Na4Cl4"
    assert rejection(once.replace("Z 4", "Z 2", 1))[0] == "ambiguous"


# -- atoms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("atom", "named"),
    [
        ("1Cs ? 0 0 0 1", "1Cs"),
        ("OH1 ? 0 0 0 1", "OH1"),
        ("? ? 0 0 0 1", "?"),
        ("Wat . 0 0 0 1", "Wat"),
        ("A1 OH 0 0 0 1", "OH"),
        ("A1 CO 0 0 0 1", "CO"),
        ("Na1 Na nan 0 0 1", "nan"),
        ("Na1 Na 0.３ 0 0 1", "Na1"),
        ("Na1 Na 1e400 0 0 1", "Na1"),
        ("Na1 Na 1/0 0 0 1", "1/0"),
        ("Na1 Na 0 0 0 ?", "Na1"),
        ("Na1 Na 0 0 0 nan", "nan"),
        ("Na1 Na 0 0 0 0.9999", "0.9999"),
        ("Na1 Na 0 0 0 1.02", "1.02"),
        ("Na1 Na 0 0 0 0", "Na1"),
        ("Na1 Na 0.5 0.5 0.5 1", "Na1"),
    ],
)
def test_an_atom_that_is_not_understood_is_named(atom: str, named: str) -> None:
    _, detail = rejection(cif(atom + "\nCl1 Cl 0.5 0.5 0.5 1"))
    assert named in detail


@pytest.mark.parametrize(
    "atom",
    [
        "Na1 Na 0 0 0 .",
        "Na1 Na 0 0 0 1.00(2)",
        "Na1 Na 0 0 0 0.9999999",
        "Na1 Na+ 0 0 0 1.0000001",
        "Na1 ? 0 0 0 1",
        "Na1 NA 0 0 0 1",
        "? Na1+ 0 0 0 1",
        "Na1 Na \N{MINUS SIGN}0.0 0/3 .0 1",
        "Na1 Na 0.0(1) 0. +0 1",
    ],
)
def test_an_atom_that_can_only_mean_one_thing(atom: str) -> None:
    structure = read(cif(atom + "\nCl1 Cl 0.5 0.5 0.5 1"))
    assert structure.composition.formula == "Na1 Cl1"
    assert structure[0].frac_coords.tolist() == [0, 0, 0]


def test_a_formula_tells_the_elements_of_labels() -> None:
    atoms = "CaM1 0 0 0\nOA 0.5 0.5 0"
    columns = "label fract_x fract_y fract_z"
    assert rejection(made(CUBIC, atoms, listed("x,y,z"), columns=columns))[0] == "unsupported_element"
    assert formula(made(CUBIC, atoms, listed("x,y,z"), "_chemical_formula_sum 'Ca O'", columns=columns)) == "Ca1O1"
    hydroxide = made(CUBIC, atoms, listed("x,y,z"), "_chemical_formula_sum 'Ca O H'", columns=columns)
    assert rejection(hydroxide)[0] == "contradictory"


@pytest.mark.parametrize(
    ("third", "two_thirds"), [("0.333", "0.667"), ("0.33", "0.67"), ("0.333", "0.666"), ("0.3", "0.7")]
)
def test_few_digits_on_a_special_position(third: str, two_thirds: str) -> None:
    atoms = f"Mg1 Mg {third} {two_thirds} 0.25"
    parsed = parse("cif", made(HEXAGONAL, atoms, "_space_group_name_H-M_alt 'P 63/m m c'").encode())
    assert isinstance(parsed, Parsed)
    assert len(parsed.structure) == 2
    assert parsed.structure[0].frac_coords == pytest.approx([1 / 3, 2 / 3, 1 / 4], abs=1e-12)
    assert "Mg1" in parsed.notes[0]


def test_digits_that_leave_it_open() -> None:
    """With one digit in a large cell it may be three atoms around the axis, or one on it."""
    cell = ["12", "12", "5", "90", "90", "120"]
    atoms = "Mg1 Mg 0.3 0.7 0.25"
    name = "_space_group_name_H-M_alt 'P 3'"
    assert rejection(made(cell, atoms, name))[0] == "ambiguous"
    assert formula(made(cell, atoms, name, "_chemical_formula_sum Mg3", "_cell_formula_units_Z 1")) == "Mg3"


def test_many_translations_are_many_atoms() -> None:
    """They leave no place where it is, however few the digits are."""
    translations = listed(";".join(f"x+{n}/600,y,z" for n in range(600)))
    assert formula(made(["700", "5", "5", "90", "90", "90"], "H1 H 0.1 0.2 0.3", translations)) == "H600"


def test_all_atoms_listed_beside_the_operations() -> None:
    everything = "\n".join(
        f"{symbol}{n} {symbol} {x} {y} {z}"
        for symbol, shift in (("Na", 0), ("Cl", 0.5))
        for n, (x, y, z) in enumerate(((shift, 0, 0), (shift, 0.5, 0.5), (shift + 0.5, 0, 0.5), (shift + 0.5, 0.5, 0)))
    )
    parsed = parse("cif", made(CUBIC, everything, listed(FACES)).encode())
    assert isinstance(parsed, Parsed)
    assert parsed.structure.composition.formula == "Na4 Cl4"
    assert "listed" in parsed.notes[0]
    some = everything.replace("Na3", "#")
    assert rejection(made(CUBIC, some, listed(FACES))) == ("contradictory", "Sites Na0 and Na1 lie at the same place.")


def test_dummies_and_disorder() -> None:
    columns = "label type_symbol fract_x fract_y fract_z calc_flag disorder_group"
    atoms = "Cs1 Cs 0 0 0 . .\nCl1 Cl 0.5 0.5 0.5 d .\nCn1 C 0.2 0.5 0.5 dum ."
    parsed = parse("cif", made(["4.1"] * 3 + ["90"] * 3, atoms, listed("x,y,z"), columns=columns).encode())
    assert isinstance(parsed, Parsed)
    assert parsed.structure.composition.formula == "Cs1 Cl1"
    assert "Cn1" in parsed.notes[0]
    assert rejection(made(CUBIC, atoms.replace("d .", "d 1"), listed("x,y,z"), columns=columns))[0] == "disordered"


def test_crystal_system_and_coordinate_system_code() -> None:
    name = "_symmetry_space_group_name_H-M 'F d -3 m'"
    atom = "Si1 Si 0.125 0.125 0.125"
    assert formula(made(CUBIC, atom, name, "_space_group.IT_coordinate_system_code 2")) == "Si8"
    assert formula(made(CUBIC, atom, f"{name[:-1]}:1'", "_symmetry_cell_setting cubic")) == "Si16"
    assert rejection(made(CUBIC, atom, f"{name[:-1]}:1'", "_symmetry_cell_setting tetragonal"))[0] == "contradictory"


def test_multiplicity_in_the_sense_of_old_programs() -> None:
    columns = "label type_symbol fract_x fract_y fract_z symmetry_multiplicity"
    name = "_space_group_name_H-M_alt 'P -1'"
    cell = ["5", "6", "7", "80", "95", "100"]
    for first, second in ((1, 2), (2, 1)):
        atoms = f"K1 K 0 0 0 {first}\nF1 F 0.3 0.3 0.3 {second}"
        assert formula(made(cell, atoms, name, columns=columns)) == "K1F2"
    assert rejection(made(cell, "K1 K 0 0 0 2\nF1 F 0.3 0.3 0.3 2", name, columns=columns))[0] == "contradictory"


# -- grammar ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        CIF.replace("data_", "DATA_").replace("loop_", "LOOP_"),
        CIF.replace("_cell_", "_CELL_").replace("_atom_site_fract_x", "_ATOM_SITE_FRACT_X"),
        CIF.replace("_cell_length_a", "_title\n;\ndata_old\nloop_\n_atom_site_fract_x\n0.1\n;\n_cell_length_a"),
        "#\\#CIF_2.0\n" + CIF.replace("_cell_length_a", "_title '''it's\ntwo'''\n_cell_length_a"),
        CIF.replace("_cell_length_a", "save_note\n_note.text x\nsave_\n_cell_length_a"),
        CIF.replace("_cell_length_a 4.0", "_cell_length_a\n;4.0\n;"),
        CIF + "data_empty\n_a 1\n",
        CIF.replace("_cell_length_a", "_author 'M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller'\n_cell_length_a"),
    ],
)
def test_grammar(text: str) -> None:
    assert formula(text) == "Na1Cl1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CIF.replace("_cell_length_a", "save_n\n_cell_length_a 5\nsave_\n_cell_length_a"), "ambiguous"),
        (CIF.replace("_cell_length_a 4.0", "_cell_length_a 4.0\n_cell.length_a 5"), "ambiguous"),
        (cif(DEFAULT_ATOMS + " extra"), "unparsable"),
        (CIF.replace("_cell_angle_alpha 90\n", ""), "unparsable"),
    ],
)
def test_grammar_that_is_no_cif(text: str, reason: str) -> None:
    assert rejection(text)[0] == reason
