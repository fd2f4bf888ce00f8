"""A claim tells the wearer that somebody is with them in what the operator's page showed, and in nothing that came
since.

A request takes its time: it may wait for the commit of a signal that is on no screen yet.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from station_asgi import Web
from station_parts import Badge, Hub
from station_world import World

from protocol import downlink, kinds
from station import visits
from station.model import Visit


class Desk:
    """An operator who looks at a page, and presses something on it later."""

    def __init__(self, world: World, name: str = "op1") -> None:
        self.web = Web(world)
        self.session = self.web.session(name)

    def looks(self, path: str = "/alarms/1") -> str:
        """The page as it is now."""
        status, body = asyncio.run(self.web.get(path, {**self.session, "accept": "text/html"}))
        assert status == 200
        return body.decode()

    def presses(self, page: str, act: str, **typed: str) -> dict[str, Any]:
        """The ALARM afterwards."""
        status, body = asyncio.run(self.web.press(page, f"/alarms/1/{act}", self._json, **typed))
        assert status == 200, body
        alarm: dict[str, Any] = json.loads(body)["alarm"]
        return alarm

    def refused(self, page: str, act: str, **typed: str) -> tuple[int, str]:
        """Status and sentence."""
        status, body = asyncio.run(self.web.press(page, f"/alarms/1/{act}", self._json, **typed))
        return status, json.loads(body)["error"]

    @property
    def _json(self) -> dict[str, str]:
        return {**self.session, "accept": "application/json"}


CLOSING = {"outcome": "accidental", "welfare": "safe_word"}


@pytest.fixture
def sos(world: World) -> tuple[Badge, Hub]:
    """An open SOS."""
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    return badge, hub


def _felt(world: World, hub: Hub, badge: Badge, incident: bytes) -> int:
    """The level that the badge is told of an incident when it asks."""
    world.say(hub, hub.status(badge, badge.status(incident=incident, level=kinds.RECEIVED)), "status")
    proofs = [m for m in world.told(hub, badge) if m.type == downlink.PROOF]
    told, level, _ = downlink.unpack_state(proofs[-1].body)
    assert told == incident
    return level


@pytest.mark.parametrize("path", ["/", "/alarms/1"])
@pytest.mark.parametrize("by", ["beacon", "event"])
def test_a_signal_that_came_while_the_claim_was_on_its_way_is_not_seen(
    world: World, sos: tuple[Badge, Hub], path: str, by: str
) -> None:
    badge, hub = sos
    incident = bytes(badge.boot) + b"\x00\x01"
    world.say(hub, hub.event(badge, badge.event(kinds.CANCEL, incident=incident)))
    world.clock.advance(5)
    desk = Desk(world)
    page = desk.looks(path)  # cancelled, for all that it says
    world.clock.advance(1)
    again = badge.event(kinds.SOS, incident=incident if by == "event" else None)
    world.say(hub, hub.event(badge, again) if by == "event" else hub.beacon(badge, again))
    world.clock.advance(1)
    alarm = desk.presses(page, "claim")
    assert (alarm["owner"], alarm["level"], alarm["new_signal"]) == ("op1", "claimed", True)
    assert "new signal" in alarm["escalation"]
    assert [n.data["alarm"]["new_signal"] for n in world.notices if n.event == "alarm"][-1]
    assert kinds.CLAIMED not in [level for _, level, _ in world.states(hub, badge)]
    assert _felt(world, hub, badge, again.incident) == kinds.RECEIVED
    assert desk.refused(desk.looks(), "close", **CLOSING)[0] == 409
    # now it is on the screen
    alarm = desk.presses(desk.looks(), "claim")
    assert (alarm["owner"], alarm["new_signal"], alarm["escalation"]) == ("op1", False, None)
    assert world.states(hub, badge)[-1][1] == kinds.CLAIMED
    assert _felt(world, hub, badge, again.incident) == kinds.CLAIMED
    assert not desk.presses(desk.looks(), "close", **CLOSING)["open"]


def test_what_came_after_the_new_signal_that_was_shown_is_not_seen_with_it(
    world: World, sos: tuple[Badge, Hub]
) -> None:
    badge, hub = sos
    desk = Desk(world)
    desk.presses(desk.looks(), "claim")
    for kind in (kinds.LANYARD, kinds.SOS):
        page = desk.looks()
        world.clock.advance(1)
        world.say(hub, hub.beacon(badge, badge.event(kind)))
    assert "I have seen the new signal" in page
    alarm = desk.presses(page, "claim")
    assert (alarm["new_signal"], alarm["escalation"]) == (True, "a new signal came after it was claimed")
    # the same page once more says nothing new, and takes nothing back
    assert desk.presses(page, "claim")["new_signal"]
    assert not desk.presses(desk.looks(), "claim")["new_signal"]
    assert not desk.presses(page, "claim")["new_signal"]


def test_who_takes_over_has_seen_what_their_page_showed(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    first, second = Desk(world), Desk(world, "op2")
    first.presses(first.looks(), "claim")
    page = second.looks()
    world.say(hub, hub.beacon(badge, badge.event(kinds.SOS)))
    alarm = second.presses(page, "takeover", reason="end of shift")
    assert (alarm["owner"], alarm["new_signal"]) == ("op2", True)
    assert not second.presses(second.looks(), "claim")["new_signal"]


def test_a_further_miss_by_the_stations_own_clock_is_seen_only_on_a_page_that_shows_it(world: World) -> None:
    badge = world.badge()
    desk = Desk(world)
    with world.core.work() as work:
        row = work.badge(badge.number)
        assert row is not None
        visits.plan(work, "op1", row, {"minutes": 10, "grace": 1})
    world.pass_time(670, step=10)
    page = desk.looks()
    with world.core.work() as work:
        visits.by_operator(work, "op1", work.db.get_one(Visit, 1), "check-in")
    world.pass_time(670, step=10)
    alarm = desk.presses(page, "claim")
    assert (alarm["new_signal"], alarm["escalation"]) == (True, "the check-in was missed once more")
    assert desk.refused(page, "close", **CLOSING)[0] == 409
    alarm = desk.presses(desk.looks(), "claim")
    assert (alarm["new_signal"], alarm["escalation"]) == (False, None)


@pytest.mark.parametrize("change", ["note", "seen", "sound"])
def test_an_older_page_has_seen_all_where_nothing_but_signals_would_ring(
    world: World, sos: tuple[Badge, Hub], change: str
) -> None:
    """What else happens in an alarm makes no claim worth less."""
    badge, hub = sos
    desk = Desk(world)
    page = desk.looks()
    acts: dict[str, Callable[[], object]] = {
        "note": lambda: desk.presses(page, "note", text="hello"),
        "seen": lambda: world.say(hub, hub.event(badge, badge.event(kinds.CHECK_IN))),
        "sound": lambda: world.say(hub, hub.sound(badge, 1, badge.sound(1, 0, 4)), "audio"),
    }
    acts[change]()
    alarm = desk.presses(page, "claim")
    assert (alarm["new_signal"], alarm["escalation"]) == (False, None)
    assert world.states(hub, badge)[-1][1] == kinds.CLAIMED


def test_a_program_that_does_not_say_what_it_showed_claims_what_there_is(world: World, sos: tuple[Badge, Hub]) -> None:
    badge, hub = sos
    desk = Desk(world)
    world.say(hub, hub.beacon(badge, badge.event(kinds.SOS)))
    assert not desk.presses(desk.looks(), "claim", version="99999")["new_signal"], "no more than there is"
    world.say(hub, hub.beacon(badge, badge.event(kinds.SOS)))
    bare = '<form action="/alarms/1/claim"></form>'
    assert not desk.presses(bare, "claim")["new_signal"]
    for bad in ("-1", "1.5", "nan", "", "9" * 30):
        status, text = desk.refused(bare, "claim", version=bad)
        assert (status, text) == (400, "version must be that of the ALARM which was shown, a whole number")
