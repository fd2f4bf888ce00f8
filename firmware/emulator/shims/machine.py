# machine: pins and the watchdog of the emulated board. Source: docs of the module and ports/esp32, 1.29.
# The rest is in files of its own and comes when it is first asked for: on the board it costs no heap at all.

import struct

import _emulator
import utime as time
from micropython import const

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

_PINS = const(49)
_QUEUE = const(8)  # what the port's scheduler holds
_BUSY_US = const(10000)
_LATER = {"I2S": "_i2s", "ADC": "_analog", "PWM": "_pwm", "RTC": "_rtc", "Timer": "_timer", "I2C": "_i2c"}


def __getattr__(name):
    found = getattr(__import__(_LATER.get(name, "_power")), name)
    globals()[name] = found
    return found


def reset_cause():
    return _emulator.board[_emulator.CAUSE]


class Pin:
    IN = const(1)
    OUT = const(3)
    OPEN_DRAIN = const(7)
    PULL_DOWN = const(1)
    PULL_UP = const(2)
    IRQ_RISING = const(1)
    IRQ_FALLING = const(2)
    WAKE_LOW = const(4)
    WAKE_HIGH = const(5)
    _all = {}

    def __new__(cls, id, *args, **kwargs):
        pin = cls._all.get(id)
        if pin is None:
            if not isinstance(id, int) or not 0 <= id < _PINS:
                raise ValueError("invalid pin")
            pin = cls._all[id] = object.__new__(cls)
            pin.id = id
            pin._output = False
            pin._handler = None
            pin._trigger = 0
        if args or kwargs:
            pin.init(*args, **kwargs)
        return pin

    def __init__(self, *args, **kwargs):
        pass

    def init(self, mode=-1, pull=-1, *, value=None, drive=0, hold=None):
        if mode != -1:
            self._output = mode in (3, 7)
        if value is not None:
            self.value(value)

    def value(self, level=None):
        if level is None:
            if _emulator.edge:  # in the handler of an edge: as it was then
                return _levels[self.id]
            return _emulator.board[_emulator.PINS + self.id]
        if self._output:
            level = 1 if level else 0
            _emulator.board[_emulator.PINS + self.id] = level
            _emulator.send(79, struct.pack(">BBQ", self.id, level, time.ticks_us()))  # 'O'

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def irq(self, handler=None, trigger=3, *, wake=None, hard=False):
        self._handler = handler
        self._trigger = trigger if handler else 0
        return self

    def __repr__(self):
        return "Pin(%d)" % self.id


_levels = bytearray(_emulator.board[_emulator.PINS : _emulator.PINS + _PINS])  # as far as edges have been handled
_late = 0  # interrupts in a row that waited behind another because nobody had time
_looked = 0  # when the latest was handled


def _on_pin(rx, n):
    # The handler sees time and levels of the edge itself. On the board it is there within a millisecond; here whoever
    # had no processor for a while finds several at once, and a press would be as short as the time between two of them.
    global _late, _looked
    _levels[rx[0]] = rx[1]
    now = time.ticks_us()
    waited = (now - struct.unpack_from(">I", rx, 2)[0]) & 0xFFFFFFFF
    # one that happened after the one before it was handled had the queue to itself: only this machine was slow
    _late = _late + 1 if waited > _BUSY_US and waited > now - _looked else 0
    _looked = now
    if _late >= _QUEUE:
        return  # the board's queue had long been full
    pin = Pin._all.get(rx[0])
    if pin is not None and pin._trigger & (1 if rx[1] else 2):
        _emulator.edge = now - waited
        try:
            pin._handler(pin)
        finally:
            _emulator.edge = 0


_emulator.handlers[112] = _on_pin  # 'p'


class WDT:
    # Cannot be stopped: the companion resets the board when it is not fed in time.
    def __init__(self, id=0, timeout=5000):
        if id != 0 or timeout < 1:
            raise ValueError
        self.feed()
        struct.pack_into("<I", _emulator.board, _emulator.WDT, timeout)

    def feed(self):
        struct.pack_into("<Q", _emulator.board, _emulator.WDT + 4, time.ticks_us())
