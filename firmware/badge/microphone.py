"""The I2S microphone, in callback mode: it fills one buffer made beforehand, again and again.

readinto() returns at once and the callback comes when the buffer is full; blocking reads would hold everything else up,
and asyncio's stream freezes on some boards (MicroPython issue 16029). Between two callbacks the peripheral's own
buffer takes the sound; beyond that it is lost without a word, so the time between two callbacks is watched.
"""

from machine import I2S, Pin
from micropython import const

from protocol.adpcm import RATE, SAMPLES

from . import buffers, trace
from .clock import MASK, ticks_micro

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

_IBUF = const(16384)  # bytes of DMA memory at 8 a sample on the ESP32: 128 ms
_IBUF_US = _IBUF // 8 * 1000000 // RATE
_BLOCK_US = SAMPLES * 1000000 // RATE


class Microphone:
    """One microphone, as the board wires it. `raw` holds the latest block of RAW_LENGTH bytes."""

    def __init__(self, board: "Any") -> None:
        self._board = board
        self.raw = buffers.raw
        self._i2s: "I2S | None" = None
        self._on_block: "Callable[[int], None] | None" = None
        self._last_us = 0

    def open(self, on_block: "Callable[[int], None]") -> bool:
        """Start; `on_block(missed)` is called with each block in `raw`, and how many blocks were lost before it."""
        board = self._board
        self._on_block = on_block
        self.close()
        try:
            i2s = I2S(
                board.MIC_ID,
                sck=Pin(board.MIC_SCK),
                ws=Pin(board.MIC_WS),
                sd=Pin(board.MIC_SD),
                mode=I2S.RX,
                bits=32,
                format=I2S.MONO,
                rate=RATE,
                ibuf=_IBUF,
            )
            i2s.irq(self._filled)
            self._i2s = i2s
            self._last_us = ticks_micro()
            i2s.readinto(self.raw)
        except (OSError, ValueError) as error:
            trace.fault("microphone", error)
            self.close()
            return False
        return True

    def close(self) -> None:
        """Stop, and let the microphone sleep."""
        i2s = self._i2s
        self._i2s = None
        if i2s is not None:
            i2s.deinit()

    def _filled(self, i2s: "I2S") -> None:
        if self._i2s is None or self._on_block is None:
            return
        now = ticks_micro()
        late = ((now - self._last_us) & MASK) - _BLOCK_US - _IBUF_US
        self._last_us = now
        try:
            self._on_block((late + _BLOCK_US - 1) // _BLOCK_US if late > 0 else 0)
        finally:
            i2s.readinto(self.raw)
