"""The hub's clocks, in one place so that tests can move them.

Durations come from a clock that goes on while the machine sleeps and knows nothing of the time of day. The wall
clock is only ever told to the station as what the hub believes; nothing in the hub depends on it.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Clock:
    """The machine's clocks. `offset_s` makes the wall clock wrong, for drills."""

    def __init__(self, offset_s: float = 0.0) -> None:
        self._offset = offset_s
        self._source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        self.run = _run_of_machine()

    def now_ms(self) -> int:
        """Milliseconds of a clock that never jumps; comparable between processes of one run of the machine."""
        return time.clock_gettime_ns(self._source) // 1_000_000

    def wall(self) -> float:
        """Unix seconds as this hub believes them."""
        return time.time() + self._offset

    def synchronised(self) -> bool:
        """Whether the operating system says that its clock is disciplined; False where it cannot say."""
        if not sys.platform.startswith("linux"):
            return False
        try:
            adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
        except (OSError, AttributeError):
            return False
        buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0 only reads
        return 0 <= int(adjtimex(buffer)) < _TIME_ERROR


def _run_of_machine() -> str:
    """A name for this run of the machine, within which now_ms() of different processes compare; "" if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
