# machine.I2C with one device on it: the accelerometer LIS2DH12 (ST, DocID025056), as far as man-down uses it.
# What the body does comes from the companion: at rest and walking it weighs 1 g, and when it fell is a time.

import struct

import _emulator
import utime
from micropython import const

_ADDRESS = const(0x19)
_BROKEN = const(32)
_EIO = const(5)
_ENODEV = const(19)
_PERIOD_US = const(20000)  # 50 Hz
_DEPTH = const(32)
_G = const(4000)  # 1 g as the sensor gives it: 250 steps of 4 mg, left-justified


def _force(at):
    # Acceleration on three axes at a time: falling for 0.4 s, hitting the floor, lying there until it gets up.
    fell, up = struct.unpack_from("<QQ", _emulator.board, _emulator.MOTION)
    since = at - fell
    if not fell or since < 0 or (up > fell and at >= up):
        sway = (at // _PERIOD_US) % 50 * 40
        return sway - 1000, _G - sway // 2, 1000 - sway // 3
    if since < 400000:
        return 600, 500, 300
    if since < 460000:
        return 9000, -7000, 3000
    if since < 800000:
        return 4600, 900, -800
    return _G, 300, -200


class I2C:
    def __init__(self, id=-1, *, scl=None, sda=None, freq=400000, timeout=50000):
        self._registers = bytearray(64)
        self._registers[0x0F] = 0x33
        self._read = 0  # when the sample that is read next was measured

    def _at(self, address):
        if address != _ADDRESS:
            raise OSError(_ENODEV)
        if _emulator.broken(_BROKEN):
            raise OSError(_EIO)

    def scan(self):
        return [] if _emulator.broken(_BROKEN) else [_ADDRESS]

    def writeto_mem(self, address, register, data, *, addrsize=8):
        self._at(address)
        self._registers[register & 0x3F] = data[0]
        self._read = utime.ticks_us()

    def _level(self):
        if not self._registers[0x20] >> 4:
            return 0  # asleep
        late = (utime.ticks_us() - self._read) // _PERIOD_US
        if late > _DEPTH:  # the oldest are lost
            self._read += (late - _DEPTH) * _PERIOD_US
        return min(late, _DEPTH)

    def readfrom_mem_into(self, address, register, buf, *, addrsize=8):
        self._at(address)
        if register == 0x2F:
            level = self._level()
            buf[0] = 0x40 | 31 if level == _DEPTH else level or 0x20
        elif register == 0xA8:
            self._level()
            for at in range(0, len(buf) - 5, 6):
                struct.pack_into("<hhh", buf, at, *_force(self._read))
                self._read += _PERIOD_US
        else:
            for i in range(len(buf)):
                buf[i] = self._registers[register + i & 0x3F]

    def readfrom_mem(self, address, register, n, *, addrsize=8):
        buf = bytearray(n)
        self.readfrom_mem_into(address, register, buf)
        return bytes(buf)
