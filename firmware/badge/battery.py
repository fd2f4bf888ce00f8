"""The battery: its voltage as a percentage, and the levels that wearer and station hear of.

A lithium cell's voltage says little in the middle and enough at the end; the motor and the radio make it dip. So
readings are averaged, and a level once reached is not left again before the cell is clearly fuller.
"""

import asyncio

from machine import ADC, Pin
from micropython import const

from . import trace

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

_READ_MS = const(5000)
LEVELS = (20, 10)
_CLEARLY_FULLER = const(5)  # percent
_AVERAGE = const(4)

# mV and % of a lithium polymer cell under the badge's load, falling; between two rows it is linear
_CURVE = ((4150, 100), (4000, 82), (3870, 62), (3780, 42), (3720, 27), (3660, 17), (3580, 9), (3450, 4), (3300, 0))


def percent(millivolts: int) -> int:
    """The charge that a voltage means, 0..100."""
    above_mv, above = _CURVE[0]
    if millivolts >= above_mv:
        return above
    for mv, value in _CURVE[1:]:
        if millivolts >= mv:
            return value + (above - value) * (millivolts - mv) // (above_mv - mv)
        above_mv, above = mv, value
    return 0


class Battery:
    """Reads it every so often. `on_low(level)` is called once when a level is reached."""

    def __init__(self, board: "Any", on_low: "Callable[[int], None]") -> None:
        self.percent = 100
        self._on_low = on_low
        self._divider = board.BATTERY_DIVIDER
        self._adc: "ADC | None" = None
        self._mean_mv = 0
        self._told = 101  # the lowest level that was told of
        self.levels = LEVELS
        if board.BATTERY is not None:
            try:
                self._adc = ADC(Pin(board.BATTERY))
            except (OSError, ValueError) as error:
                trace.fault("battery", error)

    def read(self, tell: bool = True) -> None:
        """Read once. `tell` False: say nothing yet of a level that is reached, the next reading does."""
        if self._adc is None:
            return
        try:
            millivolts = int(self._adc.read_uv() * self._divider) // 1000
        except OSError as error:
            trace.fault("battery", error)
            return
        jump = abs(millivolts - self._mean_mv) > 100  # a charger plugged in, or the first reading
        self._mean_mv = millivolts if jump else (self._mean_mv * (_AVERAGE - 1) + millivolts) // _AVERAGE
        self.percent = percent(self._mean_mv)
        if self.percent > self._told + _CLEARLY_FULLER:
            self._told = 101
        for level in self.levels if tell else ():
            if self.percent <= level < self._told:
                self._told = level
                trace.say("battery", "percent=%d level=%d" % (self.percent, level))
                self._on_low(level)

    async def run(self, alive: "Callable[[], None]") -> None:
        """Read for ever."""
        while True:
            self.read()
            for _ in range(_READ_MS // 1000):
                await asyncio.sleep_ms(1000)
                alive()
