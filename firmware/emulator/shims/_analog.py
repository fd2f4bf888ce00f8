# machine.ADC (12 bits, millivolts from the companion) and machine.PWM (the haptic motor).

import struct
import time

import _emulator
from micropython import const

_FULL_MV = const(3100)  # with ATTN_11DB


class ADC:
    ATTN_0DB = const(0)
    ATTN_2_5DB = const(1)
    ATTN_6DB = const(2)
    ATTN_11DB = const(3)
    WIDTH_12BIT = const(12)

    def __init__(self, pin, *, atten=3, sample_ns=0):
        self._at = _emulator.ADC + 2 * (pin if isinstance(pin, int) else pin.id)

    def _mv(self):
        return struct.unpack_from("<H", _emulator.board, self._at)[0]

    def init(self, *, atten=3, sample_ns=0):
        pass

    def atten(self, atten):
        pass

    def width(self, bits):
        pass

    def read_uv(self):
        return self._mv() * 1000

    def read_u16(self):
        return min(65535, self._mv() * 65535 // _FULL_MV)

    def read(self):
        return min(4095, self._mv() * 4095 // _FULL_MV)


class PWM:
    def __init__(self, pin, *, freq=5000, duty_u16=0, duty=None, duty_ns=None, invert=0):
        if _emulator.broken(4):
            raise OSError(5)
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
