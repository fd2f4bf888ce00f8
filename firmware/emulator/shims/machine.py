# machine: pins, time and rest of the emulated board. Source: docs of the module and ports/esp32, 1.29.
# I2S, ADC, PWM and RTC are in files of their own and come when they are first asked for.

import struct
import time

import _emulator
import micropython
from micropython import const

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

PIN_WAKE = 2
EXT0_WAKE = 2
EXT1_WAKE = 3
TIMER_WAKE = 4
TOUCHPAD_WAKE = 5
ULP_WAKE = 6

_PINS = const(49)
_EXIT_RESET = const(1)
_EXIT_DEEPSLEEP = const(2)

_LATER = {"I2S": "_i2s", "ADC": "_analog", "PWM": "_analog", "RTC": "_rtc", "Timer": "_timer"}


def __getattr__(name):
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(name)
    cls = getattr(__import__(module), name)
    globals()[name] = cls
    return cls


def _gone():
    while True:  # the companion ends this process
        time.sleep_ms(1000)


def reset():
    _emulator.send(88, bytes((_EXIT_RESET,)))  # 'X'
    _gone()


def deepsleep(time_ms=0):
    import esp32

    mask = 0
    levels = 0
    for way in esp32.wake_on.values():
        if way:
            for pin in way[0]:
                mask |= 1 << pin
                if way[1]:
                    levels |= 1 << pin
    _emulator.send(88, struct.pack(">BQQQ", _EXIT_DEEPSLEEP, mask, levels, time_ms))
    _gone()


def lightsleep(time_ms=0):
    # The radio does not survive it (facts: machine.lightsleep() drops BLE).
    _emulator.send(90)  # 'Z'
    time.sleep_ms(time_ms)


def reset_cause():
    return _emulator.board[_emulator.CAUSE]


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
    DRIVE_0 = const(0)
    DRIVE_1 = const(1)
    DRIVE_2 = const(2)
    DRIVE_3 = const(3)
    _all = {}

    def __new__(cls, id, *args, **kwargs):
        pin = cls._all.get(id)
        if pin is None:
            if not isinstance(id, int) or not 0 <= id < _PINS:
                raise ValueError("invalid pin")
            pin = cls._all[id] = object.__new__(cls)
            pin.id = id
            pin._mode = None
            pin._handler = None
            pin._trigger = 0
        if args or kwargs:
            pin.init(*args, **kwargs)
        return pin

    def __init__(self, *args, **kwargs):
        pass

    def init(self, mode=-1, pull=-1, *, value=None, drive=0, hold=None):
        if mode != -1:
            self._mode = mode
        if value is not None:
            self.value(value)

    def value(self, level=None):
        if level is None:
            return _emulator.board[_emulator.PINS + self.id]
        if self._mode in (3, 7):
            level = 1 if level else 0
            _emulator.board[_emulator.PINS + self.id] = level
            _emulator.send(79, struct.pack(">BBQ", self.id, level, time.ticks_us()))  # 'O'

    def __call__(self, level=None):
        return self.value(level)

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


def _on_pin(rx, n):
    pin = Pin._all.get(rx[0])
    if pin is not None and pin._trigger & (1 if rx[1] else 2):
        try:
            micropython.schedule(pin._handler, pin)
        except RuntimeError:
            pass  # the queue is full: the interrupt is lost, as on the board


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
