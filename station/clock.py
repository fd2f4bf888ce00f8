"""Time comes in from outside, so that tests move it instead of waiting.

Everything that the station stores is Unix time in seconds (float, UTC). Deadlines are among it, so time may not go
back: a machine's clock that is set back by an hour would keep an overdue visit silent for an hour.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

STEP_S = 2.0  # what a wall clock may differ from the monotonic one between two looks before it counts as set anew


class Clock(Protocol):
    """What the station asks for the time."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def stepped(self) -> float:
        """Seconds by which the machine's clock was set anew since this was asked last; negative: back."""
        ...


class SystemClock:
    """The machine's own clock, except that it is not followed back.

    Where it is set back, time goes on by the monotonic clock until the machine's has caught up or the process begins
    anew. Where it is set ahead it is followed: what falls due is then raised too early rather than never.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._read_wall, self._read_steady = wall, steady
        self._lock = threading.Lock()
        self._wall = self._now = wall()
        self._steady = steady()
        self._stepped = 0.0

    def now(self) -> float:
        """Unix time in seconds."""
        with self._lock:
            wall, steady = self._read_wall(), self._read_steady()
            passed = steady - self._steady
            step = wall - self._wall - passed
            if abs(step) > STEP_S:
                self._stepped += step
            expected = self._now + passed
            self._now = wall if wall >= expected - STEP_S else expected
            self._wall, self._steady = wall, steady
            return self._now

    def stepped(self) -> float:
        """Seconds by which the machine's clock was set anew since this was asked last; negative: back."""
        self.now()
        with self._lock:
            step, self._stepped = self._stepped, 0.0
            return step


class ManualClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self._now = start

    def now(self) -> float:
        """Unix time in seconds."""
        return self._now

    def stepped(self) -> float:
        """Never: it is what the test says."""
        return 0.0

    def advance(self, seconds: float) -> None:
        """Move the time forward (or, with a negative number, back)."""
        self._now += seconds
