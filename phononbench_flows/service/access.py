"""Who may ask, and what a page may do: the token, the names of the host, and the headers of every answer."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phononbench_flows.service.settings import Settings

COOKIE = "phononbench_token"
POLICY = (
    # Plotly and 3Dmol style what they draw from script; pictures are saved through blobs.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_READING = ("GET", "HEAD", "OPTIONS")


class Access:
    """Refuses who may not ask, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        await (self.app if refused is None else refused)(scope, receive, with_headers)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # A page of elsewhere may have its name lead to this machine.
        if self.settings.hosts is not None and _name(host) not in self.settings.hosts:
            return JSONResponse({"detail": "This server does not go by that name."}, 421)
        origin = headers.get("origin")
        # What changes something comes from a page of ours, or from a program, which has no origin.
        if scope["method"] not in _READING and origin is not None and urlsplit(origin).netloc != host:
            return JSONResponse({"detail": "Uploads from pages of other sites are not taken."}, 403)
        return None if self.settings.token is None else self._without_token(scope, headers, self.settings.token)

    def _without_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["method"] == "GET" and any(_same(each, token) for each in given):
            # The address bar and the history should not hold it.
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
            return answer
        if any(_same(each, token) for each in _tokens(headers)):
            return None
        said = "This server asks for its token: open the address with ?token=... or send 'Authorization: Bearer ...'."
        return JSONResponse({"detail": said}, 401, {"www-authenticate": "Bearer"})


def _name(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _tokens(headers: Headers) -> Iterable[str]:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield value.strip()
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return
    if cookie is not None:
        yield cookie.value
