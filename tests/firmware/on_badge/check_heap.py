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
