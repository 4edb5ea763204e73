"""The explorer's part of the API: pages of the table, counts beside the filters, and the sets with their rates."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from phononbench_flows.outcomes import Status
from phononbench_flows.service.answers import as_json
from phononbench_flows.service.filters import PageOf
from phononbench_flows.service.selection import counts, tally
from phononbench_flows.service.state import state_of
from phononbench_flows.stability import published_at
from phononbench_flows.statistics import was_relaxed, wilson

router = APIRouter(prefix="/api", tags=["explorer"])
_FACETS = ("set", "status", "system", "potential", "protocol")
_JUDGED = ("set", "protocol", "protocol_id", "potential")


class Row(BaseModel):
    """A calculation in the table. Frequencies are in THz, imaginary ones negative."""

    key: str = Field(description="'<id>@<protocol_id>'.")
    id: str
    set: str
    status: str
    reason: str | None
    formula: str | None
    natoms: int | None = Field(description="Atoms in the cell as given.")
    nelements: int | None
    space_group: int | None = Field(description="International number of the relaxed crystal's space group.")
    symbol: str | None = Field(description="Its symbol.")
    system: str | None = Field(description="Its crystal system.")
    lowest: float | None = Field(description="Lowest frequency that the verdict rests on.")
    path: float | None = Field(description="Lowest frequency on the interpolated path.")
    published: str | None = Field(description="What the published rule says, at -0.001 THz.")
    potential: str
    protocol: str
    protocol_id: str
    parent: str | None = Field(description="Id of the crystal that it was made from.")


class Page(BaseModel):
    """A page of the table."""

    found: int = Field(description="Rows that pass the filters.")
    pending: int = Field(description="Those of them that are not judged yet.")
    read: int = Field(description="Rows read from the store so far.")
    total: int | None = Field(description="Calculations in the store when reading began.")
    complete: bool = Field(description="Whether the store has been read to its end once.")
    page: int
    per_page: int
    rows: list[Row]


class Rate(BaseModel):
    """A set under one protocol and potential."""

    set: str
    protocol: str
    protocol_id: str
    potential: str
    counts: dict[str, int] = Field(description="Crystals by status.")
    relaxed: int
    stable: int
    pending: int = Field(description="Crystals that are not judged yet; while there are any, the rate is provisional.")
    per_relaxed: tuple[float, float, float] | None = Field(description="Rate and ends of its 95 % interval.")


@router.get("/crystals", response_model=Page, summary="A page of the table of crystals")
async def crystals(request: Request, filters: Annotated[PageOf, Query()]) -> Response:
    """Rows that pass the filters, in order, 50 to a page; ``page`` and ``per_page`` choose which."""
    state = state_of(request)
    table = state.live.table
    rows = state.selector.rows(table, filters)
    first = (filters.page - 1) * filters.per_page
    places = rows[first : first + filters.per_page].tolist()
    pending = table.codes["status"][rows] == table.words["status"].known(Status.PENDING)
    return as_json(
        {
            "found": len(rows),
            "pending": int(pending.sum()),
            "read": len(table),
            "total": state.live.total,
            "complete": state.live.complete,
            "page": filters.page,
            "per_page": filters.per_page,
            "rows": [_row(table.row(place)) for place in places],
        }
    )


@router.get("/facets", summary="Crystals by set, status, crystal system, potential and protocol")
async def facets(request: Request) -> Response:
    """How many rows have which value, over all rows that are not gone; by column."""
    table = state_of(request).live.table
    here = table.codes["status"] != table.words["status"].known(Status.GONE)
    return as_json({name: dict(sorted(counts(table, here, name).items())) for name in _FACETS})


@router.get("/sets", response_model=list[Rate], summary="The sets with their rates")
async def sets(request: Request) -> Response:
    """Every set under every protocol: its crystals by status, and the share of stable ones among those relaxed."""
    table = state_of(request).live.table
    found: dict[tuple[str, ...], dict[tuple[str, str], int]] = {}
    for (*judged, status, stage), number in tally(table, (*_JUDGED, "status", "stage")):
        found.setdefault(tuple(judged), {})[status, stage] = number
    return as_json([dict(zip(_JUDGED, judged, strict=True)) | _rate(found[judged]) for judged in sorted(found)])


def _row(row: dict[str, Any]) -> dict[str, Any]:
    path = row["path"]
    return row | {"published": None if path is None else next(iter(published_at(path).values())).value}


def _rate(numbers: dict[tuple[str, str], int]) -> dict[str, Any]:
    """What the numbers of crystals by status and stage come to."""
    by_status: dict[str, int] = {}
    for (status, _), number in numbers.items():
        by_status[status] = by_status.get(status, 0) + number
    stable, pending = (by_status.get(status, 0) for status in (Status.STABLE, Status.PENDING))
    relaxed = sum(number for pair, number in numbers.items() if was_relaxed(*pair))
    rate = wilson(stable, relaxed)
    return {
        "counts": by_status,
        "relaxed": relaxed,
        "stable": stable,
        "pending": pending,
        "per_relaxed": None if rate.interval is None else [rate.rate, rate.interval.low, rate.interval.high],
    }
