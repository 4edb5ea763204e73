"""The routes of OPTIMADE, an application of its own with its own form of answers and errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from optimade import __api_version__
from optimade.exceptions import (
    BadRequest,
    Forbidden,
    NotFound,
    NotImplementedResponse,
    OptimadeHTTPException,
    VersionNotSupported,
)
from optimade.models import (
    AvailableApiVersion,
    BaseInfoAttributes,
    BaseInfoResource,
    EntryInfoResource,
    Implementation,
    LinksResource,
    LinksResourceAttributes,
    OptimadeError,
    Provider,
    ResponseMeta,
    ResponseMetaQuery,
    Warnings,
)
from optimade.server.query_params import BaseQueryParams, EntryListingQueryParams, SingleEntryQueryParams
from starlette.exceptions import HTTPException

from phononbench_flows import __version__
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.service.answers import as_json
from phononbench_flows.service.optimade.filters import matching
from phononbench_flows.service.optimade.properties import (
    OWN,
    PREFIX,
    PROPERTIES,
    definitions,
    entries,
    served,
)
from phononbench_flows.service.selection import ordered
from phononbench_flows.service.state import State, state_of
from phononbench_flows.service.table import Table
from phononbench_flows.store.collection import StoreError

PAGE, LARGEST_PAGE = 20, 500
MOUNTED = "/optimade"
_MAJOR = f"v{__api_version__.split('.', maxsplit=1)[0]}"
_SCHEMA = "https://schemas.optimade.org/openapi/v1.2/optimade.json"
_ABOUT = (
    f"Crystals that were relaxed with an interatomic potential, with the verdict on their dynamical stability in "
    f"{OWN}status: stable, unstable and undecided ones alike, each as often as it was computed under another protocol "
    f'or potential. Ask for {OWN}status="stable" for stable ones alone. What was rejected, failed, repeats another '
    f"crystal as given, or is not judged yet, is not here."
)
_TOLD = f"Entries are relaxed crystals with a verdict, {OWN}status; unstable and undecided ones are among them."
_PROVIDER = Provider(
    name="PhononBench Flows", description="Dynamical stability of crystals by their phonons.", prefix=PREFIX
)
_IMPLEMENTATION = Implementation(name="phononbench serve", version=__version__)
_OTHER_PAGES = ("page_number", "page_cursor", "page_above", "page_below")

router = APIRouter(prefix=f"/{_MAJOR}")


def optimade_app(state: State) -> FastAPI:
    """The application, to be mounted at :data:`MOUNTED`."""
    app = FastAPI(openapi_url=None)
    app.state.server = state
    app.get("/versions")(_versions)
    app.include_router(router)
    app.get("/{version}/{rest:path}")(_elsewhere)
    for kind in (OptimadeHTTPException, HTTPException, RequestValidationError, PhononBenchError):
        app.add_exception_handler(kind, _error)
    return app


@router.get("/info")
def info(request: Request) -> Response:
    """What is here."""
    about = BaseInfoAttributes(
        api_version=__api_version__,
        available_api_versions=[AvailableApiVersion(url=f"{_base(request)}/{_MAJOR}", version=__api_version__)],
        formats=["json"],
        available_endpoints=["info", "links", "structures"],
        entry_types_by_format={"json": ["structures"]},
        is_index=False,
    )
    found = BaseInfoResource(id="/", type="info", attributes=about)
    return _one(request, found.model_dump(mode="json", exclude_unset=True))


@router.get("/info/structures")
def info_structures(request: Request) -> Response:
    """The properties of structures."""
    about = EntryInfoResource(
        id="structures",
        type="info",
        formats=["json"],
        description=_ABOUT,
        properties=definitions(),
        output_fields_by_format={"json": list(PROPERTIES)},
    )
    return _one(request, about.model_dump(mode="json", exclude_unset=True))


@router.get("/links")
def links(request: Request) -> Response:
    """The database itself, which belongs to no other."""
    about = LinksResourceAttributes(
        name=_PROVIDER.name,
        description=_ABOUT,
        base_url=_base(request),
        homepage=None,
        link_type="root",
    )
    entry = LinksResource(id=PREFIX, type="links", attributes=about)
    return _answer(request, [entry.model_dump(mode="json", exclude_unset=True)], returned=1, available=1)


@router.get("/structures")
def structures(request: Request, asked: Annotated[EntryListingQueryParams, Depends()]) -> Response:
    """A page of the relaxed crystals that a filter is true of."""
    _check(request, asked)
    for name in _OTHER_PAGES:
        if name in request.query_params:
            raise NotImplementedResponse(f"Pages are asked for by page_offset here, not by {name}.")
    if asked.page_limit > LARGEST_PAGE:
        raise Forbidden(f"A page holds at most {LARGEST_PAGE} entries here.")
    warnings: list[str] = []
    state, table = _table(request)
    here = served(table)
    rows = _sorted(table, here & matching(table, asked.filter, warnings) if asked.filter else here, asked.sort)
    last = asked.page_offset + (asked.page_limit or PAGE)
    page = rows[asked.page_offset : last].tolist()
    found = entries(state.store, table, page, _fields(asked), warnings)
    following = str(request.url.include_query_params(page_offset=last)) if last < len(rows) else None
    return _answer(
        request, found, returned=len(rows), available=int(here.sum()), following=following, warnings=warnings
    )


@router.get("/structures/{key:path}")
def structure(request: Request, key: str, asked: Annotated[SingleEntryQueryParams, Depends()]) -> Response:
    """A relaxed crystal."""
    _check(request, asked)
    warnings: list[str] = []
    state, table = _table(request)
    place = table.places.get(key)
    if place is None or not served(table)[place]:
        raise NotFound("There is no such entry.")
    [found] = entries(state.store, table, [place], _fields(asked), warnings)
    return _one(request, found, warnings)


def _versions() -> Response:
    return Response(f"version\n{_MAJOR[1:]}\n", media_type="text/csv; header=present")


def _elsewhere(version: str, rest: str) -> Response:
    del rest
    if version[:1] == "v" and version[1:2].isdigit() and version != _MAJOR:
        raise VersionNotSupported(f"This server knows the version {_MAJOR} of OPTIMADE.")
    raise NotFound("There is nothing at this address.")


def _base(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{MOUNTED}"


def _check(request: Request, asked: BaseQueryParams) -> None:
    """Raise BadRequest for what nobody here understands."""
    for name in request.query_params:
        if name not in vars(asked) and (not name.startswith("_") or name.startswith(OWN)):
            raise BadRequest(f"There is no parameter '{name}'.")
    if asked.response_format != "json":  # type: ignore[attr-defined]
        raise BadRequest("Answers are given as json alone.")
    for kind in asked.include.split(","):  # type: ignore[attr-defined]
        if kind not in {"", "references", "structures"}:
            raise BadRequest(f"There are no related entries of the kind '{kind}'.")


def _table(request: Request) -> tuple[State, Table]:
    state = state_of(request)
    if not state.live.complete:
        raise HTTPException(503, "The results are still being read: ask again in a moment.", {"retry-after": "5"})
    return state, state.live.table


def _sorted(table: Table, chosen: np.ndarray, sort: str) -> np.ndarray:
    """Numbers of the chosen rows, in the order in which they came unless another is asked for.

    Raises:
        BadRequest: nothing can be sorted by that.
        NotImplementedResponse: it names several properties.
    """
    if not sort:
        return np.flatnonzero(chosen)
    if "," in sort:
        raise NotImplementedResponse("Entries can be sorted by one property here.")
    name = sort.removeprefix("-")
    known = PROPERTIES.get(name)
    if known is None or known.order is None:
        raise BadRequest(f"Entries cannot be sorted by '{name}'; /info/structures says which properties are sortable.")
    return ordered(table, chosen, known.order, down=sort.startswith("-"))


def _fields(asked: EntryListingQueryParams | SingleEntryQueryParams) -> Iterable[str]:
    return dict.fromkeys(asked.response_fields.split(",")) if asked.response_fields else PROPERTIES


def _one(request: Request, data: dict[str, Any], warnings: Sequence[str] = ()) -> Response:
    return _answer(request, data, returned=1, available=1, warnings=warnings)


def _answer(
    request: Request,
    data: Any,
    *,
    returned: int,
    available: int,
    following: str | None = None,
    warnings: Sequence[str] = (),
) -> Response:
    about = _meta(request, more=following is not None) | {"data_returned": returned, "data_available": available}
    if warnings:
        told = [Warnings(type="warning", detail=each) for each in dict.fromkeys(warnings)]
        about["warnings"] = [each.model_dump(mode="json", exclude_unset=True) for each in told]
    return _json({"data": data, "included": [], "links": {"next": following}, "meta": about})


def _meta(request: Request, *, more: bool) -> dict[str, Any]:
    path = request.url.path.partition(MOUNTED)[2].removeprefix(f"/{_MAJOR}")
    query = f"?{request.url.query}" if request.url.query else ""
    return ResponseMeta(
        query=ResponseMetaQuery(representation=path + query),
        api_version=__api_version__,
        more_data_available=more,
        schema=_SCHEMA,
        response_message=_TOLD,
        time_stamp=datetime.now(UTC).replace(microsecond=0),
        provider=_PROVIDER,
        implementation=_IMPLEMENTATION,
    ).model_dump(mode="json", by_alias=True, exclude_unset=True)


def _error(request: Request, error: Exception) -> Response:
    """An error as OPTIMADE has it."""
    status, said = getattr(error, "status_code", 500), getattr(error, "detail", None) or str(error)
    if isinstance(error, RequestValidationError):
        status = 400
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
    elif isinstance(error, StoreError):
        status = 503
    told = OptimadeError(status=str(status), title=type(error).__name__, detail=said)
    errors = [told.model_dump(mode="json", exclude_unset=True)]
    answer = _json({"errors": errors, "meta": _meta(request, more=False)}, status)
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


def _json(found: dict[str, Any], status: int = 200) -> Response:
    answer = as_json(found, status)
    answer.headers["content-type"] = "application/vnd.api+json"
    return answer
