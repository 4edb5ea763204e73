"""The application: routes, pages and what starts and ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from phononbench_flows import __version__
from phononbench_flows.service import crystal, downloads, explorer, uploads
from phononbench_flows.service.access import Access
from phononbench_flows.service.answers import add_errors, as_json
from phononbench_flows.service.jobs import Jobs
from phononbench_flows.service.live import LiveTable
from phononbench_flows.service.optimade.routes import MOUNTED, optimade_app
from phononbench_flows.service.pages import add_pages
from phononbench_flows.service.settings import Settings
from phononbench_flows.service.state import State, state_of
from phononbench_flows.store import ResultsStore

_ABOUT = (
    "Dynamical stability of crystals. Frequencies are in THz, imaginary ones negative; lengths in Å, energies in eV."
)


def create_app(settings: Settings) -> FastAPI:
    """The application over a store, which is opened when it starts and closed when it ends.

    Raises:
        StoreError: the store cannot be opened.
    """
    store = ResultsStore.open(settings.spec, create=settings.judging is not None)
    jobs = Jobs(settings.folder) if settings.judging is not None else None
    state = State(settings, store, LiveTable(store), jobs)
    # The pages of documentation that come with FastAPI fetch their scripts from elsewhere.
    app = FastAPI(
        title="PhononBench Flows",
        version=__version__,
        description=_ABOUT,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.server = state
    app.add_middleware(Access, settings=settings)  # type: ignore[arg-type]
    add_errors(app)
    app.get("/api/status", tags=["explorer"], summary="The store, and what the server takes")(_status)
    for router in (explorer.router, crystal.router, downloads.router, uploads.router):
        app.include_router(router)
    app.mount(MOUNTED, optimade_app(state))
    add_pages(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.server
    state.store.create_indexes()
    state.live.start()
    supervisor = None
    if state.jobs is not None:
        from phononbench_flows.service.supervisor import Supervisor

        supervisor = Supervisor(state.settings, state.jobs, state.store)
        supervisor.start()
    yield
    if supervisor is not None:
        supervisor.stop()
    state.live.stop()
    state.store.close()


async def _status(request: Request) -> Response:
    """How much of the store has been read, and what uploads may be."""
    state = state_of(request)
    judging, limits = state.settings.judging, state.settings.limits
    told: dict[str, Any] = {
        "version": __version__,
        "read": len(state.live.table),
        "total": state.live.total,
        "complete": state.live.complete,
        "trouble": state.live.trouble,
        "uploads": None,
    }
    if judging is not None:
        told["uploads"] = {
            "potential": judging.potential,
            "protocol": judging.protocol,
            "bytes": limits.bytes,
            "atoms": limits.atoms,
            "crystals": limits.crystals,
            "minutes": limits.minutes,
            "cluster": judging.cluster,
        }
    return as_json(told)
