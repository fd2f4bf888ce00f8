"""Retained memory: an alarm is latched without allocating, and garbage is never taken for one."""

import machine
import micropython
from firmware.badge import retained as kept
from firmware.badge.retained import Retained

BOOT = b"\x00\x07abcd"


def garbage():
    for i in range(len(machine.retained)):
        machine.retained[i] = (i * 37 + 11) & 0xFF


def test_garbage_after_power_on_is_no_alarm():
    garbage()
    assert not Retained().valid
    assert not Retained().open


def test_zeros_are_no_alarm():
    for i in range(len(machine.retained)):
        machine.retained[i] = 0
    assert not Retained().valid


def test_an_alarm_is_latched_without_allocating_and_found_after_the_reset():
    garbage()
    record = Retained()
    micropython.heap_lock()
    try:
        record.latch(1, BOOT, 513, False)
    finally:
        micropython.heap_unlock()
    found = Retained()
    assert found.valid and found.open
    assert found.kind == 1 and found.ident == BOOT + b"\x02\x01" == found.incident
    assert found.felt == 0 and not found.flags & kept.SILENT


def test_updates_allocate_nothing_and_survive():
    garbage()
    record = Retained()
    record.latch(2, BOOT, 9, True)
    micropython.heap_lock()
    try:
        record.update(kept.OPEN | kept.SILENT | kept.RECEIPTED | kept.CAPTURING, 3, 4, 70000, 2)
        record.keep_rotation(40000)
        record.write()
    finally:
        micropython.heap_unlock()
    found = Retained()
    assert found.flags == 15 and found.felt == 3 and found.age_s == 70000
    assert found.reason == 2 and found.rotation == 40000


def test_every_flipped_bit_is_noticed():
    garbage()
    Retained().latch(1, BOOT, 1, False)
    for i in range(80):
        for bit in range(8):
            machine.retained[i] ^= 1 << bit
            assert not Retained().valid, (i, bit)
            machine.retained[i] ^= 1 << bit
    assert Retained().valid


def test_a_visit_is_found_again():
    garbage()
    record = Retained()
    record.set_visit(1, True, 0xFEDCBA98, BOOT + b"\x00\x05", 86400, 600, 86399)
    record.write()
    assert Retained().visit() == (1, True, 0xFEDCBA98, BOOT + b"\x00\x05", 86400, 600, 86399)


def test_a_closed_alarm_is_not_resumed():
    garbage()
    record = Retained()
    record.latch(1, BOOT, 1, False)
    record.close()
    assert Retained().valid and not Retained().open
