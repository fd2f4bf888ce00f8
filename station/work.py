"""One unit of work: a transaction, and what is to be said once it is committed and not before.

The domain's functions take a Work, change rows, and note what others must hear of: messages to hubs, changes of
alarms, visits and devices. At the end the changed things are put into JSON inside the same transaction, the
transaction is committed, and only then anything leaves the station. A crash in between says nothing false: hubs and
badges ask again.
"""

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from sqlalchemy import and_, inspect, or_, select
from sqlalchemy.orm import Session

from station import audit, views
from station.clock import Clock
from station.config import Config
from station.intake import Intake
from station.keyring import Keyring
from station.model import Alarm, Badge, Base, Entry, Hub, News, Supervision, Visit
from station.model import Counter as CounterRow
from station.store import Store
from station.vault import Vault

Row = TypeVar("Row", bound=Base)


@dataclass(frozen=True)
class Send:
    """An MQTT message: topic, payload, quality of service, retained or not."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True)
class Notice:
    """Something that consoles hear of: the name of the server-sent event and its data."""

    event: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Sound:
    """Packets of one capture that were stored just now, for those who listen live."""

    capture_id: int
    alarm_id: int | None
    packets: list[tuple[int, bytes]]  # number, ADPCM packet


@dataclass
class Committed:
    """What leaves the station after a commit."""

    sends: list[Send] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)  # alarms


class Work:
    """A transaction in progress. `now` stands still within it, or within each of the messages that it takes."""

    def __init__(self, core: "Core", db: Session) -> None:
        self.core = core
        self.db = db
        self.now = core.clock.now()
        self.out = Committed()
        self.tally: Tally[str] = Tally()
        self.troubles: dict[str, dict[str, Supervision]] = {}  # open entries of devices that were looked at
        self._alarms: dict[int, tuple[Alarm, list[str]]] = {}
        self._visits: dict[int, tuple[Visit, str]] = {}
        self._locked: dict[tuple[type[Base], Any], Base] = {}
        self._found: dict[tuple[type[Base], tuple[Any, ...]], Base | None] = {}

    # --- rows, locked against other workers ---

    def badge(self, number: int) -> Badge | None:
        """A badge's row: whoever has it works alone on everything that belongs to this badge."""
        return self._lock(Badge, number)

    def hub(self, hub_id: str) -> Hub | None:
        """A hub's row, locked."""
        return self._lock(Hub, hub_id)

    def alarm(self, alarm_id: int) -> Alarm | None:
        """An alarm's row, locked."""
        return self._lock(Alarm, alarm_id)

    def _lock(self, model: type[Row], key: Any) -> Row | None:
        if (model, key) not in self._locked:
            self.lock(model, [key])
        return cast(Row | None, self._locked.get((model, key)))

    def lock(self, model: type[Row], keys: Iterable[Any]) -> None:
        """Lock rows by their keys, always in the order of the keys: two workers never wait for each other."""
        wanted = sorted(key for key in set(keys) if (model, key) not in self._locked)
        if not wanted:
            return
        (column,) = inspect(model).primary_key
        rows = select(model).where(column.in_(wanted)).order_by(column).with_for_update(of=model)
        for row in self.db.scalars(rows):
            self._locked[model, inspect(model).primary_key_from_instance(row)[0]] = row

    # --- rows by their whole primary key, looked up once ---

    def look_up(self, model: type[Row], keys: Iterable[tuple[Any, ...]]) -> None:
        """Look up many rows at once, so that find() has no need to ask for each."""
        wanted = sorted(key for key in set(keys) if (model, key) not in self._found)
        if not wanted:
            return
        self._found.update({(model, key): None for key in wanted})
        columns = inspect(model).primary_key
        # not as tuples IN a list: SQLite reads the whole table for that
        each = (and_(*(column == value for column, value in zip(columns, key, strict=True))) for key in wanted)
        for row in self.db.scalars(select(model).where(or_(*each))):
            self._found[model, tuple(inspect(model).primary_key_from_instance(row))] = row

    def find(self, model: type[Row], *key: Any) -> Row | None:
        """A row, or None; that there is none is remembered too, until add()."""
        if (model, key) not in self._found:
            with self.db.no_autoflush:  # what is not written yet is known by add()
                self._found[model, key] = self.db.get(model, key)
        return cast(Row | None, self._found[model, key])

    def add(self, row: Base) -> None:
        """A new row, for find() to know of before it is written."""
        self.db.add(row)
        self._found[type(row), tuple(inspect(type(row)).primary_key_from_instance(row))] = row

    # --- what others must hear of ---

    def send(self, send: Send) -> None:
        """An MQTT message after the commit."""
        self.out.sends.append(send)

    def alarm_changed(self, alarm: Alarm, what: str) -> None:
        """An alarm is shown anew; `what` as in the timeline."""
        self.db.flush()
        self._alarms.setdefault(alarm.id, (alarm, []))[1].append(what)

    @staticmethod
    def next_version(alarm: Alarm) -> int:
        """The version of the alarm that shows what this work changes of it."""
        return alarm.version + 1

    def visit_changed(self, visit: Visit, what: str) -> None:
        """A visit is shown anew."""
        self.db.flush()
        self._visits[visit.id] = (visit, what)

    def notice(self, event: str, data: dict[str, Any]) -> None:
        """Anything else that consoles hear of."""
        self.out.notices.append(Notice(event, data))

    def log(self, alarm: Alarm, what: str, who: str | None = None, text: str = "", at: float | None = None) -> None:
        """A line of an alarm's timeline, and so a change of the alarm."""
        self.db.add(Entry(alarm_id=alarm.id, at=self.now if at is None else at, what=what, who=who, text=text))
        self.alarm_changed(alarm, what)

    def audit(self, who: str, what: str, about: str, **detail: object) -> None:
        """A row of the append-only log."""
        audit.append(self.db, self.now, who, what, about, **detail)

    def count(self, name: str) -> None:
        """One more of something that was dropped or refused; for good once it is committed."""
        self.tally[name] += 1

    def finish(self) -> None:
        """Put what changed into JSON while the transaction still sees it."""
        for alarm, whats in self._alarms.values():
            alarm.version = self.next_version(alarm)
            self.db.flush()
            data = views.alarm(self.db, alarm)
            for what in ["raised"] if "raised" in whats else dict.fromkeys(whats):
                self.notice("alarm", {"alarm": data, "change": what})
            self.send(Send(f"tocsin/1/alarms/{alarm.incident}", views.public_alarm(alarm), retain=True))
            if alarm.closed_at is not None and "closed" in whats:
                self.out.closed.append(alarm.id)
        for visit, what in self._visits.values():
            self.notice("visit", {"visit": views.visit(self.db, visit), "change": what})
        station = self.core.config.station
        if station.workers > 1 and (self.out.notices or self.out.sounds or self.out.closed):
            self.db.add(
                News(
                    worker=station.worker,
                    at=self.now,
                    notices=[[n.event, n.data] for n in self.out.notices],
                    sounds=[[s.capture_id, s.alarm_id, [n for n, _ in s.packets]] for s in self.out.sounds],
                    closed=self.out.closed,
                )
            )


class Core:
    """The station's parts that a transaction needs, and the listeners who hear of commits."""

    def __init__(self, store: Store, vault: Vault, clock: Clock, config: Config) -> None:
        self.store = store
        self.vault = vault
        self.clock = clock
        self.config = config
        self.keyring = Keyring(vault)
        self.started_at = clock.now()
        self.renew_from = 0.0  # no session is renewed before: the database has just refused one, or is being asked
        self.intake = Intake(
            store, clock, config.station.worker, lambda entry: self.heard(Committed(notices=[Notice("device", entry)]))
        )
        self._listeners: list[Callable[[Committed], None]] = []
        self._others: list[Callable[[Committed], None]] = []
        self._tally: Tally[str] = Tally()
        self._tally_lock = threading.Lock()

    def on_commit(self, listener: Callable[[Committed], None]) -> None:
        """`listener` is called after every commit, in the thread that made it; it must not block."""
        self._listeners.append(listener)

    def on_news(self, listener: Callable[[Committed], None]) -> None:
        """`listener` is called with what another worker committed, of which nothing is to be sent again."""
        self._others.append(listener)

    def heard(self, out: Committed) -> None:
        """Another worker committed this, or consoles must hear of something that is in no database."""
        for listener in self._others:
            listener(out)

    @contextmanager
    def work(self) -> Iterator[Work]:
        """A unit of work: committed and then spoken of, or rolled back by an exception."""
        with self.store.write() as db:
            work = Work(self, db)
            yield work
            work.finish()
        self._add(work.tally)
        for listener in self._listeners:
            listener(work.out)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A view of the database."""
        with self.store.read() as db:
            yield db

    def count(self, name: str) -> None:
        """One more of something that was dropped or refused."""
        self._add(Tally([name]))

    def _add(self, tally: Tally[str]) -> None:
        with self._tally_lock:
            self._tally.update(tally)

    def save_counters(self) -> None:
        """Add what was counted since the last time to the database."""
        with self._tally_lock:
            tally, self._tally = self._tally, Tally()
        if not tally:
            return
        with self.store.write() as db:
            for name, number in tally.items():
                row = db.get(CounterRow, name)
                if row is None:
                    db.add(CounterRow(name=name, value=number))
                else:
                    row.value += number
