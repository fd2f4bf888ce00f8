# machine.Timer: soft callbacks, from the companion's clock.

import struct

import _emulator
import micropython
from micropython import const


class Timer:
    ONE_SHOT = const(0)
    PERIODIC = const(1)
    _all = {}

    def __init__(self, id=0, **kwargs):
        self.id = id
        self._callback = None
        if kwargs:
            self.init(**kwargs)

    def init(self, *, mode=1, period=-1, freq=-1, callback=None, tick_hz=1000, hard=False):
        if freq != -1:
            period = 1000 // freq
        self._callback = callback
        Timer._all[self.id] = self
        _emulator.handlers[116] = _on_timer  # 't'
        _emulator.send(84, struct.pack(">BBI", self.id & 255, mode, period))  # 'T'

    def deinit(self):
        self._callback = None
        Timer._all.pop(self.id, None)
        _emulator.send(84, struct.pack(">BBI", self.id & 255, 0, 0))


def _on_timer(rx, n):
    timer = Timer._all.get(rx[0]) or Timer._all.get(rx[0] - 256)
    if timer is not None and timer._callback is not None:
        try:
            micropython.schedule(timer._callback, timer)
        except RuntimeError:
            pass  # lost, as on the board
