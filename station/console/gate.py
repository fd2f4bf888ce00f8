"""Who may come in: the session or token of a request, the Origin of what changes something, headers of what leaves.

One ASGI layer before all routes, so that no page can forget it. It also limits bodies and answers errors.
"""

import hmac
import logging
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from station import accounts
from station.console.answers import JSONResponse
from station.store import UNAVAILABLE, VISITOR
from station.work import Core

logger = logging.getLogger("station.console")

COOKIE = "tocsin_session"
BODY_MAX = 65_536
_LATER = 1013  # of WebSocket's close codes: try again later
_PUBLIC = ("/login", "/static/", "/api/health")
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "media-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Principal:
    """Who asks: a signed-in operator, or a program with the token."""

    name: str
    person: bool
    session: str | None = field(default=None, repr=False)  # the cookie's value, to look again whether it still holds


class Gate:
    """The layer. `url` is the address in people's browsers where a proxy stands in between."""

    def __init__(self, app: ASGIApp, core: Core, token: str | None, url: str | None) -> None:
        self._app = app
        self._core = core
        self._token = token
        self._url = url.rstrip("/") if url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in, or answer."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        visit = VISITOR.set(True)
        try:
            await self._answer(scope, receive, send)
        finally:
            VISITOR.reset(visit)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        public = any(scope["path"].startswith(p) for p in _PUBLIC)
        # what anybody may load costs no look into the database
        try:
            principal = None if scope["path"].startswith("/static/") else await self._principal(headers)
        except UNAVAILABLE as error:
            logger.error("the database did not say who asks: %s", getattr(error, "orig", error))
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": _LATER, "reason": "the database does not answer"})
            else:
                await unavailable()(scope, receive, _with_headers(send, scope["path"]))
            return
        scope.setdefault("state", {})["principal"] = principal
        if scope["type"] == "websocket":
            await self._socket(scope, headers, receive, send)
            return
        refusal = self._refusal(scope, headers, principal, public)
        guarded = _with_headers(send, scope["path"])
        if refusal is None and scope["method"] not in _SAFE:
            body = await _whole_body(receive)
            if body is None:
                refusal = _too_long()
            else:
                receive = _again(body, receive)
        await (refusal or self._app)(scope, receive, guarded)

    async def _principal(self, headers: Headers) -> Principal | None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._token is not None:
            good = hmac.compare_digest(given.strip().encode(), self._token.encode())
            return Principal("api", person=False) if good else None
        token = session_token(headers)
        if token is None:
            return None
        name = await run_in_threadpool(accounts.operator_of, self._core, token)
        return Principal(name, person=True, session=token) if name is not None else None

    def own_origin(self, scope: Scope, headers: Headers) -> str:
        """What a browser on one of our own pages sends as Origin."""
        if self._url is not None:
            return self._url
        secure = scope.get("scheme") in ("https", "wss")
        return f"{'https' if secure else 'http'}://{headers.get('host', '')}"

    def _refusal(self, scope: Scope, headers: Headers, principal: Principal | None, public: bool) -> Response | None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_MAX:
            return _too_long()
        if scope["method"] not in _SAFE:
            origin = headers.get("origin")
            strange = origin is not None and origin != self.own_origin(scope, headers)
            # browsers always send it; programs with a token have no cookie that somebody could borrow
            missing = origin is None and principal is not None and principal.person
            if (strange or missing) and not (principal is not None and not principal.person):
                return JSONResponse({"error": "this request did not come from the station's own pages"}, 403)
        if principal is None and not public:
            if scope["method"] in _SAFE and "text/html" in headers.get("accept", ""):
                return RedirectResponse("/login?next=" + quote(scope["path"]), 303)
            return JSONResponse({"error": "sign in first, or send the API token"}, 401)
        return None

    async def _socket(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        principal = scope["state"]["principal"]
        if principal is None or not principal.person or headers.get("origin") != self.own_origin(scope, headers):
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": "sign in first"})
            return
        await self._app(scope, receive, send)


def session_token(headers: Headers) -> str | None:
    """The session cookie's value."""
    try:
        cookie: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return None
    found = cookie.get(COOKIE)
    return found.value if found is not None else None


def unavailable() -> Response:
    """503: what was asked for was not done."""
    return JSONResponse({"error": "the station's database did not take this: it was not done"}, 503)


def _too_long() -> Response:
    return JSONResponse({"error": f"a request has at most {BODY_MAX} bytes"}, 413)


async def _whole_body(receive: Receive) -> bytes | None:
    """The body, whatever length it was said to have; None for one over the limit."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body  # the client is gone, and whoever answers will notice
        piece: bytes = message.get("body", b"")
        body += piece
        if len(body) > BODY_MAX:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read already, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_headers(send: Send, path: str) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            # pages hold people's data; scripts and styles are asked for again, so that an update is taken at once
            headers.setdefault("Cache-Control", "no-cache" if path.startswith("/static/") else "no-store")
        await send(message)

    return guarded
