"""Several workers on one database: any of them may die, and consoles at any of them see and hear the same."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import websockets
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from station_asgi import TOKEN, Web
from station_running import PATIENCE_S, Running, running, until
from station_world import World
from test_station_broker import start_broker
from test_station_http import Follower

from protocol import events, kinds
from station import alarms
from station.config import Config
from station.console import stream
from station.console.stream import _Shown
from station.model import News
from station.news import KEEP_S, LOOK_S
from station.news import Follower as Reader
from station.store import Store, sqlite_url
from station.vault import Vault
from station.work import Core


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """Two workers and a broker of its own."""
    process, port = start_broker("auto")
    options: dict[str, Any] = {"more": "workers = 2", "broker": f'host = "127.0.0.1"\nport = {port}'}
    try:
        with running(tmp_path, worker=1, **options) as one, running(tmp_path, worker=2, **options) as two:
            yield one, two
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_an_alarm_is_one_alarm_at_both_and_outlives_the_death_of_either(pair: tuple[Running, Running]) -> None:
    one, two = pair
    badge, hub = one.badge(), one.hub()
    with one.person() as op1, two.person("op2", "second-operator") as op2:
        consoles = [Follower(op1), Follower(op2)]
        sos = badge.event(kinds.SOS)
        one.say(hub, hub.event(badge, sos))
        alarm = one.alarm(badge)
        path = f"/alarms/{alarm['id']}"
        for console in consoles:
            until(lambda c=console: c.changes(alarm["id"]), "event at each worker")  # type: ignore[misc]
        assert op1.post(path + "/claim").status_code == 200
        assert op2.post(path + "/claim").status_code == 409
        until(lambda: "claimed" in consoles[1].changes(alarm["id"]), "the other's claim")
        assert asyncio.run(_hear(one, two, op2.cookies["tocsin_session"], badge, hub, alarm["id"], sos.ident)) == 8
        assert [c.changes(alarm["id"]).count("raised") for c in consoles] == [1, 1]
        one.process.send_signal(signal.SIGKILL)
        assert op2.post(path + "/takeover").json()["alarm"]["owner"] == "op2"
        second = two.badge()
        two.say(hub, hub.event(second, second.event(kinds.SOS)))
        assert len(until(lambda: two.alarms(second), "an alarm after the death")) == 1
        assert len(two.alarms(badge)) == 1


async def _hear(one: Running, two: Running, session: str, badge: Any, hub: Any, alarm_id: int, incident: bytes) -> int:
    """Sound that either worker may store first reaches the listener at the second, each packet once."""
    url = two.url.replace("http", "ws") + f"/alarms/{alarm_id}/audio"
    headers = {"Cookie": f"tocsin_session={session}"}
    origin = websockets.Origin(two.url)
    async with websockets.connect(url, origin=origin, additional_headers=headers, proxy=None) as socket:
        async with asyncio.timeout(PATIENCE_S):
            assert json.loads(await socket.recv())["type"] == "hello"
        body = events.pack_audio(1, kinds.SOS, 0, 0, 400)
        one.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=incident, body=body)))
        for first in (0, 4):
            one.say(hub, hub.sound(badge, 1, badge.sound(1, first, 4)), "audio")
        numbers: list[int] = []
        while len(numbers) < 8:
            async with asyncio.timeout(PATIENCE_S):
                message = await socket.recv()
            if isinstance(message, bytes):
                assert message[1] == 1, "live"
                numbers.append(int.from_bytes(message[8:12], "big"))
        return len(set(numbers))


# --- the word from one worker to the other, step by step -----------------------------------------------------------


class Second:
    """Another worker of a world's station, which looks for news when the test says so."""

    def __init__(self, world: World) -> None:
        world.config.station.workers = 2
        config = Config()
        config.station.workers, config.station.worker = 2, 2
        store, vault = Store(sqlite_url(world.folder / "station.db")), Vault.open(world.folder / "station.key")
        self.core = Core(store, vault, world.clock, config)
        self.now = 0.0
        self.heard: list[str] = []
        self.core.on_news(lambda out: self.heard.extend(n.data["change"] for n in out.notices if n.event == "alarm"))
        self.follower = Reader(self.core, set, lambda: self.now)

    def look(self, times: int = 1, apart: float = LOOK_S) -> list[str]:
        """What it heard since the last time."""
        for _ in range(times):
            self.follower.look()
            self.now += apart
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def second(world: World) -> Iterator[Second]:
    """A second worker."""
    made = Second(world)
    yield made
    made.core.store.close()


def test_the_other_worker_hears_of_a_commit_however_long_it_took_and_wherever_the_clock_went(
    world: World, second: Second
) -> None:
    badge, hub = world.badge(), world.hub()
    second.look()
    write = world.core.store.write

    @contextlib.contextmanager
    def slow() -> Iterator[Session]:
        with write() as db:
            yield db
            db.flush()
            world.clock.advance(30)
            second.now += 30
            assert second.look() == [], "nothing before it is committed"

    with mock.patch.object(world.core.store, "write", slow):
        world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    assert second.look(3) == ["raised"]
    world.clock.advance(-3600)
    world.say(hub, hub.event(badge, badge.event(kinds.LANYARD)))
    assert "raised" in second.look(3)
    world.clock.advance(7200)
    other = world.badge()
    world.say(hub, hub.event(other, other.event(kinds.SOS)))
    assert second.look(3) == ["raised"]


def _news(world: World, number: int, change: str, worker: int = 1) -> None:
    notice = ["alarm", {"alarm": _alarm(1), "change": change}]
    with world.core.store.write() as db:
        db.add(News(id=number, worker=worker, at=0.0, notices=[notice], sounds=[], closed=[]))


def test_what_was_numbered_early_and_committed_late_is_looked_for(world: World, second: Second) -> None:
    last = second.follower._last
    _news(world, last + 4, "fourth")
    assert second.look() == ["fourth"]
    _news(world, last + 2, "second")
    _news(world, last + 3, "own", worker=2)
    assert second.look() == ["second"], "and its own it knows"
    second.look(20, apart=2.0)
    _news(world, last + 1, "first")
    _news(world, last + 5, "fifth")
    assert second.look() == ["first", "fifth"]
    assert second.look(3) == [], "each once"
    _news(world, last + 7, "seventh")
    second.look(40, apart=2.0)
    assert not second.follower._holes, "a number that was never used is not looked for for ever"


def test_one_piece_of_news_that_cannot_be_read_keeps_nothing_from_the_consoles(world: World, second: Second) -> None:
    last = second.follower._last
    with world.core.store.write() as db:
        db.add(News(id=last + 1, worker=1, at=0.0, notices=[], sounds=[[999, 7, [0]]], closed=[]))
    second.follower._wanted = lambda: {7}
    _news(world, last + 2, "after it")
    assert second.look(2) == ["after it"]


def test_news_are_forgotten_after_a_minute_and_no_number_comes_twice(world: World, second: Second) -> None:
    badge, hub = world.badge(), world.hub()
    for _ in range(3):
        world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    assert second.look()
    second.look(3, apart=KEEP_S + 1)
    with world.core.read() as db:
        assert list(db.scalars(select(News.id))) == [second.follower._last], "the newest stays"
    other = world.badge()
    world.say(hub, hub.event(other, other.event(kinds.SOS)))
    assert second.look() == ["raised"]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams tick and look more often than a test would want to wait for."""
    monkeypatch.setattr(stream, "TICK_S", 0.05)
    monkeypatch.setattr(stream, "LOOK_S", 0.1)


@pytest.mark.usefixtures("hurried")
def test_a_console_whose_word_was_lost_is_told_within_seconds(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    world.operator("op1")
    web = Web(world)

    async def story() -> list[tuple[str, int]]:
        with mock.patch.object(stream.Broadcast, "_all"):  # nothing that is committed reaches a stream
            console = web.request("/events", {"authorization": f"Bearer {TOKEN}"})
            await console.has(4)
            with world.core.work() as work:
                alarm = work.alarm(1)
                assert alarm is not None
                alarms.claim(work, alarm, "op1")
            later = world.badge()
            world.say(hub, hub.event(later, later.event(kinds.SOS)))
            found: list[tuple[str, int]] = []
            async with asyncio.timeout(10):
                while len(found) < 3:
                    await console.has(len(console.said) + 1)
                    found = _told(console.body)
                    if len(found) == 2:
                        _close(world)
            await console.end()
            return found

    assert asyncio.run(story()) == [("missed", 1), ("raised", 2), ("closed", 1)]


def _close(world: World) -> None:
    with world.core.work() as work:
        alarm = work.alarm(1)
        if alarm is not None and alarm.closed_at is None:
            alarms.close(work, alarm, "op1", "resolved", "spoke_to_wearer")


def _told(body: bytes) -> list[tuple[str, int]]:
    data = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    return [(d["change"], d["alarm"]["id"]) for d in data if "change" in d]


@pytest.mark.usefixtures("hurried")
def test_no_tick_comes_while_the_station_cannot_read_what_is_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PROVEN_S", 0.3)
    web = Web(world)

    async def story() -> None:
        console = web.request("/events", {"authorization": f"Bearer {TOKEN}"})
        await console.has(4)
        gone = OperationalError("SELECT", {}, Exception("disk I/O error"))
        with mock.patch.object(stream, "_look", side_effect=gone):
            await asyncio.sleep(1.0)
            ticks = console.body.count(b"event: tick")
            await asyncio.sleep(0.5)
            assert console.body.count(b"event: tick") == ticks
        async with asyncio.timeout(10):
            while console.body.count(b"event: tick") < ticks + 2:
                await console.has(len(console.said) + 1)
        await console.end()

    asyncio.run(story())


def test_a_console_knows_what_it_is_behind_and_hears_of_it_once() -> None:
    shown = _Shown([_alarm(2)])
    assert shown.behind({7: 2}) == set()
    assert shown.behind({7: 3, 8: 1}) == {7, 8}
    assert shown.behind({}) == {7}, "closed"
    assert shown.missed(_alarm(3)) == "missed"
    assert shown.change(_alarm(3), "claimed") is None, "its word comes after all"
    assert shown.change(_alarm(4), "note") == "note"
    assert shown.missed(_alarm(4)) is None
    assert shown.missed(_alarm(5, open_=False)) == "closed"
    assert shown.behind({}) == set()
    assert _Shown([]).missed(_alarm(1)) == "raised"


def _alarm(version: int, open_: bool = True) -> dict[str, Any]:
    return {"id": 7, "version": version, "open": open_}


def test_a_console_is_told_raised_once_and_nothing_older_after_something_newer() -> None:
    shown = _Shown([])
    # the other worker's news of the raising come after our own of the claim
    assert shown.change(_alarm(2), "claimed") == "raised"
    assert shown.change(_alarm(1), "raised") is None
    assert shown.change(_alarm(3), "note") == "note"
    assert shown.change(_alarm(3), "seen") == "seen"
    shown = _Shown([_alarm(2)])
    assert shown.change(_alarm(2), "claimed") is None
    assert shown.change(_alarm(1), "raised") is None
    assert shown.change(_alarm(3), "closed") == "closed"
    assert _Shown([]).change(_alarm(9, open_=False), "note") == "note"
