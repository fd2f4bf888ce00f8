"""A pocket chain: badges with the real protocol but no radio, real hubs that can be killed, a real broker and station.

What a badge was promised it never says again, as if it had been destroyed in that instant: so whatever a hub loses is
missing at the station, and nothing hides it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neighbours import GUARD_S, Gate, broker, until
from pocket_hub import ADVERT, ANSWERED, CLOCK, DIAL, DISK, FRAME, HANG_UP, VALUE
from sqlalchemy import func, select

from hub import control
from protocol import audio, beacon, downlink, events, ident, kinds, link
from protocol.keys import BadgeKeys
from protocol.session import BadgeLink
from station import enrol
from station.config import BrokerTable, Config, StationTable
from station.model import Alarm, BadgeEvent, Capture, Identity, Packet
from station.run import Station
from station.work import Committed

SAY_S = 0.1  # what has no HELD is said again: a badge waits a second
ADVERTISE_S = 0.1
ROTATE_S = 3.0
NOTHING = bytes(8)
SPEECH = bytes(range(203))  # a packet, as far as anybody but the station can tell


class Badge:
    """Seals as the firmware does, and forgets what a hub has taken."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.number: int = given["badge"]
        self.keys = BadgeKeys(bytes.fromhex(given["root"]))
        self.group = beacon.Group(bytes.fromhex(given["group_key"]["key"]))
        self.boot = ident.boot_bytes(1, os.urandom(4))
        self.seq = self.uplinks = self.rotation = 0
        self.kind = kinds.STATUS
        self.raised: dict[bytes, tuple[int, float]] = {}  # kind, when
        self.unheld: dict[bytes, tuple[int, float]] = {}
        self.held: set[bytes] = set()
        self.receipted: set[bytes] = set()
        self.unacked: dict[tuple[int, int], bytes] = {}
        self.acked: set[tuple[int, int]] = set()
        self.session: BadgeLink | None = None
        self.say: Callable[[int, int, bytes], None] | None = None
        self.resends = True
        self.alarm = b""
        self._shown: tuple[int, int] | None = None
        self._rotated = 0.0
        self._beacon = b""

    def now(self) -> int:
        """Milliseconds."""
        return int(time.monotonic() * 1000)

    @property
    def established(self) -> bool:
        """Whether a hub has proved itself."""
        return self.session is not None and self.session.established

    def raise_event(self, kind: int) -> bytes:
        """Something happens."""
        self.seq += 1
        name = ident.pack(self.boot, self.seq)
        self.raised[name] = self.unheld[name] = (kind, time.monotonic())
        if kind in kinds.ALARMS:
            self.kind, self.alarm = kind, name
        self.tell()
        return name

    def speak(self, capture: int, index: int) -> None:
        """A packet of sound."""
        self.unacked[(capture, index)] = audio.seal_audio(
            self.keys.audio, self.number, self.boot, capture, index, SPEECH
        )
        self._packet(capture, index)
        self.flush()

    def _packet(self, capture: int, index: int) -> None:
        if self.session and self.session.established:
            sealed = self.unacked[(capture, index)]
            self.session.send(link.AUDIO, link.pack_audio(self.boot, capture, index, sealed))

    def tell(self) -> None:
        """Say everything that nobody has promised to keep."""
        session = self.session
        if session is None or not session.established:
            return
        for name, (kind, at) in self.unheld.items():
            self.uplinks += 1
            incident = name if kind in kinds.ALARMS else NOTHING
            age = int((time.monotonic() - at) * 1000)
            sealed = events.seal_event(
                self.keys.events, self.number, self.boot, self.uplinks, events.Event(kind, name, age, 80, 0, incident)
            )
            session.send(link.EVENT, link.pack_event(kind, name, age, 80, 0, sealed))
        self.flush()

    def again(self) -> None:
        """Say everything again, sound too."""
        self.tell()
        for capture, index in list(self.unacked)[:40]:
            self._packet(capture, index)
        self.flush()

    def advertisement(self) -> bytes:
        """The beacon, a new one when it is time or something has happened."""
        shown = (self.kind, self.seq)
        if self._shown == shown and time.monotonic() - self._rotated < ROTATE_S:
            return self._beacon
        self._shown, self._rotated = shown, time.monotonic()
        self.rotation += 1
        self._beacon = beacon.seal_beacon(
            self.group, self.keys.beacon, self.number, self.boot, self.seq, self.kind, self.kind, 80, self.rotation
        )
        return self._beacon

    def connected(self) -> None:
        """A hub has dialled."""
        self.session = BadgeLink(self.number, self.boot, self.keys.link, os.urandom, self.now(), 244)

    def hear(self, value: bytes) -> None:
        """The hub writes a value."""
        session = self.session
        if session is None:
            return
        for kind, body in session.receive(value, self.now()):
            if kind == link.ESTABLISHED:
                self.again()
            elif kind == link.HELD:
                for name in link.unpack_held(body):
                    if self.unheld.pop(name, None):
                        self.held.add(name)
            elif kind == link.AUDIO_ACK:
                boot, capture, following, beyond = link.unpack_audio_ack(body)
                for key in [k for k in self.unacked if boot == self.boot and k[0] == capture]:
                    bit = key[1] - following - 1
                    if key[1] < following or (0 <= bit < 64 and beyond >> bit & 1):
                        del self.unacked[key]
                        self.acked.add(key)
            elif kind == link.STATION:
                message = downlink.open_down(self.keys.down, self.number, body)
                if message.type == downlink.RECEIPT:
                    name, flags = message.body[:8], message.body[-1]
                    self.receipted.add(name)
                    if not flags & downlink.BY_BEACON:
                        self.unheld.pop(name, None)
                    if name >= self.alarm:  # an earlier event's may be late
                        self.kind = kinds.STATUS
        self.flush()

    def flush(self) -> None:
        """Notify what the session has to say."""
        if self.session is not None and self.say is not None:
            for chunk in self.session.poll(self.now())[0]:
                self.say(VALUE, self.number, chunk)


@dataclass
class Tally:
    """What was found at the end. `lost`: promised or raised, and not at the station."""

    kills: int = 0
    by_point: int = 0
    events: int = 0
    held: int = 0
    sounds: int = 0
    lost: int = 0
    doubled: int = 0
    untrue: int = 0  # receipts felt for what the station does not have
    lost_sound: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.untrue or self.lost_sound)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.by_point} at a named point): {self.events} events, {self.held} of them "
            f"promised by HELD and forgotten by the badge, {self.sounds} packets of sound acknowledged; "
            f"lost {self.lost}, doubled {self.doubled}, false receipts {self.untrue}, sound lost {self.lost_sound}"
        )


class Pocket:
    """The chain. `start_hub()` begins a life of the hub, `kill()` ends it."""

    def __init__(self, folder: Path, badges: int, port: int, extra: str = "") -> None:
        self.folder = folder
        self.broker_port = port
        self.raised_notices: Counter[int] = Counter()
        self.arrivals: list[tuple[float, int, bytes]] = []
        self.gate = Gate(port)
        self.pid = 0
        self.died = asyncio.Event()
        self.moved_ms = 0
        self._extra = extra
        station = StationTable(port=0, dir=folder / "station", api_token="")
        self.station = Station(Config(station=station, broker=BrokerTable(host="127.0.0.1", port=port)))
        self.station.start()
        self.station.core.on_commit(self._committed)
        self.badges = [self._provisioned(n) for n in range(badges)]
        self._writer: asyncio.StreamWriter | None = None
        self._zygote: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _provisioned(self, number: int) -> Badge:
        with self.station.core.work() as work:
            return Badge(enrol.provision(work, "test", {"wearer": f"Wearer {number}"}))

    def _committed(self, out: Committed) -> None:
        for notice in out.notices:
            if notice.event == "alarm" and notice.data["change"] == "raised":
                self.raised_notices[notice.data["alarm"]["id"]] += 1

    # ------------------------------------------------------------------ the chain

    async def up(self) -> None:
        """Air, network, and a hub that the station knows with every badge enrolled."""
        self._air = await asyncio.start_unix_server(self._hub_came, str(self.folder / "air"))
        await self.gate.start()
        self.config = self.folder / "hub.toml"
        self.config.write_text(
            f'[hub]\nname = "pocket"\ndir = "hub"\n[radio]\nair = "pocket:1"\n[mqtt]\nport = {self.gate.port}\n'
            f'keepalive = 30\nversion = "5"\n[station]\nkey = "{self.station.vault.public_key.hex()}"\n{self._extra}'
        )
        self._zygote = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("pocket_hub.py")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TOCSIN_PARENT_DEATH": "1"},
        )
        assert self._zygote.stdout is not None
        assert await self._zygote.stdout.readline() == b"ready\n"
        self._tasks = [asyncio.create_task(self._advertise()), asyncio.create_task(self._repeat())]
        await self.start_hub()
        await until(lambda: (self.folder / "hub/identity.json").exists(), what="an identity")
        status = await self.status()
        await until(lambda: self._accept(status["hub_id"]), what="its hello")
        await until(lambda: all(badge.established for badge in self.badges), what="sessions")
        await until(self._keys_stored, what="its keys on disk: whoever kills it next counts on them")

    def _keys_stored(self) -> bool:
        stored = self.folder / "hub/keys.json"
        return stored.exists() and len(json.loads(stored.read_bytes())["links"]) == len(self.badges)

    def _accept(self, hub_id: str) -> bool:
        with self.station.core.work() as work:
            hub = work.hub(hub_id)
            if hub is None or hub.box is None:
                return False
            enrol.accept(work, "test", hub_id, {})
            for badge in self.badges:
                found = work.badge(badge.number)
                assert found is not None
                enrol.enrolled(work, found, bytes.fromhex(hub_id))
        return True

    async def start_hub(self, point: str = "", nth: int = 1, sabotage: str = "", trace: str = "") -> None:
        """Begin a life; it dies by itself at the nth passing of a point.

        `sabotage`: see pocket_hub.sabotage. `trace`: a file that hears when each event came, was stored, and had its
        PUBACK.
        """
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self.died = asyncio.Event()
        order = {
            "config": str(self.config),
            "air": str(self.folder / "air"),
            "log": str(self.folder / "hub.log"),
            "point": point,
            "nth": nth,
            "moved_ms": self.moved_ms,
            "sabotage": sabotage,
            "trace": trace,
        }
        self._zygote.stdin.write(json.dumps(order).encode() + b"\n")
        self.pid = int(await self._zygote.stdout.readline())
        self._watch(self.pid, self.died)

    def _watch(self, pid: int, died: asyncio.Event) -> None:
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            died.set()
            return
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(watched)
            os.close(watched)
            died.set()

        loop.add_reader(watched, ended)

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """End a life, if it has not ended."""
        self._signal(number)
        async with asyncio.timeout(GUARD_S):
            await self.died.wait()
        # what it had said before it died is heard
        await until(lambda: self._writer is None, what="the end of its radio")

    def _signal(self, number: int) -> None:
        if self.pid and not self.died.is_set():  # or its number may be somebody else's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def move_clock(self, seconds: float) -> None:
        """Later, for the hub, at once."""
        self.moved_ms += int(seconds * 1000)
        self._tell(CLOCK, 0, str(self.moved_ms).encode())

    def fill_disk(self, full: bool) -> None:
        """No file of the hub can grow, until it is emptied."""
        self._tell(DISK, 0, b"0" if full else b"")

    async def status(self) -> dict[str, Any]:
        """What a technician would see."""
        end = time.monotonic() + GUARD_S
        while True:
            try:
                return await asyncio.to_thread(control.ask, self.folder / "hub/hub.sock")
            except control.NoHub:
                assert time.monotonic() < end, (self.folder / "hub.log").read_text()
                await asyncio.sleep(0.01)

    async def until_status(self, true: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for something that the hub says of itself."""
        end = time.monotonic() + GUARD_S
        while not true(status := await self.status()):
            assert time.monotonic() < end, f"{what}: {status}"
            await asyncio.sleep(0.05)
        return status

    async def down(self) -> None:
        """The end."""
        for task in self._tasks:
            task.cancel()
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.died.wait()
        self._signal(signal.SIGKILL)
        if self._zygote is not None:
            self._zygote.kill()
            await self._zygote.wait()
        self._air.close()
        self.gate.end()
        await asyncio.to_thread(self.station.stop)

    # ------------------------------------------------------------------ air and network

    def _tell(self, what: int, number: int, data: bytes = b"") -> None:
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(FRAME.pack(len(data), what, number) + data)

    async def _hub_came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        by_number = {badge.number: badge for badge in self.badges}
        try:
            while True:
                length, what, number = FRAME.unpack(await reader.readexactly(FRAME.size))
                data = await reader.readexactly(length)
                badge = by_number[number]
                if what == DIAL:
                    badge.say = self._tell
                    badge.connected()
                    self._tell(ANSWERED, number)
                elif what == VALUE:
                    badge.hear(data)
                elif what == HANG_UP:
                    badge.session = None
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        if self._writer is writer:  # another hub may have come meanwhile
            for badge in self.badges:
                badge.session = badge.say = None
            self._writer = None
        writer.close()

    async def _advertise(self) -> None:
        while True:
            for badge in self.badges:
                self._tell(ADVERT, badge.number, badge.advertisement())
            await asyncio.sleep(ADVERTISE_S)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(SAY_S)
            for badge in self.badges:
                if badge.resends:
                    badge.again()

    # ------------------------------------------------------------------ what the station has

    def at_station(self) -> dict[tuple[int, bytes], bool]:
        """Events by badge and identity: whether their envelope has come."""
        with self.station.core.read() as db:
            return {(row.badge, row.ident): row.sealed for row in db.scalars(select(Identity))}

    def events_at_station(self) -> int:
        """How many events it has."""
        with self.station.core.read() as db:
            return db.scalar(select(func.count()).select_from(Identity)) or 0

    def has(self, badge: Badge, name: bytes) -> bool:
        """Whether the station has this event."""
        with self.station.core.read() as db:
            return db.get(Identity, (badge.number, name)) is not None

    def rows(self) -> list[BadgeEvent]:
        """The events in the order in which they came."""
        with self.station.core.read() as db:
            found = list(db.scalars(select(BadgeEvent).order_by(BadgeEvent.received_at)))
            db.expunge_all()
            return found

    def _sound(self) -> set[tuple[int, bytes, int, int]]:
        with self.station.core.read() as db:
            found = db.execute(
                select(Capture.badge, Capture.boot, Capture.number, Packet.number).join(
                    Packet, Packet.capture_id == Capture.id
                )
            )
            return {(badge, boot, number, index) for badge, boot, number, index in found}

    def count(self) -> Tally:
        """Compare what badges raised and were promised with what the station has."""
        there, sound, tally = self.at_station(), self._sound(), Tally()
        for badge in self.badges:
            n = badge.number
            tally.events += len(badge.raised)
            tally.held += len(badge.held)
            tally.sounds += len(badge.acked)
            tally.lost += sum(not there.get((n, name)) for name in badge.raised)
            tally.untrue += sum((n, name) not in there for name in badge.receipted)
            tally.lost_sound += sum((n, badge.boot, *key) not in sound for key in badge.acked)
        with self.station.core.read() as db:
            incidents = Counter((row.badge, row.ident) for row in db.scalars(select(Alarm)))
        tally.doubled = sum(n - 1 for n in self.raised_notices.values()) + sum(n - 1 for n in incidents.values())
        return tally

    async def settled(self, seconds: float = 120.0) -> Tally:
        """Wait until the hub has nothing left to say, and count. Fails when it goes on and on."""
        end = time.monotonic() + seconds
        for badge in self.badges:
            badge.kind = kinds.STATUS  # the beacons of an alarm that goes on never come to an end
        while True:
            quiet = not any(badge.unheld or badge.unacked for badge in self.badges)
            status = await self.status()
            if quiet and status["queue"] == 0 and status["audio_queue"] == 0 and self.station.worker.waiting == 0:
                return self.count()
            left = [(badge.number, len(badge.unheld), len(badge.unacked)) for badge in self.badges]
            assert time.monotonic() < end, f"never settled: {left}, {self.count()}, {status}"
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def pocket(folder: Path, badges: int = 3, extra: str = "", kind: str = "mosquitto") -> AsyncIterator[Pocket]:
    """A chain that is up."""
    with broker(kind, folder) as port:
        made = Pocket(folder, badges, port, extra)
        try:
            await made.up()
            yield made
        finally:
            await made.down()


STORY = (kinds.SOS, kinds.BATTERY, kinds.VISIT_START, kinds.CHECK_IN, kinds.LANYARD, kinds.BOOTED, kinds.CANCEL)


async def lives(chain: Pocket, plan: list[tuple[str, int]], chance: random.Random) -> tuple[Tally, Counter[str]]:
    """Kill a hub once for each entry of the plan, while badges have something to say; count at the end.

    An entry is a point and at which passing it kills, or "" and the milliseconds that the life may take.
    Gives also how often each point killed.
    """
    fired: Counter[str] = Counter()
    await chain.kill()
    for capture, (point, number) in enumerate(plan, 1):
        chain.gate.open = chance.random() < 0.75
        await chain.start_hub(point, 1 if not point else number)
        index = 0
        # a random instant is counted from the first session on, so that a busy machine has lives worth ending too
        born = time.monotonic()
        end = born + 5.0
        talking = False
        while time.monotonic() < end and not chain.died.is_set():
            badge = chance.choice(chain.badges)
            if badge.established:
                if not talking:
                    talking = True
                    end = time.monotonic() + (1.2 if point else number / 1000)
                if index < 12:
                    badge.speak(capture, index)
                    index += 1
                if chance.random() < 0.4 and len(badge.unheld) < 4:
                    badge.raise_event(chance.choice(STORY))
            elif not point and number < 60 and time.monotonic() - born > number / 1000:
                break  # some die before anybody has spoken
            if point and not chain.gate.open and time.monotonic() - born > 0.4:
                chain.gate.open = True  # some points are only passed with a station
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await chain.died.wait()
        if point and chain.died.is_set():
            fired[point] += 1
        chain.gate.close()
        await chain.kill()
    chain.gate.open = True
    await chain.start_hub()
    tally = await chain.settled()
    tally.kills, tally.by_point = len(plan), sum(fired.values())
    return tally, fired


def random_plan(names: list[str], runs: int, chance: random.Random) -> list[tuple[str, int]]:
    """Every point at least once where there is room, and as many random instants as points."""
    plan: list[tuple[str, int]] = []
    while len(plan) < runs:
        for name in names:
            plan.append((name, 1 if len(plan) < 2 * len(names) else chance.choice((1, 1, 2, 3, 5, 9))))
            if len(plan) % 2:
                plan.append(("", chance.randrange(5, 400)))
    return plan[:runs]


def free_of_errors(log: Path) -> list[str]:
    """Lines that nobody should ever see."""
    text = log.read_text() if log.exists() else ""
    return [line for line in text.splitlines() if " ERROR " in line or "Traceback" in line or " CRITICAL " in line]


__all__ = ["Pocket", "Tally", "free_of_errors", "lives", "pocket", "random_plan"]
