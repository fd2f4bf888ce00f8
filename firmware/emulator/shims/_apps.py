# The two application partitions and the record of which one starts: the half of esp32.Partition that updates need.
# The other half, the boot loader, is firmware/emulator/slots.py. Source: ports/esp32/esp32_partition.c and ESP-IDF 5.

import struct
from binascii import crc32

import _copy
import _emulator
from micropython import const

_SECTOR = const(4096)
_SIZE = const(0x60000)
_ENTRY = "<I20sII"
_PENDING = const(1)
_VALID = const(2)
_ABORTED = const(4)
_VALIDATE_FAILED = const(-0x1503)  # ESP_ERR_OTA_VALIDATE_FAILED
_ENOENT = const(2)


def find(id):
    # The memory and the info() of a partition: by label, or BOOT (0) and RUNNING (1).
    if _emulator.slots is None or id not in (0, 1, "ota_0", "ota_1"):
        raise OSError(_ENOENT)
    memory, running = _emulator.slots
    number = running if id == 1 else _chosen() if id == 0 else int(id[4])
    return memory, (0, 0x10 + number, 2 * _SECTOR + number * _SIZE, _SIZE, "ota_%d" % number, False)


def _entries():
    memory = _emulator.slots[0]
    for sector in (0, 1):
        number, _, state, crc = struct.unpack_from(_ENTRY, memory, sector * _SECTOR)
        if number != 0xFFFFFFFF and crc == crc32(struct.pack("<I", number)) and (state <= _VALID or state > _ABORTED):
            yield number, sector, state


def _newest():
    found = sorted(_entries())
    return found[-1] if found else None


def _chosen():
    newest = _newest()
    return (newest[0] - 1) % 2 if newest else 0


def set_boot(what):
    memory = _emulator.slots[0]
    if bytes(memory[what[2] : what[2] + 3]) != b"\xd2\xcd\x31":  # there: header, checksum and hash of the image
        raise OSError(_VALIDATE_FAILED, "ESP_ERR_OTA_VALIDATE_FAILED")
    slot = what[1] - 0x10
    newest = _newest()
    number = newest[0] + 1 if newest else 1
    if (number - 1) % 2 != slot:
        number += 1
    _write(1 - newest[1] if newest else 0, number, 0)


def stay():
    newest = _newest()
    if newest and newest[2] == _PENDING:
        _write(newest[1], newest[0], _VALID)


def _write(sector, number, state):
    memory = _emulator.slots[0]
    _copy.erase(memory, sector * _SECTOR, _SECTOR)
    entry = struct.pack(_ENTRY, number, bytes(20), state, crc32(struct.pack("<I", number)))
    _copy.program(memory, sector * _SECTOR, entry, len(entry))
