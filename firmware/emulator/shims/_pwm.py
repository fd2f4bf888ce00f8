# machine.PWM: the haptic motor. Every change goes to the companion with its time. Source: docs of the class, 1.29.

import struct

import _emulator
import utime as time
from micropython import const

_EIO = const(5)
_MOTOR_BROKEN = const(4)


class PWM:
    def __init__(self, pin, *, freq=5000, duty_u16=0, duty=None, duty_ns=None, invert=0):
        if _emulator.broken(_MOTOR_BROKEN):
            raise OSError(_EIO)
        self._pin = pin if isinstance(pin, int) else pin.id
        self._freq = freq
        self._duty = 0
        self.init(duty_u16=duty_u16, duty=duty)

    def init(self, *, freq=None, duty_u16=None, duty=None):
        if freq is not None:
            self._freq = freq
        if duty is not None:
            duty_u16 = duty * 64
        if duty_u16 is not None:
            self.duty_u16(duty_u16)

    def freq(self, hz=None):
        if hz is None:
            return self._freq
        self._freq = hz

    def duty_u16(self, duty=None):
        if duty is None:
            return self._duty
        if not 0 <= duty <= 65536:
            raise ValueError("duty_u16 should be 0..65536")
        self._duty = duty
        _emulator.send(77, struct.pack(">BHQ", self._pin, min(duty, 65535), time.ticks_us()))  # 'M'

    def duty(self, duty=None):
        if duty is None:
            return self._duty // 64
        self.duty_u16(duty * 64)

    def deinit(self):
        self.duty_u16(0)
