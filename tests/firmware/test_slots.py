"""The emulated board's two slots and its boot loader behave as those of ESP-IDF with rollback."""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.emulator import build, launcher, romfs
from firmware.emulator.board import Board
from firmware.emulator.slots import ABORTED, NEW, PENDING, SECTOR, SLOT_AT, SLOT_SIZE, VALID, Slots, check

IMAGE = romfs.image({"a.py": b"one"})
OTHER = romfs.image({"a.py": b"another"})


def put(slots: Slots, slot: int, image: bytes) -> None:
    slots.memory[SLOT_AT[slot] : SLOT_AT[slot] + len(image)] = image


def record(slots: Slots, sector: int, number: int, state: int) -> None:
    struct.pack_into("<I20sII", slots.memory, sector * SECTOR, number, bytes(20), state, check(number))


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    made = Slots(tmp_path)
    made.flash(IMAGE)
    put(made, 1, OTHER)
    return made


def test_what_was_flashed_runs(slots: Slots) -> None:
    assert [slots.choose() for _ in range(3)] == [0, 0, 0]
    assert slots.image(0) == IMAGE


def test_a_chosen_slot_starts_once_and_stays_only_when_it_says_so(slots: Slots) -> None:
    record(slots, 0, 2, NEW)
    assert slots.choose() == 1
    assert slots.choose() == 0  # it never said so
    assert slots.choose() == 0
    record(slots, 1, 4, NEW)
    assert slots.choose() == 1
    record(slots, 1, 4, VALID)
    assert [slots.choose() for _ in range(3)] == [1, 1, 1]


def test_going_back_finds_the_one_that_was_good_before(slots: Slots) -> None:
    record(slots, 0, 2, VALID)
    record(slots, 1, 3, PENDING)
    assert slots.choose() == 1
    record(slots, 1, 3, ABORTED)
    assert slots.choose() == 1


def test_a_slot_without_firmware_is_passed_over(slots: Slots) -> None:
    record(slots, 0, 2, VALID)
    slots.memory[SLOT_AT[1]] = 0
    assert slots.choose() == 0
    slots.memory[SLOT_AT[0]] = 0
    with pytest.raises(ValueError, match="flash it"):
        slots.choose()


@given(st.binary(max_size=64), st.integers(0, 60), st.integers(0, 1), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_any_boot_record_starts_one_of_the_slots(noise: bytes, at: int, sector: int, state: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        slots = Slots(Path(name))
        slots.flash(IMAGE)
        record(slots, 0, 7, VALID)
        record(slots, 1, 8, state)
        slots.memory[sector * SECTOR + at : sector * SECTOR + at + len(noise)] = noise
        for _ in range(3):
            assert slots.choose() == 0  # the other one is empty
        slots.close()


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_are_not(noise: bytes) -> None:
    for data in (noise, IMAGE[:3] + noise, IMAGE[: len(noise)]):
        try:
            assert 0 < romfs.size(data) <= len(data)
        except ValueError:
            continue
    assert romfs.size(IMAGE + noise) == len(IMAGE)


def test_flashing_again_keeps_an_update_unless_there_is_something_new_to_flash(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slots.flash(IMAGE)
    put(slots, 1, OTHER)
    record(slots, 0, 2, VALID)
    slots.close()
    slots = Slots(tmp_path)
    slots.flash(IMAGE)
    assert slots.choose() == 1
    slots.flash(OTHER)
    assert slots.choose() == 0
    assert slots.image(0) == OTHER
    with pytest.raises(ValueError, match="does not fit"):
        slots.flash(bytes(SLOT_SIZE + 1))
    slots.close()


def test_the_partitions_of_a_badge_have_two_slots_and_do_not_overlap() -> None:
    rows = [
        [cell.strip() for cell in line.split(",")]
        for line in (build.ROOT / "firmware" / "partitions-8MiB.csv").read_text().splitlines()
        if not line.startswith("#")
    ]
    places = sorted((int(row[3], 0), int(row[4], 0), row[0]) for row in rows)
    for (at, size, _), (following, _, _) in itertools.pairwise(places):
        assert at + size <= following
    assert places[-1][0] + places[-1][1] <= 8 << 20
    assert places[0][0] >= 0x9000  # boot loader and this table come before
    slots = [row for row in rows if row[1] == "app"]
    assert [row[2] for row in slots] == ["ota_0", "ota_1"]
    assert len({row[4] for row in slots}) == 1
    assert all(int(row[3], 0) % 0x10000 == 0 for row in slots)
    assert {"nvs", "otadata", "vfs"} <= {row[0] for row in rows}


SCRIPT = """
from esp32 import Partition
running = Partition(Partition.RUNNING)
other = running.get_next_update()
boot = Partition(Partition.BOOT)
print(running.info()[4], running.info()[0], boot.info()[4], len(Partition.find(Partition.TYPE_APP)))
what = {what!r}
if what == "copy":
    block = bytearray(4096)
    for number in range(running.info()[3] // 4096):
        running.readblocks(number, block)
        other.writeblocks(number, block)
    other.set_boot()
elif what == "empty":
    other.ioctl(6, 0)
    try:
        other.set_boot()
    except OSError as problem:
        print(problem.errno)
    try:
        other.readblocks(running.info()[3] // 4096, bytearray(1))
    except OSError as problem:
        print(problem.errno)
elif what == "stay":
    Partition.mark_app_valid_cancel_rollback()
print(Partition(Partition.BOOT).info()[4])
"""


class Runs:
    """One board that runs scripts from whichever slot the boot loader chooses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots = Slots(folder)
        Board(folder).close()

    def script(self, what: str) -> list[str]:
        source = self.folder / "script.py"
        source.write_text(textwrap.dedent(SCRIPT).replace("{what!r}", repr(what)))
        image = build.image(extra={"script.py": source})
        slot = self.slots.choose() if self.slots.memory[SLOT_AT[0]] != 0xFF else 0
        put(self.slots, slot, image)
        command = launcher.command(
            self.folder / "image.rom",
            self.folder / "board.bin",
            self.folder / "flash.bin",
            port=0,
            module="script",
            slot=(self.slots.path, slot),
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return [line for line in done.stdout.split("\n") if line and not line.startswith("@boot")]


def test_micropython_and_the_boot_loader_mean_the_same(tmp_path: Path) -> None:
    board = Runs(tmp_path)
    assert board.script("empty") == ["ota_0 0 ota_0 2", str(-0x1503), "22", "ota_0"]
    assert board.script("copy") == ["ota_0 0 ota_0 2", "ota_1"]
    assert board.script("look") == ["ota_1 0 ota_1 2", "ota_1"]
    assert board.script("look")[0] == "ota_0 0 ota_0 2"  # nobody said that it may stay
    assert board.script("copy")[1] == "ota_1"
    assert board.script("stay") == ["ota_1 0 ota_1 2", "ota_1"]
    for _ in range(2):
        assert board.script("look")[0] == "ota_1 0 ota_1 2"
    assert board.script("copy")[1] == "ota_0"
    assert board.script("look")[0] == "ota_0 0 ota_0 2"
    assert board.script("look")[0] == "ota_1 0 ota_1 2"
    board.slots.memory[: 2 * SECTOR] = random.Random(1).randbytes(2 * SECTOR)
    assert board.script("look")[0] == "ota_0 0 ota_0 2"
