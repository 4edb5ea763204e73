"""The pages and what they are made of. Their markup holds nothing of a store: scripts ask the API for it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from phononbench_flows import __version__, views
from phononbench_flows.report.compact import element_looks

_TYPES = {
    "css": "text/css",
    "js": "text/javascript",
    "json": "application/json",
    "html": "text/html",
    "svg": "image/svg+xml",
}


def _of(package: str, name: str) -> Callable[[], str]:
    return lambda: files(package).joinpath(name).read_text(encoding="utf-8")


_REPORT, _VIEWS, _OWN = "phononbench_flows.report", "phononbench_flows.views", "phononbench_flows.service.static"
_ASSETS: dict[str, Callable[[], str]] = {
    "page.css": _of(_REPORT, "page.css"),
    "shared.css": _of(_VIEWS, "shared.css"),
    "text.js": _of(_REPORT, "text.js"),
    **{name: _of(_VIEWS, name) for name in views.SCRIPTS},
    "3Dmol.js": views.viewer_library,
    "plotly.js": views.chart_library,
    "elements.json": lambda: json.dumps({symbol: asdict(look) for symbol, look in element_looks().items()}),
    **{
        name: _of(_OWN, name)
        for name in (
            *("service.css", "common.js", "explorer.js", "crystal.js", "sets.js", "upload.js", "api.js", "icon.svg"),
        )
    },
}
_PAGES = {
    "/": "explorer.html",
    "/crystals/{key}": "crystal.html",
    "/sets": "sets.html",
    "/upload": "upload.html",
    "/uploads/{identifier}": "upload.html",
    "/api": "api.html",
}


def add_pages(app: FastAPI) -> None:
    """Add the pages and their assets to an application."""
    for path, name in _PAGES.items():
        app.get(path, include_in_schema=False)(_page(name))
    app.get("/static/{name}", include_in_schema=False)(_asset)


def _page(name: str) -> Callable[[Request], Response]:
    # The address of an asset changes with its content, so that browsers may keep it.
    def answer(request: Request) -> Response:
        text = _of(_OWN, name)()
        for asset in _ASSETS:
            text = text.replace(f'/static/{asset}"', f'/static/{asset}?{_stamp(asset)}"')
        return _answer(request, text.encode(), "html", {"cache-control": "no-cache"})

    return answer


def _asset(request: Request, name: str) -> Response:
    if name not in _ASSETS:
        raise HTTPException(404, "There is no such file.")
    return _answer(request, _bytes(name), name.rpartition(".")[2], {"cache-control": "private, max-age=31536000"})


@cache
def _bytes(name: str) -> bytes:
    return _ASSETS[name]().encode()


@cache
def _stamp(name: str) -> str:
    return hashlib.sha256(_bytes(name) + __version__.encode()).hexdigest()[:12]


@cache
def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def _answer(request: Request, data: bytes, ending: str, headers: dict[str, str]) -> Response:
    kind = _TYPES[ending] + "; charset=utf-8"
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(data, media_type=kind, headers=headers)
    return Response(
        _packed(data), media_type=kind, headers=headers | {"content-encoding": "gzip", "vary": "accept-encoding"}
    )
