"""A file in another encoding is the same crystals, in every format that is text."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from samples import CIF, FRAME, PHONOPY, POSCAR
from written import BOTH, JSON, ZNO, cif, poscar, pymatgen_json, table

from phononbench_flows.structures import Parsed, Rejection, parse, read_inputs

FILES = {
    "x.cif": "# Å\n" + cif(ZNO),
    "POSCAR": poscar(ZNO).replace("Zn2 O2", "é Zn2 O2", 1),
    "x.extxyz": FRAME.replace("pbc=", "by=é pbc=") * 2,
    "x.json": JSON["by name"]().replace("mp-", "é-"),
    "values.json": "\n".join(map(pymatgen_json, BOTH)),
    "x.jsonl": "\n".join(map(pymatgen_json, BOTH)),
    "x.csv": table("cif", [cif(each) for each in BOTH], id=["é", "Å"]),
    "phonopy.yaml": PHONOPY + "# Å\n",
    "other.yaml": PHONOPY,
}
ENCODINGS = {
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16, little end first": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 without a mark, big end first": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "Latin 1": lambda text: text.encode("latin-1"),
}


def crystals(path: Path) -> list[tuple[str, str, Parsed | Rejection]]:
    return [(raw.label, raw.source, raw.rejection or parse(raw.format, raw.data)) for raw in read_inputs([path])]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_in_another_encoding_is_the_same(tmp_path: Path, name: str, encoding: str) -> None:
    path, text = tmp_path / name, FILES[name]
    if name == "POSCAR" and "without" in encoding:
        text = text.replace("é ", "")
    path.write_text(text, encoding="utf-8")
    expected = crystals(path)
    assert all(isinstance(parsed, Parsed) for _, _, parsed in expected)
    path.write_bytes(ENCODINGS[encoding](text))
    assert crystals(path) == expected


def test_a_list_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "é.cif").write_text(CIF)
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be"):
        (tmp_path / "list.txt").write_text("# of a shell on Windows\r\né.cif\r\n", encoding=encoding)
        [raw] = read_inputs([tmp_path / "list.txt"])
        assert raw.data == CIF.encode()


@pytest.mark.parametrize(
    "data",
    [
        CIF.encode("utf-16-le").replace(b"\0", b"\0\0"),
        CIF.encode("utf-16")[:-301],
        b"#\0" + CIF.encode(),
        CIF.encode("utf-32-le"),
        "\N{LATIN SMALL LETTER SHARP S}\N{CJK UNIFIED IDEOGRAPH-4E00}".encode("utf-16-le") + CIF.encode("utf-16-le"),
    ],
)
def test_what_may_be_several_encodings_is_rejected(data: bytes) -> None:
    found = parse("cif", data)
    assert isinstance(found, Rejection)
    assert found.detail.isprintable()


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_ends_end_lines(separator: str) -> None:
    text = POSCAR.replace("NaCl\n", f"Na{separator}Cl\n", 1)
    for encoding in ("utf-8", "utf-16"):
        assert parse("poscar", text.encode(encoding)) == parse("poscar", POSCAR.encode())
