# machine.ADC: 12 bits, millivolts from the companion. Source: docs of the class, 1.29.

import struct

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

    def init(self, *, atten=3, sample_ns=0):
        pass

    def atten(self, atten):
        pass

    width = atten

    def read_uv(self):
        return struct.unpack_from("<H", _emulator.board, self._at)[0] * 1000

    def read_u16(self):
        return min(65535, self.read_uv() * 65535 // (_FULL_MV * 1000))

    def read(self):
        return self.read_u16() >> 4
