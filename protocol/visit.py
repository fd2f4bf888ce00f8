"""A visit and its check-ins, as the badge keeps them.

Theory. A visit has an interval and a grace. The wearer is reminded before the interval ends, may check in (the
whole interval starts again), extend it, or end the visit. Interval plus grace without a check-in is a missed
check-in, and an alarm. The station counts too, by its own clock, and its count decides (the badge may be broken);
the badge counts so that it can remind, and so that a hub without uplink still hears of the miss.

Reminders come 5 min and 1 min before the end; in visits under 10 min, at half and at nine tenths of the interval.

The transitions are the table below; the drawing in docs/protocol.md is made from it.
"""

from .ident import NONE

IDLE = 0
RUNNING = 1
GRACE = 2
MISSED = 3
STATE_NAMES = ("idle", "running", "grace", "missed")

START = "start"
CHECK_IN = "check in"
EXTEND = "extend"
END = "end"
DUE = "interval over"
OVERDUE = "grace over"

# (state, input) -> state. What is not here is not possible and changes nothing.
TRANSITIONS = {
    (IDLE, START): RUNNING,
    (RUNNING, START): RUNNING,  # the station's order replaces the times
    (GRACE, START): RUNNING,
    (MISSED, START): RUNNING,
    (RUNNING, CHECK_IN): RUNNING,
    (GRACE, CHECK_IN): RUNNING,
    (MISSED, CHECK_IN): RUNNING,  # late, and the station decides what it means
    (RUNNING, EXTEND): RUNNING,
    (GRACE, EXTEND): RUNNING,
    (RUNNING, END): IDLE,
    (GRACE, END): IDLE,
    (MISSED, END): IDLE,
    (RUNNING, DUE): GRACE,
    (GRACE, OVERDUE): MISSED,
}

SHORT_MS = 600000
EXTEND_MS = 900000
MAX_MS = 86400000  # products allow 1,440 min; extensions stop there

REMIND = "remind"
MISS = "miss"


def reminders(interval_ms: int) -> "tuple[int, int]":
    """Milliseconds before the end at which the two reminders come."""
    if interval_ms < SHORT_MS:
        return interval_ms // 2, interval_ms // 10
    return 300000, 60000


class Visit:
    """The one visit that a badge may be on. Times are ms of the badge's monotonic clock."""

    def __init__(self) -> None:
        self.state = IDLE
        self.number = 0  # the station's number, 0 until it has one
        self.ref = NONE  # identity of the event that started it on the badge
        self.interval_ms = 0
        self.grace_ms = 0
        self.due_ms = 0
        self.audio = False  # a missed check-in may start the microphone: agreed in advance
        self._reminded = 0

    def _step(self, what: str) -> bool:
        state = TRANSITIONS.get((self.state, what))
        if state is None:
            return False
        self.state = state
        return True

    @property
    def active(self) -> bool:
        """A timer runs, or its miss has not been settled."""
        return self.state != IDLE

    def start(
        self,
        now_ms: int,
        remaining_ms: int,
        interval_ms: int,
        grace_ms: int,
        ref: bytes,
        number: int,
        audio: bool,
    ) -> None:
        """Begin, or take over times from the station (`remaining_ms` until due)."""
        self._step(START)
        self.number = number
        self.ref = ref
        self.interval_ms = interval_ms
        self.grace_ms = grace_ms
        self.audio = audio
        self._due(now_ms, now_ms + remaining_ms)

    def _due(self, now_ms: int, due_ms: int) -> None:
        self.due_ms = due_ms
        first, second = reminders(self.interval_ms)
        left = due_ms - now_ms
        # a reminder whose moment has gone is not played late
        self._reminded = 0 if left > first else 1 if left > second else 2

    def check_in(self, now_ms: int) -> bool:
        """The wearer is all right: the whole interval starts again. False where no visit runs."""
        if not self._step(CHECK_IN):
            return False
        self._due(now_ms, now_ms + self.interval_ms)
        return True

    def extend(self, now_ms: int, by_ms: int = EXTEND_MS) -> bool:
        """More time, up to a day from now in all. False where no visit runs or it is overdue."""
        if not self._step(EXTEND):
            return False
        self._due(now_ms, min(max(self.due_ms, now_ms) + by_ms, now_ms + MAX_MS))
        return True

    def end(self) -> bool:
        """The visit is over. False where none ran."""
        return self._step(END)

    def poll(self, now_ms: int) -> "tuple[str | None, int | None]":
        """REMIND, MISS or None, and when to call again at the latest. Call until it gives None."""
        if self.state == RUNNING:
            first, second = reminders(self.interval_ms)
            if now_ms >= self.due_ms:
                self._step(DUE)
            elif self._reminded < 2 and now_ms >= self.due_ms - second:
                self._reminded = 2
                return REMIND, self.due_ms
            elif self._reminded < 1 and now_ms >= self.due_ms - first:
                self._reminded = 1
                return REMIND, self.due_ms - second
            else:
                return None, self.due_ms - (first, second, 0)[self._reminded]
        if self.state == GRACE:
            if now_ms >= self.due_ms + self.grace_ms:
                self._step(OVERDUE)
                return MISS, None
            return None, self.due_ms + self.grace_ms
        return None, None
