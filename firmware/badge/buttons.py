"""The two buttons as pins: sampled every 10 ms, and every edge latched by an interrupt.

Pin interrupts are soft on MicroPython and can be lost, samples can come late (a flash write holds everything for tens
of milliseconds): each covers for the other. The interrupt only notes time and level in a ring; the recogniser sees
the noted edges in order and then the level as it is.
"""

import asyncio
from array import array

from machine import Pin
from micropython import const

from .clock import MASK, ticks
from .gestures import SOS, Recogniser

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

_SAMPLE_MS = const(10)
_RING = const(32)  # edges between two samples; a bouncing contact makes a dozen
_SOS = const(1)
_SIDE = const(2)
_HALF = (MASK + 1) // 2


class Buttons:
    """Watches both and calls `act(name)` for each act that is complete."""

    def __init__(self, sos_pin: int, side_pin: int, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self._times = array("i", [0] * _RING)
        self._levels = bytearray(_RING)
        self._head = 0
        self._tail = 0
        self._last = ticks()
        self._pins = (Pin(sos_pin, Pin.IN, Pin.PULL_UP), Pin(side_pin, Pin.IN, Pin.PULL_UP))
        for pin in self._pins:
            pin.irq(self._on_edge, Pin.IRQ_FALLING | Pin.IRQ_RISING)

    def _read(self) -> int:
        level = 0
        if not self._pins[0].value():
            level = _SOS
        if not self._pins[1].value():
            level |= _SIDE
        return level

    def _on_edge(self, _pin: Pin) -> None:
        head = self._head
        following = (head + 1) % _RING
        if following == self._tail:
            return  # the sample that is due will see the level
        self._times[head] = ticks()
        self._levels[head] = self._read()
        self._head = following

    def sample(self) -> "str | None":
        """The act that is complete now. Allocates nothing."""
        recogniser = self._recogniser
        act: "str | None" = None
        while self._tail != self._head:
            tail = self._tail
            at = self._times[tail]
            level = self._levels[tail]
            self._tail = (tail + 1) % _RING
            if (at - self._last) & MASK < _HALF:
                self._last = at
                found = recogniser.feed(at, bool(level & _SOS), bool(level & _SIDE))
                if found is not None and act != SOS:
                    act = found
        self._last = ticks()
        level = self._read()
        found = recogniser.feed(self._last, bool(level & _SOS), bool(level & _SIDE))
        if found is not None and act != SOS:
            act = found
        return act

    async def run(self, act: "Callable[[str], None]", alive: "Callable[[], None]") -> None:
        """Sample for ever."""
        while True:
            found = self.sample()
            if found is not None:
                act(found)
            alive()
            await asyncio.sleep_ms(_SAMPLE_MS)
