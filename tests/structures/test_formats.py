"""What generators write is read: every format, through files, into the two crystals that they were made of."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher
from pymatgen.io.vasp import Xdatcar
from samples import CIF, PHONOPY, POSCAR, parse_structure
from written import (
    BOTH,
    CSCL,
    JSON,
    PACKERS,
    ZNO,
    arrays,
    ase_database,
    ase_json,
    atoms,
    cif,
    endless_database,
    extxyz,
    optimade,
    poscar,
    pymatgen_json,
    table,
    tarred,
    tensors,
    trajectory,
    xdatcar,
    zipped,
)

from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import (
    Ignored,
    InputError,
    RawCrystal,
    ReadLimits,
    Rejection,
    check,
    read_inputs,
)
from phononbench_flows.structures.formats import format_of, torch_files
from phononbench_flows.structures.raw import NoCrystalsError, RejectedError

MATCHER = StructureMatcher(ltol=1e-4, stol=1e-4, angle_tol=1e-2, scale=False, primitive_cell=False)


def outcome(raw: RawCrystal) -> Structure | Rejection:
    return raw.rejection or parse_structure(raw.format, raw.data)


def read(*paths: Path, ignored: Ignored | None = None) -> list[RawCrystal]:
    return list(read_inputs(paths, ignored=ignored))


def is_same(found: Structure | Rejection, wanted: Structure) -> bool:
    return isinstance(found, Structure) and MATCHER.fit(found, wanted)


def assert_both(path: Path) -> list[RawCrystal]:
    raws = read(path)
    found = [outcome(raw) for raw in raws]
    assert len(found) == 2, found
    assert all(map(is_same, found, BOTH)), found
    return raws


def reason(found: Structure | Rejection) -> str:
    found = found if isinstance(found, Rejection) else check(found, ScreeningSettings(), None) or found
    return found.reason.value if isinstance(found, Rejection) else "good"


# -- POSCAR ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "POSCAR",
        "poscar",
        "Poscar",
        "SPOSCAR",
        "CONTCAR",
        "POSCAR_12",
        "POSCAR-007",
        "POSCAR.mp-1",
        "mp-1_POSCAR",
        "123-POSCAR",
        "0.poscar.txt",
        "x.vasp",
        "x.POSCAR",
        "geo.contcar",
        "POSCAR.gz",
        "x.vasp.xz",
    ],
)
def test_names_of_poscars(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKERS[Path(name).suffix if Path(name).suffix in PACKERS else ""](POSCAR.encode()))
    [from_folder] = read(tmp_path)
    [alone] = read(tmp_path / name)
    assert from_folder.format == alone.format == "poscar"
    assert from_folder.data == POSCAR.encode()


@pytest.mark.parametrize("name", ["poscar.py", "POSCAR.png", "poscars.md", "imposcar", "POSCAR.log", "readme.txt"])
def test_names_that_are_no_poscars(name: str) -> None:
    assert format_of(name) is None


GOOD_POSCARS = {
    "three scale factors": POSCAR.replace("1.0\n", "1.0 1.0 1.0\n"),
    "volume": POSCAR.replace("1.0\n", "-64\n"),
    "volume, Cartesian": "x\n-64\n1 0 0\n0 1 0\n0 0 1\nNa Cl\n1 1\nCartesian\n0 0 0\n0.5 0.5 0.5\n",
    "factors, Cartesian": "x\n2 4 1\n2 0 0\n0 1 0\n0 0 4\nNa Cl\n1 1\nCartesian\n0 0 0\n1 0.5 2\n",
    "selective": POSCAR.replace("Direct", "Selective dynamics\nDirect").replace("0.5\n", "0.5 T F T\n"),
    "selective and labels": POSCAR.replace("Direct", "Selective\nDirect").replace("0.5\n", "0.5 T F T Cl\n"),
    "labels": POSCAR.replace("0 0 0\n0.5 0.5 0.5", "0 0 0 Na\n0.5 0.5 0.5 Cl1"),
    "charged labels": POSCAR.replace("0.5 0.5 0.5", "0.5 0.5 0.5 Cl-"),
    "names of potentials": POSCAR.replace("Na Cl", "Na_pv Cl/4f2a"),
    "names twice": POSCAR.replace("Na Cl\n1 1", "Na Cl Na\n1 1 0"),
    "exponents": POSCAR.replace("0.5 0.5 0.5", "5.0d-1 5.E-1 .5"),
    "comments": POSCAR.replace("Na Cl\n", "Na Cl ! names\n").replace("4 0 0\n", "4 0 0 # a\n"),
    "velocities": POSCAR + "\n0 0 0\n0 0 0\n",
    "lattice velocities": POSCAR + "Lattice velocities and vectors\n1\n0 0 0\n",
}


@pytest.mark.parametrize("kind", GOOD_POSCARS)
def test_good_poscars(kind: str) -> None:
    expected = parse_structure("poscar", POSCAR.encode())
    assert isinstance(expected, Structure)
    assert is_same(parse_structure("poscar", GOOD_POSCARS[kind].encode()), expected)


BAD_POSCARS = {
    "more names than counts": (POSCAR.replace("Na Cl", "Na Cl K"), "contradictory"),
    "more counts than names": (POSCAR.replace("1 1", "1 1 1"), "contradictory"),
    "another name at an atom": (POSCAR.replace("0.5 0.5 0.5", "0.5 0.5 0.5 Br"), "contradictory"),
    "lower case": (POSCAR.replace("Na Cl", "na cl"), "unsupported_element"),
    "two scale factors": (POSCAR.replace("1.0\n", "1.0 1.0\n"), "unparsable"),
    "negative factors": (POSCAR.replace("1.0\n", "1.0 -1.0 1.0\n"), "unparsable"),
    "infinite factor": (POSCAR.replace("1.0\n", "inf\n"), "bad_numbers"),
    "no factor": (POSCAR.replace("1.0\n", "one\n"), "unparsable"),
    "factor zero": (POSCAR.replace("1.0\n", "0\n"), "bad_cell"),
    "flat": (POSCAR.replace("0 0 4", "0 4 0"), "bad_cell"),
    "no kind of coordinates": (POSCAR.replace("Direct\n", ""), "unparsable"),
    "four coordinates": (POSCAR.replace("0.5 0.5 0.5", "0.5 0.5 0.5 0.5"), "unparsable"),
    "underscore in a number": (POSCAR.replace("0.5 0.5 0.5", "0_5 0.5 0.5"), "unparsable"),
    "full-width digit": (POSCAR.replace("0.5 0.5 0.5", "0.\N{FULLWIDTH DIGIT FIVE} 0.5 0.5"), "unparsable"),
    "not a number": (POSCAR.replace("0.5 0.5 0.5", "nan 0.5 0.5"), "bad_numbers"),
    "stars of Fortran": (POSCAR.replace("0.5 0.5 0.5", "****** 0.5 0.5"), "bad_numbers"),
    "no atoms": (POSCAR.replace("1 1", "0 0"), "unparsable"),
}


@pytest.mark.parametrize("kind", BAD_POSCARS)
def test_bad_poscars(kind: str) -> None:
    text, expected = BAD_POSCARS[kind]
    assert reason(parse_structure("poscar", text.encode())) == expected


# -- files that are compressed, extxyz -------------------------------------------------------------------------


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_files(tmp_path: Path, packer: str) -> None:
    for name, text in (("a.cif", cif(CSCL)), ("b.json", pymatgen_json(ZNO)), ("c.extxyz", extxyz())):
        (tmp_path / f"{name}{packer}").write_bytes(PACKERS[packer](text.encode()))
    raws = read(tmp_path)
    assert [raw.format for raw in raws] == ["cif", "json", "extxyz", "extxyz"]
    assert all(map(is_same, map(outcome, raws), [CSCL, ZNO, CSCL, ZNO]))


def test_packed_bomb_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "bomb.cif.gz").write_bytes(PACKERS[".gz"](bytes(50_000_000)))
    (tmp_path / "bomb.json.xz").write_bytes(PACKERS[".xz"](b" " * 70_000_000))
    (tmp_path / "bomb.extxyz.bz2").write_bytes(PACKERS[".bz2"](b"\n" * 70_000_000))
    (tmp_path / "good.cif").write_text(CIF)
    found = {raw.label: reason(outcome(raw)) for raw in read(tmp_path)}
    assert found.pop("good") == "good"
    assert set(found.values()) == {"file_too_large"}


@pytest.mark.parametrize(
    ("properties", "lines", "expected"),
    [
        ("species:S:1:pos:R:3", "Na 0 0 0\nCl 2 2 2\n", "good"),
        ("species:S:1:pos:R:3:forces:R:3", "Na 0 0 0 1 1 1\nCl 2 2 2 1 1 1\n", "good"),
        ("species:S:1:pos:R:3", "Na 0 0 0 0.5\nCl 2 2 2 1\n", "unparsable"),
        ("species:S:1:pos:R:3:occupancy:R:1", "Na 0 0 0 0.5\nCl 2 2 2 1\n", "disordered"),
        ("species:S:1:pos:R:3:occupancy:R:1", "Na 0 0 0 1\nCl 2 2 2 1\n", "good"),
        ("species:S:1:pos:R:3", "Na 0 0 nan\nCl 2 2 2\n", "bad_numbers"),
        ("species:S:1:pos:R:3", "Na 0 0 0_1\nCl 2 2 2\n", "unparsable"),
        ("species:S:1:pos:R:3", "CO 0 0 0\nCl 2 2 2\n", "unsupported_element"),
        ("species:S:1:pos:R:3", "Na1 0 0 0\nCl 2 2 2\n", "unsupported_element"),
        ("species:S:1:Z:I:1:pos:R:3", "Na 11 0 0 0\nCl 17 2 2 2\n", "good"),
        ("species:S:1:Z:I:1:pos:R:3", "Na 17 0 0 0\nCl 11 2 2 2\n", "contradictory"),
        ("Z:I:1:pos:R:3", "11 0 0 0\n17 2 2 2\n", "good"),
        ('species:S:1:pos:R:3 Lattice="5 0 0 0 5 0 0 0 5"', "Na 0 0 0\nCl 2 2 2\n", "ambiguous"),
    ],
)
def test_frames(properties: str, lines: str, expected: str) -> None:
    text = f'2\nLattice="4 0 0 0 4 0 0 0 4" Properties={properties} pbc="T T T"\n{lines}'
    assert reason(parse_structure("extxyz", text.encode())) == expected


# -- tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["cif", "Structure", "poscar", "relaxed_cif", "gen_str", "my own crystals"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".csv.bz2", ".tsv.xz"])
def test_tables(tmp_path: Path, column: str, ending: str) -> None:
    path = tmp_path / f"t{ending}"
    packer = PACKERS[path.suffix if path.suffix in PACKERS else ""]
    text = table(column, [cif(each) for each in BOTH], "\t" if "tsv" in ending else ",", note=["a, b", "c"])
    path.write_bytes(packer(text.encode()))
    assert_both(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(table("cif", [cif(each) for each in BOTH], delimiter, id=["é1", "é2"]).encode(encoding))
    raws = assert_both(path)
    assert len({raw.label for raw in raws}) == 2


def frame_of(structure: Structure) -> str:
    text = io.StringIO()
    ase.io.write(text, atoms(structure), format="extxyz")
    return text.getvalue()


CELLS = {
    "pymatgen": pymatgen_json,
    "Python": lambda each: repr(each.as_dict()),
    "Python with numpy": lambda each: repr(each.as_dict()).replace("0.5,", "np.float64(0.5),"),
    "arrays": lambda each: (
        f"{{'frac_coords': array({each.frac_coords.tolist()}, dtype=float32), 'atom_types': {list(each.atomic_numbers)}"
        f", 'lengths': {list(each.lattice.abc)}, 'angles': {list(each.lattice.angles)}}}"
    ),
    "POSCAR": poscar,
    "POSCAR in one line": lambda each: poscar(each).replace("\n", "\\n"),
    "CIF in one line and quotes": lambda each: repr(cif(each)) if "'" not in cif(each) else json.dumps(cif(each)),
    "ASE": ase_json,
    "OPTIMADE": lambda each: json.dumps(optimade(each)),
    "extxyz": frame_of,
    "POSCAR with a comment like CIF": lambda each: poscar(each).replace(each.formula, "data_x", 1),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cells(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table("structure", [CELLS[kind](each) for each in BOTH]))
    assert_both(path)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("{'a': __import__('os').system('true')}", "unparsable"),
        ("{'lattice': {}, 'lattice': {}}", "contradictory"),
        ("{" * 5000, "unparsable"),
        ("{'a': " + "[" * 5000 + "]" * 5000 + "}", "unparsable"),
    ],
)
def test_python_is_not_executed(cell: str, expected: str) -> None:
    assert reason(parse_structure("python", cell.encode())) == expected


def test_tables_without_header_and_with_odd_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text in (
        table("cif", [cif(each) for each in BOTH]).partition("\n")[2],
        table("cif", [poscar(each).replace("\n", "\\n") for each in BOTH]).replace("\r\n", "\r"),
        table("cif", [cif(each) for each in BOTH], note=["a\x85b", "c\x0cd"]),
    ):
        path.write_bytes(text.encode("latin-1"))
        assert_both(path)


def test_several_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table("cif", [cif(each) for each in BOTH], gen_str=["x", "y"]))
    assert_both(path)
    path.write_text(table("one", [cif(each) for each in BOTH], two=[cif(each) for each in BOTH]))
    with pytest.raises(InputError, match="not clear which of its columns"):
        read(path)


def test_header_once_more_and_rows_that_are_too_long(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = table("cif", [cif(each) for each in BOTH])
    header, _, rows = text.partition("\n")
    path.write_text(f'{text}{header}\n9,"{"x" * 450_000}"\n8,"{chr(10) * 450_000}"\n{rows}')
    found = [outcome(raw) for raw in read_inputs([path], ReadLimits(max_bytes=100_000))]
    assert [reason(each) for each in found] == ["good", "good", "file_too_large", "file_too_large", "good", "good"]
    assert all(map(is_same, found[4:], BOTH))


def plain(structure: Structure) -> dict[str, Any]:
    """Parquet has no empty dictionaries."""
    content = structure.as_dict()
    content.pop("properties")
    for site in content["sites"]:
        site.pop("properties")
    return content


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs the extra `parquet`")
def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cells in (("text", [cif(each) for each in BOTH]), ("nested", [plain(each) for each in BOTH])):
        path = tmp_path / f"{name}.parquet"
        pd.DataFrame({"id": ["a", "b"], "structure": cells}).to_parquet(path)
        assert [raw.label for raw in assert_both(path)] == ["a", "b"]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    [raw] = read(tmp_path / "broken.parquet")
    assert reason(outcome(raw)) == "unparsable"
    pd.DataFrame({"e": [1]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match="no column with crystals"):
        read(tmp_path / "e.parquet")
    monkeypatch.setattr("phononbench_flows.structures.formats.parquet.find_spec", lambda _: None)
    [raw] = read(path)
    assert raw.rejection is not None
    assert "phononbench-flows[parquet]" in raw.rejection.detail


# -- JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", JSON)
def test_json(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(JSON[kind]())
    raws = assert_both(path)
    assert len({raw.label for raw in raws}) == 2


@pytest.mark.parametrize(
    "text",
    [
        pymatgen_json(ZNO),
        json.dumps({"structure": ZNO.as_dict(), "energy": -1}),
        json.dumps({"cif": cif(ZNO)}),
        ase_json(ZNO),
        json.dumps(optimade(ZNO)),
    ],
)
def test_json_of_one_crystal_is_named_by_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "mp-1.json").write_text(text)
    [raw] = read(tmp_path)
    assert raw.label == "mp-1.json"
    assert is_same(outcome(raw), ZNO)


def test_one_crystal_that_is_too_large(tmp_path: Path) -> None:
    content = json.dumps(ZNO.as_dict() | {"note": "x" * 3_000_000})
    for text in (content, json.dumps({"structure": json.loads(content)})):
        (tmp_path / "x.json").write_text(text)
        assert [reason(outcome(raw)) for raw in read(tmp_path)] == ["file_too_large"]


def test_json_database_of_ase(tmp_path: Path) -> None:
    assert_both(ase_database(tmp_path / "x.json"))


def test_json_lines(tmp_path: Path) -> None:
    good = [json.dumps({"material_id": f"m{n}", "structure": each.as_dict()}) for n, each in enumerate(BOTH)]
    path = tmp_path / "x.jsonl"
    path.write_text(
        "\n".join(
            [
                '{"x-optimade": {}}',
                '{"type": "info"}',
                good[0],
                "{broken",
                '{"energy": 1}',
                "",
                "x" * 5_000_000,
                good[1],
            ]
        )
    )
    raws = read(path)
    assert [reason(outcome(raw)) for raw in raws] == ["good", "unparsable", "unparsable", "file_too_large", "good"]
    assert [raw.label for raw in raws if raw.rejection is None] == ["m0", "m1"]


def test_long_json(tmp_path: Path) -> None:
    many = [each.as_dict() for each in BOTH] * 1200
    (tmp_path / "list.json").write_text(json.dumps(many, indent=1))
    (tmp_path / "object.json").write_text(json.dumps({"data": many}))
    assert (tmp_path / "list.json").stat().st_size > 2_000_000
    for name in ("list.json", "object.json"):
        raws = read(tmp_path / name)
        assert len(raws) == 2400
        assert is_same(outcome(raws[-1]), ZNO)


def test_json_without_crystals(tmp_path: Path) -> None:
    for number, text in enumerate(['{"energy": 1}', "[1, 2]", '{"sites": []}', '"text"', "[]", "{}"]):
        (tmp_path / f"{number}.json").write_text(text)
        with pytest.raises(InputError, match="holds no crystal"):
            read(tmp_path / f"{number}.json")
    (tmp_path / "a.cif").write_text(CIF)
    (tmp_path / "cut.json").write_text(pymatgen_json(ZNO)[:-20])
    (tmp_path / "list.json").write_text(f"[{pymatgen_json(ZNO)[:-20]}")
    ignored = Ignored()
    assert {raw.label: reason(outcome(raw)) for raw in read(tmp_path, ignored=ignored)} == {
        "a": "good",
        "cut.json": "unparsable",
        "list.json.1": "unparsable",
    }
    assert ignored.counts == {"JSON without crystals": 6}


def _changed(change: str) -> str:
    return pymatgen_json(CSCL).replace(*change.split(" -> "))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (_changed('"xyz": [2.06, 2.06, 2.06] -> "xyz": [2.06, 2.06, 1.0]'), "contradictory"),
        (_changed('"a": 4.12 -> "a": 5.12'), "contradictory"),
        (_changed('"occu": 1 -> "occu": 0.5'), "disordered"),
        (
            _changed('"element": "Cs", "occu": 1 -> "element": "Cs", "occu": 0.5}, {"element": "Cs", "occu": 0.5'),
            "disordered",
        ),
        (_changed('"pbc": [true, true, true] -> "pbc": [true, true, false]'), "bad_cell"),
        (_changed('"abc": [0.5, 0.5, 0.5] -> "abc": [1e30, 0.5, 0.5]'), "bad_numbers"),
        (_changed("[4.12, 0.0 -> [NaN, 0.0"), "bad_numbers"),
        (_changed('"sites": -> "sites": [], "sites":'), "contradictory"),
        (_changed('"abc": [0.5 -> "abc": [0, 0, 0], "abc": [0.5'), "contradictory"),
        (_changed('"element": "Cs" -> "element": "Qq"'), "unsupported_element"),
        (json.dumps(optimade(CSCL, nsites=3)), "contradictory"),
        (json.dumps(optimade(CSCL, structure_features=["disorder"])), "disordered"),
        (json.dumps(optimade(CSCL, dimension_types=[1, 1, 0])), "bad_cell"),
        (json.dumps(optimade(CSCL, species_at_sites=["Cs", "Cl", "Cl"], nsites=3)), "contradictory"),
        (ase_json(CSCL).replace("[55, 17]", "[55, 999]"), "unsupported_element"),
        (ase_json(CSCL).replace("[55, 17]", "[55]").replace('[2], "int64"', '[1], "int64"'), "contradictory"),
        ('{"positions": [[0, 0, 0]], "numbers": [1], "cell": [0, 0, 0]}', "bad_cell"),
        ('{"positions": [[0, 0, 0]], "symbols": "H", "cell": [4, 4, 4]}', "unparsable"),
    ],
)
def test_dictionaries_that_contradict_themselves(content: str, expected: str) -> None:
    assert reason(parse_structure("json", content.encode())) == expected


def test_a_key_given_twice_costs_its_crystal_alone(tmp_path: Path) -> None:
    twice = pymatgen_json(CSCL).replace('"sites":', '"sites": [], "sites":')
    (tmp_path / "x.json").write_text(f'{{"a": {twice}, "b": {pymatgen_json(ZNO)}}}')
    assert [reason(outcome(raw)) for raw in read(tmp_path)] == ["contradictory", "good"]
    (tmp_path / "x.json").write_text(f'{{"a": {pymatgen_json(CSCL)}, "a": {pymatgen_json(ZNO)}}}')
    assert [reason(outcome(raw)) for raw in read(tmp_path)] == ["contradictory"]


# -- ASE and torch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", ["", ".gz"])
def test_ase_files(tmp_path: Path, packer: str) -> None:
    for path in (ase_database(tmp_path / "x.db"), trajectory(tmp_path / "x.traj")):
        packed = path.with_name(path.name + packer)
        packed.write_bytes(PACKERS[packer](path.read_bytes()))
        raws = assert_both(packed)
        assert [raw.label for raw in raws] == [f"{packed.name}.{n}" for n in (1, 2)]


def test_bad_ase_files(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database" * 100)
    (tmp_path / "text.traj").write_text("no trajectory")
    (tmp_path / "cut.traj").write_bytes(trajectory(tmp_path / "whole.traj").read_bytes()[:700])
    endless_database(tmp_path / "view.db")
    for name in ("text.db", "text.traj", "cut.traj"):
        assert {reason(outcome(raw)) for raw in read(tmp_path / name)} <= {"unparsable", "good"}
    with pytest.raises(InputError, match="no table"):
        read(tmp_path / "view.db")


def test_tensors(tmp_path: Path) -> None:
    found = [outcome(raw) for raw in read(tensors(tmp_path / "eval_gen.pt", tries=2))]
    assert len(found) == 4
    assert all(map(is_same, found, BOTH * 2))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


class Data:
    """Stands for that of torch_geometric, as which it is pickled."""


def test_tensors_with_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("torch_geometric", "torch_geometric.data", "torch_geometric.data.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torch_geometric.data.data"].Data = Data  # type: ignore[attr-defined]
    monkeypatch.setattr(Data, "__module__", "torch_geometric.data.data")
    tensors(tmp_path / "evil.pt", more=Evil())
    tensors(tmp_path / "eval_diff.pt", input_data_batch=Data())
    tensors(tmp_path / "numpy.pt", lengths=np.ones((1, 2, 3)))
    for name in ("evil.pt", "eval_diff.pt", "numpy.pt"):
        [refused] = read(tmp_path / name)
        assert refused.rejection is not None
        assert refused.rejection.reason == Reason.UNSUPPORTED_FILE
        assert "torch.save({key: data[key]" in refused.rejection.detail
        assert "CIF, extxyz or JSON" in refused.rejection.detail
    assert not (tmp_path / "marker").exists()


def tensors_of(keys: str, atoms: str, *, tries: int = 0) -> dict[str, Any]:
    """Both crystals: cells by these keys, atoms one crystal after the other, listed, or filled up to one number."""
    import torch

    made = [arrays(each) | {"lattices": each.lattice.matrix, "num_atoms": len(each)} for each in BOTH]
    content = {key: [torch.tensor(np.array(one[key])) for one in made] for key in (*keys.split(), *_OF_ATOMS)}
    for key, listed in content.items():
        if key not in _OF_ATOMS:
            content[key] = torch.stack(listed)
        elif atoms == "filled":
            content[key] = torch.nn.utils.rnn.pad_sequence(listed, batch_first=True)
        elif atoms == "joined":
            content[key] = torch.cat(listed)
    if not tries:
        return content
    return {
        key: [each] * tries if isinstance(each, list) else torch.stack([each] * tries) for key, each in content.items()
    }


_OF_ATOMS = ("frac_coords", "atom_types")


def read_tensors(content: Any) -> list[Structure | Rejection]:
    found = list(torch_files.crystals_in(content))
    return [
        each if isinstance(each, Rejection) else parse_structure("json", json.dumps(torch_files._plain(each)).encode())
        for each in found
    ]


@pytest.mark.parametrize("tries", [0, 1, 3])
@pytest.mark.parametrize("atoms", ["joined", "listed", "filled"])
@pytest.mark.parametrize("cell", ["lengths angles", "lattices", "lattices lengths angles"])
def test_layouts_of_tensors(cell: str, atoms: str, tries: int) -> None:
    content = tensors_of(f"{cell} num_atoms", atoms, tries=tries)
    plain = torch_files._plain(content)
    named = {{"lattices": "lattice", "atom_types": "atomic_numbers"}.get(key, key): content[key] for key in content}
    for each in (content, plain, named, content | {"eval_setting": None, "time": 1.0}):
        found = read_tensors(each)
        assert len(found) == 2 * max(tries, 1)
        assert all(map(is_same, found, BOTH * max(tries, 1)))


def test_lists_of_tensors() -> None:
    import torch

    alone = [{key: torch.tensor(value) for key, value in arrays(each).items()} for each in BOTH]
    led = [{key: value[None] for key, value in each.items()} for each in alone]
    counted = [each | {"num_atoms": torch.tensor(len(each["atom_types"]))} for each in alone]
    cells_led = [each | {key: each[key][None] for key in ("lengths", "angles")} for each in counted]
    lots = [tensors_of("lengths angles num_atoms", "joined")]
    for content in (alone, tuple(led), counted, cells_led, lots, [lots], [each.as_dict() for each in BOTH]):
        found = read_tensors(content)
        assert len(found) == 2
        assert all(map(is_same, found, BOTH))
    # Tries differ in their numbers of atoms, so that FlowMM lists them.
    tries = [tensors_of("lattices num_atoms", "joined", tries=1)] * 2
    listed = {key: [each[key][0] for each in tries] for key in tries[0]}
    assert all(map(is_same, read_tensors(listed), BOTH * 2))
    assert is_same(read_tensors(alone[1])[0], ZNO)
    six = torch.cat([alone[1]["lengths"], alone[1]["angles"]])
    assert is_same(read_tensors(_changed_tensors(alone[1], lengths=None, angles=None, lattices=six))[0], ZNO)


def test_an_entry_of_a_list_that_is_no_crystal_costs_itself() -> None:
    [one, other] = [arrays(each) for each in BOTH]
    found = read_tensors([one, {"loss": 1.0}, one | {"lengths": [4.0]}, {"frac_coords": [[0, 0, 0]]}, other])
    assert [reason(each) for each in found] == ["good", "unparsable", "unparsable", "unparsable", "good"]


def _changed_tensors(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (content | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_atoms": np.array([2, 5])}, "contradictory"),
        ({"num_atoms": np.array([-1, 7])}, "contradictory"),
        ({"num_atoms": np.array([[2, 4]])}, "contradictory"),
        ({"lengths": np.ones((3, 3))}, "contradictory"),
        ({"frac_coords": np.zeros((1, 6, 3))}, "contradictory"),
        ({"atom_types": np.ones((6, 100))}, "ambiguous"),
        ({"lattices": np.ones((1, 3, 3))}, "contradictory"),
    ],
)
def test_tensors_that_contradict_each_other(changes: dict[str, Any], expected: str) -> None:
    content = tensors_of("lengths angles num_atoms", "joined")
    with pytest.raises(RejectedError) as error:
        read_tensors(content | changes)
    assert error.value.rejection.reason == expected


def test_tensors_of_which_one_crystal_is_wrong() -> None:
    filled = tensors_of("lengths angles num_atoms", "filled")
    # The first has two atoms, and two of filling.
    for count, expected in ((-1, "contradictory"), (1, "contradictory"), (3, "unsupported_element")):
        filled["num_atoms"][0] = count
        assert [reason(each) for each in read_tensors(filled)] == [expected, "good"]
    other_cell = tensors_of("lattices lengths angles num_atoms", "joined")
    other_cell["lengths"][1] *= 1.01
    assert [reason(each) for each in read_tensors(other_cell)] == ["good", "contradictory"]
    six = tensors_of("num_atoms", "joined") | {"lattices": np.array([[4, 4, 4, 1.57, 1.57, 1.57]] * 2)}
    assert [reason(each) for each in read_tensors(six)] == ["ambiguous"] * 2


@pytest.mark.parametrize("missing", ["num_atoms", "atom_types", "angles", "frac_coords"])
def test_tensors_that_are_missing(missing: str) -> None:
    with pytest.raises(NoCrystalsError):
        read_tensors(_changed_tensors(tensors_of("lengths angles num_atoms", "joined"), **{missing: None}))


# -- trajectories of VASP --------------------------------------------------------------------------------------


def configurations(number: int, *, constant: bool) -> list[Structure]:
    found = [ZNO.copy() for _ in range(number)]
    for place, each in enumerate(found):
        each.translate_sites([0], [0, 0, 0.01 * place])
        if not constant:
            each.scale_lattice(ZNO.volume * (1 + 0.02 * place))
    return found


@pytest.mark.parametrize(
    ("writer", "constant"), [("VASP", True), ("VASP", False), ("ASE", True), ("ASE", False), ("pymatgen", True)]
)
def test_xdatcars(tmp_path: Path, writer: str, constant: bool) -> None:
    structures, path = configurations(4, constant=constant), tmp_path / "XDATCAR"
    if writer == "VASP":
        path.write_text(xdatcar(structures, constant=constant) + "\n")
    elif writer == "ASE":
        ase.io.write(path, [atoms(each) for each in structures], format="vasp-xdatcar")
    else:
        (tmp_path / "plain").write_text(xdatcar(structures, constant=True))
        Xdatcar(tmp_path / "plain").write_file(path)
        (tmp_path / "plain").unlink()
    raws = read(path)
    assert [raw.label for raw in raws] == [f"XDATCAR.{n}" for n in (1, 2, 3, 4)]
    assert [raw.source for raw in raws] == [f"{path}#{n}" for n in (1, 2, 3, 4)]
    assert all(map(is_same, map(outcome, raws), structures))
    assert all(map(is_same, map(outcome, raws), Xdatcar(path).structures))
    (tmp_path / "CONTCAR").write_text(poscar(ZNO))
    ignored = Ignored()
    assert [raw.label for raw in read(tmp_path, ignored=ignored)] == ["CONTCAR"]
    assert str(ignored) == "1 XDATCAR (XDATCAR)"


@pytest.mark.parametrize("name", ["XDATCAR", "XDATCAR.gz", "run1_XDATCAR", "XDATCAR-2", "x.xdatcar"])
def test_names_of_xdatcars(name: str) -> None:
    found = format_of(name)
    assert found is not None
    assert found.kind == "XDATCAR"


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("a line less", "unparsable"),
        ("a line more", "unparsable"),
        ("no number", "unparsable"),
        ("stars", "bad_numbers"),
        ("too large", "file_too_large"),
    ],
)
def test_a_broken_configuration_costs_itself(tmp_path: Path, change: str, expected: str, constant: bool) -> None:
    structures = configurations(4, constant=constant)
    lines = xdatcar(structures, constant=constant).splitlines(keepends=True)
    place = [n for n, line in enumerate(lines) if "configuration" in line][1] + 1
    lines[place] = {
        "a line less": "",
        "a line more": lines[place] * 2,
        "no number": lines[place].replace("0", "O", 1),
        "stars": " ********* 0.5 0.5\n",
        "too large": lines[place] * 100,
    }[change]
    path = tmp_path / "XDATCAR"
    path.write_text("".join(lines))
    found = [outcome(raw) for raw in read_inputs([path], ReadLimits(max_bytes=2_000))]
    assert [reason(each) for each in found][:2] == ["good", expected]
    # Whether a head was among the lines that are none of coordinates cannot be told where none is repeated.
    left = "unparsable" if constant and change in {"no number", "too large"} else "good"
    assert [reason(each) for each in found][2:] == [left] * 2
    if left == "good":
        assert all(map(is_same, found[2:], structures[2:]))


def test_heads_of_xdatcars(tmp_path: Path) -> None:
    path = tmp_path / "XDATCAR"
    text = xdatcar(configurations(2, constant=True), constant=True)
    for changed in (
        text.replace("   Zn   O\n", ""),
        text.replace("unknown system\n", ""),
        text[text.index("Direct") :],
        text.replace("2     2", "2     x"),
    ):
        path.write_text(changed)
        assert [reason(outcome(raw)) for raw in read(path)] == ["unparsable"] * 2
    # A head that lacks a line leaves open what the next configurations are.
    varying = xdatcar(configurations(3, constant=False), constant=False)
    second = varying.index("unknown", 10)
    path.write_text(varying[:second] + varying[second:].replace("   Zn   O\n", "", 1))
    assert [reason(outcome(raw)) for raw in read(path)] == ["unparsable", "unparsable", "good"]
    path.write_text(varying[:second] + varying[second:].replace("unknown system\n", "\n", 1))
    assert [reason(outcome(raw)) for raw in read(path)] == ["good"] * 3
    path.write_text(poscar(ZNO))
    assert [reason(outcome(raw)) for raw in read(path)] == ["unparsable"]


# -- texts of language models ----------------------------------------------------------------------------------


PROMPT = (
    "Below is a description of a bulk material. Generate a description of the lengths and angles of the lattice "
    "vectors and then the element type and coordinates for each atom within the lattice:\n"
)


def gen_str(structure: Structure) -> str:
    """As CrystalTextLLM writes it, with more digits."""
    lattice = structure.lattice
    sites = [f"{site.specie}\n{' '.join(f'{x:.6f}' for x in site.frac_coords)}" for site in structure]
    return "\n".join([" ".join(map(str, lattice.abc)), " ".join(map(str, lattice.angles)), *sites])


@pytest.mark.parametrize("column", ["gen_str", "text"])
@pytest.mark.parametrize("before", ["", PROMPT, "The band gap is 1.2. Crystal:\n"])
def test_texts_of_language_models(tmp_path: Path, column: str, before: str) -> None:
    charged = ZNO.copy().add_oxidation_state_by_element({"Zn": 2, "O": -2})
    texts = [before + gen_str(CSCL), before + gen_str(charged) + "\n"]
    for name, content in (
        ("t.csv", table(column, texts, note=["a", "b"])),
        ("u.csv", table(column, [each.replace("\n", "\\n") for each in texts])),
        ("t.json", json.dumps([{column: each} for each in texts])),
    ):
        (tmp_path / name).write_text(content)
        raws = assert_both(tmp_path / name)
        assert {raw.format for raw in raws} == {"gen_str"}


def test_a_column_gen_str_that_holds_both(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table("gen_str", [cif(CSCL), gen_str(ZNO)]))
    assert [raw.format for raw in assert_both(path)] == ["cif", "gen_str"]
    # As the program writes it: what it made a CIF of stands beside it.
    path.write_text(table("cif", [cif(each) for each in BOTH], gen_str=[PROMPT + gen_str(each) for each in BOTH]))
    assert [raw.format for raw in assert_both(path)] == ["cif", "cif"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4 4 4\n90 90 90\n", "unparsable"),
        ("4 4 4\n90 90 90\nNa\n0 0 0\nCl", "unparsable"),
        ("4 4 4\n90 90 90\nNa\n0 0\nCl\n0 0 0.5", "unparsable"),
        ("4 4 4\n90 90 90\nNa\n0 0 0\nCl\n0 0 x", "unparsable"),
        ("4 4 4\n90 90 90\n[MASK]\n0 0 0\nCl\n0.5 0.5 0.5", "unsupported_element"),
        ("4 4 4\n90 90 90\nNa\n0 0 nan\nCl\n0.5 0.5 0.5", "bad_numbers"),
        ("4 4 4\n90 90 300\nNa\n0 0 0\nCl\n0.5 0.5 0.5", "bad_cell"),
        ("4 4 4\n90 90 90\nNa\n0 0 0\n0 0 0\nCl", "unparsable"),
    ],
)
def test_broken_texts_of_language_models(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table("gen_str", [gen_str(CSCL), text, PROMPT + text, gen_str(ZNO)]))
    raws = read(path)
    assert {raw.format for raw in raws} == {"gen_str"}
    assert [reason(outcome(raw)) for raw in raws] == ["good", expected, expected, "good"]


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    tensors(tmp_path / "x.pt")
    code = (
        "import sys; from pathlib import Path\n"
        "from phononbench_flows.structures import parse_all, read_inputs\n"
        "if __name__ == '__main__':\n"
        "    print(len(list(parse_all(read_inputs([Path('a.cif'), Path('x.pt')])))), 'torch' in sys.modules)\n"
    )
    (tmp_path / "script.py").write_text(code)
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["3", "False"]


@pytest.mark.parametrize("name", ["x.pkl", "x.pickle.gz", "x.joblib", "x.npz", "x.lmdb", "x.7z"])
def test_formats_that_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"CIF, extxyz, JSON or CSV|zip or tar"):
        read_inputs([tmp_path / name])
    (tmp_path / "a.cif").write_text(CIF)
    ignored = Ignored()
    assert len(read(tmp_path, ignored=ignored)) == 1
    assert ignored.counts.total() == 1


# -- folders and archives --------------------------------------------------------------------------------------


MEMBERS = {"a.cif": cif(CSCL).encode(), "sub/b.json": pymatgen_json(ZNO).encode()}


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip"])
def test_archives(tmp_path: Path, ending: str) -> None:
    make = zipped if ending == ".zip" else tarred
    assert_both(make(tmp_path / f"x{ending}", MEMBERS))
    dotted = assert_both(make(tmp_path / f"p{ending}", {f"./{name}": data for name, data in MEMBERS.items()}))
    assert [raw.label for raw in dotted] == ["a", "sub--b.json"]
    packed = {f"{name}.gz": PACKERS[".gz"](data) for name, data in MEMBERS.items()}
    assert_both(make(tmp_path / f"y{ending}", packed))
    one = {"notes.md": b"x", "many.json": JSON["pandas, split"]().encode()}
    assert_both(make(tmp_path / f"z{ending}", one))
    text = table("cif", [cif(each) for each in BOTH])
    assert_both(make(tmp_path / f"t.csv{ending}", {"t.csv": text.encode()}))
    database = ase_database(tmp_path / "x.db").read_bytes()
    assert_both(make(tmp_path / f"d{ending}", {"x.db": database}))


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs the extra `parquet`")
def test_zstandard(tmp_path: Path) -> None:
    import pyarrow as pa

    plain = tarred(tmp_path / "x.tar", MEMBERS).read_bytes()
    for name, data in (("x.tar.zst", plain), ("x.extxyz.zst", extxyz().encode())):
        (tmp_path / name).write_bytes(pa.compress(data, codec="zstd", asbytes=True))
        assert_both(tmp_path / name)


def test_crystals_that_are_written_twice_are_taken_once(tmp_path: Path) -> None:
    """MatterGen writes an extxyz and a zip; others a table beside their CIFs."""
    (tmp_path / "generated_crystals.extxyz").write_text(extxyz())
    zipped(tmp_path / "generated_crystals_cif.zip", MEMBERS)
    (tmp_path / "all.csv").write_text(table("cif", [cif(each) for each in BOTH]))
    (tmp_path / "metrics.json").write_text('{"valid": 1}')
    (tmp_path / "loss.png").write_bytes(b"x")
    (tmp_path / "data.pkl").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    ignored = Ignored()
    assert [raw.format for raw in read(tmp_path, ignored=ignored)] == ["extxyz", "extxyz"]
    assert ignored.counts == {
        ".png": 1,
        "JSON without crystals": 1,
        "archive": 1,
        "link to a folder": 1,
        "pickle": 1,
        "table": 1,
    }
    assert "1 table (all.csv)" in str(ignored)
    (tmp_path / "generated_crystals.extxyz").unlink()
    again = Ignored()
    assert_both_of(read(tmp_path, ignored=again))
    assert again.counts == {key: n for key, n in ignored.counts.items() if key != "table"}
    (tmp_path / "all.csv").unlink()
    assert_both_of(read(tmp_path))


def assert_both_of(raws: list[RawCrystal]) -> None:
    found = [outcome(raw) for raw in raws]
    assert len(found) == 2
    assert all(map(is_same, found, BOTH))


def test_a_folder_without_crystals_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"1 \.png \(a\.png\), 1 table without crystals \(metrics\.csv\)"):
        read(tmp_path)


def test_released_layout(tmp_path: Path) -> None:
    folder = tmp_path / "Model-gen" / "relaxed"
    for number, label_file in ((0, "Lable.txt"), (1, "Label.txt")):
        part = folder / f"gpu{number}_part0"
        part.mkdir(parents=True)
        (part / "x_relaxed.cif").write_text(cif(CSCL))
        (part / "y_relaxed.cif").write_text(cif(ZNO))
        (part / "z_relaxed.cif").write_text(CIF)
        (part / label_file).write_text(f"failed\tunStable\nx\t{'Stable' if number else 'unStable'}\ny\tStable\n")
    expected = [
        ("gpu0_part0--x_relaxed", {"phononbench": "unStable"}),
        ("gpu0_part0--y_relaxed", {"phononbench": "Stable"}),
        ("gpu0_part0--z_relaxed", {}),
        ("gpu1_part0--x_relaxed", {"phononbench": "Stable"}),
        ("gpu1_part0--y_relaxed", {"phononbench": "Stable"}),
        ("gpu1_part0--z_relaxed", {}),
    ]
    ignored = Ignored()
    assert [(raw.label, dict(raw.labels)) for raw in read(folder, ignored=ignored)] == expected
    assert ignored.counts == {"label without a crystal": 2}
    members = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
    for archive in (tarred(tmp_path / "r.tar.gz", members), zipped(tmp_path / "r.zip", members)):
        assert [(raw.label, dict(raw.labels)) for raw in read(archive)] == expected


# -- names, devices --------------------------------------------------------------------------------------------


def test_labels_stay_when_files_come(tmp_path: Path) -> None:
    path = tmp_path / "many.extxyz"
    path.write_text(extxyz()[: extxyz().index("\n4\n") + 1])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.cif").write_text(CIF)
    (tmp_path / "x.vasp").write_text(POSCAR)
    before = {raw.source: raw.label for raw in read(tmp_path)}
    assert len(before) == 3
    path.write_text(extxyz())
    for name in ("a.x.cif", "a--x.cif", "x.cif", "x.poscar", "x.vasp.cif"):
        (tmp_path / name).write_text(CIF)
    after = {raw.source: raw.label for raw in read(tmp_path)}
    assert len(set(after.values())) == len(after) == 9
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "name", ["x.cif", "x.json", "x.csv", "x.db", "x.pt", "x.extxyz", "x.zip", "x.yaml", "Lable.txt"]
)
def test_pipes_and_devices_are_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "good.cif").write_text(CIF)
    assert "good" in {raw.label for raw in read(tmp_path)}
    (tmp_path / "list.lst").write_text(f"{name}\n/dev/zero\n")
    assert {reason(outcome(raw)) for raw in read(tmp_path / "list.lst")} <= {"unreadable_file", "unsupported_file"}
    (tmp_path / "list.lst").unlink()
    if name != "Lable.txt":
        [raw] = read(tmp_path / name)
        assert reason(outcome(raw)) == "unreadable_file"


def test_a_device_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path / "zero.txt")


@pytest.mark.parametrize(
    "name",
    [
        *("x.cif", "POSCAR", "x.yaml", "x.extxyz", "XDATCAR", "x.json", "y.json", "x.jsonl", "x.csv", "x.parquet"),
        *("x.db", "x.traj", "x.pt", "x.zip", "x.tar.gz"),
    ],
)
def test_limits_hold_for_every_part(tmp_path: Path, name: str) -> None:
    write: dict[str, Callable[[Path], object]] = {
        "x.cif": lambda path: path.write_text(cif(ZNO)),
        "POSCAR": lambda path: path.write_text(poscar(ZNO)),
        "x.extxyz": lambda path: path.write_text(extxyz()),
        "XDATCAR": lambda path: path.write_text(xdatcar([ZNO, ZNO], constant=False)),
        "x.json": lambda path: path.write_text(JSON["list of pymatgen"]()),
        "y.json": lambda path: path.write_text(JSON["by name"]()),
        "x.jsonl": lambda path: path.write_text("\n".join(map(pymatgen_json, BOTH))),
        "x.csv": lambda path: path.write_text(table("cif", [cif(each) for each in BOTH])),
        "x.parquet": lambda path: pd.DataFrame({"cif": [cif(each) for each in BOTH]}).to_parquet(path),
        "x.db": ase_database,
        "x.traj": trajectory,
        "x.pt": tensors,
        "x.yaml": lambda path: path.write_text(PHONOPY),
        "x.zip": lambda path: zipped(path, MEMBERS),
        "x.tar.gz": lambda path: tarred(path, MEMBERS),
    }
    if name == "x.parquet" and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("needs the extra `parquet`")
    write[name](tmp_path / name)
    raws = list(read_inputs([tmp_path / name], ReadLimits(max_bytes=80)))
    assert {reason(outcome(raw)) for raw in raws} == {"file_too_large"}
