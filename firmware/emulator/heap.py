"""How large MicroPython's heap is here, so that it means what the limit says on a badge.

The limit is for the badge's objects: 160K of 64-bit words stand for 80 KB. On hardware the application is frozen into
the firmware, with all its names (qstrs) in flash. Here it is loaded from a ROMFS, which runs the code in place and
leaves the names' text there, but keeps its table of names on the heap. That table is measured once per image, and the
heap is made larger by it. What the emulator's own code occupies is measured too. It stands for C code, for which IN_C
of the limit is set aside; the rest of it is added.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from firmware.emulator import build, launcher
from firmware.emulator.board import Board

LIMIT = 160 * 1024
# Of the limit, for what the C modules behind the shims keep on a badge's heap. Counted from the structures in
# MicroPython's sources (Bluetooth and its values 1776 bytes, file system 624, I2S 320, others 64) they hold 2784 bytes
# of 32-bit heap, 3728 here, and a file that is open 256; never measured on a board.
IN_C = 16 * 1024
_ROOM = "2000K"
_MEASURING_S = 30


@dataclass(frozen=True)
class Heap:
    """Bytes: what the badge's objects may take, the loader's table of names, and what the emulator's code occupies."""

    limit: int
    names: int
    shims: int

    @property
    def size(self) -> int:
        """The heap that MicroPython gets."""
        return self.limit + self.names + max(0, self.shims - IN_C)

    def of_the_badge(self, used: int) -> int:
        """What of the limit is taken when so many bytes are in use here: IN_C, and all that is the badge's own."""
        return used - self.names - self.shims + IN_C


def measure(image: bytes, limit: int = LIMIT) -> Heap:
    """The heap for an image. Runs MicroPython once per image. Raises build.BuildError when it cannot."""
    kept = build.cache_folder() / f"{sha256(image).hexdigest()[:32]}.heap"
    try:
        known = json.loads(kept.read_text())
        return Heap(limit, int(known["names"]), int(known["shims"]))
    except (OSError, ValueError, KeyError):
        pass
    with tempfile.TemporaryDirectory(prefix="tocsin-heap-") as name:
        folder = Path(name)
        Board(folder).close()
        (folder / "image.rom").write_bytes(image)
        files = (folder / "image.rom", folder / "board.bin", folder / "flash.bin")
        command = launcher.command(*files, port=0, module=launcher.MEASURE, heap=_ROOM)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_MEASURING_S)
    found = re.findall(r"n_str_data_bytes=(\d+), n_total_bytes=(\d+)", done.stdout)
    tables = [int(total) - int(text) for text, total in found]  # before the emulator's code, after it, at the end
    bare = re.search(r"@bare bytes=(\d+)", done.stdout)
    shims = re.search(r"@shims bytes=(\d+)", done.stdout)
    if len(tables) != 3 or not bare or not shims:
        raise build.BuildError(f"the image does not start: {(done.stdout + done.stderr).strip()[-300:]}")
    heap = Heap(limit, tables[2], int(shims[1]) - int(bare[1]) - (tables[1] - tables[0]))
    kept.write_text(json.dumps(asdict(heap)))
    return heap
