"""Bytes of good files of every format are changed: there is an answer for each, and no crystal with other counts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pymatgen.core import Structure
from samples import FRAME, PHONOPY, POSCAR, parse_structure
from written import (
    BOTH,
    JSON,
    PACKERS,
    ZNO,
    ase_database,
    cif,
    extxyz,
    pymatgen_json,
    table,
    tarred,
    trajectory,
    xdatcar,
    zipped,
)

from phononbench_flows.structures import InputError, Rejection, read_inputs
from phononbench_flows.structures.formats import parsers
from phononbench_flows.structures.text import as_text

SEED = 20261126

TEXTS = {
    "poscar": POSCAR,
    "extxyz": FRAME,
    "phonopy": PHONOPY,
    "json": pymatgen_json(ZNO),
    "python": repr(ZNO.as_dict()),
    "gen_str": "4.0 4.0 4.0\n90 90 90\nNa\n0.00 0.00 0.00\nCl\n0.50 0.50 0.50",
}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, taken out, put in, or given twice; or the end cut off."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        place = chance.randrange(len(content)) if content else 0
        kind = chance.randrange(6)
        if kind == 0:
            content[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del content[place : place + chance.randrange(1, 9)]
        elif kind == 2:
            content[place:place] = chance.choice(
                (b"\0", b"\n", b"nan", b"1e999", b"-", b"\xff\xfe", b"99999999999", b'"', b"{", b"]", b"*a", b"\t")
            )
        elif kind == 3:
            content[place:place] = content[place : place + chance.randrange(1, 99)]
        elif kind == 4:
            other = chance.randrange(len(content)) if content else 0
            content[place : place + 4], content[other : other + 4] = (
                content[other : other + 4],
                content[place : place + 4],
            )
        else:
            del content[max(place, len(content) // 2) :]
    return bytes(content)


def test_every_parser_has_a_text() -> None:
    assert set(TEXTS) == set(parsers())


@pytest.mark.parametrize("raw_format", TEXTS)
def test_texts(raw_format: str) -> None:
    chance = random.Random(f"{SEED} {raw_format}")  # repeatable
    for _ in range(300):
        found = parse_structure(raw_format, mutated(TEXTS[raw_format].encode(), chance))
        assert isinstance(found, Structure | Rejection)
        if isinstance(found, Rejection):
            assert found.detail.isprintable()


def test_poscars_and_frames_keep_their_counts() -> None:
    chance = random.Random(SEED)
    for _ in range(300):
        changed = mutated(POSCAR.encode(), chance)
        found = parse_structure("poscar", changed)
        if isinstance(found, Structure):
            lines = as_text(changed).replace("\r\n", "\n").replace("\r", "\n").split("\n")
            counts = [word for word in lines[6].split("!")[0].split("#")[0].split() if word.isdigit()]
            assert len(found) == sum(map(int, counts))


FILES: dict[str, Callable[[Path], object]] = {
    "x.extxyz": lambda path: path.write_text(extxyz()),
    "x.csv": lambda path: path.write_text(table("cif", [cif(each) for each in BOTH])),
    "x.csv.gz": lambda path: path.write_bytes(PACKERS[".gz"](table("structure", [*map(pymatgen_json, BOTH)]).encode())),
    "x.json": lambda path: path.write_text(JSON["pandas, columns first"]()),
    "y.json": lambda path: path.write_text(JSON["OPTIMADE"]()),
    "z.json": lambda path: path.write_text(JSON["list of pymatgen"]()),
    "x.jsonl": lambda path: path.write_text("\n".join(json.dumps({"structure": each.as_dict()}) for each in BOTH)),
    "x.tar.gz": lambda path: tarred(path, {"a.cif": cif(ZNO).encode(), "b.json.gz": PACKERS[".gz"](b"[]")}),
    "x.tar": lambda path: tarred(path, {"a.cif": cif(ZNO).encode(), "Lable.txt": b"a\tStable\n"}),
    "x.zip": lambda path: zipped(path, {"a.cif": cif(ZNO).encode(), "POSCAR.xz": PACKERS[".xz"](POSCAR.encode())}),
    "x.cif.bz2": lambda path: path.write_bytes(PACKERS[".bz2"](cif(ZNO).encode())),
    "x.yaml": lambda path: path.write_text(PHONOPY),
    "XDATCAR": lambda path: path.write_text(xdatcar([ZNO, ZNO], constant=False)),
}
APART: dict[str, Callable[[Path], object]] = {"x.db": ase_database, "x.traj": trajectory}


@pytest.mark.parametrize("name", [*FILES, *APART])
def test_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    (FILES | APART)[name](path)
    whole, chance = path.read_bytes(), random.Random(f"{SEED} {name}")
    for _ in range(60 if name in FILES else 8):
        path.write_bytes(mutated(whole, chance))
        try:
            raws = list(read_inputs([path]))
        except InputError:
            continue
        assert raws
        for raw in raws:
            assert raw.source.isprintable()
            assert (raw.rejection is None) == bool(raw.data)
            assert raw.format == "cif" or isinstance(
                raw.rejection or parse_structure(raw.format, raw.data), Structure | Rejection
            )
