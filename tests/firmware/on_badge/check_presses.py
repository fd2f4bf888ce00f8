"""Presses in an open alarm, each answered for itself; what outlives a run of the badge, and what it refuses."""

import machine
from firmware.badge import trace
from protocol import answer, beacon, downlink, kinds, patterns

from world import GROUP, Fails, Time, World, board, ready

SOS = "sos"


def closed_unheard():
    """A claimed alarm that the station has closed without the badge hearing of it."""
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    world.says(kinds.CLAIMED)
    world.run(2000)
    assert world.felt()[-1] == patterns.OPERATOR_WITH_YOU
    world.disconnect()
    world.run(5000)
    first = world.badge.alarms.incident
    world.incident, world.level = bytes(8), kinds.RAISED
    world.haptic.felt.clear()
    return world, first


def test_a_press_after_a_closing_that_was_not_heard_is_answered_like_a_first_one():
    world, first = closed_unheard()
    world.badge.act(SOS)
    begun = Time.now
    world.run(12000)
    felt = [name for _, name in world.haptic.felt]
    assert felt[:2] == [patterns.PRESSED, patterns.NOT_DELIVERED]
    assert world.haptic.felt[1][0] - begun <= 10000
    hub = world.connect()  # the station opens the incident anew
    world.run(3000)
    presses = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.SOS]
    assert len(presses) == 1 and presses[0].ident != first and presses[0].incident == first
    assert world.felt()[2:] == [patterns.STATION_HAS_IT]
    world.says(kinds.CLAIMED)
    world.run(2000)
    assert world.felt()[-1] == patterns.OPERATOR_WITH_YOU


def test_what_is_said_of_the_press_before_is_no_answer_to_the_new_one():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    hub.answer = False
    world.badge.act(SOS)
    for level in (kinds.RECEIVED, kinds.CLAIMED, kinds.LISTENING, kinds.CLOSED):
        world.says(level)
        world.run(500)
    assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT, patterns.PRESSED]
    assert world.badge.alarms.current is not None
    world.run(9000)
    assert world.felt()[-1] == patterns.NOT_DELIVERED
    world.level = kinds.CLAIMED
    hub.answer = True
    world.run(8000)
    assert world.felt()[-2:] == [patterns.STATION_HAS_IT, patterns.OPERATOR_WITH_YOU]


def test_three_presses_in_an_alarm_that_somebody_has_are_each_felt_in_full():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    world.says(kinds.CLAIMED)
    world.run(2000)
    for _ in range(3):
        world.haptic.felt.clear()
        world.badge.act(SOS)
        world.run(6000)
        assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT, patterns.OPERATOR_WITH_YOU], world.felt()
        # far enough apart that none is dropped for the one after it
        at = [moment for moment, _ in world.haptic.felt]
        assert at[2] - at[1] >= 1500


def test_a_press_that_crossed_the_closing_becomes_an_alarm_of_its_own():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    first = world.badge.alarms.incident
    hub.answer = False
    world.badge.act(SOS)
    world.run(100)
    press = [ident for ident, found in hub.events.items() if found[0][1].kind == kinds.SOS and ident != first][0]
    hub.session.station(world.sealed(downlink.RECEIPT, downlink.pack_receipt(press, first, kinds.CLOSED)))
    world.incident = bytes(8)
    world.level = kinds.RAISED
    hub.answer = True
    world.run(2000)
    assert world.badge.alarms.incident not in (first, bytes(8))
    assert world.incident == world.badge.alarms.incident
    assert world.felt()[-1] == patterns.STATION_HAS_IT
    assert world.recorder.running


def test_a_press_survives_a_reset_and_a_loss_of_power_before_the_station_has_it():
    for loss in ("boot", "power_cut"):
        world, first = closed_unheard()
        world.badge.act(SOS)
        world.run(2500)  # the journal is on flash a second later
        getattr(world, loss)()
        hub = world.connect()
        world.run(3000)
        presses = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.SOS]
        assert [press.incident for press in presses] == [first]
        assert presses[0].ident != first
        assert presses[0].age_ms == 0xFFFFFFFF  # the record has the age of the alarm, not that of the press
        assert world.felt().count(patterns.STATION_HAS_IT) == 1


def test_a_press_that_fails_half_way_is_tried_again():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    real = world.badge.uplink.make_event
    failing = [2]

    def make(*args):
        if failing[0]:
            failing[0] -= 1
            raise MemoryError
        return real(*args)

    world.badge.uplink.make_event = make
    world.badge.act(SOS)
    world.run(2000)
    assert len([1 for found in hub.events.values() if found[0][1].kind == kinds.SOS]) == 2
    assert world.felt().count(patterns.STATION_HAS_IT) == 2


def test_the_answer_to_an_older_press_by_beacon_is_not_taken_for_the_newest():
    world = World()
    world.run(3000)
    world.badge.act(SOS)
    first, _ = world.beacon()
    world.run(1500)
    world.haptic.felt.clear()
    world.badge.act(SOS)
    newest, _ = world.beacon()
    assert newest.ident != first.ident
    group = beacon.Group(GROUP)

    def broadcast(heard):
        data = answer.seal_answer(
            group, world.keys.answer, 12, world.badge.uplink.boot, first.ident, kinds.RECEIVED, heard.rotation
        )
        world.ble.handler(5, (1, b"addr", 3, -60, memoryview(beacon.advertisement(data))))
        world.run(100)

    broadcast(first)
    assert world.felt() == [patterns.PRESSED]
    broadcast(newest)
    assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT]


# --- small print


def test_an_alarm_that_outlives_its_beacons_goes_on_with_them():
    world = World()
    resets = []
    world.badge.reset = resets.append
    world.run(1000)
    world.badge.act(SOS)
    uplink = world.badge.uplink
    uplink.rotation = uplink._made = 0xFFFE
    seen = set()
    for _ in range(60):
        world.run(1000)
        seen.add(world.beacon()[0].rotation)
        assert world.beacon()[1] == kinds.SOS
    assert len([rotation for rotation in seen if rotation < 100]) >= 5, seen
    assert not resets  # while somebody waits for help nothing begins anew
    world.connect()
    world.run(2000)
    world.says(kinds.CLOSED)
    world.run(2000)
    assert resets


def test_after_a_loss_of_power_the_microphone_waits_for_the_stations_word_that_the_alarm_is_young():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(3000)
    world.power_cut()
    world.flags = 0  # an old one
    world.connect()
    world.run(5000)
    assert world.badge.alarms.level == kinds.RECEIVED
    assert not world.recorder.running
    world.says(kinds.RECEIVED, downlink.YOUNG)
    world.run(1000)
    assert world.recorder.running


def test_settings_that_are_refused_are_said_to_be_and_change_nothing():
    world, hub = ready()
    hub.say(downlink.SETTINGS, b'\x00\x07{"hold_to_sos": 60}')
    world.run(6000)
    from protocol import events

    assert events.unpack_status(hub.statuses[-1].body)[5] == 7
    assert events.unpack_status(hub.statuses[-1].body)[3] == 0
    assert world.settings.number("hold_to_sos") == 1.5
    hub.say(downlink.SETTINGS, b'\x00\x08{"hold_to_sos": 2}')
    world.run(6000)
    assert events.unpack_status(hub.statuses[-1].body)[3] == 8
    assert world.settings.number("hold_to_sos") == 2


def test_a_new_group_key_is_kept_and_said():
    world, hub = ready()
    from protocol import events

    tag = beacon.Group(GROUP).tag
    assert events.unpack_status(hub.statuses[-1].body)[6] == tag
    hub.say(downlink.GROUP_KEY, bytes(16))
    world.run(6000)
    assert events.unpack_status(hub.statuses[-1].body)[6] == beacon.Group(bytes(16)).tag
    data = beacon.parse_advertisement(world.ble.advertised[-1][1])
    assert beacon.route([beacon.Group(GROUP)], data) is None
    assert beacon.route([beacon.Group(bytes(16))], data).badge == 12


def test_the_last_words_of_a_run_are_the_first_of_the_next():
    world, hub = ready()
    from protocol import events

    world.run(7000)
    world.retained.blame(7)  # the supervisor: "send" has not come round
    world.badge.begin = None
    world.boot()
    hub = world.connect()
    world.run(2000)
    booted = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.BOOTED][0]
    reset, cause, task, faults, handler, radio, minutes, heap = events.unpack_booted(booted.body)
    assert (reset, task) == (1, 7)
    assert minutes > 0 and heap > 0
    world.power_cut()
    hub = world.connect()
    world.run(2000)
    booted = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.BOOTED][0]
    assert events.unpack_booted(booted.body)[1:] == (0,) * 7


# --- a press and a closing cross each other, and memory is short just then


class Full(list):
    def append(self, what):
        raise MemoryError


def crossed(shorten):
    """A press that the station puts to the alarm that it has closed meanwhile; `shorten` makes memory short."""
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    first = world.badge.alarms.incident
    hub.answer = False
    world.badge.act(SOS)
    world.run(100)
    (press,) = [event for event in world.badge.uplink.outbox.events if event.kind == kinds.SOS]
    shorten(world)
    receipt = world.sealed(downlink.RECEIPT, downlink.pack_receipt(press.ident, first, kinds.CLOSED))
    hub.session.station(receipt)
    world.incident, world.level = bytes(8), kinds.RAISED
    world.haptic.felt.clear()
    end = Time.now + 2000
    while Time.now < end:
        try:
            world.run(100)
        except MemoryError:
            pass  # the supervisor starts the task again
    hub.answer = True
    if world.badge.alarms.incident == first:  # the station hears of the press once more, and answers as before
        assert world.badge.uplink.outbox.find(press.ident) is not None
        hub.session.station(world.sealed(downlink.RECEIPT, downlink.pack_receipt(press.ident, first, kinds.CLOSED)))
    while Time.now < end + 8000:
        try:
            world.run(100)
        except MemoryError:
            pass
    return world, first, press


def test_a_press_that_crossed_a_closing_is_not_lost_where_memory_is():
    for what in range(6):

        def shorten(world, what=what):
            uplink, alarms = world.badge.uplink, world.badge.alarms
            if what < 2:
                Fails(uplink, "make_event", after=what)
            elif what == 2:
                Fails(world.recorder, "end")
            elif what == 3:
                Fails(trace, "say")
            elif what == 4:
                Fails(uplink, "make_event", after=1)
                alarms.on_no_memory = None
                Fails(alarms, "on_no_memory")
                alarms._failed = Full()  # nor can it be noted
            else:
                Fails(alarms, "_press_received")

        say = trace.say
        try:
            world, first, press = crossed(shorten)
        finally:
            trace.say = say
        alarms = world.badge.alarms
        assert alarms.current is not None and alarms.incident != first, what
        assert world.incident == alarms.incident and alarms._press == bytes(8), what
        assert patterns.STATION_HAS_IT in world.felt() and world.recorder.running, what
        assert not world.retained.wanted, what


def test_a_torn_lanyard_that_crossed_a_closing_is_not_lost_where_memory_is():
    for what in ("end", "make_event", "say"):
        world, hub = ready()
        world.badge.act(SOS)
        world.run(2000)
        first = world.badge.alarms.incident
        hub.answer = False
        machine.pins[board.LANYARD_N] = 1
        world.run(2000)
        (torn,) = [event for event in world.badge.uplink.outbox.events if event.kind == kinds.LANYARD]
        owner = {"end": world.recorder, "make_event": world.badge.uplink, "say": trace}[what]
        say = trace.say
        Fails(owner, what)
        try:
            hub.say(downlink.RECEIPT, downlink.pack_receipt(torn.ident, first, kinds.CLOSED))
            world.incident, world.level = bytes(8), kinds.RAISED
            hub.answer = True
            try:
                world.run(100)
            except MemoryError:
                pass  # the supervisor starts the task again
            world.run(2000)
        finally:
            trace.say = say
        alarms = world.badge.alarms
        assert alarms.kind == kinds.LANYARD and alarms.incident not in (first, bytes(8)), what
        assert world.incident == alarms.incident and world.recorder.running, what


def test_a_press_that_never_reached_the_outbox_is_put_there():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    Fails(world.badge.uplink.outbox, "add")
    world.badge.act(SOS)
    world.run(3000)
    assert hub.kinds().count(kinds.SOS) == 2
    assert world.felt().count(patterns.STATION_HAS_IT) == 2


def test_a_press_that_the_station_refuses_is_not_waited_for_for_ever():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    hub.answer = False
    world.badge.act(SOS)
    world.run(100)
    (press,) = [event for event in world.badge.uplink.outbox.events if event.kind == kinds.SOS]
    hub.say(downlink.REJECTED, press.ident)
    world.run(3000)
    assert world.badge.uplink.outbox.find(press.ident) is None
    world.says(kinds.CLOSED)
    world.run(500)
    assert world.badge.alarms.current is None
