"""A station without sockets or threads: its database, its clock in the test's hand, what it says kept in a list."""

from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import select
from station_parts import NONE, Badge, Hub

from protocol import downlink, events, relay
from station import enrol, timers, views
from station.clock import ManualClock
from station.config import Config
from station.ingest.dispatch import handle
from station.model import Alarm, Operator, Visit
from station.store import Store, sqlite_url
from station.vault import Vault
from station.work import Committed, Core, Notice, Send


class World:
    """One station. `say` is how hubs reach it; `down` is what they were sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.config = Config()
        self.sent: list[Send] = []
        self.notices: list[Notice] = []
        self.committed: list[Committed] = []
        self.core = self._open()

    def _open(self) -> Core:
        core = Core(
            Store(sqlite_url(self.folder / "station.db")),
            Vault.open(self.folder / "station.key"),
            self.clock,
            self.config,
        )
        core.on_commit(self._heard)
        return core

    def restart(self) -> None:
        """The station's process ends and begins again."""
        self.core.store.close()
        self.core = self._open()

    def _heard(self, out: Committed) -> None:
        self.sent += out.sends
        self.notices += out.notices
        self.committed.append(out)

    # --- who there is ---

    def badge(self, wearer: str = "Cllr A. Example", **settings: Any) -> Badge:
        """A provisioned badge."""
        with self.core.work() as work:
            made = enrol.provision(work, "test", {"wearer": wearer, "settings": settings})
        return Badge(made["badge"], bytes.fromhex(made["root"]), bytes.fromhex(made["group_key"]["key"]))

    def hub(self, accepted: bool = True) -> Hub:
        """A hub that has said hello."""
        hub = Hub()
        self.say(hub, hub.hello(), "hello")
        if accepted:
            with self.core.work() as work:
                enrol.accept(work, "test", hub.name, {})
        return hub

    @cached_property
    def two_hubs(self) -> list[Hub]:
        """The same two hubs for all examples of a property."""
        return [self.hub(), self.hub()]

    @cached_property
    def one_badge(self) -> Badge:
        """The same badge for all examples of a property."""
        return self.badge()

    def operator(self, name: str) -> str:
        """Somebody who can claim; without the cost of a real password."""
        with self.core.work() as work:
            if work.db.get(Operator, name) is None:
                work.db.add(Operator(name=name, password="!", made_at=work.now))
        return name

    # --- what happens ---

    def say(self, hub: Hub, data: bytes, kind: str = "event") -> None:
        """A hub's bytes arrive."""
        handle(self.core, hub.topic(kind), data)

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Time passes, and the timers run as they do in the station."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            timers.step(self.core)
        timers.supervise(self.core)

    # --- what came of it ---

    def down(self, hub: Hub) -> list[relay.Down]:
        """Everything that was sent to a hub, opened."""
        topic = f"tocsin/1/hub/{hub.name}/down"
        return [hub.open(self.core.vault.public_key, s.payload) for s in self.sent if s.topic == topic]

    def told(self, hub: Hub, badge: Badge) -> list[downlink.Down]:
        """Everything that reached the badge by that hub, opened."""
        blobs = []
        for message in self.down(hub):
            if message.type == relay.DOWN:
                number, blob = relay.unpack_down_badge(message.payload)
            elif message.type in (relay.RECEIPT, relay.REJECTED):
                number, _, blob, _ = relay.unpack_receipt(message.payload)
            else:
                continue
            if number == badge.number and blob:
                blobs.append(blob)
        return [badge.open(blob) for blob in blobs]

    def states(self, hub: Hub, badge: Badge) -> list[tuple[bytes, int, int]]:
        """Incident, level, flags of every STATE that reached the badge."""
        states = [downlink.unpack_state(m.body) for m in self.told(hub, badge) if m.type == downlink.STATE]
        return [(incident, level, flags & ~downlink.YOUNG) for incident, level, flags in states]

    def alarms(self, badge: Badge | None = None) -> list[dict[str, Any]]:
        """ALARMs in the order of their making."""
        with self.core.read() as db:
            rows = db.scalars(select(Alarm).order_by(Alarm.id))
            found = [views.alarm(db, row) for row in rows]
        return [a for a in found if badge is None or a["badge"] == badge.number]

    def visits(self, badge: Badge) -> list[dict[str, Any]]:
        """VISITs of a badge."""
        with self.core.read() as db:
            rows = db.scalars(select(Visit).where(Visit.badge == badge.number).order_by(Visit.id))
            return [views.visit(db, row) for row in rows]

    def counted(self, name: str) -> int:
        """How often something was counted since the start."""
        return self.core._tally[name]


def visit_body(
    visit: int = 0, ref: bytes = NONE, remaining_s: float = 0, interval_s: int = 600, grace_s: int = 60
) -> bytes:
    """The body of an event about a visit."""
    return events.pack_visit(visit, ref, round(remaining_s * 1000), interval_s, grace_s)
