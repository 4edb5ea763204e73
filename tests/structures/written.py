"""Files as generators and tools write them: two known crystals in every format."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pandas as pd
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

CSCL = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
ZNO = Structure(
    Lattice.hexagonal(3.25, 5.207),
    ["Zn", "Zn", "O", "O"],
    [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.382], [2 / 3, 1 / 3, 0.882]],
)
BOTH = (CSCL, ZNO)


def cif(structure: Structure) -> str:
    return structure.to(fmt="cif")


def poscar(structure: Structure) -> str:
    return structure.to(fmt="poscar")


def pymatgen_json(structure: Structure) -> str:
    return json.dumps(structure.as_dict())


def atoms(structure: Structure) -> ase.Atoms:
    found = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    return ase.Atoms(found.numbers, found.positions, cell=found.cell, pbc=True)


def extxyz() -> str:
    text = io.StringIO()
    ase.io.write(text, [atoms(each) for each in BOTH], format="extxyz")
    return text.getvalue()


def optimade(structure: Structure, **changes: Any) -> dict[str, Any]:
    symbols = [site.specie.symbol for site in structure]
    attributes = {
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species_at_sites": symbols,
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in dict.fromkeys(symbols)],
        "nsites": len(structure),
        "dimension_types": [1, 1, 1],
        "structure_features": [],
    }
    return {"id": structure.reduced_formula, "type": "structures", "attributes": attributes | changes}


def jarvis(structure: Structure) -> dict[str, Any]:
    return {
        "lattice_mat": structure.lattice.matrix.tolist(),
        "coords": structure.frac_coords.tolist(),
        "elements": [site.specie.symbol for site in structure],
        "abc": list(structure.lattice.abc),
        "cartesian": False,
    }


def arrays(structure: Structure) -> dict[str, Any]:
    return {
        "frac_coords": structure.frac_coords.tolist(),
        "atom_types": [site.specie.Z for site in structure],
        "lengths": list(structure.lattice.abc),
        "angles": list(structure.lattice.angles),
    }


def frame() -> pd.DataFrame:
    rows = [{"material_id": f"mp-{n}", "structure": each.as_dict(), "e": -n} for n, each in enumerate(BOTH)]
    return pd.DataFrame(rows)


JSON: dict[str, Callable[[], str]] = {
    "list of pymatgen": lambda: json.dumps([each.as_dict() for each in BOTH]),
    "values one after the other": lambda: "\n".join(map(pymatgen_json, BOTH)),
    "by name": lambda: json.dumps({f"mp-{n}": each.as_dict() for n, each in enumerate(BOTH)}),
    "records by name": lambda: json.dumps({f"mp-{n}": {"structure": each.as_dict()} for n, each in enumerate(BOTH)}),
    "pandas, columns first": lambda: frame().to_json(orient="columns"),
    "pandas, split": lambda: frame().to_json(orient="split"),
    "pandas, records": lambda: frame().to_json(orient="records"),
    "pandas, index": lambda: frame().to_json(orient="index"),
    "pandas, table": lambda: frame().to_json(orient="table"),
    "pandas, one column": lambda: frame()[["structure"]].to_json(orient="columns"),
    "columns as lists": lambda: json.dumps({"id": ["a", "b"], "cif": [cif(each) for each in BOTH]}),
    "list of CIF": lambda: json.dumps([cif(each) for each in BOTH]),
    "crystals under a key": lambda: json.dumps({"n": 2, "structures": [each.as_dict() for each in BOTH]}),
    "emmet": lambda: json.dumps(
        {"data": [{"material_id": f"mp-{n}", "nsites": 2, "structure": each.as_dict()} for n, each in enumerate(BOTH)]}
    ),
    "entries": lambda: json.dumps([{"energy": -1.0, "structure": each.as_dict()} for each in BOTH]),
    "OPTIMADE": lambda: json.dumps({"data": [optimade(each) for each in BOTH], "meta": {"api_version": "1.1.0"}}),
    "ASE atoms": lambda: json.dumps([json.loads(ase_json(each)) for each in BOTH]),
    "ASE dictionaries": lambda: json.dumps(
        [{key: np.asarray(value).tolist() for key, value in atoms(each).todict().items()} for each in BOTH]
    ),
    "JARVIS": lambda: json.dumps([{"jid": f"JVASP-{n}", "atoms": jarvis(each)} for n, each in enumerate(BOTH)]),
    "arrays": lambda: json.dumps([arrays(each) for each in BOTH]),
}


def ase_json(structure: Structure) -> str:
    from ase.io.jsonio import encode

    return encode(atoms(structure))


def table(column: str, cells: list[str], delimiter: str = ",", **more: list[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["", *more, column])
    writer.writerows([n, *values] for n, values in enumerate(zip(*more.values(), cells, strict=True)))
    return text.getvalue()


def ase_database(path: Path) -> Path:
    with ase.db.connect(path) as database:
        for each in BOTH:
            database.write(atoms(each), name="x")
    return path


def endless_database(path: Path) -> Path:
    """A view in place of the table, which gives rows without end."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE information (name TEXT, value TEXT)")
    connection.execute("INSERT INTO information VALUES ('version', '9')")
    connection.execute(
        "CREATE VIEW systems AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id, x'' AS numbers, x'' AS positions, x'' AS cell, 7 AS pbc FROM n"
    )
    connection.commit()
    connection.close()
    return path


def trajectory(path: Path) -> Path:
    ase.io.write(path, [atoms(each) for each in BOTH])
    return path


def xdatcar(structures: list[Structure], *, constant: bool) -> str:
    """Of ZnO, as VASP writes it: the head once, or before each configuration."""
    text = ""
    for place, each in enumerate(structures):
        if place == 0 or not constant:
            text += "unknown system\n           1\n"
            text += "".join(f"  {a:11.6f} {b:11.6f} {c:11.6f}\n" for a, b, c in each.lattice.matrix)
            text += "   Zn   O\n     2     2\n"
        text += f"Direct configuration={(place + 1) * 10:6d}\n"
        text += "".join(f"  {a:11.8f} {b:11.8f} {c:11.8f}\n" for a, b, c in each.frac_coords)
    return text


def tensors(path: Path, *, tries: int = 1, **changes: Any) -> Path:
    import torch

    all_arrays = [arrays(each) for each in BOTH]
    content = {
        "frac_coords": torch.tensor(np.concatenate([each["frac_coords"] for each in all_arrays])).float(),
        "atom_types": torch.tensor(np.concatenate([each["atom_types"] for each in all_arrays])),
        "num_atoms": torch.tensor([len(each) for each in BOTH]),
        "lengths": torch.tensor([each["lengths"] for each in all_arrays]).float(),
        "angles": torch.tensor([each["angles"] for each in all_arrays]).float(),
    }
    if tries:
        content = {key: torch.stack([value] * tries) for key, value in content.items()}
    torch.save({"eval_setting": Namespace(model="x"), **content, **changes}, path)
    return path


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    kind = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "tbz2": "w:bz2", "xz": "w:xz", "txz": "w:xz"}
    with tarfile.open(path, kind.get(path.name.rpartition(".")[2], "w")) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
