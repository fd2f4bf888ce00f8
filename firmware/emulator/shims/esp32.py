# esp32: partitions and non-volatile storage on the flash image. Source: docs of the module, 1.29.
# What deep sleep needs is in _power.

import struct
from binascii import crc32

import _copy
import _emulator
from micropython import const

_NVS_AREA = const(0x3000)  # two areas, written in turn: a power cut leaves the old one or the new one
_NVS_AREAS = const(2)
_VFS_AT = const(0x10000)
_HEAD = const(12)  # number of the commit, length of the body, CRC32
_NOT_FOUND = const(-0x1102)  # ESP_ERR_NVS_NOT_FOUND
_EIO = const(5)
_EINVAL = const(22)
_FILESYSTEM_BROKEN = const(1)  # its partition; NVS is another, for which the chip has code of its own

WAKEUP_ALL_LOW = False
WAKEUP_ANY_HIGH = True


def __getattr__(name):
    if name.startswith("wake_on"):
        return getattr(__import__("_power"), name)
    raise AttributeError(name)


class Partition:
    BOOT = const(0)
    RUNNING = const(1)
    TYPE_APP = const(0)
    TYPE_DATA = const(1)

    def __init__(self, id, block_size=4096):
        self._flash = _emulator.flash
        if id == "vfs":
            self._what = (1, 0x81, _VFS_AT, len(_emulator.flash) - _VFS_AT, "vfs", False)
        elif id == "nvs":
            self._what = (1, 2, 0, _NVS_AREA * _NVS_AREAS, "nvs", False)
        else:
            self._flash, self._what = __import__("_apps").find(id)
        self._block = block_size

    @staticmethod
    def find(type=1, subtype=255, label=None, block_size=4096):
        names = ("nvs", "vfs") if type == 1 else ("ota_0", "ota_1") if _emulator.slots else ()
        all = [Partition(name, block_size) for name in names]
        return [p for p in all if label in (None, p._what[4]) and subtype in (255, p._what[1])]

    def info(self):
        return self._what

    def get_next_update(self):
        return Partition("ota_0" if self._what[4] == "ota_1" else "ota_1", self._block)

    def set_boot(self):
        __import__("_apps").set_boot(self._what)

    @staticmethod
    def mark_app_valid_cancel_rollback():
        __import__("_apps").stay()

    def _at(self, block, offset, n):
        at = block * self._block + offset
        if self._what[4] == "vfs" and _emulator.broken(_FILESYSTEM_BROKEN):
            raise OSError(_EIO)
        if at < 0 or at + n > self._what[3]:
            raise OSError(_EINVAL)
        return self._what[2] + at

    def readblocks(self, block, buf, offset=0):
        at = self._at(block, offset, len(buf))
        buf[:] = memoryview(self._flash)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=None):
        # Without an offset the blocks are erased first; with one only bits that are still set can be cleared.
        at = self._at(block, offset or 0, len(buf))
        if offset is None:
            _copy.erase(self._flash, at, len(buf))
        _copy.program(self._flash, at, buf, len(buf))

    def ioctl(self, cmd, arg):
        if cmd == 4:
            return self._what[3] // self._block
        if cmd == 5:
            return self._block
        if cmd == 6:
            _copy.erase(self._flash, self._at(arg, 0, self._block), self._block)
        return 0


def _area(at):
    # The commit in an area: its number and its entries, or (0, b"").
    number, size, crc = struct.unpack_from(">III", _emulator.flash, at)
    if number != 0xFFFFFFFF and size <= _NVS_AREA - _HEAD:
        body = bytes(memoryview(_emulator.flash)[at + _HEAD : at + _HEAD + size])
        if crc32(body, number) == crc:
            return number, body
    return 0, b""


class NVS:
    # Entries: u16 length, u8 kind, "namespace/key\0", value. Sets are in memory until commit().
    def __init__(self, namespace):
        if len(namespace) > 15:
            raise OSError(_EINVAL)
        self._ns = namespace.encode() + b"/"
        self._pending = {}

    def _entries(self):
        body = max(_area(0), _area(_NVS_AREA))[1]
        found = {}
        while body:
            n = body[0] << 8 | body[1]
            name, value = body[3:n].split(b"\0", 1)
            found[name] = (body[2], value)
            body = body[n:]
        return found

    def _get(self, key, kind):
        name = self._ns + key.encode()
        entry = self._pending.get(name) or self._entries().get(name)
        if entry is None or entry[0] != kind:
            raise OSError(_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        return entry[1]

    def get_i32(self, key):
        return struct.unpack(">i", self._get(key, 1))[0]

    def set_i32(self, key, value):
        self._pending[self._ns + key.encode()] = (1, struct.pack(">i", value))

    def get_blob(self, key, buffer):
        value = self._get(key, 2)
        if len(value) > len(buffer):
            raise OSError(-0x110C, "ESP_ERR_NVS_INVALID_LENGTH")
        buffer[: len(value)] = value
        return len(value)

    def set_blob(self, key, value):
        self._pending[self._ns + key.encode()] = (2, bytes(value))

    def erase_key(self, key):
        name = self._ns + key.encode()
        if name not in self._pending and name not in self._entries():
            raise OSError(_NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        self._pending[name] = (0, b"")

    def commit(self):
        entries = self._entries()
        entries.update(self._pending)
        body = b""
        for name, (kind, value) in entries.items():
            if kind:
                body += struct.pack(">HB", 4 + len(name) + len(value), kind) + name + b"\0" + value
        if len(body) > _NVS_AREA - _HEAD:
            raise OSError(-0x1105, "ESP_ERR_NVS_NOT_ENOUGH_SPACE")
        first, second = _area(0)[0], _area(_NVS_AREA)[0]
        number = max(first, second) + 1
        at = 0 if first < second else _NVS_AREA
        _copy.erase(_emulator.flash, at, _NVS_AREA)
        _copy.program(_emulator.flash, at + _HEAD, body, len(body))
        _copy.program(_emulator.flash, at, struct.pack(">III", number, len(body), crc32(body, number)), _HEAD)
        self._pending = {}
