"""The station's web application without a server: requests as the server would hand them over, clients that stall."""

import asyncio
import secrets
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

from station_world import World

from station import accounts
from station.console.app import build
from station.live import Live
from station.model import WebSession
from station.run import Station

TOKEN = "token-for-tests-0123456789"


class Web:
    """The application of a world's station."""

    def __init__(self, world: World) -> None:
        world.config.station.api_token = TOKEN
        self.world = world
        self.live = Live()
        world.core.on_commit(self.live.committed)
        parts = SimpleNamespace(
            core=world.core,
            config=world.config,
            live=self.live,
            bus=SimpleNamespace(connected=True, dropped=0),
            worker=SimpleNamespace(waiting=0),
        )
        self.app = build(cast(Station, parts))

    def session(self, name: str = "op1") -> dict[str, str]:
        """The header of a signed-in operator, without the cost of a real password."""
        self.world.operator(name)
        token = secrets.token_urlsafe(16)
        with self.world.core.work() as work:
            row = WebSession(token_hash=accounts._token_hash(token), operator=name, made_at=work.now, used_at=work.now)
            work.db.add(row)
        return {"cookie": f"tocsin_session={token}"}

    def request(
        self, path: str, headers: dict[str, str], takes: int | None = None, method: str = "GET", body: bytes = b""
    ) -> "Request":
        """A request under way. `takes`: after so many messages the client takes no more, and stays."""
        return Request(self, path, headers, takes, method, body)

    async def get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body of what ends."""
        return await self._ended(self.request(path, headers))

    async def press(self, page: str, action: str, headers: dict[str, str], **typed: str) -> tuple[int, bytes]:
        """Send a form of a page that was shown, as a browser does: with its hidden fields and what is typed into it."""
        body = urlencode({**_Form(page, action).fields, **typed}).encode()
        kind = {"origin": "http://x", "content-type": "application/x-www-form-urlencoded"}
        return await self._ended(self.request(action, {**headers, **kind}, method="POST", body=body))

    @staticmethod
    async def _ended(request: "Request") -> tuple[int, bytes]:
        async with asyncio.timeout(60):
            await request.task
        return request.status, request.body


class _Form(HTMLParser):
    """The hidden fields of the form of a page that is sent to `action`."""

    def __init__(self, page: str, action: str) -> None:
        super().__init__()
        self._action, self._within = action, False
        self.fields: dict[str, str] = {}
        self._found = False
        self.feed(page)
        assert self._found, f"no form for {action}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and given.get("action") == self._action:
            self._within = self._found = True
        elif tag == "input" and self._within and given.get("type") == "hidden":
            self.fields[given["name"] or ""] = given["value"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._within = self._within and tag != "form"


class Request:
    """One request; `task` ends with the answer."""

    def __init__(
        self, web: Web, path: str, headers: dict[str, str], takes: int | None, method: str, body: bytes
    ) -> None:
        self.said: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self._grown = asyncio.Condition()
        self._takes = takes
        self._asked = False
        pairs = [(name.encode(), value.encode()) for name, value in {"host": "x", **headers}.items()]
        kind = "websocket" if method == "WS" else "http"
        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": pairs,
            "scheme": "ws" if kind == "websocket" else "http",
            "server": ("x", 80),
            "client": ("127.0.0.1", 5),
        }
        self._first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": body}
        self._last = {"type": f"{kind}.disconnect", "code": 1006}
        self.task = asyncio.create_task(web.app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return self._first
        await self.left.wait()
        return self._last

    async def _send(self, message: Any) -> None:
        self.said.append(message)
        async with self._grown:
            self._grown.notify_all()
        if self._takes is not None and len(self.said) >= self._takes:
            await self.left.wait()

    async def has(self, number: int) -> None:
        """Waits until so many messages have come."""
        async with self._grown:
            await self._grown.wait_for(lambda: len(self.said) >= number)

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self.said[0]["status"])

    @property
    def body(self) -> bytes:
        """What came of the answer."""
        return b"".join(m.get("body", b"") for m in self.said if m["type"] == "http.response.body")

    async def end(self) -> None:
        """The client goes."""
        self.left.set()
        async with asyncio.timeout(20):
            await self.task
