"""The serial cable of an emulated badge: a pseudo-terminal that any program may open as a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import Callable


class Cable:
    """What is written to `port` goes to `heard`; `said` is for what the badge says. Needs a running loop."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard
        # our own end of the port stays open: without any the other would be told that the line is dead
        self._line, self._end = pty.openpty()
        tty.setraw(self._end)
        os.set_blocking(self._line, False)
        self.port = os.ttyname(self._end)
        asyncio.get_running_loop().add_reader(self._line, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._heard(os.read(self._line, 4096))

    def said(self, line: str) -> None:
        """A line of the badge; lost when nobody reads, as on a wire."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._line, line.encode() + b"\r\n")

    def close(self) -> None:
        """Pull it out."""
        asyncio.get_running_loop().remove_reader(self._line)
        os.close(self._line)
        os.close(self._end)
