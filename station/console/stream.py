"""Server-sent events: every commit's notices to every console, and a tick each second that proves it."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from station import views
from station.console.gate import Principal, compact
from station.model import Alarm
from station.queueing import open_first
from station.work import Committed, Core, Notice

TICK_S = 1.0
QUEUE_MAX = 1000  # events that a console may be behind before it is cut off, to connect again with a snapshot


class Subscriber:
    """One connected console."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Notice | None] = asyncio.Queue(QUEUE_MAX)
        self.loop = asyncio.get_running_loop()

    def offer(self, notice: Notice | None) -> None:
        """Called in the event loop; None ends the stream."""
        try:
            self.queue.put_nowait(notice)
        except asyncio.QueueFull:
            # better no console than one that is behind and does not know it
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)


class Broadcast:
    """All consoles. Add `committed` to the core's listeners."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def committed(self, out: Committed) -> None:
        """Hand a commit's notices on; from any thread."""
        self._all(list(out.notices))

    def end(self) -> None:
        """The station stops: streams end, and browsers say that they receive nothing."""
        self._all([None])

    def _all(self, notices: list[Notice] | list[None]) -> None:
        if not notices:
            return
        with self._lock:
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            for notice in notices:
                subscriber.loop.call_soon_threadsafe(subscriber.offer, notice)

    def subscribe(self) -> Subscriber:
        """A new console."""
        subscriber = Subscriber()
        with self._lock:
            self._subscribers.append(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """A console is gone."""
        with self._lock:
            self._subscribers.remove(subscriber)

    def number(self) -> str:
        """A name for a console."""
        return f"c{next(self._numbers)}"


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {compact(data)}\n\n"


def _snapshot(core: Core) -> list[dict[str, Any]]:
    with core.read() as db:
        rows = db.scalars(select(Alarm).where(Alarm.closed_at.is_(None)).order_by(*open_first()))
        return [views.alarm(db, row) for row in rows]


async def events(request: Request) -> StreamingResponse:
    """GET /events."""
    core: Core = request.app.state.core
    broadcast: Broadcast = request.app.state.broadcast
    principal: Principal = request.state.principal
    # subscribed before the snapshot is taken, so that nothing falls between the two
    subscriber = broadcast.subscribe()

    async def stream() -> AsyncIterator[str]:
        try:
            console = broadcast.number()
            who = principal.name if principal.person else None
            yield _event("hello", {"at": core.clock.now(), "console": console, "operator": who})
            alarms = await run_in_threadpool(_snapshot, core)
            yield _event("snapshot", {"alarms": alarms, "at": core.clock.now()})
            shown = {alarm["id"]: alarm["version"] for alarm in alarms}
            async for text in _follow(core, subscriber, shown):
                yield text
        finally:
            broadcast.unsubscribe(subscriber)

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


async def _follow(core: Core, subscriber: Subscriber, shown: dict[int, int]) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        if loop.time() >= due:
            due = max(due + TICK_S, loop.time())
            yield _event("tick", {"at": core.clock.now()})
        try:
            async with asyncio.timeout_at(due):
                notice = await subscriber.queue.get()
        except TimeoutError:
            continue
        if notice is None:
            return
        if notice.event == "alarm":
            alarm = notice.data["alarm"]
            if alarm["version"] <= shown.get(alarm["id"], -1):
                continue  # committed before the snapshot was taken
        yield _event(notice.event, notice.data)
