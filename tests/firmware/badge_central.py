"""A hub and a station in one small object, to try a badge against over the simulated air.

It does what the protocol says and nothing more: hears beacons, connects, holds a session, opens what the badge sealed,
and answers. What it must not do at a time (`answer`, `hold`, `connect`) can be switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from dataclasses import dataclass, field

from bumble import hci
from bumble.core import UUID
from bumble.device import Advertisement, Connection, Device, Peer
from bumble.host import Host
from bumble.transport.common import Transport

from firmware.emulator.air.client import open_hci
from protocol import audio, beacon, downlink, kinds, link
from protocol import events as wire
from protocol.crypto import Forged
from protocol.ident import NONE
from protocol.keys import BadgeKeys
from protocol.session import HubLink

RX, TX = UUID(link.RX), UUID(link.TX)
PATIENCE_S = 30.0  # for what has to come: a machine that stalls for seconds is no reason to fail


@dataclass
class Heard:
    """An event that came, by whichever way; `at` is CLOCK_MONOTONIC seconds of its first arrival."""

    kind: int
    ident: bytes
    via: str
    at: float
    event: wire.Event | None = None
    shown: int = 0
    times: int = 1


@dataclass
class Central:
    """`events` by identity; `beacons` is every new advertisement heard (address, beacon)."""

    badge: int
    root: bytes
    group_key: bytes
    connect: bool = True
    answer: bool = True
    hold: bool = True
    enrol: bool = False
    hub_id: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    events: dict[bytes, Heard] = field(default_factory=dict)
    beacons: list[tuple[float, str, beacon.Beacon]] = field(default_factory=list)
    statuses: list[wire.Event] = field(default_factory=list)
    sounds: dict[tuple[bytes, int], dict[int, bytes]] = field(default_factory=dict)
    sound_order: list[tuple[int, int]] = field(default_factory=list)
    level: int = kinds.RAISED
    flags: int = 0
    incident: bytes = NONE
    link: HubLink | None = None

    def __post_init__(self) -> None:
        self.keys = BadgeKeys(self.root)
        self.group = beacon.Group(self.group_key)
        self.changed = asyncio.Event()
        self.boot = b""
        self.echo = 0
        self.number = 0
        self._transport: Transport | None = None
        self._device: Device | None = None
        self._connection: Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._stop = False

    # --- the air

    async def open(self, host: str, port: int, name: str = "hub:test") -> None:
        transport = self._transport = await open_hci(host, port, name)
        address = hci.Address("C0:" + ":".join(f"{b:02X}" for b in os.urandom(5)))
        self._device = Device(name=name, address=address, host=Host(transport.source, transport.sink))
        await self._device.power_on()
        self._device.on("advertisement", self._on_advertisement)
        await self._device.start_scanning(legacy=True, active=False, filter_duplicates=False)
        self._tasks.append(asyncio.create_task(self._run()))

    async def close(self) -> None:
        self._stop = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            await self._transport.close()

    def _on_advertisement(self, advertisement: Advertisement) -> None:
        data = beacon.parse_advertisement(bytes(advertisement.data_bytes))
        found = beacon.route([self.group], data) if data else None
        if found is None or found.badge != self.badge:
            return
        address = str(advertisement.address)
        if not self.beacons or self.beacons[-1][2].rotation != found.rotation:
            self.beacons.append((time.monotonic(), address, found))
            kind = beacon.verify(self.keys.beacon, found)
            if kind is not None and beacon.announces(kind) and kind != kinds.ENROL:
                self._note(Heard(kind, found.ident, "beacon", time.monotonic(), None, found.kind))
            self.changed.set()
        if self.link is None and self.connect:
            self._wanted.put_nowait(address)

    async def _run(self) -> None:
        while not self._stop:  # Bumble itself waits in ways that can swallow a cancellation on Python 3.11
            address = await self._wanted.get()
            while not self._wanted.empty():
                address = self._wanted.get_nowait()
            if self.link is None and self.connect:
                with contextlib.suppress(Exception):
                    await self._talk(address)
                self.link = None

    async def _talk(self, address: str) -> None:
        assert self._device is not None
        connection = await self._device.connect(hci.Address(address), timeout=2.0)
        self._connection = connection
        gone = asyncio.Event()
        connection.on("disconnection", lambda _reason: gone.set())
        try:
            peer = Peer(connection)
            await peer.request_mtu(247)
            await peer.discover_services()
            await peer.discover_characteristics()
            rx = peer.get_characteristics_by_uuid(RX)[0]
            tx = peer.get_characteristics_by_uuid(TX)[0]
            now = int(time.monotonic() * 1000)
            key = None if self.enrol else self.keys.link(self.hub_id)
            self.link = HubLink(self.hub_id, self.badge, key, os.urandom, now, 244, self.enrol)
            await peer.subscribe(tx, self._on_value)
            self.link.start(now, True)
            while not gone.is_set() and self.connect and not self._stop:
                now = int(time.monotonic() * 1000)
                chunks, deadline = self.link.poll(now)
                for chunk in chunks:
                    await rx.write_value(chunk, with_response=False)
                if self.link.dead(now):
                    break
                self.changed.clear()
                wait = min(0.5, max(0.0, ((deadline or now) - now) / 1000))
                with contextlib.suppress(asyncio.TimeoutError):
                    async with asyncio.timeout(wait):
                        await self.changed.wait()
        finally:
            self.link = None
            if not gone.is_set() and not self._stop:
                await connection.disconnect()

    async def hang_up(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.disconnect()

    # --- what the badge says

    def _on_value(self, value: bytes) -> None:
        if self.link is None:
            return
        for kind, body in self.link.receive(bytes(value), int(time.monotonic() * 1000)):
            self._message(kind, body)
        self.changed.set()

    def _message(self, kind: int, body: bytes) -> None:
        assert self.link is not None
        if kind == link.ESTABLISHED:
            if body != self.boot:
                self.boot, self.echo = body, 0
        elif kind == link.EVENT:
            shown, ident, _, _, _, blob = link.unpack_event(body)
            self._take(blob, shown, ident)
        elif kind == link.TELEMETRY:
            _, blob = link.unpack_telemetry(body)
            event = self._open(blob)
            self.statuses.append(event)
            if self.answer:
                self.say(downlink.PROOF, downlink.pack_state(self.incident or event.incident, self.level, self.flags))
        elif kind == link.AUDIO:
            boot, capture, index, sealed = link.unpack_audio(body)
            packets = self.sounds.setdefault((boot, capture), {})
            packets[index] = audio.open_audio(self.keys.audio, self.badge, boot, capture, index, sealed)
            self.sound_order.append((capture, index))
            if len(packets) % 8 == 0 or index + 1 < max(packets):
                self.acknowledge(boot, capture)
        elif kind == link.ENROL:
            self._take(body[8:], kinds.ENROL, body[:8])

    def acknowledge(self, boot: bytes, capture: int) -> None:
        packets = self.sounds[(boot, capture)]
        following = min(packets)
        while following in packets:
            following += 1
        beyond = sum(1 << i for i in range(64) if following + 1 + i in packets)
        if self.link is not None and self.link.established:
            self.link.send(link.AUDIO_ACK, link.pack_audio_ack(boot, capture, following, beyond))

    def _open(self, blob: bytes) -> wire.Event:
        event, boot, number = wire.open_event(self.keys.events, self.badge, blob)
        if boot != self.boot or number > self.echo:
            self.boot, self.echo = boot, number
        return event

    def _take(self, blob: bytes, shown: int, ident: bytes) -> None:
        event = self._open(blob)
        assert event.ident == ident
        self._note(Heard(event.kind, ident, "connection", time.monotonic(), event, shown))
        if self.link is None or not self.link.established:
            return
        if self.hold:
            self.link.send(link.HELD, link.pack_held([ident]))
        if self.answer:
            if event.incident != NONE and event.kind in kinds.ALARMS and self.incident == NONE:
                self.incident, self.level = event.incident, kinds.RECEIVED
            level = self.level if event.incident == self.incident else 0
            self.say(downlink.RECEIPT, downlink.pack_receipt(ident, event.incident, level, self.flags))

    def _note(self, heard: Heard) -> None:
        known = self.events.get(heard.ident)
        if known is None:
            self.events[heard.ident] = heard
        else:
            known.times += 1
            known.event = known.event or heard.event

    # --- what the station says

    def sealed(self, kind: int, body: bytes, echo: int | None = None) -> bytes:
        self.number += 1
        message = downlink.Down(kind, self.number, self.boot, self.echo if echo is None else echo, body)
        return downlink.seal_down(self.keys.down, self.badge, os.urandom(13), message)

    def say(self, kind: int, body: bytes, echo: int | None = None) -> None:
        if self.link is not None:
            self.link.station(self.sealed(kind, body, echo))
            self.changed.set()

    def state(self, level: int, flags: int = 0) -> None:
        self.level, self.flags = level, flags
        self.say(downlink.STATE, downlink.pack_state(self.incident, level, flags))

    # --- waiting

    def find(self, kind: int) -> Heard | None:
        return next((heard for heard in self.events.values() if heard.kind == kind), None)

    async def until(self, what: object, seconds: float = PATIENCE_S) -> None:
        """Wait until `what()` is true; raises TimeoutError."""
        assert callable(what)
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise TimeoutError("it did not happen")
            await asyncio.sleep(0.02)

    async def event(self, kind: int, seconds: float = PATIENCE_S) -> Heard:
        await self.until(lambda: self.find(kind) is not None, seconds)
        found = self.find(kind)
        assert found is not None
        return found


__all__ = ["Central", "Forged", "Heard"]
