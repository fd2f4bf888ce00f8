"""What a badge says of itself: why it began anew, that it sleeps, what it refuses, which group key it has."""

import json

from station_parts import Badge
from station_world import World

from protocol import beacon, downlink, events, kinds, relay, restart
from station import alarms, downlinks, enrol, views
from station.audit import verify
from station.model import Audit, Supervision


def _open(world: World, state: str) -> list[str]:
    with world.core.read() as db:
        rows = db.query(Supervision).filter_by(state=state, until=None)
        return [str(views.supervision(row)["text"]) for row in rows if row.what.startswith("badge:")]


def _booted(badge: Badge, *, reset: int = 1, cause: int = 0, task: int = 0, minutes: int = 0) -> events.Event:
    return badge.event(kinds.BOOTED, body=events.pack_booted(reset, cause, task, 3, 1, 2, minutes, 9000))


def test_last_words_are_in_the_log_and_shown_where_nobody_wanted_the_restart(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, _booted(badge)))
    assert _open(world, "restarted") == []
    badge.restart()
    bitten = _booted(badge, reset=3, task=restart.TASKS.index("send"), minutes=61)
    for _ in range(2):
        world.say(hub, hub.event(badge, bitten))
    (text,) = _open(world, "restarted")
    assert text.startswith("watchdog, task send; before it 61 min, 3 faults, 1 in the radio's handler")
    with world.core.read() as db:
        said = [json.loads(row.detail)["why"] for row in db.query(Audit).filter_by(what="badge restarted")]
        assert verify(db).whole
    assert len(said) == 2
    assert said[0].startswith("power was switched on")
    world.pass_time(86460, 60)
    assert _open(world, "restarted") == []


def test_last_words_that_are_none_retire_the_event_and_change_nothing(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.BOOTED, body=b"\x01")))
    assert world.down(hub)[-1].type == relay.REJECTED
    assert _open(world, "restarted") == []


def test_a_badge_that_sleeps_is_not_lost_until_it_wakes(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.status(badge, badge.status()), "status")
    world.say(hub, hub.event(badge, badge.event(kinds.OFF_DUTY)))
    world.pass_time(1)
    world.say(hub, hub.status(badge, badge.status()), "status")  # it was still talking
    assert len(_open(world, "off_duty")) == 1
    world.pass_time(world.config.supervision.lost_idle + 120, 60)
    assert _open(world, "lost") == []
    badge.restart()
    world.say(hub, hub.status(badge, badge.status()), "status")
    assert _open(world, "off_duty") == []
    world.pass_time(world.config.supervision.lost_idle + 120, 60)
    assert len(_open(world, "lost")) == 1


def test_a_badge_that_sleeps_in_a_visit_is_missed_all_the_same(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.VISIT_START, body=events.pack_visit(0, bytes(8), 60000, 60, 60))))
    world.say(hub, hub.event(badge, badge.event(kinds.OFF_DUTY)))
    world.pass_time(world.config.supervision.lost + 60, 10)
    assert len(_open(world, "lost")) == 1


def test_settings_that_a_badge_refuses_are_shown_and_not_sent_for_ever(world: World) -> None:
    badge, hub = world.badge(hold_to_sos=2.0), world.hub()

    def sent() -> int:
        return sum(m.type == downlink.SETTINGS for m in world.told(hub, badge))

    world.say(hub, hub.status(badge, badge.status()), "status")
    assert sent() == 1
    for _ in range(3):
        world.say(hub, hub.status(badge, badge.status(refused=1)), "status")
    assert sent() == 1
    assert _open(world, "settings_refused") == ["it does not take its settings (version 1)"]
    with world.core.work() as work:
        row = work.badge(badge.number)
        assert row is not None
        enrol.change_settings(work, "op1", row, {"hold_to_sos": 1.0})
    world.say(hub, hub.status(badge, badge.status(refused=1)), "status")
    assert sent() == 2
    world.say(hub, hub.status(badge, badge.status(settings=2)), "status")
    assert (sent(), _open(world, "settings_refused")) == (2, [])


def test_a_new_group_key_goes_to_hubs_at_once_and_sealed_to_badges_until_they_have_it(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    old = beacon.Group(badge.group)
    world.say(hub, hub.status(badge, badge.status(group=old.tag)), "status")
    assert not [m for m in world.told(hub, badge) if m.type == downlink.GROUP_KEY]
    with world.core.work() as work:
        enrol.new_group_key(work, "op1")
    given = [hub.keys(m.payload) for m in world.down(hub) if m.type == relay.KEYS][-1]
    assert given["group"][1] == badge.group.hex()
    world.say(hub, hub.status(badge, badge.status(group=old.tag)), "status")
    (message,) = [m for m in world.told(hub, badge) if m.type == downlink.GROUP_KEY]
    assert message.body.hex() == given["group"][0]
    world.say(hub, hub.status(badge, badge.status(group=beacon.Group(message.body).tag)), "status")
    assert len([m for m in world.told(hub, badge) if m.type == downlink.GROUP_KEY]) == 1
    # one that was replaced is accepted for ninety days more
    world.clock.advance(89 * 86400.0)
    world.say(hub, hub.hello(), "hello")
    assert len([hub.keys(m.payload) for m in world.down(hub) if m.type == relay.KEYS][-1]["group"]) == 2
    world.clock.advance(2 * 86400.0)
    world.say(hub, hub.hello(), "hello")
    assert len([hub.keys(m.payload) for m in world.down(hub) if m.type == relay.KEYS][-1]["group"]) == 1


def test_an_alarm_of_a_badge_that_lost_power_is_of_now_and_uncertain(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.SOS, age_ms=events.AGE_MAX)))
    (alarm,) = world.alarms()
    assert alarm["uncertain"]
    assert abs(alarm["raised_at"] - world.clock.now()) < 1
    assert alarm["escalation"] is None


def test_an_incident_is_young_for_half_an_hour(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(hub, hub.event(badge, sos))
    for minutes, young in ((1, True), (25, True), (10, False)):
        world.clock.advance(60.0 * minutes)
        world.say(hub, hub.status(badge, badge.status(incident=sos.ident)), "status")
        proof = [m for m in world.told(hub, badge) if m.type == downlink.PROOF][-1]
        assert bool(downlink.unpack_state(proof.body)[2] & downlink.YOUNG) == young


def test_a_press_after_the_closing_is_one_new_alarm_whichever_way_it_comes_first(world: World) -> None:
    for first in ("beacon", "envelope"):
        badge, hub = world.badge(), world.hub()
        sos = badge.event(kinds.SOS)
        world.say(hub, hub.event(badge, sos))
        world.operator("op1")
        with world.core.work() as work:
            alarm = downlinks.find_alarm(work, badge.number, sos.ident)
            assert alarm is not None
            alarms.claim(work, alarm, "op1")
            alarms.close(work, alarm, "op1", "training", "spoke_to_wearer")
        world.pass_time(5)
        again = badge.event(kinds.SOS, incident=sos.ident)
        ways = [(hub.beacon(badge, again), "event"), (hub.event(badge, again), "event")]
        for data, kind in ways if first == "beacon" else ways[::-1]:
            world.say(hub, data, kind)
        mine = [a for a in world.alarms() if a["badge"] == badge.number]
        assert len([a for a in mine if a["closed_at"] is None]) == 1, first
        assert len(mine) == 2, first
        # and the badge, which knows the incident by its old name, is told of the new alarm
        world.say(hub, hub.status(badge, badge.status(incident=sos.ident)), "status")
        proof = [m for m in world.told(hub, badge) if m.type == downlink.PROOF][-1]
        assert downlink.unpack_state(proof.body)[1] == kinds.RECEIVED, first
