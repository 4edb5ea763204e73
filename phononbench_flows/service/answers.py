"""What routes answer with: JSON, files to save, and errors as sentences."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.results.query import QueryError
from phononbench_flows.store.collection import StoreError


def as_json(found: Any, status: int = 200) -> Response:
    """Plain values as JSON."""
    return Response(orjson.dumps(found), status, media_type="application/json")


def attachment(name: str) -> dict[str, str]:
    """The header by which a browser saves an answer under a name."""
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}


def add_errors(app: FastAPI) -> None:
    """Errors that a person can mend are answered by their sentence."""

    @app.exception_handler(QueryError)
    async def wrong_question(_: Request, error: QueryError) -> Response:
        return as_json({"detail": str(error)}, 400)

    @app.exception_handler(StoreError)
    async def no_store(_: Request, error: StoreError) -> Response:
        return as_json({"detail": str(error)}, 503)

    @app.exception_handler(PhononBenchError)
    async def not_possible(_: Request, error: PhononBenchError) -> Response:
        return as_json({"detail": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def wrong_address(_: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return as_json({"detail": said}, 400)
