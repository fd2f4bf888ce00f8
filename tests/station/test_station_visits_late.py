"""What comes late about visits: no order of arrival leaves a wearer without a timer."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from station_parts import Badge
from station_world import World, visit_body

from protocol import downlink, events, kinds
from station import alarms, visits
from station.model import Visit


def _plan(world: World, badge: Badge, minutes: float = 30, grace: float = 1, **wanted: object) -> int:
    with world.core.work() as work:
        row = work.badge(badge.number)
        assert row is not None
        visit = visits.plan(work, "op1", row, {"minutes": minutes, "grace": grace, **wanted})
        return visit.id


def _old_visit(badge: Badge) -> dict[int, events.Event]:
    """A visit of an hour that was begun on the badge three hours ago and ended after half an hour."""
    start = badge.event(kinds.VISIT_START, age_ms=3 * 3_600_000)
    start.body = visit_body(0, start.ident, 3600, 3600, 60)
    end = badge.event(kinds.VISIT_END, body=visit_body(0, start.ident, 1800, 3600, 60), age_ms=9_000_000)
    return {kinds.VISIT_START: start, kinds.VISIT_END: end}


def _overdue_in_the_end(world: World, badge: Badge, visit: int) -> bool:
    world.pass_time(3 * 3600, step=5)
    return [(a["kind"], a["visit"], a["open"]) for a in world.alarms(badge)] == [("missed_check_in", visit, True)]


@pytest.mark.parametrize("held", [False, True], ids=["by age", "held by a hub"])
@pytest.mark.parametrize(
    "order",
    [o for n in (1, 2) for o in itertools.permutations((kinds.VISIT_START, kinds.VISIT_END), n)],
    ids=lambda order: "-".join(kinds.name(kind) for kind in order),
)
def test_an_old_visit_that_comes_late_leaves_the_running_one_alone(
    world: World, order: tuple[int, ...], held: bool
) -> None:
    badge, hub = world.badge(), world.hub()
    planned = _plan(world, badge)
    world.say(hub, hub.status(badge, badge.status()), "status")
    world.pass_time(300)
    before = world.visits(badge)[0]
    story = _old_visit(badge)
    for kind in order:
        event = story[kind]
        waited, event.age_ms = (event.age_ms, 0) if held else (0, event.age_ms)
        world.say(hub, hub.event(badge, event, held_ms=waited))
    running, *old = world.visits(badge)
    assert (running["id"], running["state"], running["due_at"]) == (planned, "running", before["due_at"])
    began = world.clock.now() - 3 * 3600
    # its own end where that is known, otherwise the beginning of the visit that came after it
    ended = began + 1800 if kinds.VISIT_END in order else running["started_at"]
    if kinds.VISIT_START in order:
        assert [(v["state"], v["started_at"], v["ended_at"]) for v in old] == [("ended", began, ended)]
    world.say(hub, hub.status(badge, badge.status(visit=planned)), "status")
    orders = [downlink.unpack_visit(m.body) for m in world.told(hub, badge) if m.type == downlink.VISIT]
    assert all(o[0] == planned and not o[5] & downlink.VISIT_ENDED for o in orders)
    assert _overdue_in_the_end(world, badge, planned)


def test_an_old_visit_that_comes_after_the_end_of_the_badges_next_one_raises_nothing(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    story = _old_visit(badge)
    later = badge.event(kinds.VISIT_START, age_ms=3_600_000)
    later.body = visit_body(0, later.ident, 3600, 3600, 60)
    world.say(hub, hub.event(badge, later))
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, body=visit_body(0, later.ident))))
    world.say(hub, hub.event(badge, story[kinds.VISIT_START]))
    world.pass_time(3600, step=10)
    assert [v["state"] for v in world.visits(badge)] == ["ended", "ended"]
    assert world.alarms(badge) == []


def test_an_old_visit_is_watched_where_only_the_station_began_and_ended_a_later_one(world: World) -> None:
    """The badge never heard of the planned one: for all that is known its wearer is still on the first."""
    badge, hub = world.badge(), world.hub()
    planned = _plan(world, badge)
    world.pass_time(60)
    with world.core.work() as work:
        visits.by_operator(work, "op1", work.db.get_one(Visit, planned), "end")
    start = badge.event(kinds.VISIT_START, age_ms=600_000)
    start.body = visit_body(0, start.ident, 3600, 3600, 60)
    world.say(hub, hub.event(badge, start))
    assert [v["state"] for v in world.visits(badge)] == ["ended", "running"]
    assert _overdue_in_the_end(world, badge, world.visits(badge)[1]["id"])


def test_a_start_whose_time_nobody_knows_ends_no_other_visit(world: World) -> None:
    """A badge that lost its power since does not know how long ago that was."""
    badge, hub = world.badge(), world.hub()
    planned = _plan(world, badge)
    world.pass_time(300)
    story = _old_visit(badge)
    for event in story.values():
        event.age_ms = events.AGE_MAX
    world.say(hub, hub.event(badge, story[kinds.VISIT_START]))
    assert [v["state"] for v in world.visits(badge)] == ["running", "running"]
    world.say(hub, hub.event(badge, story[kinds.VISIT_END]))
    assert [v["state"] for v in world.visits(badge)] == ["running", "ended"]
    assert _overdue_in_the_end(world, badge, planned)


@pytest.mark.parametrize("old", [True, False])
def test_the_envelope_of_a_start_says_which_of_two_visits_goes_on(world: World, old: bool) -> None:
    badge, hub = world.badge(), world.hub()
    _plan(world, badge)
    world.pass_time(300)
    start = badge.event(kinds.VISIT_START)
    start.body = visit_body(0, start.ident, 3600, 3600, 60)
    world.say(hub, hub.beacon(badge, start))
    assert [v["state"] for v in world.visits(badge)] == ["running", "running"]
    start.age_ms = 3 * 3_600_000 if old else 1000
    world.say(hub, hub.event(badge, start))
    assert [v["state"] for v in world.visits(badge)] == (["running", "ended"] if old else ["ended", "running"])


def test_an_end_that_names_no_visit_ends_none_that_began_after_it(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    _plan(world, badge)
    world.pass_time(300)
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, age_ms=3_600_000)))
    assert world.visits(badge)[0]["state"] == "running"
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END)))
    assert world.visits(badge)[0]["state"] == "ended"


def test_an_old_visit_does_not_settle_that_the_running_one_is_not_protected(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    _plan(world, badge)
    world.pass_time(16)
    for event in _old_visit(badge).values():
        world.say(hub, hub.event(badge, event))
    entries = [n.data for n in world.notices if n.event == "device" and n.data["state"] == "not_protected"]
    assert [e["until"] for e in entries] == [None]


def test_a_visit_is_not_planned_into_the_past_of_a_running_one(world: World) -> None:
    badge = world.badge()
    _plan(world, badge)
    world.pass_time(10)
    with pytest.raises(alarms.Invalid, match="began after that"):
        _plan(world, badge, starts_at=world.clock.now() - 600)
    assert [v["state"] for v in world.visits(badge)] == ["running"]


# --- a clock that was set back, and a station that began anew with it -------------------------------------------


def _begin(world: World, badge: Badge, how: str) -> int:
    """A visit of 30 minutes and one of grace; its number."""
    if how == "planned":
        return _plan(world, badge)
    hub = world.hub()
    start = badge.event(kinds.VISIT_START, age_ms=1000)
    start.body = visit_body(0, start.ident, 1800, 1800, 60)
    world.say(hub, hub.event(badge, start))
    return int(world.visits(badge)[-1]["id"])


def _overdue_once(world: World, badge: Badge, visit: int) -> None:
    world.pass_time(1850, step=10)
    assert world.alarms(badge) == []
    world.pass_time(15)
    assert [(a["kind"], a["visit"]) for a in world.alarms(badge)] == [("missed_check_in", visit)]


@pytest.mark.parametrize("ended", [True, False], ids=["ended before", "still running"])
@pytest.mark.parametrize("second", ["planned", "begun on the badge"])
@pytest.mark.parametrize("first", ["planned", "begun on the badge"])
def test_a_visit_of_before_the_clock_was_set_back_ends_none_that_begins_after(
    world: World, first: str, second: str, ended: bool
) -> None:
    badge, hub = world.badge(), world.hub()
    old = _begin(world, badge, first)
    world.say(hub, hub.status(badge, badge.status(visit=old)), "status")
    world.pass_time(60)
    if ended:
        world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, body=visit_body(old))))
    world.clock.advance(-3600)
    world.restart()
    visit = _begin(world, badge, second)
    assert [v["state"] for v in world.visits(badge)] == ["ended", "running"]
    world.say(hub, hub.status(badge, badge.status(visit=old)), "status")
    orders = [downlink.unpack_visit(m.body) for m in world.told(hub, badge) if m.type == downlink.VISIT]
    assert (orders[-1][0], orders[-1][5] & downlink.VISIT_ENDED) == (visit, 0), "the badge is told of its new visit"
    _overdue_once(world, badge, visit)


def test_once_the_clock_has_caught_up_the_visit_of_before_still_ends_none(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    old = _begin(world, badge, "begun on the badge")
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, body=visit_body(old))))
    world.clock.advance(-3600)
    world.restart()
    middle = _plan(world, badge)
    world.pass_time(60)
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, body=visit_body(middle))))
    world.pass_time(3600, step=10)
    late = badge.event(kinds.VISIT_START, age_ms=600_000)  # it began before the time that the first one was given
    late.body = visit_body(0, late.ident, 1800, 1800, 60)
    world.say(hub, hub.event(badge, late))
    assert [v["state"] for v in world.visits(badge)] == ["ended", "ended", "running"]


def test_an_old_start_that_comes_late_ends_no_visit_of_before_the_clock_was_set_back(world: World) -> None:
    """Which of the two began last nobody can say: both timers run."""
    badge, hub = world.badge(), world.hub()
    running = _plan(world, badge)
    world.say(hub, hub.status(badge, badge.status(visit=running)), "status")
    world.clock.advance(-3600)
    world.restart()
    story = _old_visit(badge)
    world.say(hub, hub.event(badge, story[kinds.VISIT_START]))
    assert [v["state"] for v in world.visits(badge)] == ["running", "running"]
    world.say(hub, hub.event(badge, story[kinds.VISIT_END]))
    assert [v["state"] for v in world.visits(badge)] == ["running", "ended"]
    world.pass_time(3600 + 1870, step=10)
    assert [(a["kind"], a["visit"]) for a in world.alarms(badge)] == [("missed_check_in", running)]


# --- misses -----------------------------------------------------------------------------------------------------


def _close_all(world: World, badge: Badge) -> None:
    world.operator("op1")
    with world.core.work() as work:
        for shown in world.alarms(badge):
            alarm = work.alarm(shown["id"])
            assert alarm is not None
            if alarm.closed_at is None:
                alarms.take_over(work, alarm, "op1")
                alarms.close(work, alarm, "op1", "resolved", "spoke_to_wearer")


def test_a_miss_that_comes_after_the_check_in_that_followed_it_leaves_the_next_deadline(world: World) -> None:
    badge, hub, slow = world.badge(), world.hub(), world.hub()
    visit = _plan(world, badge, minutes=10, grace=2)
    world.pass_time(710)  # of 720: the badge's clock is a little fast
    missed = badge.event(kinds.MISSED_CHECK_IN, body=visit_body(visit))
    world.pass_time(5)
    world.say(hub, hub.event(badge, badge.event(kinds.CHECK_IN, body=visit_body(visit))))
    world.pass_time(60)
    world.say(slow, slow.event(badge, missed, held_ms=65_000))
    assert [a["open"] for a in world.alarms(badge)] == [True]
    assert world.visits(badge)[0]["state"] == "running"
    _close_all(world, badge)
    world.pass_time(655, step=5)
    assert [a["open"] for a in world.alarms(badge)] == [False]
    world.pass_time(10)
    assert [a["open"] for a in world.alarms(badge)] == [False, True]


def test_a_miss_on_the_badge_before_an_operators_extension_was_heard_there_leaves_the_new_deadline(
    world: World,
) -> None:
    badge, hub = world.badge(), world.hub()
    number = _plan(world, badge, minutes=10, grace=2)
    world.pass_time(300)
    with world.core.work() as work:
        visits.by_operator(work, "op1", work.db.get_one(Visit, number), "extend")
    world.pass_time(421)
    world.say(hub, hub.event(badge, badge.event(kinds.MISSED_CHECK_IN, body=visit_body(number))))
    _close_all(world, badge)
    world.pass_time(900, step=5)
    assert [a["open"] for a in world.alarms(badge)] == [False, True]


def test_a_check_in_that_comes_late_after_its_own_deadline_alarms_again(world: World) -> None:
    """The wearer was well ten minutes after the alarm that was closed, and nothing has been heard since."""
    badge, hub = world.badge(), world.hub()
    number = _plan(world, badge, minutes=10, grace=1)
    world.pass_time(700, step=5)
    _close_all(world, badge)
    world.pass_time(3600, step=30)
    check_in = badge.event(kinds.CHECK_IN, body=visit_body(number), age_ms=3_000_000)
    world.say(hub, hub.event(badge, check_in))
    world.pass_time(1)
    assert [a["open"] for a in world.alarms(badge)] == [False, True]


_STEPS = ("miss", "check_in", "second_miss", "close", "wait")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.lists(st.sampled_from(_STEPS), min_size=2, max_size=9),
    early=st.integers(0, 59),
    pause=st.integers(0, 200),
    beacons=st.booleans(),
)
def test_whatever_comes_when_a_deadline_that_passes_is_an_alarm(
    shared_world: World, order: list[str], early: int, pause: int, beacons: bool
) -> None:
    """The badge misses, is checked in, and misses once more; all that in any order, repeated, and closed in between."""
    world = shared_world
    badge, hubs = world.badge(), world.two_hubs
    number = _plan(world, badge, minutes=10, grace=1)
    began = world.clock.now()
    story = {
        "miss": (660 - early, badge.event(kinds.MISSED_CHECK_IN, body=visit_body(number))),
        "check_in": (670, badge.event(kinds.CHECK_IN, body=visit_body(number))),
        "second_miss": (1330 - early, badge.event(kinds.MISSED_CHECK_IN, body=visit_body(number))),
    }
    world.pass_time(675, step=225)
    for index, step in enumerate(order):
        if step == "close":
            _close_all(world, badge)
        elif step == "wait":
            world.pass_time(pause, step=100)
        else:
            at, event = story[step]
            age = round((world.clock.now() - began - at) * 1000)
            if age < 0:
                continue  # it has not happened yet
            event.age_ms = age
            hub = hubs[index % 2]
            world.say(hub, hub.beacon(badge, event) if beacons and index % 3 == 0 else hub.event(badge, event))
    (visit,) = world.visits(badge)
    deadline = visit["due_at"] + 60
    closed = [a["closed_at"] for a in world.alarms(badge) if not a["open"]]
    world.clock.advance(max(deadline - world.clock.now(), 0))
    world.pass_time(1)
    # one is open, or was closed after the interval was over
    assert any(a["open"] for a in world.alarms(badge)) or any(at >= visit["due_at"] for at in closed)
    with world.core.work() as work:
        visits.by_operator(work, "op1", work.db.get_one(Visit, number), "end")
