"""The store: whole or not at all, whatever block operation the power is cut at, and in two places."""

import gc
import os

import esp32
import vfs
from firmware.badge import store
from firmware.badge.settings import Settings
from firmware.badge.store import BOOT, JOURNAL, KEYS, SETTINGS, Identity, Store

ME = Identity(12, bytes(range(32)), bytes(range(16)))


class Cut(Exception):
    pass


class Flash:
    """A block device in memory whose power is cut after so many writing operations, in the middle of one."""

    def __init__(self, data=None):
        self.data = bytearray(data or b"\xff" * (24 * 4096))
        self.view = memoryview(self.data)
        self.left = -1
        self.broken = False

    def _count(self):
        if self.broken:
            raise OSError(5)
        if self.left == 0:
            raise Cut
        self.left -= 1

    def readblocks(self, block, buffer, offset=0):
        if self.broken:
            raise OSError(5)
        at = block * 4096 + offset
        buffer[:] = self.view[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        at = block * 4096 + offset
        try:
            self._count()
        except Cut:
            half = len(buffer) // 2
            self.data[at : at + half] = buffer[:half]
            raise
        self.data[at : at + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.data) // 4096
        if operation == 5:
            return 4096
        if operation == 6:
            self._count()
            self.data[argument * 4096 : argument * 4096 + 4096] = b"\xff" * 4096
            return 0
        return 0


def boot(flash, nvs=False):
    """The store as a boot finds it."""
    forget()
    esp32.Partition.device = flash
    return Store(store.mount(), nvs)


def forget():
    gc.collect()
    try:
        vfs.umount("/flash")
    except OSError:
        pass


def test_a_blank_flash_is_formatted_and_keeps_what_it_is_given():
    flash = Flash()
    first = boot(flash)
    first.write(KEYS, ME.pack())
    assert boot(flash).identity().root == ME.root


def test_a_flash_that_does_not_mount_is_left_alone():
    flash = Flash()
    flash.data[0:8192] = b"\x5a" * 8192
    before = bytes(flash.data)
    assert boot(flash).folder is None
    assert bytes(flash.data) == before


def test_after_a_power_cut_at_any_block_operation_the_old_record_or_the_new_one_is_there():
    base = Flash()
    first = boot(base)
    first.write(KEYS, ME.pack())
    first.keep_settings(Settings({"visit_minutes": 30}, 1))
    first.write(JOURNAL, b"a" * 26)
    assert first.next_boot() == 1
    forget()
    cuts = 0
    while True:
        flash = Flash(base.data)
        keep = boot(flash)
        flash.left = cuts
        try:
            keep.keep_settings(Settings({"visit_minutes": 45}, 2))
            keep.write(JOURNAL, b"b" * 26)
            number = keep.next_boot()
            done = True
        except Cut:
            done = False
        # files that the cut left open must not write any more when they are collected
        after = Flash(flash.data)
        flash.broken = True
        again = boot(after)
        assert again.identity().root == ME.root
        assert again.settings().number("visit_minutes") in (30, 45)
        assert again.read(JOURNAL) in (b"a" * 26, b"b" * 26)
        following = again.next_boot()
        assert following > (number if done else 1), (cuts, following)
        cuts += 1
        if done:
            break
    assert cuts >= 6, cuts
    forget()


def test_either_place_alone_is_enough_and_heals_the_other():
    flash = Flash()
    esp32.NVS.places.clear()
    first = boot(flash, nvs=True)
    first.write(KEYS, ME.pack())
    first.next_boot()
    esp32.NVS.places.clear()  # erased by the system on its own
    second = boot(flash, nvs=True)
    assert second.identity().badge == 12
    assert second.next_boot() == 2
    assert esp32.NVS.places  # healed
    blank = Flash()
    again = boot(blank, nvs=True)
    assert again.identity().badge == 12
    assert again.next_boot() == 3
    esp32.NVS.places.clear()
    assert boot(blank, nvs=True).identity().badge == 12


def test_a_broken_filesystem_leaves_keys_and_counter_in_nvs():
    esp32.NVS.places.clear()
    flash = Flash()
    boot(flash, nvs=True).write(KEYS, ME.pack())
    flash.broken = True
    broken = boot(flash, nvs=True)
    assert broken.folder is None
    assert broken.identity().badge == 12
    assert broken.next_boot() == 1
    assert broken.next_boot() == 2
    broken.write(JOURNAL, b"x")  # nothing to raise for


def test_damaged_settings_are_the_defaults_and_damaged_keys_are_none():
    flash = Flash()
    keep = boot(flash)
    keep.keep_settings(Settings({"visit_minutes": 30}, 7))
    keep.write(KEYS, ME.pack())
    for name in ("settings", "keys"):
        with open("/flash/tocsin/" + name, "r+b") as file:
            file.seek(9)
            byte = file.read(1)
            file.seek(9)
            file.write(bytes((byte[0] ^ 1,)))
    assert keep.settings().number("visit_minutes") == 60
    assert keep.identity() is None
    assert keep.read(SETTINGS) is None


def test_settings_outside_their_range_are_not_taken_from_flash():
    keep = boot(Flash())
    keep.write(SETTINGS, b'\x00\x03{"hold_to_sos": 60}')
    assert keep.settings().number("hold_to_sos") == 1.5


def test_a_record_of_another_kind_is_not_taken():
    record = store.pack_record(BOOT, b"1234")
    assert store.unpack_record(KEYS, record) is None
    assert store.unpack_record(BOOT, record) == b"1234"
    for i in range(len(record)):
        bad = bytearray(record)
        bad[i] ^= 1
        assert store.unpack_record(BOOT, bytes(bad)) is None
        assert store.unpack_record(BOOT, record[:i]) is None


def test_no_file_of_a_badge_is_left_half_written():
    keep = boot(Flash())
    for _ in range(5):
        keep.write(JOURNAL, bytes(26))
    keep.remove(JOURNAL)
    keep.remove(JOURNAL)
    assert not [name for name in os.listdir("/flash/tocsin") if name.endswith(".new")]
    forget()
