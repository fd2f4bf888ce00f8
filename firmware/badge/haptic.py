"""The motor. It plays what the custody, visit and protection machines of protocol/ decided, and nothing else.

One pattern at a time, never cut short (half a pattern could pass for another), with a rest between two so that a
person and a test can tell them apart. Waiting patterns are played by rank. Of two waiting patterns that contradict
each other the older is dropped: what the wearer feels must be true when it is felt.
"""

import asyncio
import gc
from time import ticks_add, ticks_diff, ticks_ms

from machine import PWM, Pin

from protocol import patterns

from . import trace

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

# The order in which waiting patterns are played.
RANK = (
    patterns.PRESSED,
    patterns.OPERATOR_WITH_YOU,
    patterns.STATION_HAS_IT,
    patterns.CHECKED_IN,
    patterns.TEST_PASSED,
    patterns.TEST_FAILED,
    patterns.NOT_DELIVERED,
    patterns.CHECK_IN_DUE,
    patterns.NOT_PROTECTED,
    patterns.PROTECTED,
    patterns.BATTERY_LOW,
)

# What a new pattern makes untrue while it still waits.
REPLACES = {
    patterns.OPERATOR_WITH_YOU: (patterns.STATION_HAS_IT, patterns.NOT_DELIVERED),
    patterns.STATION_HAS_IT: (patterns.NOT_DELIVERED, patterns.OPERATOR_WITH_YOU),
    patterns.CHECKED_IN: (patterns.CHECK_IN_DUE,),
    patterns.NOT_PROTECTED: (patterns.PROTECTED,),
    patterns.PROTECTED: (patterns.NOT_PROTECTED,),
}


class Queue:
    """Which patterns wait. Each waits at most once."""

    def __init__(self) -> None:
        self._waiting = [False] * len(RANK)

    def add(self, name: str) -> None:
        """Let a pattern wait its turn."""
        for untrue in REPLACES.get(name, ()):
            self._waiting[RANK.index(untrue)] = False
        self._waiting[RANK.index(name)] = True

    def waits(self) -> bool:
        """Whether any pattern waits."""
        return True in self._waiting

    def take(self) -> "str | None":
        """The next one to play."""
        for i in range(len(RANK)):
            if self._waiting[i]:
                self._waiting[i] = False
                return RANK[i]
        return None


class Haptic:
    """The motor on one pin. A broken one is said once, and costs nothing but itself."""

    def __init__(self, pin: int, frequency: int, duty: int) -> None:
        self._queue = Queue()
        self._event = asyncio.Event()
        self._playing = False
        self._duty = duty
        self.broken = False
        self._pwm: "PWM | None" = None
        try:
            self._pwm = PWM(Pin(pin), freq=frequency, duty_u16=0)
        except (OSError, ValueError) as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        self.broken = True
        trace.fault("haptic", error)

    def play(self, name: str) -> None:
        """Queue a pattern of protocol.patterns."""
        self._queue.add(name)
        self._event.set()

    @property
    def idle(self) -> bool:
        """Nothing is played and nothing waits to be."""
        return not self._playing and not self._queue.waits()

    def wake(self) -> None:
        """Let run() come round once."""
        self._event.set()

    def _drive(self, on: bool) -> None:
        if self._pwm is None:
            return
        try:
            self._pwm.duty_u16(self._duty if on else 0)
        except OSError as error:
            self._break(error)

    async def run(self, alive: "Callable[[], None]") -> None:
        """Play for ever. `alive()` is called whenever it comes round."""
        while True:
            await self._event.wait()
            self._event.clear()
            name = self._queue.take()
            while name is not None:
                self._playing = True
                try:
                    await self._play(name)
                except MemoryError as error:  # felt later rather than never, and whole
                    self._drive(False)
                    self._queue.add(name)
                    gc.collect()
                    trace.fault("haptic", error)
                    await asyncio.sleep_ms(patterns.GAP_MS)
                self._playing = False
                alive()
                name = self._queue.take()
            alive()

    async def _play(self, name: str) -> None:
        # Tasks wake up late. Of a pulse its length is felt, so it is never shorter than it should be; what was lost is
        # made up for in the pauses, so that the pattern does not become another one's rhythm. The rest after it is
        # whole however late its last pulse ended: two patterns that run together are a third, or none.
        trace.say("haptic", "pattern=" + name)
        at = ticks_ms()
        for on_ms, off_ms in patterns.pulses(name):
            self._drive(True)
            await asyncio.sleep_ms(on_ms)
            self._drive(False)
            at = ticks_add(at, on_ms + off_ms)
            await asyncio.sleep_ms(max(off_ms // 2, ticks_diff(at, ticks_ms())))
        await asyncio.sleep_ms(patterns.GAP_MS)
