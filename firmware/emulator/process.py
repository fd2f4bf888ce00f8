"""The MicroPython child as a process: started, listened to, fed with lines, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

LINE_LIMIT = 65_536


class Child:
    """One run of the firmware."""

    def __init__(self, process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> None:
        self.process = process
        self._on_line = on_line
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: list[str], on_line: Callable[[str], None]) -> Child:
        """Start it; `on_line` gets each line of its serial console."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_LIMIT,
            env=environment,
            start_new_session=True,  # Ctrl-C in a terminal is for the companion, which then ends this
        )
        return cls(process, on_line)

    async def _read(self) -> None:
        assert self.process.stdout
        while True:
            try:
                line = await self.process.stdout.readline()
            except ValueError:  # an endless line: not something our firmware prints
                continue
            if not line:
                return
            self._on_line(line.decode("utf-8", "replace").rstrip("\r\n"))

    def write(self, data: bytes) -> None:
        """To its serial console; lost when it has ended."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.write(data)

    async def ended(self) -> int:
        """Wait for its end; returns the exit status."""
        status = await self.process.wait()
        await self._reader
        return status

    async def kill(self) -> None:
        """End it at this instant, as a loss of power does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
