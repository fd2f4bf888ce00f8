"""The way to the broker, on real brokers: MQTT 5 where it is offered, back by itself, and fast."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from neighbours import broker, until
from paho.mqtt.enums import CallbackAPIVersion

from hub.uplink import RECEIVE_MAX, RETRY_S, Broker, Uplink

HUB = b"testhub!"
BASE = f"tocsin/1/hub/{HUB.hex()}"
BROKERS = {"mosquitto": "5", "amqtt": "3.1.1"}


class Watcher:
    """Another client of the broker."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="watcher")
        self.client.on_message = lambda _c, _u, m: self.messages.append((m.topic, bytes(m.payload), m.retain))
        self.client.on_connect = lambda client, *_: client.subscribe("tocsin/#", 1)
        self.subscribed = False
        self.client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def states(self) -> list[bool]:
        return [json.loads(p)["online"] for topic, p, _ in self.messages if topic.endswith("/state") and p]


class Run:
    """An uplink that runs."""

    def __init__(self, port: int, **options: Any) -> None:
        self.ready: list[bool] = []
        self.down: list[bytes] = []
        self.announced = 0
        self.uplink = Uplink(
            Broker("127.0.0.1", port, **options), HUB, 7, self.ready.append, self.down.append, self._announce
        )

    def _announce(self) -> None:
        self.announced += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Run]:
        task = asyncio.create_task(self.uplink.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (problem := task.exception()):
                raise problem


@pytest.mark.parametrize("kind", BROKERS)
def test_it_speaks_what_the_broker_speaks_and_says_goodbye(kind: str, tmp_path: Path) -> None:
    async def story(port: int) -> None:
        async with Run(port).running() as run:
            await until(lambda: run.ready == [True])
            assert run.uplink.protocol == BROKERS[kind]
            watcher = Watcher(port)
            await until(lambda: watcher.subscribed)
            landed: list[float] = []
            times = []
            for number in range(20):
                started = time.monotonic()
                assert run.uplink.publish("up/event", b"%d" % number, 1, lambda: landed.append(time.monotonic()))
                await until(lambda n=number: len(landed) > n)  # type: ignore[misc]
                times.append(landed[-1] - started)
            assert min(times) < 0.05, "nothing delays every message"
            run.uplink.publish("up/status", b"telemetry", 0)
            watcher.client.publish(f"{BASE}/down", b"from the station", 1)
            watcher.client.publish("tocsin/1/station", b"{}", 1)
            await until(lambda: run.down == [b"from the station"] and run.announced)
            await until(lambda: (f"{BASE}/up/status", b"telemetry", False) in watcher.messages)
        events = [p for topic, p, _ in watcher.messages if topic == f"{BASE}/up/event"]
        assert events == [b"%d" % number for number in range(20)]
        await until(lambda: watcher.states()[-1:] == [False])
        assert json.loads(next(p for t, p, _ in watcher.messages if t.endswith("/state"))) == {
            "hub": HUB.hex(),
            "boot": 7,
            "online": True,
        }
        watcher.close()

    with broker(kind, tmp_path) as port:
        asyncio.run(story(port))


@pytest.mark.parametrize("kind", BROKERS)
def test_a_broker_that_is_killed_is_found_again(kind: str, tmp_path: Path) -> None:
    async def story(port: int) -> None:
        async with Run(port).running() as run:
            await until(lambda: run.ready)
            process.close()
            await until(lambda: run.ready[-1] is False, 10)
            assert not run.uplink.publish("up/event", b"x")
            with broker(kind, tmp_path, port):
                await until(lambda: run.ready[-1], max(RETRY_S) + 10)
                assert run.uplink.publish("up/event", b"x")

    with contextlib.ExitStack() as process:
        asyncio.run(story(process.enter_context(broker(kind, tmp_path))))


def test_a_late_will_does_not_leave_a_living_hub_offline(tmp_path: Path) -> None:
    async def story(port: int) -> None:
        async with Run(port).running() as run:
            await until(lambda: run.ready == [True])
            watcher = Watcher(port)
            await until(lambda: watcher.subscribed)
            watcher.client.publish(f"{BASE}/state", json.dumps({"hub": "x", "boot": 6, "online": False}), 1, True)
            await until(lambda: watcher.states()[-2:] == [False, True])
            watcher.close()

    with broker("mosquitto", tmp_path) as port:
        asyncio.run(story(port))


def test_a_network_that_swallows_everything_is_noticed_in_seconds(tmp_path: Path) -> None:
    """The relay keeps the connections and passes nothing on, as a mobile network does in a cellar."""

    async def story(port: int) -> None:
        passing = True

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError):
                    while data := await source.read(4096):
                        if passing:
                            sink.write(data)

            await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with Run(server.sockets[0].getsockname()[1], keepalive=1).running() as run:
            await until(lambda: run.ready == [True])
            passing = False
            await until(lambda: run.ready[-1] is False, 10)
            passing = True
            await until(lambda: run.ready[-1])
        server.close()

    with broker("mosquitto", tmp_path) as port:
        asyncio.run(story(port))


@pytest.mark.parametrize("version", ["auto", "5", "3.1.1"])
def test_a_broker_that_accepts_and_drops_is_tried_again_and_told(version: str) -> None:
    async def story() -> None:
        tries = 0

        async def drop(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal tries
            tries += 1
            writer.close()

        server = await asyncio.start_server(drop, "127.0.0.1", 0)
        async with Run(server.sockets[0].getsockname()[1], version=version).running() as run:
            begun = time.monotonic()
            await asyncio.sleep(0.6)
            most = len(RETRY_S) + 1 + 2 * (time.monotonic() - begun) / RETRY_S[-1]
            assert tries <= 2 * most, "each may be tried as 5 and as 3.1.1"
            await until(lambda: tries >= 2)
            assert run.ready == []
            await until(lambda: run.uplink.problem not in ("", "not connected yet"))
        server.close()

    asyncio.run(story())


def test_garbage_for_an_answer_is_survived() -> None:
    async def story() -> None:
        async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        async with Run(server.sockets[0].getsockname()[1]).running() as run:
            await asyncio.sleep(0.5)
            assert run.ready == []
        server.close()

    asyncio.run(story())


def test_a_network_without_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.uplink.CONNECT_S", 60.0)  # whoever waited for that would be found out

    async def story() -> None:
        door = socket.create_server(("127.0.0.1", 0), backlog=0)
        fillers = []
        for _ in range(3):  # nobody accepts, so further connections hang
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(door.getsockname())
            fillers.append(filler)
        async with Run(door.getsockname()[1]).running() as run:
            await asyncio.sleep(0.2)
            assert run.ready == []
        for filler in fillers:
            filler.close()
        door.close()

    started = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - started < 10


def test_what_the_station_says_while_the_connection_is_gone_waits_at_the_broker(tmp_path: Path) -> None:
    """A session that outlives the connection for a minute, and no more under way at once than the hub takes."""

    async def story(port: int) -> None:
        async with Run(port, version="5").running() as run:
            await until(lambda: run.ready == [True])
        watcher = Watcher(port)
        await until(lambda: watcher.subscribed)
        said = [b"%d" % number for number in range(RECEIVE_MAX + 50)]
        for message in said:
            watcher.client.publish(f"{BASE}/down", message, 1)
        await until(lambda: [p for topic, p, _ in watcher.messages if topic == f"{BASE}/down"] == said)
        async with Run(port, version="5").running() as run:
            await until(lambda: len(run.down) >= len(said))
            assert run.down == said
        watcher.close()

    with broker("mosquitto", tmp_path) as port:
        asyncio.run(story(port))
