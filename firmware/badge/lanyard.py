"""The lanyard's break-away clasp, with a magnetic switch in it: torn off means alarm.

A clasp that swings opens for moments, and a badge that is put on or taken off is not pulled. So it alarms once when it
has been open for _PULLED_MS after having been closed for _WORN_MS, and not again before it was closed as long.
"""

from machine import Pin
from micropython import const

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any

_PULLED_MS = const(500)  # the promise is an alarm within 2 s
_WORN_MS = const(2000)


class Lanyard:
    """The switch on a pin; None where the board has none."""

    def __init__(self, pin: "int | None") -> None:
        self._pin: "Any" = None if pin is None else Pin(pin, Pin.IN, Pin.PULL_UP)
        self._attached = False
        self._since_ms = 0
        self._armed = False

    def pulled(self, now_ms: int) -> bool:
        """Whether it was torn off just now. To be asked every 50 ms or so."""
        if self._pin is None:
            return False
        attached = not self._pin.value()
        if attached != self._attached:
            self._attached = attached
            self._since_ms = now_ms
        elif attached:
            if now_ms - self._since_ms >= _WORN_MS:
                self._armed = True
        elif self._armed and now_ms - self._since_ms >= _PULLED_MS:
            self._armed = False
            return True
        return False
