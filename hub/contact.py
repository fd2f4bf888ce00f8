"""One connection to one badge, from dialling to hanging up. What is said on it is protocol.session's business.

There are three reasons to connect: a session with an enrolled badge; the question to be enrolled, which becomes a
session when the station sends the key; and the visit of a guest, which hands over what the station sealed for a badge
that this hub has no key for, and leaves.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable

from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

from hub.badges import Event
from hub.clock import Clock
from hub.connection import Connection
from hub.radio import Radio
from protocol import link
from protocol.chunks import PAYLOAD_MAX, PAYLOAD_MIN
from protocol.session import HubLink

LINGER_MS = 1500  # a guest that has said everything waits so long: the next word of the station may follow at once


class Purpose(enum.Enum):
    """Why the hub connects."""

    SESSION = "session"
    ENROL = "enrol"
    GUEST = "guest"


class Contact:
    """A connection in the making, or made.

    `on_message(type, body)` gets what the badge says, `on_change(event, reason)` what happens to the connection.
    `passkey`: pair with it before asking to be enrolled.
    """

    def __init__(
        self,
        radio: Radio,
        hub_id: bytes,
        badge: int,
        purpose: Purpose,
        key: bytes | None,
        clock: Clock,
        on_message: Callable[[int, bytes], None],
        on_change: Callable[[Event, str], None],
        passkey: int | None = None,
    ) -> None:
        self.purpose = purpose
        self.boot = b""
        self._radio = radio
        self._hub_id = hub_id
        self._badge = badge
        self._key = key if purpose is Purpose.SESSION else None
        self._clock = clock
        self._on_message = on_message
        self._on_change = on_change
        self._passkey = passkey
        self._connection: Connection | None = None
        self._link: HubLink | None = None
        self._wake = asyncio.Event()
        self._dropped = False
        self._said_ms = 0
        self._payload = PAYLOAD_MIN
        self._asked = False

    @property
    def established(self) -> bool:
        """Whether the badge has proved itself."""
        return self._link is not None and self._link.established

    @property
    def open(self) -> bool:
        """Whether station() can hand something over now."""
        return self._link is not None and not self._dropped

    @property
    def linked(self) -> bool:
        """Whether the badge has answered at all."""
        return self._connection is not None and self._connection.linked

    def proved_within(self, ms: int) -> bool:
        """Whether something authentic has come on the session in this time."""
        session = self._link
        return session is not None and session.established and self._clock.now_ms() - session.heard_ms <= ms

    @property
    def pairs(self) -> bool:
        """Whether it is about to pair, or at it."""
        return self._passkey is not None and self._link is None

    def counters(self) -> dict[str, int]:
        """What arrived on this connection and could not be used."""
        return dict(self._link.counters) if self._link else {}

    def send(self, kind: int, body: bytes) -> bool:
        """Say something inside the session; False without one."""
        if self._link is None or not self._link.established:
            return False
        self._link.send(kind, body)
        self._wake.set()
        return True

    def station(self, blob: bytes) -> None:
        """Hand the badge something that the station sealed. Needs `open`."""
        assert self._link is not None
        self._link.station(blob)
        self._said_ms = self._clock.now_ms()
        self._wake.set()

    async def run(self, device: BLEDevice, uplink: bool) -> None:
        """Dial, talk, and hang up at the end. `uplink`: the hub has proof of the station."""
        try:
            connection = self._connection = self._radio.connection(device, self._on_dropped)
        except BleakError as problem:
            self._on_change(Event.FAILED, str(problem))
            return
        try:
            try:
                await connection.connect(self._passkey, self._answers)
                if self.purpose is not Purpose.GUEST:
                    await connection.listen(self._on_notified)
            except (BleakError, OSError, TimeoutError) as problem:
                self._on_change(Event.FAILED, str(problem) or type(problem).__name__)
                return
            self._payload = max(PAYLOAD_MIN, min(connection.payload, PAYLOAD_MAX))
            self._begin(uplink)
            self._on_change(Event.CONNECTED, "")
            await self._talk(connection)
        finally:
            await connection.hang_up()

    def _answers(self) -> None:
        if self._passkey is not None:
            self._on_change(Event.PAIRS, "")

    def _begin(self, uplink: bool) -> None:
        now = self._clock.now_ms()
        enrol = self.purpose is Purpose.ENROL
        self._link = HubLink(self._hub_id, self._badge, self._key, os.urandom, now, self._payload, enrol)
        self._link.start(now, uplink)
        self._said_ms = now
        self._wake.set()

    def enrolled(self, key: bytes, uplink: bool) -> None:
        """The station has sent the key that was asked for: go on with a session."""
        self.purpose = Purpose.SESSION
        self._key = key
        if self._link is not None:
            self._begin(uplink)

    async def _talk(self, connection: Connection) -> None:
        while True:
            now = self._clock.now_ms()
            session = self._link
            assert session is not None
            chunks: list[bytes] = []
            deadline: int | None = None
            if not (self._asked and self.purpose is Purpose.ENROL):
                # after the answer, each further HELLO would make the badge raise another ENROL event
                chunks, deadline = session.poll(now)
            try:
                for chunk in chunks:
                    await connection.write(chunk)
            except (BleakError, OSError, TimeoutError) as problem:
                self._on_change(Event.DROPPED if self._dropped else Event.FAILED, str(problem))
                return
            if self._dropped:
                self._on_change(Event.DROPPED, "the badge or the air ended it")
                return
            if self.purpose is Purpose.GUEST:
                deadline = self._said_ms + LINGER_MS
                if now >= deadline:
                    self._on_change(Event.DONE, "")
                    return
            elif session.dead(now):
                self._on_change(Event.MUTE, "nothing authentic came")
                return
            wait_ms = max(0, (deadline if deadline is not None else now + 1000) - now)
            try:
                async with asyncio.timeout(min(wait_ms / 1000, 1.0)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _on_dropped(self) -> None:
        self._dropped = True
        self._wake.set()

    def _on_notified(self, value: bytes) -> None:
        session = self._link
        if session is None:
            return
        for kind, body in session.receive(value, self._clock.now_ms()):
            if kind == link.ESTABLISHED:
                self.boot = body
                if self._connection is not None:
                    self._connection.proved = True
                self._on_change(Event.PROVED, "")
            elif kind != link.ENROL:
                self._on_message(kind, body)
            elif not self._asked:
                self._asked = True
                self._on_message(kind, body)
        self._wake.set()
