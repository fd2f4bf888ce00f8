"""The station put together: database, broker, ingest, timers, live sound, console; and taken apart again in order."""

import logging
import os
from collections.abc import Iterable

from sqlalchemy import select

from station import accounts
from station.broker import EmbeddedBroker
from station.bus import BrokerAddress, Bus
from station.clock import Clock, SystemClock
from station.config import Config
from station.errors import CannotRun
from station.ingest.worker import Worker
from station.live import Live
from station.model import Alarm
from station.news import Follower
from station.repeat import Repeater
from station.store import Store, sqlite_url
from station.timers import timers
from station.vault import Vault
from station.views import public_alarm
from station.work import Core, Send

logger = logging.getLogger("station")

CLEARED_S = 86_400.0  # alarms closed so lately are cleared once more: the broker may have been away when they closed
CONNECT_S = 10.0


class StationError(CannotRun):
    """The station cannot start; the text says what to do."""


class Station:
    """Everything but the web server. start() and stop() once each."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        folder = config.station.dir
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StationError(f"[station] dir: {folder} cannot be made ({error.strerror})") from error
        self.config = config
        self.vault = Vault.open(folder / "station.key")
        store = Store(config.station.database or sqlite_url(folder / "station.db"))
        self.core = Core(store, self.vault, clock or SystemClock(), config)
        self.live = Live()
        self.worker = Worker(self.core, lambda arrived: self.bus.done(arrived))
        self.timers = timers(self.core)
        self.timers.trouble = self.core.intake.timers_failed
        self.broker: EmbeddedBroker | None = None
        self.follower: Repeater | None = None
        self.bus: Bus

    def start(self) -> None:
        """Bring everything up; blocking, a second or two. Raises StationError, BrokerError."""
        self.vault.belongs_to(self.core.store)
        accounts.make_configured(self.core, self.config.operators)
        address = self._address()
        several, number = self.config.station.workers > 1, self.config.station.worker
        self.bus = Bus(
            address,
            f"tocsin-station-{self.vault.public_key.hex()[:12]}" + (f"-{number}" if several else ""),
            self.vault.public_key,
            self.worker.put,
            self._retained,
            only_3_1_1="amqtt" in (self.config.broker.kind, self.broker.kind if self.broker else None),
            presence_topic=f"tocsin/1/station/{number}" if several else "tocsin/1/station",
        )
        self.core.on_commit(lambda out: self.bus.publish(out.sends))
        self.core.on_commit(self.live.committed)
        self.core.on_news(self.live.committed)
        if several:
            self.follower = Follower(self.core, self.live.wanted).thread()
            self.follower.start()
        self.worker.start()
        self.timers.start()
        self.bus.start()
        if not self.bus.wait(CONNECT_S):
            # a broker that comes later is found by itself; alarms of the station's own clock work without one
            logger.warning("no broker at %s:%d yet; trying again for ever", address.host, address.port)

    def _address(self) -> BrokerAddress:
        broker = self.config.broker
        if broker.host is None:
            self.broker = EmbeddedBroker(broker.kind, broker.port)
            self.broker.start()
            return BrokerAddress("127.0.0.1", self.broker.port)
        return BrokerAddress(
            broker.host,
            broker.port,
            broker.user,
            broker.password,
            *(None if path is None else str(path) for path in (broker.ca, broker.cert, broker.key)),
        )

    def _retained(self) -> Iterable[Send]:
        """The readable alarms as they stand, for a broker that may have forgotten them."""
        with self.core.read() as db:
            rows = db.scalars(
                select(Alarm)
                .where(Alarm.closed_at.is_(None) | (Alarm.closed_at > self.core.clock.now() - CLEARED_S))
                .order_by(Alarm.id)
            )
            latest = {row.incident: public_alarm(row) for row in rows}
        return [Send(f"tocsin/1/alarms/{name}", text, retain=True) for name, text in latest.items()]

    def stop(self) -> None:
        """Take everything down; what is committed stays."""
        self.timers.stop()
        self.worker.stop()
        if self.follower is not None:
            self.follower.stop()
        if hasattr(self, "bus"):
            self.bus.stop()
        if self.broker is not None:
            self.broker.stop()
        self.core.save_counters()
        self.core.store.close()

    def ready_line(self, port: int) -> dict[str, object]:
        """What `tocsin-station run` prints once it takes requests."""
        address = self.bus.address
        host = self.config.station.host
        return {
            "ready": True,
            "part": "station",
            "worker": self.config.station.worker,
            "port": port,
            "url": f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}/",
            "broker": f"{'mqtts' if address.ca else 'mqtt'}://{address.host}:{address.port}",
            "broker_kind": self.broker.kind if self.broker else "own",
            "station_key": self.vault.public_key.hex(),
            "pid": os.getpid(),
        }
