"""The serial cable, as lines. What they mean is known to desk.py, which is loaded when one has come."""

import asyncio
import select
import sys

from micropython import const

from . import trace

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

_POLL_MS = const(100)
_HURRY_MS = const(2)  # while an update comes, a short line at a time
_LINE_MAX = const(1024)
_AT_ONCE = const(256)


class Console:
    """Reads lines from stdin without blocking and hands them to `on_line`."""

    def __init__(self, on_line: "Callable[[str], None]") -> None:
        self._on_line = on_line
        self.step: "Callable[[], bool] | None" = None  # what is in work, as long as it gives True
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)
        self._char = bytearray(1)
        self._line = bytearray()
        self._closed = False

    def _read(self) -> None:
        # into what is there already: a text that grew letter by letter would leave its length squared behind
        char = self._char
        for _ in range(_AT_ONCE):
            if self._closed or not self._poll.poll(0):
                return
            if not sys.stdin.buffer.readinto(char):
                self._closed = True  # nobody is at the other end any more
                return
            if char[0] in b"\r\n":
                line, self._line = self._line, bytearray()
                try:
                    self._on_line(line.decode())
                except UnicodeError:  # noise on the cable
                    trace.say("refused", "why=not_UTF-8")
            elif len(self._line) < _LINE_MAX:
                self._line.append(char[0])

    async def run(self, alive: "Callable[[], None]") -> None:
        """Listen for ever."""
        while True:
            self._read()
            if self.step is not None and not self.step():
                self.step = None
            alive()
            await asyncio.sleep_ms(_POLL_MS if self.step is None else _HURRY_MS)
