"""The emulated board's memory as both sides see it: offsets shared with `shims/_emulator.py`.

Three files of a badge's state directory are mapped by the companion and by the MicroPython child:
`board.bin` (pins, converter, watchdog, retained RTC memory, microphone DMA ring) and `flash.bin`.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

PINS = 0
ADC = 64
WDT_TIMEOUT = 192
WDT_FED = 196
I2S_WRITTEN = 208
CAUSE = 224
WAKE = 225
BROKEN = 226
UNIQUE_ID = 228
EDGES = 240
RTC = 256
RTC_SIZE = 4 + 2048
RTC_MAGIC = 0x5A17
TICKS = 2312
MOTION = 2320
HEAP = 2336
RING = 4096
RING_SAMPLES = 4096
BOARD_SIZE = RING + 2 * RING_SAMPLES
FLASH_SIZE = 1 << 20
NVS_SIZE = 0x6000

POWER_ON, HARD_RESET, WATCHDOG, DEEPSLEEP, SOFT_RESET = 1, 2, 3, 4, 5
EXT0_WAKE, EXT1_WAKE, TIMER_WAKE = 2, 3, 4


def map_file(path: Path, size: int, fill: int = 0) -> mmap.mmap:
    """Map a file, shared; it is made with `fill` bytes when it is not there or has the wrong size."""
    if not path.exists() or path.stat().st_size != size:
        made = path.with_suffix(".new")
        made.write_bytes(bytes((fill,)) * size)
        made.replace(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class Board:
    """The companion's side of the shared memory."""

    def __init__(self, folder: Path) -> None:
        self.memory = map_file(folder / "board.bin", BOARD_SIZE)
        self.flash = map_file(folder / "flash.bin", FLASH_SIZE, fill=0xFF)

    def close(self) -> None:
        """Unmap."""
        self.memory.close()
        self.flash.close()

    def set_pin(self, pin: int, level: int) -> bool:
        """Set a pin's level; True when that is a change."""
        changed = self.memory[PINS + pin] != level
        self.memory[PINS + pin] = level
        return changed

    def count_edge(self, none_yet: bool = False) -> None:
        """The firmware is told of one more edge of a pin; `none_yet`: a new run of it has not been told of any."""
        self.memory[EDGES] = 0 if none_yet else self.memory[EDGES] + 1 & 255

    def pin(self, pin: int) -> int:
        """A pin's level."""
        return self.memory[PINS + pin]

    def set_millivolts(self, pin: int, millivolts: int) -> None:
        """What the converter measures at a pin."""
        struct.pack_into("<H", self.memory, ADC + 2 * pin, millivolts)

    def set_cause(self, cause: int, wake: int = 0) -> None:
        """Why the board starts next, and what woke it."""
        self.memory[CAUSE] = cause
        self.memory[WAKE] = wake

    def start_ticks(self, at_us: int) -> None:
        """From now on the firmware's ticks count from this instant of CLOCK_MONOTONIC, in microseconds."""
        struct.pack_into("<Q", self.memory, TICKS, max(0, at_us))

    def move(self, fell_us: int, up_us: int = 0) -> None:
        """When the wearer fell and got up again (CLOCK_MONOTONIC, microseconds; 0: did not)."""
        struct.pack_into("<QQ", self.memory, MOTION, fell_us, up_us)

    def forget_heap(self) -> None:
        """A watch of the heap begins."""
        struct.pack_into("<I", self.memory, HEAP, 0)

    def heap_peak(self) -> int:
        """Most bytes of the heap in use, without garbage, that a watch has seen; 0 without one."""
        return int(struct.unpack_from("<I", self.memory, HEAP)[0])

    def set_unique_id(self, mac: bytes) -> None:
        """The chip's number."""
        self.memory[UNIQUE_ID : UNIQUE_ID + 6] = mac

    def break_parts(self, parts: int) -> None:
        """Bits of the parts that do not work: 1 flash, 2 microphone, 4 motor, 8 bonds, 16 settings, 32 fall sensor."""
        self.memory[BROKEN] = parts

    def watchdog_starved(self) -> bool:
        """Whether the watchdog runs and was not fed in time."""
        (timeout,) = struct.unpack_from("<I", self.memory, WDT_TIMEOUT)
        (fed,) = struct.unpack_from("<Q", self.memory, WDT_FED)
        return bool(timeout) and time.monotonic_ns() // 1000 - fed > timeout * 1000

    def stop_watchdog(self) -> None:
        """As at every start: the watchdog is off until the firmware starts it."""
        struct.pack_into("<I", self.memory, WDT_TIMEOUT, 0)

    def lose_power(self, noise: bytes) -> None:
        """What power-on finds in the retained memory: anything. Half of the time it passes for something."""
        self.memory[RTC : RTC + RTC_SIZE] = noise[:RTC_SIZE].ljust(RTC_SIZE, b"\0")
        if noise[0] & 1:
            struct.pack_into("<HH", self.memory, RTC, RTC_MAGIC, int.from_bytes(noise[1:3], "big") % (RTC_SIZE - 4))

    def lose_nvs(self) -> None:
        """Erase the non-volatile storage whole, which the system may do on its own."""
        self.flash[:NVS_SIZE] = b"\xff" * NVS_SIZE

    def put_samples(self, first: int, samples: bytes) -> None:
        """Write 16-bit little-endian samples into the DMA ring; `first` is the number of the first one."""
        at = 0
        count = len(samples) // 2
        while at < count:
            place = (first + at) % RING_SAMPLES
            n = min(count - at, RING_SAMPLES - place)
            start = RING + 2 * place
            self.memory[start : start + 2 * n] = samples[2 * at : 2 * (at + n)]
            at += n
        struct.pack_into("<Q", self.memory, I2S_WRITTEN, first + count)

    def restart_samples(self) -> None:
        """The DMA ring is empty, the next sample is number 0."""
        struct.pack_into("<Q", self.memory, I2S_WRITTEN, 0)
