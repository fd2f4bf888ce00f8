"""The two application partitions of the emulated board, and the boot loader that chooses between them.

As ESP-IDF 5 does it (app_update/esp_ota_ops.c, bootloader_support), with the rollback that MicroPython's port switches
on: the boot record is two sectors, the newer whole one counts. A slot that `set_boot` has chosen is NEW; the boot
loader starts it once and calls it PENDING; a reset that finds it so, because nobody called it VALID, calls it ABORTED
and starts the other. Here a slot holds a ROMFS image, there the whole firmware. `shims/_apps.py` is the badge's side.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from firmware.emulator import romfs
from firmware.emulator.board import map_file

SECTOR = 4096
SLOT_SIZE = 0x60000
SLOT_AT = (2 * SECTOR, 2 * SECTOR + SLOT_SIZE)
FILE_SIZE = SLOT_AT[1] + SLOT_SIZE
NEW, PENDING, VALID, INVALID, ABORTED = 0, 1, 2, 3, 4
# number of the choice, label (unused), state, CRC32 of the number
_ENTRY = "<I20sII"


def check(number: int) -> int:
    """The CRC of an entry's number."""
    return zlib.crc32(struct.pack("<I", number))


class Slots:
    """The file `slots.bin` in a badge's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "slots.bin"
        self._factory = folder / "image.rom"
        fresh = not self.path.exists()
        self.memory = map_file(self.path, FILE_SIZE, fill=0xFF)
        if fresh:
            self._factory.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmap."""
        self.memory.close()

    def flash(self, image: bytes) -> None:
        """Write an image over the cable as esptool does: into the first slot, and the choice begins anew.

        The image that was flashed last stays as it is, and with it an update that has come since.
        """
        if len(image) > SLOT_SIZE:
            raise ValueError(f"an image of {len(image)} bytes does not fit into a slot of {SLOT_SIZE}")
        if self._factory.exists() and self._factory.read_bytes() == image:
            return
        self.memory[:] = b"\xff" * FILE_SIZE
        self.memory[SLOT_AT[0] : SLOT_AT[0] + len(image)] = image
        self._factory.write_bytes(image)

    def image(self, slot: int) -> bytes:
        """What lies in a slot. Raises ValueError when it is no image."""
        view = memoryview(self.memory)[SLOT_AT[slot] : SLOT_AT[slot] + SLOT_SIZE]
        return bytes(view[: romfs.size(view)])

    def _entry(self, sector: int) -> tuple[int, int] | None:
        number, _, state, crc = struct.unpack_from(_ENTRY, self.memory, sector * SECTOR)
        return (number, state) if number != 0xFFFFFFFF and crc == check(number) else None

    def _set_state(self, sector: int, state: int) -> None:
        struct.pack_into("<I", self.memory, sector * SECTOR + 24, state)

    def choose(self) -> int:
        """The slot that starts at a reset; 0 when there is nothing to go by. Raises ValueError when neither can."""
        best = None
        for sector in (0, 1):
            entry = self._entry(sector)
            if entry is not None and entry[1] == PENDING:
                self._set_state(sector, ABORTED)
            elif entry is not None and entry[1] not in (INVALID, ABORTED) and (best is None or entry > best[0]):
                best = entry, sector
        slot = 0
        if best is not None:
            (number, state), sector = best
            slot = (number - 1) % 2
            if state == NEW:
                self._set_state(sector, PENDING)
        for each in (slot, 1 - slot):
            try:
                self.image(each)
            except ValueError:
                continue
            return each
        raise ValueError("neither slot holds firmware: flash it by cable")
