"""The station's answers on the air, for badges that no connection reaches: 24 bytes each, sealed by the station.

A hub that relayed a badge's beacon says the answer aloud for a few seconds; several badges take turns. Who has a
session is told in it, and needs no broadcast. Where the radio cannot advertise this is said once, and the answers
still go by the connections that the hub tries as a guest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

from bleak.exc import BleakError

from hub.clock import Clock
from hub.radio import Radio
from protocol.beacon import LENGTH

logger = logging.getLogger("hub.radio")

SHOWN_MS = 4000  # two rotations of a badge's beacon, each of which brings a newer answer
TURN_S = 0.4  # four advertisements, before it is another badge's turn
BADGES_MAX = 16  # more would each be on the air too seldom to be heard


class Broadcaster:
    """Answers by badge. `established(badge)`: whether a session with it works."""

    def __init__(self, radio: Radio, clock: Clock, established: Callable[[int], bool]) -> None:
        self.counters: Counter[str] = Counter()
        self.problem = ""
        self._radio = radio
        self._clock = clock
        self._established = established
        self._answers: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._wake = asyncio.Event()

    def answer(self, badge: int, data: bytes) -> None:
        """Say this for a badge from now on, instead of an earlier answer."""
        if len(data) != LENGTH:
            self.counters["answer_malformed"] += 1
            return
        self._answers[badge] = (data, self._clock.now_ms() + SHOWN_MS)
        while len(self._answers) > BADGES_MAX:
            self._answers.popitem(last=False)
        self._wake.set()

    async def run(self) -> None:
        """Take turns for ever; cancel it to be silent."""
        shown = b""
        while True:
            data = self._next()
            self._wake.clear()
            if data != shown:
                shown = data if await self._show(data) else b""
            if not data:
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(TURN_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _next(self) -> bytes:
        """Whose turn it is; nothing when there is no answer to give."""
        now = self._clock.now_ms()
        for badge, (_, until_ms) in list(self._answers.items()):
            if until_ms <= now or self._established(badge):
                del self._answers[badge]
        if not self._answers:
            return b""
        badge, (data, _) = next(iter(self._answers.items()))
        self._answers.move_to_end(badge)
        return data

    async def _show(self, data: bytes) -> bool:
        try:
            await self._radio.broadcast(data)
        except (BleakError, OSError, TimeoutError) as problem:
            text = str(problem) or type(problem).__name__
            level = logging.DEBUG if self.problem else logging.WARNING
            logger.log(level, "answers cannot be broadcast, only brought by a connection: %s", text)
            self.problem = text
            return False
        self.problem = ""
        self.counters["broadcasts"] += bool(data)
        return True
