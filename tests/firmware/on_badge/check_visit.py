"""Visits: begun by a gesture or by the station, reminded, missed, and never a way to listen on command."""

import machine
from protocol import downlink, events, kinds, patterns
from protocol.ident import NONE
from protocol.visit import GRACE, IDLE, MISSED, RUNNING

from world import Microphone, Time, World, board

CHECK, EXTEND, AMBER, HOLD = "side_1", "side_2", "side_3", "side_hold"
MINUTE = 60000


def ready(**settings):
    world = World(settings)
    hub = world.connect()
    world.run(1500)
    world.haptic.felt.clear()
    return world, hub


def order(hub, remaining, interval, grace, number=7, ref=NONE, flags=0):
    hub.say(downlink.VISIT, downlink.pack_visit(number, ref, remaining, interval, grace, flags))


def state(world):
    return world.badge.visits.visit.state


def test_one_gesture_starts_a_visit_of_the_usual_length_with_a_spoken_note():
    world, hub = ready(visit_minutes=45, grace_minutes=3, amber_seconds=20)
    world.badge.act(HOLD)
    world.run(1000)
    start = [found[0][1] for found in hub.events.values() if found[0][1].kind == kinds.VISIT_START][0]
    number, ref, remaining, interval, grace = events.unpack_visit(start.body)
    assert (number, ref, interval, grace) == (0, start.ident, 45 * 60, 180)
    assert world.felt() == [patterns.CHECKED_IN]
    assert world.recorder.running and world.recorder.reason == kinds.AMBER
    world.run(21000)
    assert not world.recorder.running


def test_reminders_come_five_and_one_minute_before_the_end():
    world, hub = ready(visit_minutes=20)
    world.badge.act(HOLD)
    begun = Time.now
    world.run(19 * MINUTE + 30000)
    due = [at - begun for at, name in world.haptic.felt if name == patterns.CHECK_IN_DUE]
    assert len(due) == 2
    assert abs(due[0] - 15 * MINUTE) <= 100 and abs(due[1] - 19 * MINUTE) <= 100


def test_reminders_of_short_visits_come_at_half_and_nine_tenths():
    world, hub = ready(visit_minutes=0.2)
    world.badge.act(HOLD)
    begun = Time.now
    world.run(11500)
    due = [at - begun for at, name in world.haptic.felt if name == patterns.CHECK_IN_DUE]
    assert len(due) == 2 and abs(due[0] - 6000) <= 100 and abs(due[1] - 10800) <= 100


def test_a_check_in_restarts_the_whole_interval_and_is_felt():
    world, hub = ready(visit_minutes=20)
    world.badge.act(HOLD)
    world.run(18 * MINUTE)
    world.haptic.felt.clear()
    world.badge.act(CHECK)
    world.run(1000)
    assert world.felt() == [patterns.CHECKED_IN]
    assert abs(world.badge.visits.visit.due_ms - Time.now - 20 * MINUTE + 1000) <= 100
    world.run(19 * MINUTE)
    assert state(world) == RUNNING


def test_a_check_in_without_a_visit_is_told_and_more_time_does_nothing():
    world, hub = ready()
    world.badge.act(CHECK)
    world.badge.act(EXTEND)
    world.run(10000)
    assert world.felt() == [patterns.CHECKED_IN]
    assert hub.kinds() == [kinds.BOOTED, kinds.CHECK_IN]
    assert not world.badge.visits.active


def test_a_check_in_that_nobody_got_is_felt_as_not_delivered():
    world, hub = ready(visit_minutes=20)
    world.badge.act(HOLD)
    world.run(60000)
    world.disconnect()
    world.haptic.felt.clear()
    begun = Time.now
    world.badge.act(CHECK)
    world.run(9000)
    assert [(name, at - begun <= 10000) for at, name in world.haptic.felt] == [(patterns.NOT_DELIVERED, True)]


def test_a_missed_check_in_is_an_alarm_after_the_grace_and_silent_ears_unless_agreed():
    for agreed in (False, True):
        world, hub = ready(visit_minutes=0.2, grace_minutes=0.1, missed_check_in_audio=agreed, amber_seconds=5)
        world.badge.act(HOLD)
        world.run(17800)
        opened = Microphone.opened
        assert state(world) == GRACE
        assert kinds.MISSED_CHECK_IN not in hub.kinds()
        world.run(600)
        assert state(world) == MISSED
        assert kinds.MISSED_CHECK_IN in hub.kinds()
        assert world.recorder.running == agreed
        assert Microphone.opened - opened == (1 if agreed else 0)
        assert patterns.STATION_HAS_IT in world.felt()


def test_an_extension_adds_and_an_end_ends():
    world, hub = ready(visit_minutes=20, extend_minutes=15)
    world.badge.act(HOLD)
    world.run(10 * MINUTE)
    world.badge.act(EXTEND)
    world.run(1000)
    assert abs(world.badge.visits.visit.due_ms - Time.now - 25 * MINUTE + 1000) <= 100
    world.badge.act(HOLD)
    world.run(1000)
    assert state(world) == IDLE
    assert hub.kinds()[-1] in (kinds.VISIT_END, kinds.AUDIO_END)
    assert world.felt() == [patterns.CHECKED_IN] * 3


def test_amber_is_a_note_and_starts_a_visit_where_none_runs():
    world, hub = ready()
    world.badge.act(AMBER)
    world.run(1000)
    assert state(world) == RUNNING and world.recorder.running
    world.run(40000)
    assert not world.recorder.running
    world.badge.act(AMBER)
    world.run(1000)
    assert kinds.AMBER in hub.kinds() and world.recorder.running


def test_a_note_never_cuts_into_an_alarm():
    world, hub = ready()
    world.badge.act("sos")
    world.run(500)
    opened = Microphone.opened
    world.badge.act(AMBER)
    world.run(500)
    assert Microphone.opened == opened and world.recorder.reason == kinds.SOS


def test_a_planned_visit_arms_by_itself_and_says_so():
    world, hub = ready()
    order(hub, 10 * MINUTE, 30 * MINUTE, MINUTE)
    world.run(1000)
    assert state(world) == RUNNING
    assert abs(world.badge.visits.visit.due_ms - Time.now - 10 * MINUTE) < 1100
    assert kinds.VISIT_ARMED in hub.kinds()
    assert world.badge._status()[1][5:9] == b"\0\0\0\7"


def test_an_order_that_took_long_is_corrected_and_one_too_old_is_not_obeyed():
    world, hub = ready()
    echo = world.echo
    world.run(12000)
    hub.say(downlink.VISIT, downlink.pack_visit(7, NONE, 10 * MINUTE, 30 * MINUTE, MINUTE), echo=echo)
    world.run(100)
    assert world.badge.visits.visit.due_ms - Time.now < 10 * MINUTE - 5000
    world.run(40000)
    hub.say(downlink.VISIT, downlink.pack_visit(8, NONE, 10 * MINUTE, 30 * MINUTE, MINUTE), echo=echo)
    world.run(100)
    assert world.badge.visits.visit.number == 7


def test_an_older_order_never_replaces_a_newer_one():
    world, hub = ready()
    body = downlink.pack_visit(7, NONE, 5 * MINUTE, 30 * MINUTE, MINUTE)
    old = world.sealed(downlink.VISIT, body)
    order(hub, 20 * MINUTE, 30 * MINUTE, MINUTE)
    world.run(100)
    hub.session.station(old)
    world.run(100)
    assert world.badge.visits.visit.due_ms - Time.now > 19 * MINUTE


def test_the_stations_order_does_not_undo_what_the_wearer_just_did():
    world, hub = ready(visit_minutes=20)
    world.badge.act(HOLD)
    world.run(10 * MINUTE)
    ref = world.badge.visits.visit.ref
    hub.answer = hub.hold = False
    world.badge.act(CHECK)
    world.run(100)
    order(hub, 10 * MINUTE, 20 * MINUTE, MINUTE, number=9, ref=ref)
    world.run(100)
    visit = world.badge.visits.visit
    assert visit.number == 9
    assert visit.due_ms - Time.now > 19 * MINUTE


def test_a_visit_that_the_wearer_ended_is_not_begun_again_by_an_order_that_crossed():
    world, hub = ready()
    order(hub, 10 * MINUTE, 30 * MINUTE, MINUTE)
    world.run(100)
    world.badge.act(HOLD)
    order(hub, 10 * MINUTE, 30 * MINUTE, MINUTE)
    world.run(100)
    assert state(world) == IDLE


def test_the_station_ends_a_visit():
    world, hub = ready()
    order(hub, 10 * MINUTE, 30 * MINUTE, MINUTE)
    world.run(100)
    order(hub, 0, 0, 0, flags=downlink.VISIT_ENDED)
    world.run(100)
    assert state(world) == IDLE


def test_no_order_is_a_way_to_listen_at_once():
    for agreed in (False, True):
        world, hub = ready(missed_check_in_audio=agreed)
        opened = Microphone.opened
        order(hub, 0, 1000, 0, flags=downlink.VISIT_AUDIO)
        world.run(1000)
        order(hub, 500, 10000, 0, number=8, flags=downlink.VISIT_AUDIO)
        world.run(3000)
        assert kinds.MISSED_CHECK_IN in hub.kinds()
        assert Microphone.opened == opened


def test_a_visit_outlives_a_reset():
    world, hub = ready(visit_minutes=20)
    world.badge.act(HOLD)
    world.run(10 * MINUTE)
    ref = world.badge.visits.visit.ref
    world.boot()
    visit = world.badge.visits.visit
    assert visit.state == RUNNING and visit.ref == ref
    assert abs(visit.due_ms - Time.now - 10 * MINUTE) < 2500
    world.power_cut()
    assert state(world) == IDLE  # the station's clock goes on, and arms it again


# --- protected or not


def test_losing_the_station_is_felt_within_30_s_and_having_it_back_too():
    world, hub = ready()
    hub.answer = False
    begun = Time.now
    world.run(30000)
    assert [name for _, name in world.haptic.felt] == [patterns.NOT_PROTECTED]
    assert world.haptic.felt[0][0] - begun <= 25000
    world.run(60000)
    assert len(world.haptic.felt) == 1
    hub.answer = True
    world.run(6000)
    assert world.felt() == [patterns.NOT_PROTECTED, patterns.PROTECTED]


def test_losing_the_hub_is_felt_within_30_s():
    world, hub = ready()
    world.disconnect()
    world.run(30000)
    assert world.felt() == [patterns.NOT_PROTECTED]
    world.connect()
    world.run(3000)
    assert world.felt()[-1] == patterns.PROTECTED


def test_a_planned_visit_that_began_unheard_is_told():
    world, hub = ready()
    hub.say(downlink.NOT_PROTECTED, b"\0\0\0\7")
    world.run(7000)
    assert world.felt() == [patterns.NOT_PROTECTED, patterns.PROTECTED]


def test_settings_of_the_station_are_checked_kept_and_never_older():
    world, hub = ready()
    hub.say(downlink.SETTINGS, b'\x00\x05{"visit_minutes": 25}')
    world.run(100)
    assert world.settings.number("visit_minutes") == 25 and world.settings.version == 5
    old = world.sealed(downlink.SETTINGS, b'\x00\x06{"visit_minutes": 35}')
    hub.say(downlink.SETTINGS, b'\x00\x07{"visit_minutes": 45}')
    world.run(100)
    hub.session.station(old)
    world.run(100)
    assert world.settings.number("visit_minutes") == 45
    for bad in (b'\x00\x09{"visit_minutes": 0}', b"\x00\x09{", b"\x00\x09[]", b'\x00\x09{"nonsense": 1}'):
        hub.say(downlink.SETTINGS, bad)
        world.run(100)
    assert world.settings.number("visit_minutes") == 45 and world.settings.version == 7


# --- the battery


def with_battery(percent, **settings):
    world = World(settings)
    world.badge.battery.percent = percent
    hub = world.connect()
    world.run(1500)
    world.haptic.felt.clear()
    return world, hub


def test_a_visit_longer_than_the_battery_will_last_is_refused_and_felt():
    world, hub = with_battery(20, visit_minutes=60)
    world.badge.act("side_hold")
    world.run(2000)
    assert world.felt() == [patterns.BATTERY_LOW]
    assert not world.badge.visits.active and not world.recorder.running
    assert kinds.VISIT_START not in hub.kinds() and kinds.BATTERY in hub.kinds()
    for percent, minutes in ((30, 60), (20, 30), (100, 400)):
        world, hub = with_battery(percent, visit_minutes=minutes)
        world.badge.act("side_hold")
        world.run(2000)
        assert world.badge.visits.active, percent
        assert patterns.BATTERY_LOW not in world.felt()


def test_more_time_than_the_battery_has_is_refused_and_the_visit_goes_on():
    world, hub = with_battery(30, visit_minutes=60, extend_minutes=120)
    world.badge.act("side_hold")
    world.run(2000)
    due = world.badge.visits.visit.due_ms
    world.haptic.felt.clear()
    world.badge.act("side_2")
    world.run(2000)
    assert world.felt() == [patterns.BATTERY_LOW]
    assert world.badge.visits.visit.due_ms == due and world.badge.visits.active


def test_a_planned_visit_runs_all_the_same_and_its_wearer_is_warned():
    world, hub = with_battery(15, visit_minutes=60)
    hub.say(downlink.VISIT, downlink.pack_visit(7, bytes(8), 7200000, 7200000, 60000))
    world.run(2000)
    assert world.badge.visits.active
    assert patterns.BATTERY_LOW in world.felt()
    assert kinds.VISIT_ARMED in hub.kinds()


def test_both_levels_are_felt_and_said_once_each_also_right_after_the_start():
    from firmware.badge.battery import Battery

    told = []
    battery = Battery(board, told.append)
    machine.ADC.microvolts = 1830000  # 17 %
    battery.read(tell=False)
    assert told == []
    battery.read()
    battery.read()
    assert told == [20]
    machine.ADC.microvolts = 1790000  # 9 %
    for _ in range(12):
        battery.read()
    assert told == [20, 10]
    machine.ADC.microvolts = 2000000


# --- the room is heard only as agreed


def test_a_reset_in_a_miss_that_may_not_be_heard_does_not_open_the_microphone():
    for kept in (False, True):
        world, _ = ready(visit_minutes=0.2, grace_minutes=0.1, amber_seconds=2, missed_check_in_audio=kept)
        world.badge.act("side_hold")  # with a spoken note, which is no agreement
        world.run(5000)
        world.disconnect()
        world.run(14000)
        assert world.badge.alarms.kind == kinds.MISSED_CHECK_IN and world.recorder.running is kept
        opened = Microphone.opened
        world.boot()
        world.run(500)
        assert world.badge.alarms.kind == kinds.MISSED_CHECK_IN
        assert world.recorder.running is kept and (Microphone.opened > opened) is kept


def test_a_miss_that_crossed_a_closing_is_heard_only_where_that_was_agreed():
    for agreed in (False, True):
        world, hub = ready(visit_minutes=0.5, grace_minutes=0.1, amber_seconds=2, missed_check_in_audio=agreed)
        world.badge.act("side_hold")
        world.run(5000)
        machine.pins[board.LANYARD_N] = 1
        world.run(23000)
        first = world.badge.alarms.incident
        hub.answer = False
        world.run(9000)
        (missed,) = [e for e in world.badge.uplink.outbox.events if e.kind == kinds.MISSED_CHECK_IN]
        opened = Microphone.opened
        hub.say(downlink.RECEIPT, downlink.pack_receipt(missed.ident, first, kinds.CLOSED))
        world.run(300)
        alarms = world.badge.alarms
        assert alarms.kind == kinds.MISSED_CHECK_IN and alarms.incident != first
        assert world.recorder.running is agreed and (Microphone.opened > opened) is agreed
