"""A MicroPython with the shims, and a test in the companion's place at the other end of their socket."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from firmware.emulator import build, launcher
from firmware.emulator.board import POWER_ON, Board
from firmware.emulator.childlink import ChildLink
from firmware.emulator.process import Child

PATIENCE_S = 10.0
ADDRESS = bytes.fromhex("c0ffee123456")
# What most scripts begin with: the radio on, one service, handles 16 (RX) and 18 (TX).
RADIO = """
import bluetooth
from errno import ENOMEM, EINVAL, ENODEV, ENOTCONN, EALREADY
ble = bluetooth.BLE()
seen = []
def irq(event, data):
    seen.append((event, data))
    print("irq", event)
ble.irq(irq)
ble.config(addr_mode=1)
ble.active(True)
UUID = bluetooth.UUID
((rx, tx),) = ble.gatts_register_services(((UUID("7a0c0001-5e2f-4b0e-9a54-c1d0b7e6f100"), (
    (UUID("7a0c0002-5e2f-4b0e-9a54-c1d0b7e6f100"), bluetooth.FLAG_WRITE | bluetooth.FLAG_WRITE_NO_RESPONSE),
    (UUID("7a0c0003-5e2f-4b0e-9a54-c1d0b7e6f100"), bluetooth.FLAG_NOTIFY))),))
def error(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except OSError as problem:
        return problem.errno
    return 0
"""
# the number of the OSError that a call raises, 0 for none
ERROR = """
def error(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except OSError as problem:
        return problem.errno
    return 0
"""
WAIT = """
import time
def wait(ms=100):
    time.sleep_ms(ms)
"""


# gate(n) waits until the test opens that gate: whatever the test does meanwhile may take as long as it likes
GATES = (
    WAIT
    + """
from machine import Pin
def gate(n):
    while not Pin(40 + n).value():
        wait(1)
"""
)
_FIRST_GATE, _GATES = 40, 8  # pins that nothing else uses


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Play a story to its end."""
    asyncio.run(story())


class Bench:
    """One run of a script; `lines` is what it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = Board(folder)
        self.link = ChildLink()
        self.lines: list[str] = []
        self.sent: list[tuple[str, bytes]] = []
        self.child: Child | None = None
        self._news = asyncio.Event()
        for kind in "ACVSQNIDPKWRMOGXZT":
            self.link.handlers[kind] = lambda body, kind=kind: self._on_frame(kind, body)  # type: ignore[misc]

    def _on_frame(self, kind: str, body: bytes) -> None:
        self.sent.append((kind, body))
        if kind == "A" or (kind == "C" and body[:1] == b"a"):
            self.link.send("r", ADDRESS)
        elif kind == "S":
            self.link.send("r", struct.pack(">HH", 16, 18))
        elif kind == "G" and body[:1] == b"\x01":
            self.board.restart_samples()
            self.link.send("r")
        self._news.set()

    def _on_line(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def start(self, script: str, *, cause: int = POWER_ON, heap: str = "200K") -> None:
        """Run a script from its beginning, as after a reset for this cause."""
        source = self.folder / "script.py"
        source.write_text(textwrap.dedent(script))
        image = self.folder / "image.rom"
        image.write_bytes(await asyncio.to_thread(build.image, extra={"script.py": source}))
        if not self.link.port:
            await self.link.open()
        self.lines.clear()
        self.sent.clear()
        for gate in range(_GATES):
            self.board.set_pin(_FIRST_GATE + gate, 0)
        self.board.set_cause(cause)
        self.board.stop_watchdog()
        command = launcher.command(
            image,
            self.folder / "board.bin",
            self.folder / "flash.bin",
            port=self.link.port,
            module="script",
            heap=heap,
        )
        self.child = await Child.start(command, self._on_line)

    async def until(self, line: str) -> None:
        """Wait for a line."""
        async with asyncio.timeout(PATIENCE_S):
            while line not in self.lines:
                self._news.clear()
                await self._news.wait()

    async def frames(self, kind: str, count: int = 1) -> list[bytes]:
        """Wait for so many frames of a kind."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [body for k, body in self.sent if k == kind]) < count:
                self._news.clear()
                await self._news.wait()
        return found

    def open_gate(self, gate: int) -> None:
        """Let the script go on that waits in gate()."""
        self.board.set_pin(_FIRST_GATE + gate, 1)

    async def handled(self) -> None:
        """Wait until the script has been told all that was sent to it: frames are handled in order."""
        self.board.forget_heap()
        self.link.send("h")
        deadline = time.monotonic() + PATIENCE_S
        while not self.board.heap_peak():
            assert time.monotonic() < deadline, "the script does not take what is sent to it"
            await asyncio.sleep(0.002)

    async def until_on(self) -> None:
        """Wait until services are registered."""
        await self.frames("S")

    async def end(self, seconds: float = PATIENCE_S) -> list[str]:
        """Wait until the script has ended; returns its lines without the boot line."""
        assert self.child
        async with asyncio.timeout(seconds):
            await self.child.ended()
        return [line for line in self.lines if not line.startswith("@boot")]

    async def kill(self) -> None:
        """Cut the power."""
        assert self.child
        await self.child.kill()

    def event(self, number: int, body: bytes = b"") -> None:
        """A BLE event."""
        self.link.send("e", bytes((number,)) + body)

    def connect(self, connection: int = 1) -> None:
        """A central connects."""
        self.event(1, struct.pack(">HB", connection, 1) + ADDRESS)

    def write(self, value: bytes, handle: int = 16, connection: int = 1) -> None:
        """A central writes."""
        self.link.send("w", struct.pack(">HH", connection, handle) + value)

    def pin(self, pin: int, level: int, ago_us: int = 0) -> None:
        """A pin changes, or did so long ago."""
        self.board.set_pin(pin, level)
        self.board.count_edge()
        self.link.send("p", struct.pack(">BBI", pin, level, time.monotonic_ns() // 1000 - ago_us & 0xFFFFFFFF))

    async def close(self) -> None:
        """End everything."""
        if self.child:
            await self.child.kill()
        self.link.close()
        self.board.close()


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A bench with an empty flash."""
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(Path(folder))
        try:
            yield made
        finally:
            await made.close()


async def output(script: str) -> list[str]:
    """What a script prints that needs nothing from a companion."""
    async with bench() as made:
        await made.start(script)
        return await made.end()
