"""A second path whose clock is in the test's hand, with an emulated modem."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import modem_emulator
from neighbours import GUARD_S, until
from pocket_hub import MovedClock

from hub.clock import Clock
from hub.secondpath import SecondPath, Setup
from protocol import ident, kinds, relay

NUMBERS = ("+441632960001", "+441632960002")
PLACE = {"lat": 52.9225, "lon": -1.4746, "age": 100.0, "source": "nmea", "accuracy": 10.0}


class HeldClock(MovedClock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self._begun_ms = Clock.now_ms(self)

    def now_ms(self) -> int:
        return self._begun_ms + self.moved_ms


class Bench:
    """A second path whose clock is in the test's hand, and its modem."""

    def __init__(self, folder: Path) -> None:
        self.modem = modem_emulator.Modem()
        self.clock = HeldClock()
        self.folder = folder
        self.told: list[tuple[int, bytes, int, int, int, int]] = []
        self.stores = True  # the outbox takes reports to its disk
        self.second = self.start()
        self.boot = ident.boot_bytes(7, os.urandom(4))

    def start(self) -> SecondPath:
        """As after a start of the hub."""
        setup = Setup(self.modem.port, NUMBERS, {12: "Cllr A. Example"})
        return SecondPath(setup, self.folder, self.clock, self._report)

    async def restart(self) -> None:
        """The hub ends, or is killed, and starts again: by then nothing of the old one writes any more."""
        self.second.close()
        assert await self.second.file.settled(GUARD_S)
        self.second = self.start()

    def _report(self, badge: int, name: bytes, payload: bytes) -> None:
        self.told.append(relay.unpack_second_path(payload))
        if self.stores:
            self.second.stored(badge, name)

    def alarm(
        self, number: int, badge: int = 12, verified: bool = True, kind: int = kinds.SOS, trusted: bool = False
    ) -> bytes:
        """An event of a badge."""
        name = ident.pack(self.boot, number)
        self.second.alarm(badge, name, kind, PLACE, verified, trusted)
        return name

    async def later(self, seconds: float) -> None:
        """Time passes, and what is due is done."""
        self.clock.moved_ms += int(seconds * 1000)
        self.second._wake.set()
        await asyncio.sleep(0.05)
        await until(lambda: not any(w.next_ms <= self.clock.now_ms() for w in self.second._waiting.values()), 120)

    @property
    def texts(self) -> list[str]:
        """What was sent to the first number."""
        return [text for number, text in self.modem.sent if number == NUMBERS[0]]


def play(bench: Bench, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        task = asyncio.create_task(bench.second.run())
        await story()
        task.cancel()
        await asyncio.wait({task})
        bench.second.close()
        if not task.cancelled() and (problem := task.exception()):
            raise problem

    asyncio.run(run())
