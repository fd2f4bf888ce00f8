"""The connection to one badge: its states, and the only place that changes them.

A badge advertises all the time, also while connected, under an address that changes every few seconds. The hub dials
the address that it heard last, proves itself with HELLO, and calls a badge established when it has proved itself by
its link key. "Connected" means nothing: only authentic frames keep a connection, and their silence ends it.

The table below is everything; the drawing in the docs is made from it.
"""

from __future__ import annotations

import enum
import logging

logger = logging.getLogger("hub.badges")


class State(enum.Enum):
    """Where the connection to a badge stands."""

    SILENT = "silent"  # nothing heard of it lately
    SEEN = "seen"  # heard; to be dialled when it is its turn
    CONNECTING = "connecting"  # dialled
    PAIRING = "pairing"  # connected, at its enrolment with the passkey on its card
    HELLO = "hello"  # connected and subscribed; nobody has proved anything
    ESTABLISHED = "established"  # the badge has proved itself
    LOST = "lost"  # was established, and has to be hung up
    BACKOFF = "backoff"  # did not work: wait a little


class Event(enum.Enum):
    """What happens to it."""

    HEARD = "heard"
    FADED = "faded"  # not heard for FADED_MS
    DIALLED = "dialled"
    MOVED = "moved"  # heard under another address than the one that is being dialled
    PAIRS = "pairs"  # a technician gave the passkey on its card
    CONNECTED = "connected"
    PROVED = "proved"
    FAILED = "failed"
    DROPPED = "dropped"  # the connection ended
    MUTE = "mute"  # it stands, but nothing authentic comes
    DONE = "done"  # a guest has said what it came for
    HUNG_UP = "hung up"
    RESTED = "rested"
    URGENT = "urgent"  # an alarm is heard: no more waiting


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.SILENT, Event.HEARD): State.SEEN,
    (State.SEEN, Event.FADED): State.SILENT,
    (State.SEEN, Event.DIALLED): State.CONNECTING,
    (State.CONNECTING, Event.MOVED): State.SEEN,
    (State.CONNECTING, Event.CONNECTED): State.HELLO,
    (State.CONNECTING, Event.FAILED): State.BACKOFF,
    (State.CONNECTING, Event.PAIRS): State.PAIRING,
    (State.PAIRING, Event.CONNECTED): State.HELLO,
    (State.PAIRING, Event.FAILED): State.BACKOFF,
    (State.PAIRING, Event.DROPPED): State.BACKOFF,
    (State.HELLO, Event.PROVED): State.ESTABLISHED,
    (State.HELLO, Event.MUTE): State.BACKOFF,
    (State.HELLO, Event.DROPPED): State.BACKOFF,
    (State.HELLO, Event.FAILED): State.BACKOFF,
    (State.HELLO, Event.DONE): State.SEEN,
    (State.ESTABLISHED, Event.DROPPED): State.LOST,
    (State.ESTABLISHED, Event.FAILED): State.LOST,
    (State.ESTABLISHED, Event.MUTE): State.LOST,
    (State.LOST, Event.HUNG_UP): State.SEEN,
    (State.BACKOFF, Event.RESTED): State.SEEN,
    (State.BACKOFF, Event.URGENT): State.SEEN,
}

# s to wait after the first, second, ... failure in a row
BACKOFF_S = (
    0.1,  # the connection was lost in the making: its next advertisement comes in this time
    0.25,  # a connection of ours is still ending on the other side
    0.5,  # at the edge of range
    1.0,
    2.0,  # it refuses us; what its alarms say still comes by beacon
)
URGENT_BACKOFF_S = 0.5  # the most that an alarm waits between attempts
FADED_MS = 12_000  # a badge rotates every 8 s at the latest and advertises several times a second
FRESH_MS = 5_000  # an address that was heard longer ago is probably not its address any more


class Machine:
    """The state of one badge's connection. `since_ms`: when it was entered; `failures`: in a row.

    `paired` counts the pairings that came about, `refused` the others, of which `refusal` is the latest's reason: for
    who looks now and then and may miss a state that lasts a tenth of a second.
    """

    def __init__(self, badge: int, now_ms: int) -> None:
        self.badge = badge
        self.state = State.SILENT
        self.since_ms = now_ms
        self.failures = self.paired = self.refused = 0
        self.reason = self.refusal = ""

    def change(self, event: Event, now_ms: int, reason: str = "") -> bool:
        """Follow the table; False where it says nothing, and the state stays."""
        to = TRANSITIONS.get((self.state, event))
        if to is None:
            return False
        level = logging.INFO if State.ESTABLISHED in (self.state, to) else logging.DEBUG
        logger.log(
            level, "badge %d: %s -> %s%s", self.badge, self.state.value, to.value, f" ({reason})" if reason else ""
        )
        if self.state is State.PAIRING and to is State.HELLO:
            self.paired += 1
        elif self.state is State.PAIRING:
            self.refused += 1
            self.refusal = reason or self.reason
        self.state, self.since_ms = to, now_ms
        if reason:
            self.reason = reason
        if to is State.ESTABLISHED:
            self.failures = 0
            self.reason = ""
        elif event is Event.DONE:
            self.failures = 0
        elif to is State.BACKOFF:
            self.failures += 1
        return True

    def rest_s(self, urgent: bool) -> float:
        """How long to stay in BACKOFF."""
        rest = BACKOFF_S[min(max(self.failures - 1, 0), len(BACKOFF_S) - 1)]
        return min(rest, URGENT_BACKOFF_S) if urgent else rest
