# time: the interpreter's own, but ticks as on the ESP32's 32-bit build: from the board's start, wrapping at 2^30.
# asyncio keeps the interpreter's (see _boot): its task queue is C code that compares times by another period.

import _emulator
import utime
from micropython import const
from utime import *  # noqa: F403

_MASK = const((1 << 30) - 1)
_HALF = const(1 << 29)


def ticks_ms():
    return ((_emulator.edge or utime.ticks_us()) - _emulator.zero) // 1000 & _MASK


def ticks_us():
    return (_emulator.edge or utime.ticks_us()) - _emulator.zero & _MASK


ticks_cpu = ticks_us


def ticks_add(ticks, delta):
    if not -_HALF < delta < _HALF:
        raise OverflowError("ticks interval overflow")
    return ticks + delta & _MASK


def ticks_diff(end, start):
    return (end - start + _HALF & _MASK) - _HALF
