"""Sound that two hubs took in parts, and a reset between them: the second one is not left waiting for the rest."""

from firmware.badge.buffers import SEALED_LENGTH
from firmware.badge.spool import path_of

from check_power_cut import Flash, mounted
from world import World

BOOT = b"\0\1abcd"
KEY = (BOOT, 3)


def left(keep, runs):
    """The file that a run before left: records of packets, as spool.py writes them."""
    with open(path_of(keep.folder, BOOT, 3), "wb") as file:
        for first, end in runs:
            for number in range(first, end):
                file.write(number.to_bytes(4, "big") + bytes((number & 0xFF,)) * SEALED_LENGTH)


def test_what_another_hub_took_is_passed_over_and_all_the_rest_is_taken():
    for runs in (((0, 20), (150, 170)), ((0, 5), (6, 9), (200, 330)), ((40, 60),)):
        keep = mounted(Flash())
        left(keep, runs)
        world = World({}, keep)
        hub = world.connect()
        for _ in range(80):
            world.run(100)
            if KEY in hub.sound:
                hub.acknowledge(*KEY)
        expected = [number for first, end in runs for number in range(first, end)]
        assert sorted(hub.sound[KEY]) == expected
        assert world.recorder.waiting() == 0, (runs, hub.skipped)


def test_a_word_of_the_gap_that_is_lost_is_said_again():
    keep = mounted(Flash())
    left(keep, ((0, 20), (150, 170)))
    world = World({}, keep)
    hub = world.connect()
    lost = [0]
    for _ in range(120):
        world.run(100)
        if hub.skipped and lost[0] < 3:
            hub.skipped.clear()
            lost[0] += 1
        if KEY in hub.sound:
            hub.acknowledge(*KEY)
    assert lost[0] == 3
    assert world.recorder.waiting() == 0
