"""Man-down: what is a fall, what is none, who answers and who does not."""

import machine
from firmware.badge.fall import Fall, ManDown
from firmware.badge.settings import check_all
from firmware.boards import emulator as board
from protocol import downlink, kinds, patterns

from world import Time, World

G = 250


def worn(count):
    """Somebody walks."""
    return [(20 * (i % 25) - 250, G - 4 * (i % 20), 100 - 8 * (i % 20)) for i in range(count)]


def lying(count):
    return [(G, 15 + i % 3, -10) for i in range(count)]


def fell(fall, samples):
    return [i for i in range(len(samples)) if fall.feed(*samples[i])]


LIGHT = [(30, 25, 15)] * 20
HIT = [(560, -430, 190)] * 3


def test_light_then_hit_then_still_is_a_fall_a_second_later():
    fall = Fall()
    before = worn(100) + LIGHT + HIT
    found = fell(fall, before + lying(200))
    assert len(found) == 1
    assert 50 <= found[0] - len(before) <= 60


def test_what_lacks_one_of_the_three_is_none():
    for story in (
        worn(500) + lying(500),  # sits down
        worn(100) + LIGHT + worn(500),  # jumps, lands softly
        worn(100) + HIT + lying(500),  # knocks against a door and stands still
        worn(100) + LIGHT + HIT + worn(700) + lying(200),  # stumbles, gets up, goes on
        worn(100) + LIGHT[:3] + HIT + lying(200),  # too short
        worn(100) + LIGHT + [(G, 0, 0)] * 60 + HIT + lying(300),  # too late
    ):
        assert not fell(Fall(), story)


def test_lying_still_may_come_some_seconds_after_the_fall():
    assert fell(Fall(), worn(100) + LIGHT + HIT + worn(250) + lying(200))


class Bus:
    """A LIS2DH12 with samples to give."""

    waiting = []
    broken = False
    asleep = True

    def __init__(self, *args, **kwargs):
        pass

    def writeto_mem(self, address, register, data):
        if Bus.broken:
            raise OSError(5)
        if register == 0x20:
            Bus.asleep = not data[0]

    def readfrom_mem_into(self, address, register, buffer):
        if Bus.broken:
            raise OSError(5)
        if register == 0x0F:
            buffer[0] = 0x33
        elif register == 0x2F:
            buffer[0] = min(len(Bus.waiting), 31)
        else:
            for at in range(0, len(buffer), 6):
                sample = Bus.waiting.pop(0)
                for axis in range(3):
                    value = sample[axis] << 4 & 0xFFFF
                    buffer[at + 2 * axis] = value & 0xFF
                    buffer[at + 2 * axis + 1] = value >> 8


def ready(**settings):
    machine.I2C = Bus
    Bus.waiting = []
    Bus.broken = False
    Bus.asleep = True
    settings.setdefault("fall_alarm", True)
    world = World(settings)
    hub = world.connect()
    world.run(1500)
    world.haptic.felt.clear()
    return world, hub


def falls(world):
    for sample in worn(50) + LIGHT + HIT + lying(80):
        Bus.waiting.append(sample)
        if len(Bus.waiting) >= 10:
            world.run(200)


def test_nobody_answers_so_it_alarms_after_30_seconds_and_the_room_is_heard():
    world, hub = ready()
    falls(world)
    assert world.felt() == [patterns.CHECK_IN_DUE]
    begun = world.haptic.felt[0][0]
    world.run(29500)
    assert kinds.FALL not in hub.kinds()
    assert world.felt().count(patterns.CHECK_IN_DUE) == 6
    world.run(1500)
    alarm = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.FALL][0]
    at = [found[0][0] for found in hub.events.values() if found[0][1].kind == kinds.FALL][0]
    assert abs(at - alarm.age_ms - begun - 30000) <= 200
    assert world.recorder.running
    world.run(5000)
    assert world.felt().count(patterns.CHECK_IN_DUE) == 6
    assert world.felt()[-1] == patterns.STATION_HAS_IT


def test_one_press_is_an_answer_and_under_duress_it_only_looks_like_one():
    felt, shown = [], []
    for act in ("side_1", "duress_1", "side_hold", "duress_hold"):
        world, hub = ready()
        falls(world)
        world.run(3000)
        world.haptic.felt.clear()
        hub.raw.clear()
        world.badge.act(act)
        world.run(35000)
        felt.append(world.felt())
        shown.append([raw for raw in hub.raw if raw[0] not in (kinds.AUDIO_START, kinds.AUDIO_END)])
        assert (kinds.DURESS in hub.kinds()) == act.startswith("duress")
        assert kinds.FALL not in hub.kinds()
    assert felt == [[patterns.CHECKED_IN]] * 4
    assert shown[0] == shown[1] == shown[2] == shown[3]


def test_an_sos_while_it_asks_is_an_sos():
    world, hub = ready()
    falls(world)
    world.badge.act("sos")
    world.run(35000)
    assert kinds.SOS in hub.kinds() and kinds.FALL not in hub.kinds()


def test_a_reset_while_it_asks_goes_on_asking():
    world, hub = ready()
    falls(world)
    world.run(10000)
    world.boot()
    hub = world.connect()
    world.run(15000)
    assert kinds.FALL not in hub.kinds()
    world.run(6000)
    assert kinds.FALL in hub.kinds()


def test_it_is_off_unless_it_is_asked_for_and_the_sensor_sleeps_then():
    world, hub = ready(fall_alarm=False)
    assert Bus.asleep
    falls(world)
    world.run(40000)
    assert kinds.FALL not in hub.kinds() and patterns.CHECK_IN_DUE not in world.felt()
    hub.say(downlink.SETTINGS, b'\x00\x05{"fall_alarm": true}')
    world.run(500)
    assert not Bus.asleep
    hub.say(downlink.SETTINGS, b'\x00\x06{"fall_alarm": false}')
    world.run(500)
    assert Bus.asleep
    assert check_all({"fall_alarm": True})


def test_a_sensor_that_does_not_answer_costs_nothing_but_itself():
    machine.I2C = Bus
    Bus.broken = True
    world = World({"fall_alarm": True})
    hub = world.connect()
    world.run(2000)
    world.badge.act("sos")
    world.run(1000)
    assert kinds.SOS in hub.kinds()
    Bus.broken = False
    world.says(kinds.CLOSED)
    world.run(61000)
    falls(world)
    assert patterns.CHECK_IN_DUE in world.felt()
    assert ManDown and board.ACCEL and Time
