"""Memory: what an alarm takes it gives back."""

import gc

from protocol import kinds

from world import World

NONE = bytes(8)


def alarm(world, hub):
    """One alarm from the press to the closing, with two seconds of sound."""
    world.badge.act("sos")
    world.speak(2)
    for key in list(hub.sound):
        hub.acknowledge(*key)
    world.run(500)
    world.says(kinds.CLAIMED)
    world.run(500)
    world.says(kinds.CLOSED)
    world.run(1500)
    for key in list(hub.sound):
        hub.acknowledge(*key)
    world.run(2000)
    assert world.badge.alarms.current is None
    assert world.recorder.waiting() == 0
    # what the world remembers is not the badge's
    world.incident, world.level = NONE, kinds.RAISED
    for memory in (hub.events, hub.order, hub.raw, hub.statuses, hub.sound, hub.sound_order, world.haptic.felt):
        memory.clear()
    del world.ble.advertised[:-1]
    gc.collect()
    return gc.mem_alloc()


def test_after_ten_alarms_no_more_is_taken_than_after_the_first():
    world = World()
    hub = world.connect()
    world.run(2000)
    alarm(world, hub)
    first = alarm(world, hub)
    for _ in range(10):
        last = alarm(world, hub)
    assert last - first < 256, (first, last)


def by_beacon(world):
    """One alarm that no hub connects for: the station hears its beacon, answers by broadcast and closes it."""
    world.badge.act("sos")
    world.speak(1)
    ident = world.badge.alarms.incident
    for level in (kinds.RECEIVED, kinds.CLAIMED, kinds.CLOSED):
        world.badge.alarms.answered(ident, level, True)
        world.run(300)
    world.run(2000)
    assert world.badge.alarms.current is None
    world.incident, world.level = NONE, kinds.RAISED
    world.haptic.felt.clear()
    del world.ble.advertised[:-1]
    gc.collect()
    return gc.mem_alloc()


def test_alarms_that_go_out_by_beacon_alone_do_not_fill_the_memory():
    world = World()
    world.run(2000)
    for _ in range(20):
        full = by_beacon(world)
    for _ in range(20):
        last = by_beacon(world)
    assert last - full < 512, (full, last)
    # an alarm that nobody dealt with is kept while those that were dealt with go
    world.badge.act("sos")
    ident = world.badge.alarms.incident
    for _ in range(30):
        world.badge.uplink.raise_event(kinds.AUDIO_END)
        world.badge.shed()
    assert world.badge.uplink.outbox.find(ident) is not None
