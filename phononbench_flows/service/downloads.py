"""Files to save: of one crystal, or of all that pass the filters of the table."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched, chain
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response, StreamingResponse
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.results.export import (
    FileNames,
    cif_text,
    json_line,
    with_phonons,
    with_structures,
    write_documents,
)
from phononbench_flows.results.phonon_files import PHONON_FORMATS
from phononbench_flows.service.answers import attachment
from phononbench_flows.service.filters import Filters
from phononbench_flows.service.state import State, calculation, state_of
from phononbench_flows.steps import Step
from phononbench_flows.steps.order import installed_step
from phononbench_flows.store import ResultsStore

router = APIRouter(prefix="/api", tags=["downloads"])
MOST = {"csv": 1_000_000, "json": 1_000_000, "cif": 20_000, "poscar": 20_000, "phonopy": 500, "emmet": 100, "band": 20}
"""Crystals of one download, at most, by its form; with all eigenvectors, bands of 20 atoms are 100 MB."""
_LOT = 256

Texts = Iterator[tuple[str, str]]
"""Names of files and what stands in them."""


def _poscar(structure: Structure) -> str:
    return Poscar(structure.get_sorted_structure()).get_str(significant_figures=16)


STRUCTURE_FORMATS: dict[str, tuple[str, Callable[[Structure], str]]] = {
    "cif": (".cif", cif_text),
    "poscar": (".vasp", _poscar),
}


@router.get("/crystals/{key}/files/{form}", summary="A file of one crystal")
def one(request: Request, key: str, form: str) -> Response:
    """``csv``, ``json``, ``cif``, ``poscar``, ``phonopy``, ``band`` or ``emmet``."""
    _require_form(form)
    store, document = state_of(request).store, calculation(request, key)
    if form in {"csv", "json"}:
        text = "".join(_lines(form, [document], _installed(document.steps)))
        return Response(text, media_type=_kind(form), headers=attachment(f"{document.id}.{form}"))
    files = list(_files(form, [document], store))
    if not files:
        raise HTTPException(404, "There is nothing to write in this form: the crystal did not come so far.")
    [(name, text)] = files
    return Response(text, media_type="text/plain; charset=utf-8", headers=attachment(name))


@router.get("/download/{form}", summary="Files of all crystals that pass the filters")
def many(request: Request, form: str, filters: Annotated[Filters, Query()]) -> Response:
    """``csv`` and ``json`` (a line a crystal) are one file; all other forms are a zip."""
    _require_form(form)
    state = state_of(request)
    keys = _keys(state, filters)
    if len(keys) > MOST[form]:
        said = f"{len(keys):,} crystals are more than one download of {form} may hold ({MOST[form]:,}): filter them."
        raise HTTPException(413, said)
    documents = _documents(state.store, keys)
    if form in {"csv", "json"}:
        body = _lines(form, documents, _steps(state, keys) if form == "csv" else ())
        name = "crystals.csv" if form == "csv" else "crystals.jsonl"
        return StreamingResponse(body, media_type=_kind(form), headers=attachment(name))
    archive = zipped(_files(form, documents, state.store))
    return StreamingResponse(archive, media_type="application/zip", headers=attachment(f"crystals-{form}.zip"))


def zipped(files: Texts) -> Iterator[bytes]:
    """A zip archive, piece by piece; at most one file is in memory."""
    out = _Pieces()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files:
            archive.writestr(name, text)
            yield out.taken()
    yield out.taken()


class _Pieces(io.RawIOBase):
    """What is written, until it is taken."""

    def __init__(self) -> None:
        self._data, self._at = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._data += data
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def taken(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data


def _require_form(form: str) -> None:
    if form not in MOST:
        raise HTTPException(404, f"There is no download {form!r}; there are {', '.join(MOST)}.")


def _kind(form: str) -> str:
    return "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"


def _keys(state: State, filters: Filters) -> list[str]:
    table = state.live.table
    return [table.keys[place] for place in state.selector.rows(table, filters).tolist()]


def _documents(store: ResultsStore, keys: list[str]) -> Iterator[CalculationDocument]:
    """The calculations of these keys, in their order, lot by lot."""
    for first in range(0, len(keys), _LOT):
        lot = keys[first : first + _LOT]
        found = {document.key: document for document in store.documents({"key": {"$in": lot}})}
        yield from (found[key] for key in lot if key in found)


def _lines(form: str, documents: Iterable[CalculationDocument], steps: Sequence[Step]) -> Iterator[str]:
    """The text of a table or of documents, lot by lot."""
    if form == "json":
        yield from map(json_line, documents)
        return
    began = False
    for lot in batched(chain(documents, (None,)), _LOT):
        rows = io.StringIO()
        write_documents(rows, filter(None, lot), steps)
        yield rows.getvalue().partition("\n")[2] if began else rows.getvalue()
        began = True


def _steps(state: State, keys: Sequence[str]) -> list[Step]:
    """The steps of all protocols of these calculations, which say what columns there are."""
    one_each = list({key.rpartition("@")[2]: key for key in keys}.values())
    found = state.store.query({"key": {"$in": one_each}}, ["steps"])
    return _installed(dict.fromkeys(name for document in found for name in document["steps"]))


def _installed(names: Iterable[str]) -> list[Step]:
    """Those of the steps that documents name which are no code to be imported for their sake."""
    return [installed_step(name) for name in names if ":" not in name]


def _files(form: str, documents: Iterable[CalculationDocument], store: ResultsStore) -> Texts:
    names = FileNames()
    if form in STRUCTURE_FORMATS:
        suffix, text = STRUCTURE_FORMATS[form]
        for document, structure in with_structures(documents, store):
            if structure is not None:
                yield f"{names.of(document.id)}{suffix}", text(structure)
        return
    chosen = PHONON_FORMATS[form]
    for result in with_phonons(documents, store):
        yield f"{names.of(result.identifier)}{chosen.suffix}", chosen.text(result)
