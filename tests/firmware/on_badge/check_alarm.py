"""An alarm on the badge: sent both ways at once, repeated, felt only on fresh proof, and resumed after a reset."""

import machine
from protocol import answer, beacon, downlink, kinds, patterns

from world import GROUP, ROOT, Microphone, Time, World, ready

SOS, CHECK, HOLD = "sos", "side_1", "side_hold"


def test_an_sos_leaves_by_connection_and_beacon_in_the_same_moment():
    world, hub = ready()
    before = len(world.ble.advertised)
    at = Time.now
    world.badge.act(SOS)
    # nothing but the act itself: no task had a turn yet
    assert any(connection == 1 for connection, _ in world.ble.sent)
    assert len(world.ble.advertised) == before + 1
    found, kind = world.beacon()
    assert kind == kinds.SOS and found.kind == kinds.SOS
    world.run(20)
    ident = world.badge.alarms.incident
    assert hub.events[ident][0][0] - at <= 20
    assert found.ident == ident


def test_pressed_then_station_then_operator_each_once():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(3000)
    world.says(kinds.CLAIMED)
    world.run(3000)
    world.says(kinds.LISTENING)
    world.run(20000)
    assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT, patterns.OPERATOR_WITH_YOU]


def test_without_a_hub_not_delivered_after_8_s_and_at_most_once_a_minute_then_good_news_late():
    world = World()
    world.run(1000)
    world.haptic.felt.clear()
    begun = Time.now
    world.badge.act(SOS)
    world.run(130000)
    felt = [(at - begun, name) for at, name in world.haptic.felt if name == patterns.NOT_DELIVERED]
    assert len(felt) == 3
    assert 7400 <= felt[0][0] <= 8000
    assert felt[1][0] - felt[0][0] >= 60000
    world.connect()
    world.run(2000)
    assert world.felt()[-2:].count(patterns.STATION_HAS_IT) == 1


def test_an_event_is_repeated_every_second_until_held_and_every_five_until_received():
    world, hub = ready()
    hub.answer = hub.hold = False
    world.badge.act(SOS)
    ident = world.badge.alarms.incident
    world.run(5000)
    assert 5 <= len(hub.events[ident]) <= 6
    hub.hold = True
    world.run(1100)
    count = len(hub.events[ident])
    world.run(10000)
    assert len(hub.events[ident]) - count == 2
    numbers = [event.age_ms for _, event, _ in hub.events[ident]]
    assert numbers == sorted(numbers) and numbers[-1] > 15000  # its true age, each time
    hub.answer = True
    world.run(6000)
    count = len(hub.events[ident])
    world.run(20000)
    assert len(hub.events[ident]) == count


def test_held_by_a_hub_is_never_felt():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    world.run(5000)
    assert world.felt() == [patterns.PRESSED]


def test_a_replayed_receipt_is_felt_by_nobody():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    ident = world.badge.alarms.incident
    world.run(100)
    body = downlink.pack_receipt(ident, ident, kinds.RECEIVED)
    late = world.sealed(downlink.RECEIPT, body)  # echoes what the station had then
    world.run(12000)
    assert patterns.NOT_DELIVERED in world.felt()
    hub.session.station(late)
    world.run(100)
    assert patterns.STATION_HAS_IT not in world.felt()
    assert world.badge.alarms.level == kinds.RECEIVED  # believed, and asked about again
    hub.answer = True
    world.incident, world.level = ident, kinds.RECEIVED
    world.run(2500)
    assert world.felt().count(patterns.STATION_HAS_IT) == 1


def test_the_answer_to_a_beacon_is_felt_and_the_event_itself_still_sent():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    world.run(100)
    ident = world.badge.alarms.incident
    body = downlink.pack_receipt(ident, ident, kinds.RECEIVED, downlink.BY_BEACON)
    hub.session.station(world.sealed(downlink.RECEIPT, body))
    world.run(1500)
    assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT]
    assert world.badge.uplink.outbox.find(ident) is not None
    hub.session.station(world.sealed(downlink.RECEIPT, downlink.pack_receipt(ident, ident, kinds.RECEIVED)))
    world.run(100)
    assert world.badge.uplink.outbox.find(ident) is None


def test_a_press_after_a_closing_that_the_badge_has_not_heard_of_is_a_new_event():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    world.run(3000)
    first = world.badge.alarms.incident
    world.badge.act(SOS)
    world.run(100)
    newest = world.badge.uplink.outbox.announced(newest=True)
    assert newest.ident != first
    assert newest.incident == first
    # by beacon the station answers under the name that it heard
    world.badge.alarms.answered(newest.ident, kinds.RECEIVED, True)
    world.run(1500)
    assert patterns.STATION_HAS_IT in world.felt()


def test_a_closed_alarm_is_announced_no_longer_even_if_only_its_beacon_was_heard():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    world.run(100)
    ident = world.badge.alarms.incident
    assert world.badge.uplink.outbox.announced().ident == ident
    hub.session.station(world.sealed(downlink.STATE, downlink.pack_state(ident, kinds.CLOSED)))
    world.run(100)
    assert world.badge.uplink.outbox.announced() is None
    assert world.badge.uplink.outbox.find(ident) is not None


def test_what_the_station_did_not_seal_for_this_run_of_this_badge_is_nothing():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    world.run(100)
    ident = world.badge.alarms.incident
    body = downlink.pack_receipt(ident, ident, kinds.CLOSED)
    good = world.sealed(downlink.RECEIPT, body)
    for i in range(len(good)):
        hub.session.station(good[:i] + bytes((good[i] ^ 1,)) + good[i + 1 :])
    hub.session.station(world.sealed(downlink.RECEIPT, body, boot=b"\0\1zzzz"))
    hub.session.station(b"")
    world.run(500)
    assert world.badge.alarms.level == kinds.HUB_HELD
    assert world.felt() == [patterns.PRESSED]


def test_a_lost_operator_is_said_and_the_next_one_too():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(1000)
    world.says(kinds.CLAIMED)
    world.run(1000)
    world.says(kinds.RECEIVED, downlink.RETURNED)
    world.run(1000)
    world.says(kinds.CLAIMED)
    world.run(1000)
    assert world.felt() == [
        patterns.PRESSED,
        patterns.STATION_HAS_IT,
        patterns.OPERATOR_WITH_YOU,
        patterns.STATION_HAS_IT,
        patterns.OPERATOR_WITH_YOU,
    ]


def test_pressing_again_repeats_and_after_the_receipt_is_a_new_signal_of_the_same_incident():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    first = world.badge.alarms.incident
    world.run(300)
    world.badge.act(SOS)
    world.run(300)
    assert [kind for kind in hub.kinds() if kind == kinds.SOS] == [kinds.SOS]
    assert len(hub.events[first]) >= 2
    hub.answer = True
    world.run(6000)
    world.badge.act(SOS)
    world.run(300)
    signals = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.SOS]
    assert len(signals) == 2
    assert signals[0].incident == signals[1].incident == first
    assert world.felt().count(patterns.PRESSED) == 3


def test_a_cancel_is_an_event_of_the_incident_and_listening_goes_on_until_an_operator_closes():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(1000)
    world.badge.act(HOLD)
    world.run(1000)
    cancel = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.CANCEL][0]
    assert cancel.incident == world.badge.alarms.incident
    assert world.felt()[-1] == patterns.CHECKED_IN
    assert world.recorder.running
    world.says(kinds.CLOSED)
    world.run(300)
    assert not world.recorder.running
    assert world.badge.alarms.current is None


def test_self_test_passes_with_the_station_and_fails_without():
    world, hub = ready()
    world.badge.act("side_4")
    world.run(1000)
    assert world.felt() == [patterns.TEST_PASSED]
    hub.answer = False
    world.badge.act("side_4")
    world.run(10000)
    assert world.felt()[-1] == patterns.TEST_FAILED
    hub.answer = True
    world.run(10000)
    assert world.felt().count(patterns.TEST_PASSED) == 1  # too late is not passed


def test_self_test_that_comes_back_by_a_hub_that_is_not_ready_is_felt_as_such_and_only_then():
    world, hub = ready()
    world.flags = downlink.NOT_READY
    world.badge.act("side_4")
    world.run(1000)
    assert world.felt() == [patterns.TEST_FAILED]
    assert not world.badge.uplink.outbox.events  # it is dealt with, and not sent again
    world.badge.act(SOS)
    world.run(12000)
    assert world.felt()[1:] == [patterns.PRESSED, patterns.STATION_HAS_IT]  # nothing else is spoilt by it
    world.flags = 0
    world.badge.act("side_4")
    world.run(1000)
    assert world.felt()[-1] == patterns.TEST_PASSED


def test_a_status_every_2_s_in_an_alarm_and_every_5_s_otherwise():
    world, hub = ready()
    hub.statuses.clear()
    world.run(20000)
    assert 4 <= len(hub.statuses) <= 5
    world.badge.act(SOS)
    hub.statuses.clear()
    world.run(20000)
    assert 9 <= len(hub.statuses) <= 11


# --- after a reset


def test_after_a_reset_the_same_incident_goes_on_and_nothing_is_felt_twice():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    world.says(kinds.CLAIMED)
    world.run(1500)
    incident = world.badge.alarms.incident
    opened = Microphone.opened
    world.boot()
    assert world.badge.alarms.incident == incident
    assert world.recorder.running and Microphone.opened == opened + 1
    world.connect()
    world.run(5000)
    assert patterns.STATION_HAS_IT not in world.felt()
    assert patterns.OPERATOR_WITH_YOU not in world.felt()
    assert world.badge.alarms.level == kinds.CLAIMED  # the station was asked
    world.says(kinds.CLOSED)
    world.run(2000)
    world.boot()
    assert world.badge.alarms.current is None


def test_a_reset_right_after_the_press_loses_nothing():
    world = World()
    world.badge.act(SOS)
    incident = world.badge.alarms.incident
    world.boot()
    hub = world.connect()
    world.run(2000)
    assert world.badge.alarms.incident == incident
    event = hub.events[incident][0][1]
    assert event.kind == kinds.SOS and event.incident == incident
    assert world.felt().count(patterns.STATION_HAS_IT) == 1


def test_the_beacon_of_an_interrupted_alarm_keeps_its_identity_and_its_answer_is_believed():
    world = World()
    world.badge.act(SOS)
    found, _ = world.beacon()
    rotation = found.rotation
    world.run(3000)
    world.boot()
    found, kind = world.beacon()
    assert kind == kinds.SOS
    assert found.ident == world.badge.alarms.incident
    assert found.rotation > rotation  # so that the station sees it as newer
    # a guest hub brings what the station answers to that beacon, in the name of the former boot
    hub = world.connect(key=False)
    world.run(50)
    ident = found.ident
    body = downlink.pack_receipt(ident, ident, kinds.RECEIVED)
    blob = world.sealed(downlink.RECEIPT, body, echo=downlink.BEACON | found.rotation, boot=found.boot)
    hub.session.station(blob)
    world.run(200)
    assert patterns.STATION_HAS_IT in world.felt()


def test_after_a_power_cut_the_journal_on_flash_opens_the_alarm_again_but_not_the_microphone():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(3000)
    incident = world.badge.alarms.incident
    opened = Microphone.opened
    world.power_cut()
    assert world.badge.alarms.incident == incident
    assert not world.recorder.running
    world.connect()
    world.run(3000)
    assert world.recorder.running  # the station says that the incident is open
    assert Microphone.opened == opened + 1


def test_after_a_power_cut_an_incident_that_was_closed_meanwhile_is_closed():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(3000)
    world.power_cut()
    world.level = kinds.CLOSED
    opened = Microphone.opened
    world.connect()
    world.run(3000)
    assert world.badge.alarms.current is None
    assert Microphone.opened == opened


def test_an_sos_needs_neither_flash_nor_microphone():
    world = World()
    world.store.broken = True
    Microphone.broken = True
    hub = world.connect()
    world.run(1500)
    world.badge.act(SOS)
    world.run(500)
    assert kinds.SOS in hub.kinds()
    assert patterns.STATION_HAS_IT in world.felt()


# --- no word from outside starts the microphone


def test_no_word_from_hub_or_station_starts_the_microphone():
    world, hub = ready()
    opened = Microphone.opened
    world.run(500)
    incident = b"\0\1abcd\0\1"
    for kind in range(12):
        for body in (
            b"",
            downlink.pack_state(incident, kinds.CLAIMED),
            downlink.pack_receipt(incident, incident, kinds.LISTENING),
            downlink.pack_visit(7, bytes(8), 60000, 60000, 60000, downlink.VISIT_AUDIO),
            b'\x00\x09{"missed_check_in_audio": true}',
            bytes(16),
        ):
            hub.say(kind, body)
            world.run(20)
    for kind in range(256):
        for body in (b"", b"\x01", bytes(20), bytes(64)):
            hub.session.send(kind, body)
        world.run(20)
    world.run(2000)
    assert Microphone.opened == opened
    assert not world.recorder.running


def test_a_badge_tells_a_stranger_nothing_and_drops_it_after_3_s():
    world = World()
    world.connect(key=False)
    world.run(2500)
    assert 1 in world.hubs
    world.run(1000)
    assert 1 not in world.hubs
    assert GROUP and ROOT


def test_an_alarm_whose_first_try_fails_half_way_is_tried_again():
    world, hub = ready()
    real = world.recorder.begin
    failing = [2]

    def begin(*args):
        if failing[0]:
            failing[0] -= 1
            raise MemoryError
        real(*args)

    world.recorder.begin = begin
    world.badge.act(SOS)
    world.run(3500)
    assert [kind for kind in hub.kinds() if kind == kinds.SOS] == [kinds.SOS]
    assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT]
    assert world.recorder.running


def test_an_alarm_that_fails_before_it_is_said_is_tried_again():
    world, hub = ready()
    real = world.links.offer
    failing = [2]

    def offer(event):
        if failing[0]:
            failing[0] -= 1
            raise MemoryError
        real(event)

    world.links.offer = offer
    world.badge.act(SOS)
    world.run(1000)
    assert [kind for kind in hub.kinds() if kind == kinds.SOS] == [kinds.SOS]
    assert sorted(world.felt()) == [patterns.PRESSED, patterns.STATION_HAS_IT]


def test_a_radio_that_refuses_the_beacon_does_not_stop_the_rest_of_an_alarm():
    world, hub = ready()
    real = world.ble.gap_advertise
    failing = [1]

    def refuse(*args, **named):
        if failing[0]:
            failing[0] -= 1
            raise OSError(5)
        return real(*args, **named)

    world.ble.gap_advertise = refuse
    world.badge.act(SOS)
    assert world.recorder.running
    assert world.felt() == [patterns.PRESSED]
    world.run(1000)
    assert kinds.SOS in hub.kinds()
    assert world.beacon()[1] in (kinds.SOS, kinds.STATUS)
    del world.ble.gap_advertise


def test_a_torn_lanyard_alarms_within_2_s_and_a_swinging_one_does_not():
    world, hub = ready()
    pin = machine.pins
    world.run(3000)
    for _ in range(10):
        pin[6] = 1
        world.run(200)
        pin[6] = 0
        world.run(200)
    assert kinds.LANYARD not in hub.kinds()
    world.run(3000)
    pin[6] = 1
    world.run(2000)
    assert kinds.LANYARD in hub.kinds()
    assert world.recorder.running
    world.run(60000)
    assert hub.kinds().count(kinds.LANYARD) == 1


def test_it_works_at_the_smallest_values_too():
    world = World()
    hub = world.connect(chunk=20)
    world.run(2500)
    world.badge.act(SOS)
    world.speak(1)
    assert patterns.STATION_HAS_IT in world.felt()
    assert hub.sound


def test_the_broadcast_answer_is_felt_where_no_connection_succeeds():
    world = World()
    world.run(3000)
    world.haptic.felt.clear()
    world.badge.act(SOS)
    world.run(1000)
    assert world.ble.scanning  # it listens, for it waits
    found, _ = world.beacon()
    group = beacon.Group(GROUP)
    boot = world.badge.uplink.boot

    def broadcast(level, rotation, key=world.keys.answer):
        data = answer.seal_answer(group, key, 12, boot, found.ident, level, rotation)
        world.ble.handler(5, (1, b"addr", 3, -60, memoryview(beacon.advertisement(data))))
        world.run(100)

    broadcast(kinds.RECEIVED, found.rotation, key=bytes(16))
    broadcast(kinds.RECEIVED, found.rotation + 100)
    assert world.felt() == [patterns.PRESSED]
    broadcast(kinds.RECEIVED, found.rotation)
    broadcast(kinds.CLAIMED, world.beacon()[0].rotation)
    broadcast(kinds.RECEIVED, world.beacon()[0].rotation)  # an answer lowers nothing
    assert world.felt() == [patterns.PRESSED, patterns.STATION_HAS_IT, patterns.OPERATOR_WITH_YOU]
    assert world.badge.uplink.outbox.find(found.ident)  # the sealed event still has to come
    world.connect()
    world.run(2000)
    assert not world.ble.scanning


# --- every press for itself
