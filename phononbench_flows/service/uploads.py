"""Uploads: a file of crystals comes in, waits its turn, and becomes verdicts with pages."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from phononbench_flows.harmless import harmless
from phononbench_flows.outcomes import Status
from phononbench_flows.service.answers import as_json
from phononbench_flows.service.jobs import QUEUED, Job, Jobs, JobState, QueueFullError
from phononbench_flows.service.state import State, state_of
from phononbench_flows.stability import Assessment, Evidence, explain
from phononbench_flows.structures.formats import format_of
from phononbench_flows.structures.formats.base import Level

router = APIRouter(prefix="/api/uploads", tags=["uploads"])
_HEARD_OUT = 50_000_000  # bytes beyond what is taken
_LONGEST = 60  # characters of a name that are kept
_FIELDS = ("key", "id", "status", "stage", "reason", "detail", "formula_pretty", "nsites", "duplicate_of")


@router.post("", status_code=202, summary="Hand in a file of crystals")
async def hand_in(
    request: Request,
    name: Annotated[
        str, Query(min_length=1, max_length=300, description="What the file is called: it tells its kind.")
    ],
) -> Response:
    """The body is the file: any input that ``phononbench run`` takes, but for lists of paths. Answers with its id."""
    state = state_of(request)
    jobs, limits = _jobs(state), state.settings.limits
    plain = _plain(name)
    data = await _body(request, limits.bytes)
    try:
        job = await run_in_threadpool(jobs.add, harmless(name), plain, data, limits.waiting)
    except QueueFullError as error:
        raise HTTPException(429, str(error)) from error
    return as_json(await run_in_threadpool(_told, state, job), 202)


@router.get("", summary="The latest uploads")
def latest(request: Request) -> Response:
    """The latest fifty, the youngest first."""
    state = state_of(request)
    names = ("id", "name", "state", "detail", "submitted", "ended")
    return as_json([{name: getattr(job, name) for name in names} for job in _jobs(state).latest()])


@router.get("/{identifier}", summary="What became of an upload")
def one(request: Request, identifier: str) -> Response:
    """Its place in the queue, and its crystals as far as they came."""
    state = state_of(request)
    job = _jobs(state).get(identifier)
    if job is None:
        raise HTTPException(404, "There is no such upload.")
    return as_json(_told(state, job))


def _jobs(state: State) -> Jobs:
    if state.jobs is None:
        raise HTTPException(404, "This server takes no uploads: it was started without --potential.")
    return state.jobs


def _plain(name: str) -> str:
    """A name of ours that still tells what the file is.

    Raises:
        HTTPException: it is nothing that is taken.
    """
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", re.split(r"[/\\]", name)[-1])[-_LONGEST:]
    found = format_of(f"x_{base}")
    if found is None or found.level == Level.REFUSED:
        raise HTTPException(415, "By its name, this is no file of crystals: a CIF ends in .cif, a POSCAR in .vasp.")
    return f"_{base}"


async def _body(request: Request, most: int) -> bytes:
    """The body, of which no more is kept than may be.

    Raises:
        HTTPException: it is too large, or empty.
    """
    data, size = bytearray(), 0
    async for piece in request.stream():
        size += len(piece)
        # Whoever sends too much is heard out, to be told, but not without end.
        if size <= most:
            data += piece
        elif size > most + _HEARD_OUT:
            break
    if size > most:
        raise HTTPException(413, f"A file may have {most / 1e6:g} MB here.")
    if not data:
        raise HTTPException(400, "The file is empty.")
    return bytes(data)


def _told(state: State, job: Job) -> dict[str, Any]:
    ahead = (
        sum(other.number < job.number for other in _jobs(state).that_are(*QUEUED))
        if job.state == JobState.WAITING
        else 0
    )
    rows = state.store.query({"key": {"$in": job.keys}}, [*_FIELDS, "attempts", "evidence", "assessments"])
    found = {row["key"]: row for row in rows}
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "detail": job.detail,
        "ahead": ahead,
        "submitted": job.submitted,
        "started": job.started,
        "ended": job.ended,
        "most_crystals": state.settings.limits.crystals,
        "crystals": [_crystal(found[key]) for key in job.keys if key in found],
    }


def _crystal(row: dict[str, Any]) -> dict[str, Any]:
    evidence, assessments = row.get("evidence"), row.get("assessments")
    why = explain(Evidence.model_validate(evidence), Assessment.model_validate(assessments[0])) if assessments else None
    computing = row["status"] == Status.PENDING and bool(row.get("attempts"))
    return {name: row.get(name) for name in _FIELDS} | {"computing": computing, "why": why}
