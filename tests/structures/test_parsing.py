from __future__ import annotations

import collections
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher
from pymatgen.io.cif import CifWriter
from samples import CIF, DEFAULT_ATOMS, FRAME, PHONOPY, POSCAR, cif

from phononbench_flows.outcomes import Reason
from phononbench_flows.protocol import ScreeningSettings
from phononbench_flows.structures import Parsed, RawCrystal, Rejection, check, parse, parse_all, read_inputs


def structure_of(found: str, text: str | bytes) -> Structure:
    parsed = parse(found, text if isinstance(text, bytes) else text.encode())
    assert isinstance(parsed, Parsed), parsed
    return parsed.structure


def reason_of(text: str | bytes, found: str = "cif") -> str:
    """What becomes of the text after parsing and checking."""
    parsed = parse(found, text if isinstance(text, bytes) else text.encode())
    rejection = parsed if isinstance(parsed, Rejection) else check(parsed.structure, ScreeningSettings(), None)
    if rejection is None:
        return "good"
    assert rejection.detail
    assert len(rejection.detail) <= 300
    assert rejection.detail.isprintable()
    return rejection.reason.value


@pytest.mark.parametrize(("found", "text"), [("cif", CIF), ("poscar", POSCAR), ("extxyz", FRAME), ("phonopy", PHONOPY)])
def test_all_formats_give_the_same_crystal(found: str, text: str) -> None:
    parsed = structure_of(found, text)
    assert parsed.lattice.parameters == pytest.approx((4, 4, 4, 90, 90, 90))
    assert [site.specie.symbol for site in parsed] == ["Na", "Cl"]
    assert np.allclose(parsed.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]])
    again = structure_of("json", parsed.to(fmt="json"))
    assert again == parsed


ATOM = "Na1 Na {} 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"
POISON = {
    "empty": ("", "unparsable"),
    "whitespace": (" \n\n\t ", "unparsable"),
    "binary": (bytes(range(1, 256)) * 4, "unparsable"),
    "nul": (CIF.encode() + b"\0", "unparsable"),
    "html": ("<html><body>404</body></html>", "unparsable"),
    "json": ('{"a": 1}', "unparsable"),
    "truncated": (CIF[: CIF.index("0.5 0.5")], "unparsable"),
    "truncated mid-token": (CIF[:-8], "unparsable"),
    "no cell": (CIF.replace("_cell_length", "_no_length"), "unparsable"),
    "no atoms": (CIF[: CIF.index("loop_\n_atom")], "unparsable"),
    "zero cell": (cif(a="0"), "bad_cell"),
    "negative cell": (cif(a="-5"), "bad_cell"),
    "question mark cell": (cif(a="?"), "unparsable"),
    "nan cell": (cif(a="nan"), "bad_numbers"),
    "inf cell": (cif(a="inf"), "bad_numbers"),
    "180 degrees": (cif(alpha="180"), "contradictory"),
    "needle": (cif(alpha="1"), "bad_cell"),
    "huge cell": (cif(a="1e4"), "bad_cell"),
    "vacuum": (cif(c="199"), "volume_out_of_range"),
    "small cell": (cif(a="0.5", b="0.5", c="0.5"), "volume_out_of_range"),
    "nan coordinate": (cif(ATOM.format("nan")), "bad_numbers"),
    "inf coordinate": (cif(ATOM.format("inf")), "bad_numbers"),
    "1e12 coordinate": (cif(ATOM.format("1e12")), "bad_numbers"),
    "question mark coordinate": (cif(ATOM.format("?")), "unparsable"),
    "dot coordinate": (cif(ATOM.format(".")), "unparsable"),
    "decimal comma": (cif(ATOM.format("0,5")), "unparsable"),
    "Cartesian only": (CIF.replace("_fract_", "_Cartn_"), "unparsable"),
    "duplicate sites": (cif("Na1 Na 0 0 0 1\nNa2 Na 0 0 0 1"), "contradictory"),
    "occupancy above 1": (cif("Na1 Na 0 0 0 1.5"), "bad_numbers"),
    "negative occupancy": (cif(DEFAULT_ATOMS + "\nK1 K 0.5 0 0 -0.5"), "bad_numbers"),
    "zero occupancy": (cif(DEFAULT_ATOMS + "\nK1 K 0.5 0 0 0"), "disordered"),
    "partial occupancy": (cif("Na1 Na 0 0 0 0.9\nCl1 Cl 0.5 0.5 0.5 1"), "disordered"),
    "mixed site": (cif("Na1 Na 0 0 0 0.5\nK1 K 0 0 0 0.5"), "disordered"),
    "0.05 A": (cif("Na1 Na 0 0 0 1\nCl1 Cl 0.0125 0 0 1"), "atoms_too_close"),
    "0.4 A": (cif("Na1 Na 0 0 0 1\nCl1 Cl 0.1 0 0 1"), "atoms_too_close"),
    "utf-16": (CIF.encode("utf-16"), "good"),
    "ragged loop": (CIF + "Na3 Na 0.1\n", "unparsable"),
    "unclosed quote": (CIF.replace("'P 1'", "'P 1"), "unparsable"),
    "POSCAR": (POSCAR, "unparsable"),
    "element X": (cif(ATOM.replace("Na", "X").format(0)), "unsupported_element"),
    "element Zz": (cif(ATOM.replace("Na", "Zz").format(0)), "unsupported_element"),
    "deuterium": (cif(ATOM.replace("Na", "D").format(0)), "unsupported_element"),
    "water label": (cif(ATOM.replace("Na1 Na", "Wat1 Wat").format(0)), "unsupported_element"),
    "ion labels": (cif("Na1+ Na1+ 0 0 0 1\nCl1- Cl1- 0.5 0.5 0.5 1"), "good"),
    "several blocks": (CIF + cif(block="y"), "ambiguous"),
    "equal block names": (CIF + cif("Na1 Na 0 0 0 1"), "ambiguous"),
    "equal labels": (cif(DEFAULT_ATOMS.replace("Cl1", "Na1")), "good"),
    "block without atoms": ("data_global\n_audit_creation_method 'by hand'\n" + CIF, "good"),
    "two atom loops": (CIF + CIF[CIF.index("loop_\n_atom") :], "ambiguous"),
    "hydrogens without positions": (
        CIF.replace("_atom_site_occupancy", "_atom_site_attached_hydrogens"),
        "unparsable",
    ),
    "script block name": (cif(block="<script>alert(1)</script>"), "good"),
    "path block name": (cif(block="../../etc/passwd"), "good"),
    "wrong symmetry operation": (cif(operations="x,y,z;2x,y,z"), "unparsable"),
    "group contradicts operations": (cif(group="F m -3 m"), "ambiguous"),
    "number contradicts operations": (cif(extra="_symmetry_Int_Tables_number 225"), "contradictory"),
    "group and operations agree": (cif(group="P -1", operations="x,y,z;-x,-y,-z"), "good"),
    "unknown group": (cif(group="Q 17", operations="hm"), "unparsable"),
    "formula contradicts sites": (cif(extra="_chemical_formula_sum 'Na1 Cl2'"), "contradictory"),
    "magnetic": (cif(extra="_space_group_magn.number_BNS 1.1"), "unsupported_file"),
    "latin-1": (("# caf\xe9\n" + CIF).encode("latin-1"), "good"),
    "byte order mark": (CIF.encode("utf-8-sig"), "good"),
    "CR only": (CIF.replace("\n", "\r"), "good"),
    "too many atom lines": (cif("\n".join(f"H{n} H 0 0 {n / 6000} 1" for n in range(5001))), "too_many_atoms"),
}


@pytest.mark.parametrize("kind", POISON)
def test_poisoned_cif(kind: str) -> None:
    text, expected = POISON[kind]
    assert reason_of(text) == expected


@pytest.mark.parametrize(
    ("found", "text", "expected"),
    [
        ("poscar", POSCAR.replace("Na Cl\n", ""), "unparsable"),
        ("poscar", POSCAR.replace("1 1", "1 99999999999"), "too_many_atoms"),
        ("poscar", POSCAR.replace("1 1", "1 2"), "unparsable"),
        ("poscar", POSCAR + "0.2 0.2 0.2\n", "unparsable"),
        ("poscar", POSCAR + "\n0 0 0\n0 0 0\n", "good"),  # velocities
        ("poscar", POSCAR.replace("4 0 0", "nan 0 0"), "bad_numbers"),
        ("extxyz", FRAME.replace("0 0 0\nCl", "0 0 zero\nCl"), "unparsable"),
        ("extxyz", "1\nno cell\nH 0 0 0\n", "bad_cell"),
        ("extxyz", FRAME.replace("T T T", "T T F"), "bad_cell"),
        ("extxyz", FRAME.replace("Cl", "X"), "unsupported_element"),
        ("extxyz", FRAME * 2, "ambiguous"),
        ("phonopy", "a: 1", "unparsable"),
        ("phonopy", "- 1", "unparsable"),
        ("phonopy", PHONOPY.replace("symbol: Cl", "symbol: X"), "unsupported_element"),
        ("phonopy", PHONOPY + "physical_unit:\n  length: furlong\n", "unparsable"),
        ("phonopy", "!!python/object/apply:os._exit [1]", "unparsable"),
        ("json", '{"@class": "Molecule"}', "unparsable"),
        ("json", "[" * 100_000, "unparsable"),
        ("json", '{"lattice": {"matrix": [[4,0,0],[0,4,0],[0,0,4]]}, "sites": []}', "unparsable"),
        ("lmdb", "x", "unsupported_file"),
    ],
)
def test_other_formats(found: str, text: str, expected: str) -> None:
    assert reason_of(text, found) == expected


def test_phonopy_in_atomic_units() -> None:
    parsed = structure_of("phonopy", (PHONOPY + "physical_unit:\n  length: au\n"))
    assert parsed.lattice.a == pytest.approx(4 * 0.529177, abs=1e-4)


def test_json_imports_nothing_that_it_names(nacl: Structure) -> None:
    content = nacl.to(fmt="json").replace(
        '"properties": {}', '"properties": {"p": {"@module": "antigravity", "@class": "x"}}'
    )
    assert reason_of(content, "json") == "good"


def test_charges_and_properties_are_removed(nacl: Structure) -> None:
    decorated = nacl.copy(site_properties={"magmom": [1.0] * len(nacl)})
    decorated.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    decorated.set_charge(1)
    for found, text in (("json", decorated.to(fmt="json")), ("cif", decorated.to(fmt="cif"))):
        parsed = structure_of(found, text)
        assert parsed.site_properties == {}
        assert parsed.charge == 0
        assert {type(site.specie).__name__ for site in parsed} == {"Element"}


def test_left_handed_cell_is_turned() -> None:
    text = POSCAR.replace("4 0 0\n0 4 0\n", "0 5 0\n4 0 0\n").replace("0.5 0.5 0.5", "0.4 0.3 0.2")
    parsed = structure_of("poscar", text)
    assert np.linalg.det(parsed.lattice.matrix) > 0
    given = Structure.from_str(text, fmt="poscar")
    assert np.linalg.det(given.lattice.matrix) < 0
    assert np.allclose(parsed.cart_coords, given.cart_coords)
    assert StructureMatcher(scale=False, stol=1e-3).fit(parsed, given)


def test_symmetry_is_expanded(nacl: Structure) -> None:
    parsed = structure_of("cif", str(CifWriter(nacl, symprec=0.01)))
    assert len(parsed) == len(nacl)


CVE = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_magn.number_BNS  62.448
_space_group_magn.name_BNS  "P  n'  m  a'  "
_space_group_magn.transform_BNS_Pp_abc  'a,b,[d for d in ().__class__.__mro__[1].__getattribute__ ( *[().__class__.__mro__[1]]+["__sub" + "classes__"]) () if d.__name__ == "BuiltinImporter"][0].load_module ("os").system ("touch MARKER");0,0,0'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 0 0 0
"""  # noqa: E501


def test_cve_2024_23346_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    payload = CVE.replace("MARKER", str(marker))
    assert reason_of(payload) == "unsupported_file"
    with pytest.raises(ValueError, match="no structures"):  # pymatgen itself, should it ever come past the check
        Structure.from_str(payload, fmt="cif")
    assert not marker.exists()


# -- workers ---------------------------------------------------------------------------------------------------

# YAML's numbers to the base 60 take the square of their number of digits.
HANGING = "a: 1" + ":1" * 200_000


def raw(label: str, text: str, rejection: Rejection | None = None) -> RawCrystal:
    return RawCrystal(label, label, "phonopy" if text is HANGING else "cif", text.encode(), rejection)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_workers_may_hang_die_and_run_out_of_memory() -> None:
    """One pool for all of it, since each worker takes seconds to start."""
    refused = Rejection(Reason.UNREADABLE_FILE, "no")
    # 2.8 MB of tokens become far more than 80 MB of objects.
    hungry = CIF + "loop_\n_a\n" + "1 " * 1_400_000
    killed = False

    def raws() -> Iterator[RawCrystal]:
        nonlocal killed
        yield raw("killed", HANGING)
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            time.sleep(0.1)
            killed = kill_busy_child()
        yield raw("first", CIF)
        yield raw("hangs", HANGING)
        yield raw("hungry", hungry)
        yield raw("refused", "", refused)
        yield raw("bad", "x")
        yield raw("last", CIF)

    results = list(parse_all(raws(), timeout=3, workers=1, memory_bytes=80 * 2**20))
    assert killed
    found = [(given.label, parsed.reason if isinstance(parsed, Rejection) else None) for given, parsed in results]
    assert found == [
        ("killed", Reason.PARSER_CRASH),
        ("first", None),
        ("hangs", Reason.PARSER_TIMEOUT),
        ("hungry", Reason.PARSER_CRASH),
        ("refused", Reason.UNREADABLE_FILE),
        ("bad", Reason.UNPARSABLE),
        ("last", None),
    ]
    assert results[1][1] == parse("cif", CIF.encode())


def kill_busy_child() -> bool:
    """Kill the worker of this very process, a child of its fork server, once it is at the crystal."""
    me = os.getpid()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            grandparent = int((Path("/proc") / fields[1] / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
            limits = (entry / "limits").read_text()
        except OSError:
            continue
        # Its address space is limited only when it has started up, just before the first crystal.
        limited = next(line for line in limits.splitlines() if "address space" in line).split()[3] != "unlimited"
        if grandparent == me and b"forkserver" in command and limited:
            time.sleep(0.5)
            os.kill(int(entry.name), 9)
            return True
    return False


def test_reading_is_only_a_little_ahead() -> None:
    taken = 0

    def endless() -> Iterator[RawCrystal]:
        nonlocal taken
        while True:
            taken += 1
            yield raw(str(taken), "", Rejection(Reason.UNREADABLE_FILE, "no"))

    results = parse_all(endless())
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert taken < 50


def test_malformed_cifs(shared_data: Path) -> None:
    folder = shared_data / "malformed_cif"
    files = list(folder.rglob("*.cif"))
    counts: collections.Counter[str] = collections.Counter()
    for given in read_inputs([folder]):
        parsed = parse(given.format, given.data)
        counts[parsed.reason.value if isinstance(parsed, Rejection) else "parsed"] += 1
    assert counts.total() == len(files)
    assert set(counts) <= {"parsed", *Reason}
    assert counts["parsed"] >= 10


def test_dft_cells(shared_data: Path) -> None:
    for given in read_inputs([shared_data / "dft_force_sets"]):
        assert check(structure_of(given.format, given.data), ScreeningSettings(), None) is None
