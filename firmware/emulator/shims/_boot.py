# ruff: noqa: E402
# What the board does before the application: mount the flash, then run it.

import sys

_path = sys.path[:]
sys.path[:] = [".frozen"]
import asyncio  # with the interpreter's own time: its task queue is C code and knows no other period

sys.path[:] = _path
sys.modules.pop("time", None)
import gc
import io
import os

import _emulator
import flashbdev
import vfs
from micropython import const

_SWEEP = const(2048)
_HANG_MS = const(30000)


class _Clock(io.IOBase):
    # While everything that asyncio waits for is a file descriptor (the console alone, say), the Unix port blocks
    # in poll() and runs no interrupt handlers. Something that is none makes it look up each millisecond.
    def ioctl(self, request, arg):
        return 0 if request == 3 else -22  # never ready; no file number


def mount():
    # As the port's _boot.py: a blank flash is formatted; one that cannot be mounted is left alone.
    bdev = flashbdev.bdev
    try:
        vfs.mount(bdev, "/")
    except OSError as problem:
        first = bytearray(512)
        try:
            bdev.readblocks(0, first)
            if any(b != 255 for b in first):
                raise problem
            vfs.VfsLfs2.mkfs(bdev)
            vfs.mount(bdev, "/")
        except OSError as worse:
            print("flash: cannot mount:", worse)


def spoil(part, name):
    # A drill wants this record of the badge's store damaged.
    if _emulator.broken(part):
        try:
            if "tocsin" not in os.listdir("/"):
                os.mkdir("/tocsin")
            with open("/tocsin/" + name, "wb") as file:
                file.write(b"\x5a" * 40)
        except OSError as problem:
            print("spoil:", problem)


def prompt():
    # A process that had no processor for a while finds edges of pins that wait, and on the board they never do:
    # they are handled before any task goes on. asyncio looks for input before each.
    queue = asyncio.core.IOQueue
    wait = queue.wait_io_event

    def wait_io_event(self, dt):
        wait(self, dt)
        if _emulator.waiting():
            _emulator.settle()

    queue.wait_io_event = wait_io_event


def run(module):
    mount()
    spoil(8, "bonds")
    spoil(16, "settings")
    asyncio.core._io_queue.poller.register(_Clock(), 1)
    prompt()
    gc.collect()
    print("@boot heap=%d" % gc.mem_free())
    # Loading leaves debris among what stays; frozen modules leave none. Sweeping often keeps the heap as whole.
    gc.threshold(_SWEEP)
    guarded = module == "firmware.badge.main"
    if guarded:  # firmware/badge/start.py, the main.py of a badge, does the same
        import machine

        machine.WDT(timeout=_HANG_MS)
    try:
        __import__(module)
        gc.threshold(-1)
        gc.collect()
        app = sys.modules[module]
        if hasattr(app, "main"):
            app.main()
    except Exception as problem:
        if not guarded:
            raise
        sys.print_exception(problem)
        machine.reset()
