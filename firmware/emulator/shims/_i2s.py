# machine.I2S, receiving: samples appear in the DMA ring in real time; a listener that is too slow loses the
# oldest without hearing of it. port: 8 bytes of `ibuf` a sample, whatever was asked for.
#
# The companion lets the air rest while this machine gave the board or the companion no time (microphone.py): it is
# told how far the board has read and who the board is, and tells for how long the air rested.

import struct

import _copy
import _emulator
import micropython
from micropython import const

_DMA_SAMPLE = const(8)
_DMA_LEAST = const(512)
_READ = const(216)  # u32 samples read or lost, u32 the board's process, 0 when unknown
_RESTED = const(236)  # u32 us of this capture that the air rested


def _process():
    import vfs

    try:
        with vfs.VfsPosix("").open("/proc/self/stat", "r") as file:
            return int(file.read(24).split()[0])
    except OSError:
        return 0


class I2S:
    RX = const(0)
    TX = const(1)
    MONO = const(0)
    STEREO = const(1)

    def __init__(self, id, *, sck, ws, sd, mode, bits, format, rate, ibuf, mck=None):
        if mode != 0 or format != 0 or bits not in (16, 32):
            raise ValueError("only RX, MONO, 16 or 32 bits here")
        if _emulator.broken(2):
            raise OSError(5)
        self._wide = bits == 32
        self._room = min(4096, max(_DMA_LEAST, ibuf // _DMA_SAMPLE))
        self._ring = memoryview(_emulator.board)[_emulator.RING : _emulator.RING + 2 * _emulator.RING_SAMPLES]
        self._handler = None
        self._called = None  # the one that is scheduled
        self._soon = self._full
        self._buf = None
        self._filled = 0
        self._read = 0
        struct.pack_into("<II", _emulator.board, _READ, 0, _process())
        _emulator.handlers[115] = self._on_dma  # 's'
        # answered when the ring is empty: the count of the capture before would look like sound already read
        _emulator.call(71, struct.pack(">BI", 1, rate))  # 'G'

    def _written(self):
        return struct.unpack_from("<Q", _emulator.board, _emulator.I2S)[0]

    def irq(self, handler):
        self._handler = handler

    def init(self, **kwargs):
        pass

    def _fill(self, buf, at, want):
        # Takes what is there; returns how many samples of buf are filled then.
        written = self._written()
        if written - self._read > self._room:
            self._read = written - self._room
        n = min(want - at, written - self._read)
        if n > 0:
            _copy.samples(buf, at, self._ring, self._read, n, self._wide)
            self._read += n
            at += n
        struct.pack_into("<I", _emulator.board, _READ, self._read & 0xFFFFFFFF)
        return at

    def readinto(self, buf):
        samples = len(buf) // (4 if self._wide else 2)
        if self._handler is None:
            import utime as time

            at = 0
            while at < samples:
                at = self._fill(buf, at, samples)
                if at < samples:
                    time.sleep_ms(1)
            return len(buf)
        # port: only the buffer is remembered here; a task fills it and schedules the handler
        self._buf = buf
        self._filled = 0
        self._on_dma(None, 0)
        return len(buf)

    def _on_dma(self, rx, n):
        buf = self._buf
        if buf is None:
            return
        samples = len(buf) // (4 if self._wide else 2)
        self._filled = self._fill(buf, self._filled, samples)
        if self._filled >= samples:
            self._buf = None
            self._called = self._handler
            try:
                micropython.schedule(self._soon, None)
            except RuntimeError:
                pass  # lost, as on the board

    def _full(self, _):
        # While the air rested no time passed for whoever measures sound by the clock.
        zero = _emulator.zero
        _emulator.zero = zero + struct.unpack_from("<I", _emulator.board, _RESTED)[0]
        try:
            self._called(self)
        finally:
            _emulator.zero = zero

    def deinit(self):
        self._handler = None
        self._buf = None
        _emulator.handlers.pop(115, None)
        _emulator.send(71, struct.pack(">BI", 0, 0))
