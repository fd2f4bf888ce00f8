"""The archive's listeners: none of them can stop the station, every one of them is in the log, and sessions end."""

import asyncio
import contextvars
import threading
import time

import pytest
from sqlalchemy import select
from station_asgi import TOKEN, Web
from station_parts import Badge, Hub
from station_world import World

from protocol import adpcm, audio, events, kinds
from station import accounts, timers
from station.console.sound import HEARING_S, Hearings
from station.model import Audit
from station.model import Hub as HubRow
from station.store import VISITOR

PROGRAM = {"authorization": f"Bearer {TOKEN}"}
STALLED = 60  # far more than there are connections


@pytest.fixture
def sounding(world: World) -> tuple[Badge, Hub, bytes]:
    """An open SOS with 37 s of sound."""
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    world.say(hub, hub.event(badge, sos))
    body = events.pack_audio(1, kinds.SOS, 0, 0, 400)
    world.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=sos.ident, body=body)))
    packet = adpcm.encode_packet([0] * adpcm.SAMPLES, 0, 0)[0]
    sealed = [(n, audio.seal_audio(badge.keys.audio, badge.number, badge.boot, 1, n, packet)) for n in range(1500)]
    for first in range(0, 1500, 150):
        world.say(hub, hub.sound(badge, 1, sealed[first : first + 150]), "audio")
    return badge, hub, sos.ident


def _heard(world: World) -> list[tuple[str, str]]:
    with world.core.read() as db:
        rows = db.scalars(select(Audit).where(Audit.what == "archive heard").order_by(Audit.id))
        return [(row.who, row.about) for row in rows]


# --- none of them stops the station -----------------------------------------------------------------------------


def test_stalled_replays_hold_nothing_of_the_database(world: World, sounding: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = sounding
    web = Web(world)
    store = world.core.store

    async def story() -> None:
        me = web.session()
        replays = [web.request("/alarms/1/audio.wav", me, takes=3) for _ in range(STALLED)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(replay.has(3) for replay in replays))
        assert [store.engine.pool.checkedout(), store.visitors.pool.checkedout()] == [0, 0]  # type: ignore[attr-defined]
        began = time.monotonic()
        world.say(hub, hub.event(badge, badge.event(kinds.LANYARD, incident=incident)))
        timers.step(world.core)
        assert time.monotonic() - began < 20.0
        with store.engine.connect() as db:
            busy, *_ = db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
        assert busy == 0, "no reader pins the log"
        for replay in replays:
            await replay.end()
        whole = await web.get("/alarms/1/audio.wav", me)
        assert (whole[0], len(whole[1])) == (200, 44 + 1500 * 800)

    asyncio.run(story())
    assert {s["kind"] for s in world.alarms(badge)[0]["signals"]} == {"sos", "lanyard"}


def test_when_requests_have_taken_all_their_connections_alarms_and_timers_find_one(
    world: World, sounding: tuple[Badge, Hub, bytes]
) -> None:
    badge, hub, incident = sounding
    web, store = Web(world), world.core.store
    store.visitors.pool._timeout = 0.3  # type: ignore[attr-defined]
    me = web.session()
    held = [store.visitors.connect() for _ in range(15)]
    refused: list[str] = []

    def write() -> None:
        VISITOR.set(True)
        try:
            with world.core.work() as work:
                work.db.get(HubRow, hub.name)
        except Exception as error:
            refused.append(type(error).__name__)

    waiting = threading.Thread(target=contextvars.Context().run, args=(write,))
    began = time.monotonic()
    waiting.start()
    world.say(hub, hub.event(badge, badge.event(kinds.LANYARD, incident=incident)))
    timers.step(world.core)
    timers.supervise(world.core)
    assert waiting.is_alive() or time.monotonic() - began > 0.3, "a request that waits for a connection holds up nobody"
    waiting.join()
    assert refused == ["TimeoutError"]
    status, body = asyncio.run(web.get("/api/alarms", me))
    assert (status, b"database" in body) == (503, True)
    for connection in held:
        connection.close()
    assert asyncio.run(web.get("/api/alarms", me))[0] == 200


# --- every one of them is in the log ----------------------------------------------------------------------------


@pytest.mark.parametrize("part", [None, "bytes=0-", "bytes=44-", "bytes=1-", "bytes=100-299", "bytes=-800"])
def test_whoever_hears_any_part_of_the_archive_is_in_the_log(
    world: World, sounding: tuple[Badge, Hub, bytes], part: str | None
) -> None:
    web = Web(world)
    headers = web.session() | ({"range": part} if part else {})
    status, body = asyncio.run(web.get("/alarms/1/audio.wav", headers))
    assert status in (200, 206)
    assert body
    assert _heard(world) == [("op1", "alarm:1")]


def test_the_jumps_of_one_player_are_one_line_and_a_minute_later_there_is_another(
    world: World, sounding: tuple[Badge, Hub, bytes]
) -> None:
    web = Web(world)
    now = [100.0]
    web.app.state.hearings = Hearings(world.core, lambda: now[0])
    op1, op2 = web.session(), web.session("op2")

    def hear(who: dict[str, str], part: str) -> None:
        assert asyncio.run(web.get("/alarms/1/audio.wav", who | {"range": part}))[0] in (206, 416)

    for first in range(44, 5000, 1000):
        hear(op1, f"bytes={first}-")
        now[0] += HEARING_S / 10
    hear(op2, "bytes=99999999-")
    assert _heard(world) == [("op1", "alarm:1")], "what gives no sound is no hearing"
    hear(op2, "bytes=50-")
    assert _heard(world) == [("op1", "alarm:1"), ("op2", "alarm:1")]
    now[0] += HEARING_S
    hear(op1, "bytes=44-")
    assert len(_heard(world)) == 3


def test_a_program_hears_nothing(world: World, sounding: tuple[Badge, Hub, bytes]) -> None:
    web = Web(world)
    for more in ({}, {"range": "bytes=44-"}):
        status, body = asyncio.run(web.get("/alarms/1/audio.wav", PROGRAM | more))
        assert status == 403
        assert b"operator" in body
    assert _heard(world) == []


# --- sessions end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["another password", "too old"])
def test_an_event_stream_ends_with_its_session(world: World, way: str) -> None:
    web = Web(world)
    me = web.session()

    async def story() -> None:
        stream = web.request("/events", me)
        program = web.request("/events", PROGRAM)
        async with asyncio.timeout(30):
            await stream.has(4)  # start, retry and hello, snapshot
        _end_session(world, way)
        async with asyncio.timeout(30):
            await stream.task
        assert not program.task.done(), "a program has no session that could end"
        await program.end()

    asyncio.run(story())


@pytest.mark.parametrize("way", ["another password", "too old"])
def test_live_sound_ends_with_its_session(world: World, sounding: tuple[Badge, Hub, bytes], way: str) -> None:
    web = Web(world)
    me = web.session() | {"origin": "http://x"}

    async def story() -> None:
        socket = web.request("/alarms/1/audio", me, method="WS")
        async with asyncio.timeout(30):
            await socket.has(2)
        _end_session(world, way)
        async with asyncio.timeout(30):
            await socket.task
        assert socket.said[-1]["type"] == "websocket.close"
        assert socket.said[-1]["code"] == 4403

    asyncio.run(story())
    with world.core.read() as db:
        assert db.scalar(select(Audit).where(Audit.what == "listen out")) is not None


def _end_session(world: World, way: str) -> None:
    if way == "too old":
        world.clock.advance(accounts.SESSION_S + 1)
    else:
        accounts.put(world.core, "op1", "another-password", "admin")
