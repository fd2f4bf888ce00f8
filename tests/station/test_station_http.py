"""The HTTP interface of a running station: who may do what, and what programs are given."""

import asyncio
import json
import struct
import threading
import time
import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from station_parts import Badge, Hub
from station_running import PATIENCE_S, Running, until

from protocol import downlink, events, kinds, relay

HEADER = struct.Struct(">BBHHHII")


@pytest.fixture
def raised(station: Running) -> tuple[Badge, Hub, bytes]:
    """A badge with an open SOS."""
    badge, hub = station.badge(), station.hub()
    event = badge.event(kinds.SOS)
    station.say(hub, hub.event(badge, event, rssi=-60))
    station.alarm(badge)
    return badge, hub, event.ident


def _sound(station: Running, badge: Badge, hub: Hub, incident: bytes) -> None:
    body = events.pack_audio(1, kinds.SOS, 0, 0, 400)
    station.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=incident, body=body)))


# --- who may ----------------------------------------------------------------------------------------------------


def test_nobody_gets_in_without_signing_in(station: Running) -> None:
    with httpx.Client(base_url=station.url, trust_env=False, timeout=PATIENCE_S) as stranger:
        for path in ("/", "/alarms/1", "/visits", "/devices", "/events", "/api/alarms", "/api/audit"):
            assert stranger.get(path).status_code == 401, path
        page = stranger.get("/alarms/1", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "/login?next=/alarms/1")
        for path in ("/alarms/1/claim", "/visits", "/api/badges", "/tick", "/logout"):
            assert stranger.post(path).status_code == 401, path
        assert stranger.get("/api/health").json()["ok"] is True
        assert "counters" not in stranger.get("/api/health").json()
        assert stranger.get("/api/alarms", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_wrong_password_is_refused_and_logged(station: Running) -> None:
    headers = {"Accept": "application/json"}
    with httpx.Client(base_url=station.url, trust_env=False, headers=headers, timeout=PATIENCE_S) as stranger:
        for name in ("op1", "nobody"):
            reply = stranger.post("/login", data={"username": name, "password": "guess"})
            assert (reply.status_code, reply.json()) == (401, {"error": "Name or password is wrong"})
    rows = station.api.get("/api/audit").json()["audit"]
    assert [r["what"] for r in rows].count("sign-in failed") == 2


def test_the_cookie_is_strict_and_every_change_needs_our_own_origin(
    station: Running, raised: tuple[Badge, Hub, bytes]
) -> None:
    with station.person() as op1:
        fresh = op1.post("/login", data={"username": "op1", "password": "first-operator"})
        cookie = fresh.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        path = f"/alarms/{station.alarm(raised[0])['id']}/note"
        for origin in ("http://elsewhere.example", "null"):
            assert op1.post(path, data={"text": "x"}, headers={"Origin": origin}).status_code == 403
        del op1.headers["origin"]
        assert op1.post(path, data={"text": "x"}).status_code == 403
        assert op1.get("/api/alarms").status_code == 200


def test_pages_carry_a_strict_content_policy_and_no_inline_script(station: Running) -> None:
    with station.person() as op1:
        for path in ("/", "/visits", "/devices"):
            page = op1.get(path, headers={"Accept": "text/html"})
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "<script>" not in page.text
            assert " style=" not in page.text
            assert " on" + "click=" not in page.text


def test_signing_out_ends_the_session(station: Running) -> None:
    with station.person() as op1:
        token = op1.cookies["tocsin_session"]
        assert op1.post("/logout").status_code == 303
        assert op1.get("/api/alarms", headers={"Cookie": f"tocsin_session={token}"}).status_code == 401


def test_a_program_may_read_and_provision_and_not_act_for_a_person(
    station: Running, raised: tuple[Badge, Hub, bytes]
) -> None:
    alarm = station.alarm(raised[0])
    for act in ("claim", "takeover", "listen", "next-step", "note", "close"):
        assert station.api.post(f"/alarms/{alarm['id']}/{act}").status_code == 403
    assert station.api.get("/api/audit/verify").json()["whole"] is True


# --- alarms -----------------------------------------------------------------------------------------------------


def test_an_alarm_goes_from_claim_to_closed_and_programs_see_each_step(
    station: Running, raised: tuple[Badge, Hub, bytes]
) -> None:
    path = f"/alarms/{station.alarm(raised[0])['id']}"
    with station.person() as op1, station.person("op2", "second-operator") as op2:
        assert op1.post(path + "/claim").json()["alarm"]["owner"] == "op1"
        second = op2.post(path + "/claim")
        assert (second.status_code, second.json()["owner"]) == (409, "op1")
        page = op2.post(path + "/claim", headers={"Accept": "text/html"})
        assert page.status_code == 409
        assert "Take over from op1" in page.text
        assert op2.post(path + "/takeover", data={"reason": "shift"}).json()["alarm"]["owner"] == "op2"
        assert op2.post(path + "/note", json={"text": "calm"}).status_code == 200
        assert op2.post(path + "/next-step").status_code == 200
        assert op2.post(path + "/close", json={"outcome": "help_given"}).status_code == 400
        assert op1.post(path + "/close", json={"outcome": "resolved", "welfare": True}).status_code == 409
        closed = op2.post(path + "/close", json={"outcome": "resolved", "welfare": True}).json()["alarm"]
        assert (closed["open"], closed["welfare"]) == (False, "spoke_to_wearer")
        whats = [e["what"] for e in op1.get("/api" + path).json()["timeline"]]
    assert whats[0] == "raised"
    for what in ("claimed", "taken_over", "note", "step", "closed"):
        assert what in whats
    topic = f"tocsin/1/alarms/{closed['incident']}"

    def heard() -> list[Any]:
        return [json.loads(m.payload) if m.payload else None for m in list(station.heard) if m.topic == topic]

    until(lambda: None in heard(), "cleared")
    said = heard()
    assert [s["level"] for s in said[:-1] if s][-1] == "claimed"
    assert said[-1] is None


def test_what_is_asked_wrongly_is_answered_with_a_sentence(station: Running, raised: tuple[Badge, Hub, bytes]) -> None:
    path = f"/alarms/{station.alarm(raised[0])['id']}"
    with station.person() as op1:
        for status, reply in (
            (404, op1.get("/alarms/99999")),
            (404, op1.get("/nowhere")),
            (405, op1.get(path + "/claim")),
            (404, op1.post(path + "/dance")),
            (404, op1.post("/alarms/99999/claim")),
            (400, op1.post(path + "/note", data={"text": ""})),
            (400, op1.post(path + "/note", content=b"{", headers={"Content-Type": "application/json"})),
            (400, op1.post(path + "/note", json=[1])),
            (413, op1.post(path + "/note", content=b"x" * 70_000)),
            (413, op1.post(path + "/note", content=iter([b"x" * 9000] * 9))),
            (400, op1.post("/visits", json={"badge": 12345})),
            (400, op1.post("/visits", json={"badge": raised[0].number, "minutes": "soon"})),
            (400, op1.post("/tick", json={"seen": "all"})),
            (404, op1.post("/visits/999/end")),
            (409, station.api.post("/api/hubs/0000000000000000/accept")),
            (404, station.api.post("/api/badges/99999/revoke")),
            (400, station.api.get("/api/alarms?state=odd")),
        ):
            assert reply.status_code == status, reply.text
            assert reply.json()["error"]


def test_visits_are_planned_and_ended_over_the_interface(station: Running) -> None:
    badge = station.badge()
    reply = station.api.post("/visits", json={"badge": badge.number, "minutes": 0.5, "grace": 0.1, "with": "Mr X"})
    visit = reply.raise_for_status().json()["visit"]
    assert (visit["state"], visit["with"], visit["minutes"]) == ("running", "Mr X", 0.5)
    ended = station.api.post(f"/visits/{visit['id']}/end").json()["visit"]
    assert ended["state"] == "ended"
    assert station.api.post(f"/visits/{visit['id']}/extend").status_code == 409


def test_every_field_that_programs_are_given_is_documented(station: Running, raised: tuple[Badge, Hub, bytes]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "station-api.md").read_text()
    badge, hub, _ = raised
    station.api.post("/visits", json={"badge": badge.number, "minutes": 30}).raise_for_status()
    station.say(hub, hub.event(badge, badge.event(kinds.TEST)))
    until(lambda: station.api.get("/api/tests").json()["tests"], "test")
    for what in ("alarms", "visits", "badges", "hubs", "tests", "supervision", "audit"):
        row = station.api.get(f"/api/{what}").json()[what][-1]
        for field in row:
            assert f'"{field}"' in text or f"`{field}`" in text, f"{field} of {what} is not documented"


# --- live -------------------------------------------------------------------------------------------------------


class Follower(threading.Thread):
    """Follows /events in a thread."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.events: list[tuple[str, dict[str, Any], float]] = []
        self.start()
        until(lambda: any(name == "snapshot" for name, _, _ in self.events), "snapshot")

    def run(self) -> None:
        try:
            with self.client.stream("GET", "/events", timeout=None) as reply:
                name = ""
                for line in reply.iter_lines():
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: "):
                        self.events.append((name, json.loads(line[6:]), time.time()))
        except httpx.HTTPError:
            pass  # the test closed the client

    def changes(self, alarm_id: int) -> list[str]:
        """What happened to an alarm."""
        return [d["change"] for n, d, _ in self.events if n == "alarm" and d["alarm"]["id"] == alarm_id]


def test_a_console_hears_of_an_alarm_at_once_exactly_once_and_its_seeing_is_noted(station: Running) -> None:
    badge, hub = station.badge(), station.hub()
    with station.person() as op1:
        follower = Follower(op1)
        sos = badge.event(kinds.SOS)
        for _ in range(3):
            station.say(hub, hub.event(badge, sos))
        alarm = station.alarm(badge)
        until(lambda: follower.changes(alarm["id"]), "event")
        assert op1.post("/tick", json={"console": "c1", "seen": [alarm["id"]]}).status_code == 200
        assert station.alarm(badge)["seen_at"] is not None
        until(lambda: "seen" in follower.changes(alarm["id"]), "seen event")
        assert follower.changes(alarm["id"]).count("raised") == 1
        late = Follower(op1)
        snapshot = next(d for n, d, _ in late.events if n == "snapshot")
        assert alarm["id"] in [a["id"] for a in snapshot["alarms"]]
        assert "raised" not in late.changes(alarm["id"])
        until(lambda: [n for n, _, _ in follower.events].count("tick") >= 2, "ticks")


def test_sound_reaches_a_listener_live_with_its_place_and_the_badge_hears_of_it(
    station: Running, raised: tuple[Badge, Hub, bytes]
) -> None:
    badge, hub, incident = raised
    alarm_id = station.alarm(badge)["id"]
    _sound(station, badge, hub, incident)
    archive = badge.sound(1, 0, 8)
    station.say(hub, hub.sound(badge, 1, archive), "audio")
    until(lambda: station.alarm(badge)["audio"]["seconds"] >= 0.2, "archive")
    with station.person() as op1:
        op1.post(f"/alarms/{alarm_id}/claim")
        assert op1.post(f"/alarms/{alarm_id}/listen").json()["websocket"] == f"/alarms/{alarm_id}/audio"
        live, texts = asyncio.run(_listen(station, op1, badge, hub, alarm_id))
        listened = station.alarm(badge)
        assert listened["level"] == "listening"
        assert listened["listening_at"] is not None
        entries = [e["what"] for e in op1.get(f"/api/alarms/{alarm_id}").json()["timeline"]]
        assert "listen_in" in entries
        until(
            lambda: "listen_out" in [e["what"] for e in op1.get(f"/api/alarms/{alarm_id}").json()["timeline"]],
            "listen-out logged",
        )
    flags, stream, capture, index, position, samples = live[0]
    assert (flags, stream, capture, index, position, samples) == (0, 1, 1, 0, 0, 400)
    assert [m[3] for m in live] == list(range(16))
    order = [m[0] for m in live]
    assert order[:8] == [0] * 8
    assert order == sorted(order), "what comes live comes after what was archived"
    assert [m[4] for m in live] == [400 * i for i in range(16)]
    assert [t["type"] for t in texts][:2] == ["hello", "capture"]
    assert texts[1]["boot"] == int.from_bytes(badge.boot[:2], "big")
    topic = f"tocsin/1/hub/{hub.name}/down"
    key = bytes.fromhex(station.ready["station_key"])

    def levels() -> list[int]:
        down = [hub.open(key, bytes(m.payload)) for m in list(station.heard) if m.topic == topic]
        told = [badge.open(relay.unpack_down_badge(m.payload)[1]) for m in down if m.type == relay.DOWN]
        return [downlink.unpack_state(m.body)[1] for m in told if m.type == downlink.STATE]

    until(lambda: len(levels()) >= 2, "the badge is told")
    assert levels() == [kinds.CLAIMED, kinds.LISTENING]


async def _listen(
    station: Running, op1: httpx.Client, badge: Badge, hub: Hub, alarm_id: int
) -> tuple[list[tuple[int, ...]], list[dict[str, Any]]]:
    headers = {"Cookie": f"tocsin_session={op1.cookies['tocsin_session']}"}
    url = station.url.replace("http", "ws") + f"/alarms/{alarm_id}/audio?from=start"
    live: list[tuple[int, ...]] = []
    texts: list[dict[str, Any]] = []
    async with websockets.connect(
        url, origin=websockets.Origin(station.url), additional_headers=headers, proxy=None
    ) as socket:
        while len(live) < 16:
            async with asyncio.timeout(PATIENCE_S):
                message = await socket.recv()
            if isinstance(message, str):
                texts.append(json.loads(message))
                continue
            _, flags, stream, capture, _, index, position = HEADER.unpack(message[:16])
            live.append((flags, stream, capture, index, position, (len(message) - 16) // 2))
            if len(live) == 8:
                station.say(hub, hub.sound(badge, 1, badge.sound(1, 8, 8)), "audio")
    return live, texts


def test_nobody_listens_without_a_session_from_elsewhere_or_to_a_closed_alarm(
    station: Running, raised: tuple[Badge, Hub, bytes]
) -> None:
    alarm_id = station.alarm(raised[0])["id"]
    with station.person() as op1:
        cookie = {"Cookie": f"tocsin_session={op1.cookies['tocsin_session']}"}
        tries: list[tuple[dict[str, str], str]] = [
            ({}, station.url),
            (cookie, "http://elsewhere.example"),
            ({"Authorization": "Bearer token-for-tests-0123456789"}, station.url),
        ]
        op1.post(f"/alarms/{alarm_id}/claim")
        op1.post(f"/alarms/{alarm_id}/close", json={"outcome": "training", "welfare": "seen_in_person"})
        tries.append((cookie, station.url))

        async def refused(headers: dict[str, str], origin: str) -> None:
            url = station.url.replace("http", "ws") + f"/alarms/{alarm_id}/audio"
            with pytest.raises((websockets.InvalidStatus, websockets.ConnectionClosed)):
                async with websockets.connect(
                    url, origin=websockets.Origin(origin), additional_headers=headers, proxy=None
                ) as socket:
                    await socket.recv()

        for headers, origin in tries:
            asyncio.run(refused(headers, origin))
        assert op1.post(f"/alarms/{alarm_id}/listen").status_code == 409


def test_the_archive_is_a_wav_file_with_its_gaps_told(station: Running, raised: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = raised
    alarm_id = station.alarm(badge)["id"]
    _sound(station, badge, hub, incident)
    packets = badge.sound(1, 0, 10)
    station.say(hub, hub.sound(badge, 1, packets[:3] + packets[6:]), "audio")
    until(lambda: station.alarm(badge)["audio"]["seconds"] > 0.17, "archive")
    path = f"/alarms/{alarm_id}/audio.wav"
    with station.person() as op1:
        reply = op1.get(path)
        assert (reply.headers["x-tocsin-gaps"], reply.headers["x-tocsin-gap-seconds"]) == ("1", "0.075")
        with wave.open(BytesIO(reply.content)) as file:
            assert file.getnframes() == 4000
        part = op1.get(path, headers={"Range": "bytes=100-299"})
        assert (part.status_code, part.content) == (206, reply.content[100:300])
        assert op1.get(path, headers={"Range": "bytes=99999-"}).status_code == 416
        assert op1.head(path).headers["x-tocsin-packets"] == "10"
        assert op1.get("/alarms/99999/audio.wav").status_code == 404
    assert station.api.get(path).status_code == 403, "a program may not listen"
