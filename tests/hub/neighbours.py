"""The hub's neighbours, small enough to be told what to do: an air, a badge, a broker, a station.

They speak the real protocol over the real air and a real broker; only what they decide is scripted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from bumble import hci
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service
from bumble.host import Host
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from paho.mqtt.enums import CallbackAPIVersion

from drill.processes import Port
from firmware.emulator.air.client import open_hci
from firmware.emulator.air.link import Air
from firmware.emulator.air.server import serve
from hub.bumble_backend import quiet_formatting
from hub.identity import verifier
from protocol import answer, beacon, downlink, ident, kinds, link, relay
from protocol.events import Event, open_event, seal_event
from protocol.keys import BadgeKeys
from protocol.session import BadgeLink

GROUP = bytes(range(16))


GUARD_S = 30.0  # for what takes a fraction of a second where nothing stalls; how quick it is is measured in bench/


async def until(true: Callable[[], object], seconds: float = GUARD_S, what: str = "") -> None:
    """Wait for something; fails with `what` when it does not come. Give `seconds` only where time is what is tested."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not true():
        if loop.time() > end:
            await asyncio.sleep(0.1)  # what came while this process was stalled is read before it is judged
            assert true(), f"not within {seconds:g} s: {what or true}"
            return
        await asyncio.sleep(0.005)


def on_disk(outbox: Path) -> set[bytes]:
    """The identities of all events that a hub's outbox has on its disk, at this moment."""
    with contextlib.closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as database:
        return {row[0] for row in database.execute("SELECT ident FROM outbox WHERE form = ?", (relay.EVENT,))}


@contextlib.asynccontextmanager
async def air() -> AsyncIterator[tuple[Air, int]]:
    """An air in this process, and the port of its door."""
    quiet_formatting()
    the_air = Air(1)
    server = await serve(the_air, "127.0.0.1", 0)
    try:
        yield the_air, server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Gate:
    """A hub's own network: closed, it resets what is open and refuses what comes."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = 0
        self.open = True
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Gate:
        """From now on what comes to `port` passes."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            return
        if not self.open:  # closed in the meantime
            writer.transport.abort()
            other_writer.transport.abort()
            return
        for end in (writer, other_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends |= {writer, other_writer}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.transport.abort()

        await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))
        self._ends -= {writer, other_writer}

    def close(self) -> None:
        """Nothing passes any more, until `open` is set."""
        self.open = False
        for end in list(self._ends):
            end.transport.abort()

    def end(self) -> None:
        """No more of it."""
        if self._server is not None:
            self._server.close()
        self.close()


class Badge:
    """A badge that does what it is told, with the real session, seals and beacons."""

    def __init__(self, number: int, name: str, root: bytes | None = None) -> None:
        self.number = number
        self.name = name
        self.root = root or os.urandom(32)
        self.keys = BadgeKeys(self.root)
        self.boot = ident.boot_bytes(1, os.urandom(4))
        self.group = beacon.Group(GROUP)
        self.kind = kinds.STATUS
        self.seq = 0
        self.uplinks = 0
        self.rotation = 0
        self.window = False
        self.resends = True
        self.links: dict[int, BadgeLink] = {}
        self.connections: dict[int, Connection] = {}
        self.held: list[bytes] = []
        self.downs: list[downlink.Down] = []
        self.acks: list[tuple[bytes, int, int, int]] = []
        self.uplink: bool | None = None
        self.log: list[tuple[float, str]] = []
        self.answers: list[tuple[bytes, int, int]] = []  # heard as advertisements: ident, level, rotation
        self.listening = False
        self._task: asyncio.Task[None] | None = None
        self._tx: Characteristic[bytes] | None = None
        self._transport: Any = None
        self._rotating = asyncio.Lock()
        self._start = time.monotonic()

    def _now(self) -> int:
        return int((time.monotonic() - self._start) * 1000)

    async def join(self, port: int) -> Badge:
        """Come on the air and advertise."""
        self._transport = await open_hci("127.0.0.1", port, self.name)
        self.device = Device(
            name=self.name,
            address=hci.Address.generate_static_address(),
            host=Host(self._transport.source, self._transport.sink),
        )
        rx: Characteristic[bytes] = Characteristic(
            link.RX,
            Characteristic.Properties.WRITE | Characteristic.Properties.WRITE_WITHOUT_RESPONSE,
            Characteristic.WRITEABLE,
            CharacteristicValue[bytes](write=self._written),
        )
        self._tx = Characteristic(link.TX, Characteristic.Properties.NOTIFY, Characteristic.Permissions(0), b"")
        self.device.add_service(Service(link.SERVICE, [rx, self._tx]))
        self.device.on("connection", self._connected)
        await self.device.power_on()
        await self.rotate()
        self._task = asyncio.create_task(self._poll())
        return self

    async def leave(self) -> None:
        """Vanish from the air."""
        if self._task:
            self._task.cancel()
        await self._transport.close()

    async def rotate(self) -> None:
        """A new address and a new beacon, together."""
        async with self._rotating:
            self.rotation += 1
            data = beacon.advertisement(
                beacon.seal_beacon(
                    self.group,
                    self.keys.beacon,
                    self.number,
                    self.boot,
                    self.seq,
                    kinds.ENROL if self.window else self.kind,
                    kinds.ENROL if self.window else self.kind,
                    80,
                    self.rotation,
                )
            )
            if self.device.legacy_advertiser:
                await self.device.stop_advertising()
            if self.listening:
                await self.device.stop_scanning(legacy=True)
            address = hci.Address.generate_static_address()
            self.device.random_address = address
            await self.device.send_sync_command(hci.HCI_LE_Set_Random_Address_Command(random_address=address))
            await self.device.start_advertising(
                auto_restart=False, advertising_data=data, advertising_interval_min=100, advertising_interval_max=100
            )
            if self.listening:
                await self.device.start_scanning(legacy=True, active=False)

    async def listen(self) -> None:
        """Hear what hubs broadcast."""
        self.listening = True
        self.device.on("advertisement", self._heard)
        await self.device.start_scanning(legacy=True, active=False)

    def _heard(self, advertisement: Any) -> None:
        data = beacon.parse_advertisement(bytes(advertisement.data_bytes))
        if data and not advertisement.is_connectable:
            found = answer.open_answer(self.group, self.keys.answer, self.number, self.boot, data)
            if found:
                self.answers.append(found)

    def _connected(self, connection: Connection) -> None:
        self.log.append((time.monotonic(), "connected"))
        handle = connection.handle
        self.connections[handle] = connection
        payload = 20
        self.links[handle] = BadgeLink(
            self.number, self.boot, lambda hub: self.keys.link(hub), os.urandom, self._now(), payload
        )
        connection.on(connection.EVENT_DISCONNECTION, lambda _reason: self._gone(handle))
        self.device.legacy_advertiser = None
        asyncio.get_running_loop().create_task(self.rotate())

    def _gone(self, handle: int) -> None:
        self.log.append((time.monotonic(), "disconnected"))
        self.links.pop(handle, None)
        self.connections.pop(handle, None)

    def _written(self, connection: Connection, value: bytes) -> None:
        session = self.links.get(connection.handle)
        if session is None:
            return
        session.payload = max(session.payload, connection.att_mtu - 3)
        for kind, body in session.receive(bytes(value), self._now()):
            if kind == link.ESTABLISHED:
                self.log.append((time.monotonic(), "established"))
            elif kind == link.ENROL_REQUEST and self.window:
                self.seq += 1
                event = Event(kinds.ENROL, ident.pack(self.boot, self.seq), body=body)
                session.enrol(ident.pack(self.boot, self.seq), self._seal(event))
            elif kind == link.HELD:
                self.held += link.unpack_held(body)
            elif kind == link.STATION:
                self.downs.append(downlink.open_down(self.keys.down, self.number, body))
                session.vouch(self._now())
            elif kind == link.AUDIO_ACK:
                self.acks.append(link.unpack_audio_ack(body))
            elif kind in (link.READY, link.UPLINK):
                self.uplink = bool(body[0])
        self._flush(connection.handle)

    def _flush(self, handle: int) -> None:
        session, connection = self.links.get(handle), self.connections.get(handle)
        if session is None or connection is None or self._tx is None:
            return
        for chunk in session.poll(self._now())[0]:
            asyncio.get_running_loop().create_task(self.device.notify_subscriber(connection, self._tx, chunk))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for handle, session in list(self.links.items()):
                if session.dead(self._now()):
                    with contextlib.suppress(Exception):
                        await self.connections[handle].disconnect()
                else:
                    self._flush(handle)

    @property
    def receipted(self) -> set[bytes]:
        """Which events the station's word has come for."""
        return {down.body[:8] for down in self.downs if down.type == downlink.RECEIPT}

    @property
    def established(self) -> bool:
        """Whether a hub has proved itself."""
        return any(session.established for session in self.links.values())

    def _seal(self, event: Event) -> bytes:
        self.uplinks += 1
        return seal_event(self.keys.events, self.number, self.boot, self.uplinks, event)

    def event(self, kind: int, fresh: bool = True) -> bytes:
        """Something happens; sent in every session. Gives its identity; `fresh` False repeats the last one."""
        if fresh:
            self.seq += 1
        name = ident.pack(self.boot, self.seq)
        blob = self._seal(Event(kind, name))
        if kinds.priority(kind) == kinds.PRIORITY_ALARM:
            self.kind = kind
        self.say(link.EVENT, link.pack_event(kind, name, 0, 80, 0, blob))
        return name

    def status(self) -> None:
        """Send a STATUS."""
        blob = self._seal(Event(kinds.STATUS, ident.pack(self.boot, 0)))
        self.say(link.TELEMETRY, link.pack_telemetry(80, blob))

    def audio(self, capture: int, index: int, size: int = 211) -> None:
        """Send a packet of sound, sealed or not: the hub cannot tell."""
        self.say(link.AUDIO, link.pack_audio(self.boot, capture, index, index.to_bytes(4, "big") + bytes(size - 4)))

    def say(self, kind: int, body: bytes) -> None:
        """Send a message in every session."""
        for handle, session in list(self.links.items()):
            if session.established:
                session.send(kind, body)
                self._flush(handle)


class Station:
    """A station in a thread of paho: verifies, remembers, answers while `answers`."""

    def __init__(self, port: int, badges: list[Badge]) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.badges = {badge.number: badge for badge in badges}
        self.answers = True
        self.enrolled: dict[bytes, set[int]] = {}
        self.hubs: dict[bytes, tuple[bytes, bytes]] = {}
        self.events: list[tuple[float, relay.Up, int, bytes, int]] = []  # at, message, badge, ident, kind
        self.telemetry: list[relay.Up] = []
        self.health: list[dict[str, Any]] = []
        self.audio: list[tuple[float, int, int, int, bytes]] = []  # at, badge, capture, index, sealed
        self.states: list[dict[str, Any]] = []
        self.rejected: list[bytes] = []
        self.bad: list[str] = []
        self._number = 0
        self._keys_number = 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="station")
        self.client.on_message = self._on_message
        self.client.on_connect = lambda client, *_: client.subscribe("tocsin/1/hub/#", 1)
        self.client.connect("127.0.0.1", port, 10)
        sock = self.client.socket()
        assert isinstance(sock, socket.socket)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.loop_start()

    def close(self) -> None:
        """Stop."""
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, hub: bytes, kind: int, payload: bytes) -> None:
        """Something signed for a hub."""
        self._number += 1
        message = relay.pack_down(self.key.sign, relay.Down(kind, hub, self._number, payload))
        self.client.publish(f"tocsin/1/hub/{hub.hex()}/down", message, 1)

    def down(self, badge: int, kind: int = downlink.STATE, echo: int = 0, name: bytes = b"") -> bytes:
        """A sealed message for a badge; a receipt is for the event `name`."""
        fake = self.badges[badge]
        self._number += 1
        body = name + downlink.pack_state(bytes(8), kinds.CLAIMED)
        message = downlink.Down(kind, self._number, fake.boot, echo, body)
        return downlink.seal_down(fake.keys.down, badge, os.urandom(13), message)

    def send_keys(self, hub: bytes) -> None:
        """The group key and the hub's link keys."""
        links = {str(n): self.badges[n].keys.link(hub).hex() for n in self.enrolled.setdefault(hub, set())}
        self._keys_number += 1
        text = json.dumps({"group": [GROUP.hex()], "links": links, "number": self._keys_number}).encode()
        ephemeral = X25519PrivateKey.generate()
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.hubs[hub][1]))
        self.send(hub, relay.KEYS, relay.seal_keys(shared, ephemeral.public_key().public_bytes_raw(), hub, text))

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        try:
            self._take(message.topic, bytes(message.payload))
        except Exception as problem:
            self.bad.append(f"{message.topic}: {type(problem).__name__}: {problem}")

    def _take(self, topic: str, data: bytes) -> None:
        if topic.endswith("/down"):
            return
        if topic.endswith("/state"):
            self.states.append(json.loads(data))
            return
        hub = relay.sender(data)
        if topic.endswith("/hello") and hub not in self.hubs:
            self.hubs[hub] = data[-64 - 64 : -64 - 32], data[-64 - 32 : -64]
        up = relay.unpack_up(verifier(self.hubs[hub][0]), data)
        now = time.monotonic()
        if up.type == relay.HELLO:
            if self.answers:
                self.send_keys(hub)
        elif up.type == relay.HEALTH:
            self.health.append(json.loads(up.facts))
        elif up.type == relay.TELEMETRY:
            badge, _, blob = relay.unpack_telemetry(up.payload)
            _, _, number = open_event(self.badges[badge].keys.events, badge, blob)
            self.telemetry.append(up)
            if self.answers:
                self.send(hub, relay.DOWN, relay.pack_down_badge(badge, self.down(badge, downlink.PROOF, number)))
        elif up.type == relay.AUDIO:
            badge, boot, capture, packets = relay.unpack_audio(up.payload)
            self.audio += [(now, badge, capture, index, sealed) for index, sealed in packets]
            if self.answers:
                ranges = [(index, index) for index, _ in packets]
                self.send(hub, relay.AUDIO_RECEIPT, relay.pack_audio_receipt(badge, boot, capture, ranges))
        elif up.type == relay.BEACON:
            heard = relay.unpack_beacon(up.payload)
            kind = beacon.verify(self.badges[heard.badge].keys.beacon, heard) if heard.badge in self.badges else None
            if kind is None:
                self.rejected.append(heard.ident)
                if self.answers:
                    self.send(hub, relay.REJECTED, relay.pack_receipt(heard.badge, heard.ident, b"", relay.BEACON))
                return
            self.events.append((now, up, heard.badge, heard.ident, kind))
            self._receipt(hub, heard.badge, heard.ident, downlink.BEACON | heard.rotation, relay.BEACON)
            if self.answers:
                fake = self.badges[heard.badge]
                sealed = answer.seal_answer(
                    fake.group, fake.keys.answer, heard.badge, fake.boot, heard.ident, kinds.RECEIVED, heard.rotation
                )
                self.send(hub, relay.ANSWER, relay.pack_down_badge(heard.badge, sealed))
        elif up.type == relay.EVENT:
            badge, _, _, _, _, _, blob = relay.unpack_event(up.payload)
            event, _, number = open_event(self.badges[badge].keys.events, badge, blob)
            self.events.append((now, up, badge, event.ident, event.kind))
            if event.kind == kinds.ENROL and self.answers:
                self.enrolled.setdefault(hub, set()).add(badge)
                self.send_keys(hub)
            self._receipt(hub, badge, event.ident, number)

    def _receipt(self, hub: bytes, badge: int, name: bytes, echo: int, form: int = relay.EVENT) -> None:
        if self.answers:
            blob = self.down(badge, downlink.RECEIPT, echo, name)
            self.send(hub, relay.RECEIPT, relay.pack_receipt(badge, name, blob, form))


_held: list[Port] = []


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given while the tests run."""
    _held.append(Port())
    return _held[-1].number


@contextlib.contextmanager
def broker(kind: str, folder: Path, port: int = 0) -> Iterator[int]:
    """A real broker as a child process; gives its port. Skips when it is not installed."""
    port = port or free_port()
    if kind == "mosquitto":
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed: apt install mosquitto")
        config = folder / f"mosquitto-{port}.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
        command = [program, "-c", str(config)]
    else:
        command = [sys.executable, str(Path(__file__).with_name("amqtt_broker.py")), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert time.monotonic() < end, f"{kind} does not start"
                assert process.poll() is None, f"{kind} has ended"
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()
