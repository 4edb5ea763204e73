"""The API of one crystal: its document, evidence in words, structure, bands with the density of states, and modes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response
from pymatgen.core import Structure

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.results.band_structures import path_ticks
from phononbench_flows.results.export import with_phonons
from phononbench_flows.results.phonon_views import PhononViews
from phononbench_flows.service.answers import as_json
from phononbench_flows.service.selection import ordered
from phononbench_flows.service.state import State, calculation, state_of
from phononbench_flows.stability import explain_published
from phononbench_flows.structures import stored_structure

router = APIRouter(prefix="/api/crystals", tags=["crystals"])
_FAMILY = 200  # children that are listed
_KEPT = 16  # crystals whose phonons are kept ready to be drawn
_OTHERS = ("key", "status", "potential.name", "protocol_name", "protocol_id", "minimum.frequency")
_BANDS = ("force_constants", "band_structure")


@router.get("/{key}", summary="A crystal under a protocol and potential")
def crystal(request: Request, key: str) -> Response:
    """Its whole document, with the evidence of its verdict in words, what it looks like, and what belongs to it."""
    state = state_of(request)
    document = calculation(request, key)
    read = state.store.crystal(document.id)
    relaxed = document.relaxed_structure
    found = relaxed or (read.structure if read else None)
    return as_json(
        {
            "document": document.model_dump(mode="json", exclude={"relaxed_structure"}),
            "why": document.why,
            "published": explain_published(document.evidence),
            "lowest": document.lowest.model_dump() if document.lowest else None,
            "notes": read.notes if read else [],
            "structure": structure_plain(stored_structure(found, document.id)) if found else None,
            "is_relaxed": relaxed is not None,
            "has_phonons": set(_BANDS) <= set(document.arrays),
            "threshold": document.assessments[0].threshold if document.assessments else 0.0,
            "others": _others(state, document),
            "family": _family(state, document),
        }
    )


@router.get("/{key}/phonons", summary="Bands and density of states")
def phonons(request: Request, key: str) -> Response:
    """Bands segment by segment along the path, and the density of states (1/THz); frequencies in THz."""
    state, document = state_of(request), calculation(request, key)
    _require_phonons(document)
    [result] = with_phonons([document], state.store)
    bands = result.bands
    with state.drawing:
        dos = _views(state, key, _stamp(document)).density_of_states()
    return as_json(
        {
            "q": np.concatenate(bands.q).round(6).tolist(),
            "distances": np.concatenate(bands.distances).round(6).tolist(),
            "branches": np.concatenate(bands.frequencies).T.round(5).tolist(),
            "lengths": list(map(len, bands.q)),
            "ticks": path_ticks(bands),
            "dos": {"frequencies": dos.frequencies.round(5).tolist(), "densities": dos.densities.round(5).tolist()},
        }
    )


@router.get("/{key}/mode", summary="How atoms move in a mode")
def mode(
    request: Request,
    key: str,
    q: Annotated[
        str | None, Query(description="q-point, as 0.5,0,0; without it, where the lowest mode of the verdict is.")
    ] = None,
    branch: Annotated[int, Query(ge=0, description="Number of the mode from below.")] = 0,
) -> Response:
    """A block of cells that the mode's wave fits into, and the atoms' displacements at the turn of their motion."""
    state, document = state_of(request), calculation(request, key)
    _require_phonons(document)
    point = _point(q) if q is not None else document.lowest.q if document.lowest else [0.0, 0.0, 0.0]
    with state.drawing:
        shape = _views(state, key, _stamp(document)).mode(point, branch)
    sites = [
        {"number": int(number), "at": place, "moves": move}
        for number, place, move in zip(
            shape.numbers, shape.positions.round(5).tolist(), shape.displacements.round(5).tolist(), strict=True
        )
    ]
    return as_json(
        {
            "q": shape.q.tolist(),
            "branch": shape.branch,
            "frequency": shape.frequency,
            "repeats": shape.repeats,
            "fits": shape.fits,
            "vectors": shape.lattice.tolist(),
            "sites": sites,
        }
    )


def structure_plain(structure: Structure) -> dict[str, Any] | None:
    """Lattice vectors in Å, and sites with atomic numbers and fractional coordinates; None where it is disordered."""
    if not structure.is_ordered:
        return None
    sites = [
        {"number": site.specie.Z, "at": [round(float(x % 1.0), 7) % 1.0 for x in site.frac_coords]}
        for site in structure
        if hasattr(site.specie, "Z")
    ]
    return {"vectors": structure.lattice.matrix.tolist(), "sites": sites}


def _require_phonons(document: CalculationDocument) -> None:
    if not set(_BANDS) <= set(document.arrays):
        raise HTTPException(404, "Nothing is kept of its phonons.")


def _stamp(document: CalculationDocument) -> str:
    return document.arrays["force_constants"].sha256


def _views(state: State, key: str, stamp: str) -> PhononViews:
    return _made(state.store, key, stamp)


@lru_cache(maxsize=_KEPT)
def _made(store: Any, key: str, _stamp: str) -> PhononViews:
    document = store.get(key)
    [result] = with_phonons([document], store)
    return PhononViews(result.constants, result.exact_looks)


def _point(text: str) -> Sequence[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != 3 or not np.isfinite(found).all() or np.abs(found).max() > 100:
        raise HTTPException(400, "A q-point is three numbers, as 0.5,0,0.")
    return found


def _others(state: State, document: CalculationDocument) -> list[dict[str, Any]]:
    """What other potentials and protocols say of the same crystal."""
    rows = state.store.query({"id": document.id}, list(_OTHERS), sort={"key": 1})
    return [
        {
            "key": row["key"],
            "status": row["status"],
            "potential": row["potential"]["name"],
            "protocol": row["protocol_name"],
            "lowest": (row.get("minimum") or {}).get("frequency"),
        }
        for row in rows
        if row["key"] != document.key
    ]


def _family(state: State, document: CalculationDocument) -> dict[str, Any]:
    """The crystal that it was made from, and those made from it, under the same protocol."""
    table = state.live.table
    code = table.words["parent"].known(document.id)
    mine = table.codes["protocol_id"] == table.words["protocol_id"].known(document.protocol_id)
    children = ordered(table, (table.codes["parent"] == code) & mine & (code > 0))
    named = ("key", "id", "formula", "status", "lowest", "symbol")
    rows = [table.row(int(place)) for place in children[:_FAMILY]]
    parent = document.origin.parent
    return {
        "parent": f"{parent}@{document.protocol_id}" if parent else None,
        "mode": document.origin.mode.model_dump() if document.origin.mode else None,
        "children": [{name: row[name] for name in named} for row in rows],
        "n_children": len(children),
    }
