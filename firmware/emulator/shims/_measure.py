# Run once per image by firmware/emulator/heap.py: how much of this heap a badge with frozen modules would not use.

import gc
from asyncio import Event, ThreadSafeFlag, core  # noqa: F401  # as the launcher had them loaded

import micropython


def main():
    for name in ("bluetooth", "machine", "_analog", "_pwm", "_power", "_i2s", "_rtc", "_i2c", "esp32", "os", "time"):
        __import__(name)
    __import__("bluetooth").BLE()
    gc.collect()
    micropython.qstr_info()
    print("@shims bytes=%d" % gc.mem_alloc())
    # loaded when they are wanted: on hardware their names are in flash like the others'
    for name in ("main", "desk", "fall", "standby", "trial", "update", "update_key", "release"):
        __import__("firmware.badge." + name)
    for name in ("image", "p256"):
        __import__("protocol." + name)
    micropython.qstr_info()
