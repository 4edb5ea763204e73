"""The pages and what they are made of. Their markup holds nothing of a store: scripts ask the API for it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from string import Template

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


@dataclass(frozen=True)
class _Page:
    """A page: what stands in its frame is ``name.html``, and its own script ``name.js``."""

    name: str
    title: str
    libraries: tuple[str, ...] = ()

    def text(self) -> str:
        scripts = ("common.js", "text.js", *self.libraries, f"{self.name}.js")
        return Template(_of(_OWN, "frame.html")()).substitute(
            title=self.title,
            scripts="".join(f'<script defer src="/static/{script}"></script>\n' for script in scripts),
            main=_of(_OWN, f"{self.name}.html")(),
        )


_UPLOAD = _Page("upload", "Upload")
_PAGES = {
    "/": _Page("explorer", "Crystals"),
    "/crystals/{key}": _Page("crystal", "Crystal", ("plotly.js", "3Dmol.js", *views.SCRIPTS)),
    "/sets": _Page("sets", "Sets"),
    "/upload": _UPLOAD,
    "/uploads/{identifier}": _UPLOAD,
    "/api": _Page("api", "API"),
}


def add_pages(app: FastAPI) -> None:
    """Add the pages and their assets to an application."""
    for path, page in _PAGES.items():
        app.get(path, include_in_schema=False)(_answering(page))
    app.get("/static/{name}", include_in_schema=False)(_asset)


def _answering(page: _Page) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return _answer(request, _stamped(page), "html", {"cache-control": "no-cache"})

    return answer


@cache
def _stamped(page: _Page) -> bytes:
    # The address of an asset changes with its content, so that browsers may keep it.
    text = page.text()
    for asset in _ASSETS:
        text = text.replace(f'/static/{asset}"', f'/static/{asset}?{_stamp(asset)}"')
    return text.encode()


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
