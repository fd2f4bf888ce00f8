"""Off duty: when the badge may sleep, what wakes it, and an SOS out of the deepest sleep."""

import machine
from firmware.badge import gestures, standby
from firmware.badge.gestures import Recogniser
from firmware.badge.retained import Retained
from firmware.boards import emulator as board
from protocol import kinds, patterns

from world import Time, World

EXT0, EXT1 = 2, 3


def ready(**settings):
    world = World(settings)
    hub = world.connect()
    world.run(1500)
    world.haptic.felt.clear()
    return world, hub


def test_it_says_no_path_tells_the_station_and_sleeps_with_the_radio_off():
    world, hub = ready()
    world.badge.act(gestures.OFF_DUTY)
    world.run(300)
    assert world.felt() == [patterns.NOT_PROTECTED]
    assert kinds.OFF_DUTY in hub.kinds()
    assert world.asleep
    assert world.ble.order[-1] == "inactive" and not world.ble.advertising
    assert not world.recorder.running


def test_without_a_station_it_sleeps_all_the_same_a_little_later():
    world = World()
    world.run(1000)
    world.badge.standby()
    world.run(3000)
    assert not world.asleep
    world.run(1500)
    assert world.asleep


def test_it_stays_awake_in_a_visit_in_an_alarm_and_under_a_hand():
    world, hub = ready()
    world.badge.visits.start()
    assert "visit" in world.badge.standby()
    world.run(6000)
    assert not world.asleep
    world.badge.visits.end()
    world.badge.act("sos")
    assert "alarm" in world.badge.standby()
    world.run(6000)
    assert not world.asleep
    world.says(kinds.CLOSED)
    world.run(1000)
    hub.answer = False
    assert world.badge.standby() == ""
    world.run(1000)
    world.badge.act("sos")
    world.run(6000)
    assert not world.asleep
    assert hub.kinds().count(kinds.SOS) == 2


def test_nothing_of_the_day_is_left_for_the_next_one():
    world, hub = ready()
    world.badge.act("sos")
    world.run(1000)
    world.says(kinds.CLOSED)
    world.run(1000)
    world.badge.standby()
    world.run(300)
    record = Retained()
    assert record.valid and not record.open and not record.wanted


class Clock:
    now = 0


def doze(story, reason, charging=1, start=250):
    """What standby.doze makes of levels of both buttons over time after waking: (from ms, sos down, side down).

    `start`: ms until anybody looks."""
    Clock.now = start
    recogniser = Recogniser()

    class Buttons:
        def sample(self):
            level = [entry for entry in story if entry[0] <= Clock.now][-1]
            return recogniser.feed(Clock.now, bool(level[1]), bool(level[2]))

    first = [entry for entry in story if entry[0] <= Clock.now][-1]
    machine.pins[board.SOS_N] = 0 if first[1] else 1
    machine.pins[board.CHARGING_N] = charging
    machine.EXT1_WAKE, machine.TIMER_WAKE = 3, 4
    machine.wake_reason = lambda: reason
    standby.ticks_ms = lambda: Clock.now

    def sleep_ms(ms):
        Clock.now += ms

    standby.sleep_ms = sleep_ms
    return standby.doze(board, Buttons(), recogniser), Clock.now


def test_the_hold_that_woke_it_counts_from_the_beginning():
    for start in (0, 250, 1100):  # however long the application takes to load
        act, at = doze([(0, 1, 0)], EXT0, start=start)
        assert act == gestures.SOS
        assert abs(at - (1500 - board.WAKE_MS)) <= 20, (start, at)
    act, at = doze([(0, 1, 0)], EXT0, start=1900)
    assert act == gestures.SOS and at <= 1920
    # a hand that has let go before anybody looked may have touched it shortly
    act, _ = doze([(0, 1, 0), (1000, 0, 0)], EXT0, start=1900)
    assert act is None
    # ticks that somebody has moved say nothing about the start
    act, at = doze([(0, 1, 0)], EXT0, start=1 << 29)
    assert act == gestures.SOS and abs(at - (1 << 29) - (1500 - board.WAKE_MS)) <= 20


def test_a_touch_leaves_it_asleep():
    act, at = doze([(0, 1, 0), (400, 0, 0)], EXT0)
    assert act is None and at < 2000
    act, _ = doze([(0, 0, 1), (400, 0, 0)], EXT1)
    assert act is None


def test_the_side_button_held_means_on_duty_and_squeezed_it_is_still_no_sos():
    assert doze([(0, 0, 1), (1800, 0, 0)], EXT1)[0] == gestures.HOLD
    # the hidden button was not what woke it: only what is seen of it counts
    assert doze([(0, 1, 1), (1000, 0, 1), (1800, 0, 0)], EXT1)[0] == gestures.DURESS_HOLD
    assert doze([(0, 0, 1), (9000, 0, 0)], EXT1)[0] == gestures.PAIR


def test_the_charger_wakes_it_and_a_button_that_is_stuck_does_not_keep_it_awake():
    assert doze([(0, 0, 0)], EXT1, charging=0)[0] == standby.CHARGER
    act, at = doze([(0, 0, 1)], EXT1)
    assert act in (None, gestures.PAIR)


def test_what_was_wanted_in_standby_is_raised_first_and_survives_a_reset_before_that():
    world, hub = ready()
    world.retained.want()
    world.boot()  # the watchdog bit while it came up
    assert world.badge.alarms.current is not None
    assert not Retained().wanted
    found, kind = world.beacon()
    assert kind == kinds.SOS
    hub = world.connect()
    world.run(2000)
    assert hub.kinds()[0] == kinds.SOS
    assert patterns.STATION_HAS_IT in world.felt()
    assert Time
