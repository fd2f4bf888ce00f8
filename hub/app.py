"""The hub: what comes from badges goes to the station, what comes from the station goes to badges.

advertisement -> Listener -> Roster -> Contact -> EVENT -> Keeper (memory, disk) -> Uplink -> station
station -> Uplink -> Envelope (signature) -> receipt: Keeper; for a badge: Roster -> Contact
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bleak.backends.device import BLEDevice

from hub import health, ready_check
from hub.audio import Packets, Spool
from hub.beacons import Listener
from hub.broadcast import Broadcaster
from hub.clock import Clock
from hub.config import Config
from hub.control import Control
from hub.enrolment import DOOR, Desk
from hub.envelope import Envelope
from hub.identity import Identity, KeyRing, next_boot
from hub.keeper import Keeper
from hub.location import Location
from hub.metrics import Metrics
from hub.outbox import Row
from hub.radio import Radio
from hub.roster import Roster
from hub.secondpath import SecondPath, Setup
from hub.systemd import Notifier
from hub.uplink import Broker, Tls, Uplink
from protocol import kinds, link, relay
from protocol.beacon import Beacon
from protocol.crypto import Forged
from protocol.events import Malformed

logger = logging.getLogger("hub")

# events that the broker has not taken, or the station not answered: an alarm waits behind no more than these, and
# finds as many places again; it takes the station a quarter of a second to commit them
EVENTS_FLYING = 32
ANSWER_MS = 4000  # the station answers every STATUS and every event; what has no answer by then had no station
ELSEWHERE_MS = 10_000  # a second broker is tried when the first has had no station for so long
# an alarm that has no receipt although the station answers other things: then the way for alarms is broken. Twice as
# long after each change of the broker, as what the station never answers must not keep the hub between two of them
DEAF_MS, DEAF_MOST_MS = 30_000, 600_000
UNTAKEN_MS = 30_000  # no PUBACK for so long on a connection that lives: the window would be closed for good
PASSING_S = 10  # what a broker need not keep longer, as it is sent again or outdated: sound, telemetry
HEALTH_S = 10.0
HELLO_S = 3.0  # a hub that has no keys repeats its hello: the station may have started after it
HURRY_MS = 1000  # the outbox is hurried at most so often, whoever claims to be the station
SESSION_FIRST_S = 0.15  # a badge with a session is heard by beacon first, and would be told of by two messages
ALIVE_MS = 5000  # in an alarm a badge says something every 2 s: then its beacons tell nothing new
REMEMBERED = 256
NOTED_S = 2.0  # at the end, for each of the small files

# whose facts carry the place: what belongs to an alarm or a visit, and nothing else
PLACED = frozenset(
    (
        *kinds.ALARMS,
        kinds.CANCEL,
        kinds.CHECK_IN,
        kinds.EXTEND,
        kinds.VISIT_START,
        kinds.VISIT_END,
        kinds.VISIT_ARMED,
        kinds.AMBER,
    )
)


class Hub:
    """Everything that runs. `folder` problems raise IdentityError; everything else is survived and told."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or Clock(config.clock_offset)
        self.identity = Identity.load(config.dir)
        self.boot = next_boot(config.dir)
        self.keys = KeyRing(config.dir)
        self.counters: Counter[str] = Counter()
        self.envelope = Envelope(self.identity, config.station_key, self.boot, self.clock)
        self.location = Location(self.clock.now_ms, config.place, config.accuracy_m)
        self.listener = Listener(lambda: self.keys.groups)
        self.radio = Radio(config.adapter, config.air, config.air_name, self._heard, self._health_soon)
        self.desk = Desk(config.dir / DOOR, lambda: self.roster, lambda badge: badge in self.keys.links)
        self.roster = Roster(
            self.radio,
            self.identity.hub_id,
            self.clock,
            lambda: self.keys.links,
            self._enrols,
            self._said,
            self._established,
            lambda badge: self._health_soon(),
            self.desk.passkey,
        )
        self.broadcaster = Broadcaster(self.radio, self.clock, self.roster.established)
        self.keeper = Keeper(config.dir / "outbox.db", self.clock, self._stored, self._work, on_loaded=self._restored)
        self.spool = Spool(
            config.dir / "audio.db",
            self.clock,
            config.audio_max_bytes,
            self._publish_audio,
            lambda badge, body: void(self.roster.send(badge, link.AUDIO_ACK, body)),
            self._events_first,
            lambda: self.keeper.reserve.held,
        )
        brokers = _brokers(config)
        self.uplink = Uplink(
            brokers[0],
            self.identity.hub_id,
            self.boot,
            self._connected,
            self._down,
            self._station_announced,
            brokers[1] if len(brokers) > 1 else None,
            lambda: self.notifier.beat("uplink"),
        )
        self.second = self._second_path(config)
        self.notifier = Notifier(time.monotonic)
        self.started_ms = self.clock.now_ms()
        self._flying = 0
        self._landed_ms = self.started_ms  # when the broker last took an event, or had taken all
        self._epoch = 0
        self._work_wake = asyncio.Event()
        self._health_wake = asyncio.Event()
        self._hurried_ms = -HURRY_MS
        self.deaf_ms = 0  # for how long the station has answered other things, but not an alarm
        self._deaf_limit_ms = DEAF_MS
        self._connected_ms = self.started_ms
        self._asked_ms: int | None = None  # since when something has no answer of the station
        self._events: dict[tuple[int, bytes], int] = {}  # when each event last came by a session
        if self.keys.problem:
            logger.warning("keys: %s", self.keys.problem)

    async def run(self, ready: Callable[[], None]) -> None:
        """Work until cancelled. `ready` is called once, when the radio scans."""
        self.keeper.load()
        self.spool.load()
        if waiting := len(self.keeper.queue):
            logger.info("outbox: %d events of an earlier run wait for the station", waiting)
        jobs: dict[str, asyncio.Task[None]] = {
            name: asyncio.create_task(job, name=name)
            for name, job in (
                ("outbox", self.keeper.run()),
                ("audio", self.spool.run()),
                ("uplink", self.uplink.run()),
                ("radio", self.radio.run()),
                ("badges", self.roster.run()),
                ("answers", self.broadcaster.run()),
                ("sender", self._send()),
                ("health", self._tell_health()),
                ("hello", self._tell_hello()),
                ("systemd", self.notifier.run(lambda: health.line(self))),
            )
        }
        if self.second is not None:
            jobs["second path"] = asyncio.create_task(self.second.run())
        if self.config.nmea:
            jobs["location"] = asyncio.create_task(self.location.follow(self.config.nmea, self.config.baud))
        if self.config.gpsd:
            jobs["location"] = asyncio.create_task(self.location.follow_gpsd(self.config.gpsd))
        control = Control(self.config.dir / "hub.sock", self.status)
        metrics = Metrics(self.config.metrics_port, self.status) if self.config.metrics_port else None
        try:
            await control.open()
            if metrics is not None:
                await metrics.open()
            await self.desk.open()
            # what waits in the outbox is being sent, radio or not
            self.notifier.say("READY=1")
            jobs["start"] = asyncio.create_task(self._start(ready))
            done, _ = await asyncio.wait(jobs.values(), return_when=asyncio.FIRST_COMPLETED)
            for job in done:  # none of them ever ends by itself
                await job
                raise RuntimeError(f"{job.get_name()} has ended")
        finally:
            self.notifier.say("STOPPING=1")
            # badges first, so that they look for another hub at once; the broker connection ends with a word
            for name in ("answers", "badges", "radio", *jobs):
                jobs[name].cancel()
                await asyncio.wait({jobs[name]})
            await self.keys.file.settled(NOTED_S)
            if self.second is not None:
                self.second.close()
                await self.second.file.settled(NOTED_S)
            if metrics is not None:
                await metrics.close()
            await control.close()
            await self.desk.close()
            await self.keeper.close()
            await self.spool.close()

    async def _start(self, ready: Callable[[], None]) -> None:
        await self.radio.ready.wait()
        ready()
        await asyncio.Event().wait()

    # ------------------------------------------------------------------ from the air

    def _heard(self, device: BLEDevice, manufacturer_data: dict[int, bytes], rssi: int) -> None:
        heard = self.listener.hear(manufacturer_data, self.clock.now_ms())
        if heard is None:
            return
        found = heard.beacon
        self.roster.heard(found, heard.new, device, rssi)
        if not heard.relay:
            return
        if self.roster.established(found.badge):
            # the advertisement may be a connection interval ahead of the same event in the session
            asyncio.get_running_loop().call_later(SESSION_FIRST_S, self._relay, found)
        else:
            self._relay(found)

    def _relay(self, found: Beacon) -> None:
        """Take custody of a beacon, unless its event came by the session."""
        by_session = (found.badge, found.ident) in self._events
        if self.second is not None:
            trusted = self.listener.trusted(found.badge, found.boot)
            self.second.alarm(found.badge, found.ident, found.kind, self.location.facts(), by_session, trusted)
        if by_session and self.roster.proved_within(found.badge, ALIVE_MS):
            return
        self.keeper.take(
            found.badge,
            found.ident,
            relay.BEACON,
            found.kind,
            relay.pack_beacon(found),
            self._facts(found.badge, found.kind),
        )

    def _said(self, badge: int, kind: int, body: bytes) -> None:
        """A message of a badge: inside its session, or an ENROL."""
        try:
            if kind == link.EVENT:
                seen_as, ident, age, battery, flags, blob = link.unpack_event(body)
                payload = relay.pack_event(badge, seen_as, ident, age, battery, flags, blob)
                self.roster.battery(badge, battery)
                _remember(self._events, (badge, ident), self.clock.now_ms())
                self.keeper.take(badge, ident, relay.EVENT, seen_as, payload, self._facts(badge, seen_as))
                if self.second is not None:
                    self.second.alarm(badge, ident, seen_as, self.location.facts(), verified=True, trusted=True)
            elif kind == link.TELEMETRY:
                battery, blob = link.unpack_telemetry(body)
                self.roster.battery(badge, battery)
                facts = {"rssi": self.roster.rssi(badge)}
                payload = relay.pack_telemetry(badge, battery, blob)
                if self.uplink.publish(
                    "up/status", self.envelope.up(relay.TELEMETRY, payload, facts), 0, expiry_s=PASSING_S
                ):
                    self._asked()
            elif kind == link.AUDIO:
                boot, capture, index, sealed = link.unpack_audio(body)
                if sealed:
                    self.spool.received(badge, boot, capture, index, sealed)
                else:
                    self.spool.skipped(badge, boot, capture, index)
            elif kind == link.ENROL:
                ident, blob = body[:8], body[8:]
                payload = relay.pack_event(badge, kinds.ENROL, ident, 0, 0, 0, blob)
                self.keeper.take(badge, ident, relay.EVENT, kinds.ENROL, payload, self._facts(badge, kinds.ENROL))
                self.roster.enrolling(badge)
                logger.info("badge %d asks to be enrolled; the station decides", badge)
            else:
                self.counters["unknown_message"] += 1
        except Malformed:
            self.counters["malformed_message"] += 1

    def _established(self, badge: int, boot: bytes) -> None:
        self.listener.trust(badge, boot)
        self._health_soon()

    def _enrols(self, badge: int) -> bool:
        enrol = self.config.enrol
        if self.desk.passkey(badge) is not None:
            return True
        return enrol if isinstance(enrol, bool) else badge in enrol

    def _facts(self, badge: int, kind: int) -> str:
        facts: dict[str, Any] = {"wall": round(self.clock.wall(), 3)}
        if (rssi := self.roster.rssi(badge)) is not None:
            facts["rssi"] = rssi
        if kind in PLACED and (place := self.location.facts()):
            facts["place"] = place
        if kind == kinds.TEST:
            # a self-test asks about the whole path: the hub answers for its own part
            missing = [finding for finding in ready_check.look(self.status(), [badge]) if not finding.good]
            facts["ready"] = not missing
            if missing:
                facts["missing"] = [finding.what for finding in missing][:8]
                facts["grave"] = [finding.what for finding in missing if finding.grave][:8]
        return json.dumps(facts, separators=(",", ":"))

    def _stored(self, row: Row) -> None:
        if row.form == relay.EVENT:
            self.roster.send(row.badge, link.HELD, link.pack_held([row.ident]))
        elif row.form == relay.SECOND_PATH and self.second is not None:
            self.second.stored(row.badge, row.ident)

    # ------------------------------------------------------------------ past the station

    def _second_path(self, config: Config) -> SecondPath | None:
        if config.modem is None:
            return None
        setup = Setup(
            config.modem,
            config.numbers,
            config.labels,
            int(config.after_s * 1000),
            config.modem_baud,
            config.modem_pin,
        )

        def told(badge: int, ident: bytes, payload: bytes) -> None:
            # not an alarm in the queue: the alarm itself goes before what is said of it
            self.keeper.take(badge, ident, relay.SECOND_PATH, kinds.STATUS, payload, "{}")

        return SecondPath(setup, config.dir, self.clock, told)

    def _restored(self) -> None:
        if self.second is not None:
            self.second.resume(self._waiting_alarms())

    def _waiting_alarms(self) -> Iterator[tuple[int, bytes, int, dict[str, Any] | None, bool, int]]:
        """Alarms of an earlier run that the station has not acknowledged."""
        for row in self.keeper.queue.rows():
            if row.form in (relay.EVENT, relay.BEACON):
                held_ms, _ = self.keeper.held(row)
                since_ms = self.clock.now_ms() - held_ms
                yield row.badge, row.ident, row.kind, row.place(), row.form == relay.EVENT, since_ms

    # ------------------------------------------------------------------ to the station

    def _work(self) -> None:
        """Something is due: send it now, in this very call, where the way is open."""
        self._pump()
        self._work_wake.set()

    def _pump(self) -> None:
        queue = self.keeper.queue
        if not self.uplink.ready:
            return
        now = self.clock.now_ms()
        out = queue.out(now)
        for row in queue.due(now, EVENTS_FLYING):
            alarm = kinds.priority(row.kind) == kinds.PRIORITY_ALARM
            if max(self._flying, out) >= EVENTS_FLYING * (2 if alarm else 1):
                break
            out += 1
            held_ms, certain = self.keeper.held(row)
            facts = row.known()
            if not certain:
                facts["uncertain"] = True
            message = self.envelope.up(row.form, row.payload, facts, held_ms)
            if not self.uplink.publish("up/event", message, 1, self._landing()):
                break
            if not self._flying:
                self._landed_ms = now
            self._flying += 1
            self._asked()
            queue.sent(row, now)

    def _landing(self) -> Callable[[], None]:
        epoch = self._epoch

        def landed() -> None:
            if epoch == self._epoch:
                self._flying -= 1
                self._landed_ms = self.clock.now_ms()
                self._work_wake.set()

        return landed

    async def _send(self) -> None:
        """What is due again, and what found no place in the broker's window."""
        looked_ms = self.clock.now_ms()
        while True:
            self._pump()
            self.notifier.beat("sender")
            next_ms = self.keeper.queue.next_ms()
            wait_s = 1.0 if next_ms is None else max(0.05, (next_ms - self.clock.now_ms()) / 1000)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, 1.0)):
                    await self._work_wake.wait()
            self._work_wake.clear()
            self._check_proof()
            if self.clock.now_ms() - looked_ms >= 1000:
                looked_ms = self.clock.now_ms()
                if self._flying and self.uplink.ready and looked_ms - self._landed_ms > UNTAKEN_MS:
                    self.uplink.renew()
                self._check_alarms()

    def _events_first(self) -> bool:
        return not self.uplink.ready or self._flying > 0

    def _publish_audio(self, badge: int, boot: bytes, capture: int, packets: Packets, done: Callable[[], None]) -> bool:
        if not self.uplink.ready:
            return False
        message = self.envelope.up(relay.AUDIO, relay.pack_audio(badge, boot, capture, packets))
        return self.uplink.publish("up/audio", message, 1, done, expiry_s=PASSING_S)

    def _connected(self, ready: bool) -> None:
        self._flying = 0
        self._asked_ms = None
        self._epoch += 1
        if ready:
            self._connected_ms = self.clock.now_ms()
            self._hello()
            self.keeper.queue.hurry(self.clock.now_ms())
            self.spool.connected()
            self._work()
            self._health_soon()
        else:
            self._check_proof()

    def _station_announced(self) -> None:
        """Somebody says that the station has started. It costs little to believe it."""
        now = self.clock.now_ms()
        if now - self._hurried_ms >= HURRY_MS:
            self._hurried_ms = now
            self.keeper.queue.hurry(now)
            self._work()

    # ------------------------------------------------------------------ from the station

    def _down(self, data: bytes) -> None:
        message = self.envelope.down(data)
        if message is None:
            return
        self._check_proof()
        try:
            if message.type == relay.RECEIPT:
                badge, ident, blob, form = relay.unpack_receipt(message.payload)
                if form != relay.SECOND_PATH:  # that is answered for forged ones too
                    self.listener.trust(badge, ident[:6])
                    if self.second is not None:
                        self.second.acknowledged(badge, ident)
                elif self.second is not None:
                    self.second.stored(badge, ident)
                # who has the event needs no beacon of it; who has the beacon still needs the event
                self.keeper.retire(badge, ident, (relay.EVENT, relay.BEACON) if form == relay.EVENT else (form,))
                self._pass_on(badge, blob)
                self._work_wake.set()
            elif message.type == relay.REJECTED:
                self._rejected(*relay.unpack_receipt(message.payload))
            elif message.type == relay.AUDIO_RECEIPT:
                self.spool.receipt(*relay.unpack_audio_receipt(message.payload))
            elif message.type == relay.DOWN:
                self._pass_on(*relay.unpack_down_badge(message.payload))
            elif message.type == relay.ANSWER:
                self.broadcaster.answer(*relay.unpack_down_badge(message.payload))
            elif message.type == relay.KEYS:
                if self.keys.open(self.identity, message.payload):
                    logger.info("keys: %d group keys, %d badges enrolled", len(self.keys.groups), len(self.keys.links))
                    self.roster.keys_changed()
            else:
                self.counters["unknown_down"] += 1
        except Forged:
            self.counters["keys_forged"] += 1
        except Malformed:
            self.counters["down_malformed"] += 1

    def _pass_on(self, badge: int, blob: bytes) -> None:
        if blob:
            self.roster.deliver(badge, blob)

    def _rejected(self, badge: int, ident: bytes, blob: bytes, form: int) -> None:
        """The station cannot verify an event, or a beacon: a forged one may name a true event that waits here."""
        self.counters["rejected"] += 1
        self.keeper.retire(badge, ident, (form,))
        if self.second is not None and (badge, ident) not in self._events:
            self.second.refused(badge, ident)
        self._pass_on(badge, blob)

    def _asked(self) -> None:
        if self._asked_ms is None:
            self._asked_ms = self.clock.now_ms()

    def _check_proof(self) -> None:
        """Is there proof of the station? Badges are told when that changes.

        There is while it answers what this hub brings it; a hub that has nothing to bring goes by its last answer.
        """
        proof_ms = self.envelope.proof_ms
        if self._asked_ms is not None and proof_ms is not None and proof_ms >= self._asked_ms:
            self._asked_ms = None
        waited_ms = 0 if self._asked_ms is None else self.clock.now_ms() - self._asked_ms
        late = waited_ms > ANSWER_MS
        if waited_ms > ELSEWHERE_MS and self.uplink.elsewhere():
            return
        proof = self.uplink.ready and proof_ms is not None and not late
        if proof != self.roster.uplink:
            logger.info("the station %s", "answers" if proof else "does not answer")
            self.roster.said_uplink(proof, bytes((proof,)), link.UPLINK)

    def _check_alarms(self) -> None:
        """Does the station take alarms? One that answers everything else is as good as none."""
        asked_ms = self.keeper.queue.unanswered_ms()
        if asked_ms is None:
            self.deaf_ms, self._deaf_limit_ms = 0, DEAF_MS
            return
        if not self.uplink.ready:
            return
        before = self.deaf_ms
        self.deaf_ms = max(0, self.clock.now_ms() - max(asked_ms, self._connected_ms))
        if before <= DEAF_MS < self.deaf_ms and self.roster.uplink:
            logger.warning("an alarm has no receipt for %d s, whatever else the station answers", self.deaf_ms // 1000)
        if self.deaf_ms > self._deaf_limit_ms and self.uplink.elsewhere():
            self._deaf_limit_ms = min(2 * self._deaf_limit_ms, DEAF_MOST_MS)

    # ------------------------------------------------------------------ about itself

    def _hello(self) -> None:
        identity = self.identity
        facts: dict[str, Any] = {"name": self.config.name}
        if self.config.place and (place := self.location.facts()):
            facts["place"] = place
        message = self.envelope.up(relay.HELLO, identity.public + identity.exchange_public, facts)
        self.uplink.publish("hello", message, 1, retain=True)

    async def _tell_hello(self) -> None:
        while True:
            await asyncio.sleep(HELLO_S)
            if self.uplink.ready and not self.keys.groups:
                self._hello()

    def _health_soon(self) -> None:
        self._health_wake.set()

    async def _tell_health(self) -> None:
        while True:
            if self.uplink.ready:
                facts = health.facts(self)
                self.uplink.publish("up/status", self.envelope.up(relay.HEALTH, b"", facts), 0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_S):
                    await self._health_wake.wait()
                    await asyncio.sleep(0.2)  # what changes together is told together
            self._health_wake.clear()

    def status(self) -> dict[str, Any]:
        """Everything that a technician may know about the running hub."""
        return health.status(self)


def _brokers(config: Config) -> list[Broker]:
    tls = Tls(config.mqtt_ca, config.mqtt_cert, config.mqtt_key) if config.mqtt_ca else None
    places = [(config.mqtt_host, config.mqtt_port)]
    if config.mqtt_fallback:
        host, _, port = config.mqtt_fallback.rpartition(":")
        places.append((host, int(port)))
    return [
        Broker(
            host, port, config.mqtt_user, config.mqtt_password, config.mqtt_keepalive, config.mqtt_version, tls
        )
        for host, port in places
    ]  # fmt: skip


def _remember(times: dict[tuple[int, bytes], int], key: tuple[int, bytes], now_ms: int) -> None:
    times.pop(key, None)
    times[key] = now_ms
    while len(times) > REMEMBERED:
        del times[next(iter(times))]


def void(_: object) -> None:
    """Throw a result away on purpose."""
