"""Alarms in operators' hands: one owner, an honest promise to the wearer, and a closing that says how it ended."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import select
from station_parts import Badge, Hub
from station_world import World

from protocol import downlink, events, kinds
from station import alarms, audit
from station.model import Alarm, Audit
from station.queueing import open_first
from station.work import Work


@pytest.fixture
def sos(world: World) -> tuple[Badge, Hub]:
    """An open SOS, and two operators."""
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    world.operator("op1")
    world.operator("op2")
    return badge, hub


def _do(world: World, act: Callable[[Work, Alarm], None], alarm_id: int = 1) -> None:
    with world.core.work() as work:
        alarm = work.alarm(alarm_id)
        assert alarm is not None
        act(work, alarm)


def test_a_claim_has_one_owner_and_the_second_is_warned(world: World, sos: tuple[Badge, Hub]) -> None:
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    with pytest.raises(alarms.Refused, match="op1 has claimed") as refused:
        _do(world, lambda w, a: alarms.claim(w, a, "op2"))
    assert refused.value.owner == "op1"
    assert world.alarms()[0]["owner"] == "op1"


def test_a_takeover_is_explicit_and_logged_with_both_names(world: World, sos: tuple[Badge, Hub]) -> None:
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    first = world.alarms()[0]["claimed_at"]
    world.clock.advance(5)
    _do(world, lambda w, a: alarms.take_over(w, a, "op2", "end of shift"))
    alarm = world.alarms()[0]
    assert (alarm["owner"], alarm["claimed_at"]) == ("op2", first)
    with world.core.read() as db:
        row = db.scalars(select(Audit).where(Audit.what == "take over")).one()
        assert (row.who, json.loads(row.detail)["owner_before"]) == ("op2", "op1")


def test_each_step_of_custody_reaches_the_badge_at_once(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    _do(world, lambda w, a: alarms.listening(w, a, "op1"))
    _do(world, lambda w, a: alarms.close(w, a, "op1", "help_given", "safe_word"))
    assert world.states(hub, badge) == [
        (incident, kinds.CLAIMED, 0),
        (incident, kinds.LISTENING, 0),
        (incident, kinds.CLOSED, 0),
    ]


def test_custody_goes_out_by_every_hub_that_heard_the_badge_lately(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    other, silent = world.hub(), world.hub()
    world.say(silent, silent.status(badge, badge.status()), "status")
    world.clock.advance(60)
    world.say(hub, hub.status(badge, badge.status()), "status")
    world.say(other, other.beacon(badge, badge.event(kinds.SOS)), "event")
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    assert [len(world.states(h, badge)) for h in (hub, other, silent)] == [1, 1, 0]


def test_closing_needs_an_outcome_a_welfare_and_the_owner(world: World, sos: tuple[Badge, Hub]) -> None:
    with pytest.raises(alarms.Refused, match="claim the alarm before"):
        _do(world, lambda w, a: alarms.close(w, a, "op1", "help_given", "safe_word"))
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    for outcome, welfare in (("", "safe_word"), ("help_given", ""), ("fine", "safe_word"), ("help_given", "maybe")):
        with pytest.raises(alarms.Invalid, match="closing needs"):
            _do(world, lambda w, a, o=outcome, f=welfare: alarms.close(w, a, "op1", o, f))  # type: ignore[misc]
    with pytest.raises(alarms.Refused, match="op1 has claimed"):
        _do(world, lambda w, a: alarms.close(w, a, "op2", "help_given", "safe_word"))
    assert world.alarms()[0]["open"]
    _do(world, lambda w, a: alarms.close(w, a, "op1", "accidental", "confirmed", "pressed in the pocket"))
    alarm = world.alarms()[0]
    assert (alarm["open"], alarm["outcome"], alarm["welfare"]) == (False, "accidental", "spoke_to_wearer")
    with pytest.raises(alarms.Refused, match="closed"):
        _do(world, lambda w, a: alarms.claim(w, a, "op2"))


def test_a_dead_console_gives_the_alarm_back_and_the_badge_is_told_so(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    for _ in range(4):
        world.pass_time(10)
        world.say(hub, hub.status(badge, badge.status()), "status")
        with world.core.work() as work:
            alarms.tick(work, "op1")
    assert world.alarms()[0]["owner"] == "op1"
    world.pass_time(29)
    assert world.alarms()[0]["owner"] == "op1"
    world.pass_time(2)
    alarm = world.alarms()[0]
    assert (alarm["owner"], alarm["level"]) == (None, "received")
    assert "console of op1 is gone" in alarm["escalation"]
    assert alarm["claimed_at"] is not None
    incident = bytes(badge.boot) + b"\x00\x01"
    assert world.states(hub, badge)[-1] == (incident, kinds.RECEIVED, downlink.RETURNED)
    _do(world, lambda w, a: alarms.claim(w, a, "op2"))
    assert world.states(hub, badge)[-1] == (incident, kinds.CLAIMED, 0)
    assert world.alarms()[0]["escalation"] is None


def test_a_station_that_was_down_gives_consoles_their_time_again(world: World, sos: tuple[Badge, Hub]) -> None:
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    world.clock.advance(300)
    world.restart()
    world.pass_time(29)
    assert world.alarms()[0]["owner"] == "op1"
    world.pass_time(2)
    assert world.alarms()[0]["owner"] is None


def test_an_alarm_that_nobody_claims_is_escalated(world: World, sos: tuple[Badge, Hub]) -> None:
    world.pass_time(59)
    assert world.alarms()[0]["escalated_at"] is None
    world.pass_time(3)
    assert "nobody claimed it within 60 s" in world.alarms()[0]["escalation"]


def test_an_alarm_that_came_late_says_so(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.SOS), held_ms=3_600_000))
    alarm = world.alarms()[0]
    assert "3600 s after it was raised" in alarm["escalation"]
    assert alarm["raised_at"] == pytest.approx(world.clock.now() - 3600)


def test_a_press_after_the_closing_is_a_new_alarm_and_a_late_signal_is_not(
    world: World, sos: tuple[Badge, Hub]
) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    world.clock.advance(10)
    late = badge.event(kinds.LANYARD, incident=incident)
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    _do(world, lambda w, a: alarms.close(w, a, "op1", "resolved", "safe_word"))
    world.clock.advance(10)
    world.say(hub, hub.event(badge, late, held_ms=15_000))
    assert [a["open"] for a in world.alarms()] == [False]
    world.say(hub, hub.event(badge, badge.event(kinds.SOS, incident=incident)))
    assert [a["open"] for a in world.alarms()] == [False, True]


def test_a_duress_cancel_makes_the_open_alarm_a_silent_one(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    duress = badge.event(kinds.DURESS, incident=incident, body=events.pack_duress(kinds.CANCEL, b""))
    world.say(hub, hub.event(badge, duress))
    (alarm,) = world.alarms()
    assert (alarm["kind"], alarm["silent"], alarm["cancelled_at"]) == ("duress", True, None)


def test_a_beacon_alarm_after_a_cancel_rings_again(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    world.say(hub, hub.event(badge, badge.event(kinds.CANCEL, incident=incident)))
    world.clock.advance(5)
    again = badge.event(kinds.SOS)
    world.say(hub, hub.beacon(badge, again))
    (alarm,) = world.alarms()
    assert "after the wearer's cancel" in alarm["escalation"]
    receipt = [m for m in world.told(hub, badge) if m.type == downlink.RECEIPT][-1]
    assert downlink.unpack_receipt(receipt.body)[:3] == (again.ident, again.ident, kinds.RECEIVED)


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("form", ["beacon", "event", "other incident"])
def test_a_new_signal_in_a_claimed_alarm_rings_until_its_owner_has_seen_it(
    world: World, sos: tuple[Badge, Hub], cancelled: bool, form: str
) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    if cancelled:
        world.clock.advance(1)
        world.say(hub, hub.event(badge, badge.event(kinds.CANCEL, incident=incident)))
    world.clock.advance(5)
    # nothing new: the first signal once more, and what else the badge tells
    world.say(hub, hub.event(badge, badge.event(kinds.CHECK_IN)))
    assert not world.alarms()[0]["new_signal"]
    again = badge.event(kinds.LANYARD, incident=incident if form == "event" else None)
    world.say(hub, hub.event(badge, again) if form == "event" else hub.beacon(badge, again))
    if form == "other incident":
        world.say(hub, hub.event(badge, again))
    (alarm,) = world.alarms()
    assert (alarm["new_signal"], alarm["owner"]) == (True, "op1")
    assert "a new signal came after" in alarm["escalation"]
    assert [n.data["alarm"]["new_signal"] for n in world.notices if n.event == "alarm"][-1]
    world.clock.advance(1)
    with pytest.raises(alarms.Refused, match="op1 has claimed"):
        _do(world, lambda w, a: alarms.claim(w, a, "op2"))
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    (alarm,) = world.alarms()
    assert (alarm["new_signal"], alarm["escalation"], alarm["owner"]) == (False, None, "op1")
    assert not [n.data["alarm"]["new_signal"] for n in world.notices if n.event == "alarm"][-1]
    # what is repeated is not new
    world.clock.advance(1)
    world.say(hub, hub.event(badge, again))
    assert not world.alarms()[0]["new_signal"]


@pytest.mark.parametrize("by", ["claim", "take over"])
@pytest.mark.parametrize(
    ("form", "same"),
    [("beacon", True), ("event", True), ("beacon and event", True), ("beacon", False), ("beacon and event", False)],
)
def test_an_sos_after_a_cancel_is_claimed_for_its_wearer_only_once_somebody_has_seen_it(
    world: World, sos: tuple[Badge, Hub], form: str, by: str, same: bool
) -> None:
    """A vibration is a promise (rule 1): who claimed the alarm before has not seen what came since. The firmware's
    incident stays open after a cancel, so that the next press is of it; a beacon cannot say so."""
    badge, hub = sos
    before = bytes(badge.boot) + b"\x00\x01"
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    assert world.states(hub, badge)[-1] == (before, kinds.CLAIMED, 0)
    world.clock.advance(5)
    world.say(hub, hub.event(badge, badge.event(kinds.CANCEL, incident=before)))
    again = badge.event(kinds.SOS, incident=before if same else None)
    answered = len(world.told(hub, badge))
    if form != "event":
        world.say(hub, hub.beacon(badge, again))
    if form != "beacon":
        world.say(hub, hub.event(badge, again))
    world.say(hub, hub.status(badge, badge.status(incident=again.incident, level=kinds.RECEIVED)), "status")
    levels = _levels(world, hub, badge, answered)
    assert len(levels) >= 2
    assert set(levels) == {kinds.RECEIVED}
    assert len(world.alarms()) == 1
    assert world.alarms()[0]["new_signal"]
    world.clock.advance(1)
    act = alarms.claim if by == "claim" else alarms.take_over
    _do(world, lambda w, a: act(w, a, "op1" if by == "claim" else "op2"))
    assert world.states(hub, badge)[-1] == (again.incident, kinds.CLAIMED, 0)


def _levels(world: World, hub: Hub, badge: Badge, after: int) -> list[int]:
    """The custody levels in what the badge was told since."""
    return [
        downlink.unpack_receipt(m.body)[2] if m.type == downlink.RECEIPT else downlink.unpack_state(m.body)[1]
        for m in world.told(hub, badge)[after:]
        if m.type in (downlink.RECEIPT, downlink.STATE, downlink.PROOF)
    ]


def test_only_the_first_press_after_each_cancel_waits_for_somebody_to_see_it(
    world: World, sos: tuple[Badge, Hub]
) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"

    def does(kind: int, **late: int) -> int:
        world.clock.advance(2)
        answered = len(world.told(hub, badge))
        world.say(hub, hub.event(badge, badge.event(kind, incident=incident), **late))
        world.clock.advance(2)
        return _levels(world, hub, badge, answered)[0]

    def claims() -> None:
        _do(world, lambda w, a: alarms.claim(w, a, "op1"))
        assert world.states(hub, badge)[-1][1] == kinds.CLAIMED

    does(kinds.CANCEL)
    claims()  # a cancelled alarm, for all that op1 knows
    assert does(kinds.SOS) == kinds.RECEIVED
    assert does(kinds.SOS) == kinds.RECEIVED
    claims()
    assert does(kinds.SOS) == kinds.CLAIMED, "in an alarm that goes on a person is with them already"
    claims()
    does(kinds.CANCEL)
    assert does(kinds.LANYARD) == kinds.RECEIVED
    claims()
    # by the badge's own count the press came last, whatever its arrival looks like
    does(kinds.CANCEL)
    assert does(kinds.SOS, held_ms=5000) == kinds.RECEIVED


def test_no_closing_takes_a_signal_with_it_that_its_owner_has_not_seen(world: World, sos: tuple[Badge, Hub]) -> None:
    """The badge has the receipt of it, so that it would take the closing for the end of that press too."""
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    world.clock.advance(1)
    again = badge.event(kinds.SOS, incident=incident)
    world.say(hub, hub.event(badge, again))
    world.clock.advance(1)
    with pytest.raises(alarms.Refused, match="seen the new signal"):
        _do(world, lambda w, a: alarms.close(w, a, "op1", "accidental", "safe_word"))
    (alarm,) = world.alarms()
    assert (alarm["open"], alarm["new_signal"], alarm["outcome"]) == (True, True, None)
    assert kinds.CLOSED not in [level for _, level, _ in world.states(hub, badge)]
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    # what is only repeated, and what is no alarm, keeps nobody from closing
    world.clock.advance(1)
    world.say(hub, hub.event(badge, again))
    world.say(hub, hub.event(badge, badge.event(kinds.CANCEL, incident=incident)))
    _do(world, lambda w, a: alarms.close(w, a, "op1", "accidental", "safe_word"))
    assert world.states(hub, badge)[-1][1] == kinds.CLOSED


def test_a_takeover_ends_the_ringing_of_a_new_signal_too(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    for operator in ("op1", "op2"):
        _do(world, lambda w, a, who=operator: alarms.take_over(w, a, who))  # type: ignore[misc]
        assert not world.alarms()[0]["new_signal"]
        world.clock.advance(1)
        world.say(hub, hub.beacon(badge, badge.event(kinds.SOS)))
        assert world.alarms()[0]["new_signal"]
        world.clock.advance(1)
    _do(world, lambda w, a: alarms.take_over(w, a, "op1"))
    assert not world.alarms()[0]["new_signal"]


def test_the_public_alarm_names_nobody_and_is_cleared_when_it_closes(world: World, sos: tuple[Badge, Hub]) -> None:
    topic = f"tocsin/1/alarms/{sos[0].number}-1-1"
    public = [s for s in world.sent if s.topic == topic]
    assert public[-1].retain
    assert b'"kind": "sos"' in public[-1].payload
    assert b"Example" not in public[-1].payload
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    _do(world, lambda w, a: alarms.close(w, a, "op1", "resolved", "safe_word"))
    assert [s for s in world.sent if s.topic == topic][-1].payload == b""


def test_raised_is_said_once_for_each_alarm(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    world.say(hub, hub.beacon(badge, badge.event(kinds.LANYARD)))
    _do(world, lambda w, a: alarms.note(w, a, "op1", "hello"))
    assert [n.data["change"] for n in world.notices if n.event == "alarm"].count("raised") == 1


def test_steps_go_round_until_the_alarm_is_closed(world: World, sos: tuple[Badge, Hub]) -> None:
    from station.console.api import alarm_page

    def done() -> list[bool]:
        with world.core.read() as db:
            return [s["done_at"] is not None for s in alarm_page(db, db.get_one(Alarm, 1))["steps"]]

    number = len(done())
    for count in range(1, number + 1):
        _do(world, lambda w, a: alarms.next_step(w, a, "op1"))
        assert sum(done()) == count
    _do(world, lambda w, a: alarms.next_step(w, a, "op1"))
    assert done() == [True] + [False] * (number - 1)


def test_the_audit_shows_where_it_was_changed(world: World, sos: tuple[Badge, Hub]) -> None:
    _do(world, lambda w, a: alarms.claim(w, a, "op1"))
    with world.core.read() as db:
        assert audit.verify(db).whole
    for change in ("UPDATE audit SET who = 'op2' WHERE id = 3", "DELETE FROM audit WHERE id = 2"):
        with world.core.store.write() as db:
            db.connection().exec_driver_sql(change)
        with world.core.read() as db:
            assert not audit.verify(db).whole


def test_the_queue_is_unclaimed_before_claimed_then_the_gravest_then_the_oldest(world: World) -> None:
    hub = world.hub()
    for kind in (kinds.MISSED_CHECK_IN, kinds.FALL, kinds.SOS, kinds.LANYARD, kinds.SOS):
        badge = world.badge()
        world.say(hub, hub.event(badge, badge.event(kind)))
        world.clock.advance(1)

    def queue() -> list[tuple[int, str]]:
        with world.core.read() as db:
            rows = db.scalars(select(Alarm).where(Alarm.closed_at.is_(None)).order_by(*open_first()))
            return [(row.id, row.kind) for row in rows]

    assert queue() == [(3, "sos"), (4, "lanyard"), (5, "sos"), (2, "fall"), (1, "missed_check_in")]
    world.operator("op1")
    _do(world, lambda w, a: alarms.claim(w, a, "op1"), 3)
    assert queue() == [(4, "lanyard"), (5, "sos"), (2, "fall"), (1, "missed_check_in"), (3, "sos")]
