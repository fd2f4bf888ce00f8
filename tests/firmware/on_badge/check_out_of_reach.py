"""Long without contact, resets and power cuts in an alarm, and words of the station that come late or crosswise."""

import os

import machine
from firmware.badge.gestures import CHECK_IN, SOS
from firmware.badge.radio import CONNECTED, WRITTEN
from protocol import answer, beacon, downlink, kinds, patterns
from protocol.chunks import Splitter
from protocol.ident import NONE

from world import GROUP, ME, Time, World, board, ready

HALF_AN_HOUR = 31 * 60000


def test_a_room_is_heard_however_long_ago_the_station_was():
    world = World({})
    world.run(HALF_AN_HOUR)
    world.badge.act(SOS)
    world.run(60000)
    assert world.recorder.running
    # by nobody for half an hour: it ends, and a further press begins it again
    world.run(HALF_AN_HOUR)
    assert not world.recorder.running
    world.badge.act(SOS)
    world.run(60000)
    assert world.recorder.running


def test_a_note_and_an_agreed_miss_are_heard_out_of_reach_too():
    world = World({})
    world.run(HALF_AN_HOUR)
    world.badge.act("side_hold")
    world.run(20000)
    assert world.recorder.running
    world = World({"visit_minutes": 40, "missed_check_in_audio": True})
    world.connect()
    world.run(2000)
    world.badge.act("side_hold")
    world.run(3000)
    world.disconnect()
    world.run(43 * 60000)
    assert world.badge.alarms.kind == kinds.MISSED_CHECK_IN and world.recorder.running


def test_pressing_on_and_on_does_not_put_off_the_honest_answer():
    for every in (1500, 5000, 7000):
        world = World({})
        pressed = Time.now
        world.haptic.felt.clear()
        while Time.now - pressed < 60000:
            world.badge.act(SOS)
            world.run(every)
        told = [at for at, name in world.haptic.felt if name == patterns.NOT_DELIVERED]
        assert told and told[0] - pressed <= 10000, every
        for i in range(1, len(told)):
            assert told[i] - told[i - 1] <= 10000 + every, (every, told)


def test_what_was_taken_back_by_not_delivered_is_felt_again_after_a_reset():
    for loss in ("boot", "power_cut"):
        world, _ = ready()
        world.badge.act(SOS)
        world.run(3000)
        assert patterns.STATION_HAS_IT in world.felt()
        getattr(world, loss)()
        world.haptic.felt.clear()
        world.run(15000)
        assert world.felt()[0] == patterns.NOT_DELIVERED
        world.connect()
        world.run(10000)
        assert world.felt().count(patterns.STATION_HAS_IT) == 1


def test_after_a_reset_the_answer_to_a_beacon_of_the_alarm_is_understood():
    for loss in ("boot", "power_cut"):
        world = World({})
        world.badge.act(SOS)
        world.run(3000)
        getattr(world, loss)()
        world.run(3000)
        world.haptic.felt.clear()
        heard, _ = world.beacon()
        assert heard.boot != world.badge.uplink.boot
        group = beacon.Group(GROUP)
        sealed = answer.seal_answer(
            group, world.keys.answer, ME, heard.boot, heard.ident, kinds.RECEIVED, heard.rotation
        )
        world.badge._heard(beacon.advertisement(sealed))
        assert world.felt() == [patterns.STATION_HAS_IT]


def test_no_power_cut_makes_an_old_word_about_a_beacon_young_again():
    world = World({})
    world.badge.act(SOS)
    boot = world.badge.uplink.boot
    used = set()
    for _ in range(4):
        for _ in range(20):
            world.run(1000)
            heard, _ = world.beacon()
            if heard.boot == boot:
                used.add(heard.rotation)
        highest = world.badge.uplink.rotation
        claimed = downlink.pack_state(world.badge.alarms.incident, kinds.CLAIMED)
        old = world.sealed(downlink.STATE, claimed, highest | downlink.BEACON, boot)
        world.power_cut()
        assert world.badge.uplink.rotation - highest & 0xFFFF < 0x8000 and world.badge.uplink.rotation != highest
        world.run(1000)
        heard, _ = world.beacon()
        assert heard.rotation not in used
        hub = world.connect(key=False)
        world.haptic.felt.clear()
        hub.session.station(old)
        world.run(100)
        assert patterns.OPERATOR_WITH_YOU not in world.felt() and patterns.PROTECTED not in world.felt()
        world.disconnect()


def test_the_numbers_that_the_journal_allows_are_renewed_before_they_are_used_up():
    world = World({})
    world.badge.act(SOS)
    world.run(2000)
    boot = world.badge.uplink.boot
    allowed = int.from_bytes(world.store.read(3)[32:34], "big")
    world.badge.uplink.rotation = allowed - 20
    world.run(10000)
    renewed = int.from_bytes(world.store.read(3)[32:34], "big")
    assert renewed - allowed & 0xFFFF > 500
    world.power_cut()
    assert world.badge.uplink.former_boot == boot and world.badge.uplink.rotation - renewed & 0xFFFF < 100


def test_two_power_cuts_on_end_repeat_no_number_wherever_the_first_one_fell():
    for at in (2000, 63000, 64600, 65400, 0xFFF0):
        world = World({})
        world.badge.act(SOS)
        world.run(2000)
        world.badge.uplink.rotation = at - 1024 & 0xFFFF
        world.run(10000)
        allowed = int.from_bytes(world.store.read(3)[32:34], "big")
        world.power_cut()
        world.run(3000)
        used = world.badge.uplink.rotation
        assert (used - allowed & 0xFFFF) < 100
        world.power_cut()
        assert 0 < (world.badge.uplink.rotation - used & 0xFFFF) < 0x8000, (at, allowed, used)


def torn_off_out_of_reach():
    """An alarm that the station closes unheard, and then the lanyard is torn off."""
    world, _ = ready()
    world.run(3000)
    world.badge.act(SOS)
    world.run(3000)
    world.disconnect()
    world.run(20000)
    machine.pins[board.LANYARD_N] = 1
    world.run(2000)
    return world


def test_a_closing_that_does_not_know_of_the_torn_lanyard_closes_nothing():
    world = torn_off_out_of_reach()
    alarms = world.badge.alarms
    alarms.answered(alarms.incident, kinds.CLOSED, True)
    hub = world.connect()
    hub.answer = False
    world.run(500)
    hub.say(downlink.PROOF, downlink.pack_state(alarms.incident, kinds.CLOSED))
    world.run(1000)
    assert alarms.current is not None and world.recorder.running
    assert world.beacon()[1] == kinds.LANYARD and kinds.LANYARD in hub.kinds()


def test_a_torn_lanyard_that_the_station_puts_to_the_closed_alarm_becomes_one_of_its_own():
    world = torn_off_out_of_reach()
    alarms = world.badge.alarms
    first = alarms.incident
    torn = [event for event in world.badge.uplink.outbox.events if event.kind == kinds.LANYARD][0]
    alarms.receipt(torn.ident, kinds.CLOSED, True)
    assert alarms.current is not None and alarms.incident != first and alarms.kind == kinds.LANYARD
    assert world.recorder.running


def test_a_claim_from_before_the_operator_went_is_not_felt():
    world, hub = ready()
    world.badge.act(SOS)
    world.run(2000)
    world.says(kinds.CLAIMED)
    world.run(4000)
    older = world.sealed(downlink.PROOF, downlink.pack_state(world.incident, kinds.CLAIMED, downlink.YOUNG))
    world.haptic.felt.clear()
    world.says(kinds.RECEIVED, downlink.RETURNED | downlink.YOUNG)
    world.run(300)
    hub.session.station(older)  # a slower hub brings what was said before
    world.run(300)
    assert world.felt() == [patterns.STATION_HAS_IT]
    assert world.badge.alarms.level == kinds.RECEIVED
    world.says(kinds.CLAIMED)  # and the next one is
    world.run(3000)
    assert world.felt()[-1] == patterns.OPERATOR_WITH_YOU


def test_a_visit_that_is_armed_while_the_badge_goes_off_duty_keeps_it_awake():
    world, hub = ready()
    world.badge.act("side_off")
    hub.answer = False
    world.run(1000)
    hub.say(downlink.VISIT, downlink.pack_visit(7, NONE, 600000, 600000, 60000, 0))
    world.run(8000)
    assert world.badge.visits.active and not world.asleep


def test_a_miss_is_not_missed_once_more_after_a_reset():
    world, hub = ready(visit_minutes=1, grace_minutes=0.1)
    world.badge.act("side_hold")
    world.run(75000)
    assert world.badge.alarms.kind == kinds.MISSED_CHECK_IN
    world.says(kinds.CLOSED)
    world.run(2000)
    world.incident, world.level = NONE, kinds.RAISED
    world.boot()
    hub = world.connect()
    world.run(15000)
    assert kinds.MISSED_CHECK_IN not in hub.kinds() and world.badge.visits.active
    world.badge.act(CHECK_IN)  # and a check-in begins the interval again
    world.run(75000)
    assert world.badge.alarms.kind == kinds.MISSED_CHECK_IN


def test_a_stranger_that_greets_without_end_costs_little_and_is_dropped():
    world = World({})
    world.ble.handler(CONNECTED, (1, 1, b"addr"))
    world._drain()
    peer = world.links.peers[1]
    split = Splitter()
    for _ in range(300):
        greeting = b"\x01\x01\x00" + b"strangr!" + os.urandom(16) + b"\x00\xf4"
        world.ble.value = split.split(greeting, 244)[0]
        world.ble.handler(WRITTEN, (1, 21))
        world._drain()
    assert len(peer.session._out) <= 40 and peer.session.dropped > 200
    world.run(100)
    assert peer.dropped_ms
    # and one that repeats the same
    world = World({})
    world.ble.handler(CONNECTED, (1, 1, b"addr"))
    world._drain()
    peer = world.links.peers[1]
    for _ in range(300):
        peer.session.receive(split.split(greeting, 244)[0], Time.now)
    assert len(peer.session._out) < 100


def answered_by_air(world, heard, level):
    """A hub broadcasts the station's answer to a beacon."""
    group = beacon.Group(GROUP)
    boot, rotation = world.badge.uplink.boot, heard.rotation
    return beacon.advertisement(
        answer.seal_answer(group, world.keys.answer, ME, boot, world.badge.alarms.incident, level, rotation)
    )


def returned():
    """An alarm whose operator came and went, out of reach; the beacon that was heard before."""
    world, _ = ready()
    world.badge.act(SOS)
    world.run(2000)
    world.says(kinds.CLAIMED)
    world.run(2500)
    before, _ = world.beacon()
    world.says(kinds.RECEIVED, downlink.RETURNED | downlink.YOUNG)
    world.run(1000)
    assert world.felt()[-2:] == [patterns.OPERATOR_WITH_YOU, patterns.STATION_HAS_IT]
    world.haptic.felt.clear()
    return world, before


def test_a_claim_that_a_stranger_replays_after_the_operator_went_is_neither_felt_nor_believed():
    for wait in (0, 20000):
        world, before = returned()
        old = answered_by_air(world, before, kinds.CLAIMED)
        world.disconnect()
        world.run(wait)
        world.badge._heard(old)
        world.run(500)
        assert world.badge.alarms.level == kinds.RECEIVED, wait
        world.run(9000)
        heard, _ = world.beacon()
        world.badge._heard(answered_by_air(world, heard, kinds.RECEIVED))
        world.run(500)
        assert patterns.OPERATOR_WITH_YOU not in world.felt() and world.badge.alarms.level == kinds.RECEIVED, wait
        world.badge._heard(answered_by_air(world, heard, kinds.CLAIMED))  # and a new one is
        world.run(500)
        assert world.felt()[-1] == patterns.OPERATOR_WITH_YOU, wait


def test_a_receipt_from_before_the_operator_went_is_no_claim():
    for flags in (downlink.BY_BEACON, 0):
        world, before = returned()
        hub = world.hubs[1]
        number, world.number = world.number, 1  # a slower hub brings it only now
        hub.say(downlink.RECEIPT, downlink.pack_receipt(world.incident, world.incident, kinds.CLAIMED, flags))
        world.number = number
        world.run(300)
        assert world.felt() == [] and world.badge.alarms.level == kinds.RECEIVED, flags
