"""What waits to be sent to the station, in memory: which row next, and when again.

Alarms first, then the oldest. A row leaves only by a receipt, so what is sent is sent again until one comes; the
waits get longer, because a station that did not answer twice is down and will say when it is back.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hub.outbox import Key, Row
from protocol import kinds, relay

# ms from a sending to the next, the last one repeated. 2 s: four times what a busy station takes to commit.
RESEND_ALARM_MS = (2000, 2000, 3000, 4000)  # an alarm never waits longer than its wearer's own "not delivered"
RESEND_MS = (2000, 4000, 8000, 16000, 30000)
OUT_MS = 2000  # how long a row that was sent and has no receipt counts as being with the station
ROWS_MAX = 20_000  # a badge makes some hundred events a day; alarms are never refused
BEACONS_MAX = 64  # rows that anybody with a stolen group key could make: the oldest makes room


@dataclass(slots=True)
class _Waiting:
    row: Row
    next_ms: int
    sent: int = 0
    asked_ms: int | None = None  # when it was sent for the first time, also by an earlier copy


@dataclass(slots=True)
class Added:
    """What became of a row: whether it is a new event (not a fresher copy), and the rows that made room for it."""

    new: bool
    dropped: list[Row] = field(default_factory=list)


class Queue:
    """Rows by key. Times are ms of the hub's clock."""

    def __init__(self) -> None:
        self._rows: dict[Key, _Waiting] = {}
        self._position = 0
        self._out: deque[tuple[int, Key]] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def restore(self, rows: Iterable[Row], now_ms: int) -> None:
        """Rows from the disk; all are due now."""
        for row in rows:
            self._rows[row.key] = _Waiting(row, now_ms)
            self._position = max(self._position, row.position)

    def place(self, badge: int, ident: bytes, form: int) -> int:
        """The position for a row: that of an earlier copy, else the next one."""
        if waiting := self._rows.get((badge, ident, form)):
            return waiting.row.position
        self._position += 1
        return self._position

    def add(self, row: Row, now_ms: int) -> Added:
        """Put a row in the queue, due now; it replaces an earlier copy."""
        earlier = self._rows.get(row.key)
        added = Added(earlier is None)
        self._rows[row.key] = _Waiting(row, now_ms, asked_ms=earlier.asked_ms if earlier else None)
        if added.new:
            if row.form == relay.BEACON:
                beacons = [w.row for w in self._rows.values() if w.row.form == relay.BEACON]
                if len(beacons) > BEACONS_MAX:
                    added.dropped.append(min(beacons, key=lambda r: r.position))
            elif len(self._rows) > ROWS_MAX:
                lesser = [w.row for w in self._rows.values() if kinds.priority(w.row.kind) != kinds.PRIORITY_ALARM]
                if lesser:
                    added.dropped.append(max(lesser, key=lambda r: (kinds.priority(r.kind), -r.position)))
            for dropped in added.dropped:
                del self._rows[dropped.key]
        return added

    def retire(self, badge: int, ident: bytes, forms: Iterable[int] = (relay.EVENT, relay.BEACON)) -> list[Key]:
        """Remove the rows of an event that the station has answered; gives their keys."""
        gone = []
        for form in forms:
            key = (badge, ident, form)
            if self._rows.pop(key, None):
                gone.append(key)
        return gone

    def due(self, now_ms: int, limit: int) -> list[Row]:
        """The rows to send now, at most `limit`, in order."""
        ready = (w.row for w in self._rows.values() if w.next_ms <= now_ms)
        return heapq.nsmallest(limit, ready, key=_order)

    def sent(self, row: Row, now_ms: int) -> None:
        """A row was handed to the broker; it is due again later."""
        waiting = self._rows.get(row.key)
        if waiting is None:
            return
        alarm = kinds.priority(row.kind) == kinds.PRIORITY_ALARM
        waits = RESEND_ALARM_MS if alarm else RESEND_MS
        waiting.next_ms = now_ms + waits[min(waiting.sent, len(waits) - 1)]
        waiting.sent += 1
        if waiting.asked_ms is None:
            waiting.asked_ms = now_ms
        self._out.append((now_ms, row.key))

    def out(self, now_ms: int) -> int:
        """How many rows the station has been given lately and has not answered: what the next one would wait behind.

        A broker takes whatever it is given, so its acknowledgements say nothing about that. A row that the station
        never answers counts for OUT_MS and holds up nothing for longer.
        """
        while self._out and (now_ms - self._out[0][0] >= OUT_MS or self._out[0][1] not in self._rows):
            self._out.popleft()
        return sum(key in self._rows for _, key in self._out)

    def unanswered_ms(self) -> int | None:
        """When the alarm that has been sent in vain for longest was first sent; None when there is none.

        Events of sessions alone: what is heard as a beacon may be forged, and have no answer for that.
        """
        return min(
            (
                w.asked_ms
                for w in self._rows.values()
                if w.asked_ms is not None
                and w.row.form == relay.EVENT
                and kinds.priority(w.row.kind) == kinds.PRIORITY_ALARM
            ),
            default=None,
        )

    def hurry(self, now_ms: int) -> None:
        """The way to the station is open again: everything is due now."""
        self._out.clear()
        for waiting in self._rows.values():
            waiting.next_ms = now_ms
            waiting.sent = 0

    def next_ms(self) -> int | None:
        """When the next row is due; None when there is none."""
        return min((w.next_ms for w in self._rows.values()), default=None)

    def rows(self) -> list[Row]:
        """All rows, in order."""
        return sorted((w.row for w in self._rows.values()), key=_order)

    def oldest_ms(self) -> int | None:
        """When the copy that has waited longest came; None when nothing waits."""
        return min((w.row.taken_ms for w in self._rows.values()), default=None)


def _order(row: Row) -> tuple[int, int]:
    return kinds.priority(row.kind), row.position
