"""The machine's clock is set anew under a running station: no timer is late for it, and somebody is told."""

import pytest
from station_world import World

from protocol import kinds
from station import alarms, timers, visits
from station.clock import STEP_S, ManualClock, SystemClock


class Machine:
    """A world whose station reads a wall clock that can be set and a monotonic one that cannot."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steady = ManualClock(1000.0)
        world.core.clock = SystemClock(world.clock.now, self.steady.now)

    def pass_time(self, seconds: int) -> None:
        """Both go on."""
        for _ in range(0, seconds, 5):
            self.world.clock.advance(5)
            self.steady.advance(5)
            timers.step(self.world.core)
        timers.supervise(self.world.core)

    def entries(self) -> list[tuple[float | None, str]]:
        """What consoles were told of the station's clock: the end, and the words."""
        told = [n.data for n in self.world.notices if n.event == "device" and n.data["state"] == "clock_stepped"]
        return [(e["until"], e["text"]) for e in told]


@pytest.fixture
def machine(world: World) -> Machine:
    """A station on such a machine."""
    return Machine(world)


@pytest.mark.parametrize("at", [300, 1855])  # within the interval, and within the grace
def test_no_overdue_alarm_is_late_when_the_clock_is_set_back(machine: Machine, at: int) -> None:
    world, badge = machine.world, machine.world.badge()
    with world.core.work() as work:
        row = work.badge(badge.number)
        assert row is not None
        visits.plan(work, "op1", row, {"minutes": 30, "grace": 1})
    machine.pass_time(at)
    world.clock.advance(-3600)
    machine.pass_time(1855 - at)
    assert world.alarms(badge) == []
    machine.pass_time(10)
    assert [a["kind"] for a in world.alarms(badge)] == ["missed_check_in"]
    ((until, text),) = machine.entries()
    assert until is None
    assert "set back by 3600 s" in text


def test_a_dead_console_is_noticed_when_the_clock_is_set_back(machine: Machine) -> None:
    world, badge, hub = machine.world, machine.world.badge(), machine.world.hub()
    world.operator("op1")
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    with world.core.work() as work:
        alarm = work.alarm(1)
        assert alarm is not None
        alarms.claim(work, alarm, "op1")
    world.clock.advance(-3600)
    machine.pass_time(35)
    assert world.alarms(badge)[0]["owner"] is None


def test_a_station_that_starts_with_its_clock_behind_what_it_stored_says_so(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.status(badge, badge.status()), "status")
    for back, entries in ((0, 0), (STEP_S / 2, 0), (3600, 1)):
        world.clock.advance(-back)
        world.restart()
        world.notices.clear()
        timers.timers(world.core)._act()
        assert len(Machine(world).entries()) == entries
    assert "3601 s ahead of the machine's clock" in Machine(world).entries()[0][1]


def test_a_clock_set_ahead_is_followed_and_told_and_the_entry_ends_after_a_day(machine: Machine) -> None:
    machine.pass_time(10)
    assert machine.entries() == []
    machine.world.clock.advance(600)
    machine.pass_time(10)
    assert machine.world.core.clock.now() == machine.world.clock.now()
    assert [text for until, text in machine.entries() if until is None] == [
        "the machine's clock went ahead by 600 s at once: visits and alarms look older than they are"
    ]
    for clock in (machine.world.clock, machine.steady):
        clock.advance(90_000)
    machine.pass_time(5)
    assert machine.entries()[-1][0] is not None
    assert len(machine.entries()) == 2


def test_time_never_goes_back_and_is_the_machines_again_once_that_has_caught_up() -> None:
    wall, steady = ManualClock(), ManualClock(5.0)
    clock = SystemClock(wall.now, steady.now)
    before = clock.now()
    for jump in (-3600, 0, 100, -STEP_S / 2, -50, 0, 1):
        wall.advance(jump)
        for each in (wall, steady):
            each.advance(10)
        after = clock.now()
        assert after >= before + 10 - STEP_S
        before = after
    assert clock.now() > wall.now() + 3000
    wall.advance(4000)
    assert clock.now() == wall.now()
    assert clock.stepped() == pytest.approx(-3600 + 100 - 50 + 4000)
    assert clock.stepped() == 0
    wall.advance(-STEP_S / 2)  # what a time server corrects in passing is followed
    assert clock.now() == wall.now()
