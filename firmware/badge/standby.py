"""Off duty: the whole badge asleep but for its buttons; no radio, no microphone. Loaded only when it is needed.

Waking starts the processor anew. The hidden button held for as long as ever means SOS; the side button held means "on
duty again"; the charger wakes too. A touch that is neither lets the badge sleep on, and the radio was never on.
"""

from time import sleep_ms, ticks_diff, ticks_ms

import esp32
import machine
from machine import Pin
from micropython import const

from . import gestures
from .clock import MASK

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any

    from .buttons import Buttons
    from .gestures import Recogniser

_SAMPLE_MS = const(10)
_IDLE_MS = const(700)  # after so long without a finger on it the badge sleeps on: a press that bounces is one press
_STUCK_MS = const(20000)  # a button that something presses for so long cannot wake any more
_SLOWEST_MS = const(10000)  # a start that took longer is none: somebody has moved the clock
CHARGER = "charger"
ON_DUTY = (gestures.HOLD, gestures.DURESS_HOLD, gestures.PAIR)


def doze(board: "Any", buttons: "Buttons", recogniser: "Recogniser") -> "str | None":
    """What the hand wants that woke the badge: SOS, one of ON_DUTY, CHARGER, or None to sleep on."""
    began: "Any" = ticks_ms()
    pressed = not Pin(board.SOS_N).value()
    if pressed and machine.wake_reason() not in (machine.EXT1_WAKE, machine.TIMER_WAKE):
        # it woke the badge, so it was down before anybody could look; ticks begin anew with every start
        since = 0 if began < _SLOWEST_MS else began
        recogniser.began_pressed((since - board.WAKE_MS) & MASK)
    touched = began
    while True:
        act = buttons.sample()
        if act == gestures.SOS or act in ON_DUTY:
            return act
        if board.CHARGING_N is not None and not Pin(board.CHARGING_N, Pin.IN, Pin.PULL_UP).value():
            return CHARGER
        now = ticks_ms()
        if recogniser.busy():
            touched = now
        if ticks_diff(now, touched) >= _IDLE_MS or ticks_diff(now, began) >= _STUCK_MS:
            return None
        sleep_ms(_SAMPLE_MS)


def sleep(board: "Any") -> None:
    """Sleep until a button or the charger wakes the badge. Does not come back."""
    others = []
    for pin in (board.SIDE_N, board.CHARGING_N):
        if pin is not None:
            wakes = Pin(pin, Pin.IN, Pin.PULL_UP)
            if wakes.value():  # one that is low already would wake it at once, for ever
                others.append(wakes)
    sos = Pin(board.SOS_N, Pin.IN, Pin.PULL_UP)
    if hasattr(esp32, "wake_on_ext0"):
        esp32.wake_on_ext0(sos, esp32.WAKEUP_ALL_LOW)  # also when it is down right now: that is a hold that goes on
        # on the ESP32-S3 ALL_LOW means any of them (ESP-IDF 5, esp_sleep.h)
        esp32.wake_on_ext1(others or None, esp32.WAKEUP_ALL_LOW)
    else:  # the ESP32-C3 and -C6 wake by any pin of their low-power domain
        esp32.wake_on_gpio([sos] + others, esp32.WAKEUP_ALL_LOW)
    machine.deepsleep()
