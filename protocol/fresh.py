"""How old is the uplink that the station answers? Only a young answer may be felt.

The badge numbers what it sends and remembers when; the station echoes the number. Neither clock is compared with
the other, so a hub that delays an acknowledgement only makes it older.
"""

ALARM_MS = 10000  # a pattern that claims custody needs proof younger than this
PROTECTED_MS = 30000  # `protected` needs proof younger than this
_SLOTS = 48  # at most 2 uplinks a second for the 20 s that matter, and some to spare


class Uplinks:
    """The numbers of the latest uplinks and when each was sent, in a ring of fixed size."""

    def __init__(self) -> None:
        self._numbers = [-1] * _SLOTS
        self._times = [0] * _SLOTS
        self._next = 0

    def sent(self, number: int, now_ms: int) -> None:
        """Uplink `number` (or downlink.BEACON | rotation) left at `now_ms`."""
        self._numbers[self._next] = number
        self._times[self._next] = now_ms
        self._next = (self._next + 1) % _SLOTS

    def age(self, echo: int, now_ms: int) -> "int | None":
        """Milliseconds since the echoed uplink left, or None for one that was never sent or long ago."""
        for i in range(_SLOTS):
            if self._numbers[i] == echo:
                return now_ms - self._times[i]
        return None

    def fresh(self, echo: int, now_ms: int, limit_ms: int = ALARM_MS) -> bool:
        """Whether the echoed uplink is younger than the limit."""
        age = self.age(echo, now_ms)
        return age is not None and 0 <= age <= limit_ms


class Window:
    """Which counters were seen: the highest and the 64 before it. Accepts each once."""

    def __init__(self) -> None:
        self._highest = -1
        self._bits = 0

    def accept(self, counter: int) -> bool:
        """True the first time, False for a repeat or one too old to tell."""
        ahead = counter - self._highest
        if ahead > 0:
            self._bits = (self._bits << ahead | 1) & 0xFFFFFFFFFFFFFFFF if ahead < 64 else 1
            self._highest = counter
            return True
        if ahead <= -64 or self._bits >> -ahead & 1:
            return False
        self._bits |= 1 << -ahead
        return True
