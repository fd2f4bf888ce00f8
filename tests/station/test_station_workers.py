"""Several workers on one database: any of them may die, and consoles at any of them see and hear the same."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from station_running import Running, running, until
from test_station_broker import start_broker
from test_station_http import Follower

from protocol import events, kinds
from station.console.stream import _Shown


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
        process.wait(5)


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
        async with asyncio.timeout(5):
            assert json.loads(await socket.recv())["type"] == "hello"
        body = events.pack_audio(1, kinds.SOS, 0, 0, 400)
        one.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=incident, body=body)))
        for first in (0, 4):
            one.say(hub, hub.sound(badge, 1, badge.sound(1, first, 4)), "audio")
        numbers: list[int] = []
        while len(numbers) < 8:
            async with asyncio.timeout(5):
                message = await socket.recv()
            if isinstance(message, bytes):
                assert message[1] == 1, "live"
                numbers.append(int.from_bytes(message[8:12], "big"))
        return len(set(numbers))


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
