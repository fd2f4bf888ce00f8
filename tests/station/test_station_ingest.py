"""Ingest: every event once, in any order, by any hub, and answered every time."""

import itertools
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select
from station_parts import NONE, Badge, Hub
from station_world import World

from protocol import downlink, events, ident, kinds, relay
from protocol.answer import open_answer
from protocol.beacon import Group
from station import alarms, views
from station.ingest.dispatch import take
from station.model import Alarm, BadgeEvent, Supervision


def _receipts(world: World, hub: Hub, badge: Badge) -> list[tuple[bytes, bytes, int, int]]:
    found = [downlink.unpack_receipt(m.body) for m in world.told(hub, badge) if m.type == downlink.RECEIPT]
    return [(ident, incident, level, flags & ~downlink.YOUNG) for ident, incident, level, flags in found]


def test_an_sos_is_committed_and_its_receipt_says_so_to_hub_and_badge(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS, age_ms=300)
    world.say(hub, hub.event(badge, sos, held_ms=200, rssi=-61))
    (alarm,) = world.alarms()
    assert (alarm["kind"], alarm["identity"], alarm["via"], alarm["hub"]) == (
        "sos",
        ident.text(badge.number, sos.ident),
        "connection",
        hub.name,
    )
    assert alarm["raised_at"] == pytest.approx(world.clock.now() - 0.5)
    (receipt,) = [m for m in world.down(hub) if m.type == relay.RECEIPT]
    assert relay.unpack_receipt(receipt.payload)[:2] == (badge.number, sos.ident)
    assert _receipts(world, hub, badge) == [(sos.ident, sos.ident, kinds.RECEIVED, 0)]


@pytest.mark.parametrize("first", ["report", "alarm"])
@pytest.mark.parametrize("sent", [2, 0])
def test_that_people_were_told_by_message_is_in_the_timeline_in_whatever_order_it_comes(
    world: World, first: str, sent: int
) -> None:
    badge, hub = world.badge(), world.hub()
    world.hub()
    sos = badge.event(kinds.SOS, age_ms=40_000)
    told = relay.pack_second_path(badge.number, sos.ident, relay.PERHAPS_TWICE, 2, sent, 15_200)

    def say(what: str) -> None:
        world.say(
            hub, hub.event(badge, sos, held_ms=40_000) if what == "alarm" else hub.up(relay.SECOND_PATH, told, 24_000)
        )

    for what in (first, "alarm", "report", "alarm"):  # some again: nobody knows what of it arrived
        say(what)
    world.say(hub, hub.beacon(badge, sos))
    (alarm,) = world.alarms()
    with world.core.read() as db:
        (line,) = [e for e in views.timeline(db, alarm["id"]) if e["what"] == "second_path"]
    assert f"{sent} of 2 agreed numbers, after 15 s without an answer, perhaps twice" in line["text"]
    assert line["at"] == pytest.approx(world.clock.now() - 24, abs=0.01)
    assert alarm["via"] == ("second_path" if sent else "connection")


def test_a_receipt_echoes_the_uplink_that_it_answers_and_numbers_only_grow(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    for _ in range(3):
        world.say(hub, hub.event(badge, sos))
    world.restart()
    world.say(hub, hub.event(badge, sos))
    told = world.told(hub, badge)
    assert [m.echo for m in told] == [1, 2, 3, 4]
    assert [m.number for m in told] == sorted({m.number for m in told})
    assert {m.boot for m in told} == {badge.boot}


def test_the_same_event_by_two_hubs_is_one_alarm_with_both_hubs_facts(world: World) -> None:
    badge, one, two = world.badge(), world.hub(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(one, one.event(badge, sos, rssi=-80))
    world.clock.advance(0.4)
    place = {"text": "Library", "lat": 52.9, "lon": -1.4, "source": "fixed", "age": 0.1}
    world.say(two, two.event(badge, sos, rssi=-50, place=place))
    (alarm,) = world.alarms()
    assert [(h["hub"], h["rssi"]) for h in alarm["hubs"]] == [(one.name, -80), (two.name, -50)]
    assert alarm["place"]["text"] == "Library"
    assert (alarm["hub"], len(alarm["signals"])) == (one.name, 1)


def test_beacon_then_envelope_is_one_alarm_that_becomes_certain(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(hub, hub.beacon(badge, sos))
    (alarm,) = world.alarms()
    assert (alarm["via"], alarm["uncertain"]) == ("beacon", True)
    assert _receipts(world, hub, badge) == [(sos.ident, sos.ident, kinds.RECEIVED, downlink.BY_BEACON)]
    assert world.told(hub, badge)[0].echo == downlink.BEACON | 1
    assert [relay.unpack_receipt(m.payload)[3] for m in world.down(hub) if m.type == relay.RECEIPT] == [relay.BEACON]
    sos.age_ms = 1500
    world.clock.advance(1.0)
    world.say(hub, hub.event(badge, sos))
    assert _receipts(world, hub, badge)[-1] == (sos.ident, sos.ident, kinds.RECEIVED, 0)
    (alarm,) = world.alarms()
    assert (alarm["via"], alarm["uncertain"], len(alarm["signals"])) == ("beacon", False, 1)
    assert alarm["raised_at"] == pytest.approx(world.clock.now() - 1.5)


def _answers(world: World, hub: Hub, badge: Badge) -> list[tuple[bytes, int, int]]:
    found = []
    for message in world.down(hub):
        if message.type == relay.ANSWER:
            number, data = relay.unpack_down_badge(message.payload)
            assert number == badge.number
            opened = open_answer(Group(badge.group), badge.keys.answer, number, badge.boot, data)
            assert opened is not None
            found.append(opened)
    return found


def test_a_badge_that_only_beacons_is_answered_by_broadcast_at_every_step(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(hub, hub.beacon(badge, sos))
    world.say(hub, hub.beacon(badge, sos))
    _claim(world)
    world.say(hub, hub.beacon(badge, sos))
    cancel = badge.event(kinds.CANCEL)
    world.say(hub, hub.beacon(badge, cancel))
    assert _answers(world, hub, badge) == [
        (sos.ident, kinds.RECEIVED, 1),
        (sos.ident, kinds.RECEIVED, 2),
        (sos.ident, kinds.CLAIMED, 2),
        (sos.ident, kinds.CLAIMED, 3),
        (cancel.ident, kinds.RECEIVED, 4),
    ]
    world.clock.advance(1)
    world.say(hub, hub.status(badge, badge.status(incident=sos.ident)), "status")
    world.say(hub, hub.event(badge, sos))
    assert len(_answers(world, hub, badge)) == 5, "a connection needs no broadcast"


def test_a_broadcast_does_not_show_that_anybody_handles_a_duress(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    duress = badge.event(kinds.DURESS)
    world.say(hub, hub.beacon(badge, duress, imitates=kinds.CHECK_IN))
    _claim(world)
    world.say(hub, hub.beacon(badge, duress, imitates=kinds.CHECK_IN))
    assert _answers(world, hub, badge) == [
        (duress.ident, kinds.RECEIVED, 1),
        (duress.ident, kinds.RECEIVED, 2),
    ]


def _claim(world: World) -> None:
    operator = world.operator("op1")
    with world.core.work() as work:
        alarm = work.alarm(1)
        assert alarm is not None
        alarms.claim(work, alarm, operator)


def test_a_duress_looks_like_its_check_in_to_the_hub_and_alarms_silently(world: World) -> None:
    for by_beacon in (True, False):
        badge, hub = world.badge(), world.hub()
        duress = badge.event(kinds.DURESS, body=events.pack_duress(kinds.CHECK_IN, b""))
        data = hub.beacon(badge, duress, imitates=kinds.CHECK_IN) if by_beacon else hub.event(badge, duress)
        world.say(hub, data)
        (alarm,) = world.alarms(badge)
        assert (alarm["kind"], alarm["silent"], alarm["priority"]) == ("duress", True, 0)


def test_a_cancel_is_shown_and_closes_nothing_whether_it_comes_before_or_after(world: World) -> None:
    hub = world.hub()
    for cancel_first in (False, True):
        badge = world.badge()
        sos = badge.event(kinds.SOS)
        cancel = badge.event(kinds.CANCEL, incident=sos.ident)
        for event in (cancel, sos) if cancel_first else (sos, cancel):
            world.say(hub, hub.event(badge, event))
        (alarm,) = world.alarms(badge)
        assert alarm["open"]
        assert alarm["cancelled_at"] is not None


def test_an_identity_outlives_the_purge_of_its_event(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    test = badge.event(kinds.TEST)
    world.say(hub, hub.event(badge, test))
    with world.core.work() as work:
        work.db.execute(delete(BadgeEvent))
    world.say(hub, hub.event(badge, test))
    assert world.counted("duplicate") == 1
    assert len(_receipts(world, hub, badge)) == 2


def test_what_cannot_be_verified_is_rejected_with_a_signature_and_raises_nothing(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    stranger = Badge(badge.number, os.urandom(32), badge.group)
    nobody = Badge(999, os.urandom(32), badge.group)
    sos = stranger.event(kinds.SOS)
    world.say(hub, hub.event(stranger, sos))
    world.say(hub, hub.beacon(stranger, stranger.event(kinds.SOS)))
    world.say(hub, hub.event(nobody, nobody.event(kinds.SOS)))
    rejected = [m for m in world.down(hub) if m.type == relay.REJECTED]
    assert len(rejected) == 3
    assert relay.unpack_receipt(rejected[0].payload) == (badge.number, sos.ident, b"", relay.EVENT)
    assert world.alarms() == []
    assert world.counted("event forged") == world.counted("beacon forged") == world.counted("badge unknown") == 1


def test_an_authentic_event_that_nobody_understands_is_rejected_to_the_badge_too(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    odd = badge.event(kinds.AUDIO_START, body=b"short")
    world.say(hub, hub.event(badge, odd))
    (message,) = world.told(hub, badge)
    assert (message.type, message.body) == (downlink.REJECTED, odd.ident)
    world.say(hub, hub.event(badge, badge.event(200)))
    assert world.counted("event malformed") == 2


def test_only_an_accepted_hub_is_listened_to(world: World) -> None:
    badge, pending = world.badge(), world.hub(accepted=False)
    world.say(pending, pending.event(badge, badge.event(kinds.SOS)))
    unknown = Hub()
    world.say(unknown, unknown.event(badge, badge.event(kinds.SOS)))
    assert world.alarms() == []
    assert world.counted("hub not accepted") == world.counted("hub unknown") == 1


def test_a_hub_cannot_speak_on_anothers_topic(world: World) -> None:
    badge, one, two = world.badge(), world.hub(), world.hub()
    world.say(two, one.event(badge, badge.event(kinds.SOS)))
    assert world.alarms() == []
    assert world.counted("hub not the topic's") == 1


def test_every_status_is_answered_with_proof_for_the_badge_and_an_old_one_is_not(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    first = badge.status()
    world.say(hub, hub.status(badge, badge.status()), "status")
    (proof,) = world.told(hub, badge)
    assert (proof.type, proof.echo, proof.body) == (downlink.PROOF, 2, downlink.pack_state(NONE, 0))
    world.say(hub, hub.status(badge, first), "status")
    assert len(world.told(hub, badge)) == 1
    assert world.counted("status old") == 1


def test_a_status_repeats_the_custody_until_the_badge_shows_that_it_knows(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(hub, hub.event(badge, sos))
    for known in (kinds.HUB_HELD, kinds.RECEIVED):
        world.say(hub, hub.status(badge, badge.status(incident=sos.ident, level=known)), "status")
        proof = world.told(hub, badge)[-1]
        assert downlink.unpack_state(proof.body) == (sos.ident, kinds.RECEIVED, downlink.YOUNG)
    (alarm,) = world.alarms()
    assert alarm["told"]["level"] == "received"


def test_settings_are_sent_sealed_until_the_badge_has_them(world: World) -> None:
    badge, hub = world.badge(hold_to_sos=2.0), world.hub()
    for settings_known, expected in ((0, 1), (0, 2), (1, 2)):
        world.say(hub, hub.status(badge, badge.status(settings=settings_known)), "status")
        sent = [m for m in world.told(hub, badge) if m.type == downlink.SETTINGS]
        assert len(sent) == expected
    assert sent[0].body == b'\x00\x01{"hold_to_sos": 2.0}'


def test_a_self_test_passes_once_the_badge_shows_that_it_holds_the_answer(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.TEST)))
    receipt = world.told(hub, badge)[-1]
    passed = [n.data["passed"] for n in world.notices if n.event == "test"]
    assert passed == [False]
    world.clock.advance(0.8)
    world.say(hub, hub.status(badge, badge.status(last_down=receipt.number)), "status")
    passed = [n.data["passed"] for n in world.notices if n.event == "test"]
    assert passed == [False, True]
    assert world.alarms() == []


def _test_receipts(world: World, hub: Hub, badge: Badge) -> list[int]:
    return [downlink.unpack_receipt(m.body)[3] for m in world.told(hub, badge) if m.type == downlink.RECEIPT]


def _not_ready(world: World) -> list[tuple[str, str]]:
    with world.core.read() as db:
        rows = db.scalars(select(Supervision).where(Supervision.state == "not_ready", Supervision.until.is_(None)))
        return [(row.what, row.text) for row in rows]


def test_a_self_test_by_a_hub_that_is_not_ready_is_not_passed_and_the_wearer_is_told(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    lacks: dict[str, Any] = {"ready": False, "missing": ["hub battery", "place"], "grave": ["hub battery"]}
    first = badge.event(kinds.TEST)
    world.say(hub, hub.event(badge, first, **lacks))
    world.say(hub, hub.event(badge, first))
    assert _test_receipts(world, hub, badge) == [downlink.NOT_READY] * 2, "the first verdict is the one that is felt"
    receipt = world.told(hub, badge)[-1]
    world.say(hub, hub.status(badge, badge.status(last_down=receipt.number)), "status")
    tests = [(n.data["passed"], n.data["ready"]) for n in world.notices if n.event == "test"]
    assert tests == [(False, True), (False, False)]
    assert _not_ready(world) == [(f"hub:{hub.name}", "not ready to leave: hub battery")]
    # charged, and tried again
    second = badge.event(kinds.TEST)
    world.say(hub, hub.event(badge, second, ready=False, missing=["place"], grave=[]))
    world.say(hub, hub.event(badge, second, **lacks))
    assert _test_receipts(world, hub, badge)[2:] == [0, 0]
    receipt = [m for m in world.told(hub, badge) if m.type == downlink.RECEIPT][-2]
    world.say(hub, hub.status(badge, badge.status(last_down=receipt.number)), "status")
    tests = [(n.data["passed"], n.data["ready"]) for n in world.notices if n.event == "test"]
    assert tests[-1] == (True, True)
    assert _not_ready(world) == []


def test_what_a_hub_says_of_itself_changes_nothing_but_a_self_test(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    for kind in (kinds.SOS, kinds.CHECK_IN, kinds.VISIT_START):
        world.say(hub, hub.event(badge, badge.event(kind), grave=["disk"]))
    oddities: tuple[Any, ...] = ("disk", 7, [7, None], {})
    for odd in oddities:
        world.say(hub, hub.event(badge, badge.event(kinds.TEST), grave=odd))
    assert not any(flags & downlink.NOT_READY for flags in _test_receipts(world, hub, badge))
    assert _not_ready(world) == []


def test_by_beacon_a_self_test_of_a_hub_that_is_not_ready_has_no_answer_at_all(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    test = badge.event(kinds.TEST)
    world.say(hub, hub.beacon(badge, test, grave=["disk"]))
    assert _answers(world, hub, badge) == []
    assert world.told(hub, badge) == []
    assert [relay.unpack_receipt(m.payload)[1] for m in world.down(hub) if m.type == relay.RECEIPT] == [test.ident]
    world.say(hub, hub.beacon(badge, test))
    assert _answers(world, hub, badge) == [(test.ident, kinds.RECEIVED, 2)]


def test_a_later_boot_is_answered_and_a_replayed_old_one_does_not_bring_it_back(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(hub, hub.event(badge, sos))
    old = badge.event(kinds.CHECK_IN)
    replay = hub.event(badge, old)
    badge.restart()
    world.say(hub, hub.status(badge, badge.status(incident=sos.ident)), "status")
    world.say(hub, replay)
    _claim(world)
    state = world.told(hub, badge)[-1]
    assert (state.type, state.boot, state.echo) == (downlink.STATE, badge.boot, 1)


# --- any order --------------------------------------------------------------------------------------------------


def _story(badge: Badge) -> list[tuple[str, events.Event]]:
    """An SOS, a pulled lanyard in the same incident, a cancel: as events and as beacons."""
    sos = badge.event(kinds.SOS)
    lanyard = badge.event(kinds.LANYARD, incident=sos.ident)
    cancel = badge.event(kinds.CANCEL, incident=sos.ident)
    return [(how, event) for event in (sos, lanyard, cancel) for how in ("event", "beacon")]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_incident_is_one_alarm_in_any_order_with_any_repetition(shared_world: World, data: st.DataObject) -> None:
    world = shared_world
    badge, hubs = world.badge(), world.two_hubs
    story = _story(badge)
    order = data.draw(
        st.permutations(range(len(story))).flatmap(
            lambda base: st.lists(st.sampled_from(range(len(story))), max_size=6).map(lambda more: [*base, *more])
        )
    )
    for index in order:
        how, event = story[index]
        hub = hubs[data.draw(st.integers(0, 1))]
        world.say(hub, hub.event(badge, event) if how == "event" else hub.beacon(badge, event))
        world.clock.advance(0.1)
    (alarm,) = world.alarms(badge)
    assert (alarm["kind"], alarm["open"], alarm["owner"]) == ("sos", True, None)
    assert alarm["cancelled_at"] is not None
    kinds_seen = sorted(s["kind"] for s in alarm["signals"])
    assert kinds_seen == ["cancel", "lanyard", "sos"]


def test_a_cancel_whose_envelope_comes_before_that_of_its_sos_makes_no_second_alarm(world: World) -> None:
    hub = world.hub()
    for rest in itertools.permutations((0, 1, 2, 4)):
        order = (3, 5, *rest)  # the beacons of lanyard and cancel first, then everything else in any order
        badge = world.badge()
        story = _story(badge)
        messages = []
        for how, event in (story[index] for index in order):
            messages.append(
                (hub.topic("event"), hub.event(badge, event) if how == "event" else hub.beacon(badge, event))
            )
        take(world.core, messages)
        with world.core.read() as db:
            assert db.scalar(select(func.count()).where(Alarm.badge == badge.number)) == 1, order


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([0, 1, 2, 3]), data=st.data())
def test_two_badges_never_share_an_alarm(shared_world: World, order: list[int], data: st.DataObject) -> None:
    world = shared_world
    hub, badges = world.two_hubs[0], [world.badge(), world.badge()]
    said = [(b, b.event(kinds.SOS)) for b in badges]
    for index in order:
        badge, event = said[index % 2]
        world.say(hub, hub.event(badge, event) if data.draw(st.booleans()) else hub.beacon(badge, event))
    for badge in badges:
        (alarm,) = world.alarms(badge)
        assert {s["identity"].split("/")[0] for s in alarm["signals"]} == {str(badge.number)}
