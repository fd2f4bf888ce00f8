"""Time comes in from outside, so that tests move it instead of waiting.

Everything that the station stores is Unix time in seconds (float, UTC).
"""

import time
from typing import Protocol


class Clock(Protocol):
    """What the station asks for the time."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()


class ManualClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self._now = start

    def now(self) -> float:
        """Unix time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the time forward (or, with a negative number, back)."""
        self._now += seconds
