"""Results as files for other programs: tables of crystals, structures, and whole documents.

Frequencies are in THz, imaginary ones negative; lengths in Å, forces in eV/Å, times in seconds.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import BaseModel
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.files import flush
from phononbench_flows.outcomes import Status
from phononbench_flows.stability import PUBLISHED, published
from phononbench_flows.steps import Column, Step
from phononbench_flows.steps.step import value_of
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import stored_structure

if TYPE_CHECKING:
    from phononbench_flows.results.phonon_files import PhononResult

RESULTS = "results.csv"
STABLE = "stable"

_LOT = 256  # documents in memory at once while their crystals are looked up


def _published(document: CalculationDocument, threshold: float) -> str | None:
    return published(document.evidence).get(threshold)


_LEADING = (
    Column("id", lambda d: d.id, "Id of the crystal: the set's name and where it lies in it."),
    Column("set", lambda d: d.set, "Name of the set."),
    Column("source", lambda d: d.origin.source, "File, archive member or row that it was read from."),
    Column("formula", lambda d: d.formula_pretty, "Reduced formula."),
    Column("natoms", lambda d: d.nsites, "Atoms in the cell as given."),
    Column("status", lambda d: d.status, "What became of it."),
    Column("reason", lambda d: d.reason, "Code of why it was rejected or failed."),
    Column(
        "min_frequency_judged_thz",
        value_of("minimum", "frequency"),
        "Lowest frequency that fixed thresholds are held against, in THz, imaginary as negative: where the protocol "
        "looks, or on the path if exact frequencies decide.",
    ),
    Column(
        "spacegroup_initial",
        value_of("symmetry_initial", "symbol"),
        "International symbol of the space group as given.",
    ),
)
_TRAILING = (
    *(
        Column(
            f"published_{name}",
            partial(_published, threshold=threshold),
            f"`unstable` by the published rule if a frequency on the interpolated path lies below {threshold:g} THz.",
        )
        for name, threshold in zip(("strict", "lenient"), PUBLISHED, strict=True)
    ),
    Column("why", lambda d: d.why, "The verdict and its evidence in a sentence or two."),
    Column("detail", lambda d: d.detail, "Why it was rejected or failed, in a sentence."),
    Column("duplicate_of", lambda d: d.duplicate_of, "Id of the crystal of the set that it repeats."),
    Column("known_as", lambda d: d.known_as, "Name of the crystal of the reference set that it repeats."),
    Column(
        "phononbench_label",
        lambda d: d.labels.get("phononbench"),
        "What PhononBench's released data say of it: `Stable` or `unStable`.",
    ),
    Column(
        "dft_label",
        lambda d: d.labels.get("dft"),
        "What a better method says of it (`phononbench confirm`): `stable`, `unstable` or `undecided`.",
    ),
    Column("same_as", lambda d: d.same_as, "Id of the first crystal of the set that is the same when relaxed."),
    Column("parent", lambda d: d.origin.parent, "Id of the crystal that it was made from."),
    Column(
        "leads_to",
        value_of("family", "outcome"),
        "What the crystals are, of lower energy, that it leads to by following its modes.",
    ),
    Column("stable_descendant", value_of("family", "stable"), "Id of the stable one of the lowest energy."),
    Column("energy_gained_ev", value_of("family", "energy_gained"), "Energy that this lies below, in eV per atom."),
    Column(
        "space_group_path",
        lambda d: " -> ".join(d.family.path) if d.family else None,
        "Space groups on the way to it.",
    ),
    Column("stage", lambda d: d.stage, "Last step that it passed."),
    Column("elements", lambda d: " ".join(d.elements), "Element symbols."),
    Column("protocol_id", lambda d: d.protocol_id, "Hash of the protocol and of the potential's checkpoint."),
    Column("protocol_name", lambda d: d.protocol_name, "Name of the protocol."),
    Column("potential", lambda d: d.potential.name, "Name of the potential."),
    Column("conditions", lambda d: _as_json(d.condition), "What the generator was asked for, as JSON."),
)


def columns(steps: Sequence[Step]) -> tuple[Column, ...]:
    """The columns of results.csv for calculations of these steps."""
    return (*_LEADING, *(column for step in steps for column in step.all_columns), *_TRAILING)


# A spreadsheet takes a cell that starts so for a formula, or looks behind it for one.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class ExportError(PhononBenchError):
    """A file that cannot be written; the message is a sentence."""


def write_results(documents: Iterable[CalculationDocument], out: Path, steps: Sequence[Step]) -> Path:
    """Write ``results.csv`` and ``stable/<id>.cif`` into the folder ``out``, and return the table's path.

    The documents are gone through once and not kept. Until the last one is there nothing in ``out`` changes;
    then the CIFs are replaced, those of crystals that are stable no more are removed, and the table is replaced
    last, so that a new table means a complete export.

    Parameters:
        steps: of the documents' protocol, which say what columns there are.

    Raises:
        ValueError: the documents are of more than one protocol, under which one crystal has several results.
    """
    out.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that a rename moves the files. The dot keeps it out of listings.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as name:
        new = Path(name)
        (new / STABLE).mkdir()
        with (new / RESULTS).open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            write_documents(stream, _with_cifs(documents, new / STABLE), steps)
            stream.flush()
            flush(stream.fileno())
        _replace_cifs(new / STABLE, out / STABLE)
        return (new / RESULTS).replace(out / RESULTS)


def _with_cifs(documents: Iterable[CalculationDocument], folder: Path) -> Iterator[CalculationDocument]:
    """The documents, all of one protocol; the stable ones leave a CIF on their way."""
    protocol_id: str | None = None
    names = FileNames()
    for document in documents:
        protocol_id = protocol_id or document.protocol_id
        if document.protocol_id != protocol_id:
            raise ValueError(f"results of one protocol are needed, not of {protocol_id} and {document.protocol_id}")
        if document.status == Status.STABLE and document.relaxed_structure is not None:
            relaxed = stored_structure(document.relaxed_structure, document.id)
            write_cif(relaxed, folder / f"{names.of(document.id)}.cif")
        yield document


class FileNames:
    """Names of files for ids. Two that differ in case alone are told apart: to macOS they would be one file."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, identifier: str) -> str:
        """Without an ending; the first keeps its id."""
        name = identifier
        if name.casefold() in self._taken:
            name = f"{identifier}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"
        self._taken.add(name.casefold())
        return name


def write_documents(stream: TextIO, documents: Iterable[CalculationDocument], steps: Sequence[Step]) -> None:
    """Write a row for each document as CSV, with the columns of these steps."""
    found = columns(steps)
    write_csv(stream, [column.name for column in found], (row(document, found) for document in documents))


def write_csv(stream: TextIO, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV in which no cell is a formula. The stream must not translate line ends (``newline=""``)."""
    writer = csv.DictWriter(_UnixLines(stream), names)
    writer.writeheader()
    writer.writerows({name: plain_cell(found[name]) for name in names} for found in rows)


def write_parquet(path: Path, documents: Iterable[CalculationDocument], steps: Sequence[Step]) -> None:
    """Write a row of :func:`columns` per document.

    Raises:
        ExportError: without pyarrow.
    """
    import pandas as pd

    found = columns(steps)
    names = [column.name for column in found]
    table = pd.DataFrame((row(document, found) for document in documents), columns=names)
    try:
        table.to_parquet(path, engine="pyarrow", index=False)
    except ImportError as error:
        raise ExportError("parquet files need the package pyarrow, which is not installed") from error


def json_line(document: BaseModel) -> str:
    """A document as one line of JSON, all of it, in ASCII, keys in alphabetical order."""
    plain = document.model_dump(mode="json")
    return json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n"


Pair = tuple[CalculationDocument, Structure | None]
"""A calculation with its crystal: relaxed, or as it was read where it was not relaxed; None where nothing was read."""


def with_structures(documents: Iterable[CalculationDocument], store: ResultsStore) -> Iterator[Pair]:
    """Calculations with their crystals; those that were not relaxed are looked up in the store, lot by lot."""
    for lot in batched(documents, _LOT):
        wanted = [document.id for document in lot if document.relaxed_structure is None]
        as_read = {crystal.id: crystal.structure for crystal in store.crystals(wanted)}
        for document in lot:
            found = document.relaxed_structure or as_read.get(document.id)
            yield document, None if found is None else stored_structure(found, document.id)


def write_cifs(folder: Path, pairs: Iterable[Pair]) -> int:
    """Write ``<id>.cif`` for every document that has a structure, into an empty folder; gives the number of files.

    Raises:
        ExportError: the folder holds something, or one crystal comes under two protocols.
    """
    return _write_files(folder, ".cif", ((d.id, cif_text(found)) for d, found in pairs if found is not None))


def write_extxyz(stream: TextIO, pairs: Iterable[Pair]) -> int:
    """Write a frame for every document that has an ordered structure; gives the number of frames."""
    from ase.io.extxyz import write_extxyz as write_frames
    from pymatgen.io.ase import AseAtomsAdaptor

    number = 0
    for document, structure in pairs:
        if structure is None or not structure.is_ordered:
            continue
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.info = _frame_info(document)
        write_frames(stream, [atoms], columns=["symbols", "positions"])
        number += 1
    return number


def with_phonons(documents: Iterable[CalculationDocument], store: ResultsStore) -> Iterator[PhononResult]:
    """The phonons of those documents that have any."""
    from phononbench_flows.engine.bands import Bands
    from phononbench_flows.engine.force_constants import ForceConstants
    from phononbench_flows.results.phonon_files import PhononResult

    for document in documents:
        if {"force_constants", "band_structure"} <= set(document.arrays):
            looks = document.arrays.get("exact_looks")
            yield PhononResult(
                document.id,
                ForceConstants.from_arrays(store.blobs.get(document.arrays["force_constants"])),
                Bands.from_arrays(store.blobs.get(document.arrays["band_structure"])),
                document.potential.name,
                last_updated=document.updated_at,
                exact_looks=store.blobs.get(looks) if looks else None,
            )


def write_emmet(stream: TextIO, documents: Iterable[CalculationDocument], store: ResultsStore) -> int:
    """Write emmet's document, one line of JSON, for each that has phonons; gives their number."""
    from phononbench_flows.results.phonon_files import emmet_json

    number = 0
    for found in with_phonons(documents, store):
        stream.write(emmet_json(found))
        number += 1
    return number


def write_phonon_files(folder: Path, documents: Iterable[CalculationDocument], store: ResultsStore, form: str) -> int:
    """Write a file of a format of ``PHONON_FORMATS`` for each document that has phonons; gives their number.

    Raises:
        ExportError: the folder holds something, or one crystal comes under two protocols.
    """
    from phononbench_flows.results.phonon_files import PHONON_FORMATS

    chosen = PHONON_FORMATS[form]
    texts = ((found.identifier, chosen.text(found)) for found in with_phonons(documents, store))
    return _write_files(folder, chosen.suffix, texts)


def _write_files(folder: Path, suffix: str, texts: Iterable[tuple[str, str]]) -> int:
    """Write a file for each crystal's id and text into an empty folder; gives their number."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ExportError(f"{folder} is not empty")
    names, written = FileNames(), set[str]()
    for identifier, text in texts:
        if identifier in written:
            raise ExportError(f"{identifier} was judged under two protocols: choose one")
        (folder / f"{names.of(identifier)}{suffix}").write_text(text, encoding="utf-8")
        written.add(identifier)
    return len(written)


def _frame_info(document: CalculationDocument) -> dict[str, Any]:
    lowest, relaxation = document.lowest, document.relaxation
    info = {
        "id": document.id,
        "set": document.set,
        "status": document.status,
        "relaxed": document.relaxed_structure is not None,
        "lowest_frequency_thz": lowest.frequency if lowest else None,
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


def row(document: CalculationDocument, found: Sequence[Column]) -> dict[str, Any]:
    """A document as a row of these columns; None where there is no value."""
    return {column.name: column.value(document) for column in found}


def _as_json(condition: Mapping[str, Any]) -> str | None:
    return json.dumps(condition, sort_keys=True, ensure_ascii=False) if condition else None


def plain_cell(value: Any) -> Any:
    """The value as it may stand in a table: text that a spreadsheet would run gets an apostrophe in front."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def write_cif(structure: Structure, path: Path) -> None:
    """Write a crystal as a CIF with every atom by itself in P1."""
    path.write_text(cif_text(structure), encoding="utf-8")


def cif_text(structure: Structure) -> str:
    """A crystal as the text of a CIF with every atom by itself in P1."""
    # In P1 nothing is left to a reader's idea of symmetry or origin.
    return str(CifWriter(structure))


def _replace_cifs(new: Path, old: Path) -> None:
    old.mkdir(exist_ok=True)
    for path in old.glob("*.cif"):
        if not (new / path.name).exists():
            path.unlink()
    for path in new.iterdir():
        path.replace(old / path.name)
