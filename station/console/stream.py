"""Server-sent events: every commit's notices to every console, and a tick each second that proves it.

Whatever a console was not told of (a commit of another worker whose word was lost) it is told of within seconds: each
stream compares what it has said with what is open.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from station import accounts, views
from station.console.gate import Principal
from station.model import Alarm
from station.plain import compact
from station.queueing import open_first
from station.store import UNAVAILABLE
from station.work import Committed, Core, Notice

logger = logging.getLogger("station.console")

TICK_S = 1.0
LOOK_S = 2.0  # how often a stream compares what its console was told with what is open
PROVEN_S = 4.0  # after the last such look the ticks end: they would prove nothing
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

    async def stream() -> AsyncIterator[str]:
        # subscribed before the snapshot is taken, so that nothing falls between the two
        subscriber = broadcast.subscribe()
        try:
            console = broadcast.number()
            who = principal.name if principal.person else None
            yield "retry: 1000\n\n"  # until a browser that lost the stream connects again
            yield _event("hello", {"at": core.clock.now(), "console": console, "operator": who})
            alarms = await run_in_threadpool(_snapshot, core)
            yield _event("snapshot", {"alarms": alarms, "at": core.clock.now()})
            async for text in _follow(core, principal, subscriber, _Shown(alarms)):
                yield text
        finally:
            broadcast.unsubscribe(subscriber)

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


class _Shown:
    """What one console was told of each alarm: nothing older after something newer, and `raised` exactly once.

    With several workers news come in more than one order.
    """

    def __init__(self, snapshot: list[dict[str, Any]]) -> None:
        self._versions = {alarm["id"]: alarm["version"] for alarm in snapshot}
        self._from_snapshot = set(self._versions)
        self._open = set(self._versions)

    def change(self, alarm: dict[str, Any], change: str) -> str | None:
        """What to call this change, or None when the console knows it already."""
        number, version = alarm["id"], alarm["version"]
        known = self._versions.get(number)
        if known is None:
            change = "raised" if alarm["open"] else change
        elif version < known or change == "raised":
            return None
        if version == known and number in self._from_snapshot:
            return None
        self._know(alarm)
        self._from_snapshot.discard(number)
        return change

    def behind(self, versions: dict[int, int]) -> set[int]:
        """Alarms of which this console does not know the newest, given the version of each one that is open.

        What is on its way counts as well: only what is still missing at the next look was missed.
        """
        newer = {number for number, version in versions.items() if self._versions.get(number, -1) < version}
        return newer | (self._open - versions.keys())

    def missed(self, alarm: dict[str, Any]) -> str | None:
        """What to call an alarm as it stands in the database now, or None when the console knows it already."""
        known = self._versions.get(alarm["id"])
        if known is not None and known >= alarm["version"]:
            return None
        self._know(alarm)
        self._from_snapshot.add(alarm["id"])  # should word of this version come after all, it is known
        if not alarm["open"]:
            return "closed"
        return "raised" if known is None else "missed"

    def _know(self, alarm: dict[str, Any]) -> None:
        self._versions[alarm["id"]] = alarm["version"]
        if alarm["open"]:
            self._open.add(alarm["id"])
        else:
            self._open.discard(alarm["id"])


@dataclass(frozen=True)
class _Found:
    """What a look into the database found."""

    session: bool  # it still holds; always true for a program
    versions: dict[int, int]  # of each open alarm
    alarms: list[dict[str, Any]]  # those that were asked for


def _look(core: Core, principal: Principal, wanted: set[int]) -> _Found:
    with core.read() as db:
        holds = principal.session is None or accounts.holds(db, principal.session, core.clock.now())
        open_ones = db.execute(select(Alarm.id, Alarm.version).where(Alarm.closed_at.is_(None)))
        versions = {row.id: row.version for row in open_ones}
        rows = db.scalars(select(Alarm).where(Alarm.id.in_(wanted))) if wanted else ()
        return _Found(holds, versions, [views.alarm(db, row) for row in rows])


async def _follow(core: Core, principal: Principal, subscriber: Subscriber, shown: _Shown) -> AsyncIterator[str]:
    """What comes, and ticks; and now and then a look whether something did not come.

    A tick says that the console knows what the database knows, so there is none while nobody can look.
    """
    loop = asyncio.get_running_loop()
    due = looked = began = loop.time()
    look: asyncio.Task[_Found] | None = None
    behind: set[int] = set()
    try:
        while True:
            if loop.time() >= due:
                due = max(due + TICK_S, loop.time())
                if look is not None and look.done():
                    found, look = _result(look), None
                    if found is not None:
                        if not found.session:
                            return
                        looked = loop.time()
                        for alarm in found.alarms:
                            change = shown.missed(alarm)
                            if change is not None:
                                logger.warning("a console had missed a change of alarm %d", alarm["id"])
                                yield _event("alarm", {"alarm": alarm, "change": change})
                        behind = shown.behind(found.versions)
                if look is None and loop.time() - began >= LOOK_S:
                    began = loop.time()
                    look = asyncio.create_task(run_in_threadpool(_look, core, principal, behind))
                if loop.time() - looked < PROVEN_S:
                    yield _event("tick", {"at": core.clock.now()})
            try:
                async with asyncio.timeout_at(due):
                    notice = await subscriber.queue.get()
            except TimeoutError:
                continue
            if notice is None:
                return
            if notice.event == "alarm":
                change = shown.change(notice.data["alarm"], notice.data["change"])
                if change is not None:
                    yield _event("alarm", {**notice.data, "change": change})
            else:
                yield _event(notice.event, notice.data)
    finally:
        if look is not None:
            look.cancel()


def _result(look: asyncio.Task[_Found]) -> _Found | None:
    try:
        return look.result()
    except UNAVAILABLE as error:
        logger.error("what is open could not be looked up: %s", getattr(error, "orig", error))
        return None
