"""What the badge keeps: keys, settings, bonds, the boot counter and an unfinished alarm, in two independent places.

First place: littlefs on flash. A record is written to a temporary file, flushed, closed and renamed over the old one,
so that a power cut at any block leaves the old record or the new one; version and CRC say whether it is whole.
Second place: NVS, the ESP32's own key-value store, which the system may erase on its own. Keys and the boot counter
are in both; the badge reads whichever is whole. Neither is needed to raise SOS once the keys are in memory, and one
is enough to start.

A file system that does not mount is never formatted by itself unless the flash is blank: what is on it may be the only
record of an incident. Every failure is said and counted, and the badge goes on.
"""

import json
import os
import struct
from binascii import crc32

import vfs
from micropython import const

from . import trace
from .settings import BadSetting, Settings, check_all

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

_MOUNT = "/flash"
_FOLDER = "/tocsin"
_MAGIC = b"Tc"
_VERSION = const(1)
_HEAD = ">2sBBH"  # magic, version, what it is, length of the payload; CRC32 at the end
_HEAD_LENGTH = const(6)
_OVERHEAD = const(10)
_MAX = const(2048)

KEYS = 1
SETTINGS = 2
JOURNAL = 3
BOOT = 4
BONDS = 5
UPDATE = 6
_NAMES = {KEYS: "keys", SETTINGS: "settings", JOURNAL: "journal", BOOT: "boot", BONDS: "bonds", UPDATE: "update"}
_IN_NVS = (KEYS, BOOT, UPDATE)


def pack_record(what: int, payload: bytes) -> bytes:
    """A record as it lies in either place."""
    body = struct.pack(_HEAD, _MAGIC, _VERSION, what, len(payload)) + payload
    return body + struct.pack(">I", crc32(body))


def unpack_record(what: int, record: bytes) -> "bytes | None":
    """The payload of a whole record of that kind, else None."""
    if len(record) < _OVERHEAD:
        return None
    magic, version, kind, length = struct.unpack(_HEAD, record[:_HEAD_LENGTH])
    end = _HEAD_LENGTH + length
    if magic != _MAGIC or version != _VERSION or kind != what or len(record) < end + 4:
        return None
    if struct.unpack(">I", record[end : end + 4])[0] != crc32(record[:end]):
        return None
    return record[_HEAD_LENGTH:end]


class Identity:
    """Who this badge is: its number, root key (32 bytes) and the council's group key (16 bytes)."""

    def __init__(self, badge: int, root: bytes, group: bytes) -> None:
        self.badge = badge
        self.root = root
        self.group = group

    def pack(self) -> bytes:
        """51 bytes for the store."""
        return self.badge.to_bytes(3, "big") + self.root + self.group


def unpack_identity(payload: "bytes | None") -> "Identity | None":
    """The inverse of Identity.pack; None for anything that is not one."""
    if payload is None or len(payload) != 51:
        return None
    return Identity(int.from_bytes(payload[:3], "big"), payload[3:35], payload[35:])


class Flash:
    """The first place: records as files in one folder of a mounted file system."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def write(self, what: int, payload: bytes) -> bool:
        """Put a record in place of the old one, whole or not at all. Raises OSError."""
        path = self._folder + "/" + _NAMES[what]
        with open(path + ".new", "wb") as file:
            file.write(pack_record(what, payload))
            file.flush()
        os.rename(path + ".new", path)
        return True

    def read(self, what: int) -> "bytes | None":
        """The payload; None where there is none, or it is damaged (said). Raises OSError for a broken file system."""
        try:
            with open(self._folder + "/" + _NAMES[what], "rb") as file:
                record = file.read(_MAX)
        except OSError as error:
            if error.args and error.args[0] == 2:  # ENOENT
                return None
            raise
        payload = unpack_record(what, record)
        if payload is None:
            trace.say("damaged", "file=" + _NAMES[what])
        return payload

    def remove(self, what: int) -> None:
        """Forget a record."""
        try:
            os.remove(self._folder + "/" + _NAMES[what])
        except OSError as error:
            if not error.args or error.args[0] != 2:
                raise


class Nvs:
    """The second place."""

    def __init__(self) -> None:
        from esp32 import NVS

        self._nvs = NVS("tocsin")

    def write(self, what: int, payload: bytes) -> None:
        """Raises OSError."""
        self._nvs.set_blob(_NAMES[what], pack_record(what, payload))
        self._nvs.commit()

    def read(self, what: int) -> "bytes | None":
        """The payload, None where there is none or it is damaged."""
        buffer = bytearray(128)
        try:
            length = self._nvs.get_blob(_NAMES[what], buffer)
        except OSError:  # ESP_ERR_NVS_NOT_FOUND, or a damaged page: both mean that this place has nothing
            return None
        return unpack_record(what, bytes(buffer[:length]))


def mount() -> "str | None":
    """The folder of the badge's own file system, mounted if need be; None (said) where it cannot be.

    A stock MicroPython has mounted it at / already; a build of our own leaves it to this. Formats blank flash only.
    """
    try:
        for filesystem, path in vfs.mount():
            if isinstance(filesystem, vfs.VfsLfs2):
                return _folder(path.rstrip("/"))
        from esp32 import Partition

        device = Partition.find(Partition.TYPE_DATA, label="vfs")[0]
        try:
            filesystem = vfs.VfsLfs2(device)  # type: ignore[abstract]
        except OSError:
            if not _blank(device):
                raise
            vfs.VfsLfs2.mkfs(device)
            filesystem = vfs.VfsLfs2(device)  # type: ignore[abstract]
        vfs.mount(filesystem, _MOUNT)
        return _folder(_MOUNT)
    except (OSError, ImportError, IndexError) as error:
        trace.fault("filesystem", error)
        return None


def _folder(path: str) -> str:
    try:
        os.mkdir(path + _FOLDER)
    except OSError as error:
        if not error.args or error.args[0] != 17:  # EEXIST
            raise
    return path + _FOLDER


def _blank(device: "Any") -> bool:
    block = bytearray(512)
    for number in (0, 1):  # littlefs keeps its superblock in these two
        device.readblocks(number, block, 0)
        if block.count(b"\xff") != len(block) and block.count(b"\x00") != len(block):
            return False
    return True


class Store:
    """Both places behind one face. Nothing here raises: a place that fails is said and left out."""

    def __init__(self, folder: "str | None", nvs: bool = True) -> None:
        self.folder = folder
        self._flash = Flash(folder) if folder else None
        self._nvs: "Nvs | None" = None
        if nvs:
            try:
                self._nvs = Nvs()
            except (ImportError, OSError) as error:
                trace.fault("nvs", error)

    def _try(self, subject: str, action: "Callable[..., Any]", *args: "Any") -> "Any":
        try:
            return action(*args)
        except OSError as error:
            trace.fault(subject, error)
            return None

    def write(self, what: int, payload: bytes) -> bool:
        """Keep a record, in both places if it is of those that are. Whether the file system has it."""
        done = bool(self._flash and self._try("filesystem", self._flash.write, what, payload))
        if self._nvs and what in _IN_NVS:
            self._try("nvs", self._nvs.write, what, payload)
        return done

    def read(self, what: int) -> "bytes | None":
        """A record from whichever place has it whole."""
        payload: "bytes | None" = None
        if self._flash:
            payload = self._try("filesystem", self._flash.read, what)
        if payload is None and self._nvs and what in _IN_NVS:
            payload = self._try("nvs", self._nvs.read, what)
        return payload

    def remove(self, what: int) -> None:
        """Forget a record on flash."""
        if self._flash:
            self._try("filesystem", self._flash.remove, what)

    # --- what the records hold

    def identity(self) -> "Identity | None":
        """Who this badge is, or None for one that was never provisioned. Heals the place that lost it."""
        places = []
        if self._flash:
            places.append(unpack_identity(self._try("filesystem", self._flash.read, KEYS)))
        if self._nvs:
            places.append(unpack_identity(self._try("nvs", self._nvs.read, KEYS)))
        for found in places:
            if found is not None:
                if None in places:
                    self.write(KEYS, found.pack())
                return found
        return None

    def next_boot(self) -> int:
        """The boot counter, one higher than either place knows. Two places lost at once begin again at 1.

        Nothing secret hangs on that: a boot is this counter and 32 random bits.
        """
        highest = 0
        for place in (self._flash, self._nvs):
            if place is not None:
                payload = self._try("boot", place.read, BOOT)
                if payload is not None and len(payload) == 4:
                    highest = max(highest, struct.unpack(">I", payload)[0])
        self.write(BOOT, struct.pack(">I", highest + 1))
        return highest + 1

    def settings(self) -> Settings:
        """The settings; the defaults where they are missing or damaged (said)."""
        payload = self.read(SETTINGS)
        if payload is None or len(payload) < 2:
            return Settings()
        try:
            return Settings(check_all(json.loads(payload[2:])), payload[0] << 8 | payload[1])
        except (BadSetting, ValueError) as error:
            trace.fault("settings", error)
            return Settings()

    def keep_settings(self, settings: Settings) -> None:
        """Write the settings."""
        self.write(SETTINGS, settings.version.to_bytes(2, "big") + json.dumps(settings.changed()).encode())
