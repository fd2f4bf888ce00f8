"""New firmware stays when it reaches a hub, and else the old one is back by itself; nothing that is kept is lost."""

import sys

import machine
from esp32 import Partition, Slot
from firmware.badge import retained, trial
from firmware.badge import store as stores
from protocol import downlink, kinds

from check_update import Bench, Restart
from world import Time

TRIAL_S = 600


def a_bench():
    bench = Bench()
    bench.parts.unload = lambda *names: None  # it is wanted here again and again
    return bench


def on_trial(seconds=TRIAL_S):
    """A badge that has just begun anew with what came into slot 1."""
    bench = a_bench()
    Partition.apps[1].data[:10] = b"new things"
    bench.parts.store.write(stores.UPDATE, trial.pack("ota_1", "0.2.0", seconds, 0))
    Partition.apps[1].set_boot()
    begin(bench)
    return bench


def begin(bench):
    """A reset of any kind: the boot loader, and then the start of the badge."""
    Slot.start()
    store = bench.world.store
    bench.world.boot()
    bench.parts.badge = bench.world.badge
    bench.parts.retained = bench.world.retained
    bench.parts.trial = None
    bench.began = Time.now
    record = store.read(stores.UPDATE)
    if record:
        bench.parts.trial = trial.begin(bench.parts, record)


def judged(bench):
    """One tick; whether it ended in a restart."""
    try:
        bench.parts.judge(Time.now - bench.began)
    except Restart:
        return True
    return False


def run(bench, ms):
    """Let time pass; whether the badge began anew."""
    end = Time.now + ms
    while Time.now < end:
        bench.world.run(50)
        if judged(bench):
            return True
    return False


def test_it_stays_when_a_hub_has_an_authenticated_session():
    bench = on_trial()
    assert Partition.running == 1 and not Slot.valid
    assert not run(bench, 2000)
    assert bench.parts.trial is not None and not Slot.valid
    bench.world.connect()
    assert not run(bench, 2000)
    assert Slot.valid and bench.parts.trial is None and not bench.parts.store.read(stores.UPDATE)
    begin(bench)
    assert Partition.running == 1 and bench.parts.trial is None
    assert bench.world.retained.cause != retained.CAUSE_WENT_BACK


def test_a_connection_that_proves_nothing_is_no_hub():
    bench = on_trial(30)
    bench.world.connect(key=False)
    assert run(bench, 31000)
    assert not Slot.valid


def test_without_a_hub_it_goes_back_in_time_and_says_so():
    bench = on_trial()
    assert not run(bench, TRIAL_S * 1000 - 3000)
    assert run(bench, 4000)
    assert bench.world.retained.cause == retained.CAUSE_WENT_BACK
    begin(bench)
    assert Partition.running == 0 and Slot.valid and bench.parts.trial is None
    assert not bench.parts.store.read(stores.UPDATE)
    assert bench.world.retained.cause == retained.CAUSE_WENT_BACK
    begin(bench)
    assert Partition.running == 0 and bench.world.retained.cause != retained.CAUSE_WENT_BACK  # said once


def test_a_reset_of_any_kind_ends_the_trial():
    for power in (False, True):
        bench = on_trial()
        run(bench, 1000)
        if power:
            bench.world.power_cut()
        begin(bench)
        assert Partition.running == 0
        assert bench.world.retained.cause == retained.CAUSE_WENT_BACK
        bench.world.connect()
        run(bench, 2000)
        assert Slot.boot == 0


def test_waking_from_standby_is_counted_though_the_boot_loader_does_not():
    bench = on_trial()
    starts = 1
    while not judged(bench):
        Slot.started = False  # it goes on with what fell asleep
        begin(bench)
        starts += 1
    assert starts == 4
    begin(bench)
    assert Partition.running == 0


def test_a_boot_loader_that_does_not_go_back_is_told_to():
    bench = on_trial()
    for _ in range(4):
        Slot.started = False  # a build without roll-back
        begin(bench)
    assert judged(bench) and Slot.boot == 0
    begin(bench)
    assert Partition.running == 0 and Slot.valid


def test_an_alarm_that_the_station_has_is_not_interrupted_and_one_that_nobody_heard_is_taken_back():
    bench = on_trial(30)
    hub = bench.world.connect(key=False)
    bench.world.badge.act("sos")
    ident = bench.world.badge.alarms.incident
    assert run(bench, 31000)  # nobody heard it: perhaps the old one is heard
    begin(bench)
    assert Partition.running == 0 and bench.world.badge.alarms.incident == ident
    hub = bench.world.connect()
    run(bench, 3000)
    assert kinds.SOS in hub.kinds() and "station_has_it" in bench.world.felt()

    bench = on_trial(30)
    bench.world.badge.act("sos")
    bench.world.run(500)
    ident = bench.world.badge.alarms.incident
    bench.world.badge.alarms.answered(ident, kinds.RECEIVED, True)  # by beacon, without a session
    assert not run(bench, 60000)
    bench.world.badge.alarms.answered(ident, kinds.CLOSED, True)
    bench.world.run(3000)
    assert bench.world.badge.alarms.current is None
    assert run(bench, 100)


def test_firmware_that_does_not_find_the_keys_goes_back_too():
    bench = on_trial()
    bench.parts.badge = bench.parts.trial = None
    bench.parts.store.identity = lambda: None  # it reads another record, mounts another partition, ...
    assert bench.parts.start() is None
    assert bench.parts.trial is not None and bench.parts.badge is None
    Time.now = bench.began + TRIAL_S * 1000 - 50
    assert not judged(bench)
    Time.now += 50
    bench.parts.recogniser.busy = lambda: True
    assert not judged(bench)
    bench.parts.recogniser.busy = lambda: False
    assert judged(bench)
    assert bench.parts.retained.cause == retained.CAUSE_WENT_BACK


def test_a_finger_on_a_button_holds_the_restart_up():
    bench = on_trial(10)
    bench.parts.recogniser.busy = lambda: True
    assert not run(bench, 12000)
    bench.parts.recogniser.busy = lambda: False
    assert run(bench, 100)


def test_what_is_kept_survives_both_ways_and_boots_are_never_counted_twice():
    bench = on_trial(30)
    hub = bench.world.connect()
    bench.world.run(1000)
    boots = [hub.boot]
    hub.say(downlink.SETTINGS, b'\x00\x02{"visit_minutes": 45}')
    bench.world.run(500)
    bench.parts.store.write(stores.BONDS, b"")
    bench.world.badge.visits.start()
    bench.world.run(500)
    number = bench.world.badge.visits.visit.number
    for _ in range(2):
        begin(bench)
        assert bench.world.badge.visits.active and bench.world.badge.visits.visit.number == number
        hub = bench.world.connect()
        bench.world.run(1000)
        assert hub.boot not in boots
        boots.append(hub.boot)
        assert bench.world.settings.number("visit_minutes") == 45
    assert Partition.running == 0


def test_a_record_that_makes_no_sense_is_forgotten_and_what_there_is_runs():
    for record in (b"\x00", b"\xff" * 40, b"\x01\x02\x03ota_9", bytes(19), trial.pack("nowhere", "?", 0, 200)):
        bench = a_bench()
        bench.parts.store.write(stores.UPDATE, record)
        begin(bench)
        run(bench, 200)
        assert Partition.running == 0 and bench.parts.trial is None
        assert not bench.parts.store.read(stores.UPDATE)


def test_without_partitions_nothing_is_on_trial():
    bench = a_bench()
    Partition.apps = ()
    bench.parts.store.write(stores.UPDATE, trial.pack("ota_1", "0.2.0", 60, 0))
    assert trial.begin(bench.parts, bench.parts.store.read(stores.UPDATE)) is None
    assert not bench.parts.store.read(stores.UPDATE)


def test_a_boot_loader_that_cannot_be_told_is_told_again():
    bench = on_trial()
    bench.world.connect()
    marks = Partition.mark_app_valid_cancel_rollback

    def broken():
        raise OSError(-1)

    trial.esp32.Partition.mark_app_valid_cancel_rollback = broken
    try:
        assert not run(bench, 2000)
        assert bench.parts.trial is not None and bench.parts.store.read(stores.UPDATE)
    finally:
        trial.esp32.Partition.mark_app_valid_cancel_rollback = marks
    assert not run(bench, 100)
    assert Slot.valid and bench.parts.trial is None


def test_main_py_begins_anew_when_the_firmware_cannot_be_loaded():
    class Broken:
        def main(self, name):
            raise ValueError(name)

    package = sys.modules["firmware.badge"]
    kept = sys.modules["firmware.badge.main"]
    with open("firmware/badge/start.py") as file:
        text = file.read().replace("_BREATH_MS = 1000", "_BREATH_MS = 1")
    for module in (Broken(), None):
        before = len(machine.resets)
        package.main = sys.modules["firmware.badge.main"] = module
        try:
            exec(text, {})
        except SystemExit:
            pass
        finally:
            package.main = sys.modules["firmware.badge.main"] = kept
        assert len(machine.resets) == before + 1
