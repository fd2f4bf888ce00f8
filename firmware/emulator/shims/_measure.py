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
    for name in ("bluetooth", "machine", "_analog", "_pwm", "_power", "_i2s", "_rtc", "_i2c", "esp32", "os", "time"):
        __import__(name)
    sys.modules["bluetooth"].BLE()
    print("@shims bytes=%d" % (_used() - before))
    micropython.qstr_info()
    # loaded when they are wanted: on hardware their names are in flash like the others'
    for name in ("main", "fall", "standby", "trial", "update", "update_key", "release"):
        __import__("firmware.badge." + name)
    for name in ("image", "p256"):
        __import__("protocol." + name)
    micropython.qstr_info()
