# esp32: partitions, non-volatile storage, waking from deep sleep. Source: docs of the module, 1.29.

import struct

import _copy
import _emulator
from micropython import const

_BLOCK = const(4096)
_NVS_AT = const(0)  # offsets and sizes in the flash image
_NVS_SIZE = const(0x6000)
_VFS_AT = const(0x10000)

WAKEUP_ALL_LOW = False
WAKEUP_ANY_HIGH = True
wake_on = {}  # read by machine.deepsleep


def wake_on_ext0(pin=None, level=WAKEUP_ALL_LOW):
    wake_on["ext0"] = None if pin is None else ((pin.id,), bool(level))


def wake_on_ext1(pins=None, level=WAKEUP_ALL_LOW):
    wake_on["ext1"] = None if pins is None else (tuple(p.id for p in pins), bool(level))


def wake_on_gpio(pins=None, level=WAKEUP_ALL_LOW):
    wake_on["gpio"] = None if pins is None else (tuple(p.id for p in pins), bool(level))


def wake_on_touch(wake):
    wake_on["touch"] = None


def wake_on_ulp(wake):
    wake_on["ulp"] = None


def gpio_deep_sleep_hold(enable):
    pass


def raw_temperature():
    return 77


def mcu_temperature():
    return 25


def idf_heap_info(capabilities):
    return [(260000, 90000, 60000, 80000)]


HEAP_DATA = const(4)
HEAP_EXEC = const(1)


class Partition:
    BOOT = const(0)
    RUNNING = const(1)
    TYPE_APP = const(0)
    TYPE_DATA = const(1)

    def __init__(self, id, block_size=4096):
        whole = len(_emulator.flash) - _VFS_AT
        if id == "vfs":
            self._what = (1, 0x81, _VFS_AT, whole, "vfs", False)
        elif id == "nvs":
            self._what = (1, 2, _NVS_AT, _NVS_SIZE, "nvs", False)
        else:
            raise OSError(2)
        self._block = block_size

    @staticmethod
    def find(type=1, subtype=255, label=None, block_size=4096):
        if type != 1:
            return []
        found = []
        for name in ("nvs", "vfs"):
            p = Partition(name, block_size)
            if label in (None, name) and subtype in (255, p._what[1]):
                found.append(p)
        return found

    def info(self):
        return self._what

    def _check(self, at, n):
        if _emulator.broken(1):
            raise OSError(5)
        if at < 0 or at + n > self._what[3]:
            raise OSError(22)
        return self._what[2] + at

    def readblocks(self, block, buf, offset=0):
        at = self._check(block * self._block + offset, len(buf))
        buf[:] = memoryview(_emulator.flash)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=None):
        at = self._check(block * self._block + (offset or 0), len(buf))
        if offset is None:
            _copy.erase(_emulator.flash, at, len(buf))
        _copy.program(_emulator.flash, at, buf, len(buf))

    def ioctl(self, cmd, arg):
        if cmd == 4:
            return self._what[3] // self._block
        if cmd == 5:
            return self._block
        if cmd == 6:
            at = self._check(arg * self._block, self._block)
            _copy.erase(_emulator.flash, at, self._block)
            return 0
        if cmd in (1, 2, 3):
            return 0


class NVS:
    # A log of entries at the start of the flash: u16 length, u8 kind, namespace \0 key, value. The last one
    # of a key counts. Sets are in memory until commit(), as in the real one.
    def __init__(self, namespace):
        if len(namespace) > 15:
            raise OSError(-0x1109)
        self._ns = namespace.encode()
        self._pending = {}

    def _scan(self):
        f = _emulator.flash
        at = _NVS_AT
        while at < _NVS_SIZE - 3:
            n = f[at] << 8 | f[at + 1]
            if n == 0xFFFF or at + 3 + n > _NVS_SIZE:
                return
            yield f[at + 2], bytes(f[at + 3 : at + 3 + n])
            at += 3 + n

    def _get(self, key, kind):
        name = self._ns + b"\0" + key.encode() + b"\0"
        entry = self._pending.get(key)
        if entry is None:
            for k, body in self._scan():
                if body.startswith(name):
                    entry = (k, body[len(name) :])
        if entry is None or entry[0] != kind:
            raise OSError(-0x1102, "ESP_ERR_NVS_NOT_FOUND")
        return entry[1]

    def get_i32(self, key):
        return struct.unpack(">i", self._get(key, 1))[0]

    def set_i32(self, key, value):
        self._pending[key] = (1, struct.pack(">i", value))

    def get_blob(self, key, buffer):
        value = self._get(key, 2)
        if len(value) > len(buffer):
            raise OSError(-0x110C, "ESP_ERR_NVS_INVALID_LENGTH")
        buffer[: len(value)] = value
        return len(value)

    def set_blob(self, key, value):
        self._pending[key] = (2, bytes(value))

    def erase_key(self, key):
        name = self._ns + b"\0" + key.encode() + b"\0"
        for _, body in self._scan():
            if body.startswith(name):
                break
        else:
            if key not in self._pending:
                raise OSError(-0x1102, "ESP_ERR_NVS_NOT_FOUND")
        self._pending[key] = (0, b"")

    def commit(self):
        if _emulator.broken(1):
            raise OSError(5)
        last = {}
        for kind, body in self._scan():
            ns, key, value = body.split(b"\0", 2)
            last[ns + b"\0" + key + b"\0"] = (kind, value)
        for key, entry in self._pending.items():
            last[self._ns + b"\0" + key.encode() + b"\0"] = entry
        log = b""
        for name, (kind, value) in last.items():
            if kind:
                log += struct.pack(">HB", len(name) + len(value), kind) + name + value
        if len(log) > _NVS_SIZE - 4:
            raise OSError(-0x1105, "ESP_ERR_NVS_NOT_ENOUGH_SPACE")
        _copy.erase(_emulator.flash, _NVS_AT, _NVS_SIZE)
        _copy.program(_emulator.flash, _NVS_AT, log, len(log))
        self._pending = {}
