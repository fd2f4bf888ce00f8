"""The badge's panel: a page to click on, and the HTTP interface that the page and the drills use.

GET  /            the page
GET  /state       the badge as it is
GET  /events      server-sent events; `data` is one JSON object with `n`, `at` (CLOCK_MONOTONIC, s) and `type`
POST /do          {"do": ACT, ...}; answers when the act is complete
POST /provision   identity and settings, passed to the firmware's serial console
POST /console     {"line": ...}: any other line to the serial console
GET  /sounds      what the microphone can hear; POST /sounds?name=... a WAV (body), POST /hear {"name": ...}
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from firmware.emulator import microphone
from firmware.emulator.badge import Badge
from firmware.emulator.hand import BadAct

FOLDER = Path(__file__).resolve().parent / "panel"
KEEP_ALIVE_S = 10.0
BODY_LIMIT = 1 << 20
SOUND_LIMIT = 40 << 20
_NAME = re.compile(r"[^\w .-]+")


class Panel:
    """The panel of one badge."""

    def __init__(self, badge: Badge, sounds: dict[str, bytes], card: str = "") -> None:
        self.badge = badge
        self.card = card
        self.sounds = sounds
        self.hearing = next(iter(sounds), "")
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/state", self._state),
                Route("/events", self._events),
                Route("/do", self._do, methods=["POST"]),
                Route("/provision", self._provision, methods=["POST"]),
                Route("/console", self._console, methods=["POST"]),
                Route("/sounds", self._sounds),
                Route("/sounds", self._upload, methods=["POST"]),
                Route("/hear", self._hear, methods=["POST"]),
                Mount("/static", StaticFiles(directory=FOLDER)),
            ]
        )

    async def _page(self, _request: Request) -> Response:
        return FileResponse(FOLDER / "index.html")

    async def _state(self, _request: Request) -> Response:
        return JSONResponse({**self.badge.state(), "hearing": self.hearing, "card": self.card})

    async def _events(self, request: Request) -> Response:
        given = (
            request.headers.get("last-event-id")
            or request.query_params.get("after")
            or request.query_params.get("since")
            or "0"
        )
        after = int(given) if given.isdigit() and len(given) < 12 else 0
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(self._stream(after), media_type="text/event-stream", headers=headers)

    async def _stream(self, after: int) -> AsyncIterator[str]:
        queue = self.badge.bus.listen(after)
        try:
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        event = await queue.get()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    return
                yield f"id: {event['n']}\ndata: {json.dumps(event)}\n\n"
        finally:
            self.badge.bus.leave(queue)

    async def _do(self, request: Request) -> Response:
        body = await _object(request)
        if isinstance(body, str):
            return _refused(body)
        try:
            await self.badge.do(body)
        except BadAct as problem:
            return _refused(str(problem))
        return JSONResponse({"ok": True})

    async def _provision(self, request: Request) -> Response:
        body = await _object(request)
        if isinstance(body, str):
            return _refused(body)
        try:
            answer = await self.badge.provision(body)
        except BadAct as problem:
            return _refused(str(problem))
        return JSONResponse({"ok": True, **answer})

    async def _console(self, request: Request) -> Response:
        body = await _object(request)
        if isinstance(body, str):
            return _refused(body)
        line = body.get("line")
        if not isinstance(line, str) or "\n" in line:
            return _refused("'line' must be one line of text")
        self.badge.console(line)
        return JSONResponse({"ok": True})

    async def _sounds(self, _request: Request) -> Response:
        return JSONResponse({"sounds": list(self.sounds), "hearing": self.hearing})

    async def _upload(self, request: Request) -> Response:
        name = _NAME.sub("_", request.query_params.get("name", ""))[:80].strip()
        if not name:
            return _refused("a sound needs a name")
        data = await request.body()
        if len(data) > SOUND_LIMIT:
            return _refused("the file is too large")
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(data)
            file.flush()
            try:
                sound = await asyncio.to_thread(microphone.load, Path(file.name))
            except microphone.BadSound as problem:
                return _refused(str(problem).replace(file.name, name))
        self.sounds[name] = sound
        return self._listen_to(name)

    async def _hear(self, request: Request) -> Response:
        body = await _object(request)
        if isinstance(body, str):
            return _refused(body)
        if body.get("name") not in self.sounds:
            return _refused("no such sound")
        return self._listen_to(body["name"])

    def _listen_to(self, name: str) -> Response:
        self.hearing = name
        self.badge.microphone.sound = self.sounds[name]
        self.badge.bus.emit("hearing", name=name)
        return JSONResponse({"ok": True, "sounds": list(self.sounds), "hearing": name})


async def _object(request: Request) -> dict[str, Any] | str:
    """The JSON object of a request, or what is wrong with it."""
    body = await request.body()
    if len(body) > BODY_LIMIT:
        return "the request is too large"
    try:
        value = json.loads(body)
    except ValueError:
        return "the request is not JSON"
    return value if isinstance(value, dict) else "the request is not a JSON object"


def _refused(why: str) -> Response:
    return JSONResponse({"ok": False, "error": why}, status_code=400)
