"""How large MicroPython's heap is here, so that it means what the limit says on a badge.

The limit is for the badge's objects: 160K of 64-bit words stand for 80 KB. On hardware the application is frozen into
the firmware, with all its names (qstrs) in flash. Here it is loaded from a ROMFS, which runs the code in place and
leaves the names' text there, but keeps its table of names on the heap. That table is measured once per image, and the
heap is made larger by it. What the shims occupy is measured too: they stand for C code that takes little of a badge's
heap, so IN_C counts within the limit and the rest is added.
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
# Bytes that the C modules behind the shims may take of the limit: the values of the GATT server, the objects of pins,
# timers and I2S. An estimate with room to spare (they are thought to be about 2 KB on an ESP32); never measured on one.
IN_C = 8 * 1024
_ROOM = "2000K"
_MEASURING_S = 30


@dataclass(frozen=True)
class Heap:
    """Bytes: what the badge's objects may take, the loader's table of names, and what the shims occupy."""

    limit: int
    names: int
    shims: int

    @property
    def size(self) -> int:
        """The heap that MicroPython gets."""
        return self.limit + self.names + max(0, self.shims - IN_C)


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
        command = launcher.command(
            folder / "image.rom", folder / "board.bin", folder / "flash.bin", port=0, module="_measure", heap=_ROOM
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_MEASURING_S)
    found = re.findall(r"n_str_data_bytes=(\d+), n_total_bytes=(\d+)", done.stdout)
    tables = [int(total) - int(text) for text, total in found]  # before the shims, after them, at the end
    shims = re.search(r"@shims bytes=(\d+)", done.stdout)
    if len(tables) != 3 or not shims:
        raise build.BuildError(f"the image does not start: {(done.stdout + done.stderr).strip()[-300:]}")
    heap = Heap(limit, tables[2], int(shims[1]) - (tables[1] - tables[0]))
    kept.write_text(json.dumps(asdict(heap)))
    return heap
