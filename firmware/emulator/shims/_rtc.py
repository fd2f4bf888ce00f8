# machine.RTC: retained memory. It survives watchdog and software resets; at power-on it holds anything.

import struct

import _emulator
import utime as time
from micropython import const

_MAGIC = const(0x5A17)


class RTC:
    def __init__(self, id=0):
        pass

    def memory(self, data=None):
        at = _emulator.RTC
        if data is None:
            magic, n = struct.unpack_from("<HH", _emulator.board, at)
            if magic != _MAGIC or n > _emulator.RTC_SIZE:
                return b""
            return bytes(_emulator.board[at + 4 : at + 4 + n])
        n = len(data)
        if n > _emulator.RTC_SIZE:
            raise ValueError("buffer too long")
        _emulator.board[at + 4 : at + 4 + n] = data
        struct.pack_into("<HH", _emulator.board, at, _MAGIC, n)

    def datetime(self, value=None):
        if value is None:
            t = time.gmtime()
            return (t[0], t[1], t[2], t[6], t[3], t[4], t[5], 0)
