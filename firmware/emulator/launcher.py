"""The child process: MicroPython with the badge's code in "flash", and memory shared with the companion.

MicroPython is a library here (`micropython_unix`), in the same address space, so that what is mapped can be
handed over as an address: the ROMFS image, from which code runs in place and which costs no heap, the board's
memory and the flash. Nothing else of CPython is in use once MicroPython runs.

    python -m firmware.emulator.launcher IMAGE BOARD FLASH PORT HEAP MODULE PARENT [SLOTS NUMBER]

With SLOTS, the file of the two application partitions, the image is what lies in slot NUMBER of it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from pathlib import Path

from firmware.emulator import romfs
from firmware.emulator.slots import SLOT_AT, SLOT_SIZE

SCRATCH = 4096
PR_SET_PDEATHSIG = 1

_START = """
import sys,vfs,uctypes
vfs.umount('/')
vfs.mount(vfs.VfsRom(uctypes.bytearray_at({image},{image_size})),'/rom')
sys.path[:]=['/rom/shims','/rom','.frozen']
{before}
import _emulator
_emulator.start({port},{board},{board_size},{flash},{flash_size},{scratch})
_emulator.slots={slots}
import _boot
_boot.run({module!r})
"""

# before anything of ours is on the heap (heap.py): asyncio and what it brings along are the badge's own too
MEASURE = "_measure"
_BEFORE = """
sys.path[:]=['.frozen']
import asyncio,gc,micropython
asyncio.core,asyncio.sleep_ms,asyncio.Event,asyncio.ThreadSafeFlag
gc.collect()
micropython.qstr_info()
print('@bare bytes=%d'%gc.mem_alloc())
sys.path[:]=['/rom/shims','/rom','.frozen']
for name in list(sys.modules):
 if name.startswith('asyncio'):del sys.modules[name]
del name,gc,micropython,asyncio
"""


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _map(path: str, *, write: bool) -> tuple[mmap.mmap, int]:
    descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    flags = mmap.MAP_SHARED if write else mmap.MAP_PRIVATE
    # A private mapping of the image stays on the file's pages as long as nobody writes, and nobody does.
    memory = mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(descriptor)
    return memory, size


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent (of this number) ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before we could say so
        os._exit(1)


def main(argv: list[str]) -> int:
    """Run MicroPython. Returns its exit status: 0 when the module has returned."""
    image_path, board_path, flash_path, port, heap, module, parent, *slot = argv
    die_with_parent(int(parent))
    import micropython_unix

    slots = "None"
    if slot:
        apps, apps_size = _map(slot[0], write=True)
        number = int(slot[1])
        at = SLOT_AT[number]
        image_at = _address(apps) + at
        image_size = romfs.size(memoryview(apps)[at : at + SLOT_SIZE])
        slots = f"(uctypes.bytearray_at({_address(apps)},{apps_size}),{number})"
    else:
        image, image_size = _map(image_path, write=False)
        image_at = _address(image)
    board, board_size = _map(board_path, write=True)
    flash, flash_size = _map(flash_path, write=True)
    scratch = mmap.mmap(-1, SCRATCH)
    start = _START.format(
        before=_BEFORE if module == MEASURE else "",
        image=image_at,
        slots=slots,
        image_size=image_size,
        board=_address(board),
        board_size=board_size,
        flash=_address(flash),
        flash_size=flash_size,
        scratch=_address(scratch),
        port=int(port),
        module=module,
    )
    # Python buffers what it prints; MicroPython writes to the descriptor.
    sys.stdout.flush()
    return int(micropython_unix.run_main(["micropython", "-X", f"heapsize={heap}", "-c", start]))


def command(
    image: Path,
    board: Path,
    flash: Path,
    *,
    port: int,
    module: str,
    heap: int | str = "160K",
    slot: tuple[Path, int] | None = None,
) -> list[str]:
    """The command line that starts the child; it dies with this process. `slot`: file of the slots, and which runs."""
    here = [sys.executable, "-m", "firmware.emulator.launcher"]
    slots = [str(each) for each in slot] if slot else []
    return [*here, str(image), str(board), str(flash), str(port), str(heap), module, str(os.getpid()), *slots]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
