"""Events that the station does not have yet, and when each is due to be sent again.

An event is sent at once on every session, again every second until a hub holds it, then every five seconds until the
station's receipt (the hub may be destroyed with it). It is sealed at the moment it leaves, so that its age is true
and each sending is a fresh proof of life. Nothing here does I/O.
"""

from micropython import const

from protocol import kinds
from protocol.events import AGE_MAX
from protocol.ident import NONE

_UNHELD_MS = const(1000)
_HELD_MS = const(5000)
_LIMIT = const(20)  # events that wait, 400 bytes each; a wearer without coverage makes a handful an hour
_PER_ROUND = const(3)  # repetitions a second: more would push young uplinks out of protocol.fresh's ring


class Pending:
    """An event on its way. `shown` is the kind that a hub may see. Times are ms of the badge's monotonic clock."""

    def __init__(
        self,
        kind: int,
        ident: bytes,
        now_ms: int,
        shown: int,
        incident: bytes = NONE,
        body: bytes = b"",
        age_ms: int = 0,
    ) -> None:
        self.kind = kind
        self.shown = shown
        self.ident = ident
        self.incident = incident
        self.body = body
        self.raised_ms = now_ms - age_ms
        self.held = False
        self.quiet = False  # no beacon need announce it any more
        self.told = False  # the station has it by beacon
        self.listen = False  # the room was to be heard because of it
        self.ageless = False  # power was lost since it happened: nobody knows when that was
        self.settled = False
        self.due_ms = now_ms
        self.priority = kinds.priority(shown)

    def rank(self) -> int:
        """How much it is worth keeping: an alarm that nobody has dealt with before all else."""
        return (100 if self.kind in kinds.ALARMS and not self.quiet else 0) - self.priority

    def age_ms(self, now_ms: int) -> int:
        """How long ago it happened; events.AGE_MAX where nobody knows."""
        if self.ageless:
            return AGE_MAX
        return max(0, now_ms - self.raised_ms)


class Outbox:
    """The waiting events, first by priority, then by age."""

    def __init__(self) -> None:
        self.events: "list[Pending]" = []
        self.dropped = 0
        self._turn = 0

    def add(self, event: Pending) -> None:
        """Let an event wait. Where there is no room the oldest of the least important goes, an alarm last."""
        if len(self.events) >= _LIMIT:
            self.shed()
        at = len(self.events)
        while at and self.events[at - 1].priority > event.priority:
            at -= 1
        self.events.insert(at, event)

    def shed(self, alarms: bool = True) -> bool:
        """Let the oldest of the least important go; whether one went. Not `alarms`: none that nobody dealt with."""
        if not self.events:
            return False
        worst = self.events[0]
        for other in self.events:
            if other.rank() < worst.rank():
                worst = other
        if worst.rank() > 0 and not alarms:
            return False
        worst.settled = True
        self.events.remove(worst)
        self.dropped += 1
        return True

    def find(self, ident: bytes) -> "Pending | None":
        """The waiting event of that identity."""
        for event in self.events:
            if event.ident == ident:
                return event
        return None

    def settle(self, ident: bytes) -> "Pending | None":
        """The station has it, or will never take it: let it go."""
        event = self.find(ident)
        if event is not None:
            event.settled = True
            self.events.remove(event)
        return event

    def held(self, ident: bytes, now_ms: int) -> "Pending | None":
        """A hub has it on disk. The event if that is news."""
        event = self.find(ident)
        if event is None or event.held:
            return None
        event.held = True
        event.due_ms = now_ms + _HELD_MS
        return event

    def heard(self, ident: bytes) -> None:
        """The station has its beacon: only a session can say more."""
        event = self.find(ident)
        if event is not None:
            event.quiet = True

    def quieten(self, incident: bytes) -> None:
        """An incident is closed: nothing of it is announced any more."""
        for event in self.events:
            if event.incident == incident:
                event.quiet = True

    def due(self, now_ms: int) -> "list[Pending]":
        """What is to be sent again now; each is then due again after its interval."""
        out: "list[Pending]" = []
        for event in self.events:
            if now_ms >= event.due_ms and len(out) < _PER_ROUND:
                event.due_ms = now_ms + (_HELD_MS if event.held else _UNHELD_MS)
                out.append(event)
        return out

    def announced(self, newest: bool = False) -> "Pending | None":
        """What the next beacon announces: alarms first; of several equals each in turn, or the newest."""
        urgent = [event for event in self.events if event.priority == kinds.PRIORITY_ALARM and not event.quiet]
        choice = [event for event in urgent if event.shown in kinds.ALARMS] or urgent
        if not choice:
            return None
        self._turn = len(choice) - 1 if newest else self._turn + 1
        return choice[self._turn % len(choice)]
