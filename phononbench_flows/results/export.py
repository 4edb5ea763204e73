"""Results as files for other programs: tables of crystals, structures, and whole documents.

Frequencies are in THz, imaginary ones negative; lengths in Å, forces in eV/Å, times in seconds.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from pymatgen.core.structure import Structure
from pymatgen.io.cif import CifWriter

from phononbench_flows.documents import CrystalDocument, Minimum
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Stage, Status

RESULTS = "results.csv"
STABLE = "stable"

COLUMNS = (
    "id",
    "set",
    "source",
    "formula",
    "natoms",
    "status",
    "reason",
    "min_frequency_path_thz",
    "min_frequency_mesh_thz",
    "min_frequency_commensurate_thz",
    "spacegroup_initial",
    "spacegroup_relaxed",
    "detail",
    "duplicate_of",
    "known_as",
    "stage",
    "elements",
    "min_frequency_judged_thz",
    "min_frequency_gamma_optical_thz",
    "min_frequency_path_q",
    "n_imaginary",
    "n_displacements",
    "max_force_ev_per_angstrom",
    "energy_per_atom_ev",
    "protocol_id",
    "protocol_name",
    "potential",
    "relax_seconds",
    "force_constants_seconds",
    "spectrum_seconds",
    "conditions",
)

# A spreadsheet takes a cell that starts so for a formula, or looks behind it for one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class ExportError(PhononBenchError):
    """A file that cannot be written; the message is a sentence."""


def write_results(documents: Iterable[CrystalDocument], out: Path) -> Path:
    """Write ``results.csv`` and ``stable/<id>.cif`` into the folder ``out``, and return the table's path.

    The documents are gone through once and not kept. Until the last one is there nothing in ``out`` changes;
    then the CIFs are replaced, those of crystals that are stable no more are removed, and the table is replaced
    last, so that a new table means a complete export.

    Raises:
        ValueError: the documents are of more than one protocol, under which one crystal has several results.
    """
    out.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that a rename moves the files. The dot keeps it out of listings.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as name:
        new = Path(name)
        (new / STABLE).mkdir()
        with (new / RESULTS).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            write_csv(stream, COLUMNS, map(row, _with_cifs(documents, new / STABLE)))
            stream.flush()
            os.fsync(stream.fileno())
        _replace_cifs(new / STABLE, out / STABLE)
        return (new / RESULTS).replace(out / RESULTS)


def _with_cifs(documents: Iterable[CrystalDocument], folder: Path) -> Iterator[CrystalDocument]:
    """The documents, all of one protocol; the stable ones leave a CIF on their way."""
    protocol_id: str | None = None
    for document in documents:
        protocol_id = protocol_id or document.protocol_id
        if document.protocol_id != protocol_id:
            raise ValueError(f"results of one protocol are needed, not of {protocol_id} and {document.protocol_id}")
        if document.status == Status.STABLE and document.relaxed_structure is not None:
            _write_cif(document.relaxed_structure, folder / f"{document.id}.cif")
        yield document


def write_csv(stream: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV in which no cell is a formula. The stream must not translate line ends (``newline=""``)."""
    writer = csv.DictWriter(_UnixLines(stream), columns)
    writer.writeheader()
    writer.writerows({column: plain_cell(found[column]) for column in columns} for found in rows)


def write_parquet(path: Path, documents: Iterable[CrystalDocument]) -> None:
    """Write a row of :data:`COLUMNS` per document.

    Raises:
        ExportError: without pyarrow.
    """
    import pandas as pd

    table = pd.DataFrame(map(row, documents), columns=list(COLUMNS))
    try:
        table.to_parquet(path, engine="pyarrow", index=False)
    except ImportError as error:
        raise ExportError("parquet files need the package pyarrow, which is not installed") from error


def json_line(document: CrystalDocument) -> str:
    """A document as one line of JSON, all of it, in ASCII, keys in alphabetical order."""
    plain = document.model_dump(mode="json")
    return json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n"


def structure_of(document: CrystalDocument) -> Structure | None:
    """The relaxed crystal; the one that was read where there is no relaxed one; None where nothing could be read."""
    found = document.relaxed_structure or document.structure
    return None if found is None else Structure.from_dict(found)


def write_cifs(folder: Path, documents: Iterable[CrystalDocument]) -> int:
    """Write ``<id>.cif`` for every document that has a structure, into an empty folder; gives the number of files.

    Raises:
        ExportError: the folder holds something, or one crystal comes under two protocols.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ExportError(f"{folder} is not empty")
    number = 0
    for document in documents:
        found = document.relaxed_structure or document.structure
        if found is None:
            continue
        path = folder / f"{document.id}.cif"
        if path.exists():
            raise ExportError(f"{document.id} was judged under two protocols: choose one")
        _write_cif(found, path)
        number += 1
    return number


def write_extxyz(stream: TextIO, documents: Iterable[CrystalDocument]) -> int:
    """Write a frame for every document that has an ordered structure; gives the number of frames."""
    from ase.io.extxyz import write_extxyz as write_frames
    from pymatgen.io.ase import AseAtomsAdaptor

    number = 0
    for document in documents:
        structure = structure_of(document)
        if structure is None or not structure.is_ordered:
            continue
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.info = _frame_info(document)
        write_frames(stream, [atoms], columns=["symbols", "positions"])
        number += 1
    return number


def _frame_info(document: CrystalDocument) -> dict[str, Any]:
    phonon, relaxation = document.phonon, document.relaxation
    info = {
        "id": document.id,
        "set": document.set,
        "status": document.status,
        "relaxed": document.relaxed_structure is not None,
        "lowest_frequency_thz": _frequency(phonon.judged if phonon else None),
        "energy_per_atom_ev": relaxation.energy_per_atom if relaxation else None,
        "protocol_id": document.protocol_id,
    }
    return {key: value for key, value in info.items() if value is not None}


class _UnixLines:
    """Ends rows with a newline only.

    The writer itself is left at its own line ending, since Python 3.12 does not quote a carriage return inside a
    cell under any other, and the row falls apart.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(row.removesuffix("\r\n") + "\n")


def row(document: CrystalDocument) -> dict[str, Any]:
    """A crystal as a row of :data:`COLUMNS`; None where there is no value."""
    phonon, relaxation, timings = document.phonon, document.relaxation, document.timings
    initial, relaxed = document.symmetry_initial, document.symmetry_relaxed
    path = phonon.path if phonon else None
    values = (
        document.id,
        document.set,
        document.source,
        document.formula_pretty,
        document.nsites,
        document.status,
        document.reason,
        _frequency(path),
        _frequency(phonon.mesh if phonon else None),
        _frequency(phonon.commensurate if phonon else None),
        initial.symbol if initial else None,
        relaxed.symbol if relaxed else None,
        document.detail,
        document.duplicate_of,
        document.known_as,
        document.stage,
        " ".join(document.elements),
        _frequency(phonon.judged if phonon else None),
        phonon.gamma_optical if phonon else None,
        json.dumps(path.q) if path else None,
        phonon.n_imaginary if phonon else None,
        phonon.n_displacements if phonon else None,
        relaxation.max_force if relaxation else None,
        relaxation.energy_per_atom if relaxation else None,
        document.protocol_id,
        document.protocol_name,
        document.potential.name,
        timings.get(Stage.RELAXED),
        timings.get(Stage.FORCE_CONSTANTS),
        timings.get(Stage.JUDGED),
        json.dumps(document.condition, sort_keys=True, ensure_ascii=False) if document.condition else None,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _frequency(minimum: Minimum | None) -> float | None:
    return minimum.frequency if minimum else None


def plain_cell(value: Any) -> Any:
    """The value as it may stand in a table: text that a spreadsheet would run gets an apostrophe in front."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def _write_cif(structure: dict[str, Any], path: Path) -> None:
    """Every atom by itself in P1: nothing is left to a reader's idea of symmetry or origin."""
    text = str(CifWriter(Structure.from_dict(structure)))
    path.write_text(text, encoding="utf-8")


def _replace_cifs(new: Path, old: Path) -> None:
    old.mkdir(exist_ok=True)
    for path in old.glob("*.cif"):
        if not (new / path.name).exists():
            path.unlink()
    for path in new.iterdir():
        path.replace(old / path.name)
