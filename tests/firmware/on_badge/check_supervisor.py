"""The whole badge under its own supervisor, on a clock that jumps: one task after the other stops coming round."""

import asyncio
import asyncio.core as core
from time import ticks_diff, ticks_ms

import bluetooth
import machine
from firmware.badge import clock, haptic, main, supervisor
from firmware.badge import store as stores
from firmware.badge.audio import Recorder
from firmware.badge.battery import Battery
from firmware.badge.buttons import Buttons
from firmware.badge.console import Console
from firmware.badge.haptic import Haptic
from firmware.badge.links import Links
from firmware.badge.retained import Retained
from firmware.badge.store import Identity
from firmware.boards import emulator as board
from protocol import events, kinds, restart

BITES_MS = 10000
WATCHDOG, POWER_ON = 3, 1
# whose coroutine each task of main.run() is, in the order in which they are numbered
TASKS = (
    ("buttons", Buttons, "run"),
    ("haptic", Haptic, "run"),
    ("time", main.Machine, "keep_time"),
    ("battery", Battery, "run"),
    ("console", Console, "run"),
    ("receive", Links, "receive"),
    ("send", Links, "send"),
    ("audio", Recorder, "run"),
)


class Time:
    now = ticks_ms() + 1000
    end = 0


class Over(BaseException):
    """The story is told."""


class Bitten(BaseException):
    """The watchdog starved, and the chip begins anew."""


class Watchdog:
    """Bites when it was not fed for as long as it was told at its making."""

    fed = []

    def __init__(self, timeout):
        assert timeout == BITES_MS
        Watchdog.fed = [Time.now]

    def feed(self):
        Watchdog.fed.append(Time.now)


def jump(queue, _dt):
    """Instead of waiting for the next task that is due: be there."""
    # a poll of flags that are not set takes a millisecond, and there are a hundred thousand
    if any(waiting[2].state for waiting in queue.map.values()):
        poll(queue, 0)
    task = core._task_queue.peek()
    if task:
        Time.now += max(0, ticks_diff(task.ph_key, Time.now))
    if Watchdog.fed and Time.now - Watchdog.fed[-1] > BITES_MS:
        raise Bitten
    if Time.now >= Time.end:
        raise Over


poll = core.IOQueue.wait_io_event
core.IOQueue.wait_io_event = jump
core.ticks = lambda: Time.now
clock.ticks_ms = haptic.ticks_ms = lambda: Time.now
clock._last = Time.now
supervisor.WDT = Watchdog
machine.DEEPSLEEP_RESET = 4
machine.pins[board.LANYARD_N] = 0
stores.Store(stores.mount()).write(stores.KEYS, Identity(12, bytes(range(32)), bytes(range(16))).pack())

badges = []
real_badge = main.Badge


def made(*args):
    badges.append(real_badge(*args))
    return badges[-1]


main.Badge = made


def live(ms, cause=POWER_ON):
    """Run the badge from its start for so long. How it ended: Over, Bitten or SystemExit, for a reset of its own."""
    machine.reset_cause = lambda: cause
    bluetooth.BLE().reset()
    Watchdog.fed = []
    Time.end = Time.now + ms
    try:
        asyncio.run(main.run(board))
    except (Over, Bitten, SystemExit) as end:
        return type(end)
    finally:
        asyncio.new_event_loop()
    raise AssertionError("it ended")


def last_words():
    """What the run that was made last tells the station of the one before."""
    booted = [event for event in badges[-1].uplink.outbox.events if event.kind == kinds.BOOTED][-1]
    return events.unpack_booted(booted.body)


class Hung:
    """From `after` ms on, one task waits for what never comes."""

    def __init__(self, owner, name, after):
        self.owner, self.name, self.after = owner, name, after

    def __enter__(self):
        self.real = real = getattr(self.owner, self.name)
        begun = Time.now
        after = self.after

        async def hang(part, *args):
            alive = args[-1]

            def until_then():
                if Time.now - begun < after:
                    alive()

            if after == 0:
                await asyncio.Event().wait()
            # it goes on working, and is not seen any more: to the supervisor the same
            await real(part, *args[:-1], until_then)

        setattr(self.owner, self.name, hang)

    def __exit__(self, *error):
        setattr(self.owner, self.name, self.real)


def test_while_every_task_comes_round_the_watchdog_is_fed_every_second():
    assert live(60000) is Over
    gaps = [after - before for before, after in zip(Watchdog.fed, Watchdog.fed[1:])]
    assert len(gaps) >= 55 and max(gaps) <= 1500, (len(gaps), max(gaps))
    assert Retained().last_words()[0] == 0


def test_whichever_task_hangs_the_badge_is_reset_and_its_last_words_name_it():
    assert [name for name, _, _ in TASKS] == list(restart.TASKS[1:-1])
    for number in range(1, len(TASKS) + 1):
        name, owner, method = TASKS[number - 1]
        for after in (0, 20000):
            with Hung(owner, method, after):
                begun = Time.now
                assert live(60000) is Bitten, name
            starved = Watchdog.fed[-1] - begun
            # once it had not come round for six seconds it was not fed any more, and not a second later
            assert after + 4000 <= starved <= after + 8500, (name, after, starved)
            badges.clear()
            assert live(3000, WATCHDOG) is Over
            reset, cause, task, _, _, _, minutes, heap = last_words()
            assert (reset, cause, task) == (WATCHDOG, 0, number), (name, task)
            assert after == 0 or heap > 0  # the counters of the run that hung are there too
            assert restart.words(reset, cause, task, 0, 0, 0, minutes, heap).startswith("watchdog, task " + name)
            assert restart.worrying(reset, cause, task)
            # and they are said once
            badges.clear()
            live(3000, POWER_ON)
            assert last_words()[2] == 0


def test_a_task_that_comes_round_again_in_time_costs_nothing():
    class Slow(Hung):
        def __enter__(self):
            self.real = real = getattr(self.owner, self.name)
            begun = Time.now

            async def slow(part, *args):
                alive = args[-1]

                def sometimes():
                    if not 10000 < Time.now - begun < 14500:
                        alive()

                await real(part, *args[:-1], sometimes)

            setattr(self.owner, self.name, slow)

    with Slow(Console, "run", 0):
        assert live(40000) is Over
    assert Retained().last_words()[0] == 0


def test_a_task_that_dies_is_started_again_and_one_that_keeps_dying_ends_in_a_reset_that_names_it():
    real = Battery.run
    deaths = []

    def dies(times):
        async def run(part, alive):
            if len(deaths) < times:
                deaths.append(Time.now)
                raise ValueError("a defect")
            await real(part, alive)

        return run

    try:
        Battery.run = dies(3)
        assert live(20000) is Over and len(deaths) == 3
        deaths.clear()
        Battery.run = dies(1000)
        assert live(20000) is SystemExit
        assert len(deaths) == 6
    finally:
        Battery.run = real
    badges.clear()
    assert live(3000, 2) is Over
    reset, cause, task = last_words()[:3]
    assert (reset, cause, task) == (2, 1, 4)
