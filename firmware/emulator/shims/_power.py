# The parts of machine and esp32 about resets, sleep and waking. Source: docs of the modules, 1.29.

import struct

import _emulator
import utime as time
from micropython import const

PIN_WAKE = 2
EXT0_WAKE = 2
EXT1_WAKE = 3
TIMER_WAKE = 4
TOUCHPAD_WAKE = 5
ULP_WAKE = 6

_EXIT_RESET = const(1)
_EXIT_DEEPSLEEP = const(2)

_wake = {}  # way of waking -> (pins, level) or None


def _gone():
    while True:  # the companion ends this process
        time.sleep_ms(1000)


def reset():
    _emulator.send(88, bytes((_EXIT_RESET,)))  # 'X'
    _gone()


def deepsleep(time_ms=0):
    mask = 0
    levels = 0
    ext0 = 0
    for name, way in _wake.items():
        if way:
            if name == "ext0":
                ext0 = 1 << way[0][0].id
            for pin in way[0]:
                mask |= 1 << pin.id
                if way[1]:
                    levels |= 1 << pin.id
    _emulator.send(88, struct.pack(">BQQQQ", _EXIT_DEEPSLEEP, mask, levels, time_ms, ext0))
    _gone()


def lightsleep(time_ms=0):
    # The radio does not survive it.
    _emulator.send(90)  # 'Z'
    time.sleep_ms(time_ms)


def wake_on_ext0(pin=None, level=False):
    _wake["ext0"] = None if pin is None else ((pin,), level)


def wake_on_ext1(pins=None, level=False):
    _wake["ext1"] = None if pins is None else (tuple(pins), level)


def wake_on_gpio(pins=None, level=False):
    _wake["gpio"] = None if pins is None else (tuple(pins), level)


def wake_reason():
    return _emulator.board[_emulator.CAUSE + 1]


def unique_id():
    at = _emulator.CAUSE + 4
    return bytes(_emulator.board[at : at + 6])


def freq(hz=None):
    return 160000000


def idle():
    time.sleep_ms(1)


def disable_irq():
    return 0


def enable_irq(state):
    pass
