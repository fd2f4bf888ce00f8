"""A day of duty on a clock that jumps: visits, check-ins, alarms, a lost hub, the wrap of ticks_ms in its middle."""

import gc

from firmware.badge import clock
from protocol import kinds, patterns

from world import NONE, Time, World

HOUR = 3600000
STEP = 100  # ms: a tenth of the steps of other checks, and still twice a tick of the badge


class Day(World):
    """The same world, with longer steps."""

    def run(self, ms, each=None):
        end = Time.now + ms
        while Time.now < end:
            Time.now += STEP
            for hub in list(self.hubs.values()):
                hub.step()
            self._drain()
            self.badge.tick(Time.now)
            self.recorder.tick(Time.now)
            self._send()


def forget(world, hub):
    """What the world remembers is not the badge's."""
    world.incident, world.level = NONE, kinds.RAISED
    for memory in (
        hub.events,
        hub.order,
        hub.raw,
        hub.statuses,
        hub.sound,
        hub.sound_order,
        world.haptic.felt,
        world.ble.order,
    ):
        memory.clear()
    world.ble.advertised[:-1] = []
    gc.collect()
    return gc.mem_alloc()


def begun_before_the_wrap(hours):
    Time.now = (1 << 30) - hours * HOUR
    clock._last = Time.now & clock.MASK
    clock._total = Time.now


def test_a_day_of_duty_across_the_wrap_loses_no_check_in_and_no_memory():
    begun_before_the_wrap(12)
    world = Day({"visit_minutes": 30, "grace_minutes": 2, "amber_seconds": 5})
    assert Time.now < 1 << 30
    hub = world.connect()
    world.run(60000)
    used = []
    for hour in range(24):
        # a visit with two check-ins, in time and after having been asked
        world.badge.act("side_hold")
        world.run(6000)
        for key in list(hub.sound):
            hub.acknowledge(*key)
        for _ in range(2):
            world.run(26 * 60000)
            assert world.felt().count(patterns.CHECK_IN_DUE) == 1, (hour, world.felt())
            world.badge.act("side_1")
            world.run(3000)
            assert world.felt()[-1] == patterns.CHECKED_IN
            world.haptic.felt.clear()
        assert hub.kinds().count(kinds.CHECK_IN) == 3  # one goes before the start of a visit
        world.badge.act("side_hold")
        world.run(3000)
        assert not world.badge.visits.active
        assert kinds.MISSED_CHECK_IN not in hub.kinds()
        assert patterns.NOT_PROTECTED not in world.felt()
        if hour % 6 == 3:
            # the hub goes away: felt, and felt again when it is back
            world.haptic.felt.clear()
            world.disconnect()
            world.run(60000)
            assert world.felt() == [patterns.NOT_PROTECTED]
            forget(world, hub)
            hub = world.connect()
            world.run(10000)
            assert world.felt() == [patterns.PROTECTED]
        if hour % 6 == 5:
            world.badge.act("sos")
            world.run(3000)
            assert patterns.STATION_HAS_IT in world.felt()
            world.says(kinds.CLOSED)
            world.run(3000)
            assert world.badge.alarms.current is None
        if world.badge.uplink.worn_out:
            world.boot()
            hub = world.connect()
            world.run(3000)
        world.run(60000)
        used.append(forget(world, hub))
    assert Time.now > 1 << 30  # the wrap lay in the middle
    # the rings of the first hours are full by then
    assert max(used[12:]) - max(used[4:12]) <= 512, used


def test_a_hold_and_an_alarm_across_the_very_moment_of_the_wrap():
    Time.now = (1 << 30) - 102500
    clock._last = Time.now & clock.MASK
    clock._total = Time.now
    world = World()
    hub = world.connect()
    world.run(1000)
    world.badge.act("sos")
    begun = Time.now
    world.run(3000)
    assert begun < 1 << 30 < Time.now
    assert patterns.STATION_HAS_IT in world.felt()
    hub.answer = False
    world.badge.act("sos")
    world.run(9000)
    assert world.felt()[-1] == patterns.NOT_DELIVERED
    # the milliseconds of the badge go on where ticks begin anew
    assert clock.now_ms() > 1 << 30
