"""Under duress: what is forced feels, takes and looks like what it imitates, to the room and to the hub (A7)."""

from protocol import events, kinds, patterns

from world import Time, World, ready

SOS = "sos"


def test_a_duress_looks_and_feels_like_the_check_in_that_it_imitates():
    for visiting in (True, False):
        _alike(visiting)


def _alike(visiting):
    felt, seen, cadence = [], [], []
    for act in ("side_1", "duress_1"):
        world, hub = ready(visit_minutes=30)
        if visiting:
            world.badge.visits.start()
            world.recorder.end()
        world.run(5000)
        world.haptic.felt.clear()
        hub.raw.clear()
        advertised = len(world.ble.advertised)
        begun = Time.now
        hub.statuses.clear()
        world.badge.act(act)
        found, _ = world.beacon()
        world.run(10000)
        felt.append([(at - begun, name) for at, name in world.haptic.felt])
        seen.append([raw for raw in hub.raw if raw[0] not in (kinds.AUDIO_START, kinds.AUDIO_END)])
        cadence.append((len(hub.statuses), found.kind, visiting and world.badge.visits.visit.due_ms - begun))
        assert len(world.ble.advertised) > advertised
    assert felt[0] == felt[1] and [name for _, name in felt[0]] == [patterns.CHECKED_IN]
    assert seen[0] == seen[1]
    assert cadence[0] == cadence[1]
    assert world.recorder.running  # and the room is listened to


def test_a_duress_reaches_the_station_as_what_it_is_by_both_ways():
    world, hub = ready(visit_minutes=30)
    world.badge.visits.start()
    world.run(1000)
    world.badge.act("duress_1")
    found, kind = world.beacon()
    assert (found.kind, kind) == (kinds.CHECK_IN, kinds.DURESS)
    world.run(300)
    assert kinds.DURESS in hub.kinds()
    assert world.badge.alarms.current.silent
    world.says(kinds.CLAIMED)
    world.run(2000)
    assert patterns.OPERATOR_WITH_YOU not in world.felt()


def test_a_duress_cancel_feels_like_a_cancel():
    felt = []
    for act in ("side_hold", "duress_hold"):
        world, hub = ready()
        world.badge.act(SOS)
        world.run(3000)
        world.haptic.felt.clear()
        begun = Time.now
        world.badge.act(act)
        found, _ = world.beacon()
        assert found.kind == kinds.CANCEL
        world.run(3000)
        felt.append([(at - begun, name) for at, name in world.haptic.felt])
        assert {raw[0] for raw in hub.raw} >= {kinds.CANCEL}
    assert felt[0] == felt[1]
    duress = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.DURESS][0]
    assert duress.incident == world.badge.alarms.incident


def test_undelivered_a_duress_feels_like_an_undelivered_check_in():
    felt = []
    for act in ("side_1", "duress_1"):
        world = World({"visit_minutes": 30})
        world.badge.visits.start()
        world.run(15000)
        world.haptic.felt.clear()
        begun = Time.now
        world.badge.act(act)
        world.run(15000)
        felt.append([(at - begun, name) for at, name in world.haptic.felt if name != patterns.NOT_PROTECTED])
    assert felt[0] == felt[1]
    assert [name for _, name in felt[0]] == [patterns.NOT_DELIVERED]


def _held(act, visiting, connected=True, percent=100):
    """One hold of the side button, ordinary or squeezed: what was felt, what the hub saw, what the beacon showed."""
    world = World({"visit_minutes": 30})
    world.badge.battery.percent = percent
    hub = world.connect()
    world.run(1500)
    if visiting:
        world.badge.visits.start()
        world.recorder.end()
    world.run(6000)
    if not connected:
        world.disconnect()
        world.run(1000)
    world.haptic.felt.clear()
    hub.raw.clear()
    hub.statuses.clear()
    begun = Time.now
    world.badge.act(act)
    found, kind = world.beacon()
    world.run(15000)
    felt = [(at - begun, name) for at, name in world.haptic.felt if name != patterns.NOT_PROTECTED]
    seen = [(raw[0], raw[1], raw[2]) for raw in hub.raw if raw[0] not in (kinds.AUDIO_START, kinds.AUDIO_END)]
    return world, hub, kind, (felt, seen, found.kind, len(hub.statuses), world.badge.visits.active)


def test_a_forced_start_or_end_of_a_visit_is_on_the_air_and_in_the_hand_what_a_free_one_is():
    for visiting in (True, False):
        for connected in (True, False):
            for percent in (100, 12):  # with too little for a visit, which is refused, and felt, in both
                *_, kind, free = _held("side_hold", visiting, connected, percent)
                world, hub, true, forced = _held("duress_hold", visiting, connected, percent)
                assert free == forced, (visiting, connected, percent, free, forced)
                assert (kind, true) == (kinds.CHECK_IN, kinds.DURESS)
                assert world.badge.alarms.current.silent and world.recorder.running
                if connected:
                    assert kinds.DURESS in hub.kinds()
    # the very order in which the hub is shown it, sound included
    order = []
    for act in ("side_hold", "duress_hold"):
        _, hub, _, _ = _held(act, False)
        order.append([raw[0] for raw in hub.raw])
    assert order[0] == order[1] and order[0][:3] == [kinds.CHECK_IN, kinds.VISIT_START, kinds.AUDIO_START], order


def test_a_forced_end_ends_the_visit_at_the_station_too():
    world, hub, _, _ = _held("duress_hold", True)
    heard = [found[0][1] for found in hub.events.values()]
    duress = [event for event in heard if event.kind == kinds.DURESS][0]
    number, ref = events.unpack_duress(duress.body)[1:]
    assert duress.body[0] == kinds.VISIT_END and (number or ref != bytes(8))
    assert [event.kind for event in heard].count(kinds.VISIT_END) == 1
    assert not world.badge.visits.active


def test_the_room_is_heard_though_the_imitated_act_fails_half_way():
    world, hub = ready()

    def fail():
        raise MemoryError

    world.badge.visits.start = fail
    try:
        world.badge.act("duress_hold")
    except MemoryError:
        pass
    world.run(1000)
    assert kinds.DURESS in hub.kinds() and world.recorder.running


def test_a_check_in_that_a_beacon_brought_is_announced_no_longer_forced_or_not():
    for act in ("side_hold", "duress_hold"):
        world = World()
        world.run(3000)
        world.badge.act(act)
        found, _ = world.beacon()
        assert found.kind == kinds.CHECK_IN
        world.badge.alarms.answered(found.ident, kinds.RECEIVED, True)
        world.run(9000)
        assert world.beacon()[0].kind == kinds.STATUS
