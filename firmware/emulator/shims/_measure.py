# Run once per image by firmware/emulator/heap.py: how much of this heap a badge with frozen modules would not use.

import gc
import sys

import micropython


def _used():
    gc.collect()
    return gc.mem_alloc()


def main():
    micropython.qstr_info()
    before = _used()
    for name in ("bluetooth", "machine", "_analog", "_pwm", "_power", "_i2s", "_rtc", "esp32", "os"):
        __import__(name)
    sys.modules["bluetooth"].BLE()
    print("@shims bytes=%d" % (_used() - before))
    micropython.qstr_info()
    __import__("firmware.badge.main")
    micropython.qstr_info()
