"""What happens to a badge, as events with the time of CLOCK_MONOTONIC, for the panel, drills and tests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

HISTORY = 2000
_QUEUE = 5000  # a listener that falls this far behind is cut off: it would not see the present anyway

Event = dict[str, Any]


class Bus:
    """Keeps the recent events and hands each to every listener."""

    def __init__(self) -> None:
        self.history: deque[Event] = deque(maxlen=HISTORY)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._number = 0

    def emit(self, kind: str, *, at: float | None = None, **fields: Any) -> Event:
        """Tell of an event of this type; `at` in seconds of CLOCK_MONOTONIC, by default now."""
        self._number += 1
        stamp = time.monotonic() if at is None else at
        event: Event = {**fields, "n": self._number, "at": stamp, "type": kind}
        self.history.append(event)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
        return event

    @property
    def last(self) -> int:
        """The number of the latest event."""
        return self._number

    def listen(self, after: int = 0) -> asyncio.Queue[Event | None]:
        """A queue of the events numbered above `after`, kept ones first; None in it means cut off."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_QUEUE)
        for event in self.history:
            if event["n"] > after:
                queue.put_nowait(event)
        self._listeners.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[Event | None]) -> None:
        """Stop listening."""
        self._listeners.discard(queue)

    def close(self) -> None:
        """Cut every listener off."""
        for queue in self._listeners:
            if not queue.full():
                queue.put_nowait(None)
        self._listeners.clear()
