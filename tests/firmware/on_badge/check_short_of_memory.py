"""Memory or flash fails in the middle of an alarm: what raised it does not happen twice, so the badge tries again."""

import firmware.badge.audio as audio
import machine
from firmware.badge import haptic, trace
from firmware.badge import store as stores
from firmware.badge.gestures import SOS
from protocol import kinds, patterns

from check_update import Bench
from world import Fails, World, board, ready


def test_an_alarm_of_any_kind_that_no_memory_is_there_for_is_raised_a_moment_later():
    for what, kind in (("lanyard", kinds.LANYARD), ("duress", kinds.DURESS), ("missed", kinds.MISSED_CHECK_IN)):
        world, hub = ready(visit_minutes=1, grace_minutes=0.1)
        world.run(3000)
        if what == "missed":
            world.badge.act("side_hold")
            world.run(61000)
        failing = Fails(world.badge.uplink, "make_event", times=3)
        if what == "lanyard":
            machine.pins[board.LANYARD_N] = 1
        elif what == "duress":
            world.badge.act("duress_1")
        world.run(10000)
        assert not failing.left and world.badge.alarms.kind == kind, what
        assert hub.kinds().count(kind) == 1, what
        felt = {"duress": patterns.CHECKED_IN}.get(what, patterns.STATION_HAS_IT)
        assert felt in world.felt() and world.recorder.running is (what != "missed"), what


def test_an_alarm_that_never_reached_the_outbox_is_put_there():
    for kind in ("add", "insert"):
        world, hub = ready()
        if kind == "add":
            Fails(world.badge.uplink.outbox, "add")
        else:
            Fails(world.links, "offer")
        world.badge.act(SOS)
        world.run(5000)
        assert hub.kinds().count(kinds.SOS) == 1
        assert patterns.STATION_HAS_IT in world.felt() and world.recorder.running


def test_an_alarm_that_the_station_refuses_is_not_sent_for_ever():
    world, hub = ready()
    hub.answer = False
    world.badge.act(SOS)
    world.run(500)
    world.badge.alarms.rejected(world.badge.alarms.incident)
    world.run(3000)
    assert world.badge.uplink.outbox.find(world.badge.alarms.incident) is None


def test_the_room_is_heard_though_sending_failed():
    world, hub = ready()
    world.run(3000)
    Fails(world.links, "hurry")
    machine.pins[board.LANYARD_N] = 1
    world.run(3000)
    assert kinds.LANYARD in hub.kinds() and world.recorder.running


def refuses(store, error, times):
    """Let a store fail to write the journal: with an exception, or as one that said so and went on."""
    real = store.write
    left = [times]

    def write(what, payload):
        if what == stores.JOURNAL and left[0]:
            left[0] -= 1
            if error is not None:
                raise error
            return False
        return real(what, payload)

    store.write = write


def test_the_journal_is_written_again_until_flash_takes_it():
    for error in (None, MemoryError):
        world = World({})
        refuses(world.store, error, 2)
        world.badge.act(SOS)
        for _ in range(3):
            try:
                world.run(6000)
            except MemoryError:
                pass  # the supervisor starts the task again
        assert stores.JOURNAL in world.store.records
        ident = world.badge.alarms.incident
        world.power_cut()
        assert world.badge.alarms.incident == ident


def test_sound_goes_on_after_a_gap_although_memory_was_short_in_it():
    world, hub = ready()
    world.badge.act(SOS)

    def talk(seconds):
        for _ in range(seconds * 40):
            if world.microphone.on_block:
                world.microphone.on_block(0)
            world.run(25)
            for key in list(hub.sound):
                hub.acknowledge(*key)

    talk(3)
    sealer = audio.Sealer
    Fails(audio, "Sealer")
    world.microphone.on_block(3)  # it ran over: the capture ends, and the next one begins
    try:
        talk(3)
        raise AssertionError("nothing failed")
    except MemoryError:
        pass
    finally:
        audio.Sealer = sealer
    before = sum(len(packets) for packets in hub.sound.values())
    talk(5)
    assert world.recorder.running
    assert sum(len(packets) for packets in hub.sound.values()) > before + 100


def test_a_pattern_that_no_memory_was_there_for_is_felt_afterwards_and_whole():
    import asyncio

    import jumping

    motor = haptic.Haptic(board.HAPTIC, board.HAPTIC_HZ, board.HAPTIC_DUTY)
    switched = []
    motor._drive = lambda on: switched.append(on)
    real = haptic.patterns.pulses
    Fails(haptic.patterns, "pulses")

    jumping.begin()

    async def story():
        task = asyncio.create_task(motor.run(lambda: None))
        motor.play(patterns.STATION_HAS_IT)
        await asyncio.sleep_ms(2500)
        task.cancel()

    try:
        asyncio.run(story())
    finally:
        haptic.patterns.pulses = real
    assert switched == [False, True, False, True, False] and motor.idle


def test_a_room_that_no_memory_was_there_to_hear_before_a_reset_is_heard_after_it():
    world, _ = ready(visit_minutes=0.2, grace_minutes=0.1, amber_seconds=2, missed_check_in_audio=True)
    world.badge.act("side_hold")
    world.run(5000)
    world.disconnect()
    Fails(world.recorder, "begin", times=1000)
    world.run(14000)
    assert world.badge.alarms.kind == kinds.MISSED_CHECK_IN and not world.recorder.running
    world.boot()
    world.run(2000)
    assert world.recorder.running


def test_no_act_that_asks_for_help_is_lost_before_it_is_an_alarm():
    say = trace.say
    for act, kind in ((SOS, kinds.SOS), ("duress_1", kinds.DURESS)):
        for what in ("say", "shed"):
            bench = Bench()
            trace.say = say
            world, parts = bench.world, bench.parts
            world.connect()
            world.run(1500)
            world.haptic.felt.clear()
            Fails(trace if what == "say" else parts, what)
            try:
                parts.act(act)
            finally:
                trace.say = say
            assert world.badge.alarms.kind == kind, (act, what)
            world.run(3000)
            assert world.recorder.running and not world.retained.wanted
            assert world.felt()[: 1 + (act == SOS)][-1] in (patterns.STATION_HAS_IT, patterns.CHECKED_IN), (act, what)


def test_an_sos_whose_task_dies_before_it_is_an_alarm_is_raised_by_the_next_tick():
    for opened in (False, True):
        bench = Bench()
        world = bench.world
        hub = world.connect()
        world.run(3000)
        if opened:
            machine.pins[board.LANYARD_N] = 1
            world.run(3000)
        Fails(world.badge, "act")
        try:
            bench.parts.act(SOS)
            raise AssertionError("nothing failed")
        except MemoryError:
            pass  # the supervisor starts the task again, and the hand has long let go
        world.run(3000)
        assert patterns.PRESSED in world.felt() and world.felt()[-1] == patterns.STATION_HAS_IT
        assert hub.kinds().count(kinds.SOS) == 1 and not world.retained.wanted
        assert world.badge.alarms.kind == (kinds.LANYARD if opened else kinds.SOS)


def test_a_reset_between_hand_and_alarm_loses_neither_the_press_nor_the_alarm_that_was_open():
    world, hub = ready()
    world.run(3000)
    hub.answer = False
    machine.pins[board.LANYARD_N] = 1
    world.run(3000)
    torn = world.badge.alarms.incident
    world.retained.want()
    world.boot()
    hub = world.connect()
    world.run(3000)
    assert world.badge.alarms.kind == kinds.LANYARD and world.badge.alarms.incident == torn
    assert sorted([kind for kind in hub.kinds() if kind in kinds.ALARMS]) == [kinds.SOS, kinds.LANYARD]
    assert patterns.PRESSED in world.felt() and not world.retained.wanted


def test_a_line_that_no_memory_is_there_for_is_left_out():
    def no_memory(*args):
        raise MemoryError

    trace.print = no_memory
    try:
        trace.say("act", "name=sos")
        trace.fault("anything", MemoryError())
    finally:
        del trace.print
