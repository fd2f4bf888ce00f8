"""Listening: live sound over a WebSocket, and the archive as a WAV file. Each is written to the audit with who.

The format of the messages is in docs/station-api.md.
"""

import asyncio
import contextlib
import re
import struct
import threading
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from protocol import adpcm, kinds
from station import accounts, alarms, archive, wav
from station.console.answers import JSONResponse
from station.console.api import core_of, missing, principal_of
from station.console.gate import Principal
from station.live import Listener, Live, Pcm, decode
from station.model import Alarm, Capture
from station.plain import compact
from station.store import UNAVAILABLE
from station.work import Core

HEADER = struct.Struct(">BBHHHII")
MARK_S = 2.0
HEARING_S = 60.0  # in which all that one person hears of one alarm's archive is one line in the audit
HOLDS_S = 2.0  # how often a listener's session is looked at again
_LIVE = 1
_CLOSED, _MISSING, _SIGN_IN = 4409, 4404, 4403


class _Ear:
    """One connection: which captures it was told of, and what it was sent."""

    def __init__(self, socket: WebSocket, core: Core, alarm_id: int, operator: str) -> None:
        self.socket = socket
        self.core = core
        self.alarm_id = alarm_id
        self.operator = operator
        self._streams: dict[int, tuple[int, archive.CaptureInfo]] = {}
        self._ended: set[int] = set()
        self._marked_at: float | None = None

    async def say(self, **data: object) -> None:
        """A text message."""
        await self.socket.send_text(compact(data))

    async def send(self, pcm: list[Pcm], live: bool) -> None:
        """Sound, each capture announced before its first packet."""
        for item in pcm:
            if item.capture_id not in self._streams:
                await self._announce(item.capture_id)
            stream, info = self._streams[item.capture_id]
            head = HEADER.pack(
                1,
                _LIVE if live else 0,
                stream,
                info.number,
                0,
                item.number,
                item.number * adpcm.SAMPLES,
            )
            await self.socket.send_bytes(head + item.samples)

    async def _announce(self, capture_id: int) -> None:
        def look() -> archive.CaptureInfo:
            with self.core.read() as db:
                return archive.info(db.get_one(Capture, capture_id))

        info = await run_in_threadpool(look)
        stream = len(self._streams) + 1
        self._streams[capture_id] = (stream, info)
        await self.say(
            type="capture",
            stream=stream,
            boot=int.from_bytes(info.boot[:2], "big"),
            capture=info.number,
            started_at=info.started_at,
        )

    async def ends(self) -> None:
        """Say which captures have ended since the last time."""
        if len(self._ended) == len(self._streams):
            return

        def look() -> list[int]:
            with self.core.read() as db:
                return [info.id for info in archive.of_alarm(db, self.alarm_id) if info.ended]

        for capture_id in await run_in_threadpool(look):
            if capture_id in self._streams and capture_id not in self._ended:
                self._ended.add(capture_id)
                await self.say(type="end", stream=self._streams[capture_id][0])

    async def mark(self) -> None:
        """Sound has reached this client: the operator listens, and the badge may be told.

        Looked at again now and then, because another claim begins below listening.
        """
        now = asyncio.get_running_loop().time()
        if self._marked_at is not None and now - self._marked_at < MARK_S:
            return
        self._marked_at = now

        def look() -> None:
            with self.core.read() as db:
                alarm = db.get_one(Alarm, self.alarm_id)
                known = alarm.listening_at is not None and alarm.level != kinds.CLAIMED
            if known:
                return
            with self.core.work() as unit:
                found = unit.alarm(self.alarm_id)
                if found is not None:
                    alarms.listening(unit, found, self.operator)

        await run_in_threadpool(look)


async def listen(socket: WebSocket) -> None:
    """WebSocket /alarms/{id}/audio."""
    core: Core = socket.app.state.core
    live: Live = socket.app.state.live
    principal: Principal = socket.state.principal
    alarm_id: int = socket.path_params["id"]
    state = await run_in_threadpool(_log, core, alarm_id, principal.name, "listen_in")
    if state != "open":
        await socket.close(_CLOSED if state == "closed" else _MISSING, f"the alarm is {state}")
        return
    listener = live.open(alarm_id)
    try:
        await socket.accept()
        ear = _Ear(socket, core, alarm_id, principal.name)
        await ear.say(type="hello", rate=adpcm.RATE, alarm=alarm_id)
        sender = asyncio.create_task(_send(ear, listener, socket.query_params.get("from") == "start"))
        with contextlib.suppress(WebSocketDisconnect):
            await _until_gone(socket, sender, asyncio.create_task(_session_holds(core, principal)))
    finally:
        live.close(listener)
        await run_in_threadpool(_log, core, alarm_id, principal.name, "listen_out")


async def _until_gone(socket: WebSocket, sender: asyncio.Task[None], session: asyncio.Task[None]) -> None:
    receiver = asyncio.create_task(_ignore(socket))
    done, pending = await asyncio.wait({sender, receiver, session}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
    if sender in done:
        await socket.close()
    elif receiver not in done:
        await socket.close(_SIGN_IN, "sign in first")


async def _session_holds(core: Core, principal: Principal) -> None:
    """Ends when the session has: signed out, too old, or another password."""

    def over() -> bool:
        with core.read() as db:
            return not accounts.holds(db, principal.session or "", core.clock.now())

    while True:
        await asyncio.sleep(HOLDS_S)
        # what the database cannot say now it says the next time: sound is not cut off for that
        with contextlib.suppress(*UNAVAILABLE):
            if await run_in_threadpool(over):
                return


async def _ignore(socket: WebSocket) -> None:
    """Nothing that a listener says means anything; reading notices that it is gone."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _send(ear: _Ear, listener: Listener, from_start: bool) -> None:
    # what comes while the archive is sent is in both
    sent = await _send_archive(ear) if from_start else set()
    while not listener.closed:
        pcm = [p for p in await listener.next() if (p.capture_id, p.number) not in sent]
        if pcm:
            await ear.send(pcm, live=True)
            await ear.mark()
        await ear.ends()
    await ear.say(type="closed")


async def _send_archive(ear: _Ear) -> set[tuple[int, int]]:
    """All that is stored; gives which packets (capture row, number) that was."""
    sent: set[tuple[int, int]] = set()

    def captures() -> list[archive.CaptureInfo]:
        with ear.core.read() as db:
            return archive.of_alarm(db, ear.alarm_id)

    def block(info: archive.CaptureInfo, after: int) -> list[Pcm]:
        with ear.core.read() as db:
            keys = ear.core.keyring.by_row(db, info.key_id)
            packets = archive.packets(db, keys, info, after, limit=80)
        return [Pcm(info.id, number, decode(packet)) for number, packet in packets]

    for info in await run_in_threadpool(captures):
        after = -1
        while pcm := await run_in_threadpool(block, info, after):
            await ear.send(pcm, live=False)
            after = pcm[-1].number
            sent.update((p.capture_id, p.number) for p in pcm)
            await ear.mark()
    return sent


def _log(core: Core, alarm_id: int, operator: str, what: str) -> str:
    """Write a listen-in's begin or end; gives the alarm's state: open, closed or unknown."""
    with core.work() as work:
        alarm = work.alarm(alarm_id)
        if alarm is None:
            return "unknown"
        if alarm.closed_at is not None and what == "listen_in":
            return "closed"
        work.log(alarm, what, operator)
        work.audit(operator, what.replace("_", " "), f"alarm:{alarm_id}")
        return "open"


# --- the archive as a file --------------------------------------------------------------------------------------


class Hearings:
    """Who heard which archive, in the audit. A player asks for many parts: within a minute they are one hearing.

    `timer` gives seconds that only grow.
    """

    def __init__(self, core: Core, timer: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._timer = timer
        self._noted: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def note(self, who: str, alarm_id: int) -> None:
        """Somebody is about to hear a part of an alarm's sound, whichever part."""
        now = self._timer()
        with self._lock:
            self._noted = {key: at for key, at in self._noted.items() if now - at < HEARING_S}
            known = (who, alarm_id) in self._noted
        if known:
            return
        with self._core.work() as work:
            work.audit(who, "archive heard", f"alarm:{alarm_id}")
        with self._lock:
            self._noted[who, alarm_id] = now


async def wav_file(request: Request) -> Response:
    """GET /alarms/{id}/audio.wav, with ranges, so that a player can jump in it."""
    core, principal = core_of(request), principal_of(request)
    hearings: Hearings = request.app.state.hearings
    if not principal.person:
        return JSONResponse({"error": "only a signed-in operator may hear this"}, 403)
    alarm_id = request.path_params["id"]
    number = request.query_params.get("capture", "")
    wanted = int(number) if number.isdecimal() and len(number) < 8 else None
    most = request.query_params.get("packets", "")
    limit = int(most) if most.isdecimal() and len(most) < 10 else None

    def look() -> list[wav.Extent] | None:
        with core.read() as db:
            return None if db.get(Alarm, alarm_id) is None else wav.extents(db, alarm_id, wanted, limit)

    found = await run_in_threadpool(look)
    if found is None:
        return missing("alarm")
    size = wav.size(found)
    first, last, status = _range(request.headers.get("range"), size)
    holes = [last_hole - first_hole + 1 for e in found for first_hole, last_hole in e.holes]
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(last - first + 1 if status != 416 else 0),
        "X-Tocsin-Packets": str(sum(e.length for e in found)),
        "X-Tocsin-Gaps": str(len(holes)),
        "X-Tocsin-Gap-Seconds": f"{sum(holes) * adpcm.SAMPLES / adpcm.RATE:.3f}",
        "Content-Disposition": f'inline; filename="alarm-{alarm_id}.wav"',
    }
    if status != 200:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}" if status == 206 else f"bytes */{size}"
    if status == 416 or request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="audio/wav")
    # first the line in the log, then the sound: whoever cannot be noted hears nothing
    await run_in_threadpool(hearings.note, principal.name, alarm_id)
    body = wav.render(core.read, core.keyring, found, first, last)
    return StreamingResponse(body, status, headers, media_type="audio/wav")


def _range(text: str | None, size: int) -> tuple[int, int, int]:
    """First and last byte, and the status: 200 for the whole, 206 for a part, 416 for none."""
    if text is None:
        return 0, size - 1, 200
    match = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", text.strip())
    if match is None or match.group(1) == match.group(2) == "":
        return 0, size - 1, 200
    if match.group(1) == "":
        return max(size - int(match.group(2)), 0), size - 1, 206
    first = int(match.group(1))
    last = min(int(match.group(2)), size - 1) if match.group(2) else size - 1
    return (first, last, 206) if first <= last else (0, 0, 416)
