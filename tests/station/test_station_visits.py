"""Visits: the station's own clock decides, whatever happens to badge and hub."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from station_parts import Badge
from station_world import World, visit_body

from protocol import downlink, events, kinds
from station import alarms, visits
from station.model import Visit


def _plan(world: World, badge: Badge, **wanted: Any) -> dict[str, Any]:
    with world.core.work() as work:
        row = work.badge(badge.number)
        assert row is not None
        visits.plan(work, "op1", row, {"minutes": 10, "grace": 1, **wanted})
    return world.visits(badge)[-1]


def _by_operator(world: World, badge: Badge, what: str) -> None:
    with world.core.work() as work:
        visit = work.db.get_one(Visit, world.visits(badge)[-1]["id"])
        visits.by_operator(work, "op1", visit, what)


def test_an_overdue_visit_alarms_by_the_stations_clock_alone(world: World) -> None:
    badge = world.badge()
    visit = _plan(world, badge)
    start = world.clock.now()
    world.pass_time(659, step=7)
    assert world.alarms() == []
    world.pass_time(2)
    (alarm,) = world.alarms()
    assert (alarm["kind"], alarm["via"], alarm["identity"], alarm["incident"]) == (
        "missed_check_in",
        "station",
        f"station/{visit['id']}",
        f"station-{visit['id']}",
    )
    assert alarm["raised_at"] == pytest.approx(start + 660)
    assert world.visits(badge)[0]["state"] == "overdue"


def test_a_deadline_survives_the_restart_of_the_station(world: World) -> None:
    badge = world.badge()
    _plan(world, badge)
    world.clock.advance(3600)
    world.restart()
    world.pass_time(1)
    assert world.alarms()[0]["raised_at"] == pytest.approx(world.clock.now() - 3600 - 1 + 660)


def test_a_check_in_restarts_the_whole_interval_from_when_it_was_done(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.clock.advance(500)
    done = world.clock.now() - 40
    check_in = badge.event(kinds.CHECK_IN, body=visit_body(visit["id"]), age_ms=10_000)
    for _ in range(2):
        world.say(hub, hub.event(badge, check_in, held_ms=30_000))
    after = world.visits(badge)[0]
    assert after["due_at"] == pytest.approx(done + 600)
    assert after["checked_in_at"] == pytest.approx([done])


def test_a_check_in_by_beacon_counts_and_its_envelope_does_not_count_again(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.clock.advance(300)
    check_in = badge.event(kinds.CHECK_IN, body=visit_body(visit["id"]))
    world.say(hub, hub.beacon(badge, check_in))
    due = world.visits(badge)[0]["due_at"]
    assert due == pytest.approx(world.clock.now() + 600)
    world.clock.advance(2)
    world.say(hub, hub.event(badge, check_in))
    after = world.visits(badge)[0]
    assert (len(after["checked_in_at"]), after["due_at"]) == (1, due)


def test_a_duress_check_in_restarts_the_timer_like_the_real_one_and_alarms(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.clock.advance(300)
    body = events.pack_duress(kinds.CHECK_IN, visit_body(visit["id"]))
    world.say(hub, hub.event(badge, badge.event(kinds.DURESS, body=body)))
    assert world.visits(badge)[0]["due_at"] == pytest.approx(world.clock.now() + 600)
    (alarm,) = world.alarms()
    assert (alarm["kind"], alarm["visit"]) == ("duress", visit["id"])


def test_extending_adds_and_is_capped(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    due = visit["due_at"]
    for number in range(1, 7):
        world.clock.advance(1)
        world.say(hub, hub.beacon(badge, badge.event(kinds.EXTEND)))
        after = world.visits(badge)[0]
        assert after["due_at"] == pytest.approx(due + 900 * min(number, 4))
    assert world.counted("extension refused") == 2


def test_a_visit_begins_on_the_badge_and_the_badge_learns_its_number(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    start = badge.event(kinds.VISIT_START, age_ms=2000)
    start.body = visit_body(0, start.ident, 1800, 1800, 120)
    world.say(hub, hub.event(badge, start))
    (visit,) = world.visits(badge)
    assert (visit["origin"], visit["minutes"], visit["grace"], visit["state"]) == ("badge", 30, 2, "running")
    assert visit["due_at"] == pytest.approx(world.clock.now() - 2 + 1800)
    world.say(hub, hub.status(badge, badge.status()), "status")
    order = downlink.unpack_visit([m for m in world.told(hub, badge) if m.type == downlink.VISIT][-1].body)
    assert order[:2] == (visit["id"], start.ident)
    assert order[3:5] == (1_800_000, 120_000)
    before = len([m for m in world.told(hub, badge) if m.type == downlink.VISIT])
    world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    assert len([m for m in world.told(hub, badge) if m.type == downlink.VISIT]) == before


def test_a_planned_visit_arms_the_badge_when_it_begins(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.status(badge, badge.status()), "status")
    visit = _plan(world, badge, starts_in=1)
    assert visit["state"] == "planned"
    world.pass_time(58)
    assert not [m for m in world.told(hub, badge) if m.type == downlink.VISIT]
    world.say(hub, hub.status(badge, badge.status()), "status")
    world.pass_time(3)
    order = [m for m in world.told(hub, badge) if m.type == downlink.VISIT]
    assert downlink.unpack_visit(order[0].body)[0] == visit["id"]
    armed = badge.event(kinds.VISIT_ARMED, body=visit_body(visit["id"]))
    world.say(hub, hub.event(badge, armed))
    assert world.visits(badge)[0]["armed_at"] is not None
    world.pass_time(30)
    assert not _open_entries(world)


def _open_entries(world: World) -> list[tuple[str, str]]:
    from station.console.api import all_supervision

    with world.core.read() as db:
        return [(e["what"], e["state"]) for e in all_supervision(db, only_open=True)]


def test_a_badge_that_is_silent_at_the_start_is_said_to_be_unprotected_and_the_timer_runs(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.pass_time(16)
    assert (f"badge:{badge.number}", "not_protected") in _open_entries(world)
    world.say(hub, hub.status(badge, badge.status()), "status")
    world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    assert (f"badge:{badge.number}", "not_protected") not in _open_entries(world)
    assert world.visits(badge)[0]["armed_at"] is not None


def test_a_badge_that_was_heard_but_does_not_arm_is_told_that_it_is_not_protected(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.status(badge, badge.status()), "status")
    visit = _plan(world, badge)
    world.pass_time(16)
    (told,) = [m for m in world.told(hub, badge) if m.type == downlink.NOT_PROTECTED]
    assert int.from_bytes(told.body, "big") == visit["id"]


@pytest.mark.parametrize("badge_first", [True, False])
def test_a_miss_on_the_badge_and_at_the_station_is_one_alarm(world: World, badge_first: bool) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    missed = badge.event(kinds.MISSED_CHECK_IN, body=visit_body(visit["id"]))
    world.pass_time(659 if badge_first else 661, step=10)
    world.say(hub, hub.event(badge, missed))
    world.pass_time(5)
    (alarm,) = world.alarms()
    assert alarm["kind"] == "missed_check_in"
    assert (alarm["via"] == "station") is not badge_first
    world.operator("op1")
    with world.core.work() as work:
        row = work.alarm(alarm["id"])
        assert row is not None
        alarms.claim(work, row, "op1")
    assert world.states(hub, badge) == [(missed.ident, kinds.CLAIMED, 0)]


def test_a_check_in_that_comes_after_the_alarm_runs_the_timer_on_and_closes_nothing(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.pass_time(670, step=10)
    world.say(hub, hub.event(badge, badge.event(kinds.CHECK_IN, body=visit_body(visit["id"]))))
    after = world.visits(badge)[0]
    assert (after["state"], after["overdue_at"]) == ("running", None)
    assert world.alarms()[0]["open"]
    world.pass_time(670, step=10)
    (alarm,) = world.alarms()
    assert "missed once more" in alarm["escalation"]


def test_a_second_miss_rings_again_where_the_first_is_claimed(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.operator("op1")
    world.pass_time(670, step=10)
    for _ in range(2):
        with world.core.work() as work:
            alarms.tick(work, "op1")
            row = work.alarm(1)
            assert row is not None
            alarms.claim(work, row, "op1")
        assert not world.alarms()[0]["new_signal"]
        world.say(hub, hub.event(badge, badge.event(kinds.CHECK_IN, body=visit_body(visit["id"]))))
        for _ in range(67):
            with world.core.work() as work:
                alarms.tick(work, "op1")
            world.pass_time(10, step=10)
        (alarm,) = world.alarms()
        assert (alarm["new_signal"], alarm["owner"]) == (True, "op1")


def test_ending_stops_the_timer(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, body=visit_body(visit["id"]))))
    world.pass_time(2000, step=60)
    assert world.alarms() == []
    assert world.visits(badge)[0]["state"] == "ended"


def test_an_operator_acts_for_a_wearer_on_the_telephone_and_the_badge_hears_of_it(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.status(badge, badge.status()), "status")
    visit = _plan(world, badge)
    world.clock.advance(100)
    world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    _by_operator(world, badge, "extend")
    for _ in range(5):
        world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    orders = [downlink.unpack_visit(m.body) for m in world.told(hub, badge) if m.type == downlink.VISIT]
    assert [o[2] for o in orders[-4:]] == [1_400_000] * 4
    _by_operator(world, badge, "end")
    world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    ended = [downlink.unpack_visit(m.body) for m in world.told(hub, badge) if m.type == downlink.VISIT][-1]
    assert ended[5] & downlink.VISIT_ENDED
    with pytest.raises(alarms.Refused):
        _by_operator(world, badge, "end")


@pytest.mark.parametrize(
    "wanted", [{"minutes": 0}, {"minutes": "soon"}, {"grace": -1}, {"minutes": 1e9}, {"place": "x" * 300}]
)
def test_a_visit_that_makes_no_sense_is_refused_with_a_sentence(world: World, wanted: dict[str, Any]) -> None:
    with pytest.raises(alarms.Invalid):
        _plan(world, world.badge(), **wanted)


def test_a_new_visit_ends_the_one_before_and_keeps_its_alarm(world: World) -> None:
    badge = world.badge()
    _plan(world, badge)
    world.pass_time(700, step=20)
    _plan(world, badge)
    first, second = world.visits(badge)
    assert (first["state"], second["state"]) == ("ended", "running")
    assert world.alarms()[0]["open"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([0, 1, 2, 3, 4]))
def test_the_timer_does_not_depend_on_the_order_of_arrival(shared_world: World, order: list[int]) -> None:
    world = shared_world
    badge, hub = world.badge(), world.two_hubs[0]
    began = world.clock.now()
    start = badge.event(kinds.VISIT_START)
    start.body = visit_body(0, start.ident, 600, 600, 60)
    # what happened at 0, 100, 200, 300, 400 s; the last is an extension by 15 min of what was left, 500 s
    story = [(0, start)]
    for at, kind in ((100, kinds.CHECK_IN), (200, kinds.CHECK_IN), (300, kinds.CHECK_IN)):
        story.append((at, badge.event(kind, body=visit_body(0, start.ident))))
    story.append((400, badge.event(kinds.EXTEND, body=visit_body(0, start.ident, 1400))))
    world.clock.advance(450)
    for index in order:
        at, event = story[index]
        event.age_ms = round((world.clock.now() - began - at) * 1000)
        world.say(hub, hub.event(badge, event))
    (visit,) = world.visits(badge)
    assert visit["due_at"] == pytest.approx(began + 400 + 1400, abs=0.01)
    assert visit["started_at"] == pytest.approx(began, abs=0.01)


def test_supervision_says_within_ninety_seconds_that_a_badge_on_a_visit_went_quiet(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.status(badge, badge.status()), "status")
    visit = _plan(world, badge, minutes=60)
    world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    world.pass_time(89)
    assert (f"badge:{badge.number}", "lost") not in _open_entries(world)
    world.pass_time(3)
    assert (f"badge:{badge.number}", "lost") in _open_entries(world)
    world.say(hub, hub.status(badge, badge.status(visit=visit["id"])), "status")
    assert (f"badge:{badge.number}", "lost") not in _open_entries(world)


def test_low_batteries_are_entries_until_they_are_charged(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    for percent, states in ((50, set()), (19, {"battery_low"}), (9, {"battery_low", "battery_critical"}), (60, set())):
        badge.battery = percent
        world.say(hub, hub.status(badge, badge.status()), "status")
        assert {s for w, s in _open_entries(world) if w == f"badge:{badge.number}"} == states


@pytest.mark.parametrize("forced", [False, True])
def test_a_hold_of_the_side_button_ends_the_visit_and_restarts_no_timer_forced_or_not(
    world: World, forced: bool
) -> None:
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.clock.advance(300)
    body = visit_body(visit["id"])
    if forced:
        first = badge.event(kinds.DURESS, body=events.pack_duress(kinds.VISIT_END, body))
    else:
        first = badge.event(kinds.CHECK_IN, body=bytes((kinds.VISIT_END,)))
    end = badge.event(kinds.VISIT_END, body=body)
    world.say(hub, hub.event(badge, first))
    world.say(hub, hub.event(badge, end))
    (after,) = world.visits(badge)
    assert (after["checked_in_at"], after["due_at"]) == ([], visit["due_at"])
    assert after["ended_at"] is not None
    assert [alarm["kind"] for alarm in world.alarms()] == (["duress"] if forced else [])


def test_out_of_reach_the_end_of_a_visit_counts_as_a_check_in_until_its_envelope_comes(world: World) -> None:
    """A beacon has no room to say what the check-in goes before."""
    badge, hub = world.badge(), world.hub()
    visit = _plan(world, badge)
    world.clock.advance(300)
    first = badge.event(kinds.CHECK_IN, body=bytes((kinds.VISIT_END,)))
    world.say(hub, hub.beacon(badge, first))
    (after,) = world.visits(badge)
    assert after["due_at"] == pytest.approx(world.clock.now() + 600)
    assert after["ended_at"] is None
    world.clock.advance(60)
    world.say(hub, hub.event(badge, first))
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_END, body=visit_body(visit["id"]))))
    (after,) = world.visits(badge)
    assert after["ended_at"] is not None
    assert not world.alarms()
