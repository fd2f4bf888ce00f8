"""What a rogue hub writes into an alarm must not keep any console from that alarm, nor from the others."""

import json
from typing import Any

import pytest
from sqlalchemy import select
from station_running import Running
from station_world import World

from protocol import kinds, relay
from station import views
from station.console import stream
from station.console.answers import HTMLResponse, JSONResponse
from station.ingest.place import facts_of
from station.model import Alarm, Hub, Sighting
from station.plain import clean, compact

HALF = "\ud800"  # half of a surrogate pair: JSON can say it, UTF-8 cannot


def _facts(text: bytes) -> dict[str, Any]:
    return facts_of(relay.Up(relay.HEALTH, bytes(8), 1, 1, 0, 0, text, b""))


def test_the_facts_of_a_hub_are_plain_text_and_real_numbers() -> None:
    said = rb'{"\ud800": "a\ud800b\u0000c", "n": [1e999, NaN, 1.5, true], "deep": ' + b'{"x":' * 50 + b"1" + b"}" * 51
    facts = _facts(said)
    assert facts["?"] == "a?b?c"
    assert facts["n"] == [None, None, 1.5, True]
    json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()
    assert _facts(b"[" * 60_000) == {}
    assert clean({"a": "Ça va 👍"}) == {"a": "Ça va 👍"}, "what is text stays as it is"


@pytest.mark.parametrize("way", ["place", "health"])
def test_a_string_that_is_none_reaches_every_console_as_text(world: World, way: str) -> None:
    badge, hub = world.badge(), world.hub()
    if way == "place":
        world.say(hub, hub.event(badge, badge.event(kinds.SOS), place={"text": "Library" + HALF}))
        assert world.alarms(badge)[0]["place"]["text"] == "Library?"
    else:
        place = {"lat": 1.0, "lon": 2.0, "source": "\udcff"}
        world.say(hub, hub.up(relay.HEALTH, b"", place=place, name=HALF, battery=float("nan")), "status")
        world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
        assert world.alarms(badge)[0]["place"]["source"] == "?"
    with world.core.read() as db:
        shown = views.hub(db, db.get_one(Hub, hub.name))
    json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()
    stream._event("snapshot", {"alarms": stream._snapshot(world.core)}).encode()


def test_what_was_stored_before_is_shown_all_the_same(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.SOS), place={"text": "Library"}))
    with world.core.work() as work:
        sighting = work.db.scalars(select(Sighting)).one()
        sighting.place = {**sighting.place, "text": HALF, "lat": float("nan")} if sighting.place else None
    alarms = stream._snapshot(world.core)
    data = json.loads(stream._event("snapshot", {"alarms": alarms}).encode().splitlines()[1][6:])
    assert data["alarms"][0]["place"]["text"] in ("?", HALF)
    assert JSONResponse({"alarms": alarms}).status_code == 200
    assert HTMLResponse(f"<p>{alarms[0]['place']['text']}</p>").body == b"<p>?</p>"
    assert compact({"at": 1.5, "who": "é"}) == '{"at":1.5,"who":"\\u00e9"}'
    with world.core.read() as db:
        assert db.get_one(Alarm, alarms[0]["id"]).closed_at is None


def test_a_running_station_shows_and_handles_the_poisoned_alarm(station: Running) -> None:
    badge, hub = station.badge(), station.hub()
    station.say(hub, hub.event(badge, badge.event(kinds.SOS), place={"text": HALF}))
    path = f"/alarms/{station.alarm(badge)['id']}"
    with station.person() as op1:
        for page in ("/", path, "/devices"):
            assert op1.get(page, headers={"Accept": "text/html"}).status_code == 200, page
        assert op1.post(path + "/claim").json()["alarm"]["owner"] == "op1"
        # what a program or a person sends is cleaned as well
        body = b'{"text": "calm \\ud800"}'
        noted = op1.post(path + "/note", content=body, headers={"Content-Type": "application/json"})
        assert noted.status_code == 200
        assert "calm ?" in [e["text"] for e in op1.get("/api" + path).json()["timeline"]]
