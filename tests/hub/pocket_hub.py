"""The hub of a pocket chain, as a process that can be killed: everything of it is real but the radio.

Its radio is a Unix socket to the test, which plays the badges with the real protocol. One process imports the hub
once and forks a hub for each command on its standard input, so that a life costs milliseconds. A life can be told to
die by SIGKILL at a named point of its code, at the nth time that it comes by. Nothing of this is in the shipped path.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

import hub.app
import hub.identity
from hub import cli, config, outbox
from hub.app import Hub
from hub.audio import Spool
from hub.audiostore import AudioStore
from hub.clock import Clock
from hub.identity import KeyRing
from hub.keeper import Keeper
from hub.modem import Modem
from hub.outbox import Outbox
from hub.secondpath import SecondPath
from hub.uplink import Uplink
from protocol import beacon, relay

FRAME = struct.Struct(">HBI")  # length of what follows the head, what, connection or badge
ADVERT, DIAL, ANSWERED, VALUE, HANG_UP, CLOCK, DISK = range(7)

# name -> (owner, attribute); each has .before and .after
POINTS: dict[str, tuple[Any, str]] = {
    "outbox.load": (Outbox, "load"),
    "outbox.apply": (Outbox, "apply"),
    "keeper.take": (Keeper, "take"),
    "keeper.retire": (Keeper, "retire"),
    "hub.held": (Hub, "_stored"),
    "hub.receipt": (Hub, "_down"),
    "hub.pass_on": (Hub, "_pass_on"),
    "uplink.publish": (Uplink, "publish"),
    "audio.apply": (AudioStore, "apply"),
    "audio.received": (Spool, "received"),
    "audio.receipt": (Spool, "receipt"),
    "keys.open": (KeyRing, "open"),
    "private.write": (hub.identity, "write_private"),
}
MESSAGE_POINTS: dict[str, tuple[Any, str]] = {  # passed only by a hub with a modem
    "second.save": (SecondPath, "_save"),
    "second.hand_over": (SecondPath, "_hand_over"),
    "second.finish": (SecondPath, "_finish"),
    "modem.send": (Modem, "send"),
}
COMMIT, REPLACE = "sqlite.commit", "private.replace"  # inside SQLite's commit, and between a file and its name
NAMES = sorted([f"{name}.{side}" for name in POINTS for side in ("before", "after")] + [COMMIT, REPLACE])


def die() -> None:
    """As if the power went."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, nth: int) -> None:
    """Die at the nth passing of a point."""
    passed = 0

    def passing() -> None:
        nonlocal passed
        passed += 1
        if passed == nth:
            die()

    if point == COMMIT:
        real_open = outbox.open_database

        def opened(*args: Any) -> Any:
            database = real_open(*args)
            database.set_trace_callback(lambda statement: passing() if statement == "COMMIT" else None)
            return database

        setattr(outbox, "open_database", opened)  # noqa: B010
        return
    if point == REPLACE:
        real_replace = Path.replace

        def replaced(path: Path, target: Any) -> Path:
            passing()
            return real_replace(path, target)

        setattr(Path, "replace", replaced)  # noqa: B010
        return
    name, _, side = point.rpartition(".")
    owner, attribute = {**POINTS, **MESSAGE_POINTS}[name]
    real = getattr(owner, attribute)

    @functools.wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            passing()
        result = real(*args, **kwargs)
        if side == "after":
            passing()
        return result

    setattr(owner, attribute, wrapped)


def sabotage(how: str) -> None:
    """Put a defect into the hub that the kill test must find."""
    if how == "held_early":  # the badge is told before the event is on disk, which takes longer than this life
        real_take, real_apply = Keeper.take, Outbox.apply

        def take(keeper: Keeper, *args: Any) -> Any:
            row = real_take(keeper, *args)
            keeper._on_stored(row)
            return row

        def apply(box: Outbox, *args: Any) -> None:
            time.sleep(3600)
            real_apply(box, *args)

        setattr(Keeper, "take", take)  # noqa: B010
        setattr(Outbox, "apply", apply)  # noqa: B010
    elif how == "retired_by_puback":  # the broker's word is taken for the station's
        real_publish = Uplink.publish

        def publish(uplink: Uplink, topic: str, payload: bytes, *args: Any, **kwargs: Any) -> bool:
            def done() -> None:
                for row in MADE[0].keeper.queue.rows() if topic == "up/event" else ():
                    MADE[0].keeper.retire(row.badge, row.ident, (row.form,))

            return real_publish(uplink, topic, payload, 1, done)

        setattr(Uplink, "publish", publish)  # noqa: B010
    else:
        raise ValueError(how)


def trace(path: str) -> None:
    """Write down when an event was heard, stored, and acknowledged by the broker (CLOCK_MONOTONIC)."""
    lines = Path(path).open("a", buffering=1)  # noqa: SIM115 - for as long as the process lives
    real_take, real_stored, real_publish = Keeper.take, Hub._stored, Uplink.publish

    def note(what: str, name: bytes, at: float | None = None) -> None:
        lines.write(f"{what} {name.hex()} {at or time.monotonic()}\n")

    def take(keeper: Keeper, badge: int, ident: bytes, form: int, *args: Any) -> Any:
        if form == relay.EVENT:
            note("heard", ident, PocketRadio.heard_at)
        return real_take(keeper, badge, ident, form, *args)

    def stored(made: Hub, row: Any) -> None:
        if row.form == relay.EVENT:
            note("stored", row.ident)
        real_stored(made, row)

    def publish(uplink: Uplink, topic: str, payload: bytes, qos: int = 1, done: Any = None, **kwargs: Any) -> bool:
        def landed() -> None:
            if topic == "up/event" and len(payload) > 150:
                up = relay.unpack_up(lambda *_: True, payload)
                if up.type == relay.EVENT:
                    note("puback", relay.unpack_event(up.payload)[2])
            if done:
                done()

        return real_publish(uplink, topic, payload, qos, landed if qos else done, **kwargs)

    setattr(Keeper, "take", take)  # noqa: B010
    setattr(Hub, "_stored", stored)  # noqa: B010
    setattr(Uplink, "publish", publish)  # noqa: B010


MADE: list[Hub] = []


class MovedClock(Clock):
    """A clock in the test's hand."""

    moved_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.moved_ms

    def wall(self) -> float:
        return super().wall() + self.moved_ms / 1000


class PocketConnection:
    """A connection of the pocket radio."""

    payload = 244

    def __init__(self, radio: PocketRadio, badge: int, dropped: Callable[[], None]) -> None:
        self._radio, self._badge, self.dropped = radio, badge, dropped
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.notified: Callable[[bytes], None] | None = None

    @property
    def linked(self) -> bool:
        """Whether the badge has answered."""
        return self.answered.done()

    async def connect(self, passkey: int | None = None, answers: Callable[[], None] = lambda: None) -> None:
        """Ask the badge. Nothing is paired here."""
        self._radio.connections[self._badge] = self
        self._radio.tell(DIAL, self._badge)
        async with asyncio.timeout(2):
            await asyncio.shield(self.answered)

    async def listen(self, notified: Callable[[bytes], None]) -> None:
        """Take what it notifies."""
        self.notified = notified

    async def write(self, value: bytes) -> None:
        """Say something to it."""
        if self._radio.connections.get(self._badge) is not self:
            raise BleakError("not connected")
        self._radio.tell(VALUE, self._badge, value)

    async def hang_up(self) -> None:
        """End it."""
        if self._radio.connections.get(self._badge) is self:
            del self._radio.connections[self._badge]
            self._radio.tell(HANG_UP, self._badge)


class PocketRadio:
    """What hub.radio.Radio is to the rest of the hub, over the socket at `path`."""

    path = ""
    clock = MovedClock()
    heard_at = 0.0

    def __init__(self, *args: Any) -> None:
        self.ready = asyncio.Event()
        self.problem = ""
        self.connections: dict[int, PocketConnection] = {}
        self._heard: Callable[[BLEDevice, dict[int, bytes], int], None] = args[3]
        self.last_step = ""
        self.counters: Counter[str] = Counter()
        self._writer: asyncio.StreamWriter | None = None

    @property
    def usable(self) -> bool:
        """Whether there is a radio."""
        return self.ready.is_set()

    def connection(self, device: BLEDevice, dropped: Callable[[], None]) -> PocketConnection:
        """A connection to be made."""
        return PocketConnection(self, int(device.address), dropped)

    async def broadcast(self, data: bytes) -> None:
        """Nobody listens."""

    def status(self) -> dict[str, Any]:
        """For technicians."""
        return {}

    def tell(self, what: int, number: int, data: bytes = b"") -> None:
        """A frame to the test."""
        assert self._writer is not None
        self._writer.write(FRAME.pack(len(data), what, number) + data)

    async def run(self) -> None:
        """Hear for ever."""
        reader, self._writer = await asyncio.open_unix_connection(self.path)
        self.ready.set()
        while True:
            try:
                length, what, number = FRAME.unpack(await reader.readexactly(FRAME.size))
                data = await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                die()  # the test has ended
            connection = self.connections.get(number)
            if what == ADVERT:
                self._heard(BLEDevice(str(number), None, None), {beacon.COMPANY: data}, -60)
            elif what == CLOCK:
                self.clock.moved_ms = int(data)
            elif what == DISK:
                limit = int(data) if data else resource.RLIM_INFINITY
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            elif connection is None:
                continue
            elif what == ANSWERED and not connection.answered.done():
                connection.answered.set_result(None)
            elif what == VALUE and connection.notified:
                PocketRadio.heard_at = time.monotonic()
                connection.notified(data)
            elif what == HANG_UP:
                del self.connections[number]
                connection.dropped()


async def live(order: dict[str, Any]) -> None:
    """One life of a hub."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    made = Hub(config.load(Path(order["config"])), PocketRadio.clock)
    MADE.append(made)
    work = asyncio.create_task(made.run(lambda: None))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


def fork(order: dict[str, Any]) -> int:
    """A hub as ordered; gives its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 2)
        os.dup2(log, 1)
        cli._log(order.get("level", "info"))
        PocketRadio.path = order["air"]
        PocketRadio.clock.moved_ms = order.get("moved_ms", 0)
        setattr(hub.app, "Radio", PocketRadio)  # noqa: B010
        if order.get("sabotage"):
            sabotage(order["sabotage"])
        if order.get("trace"):
            trace(order["trace"])
        if order.get("point"):
            arm(order["point"], order["nth"])
        asyncio.run(live(order))
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Fork a hub for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    cli._die_with_parent()
    print("ready", flush=True)
    for line in sys.stdin:
        print(fork(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
