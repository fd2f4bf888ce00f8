"""A database that refuses messages: hubs are not forgotten, no badge takes itself for protected, everybody is told, and
it is over by itself."""

import contextlib
import itertools
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, OperationalError
from station_parts import Badge, Hub
from station_running import PATIENCE_S, Running, until
from station_world import World

from protocol import downlink, kinds, relay
from station import intake, repeat
from station.bus import Arrived
from station.console import api
from station.ingest import dispatch
from station.ingest import worker as ingest
from station.ingest.worker import Worker

FULL = OperationalError("insert", {}, Exception("database or disk is full"))
WINDOW = 20  # messages that mosquitto passes on without an acknowledgement


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ingest:
    """A worker whose thread is the test's, and what it acknowledged to the broker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.core.intake.timer = Clock()
        self.done: list[int] = []
        self.worker = Worker(world.core, lambda arrived: self.done.append(arrived.mid))
        self._mids = itertools.count(1)

    def take(self, hub: Hub, data: bytes, kind: str = "event") -> bool:
        """A message arrives and is taken; whether it was acknowledged."""
        mid = next(self._mids)
        self.worker.take((0, mid, Arrived(hub.topic(kind), data, mid, 1, 1)))
        self.world.core.intake.look()
        return mid in self.done

    def pass_time(self, seconds: float) -> None:
        """Nothing arrives for a while."""
        for _ in range(round(seconds)):
            self.clock.now += 1.0
            self.world.clock.advance(1.0)
            self.world.core.intake.look()


@pytest.fixture
def ingesting(world: World, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """A worker over a database in the test's hand."""
    monkeypatch.setattr(ingest, "RETRY_S", 0.001)
    return Ingest(world)


@pytest.fixture
def fill(world: World) -> Iterator[Callable[[bool], None]]:
    """Says whether the database's file may grow no more: rows that fit into what is there are still taken."""
    full = False

    def limit(connection: object) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={1 if full else 1 << 30}")  # type: ignore[attr-defined]

    def fill(now: bool) -> None:
        nonlocal full
        full = now

    sqlalchemy_event.listen(world.core.store.engine, "begin", limit)
    yield fill
    full = False


def _proofs(world: World, hub: Hub, badge: Badge) -> int:
    return sum(m.type == downlink.PROOF for m in world.told(hub, badge))


def _receipts(world: World, hub: Hub) -> list[bytes]:
    return [relay.unpack_receipt(m.payload)[1] for m in world.down(hub) if m.type == relay.RECEIPT]


def _written(world: World) -> list[dict[str, object]]:
    """What supervision has written down of the station itself."""
    with world.core.read() as db:
        return [e for e in api.all_supervision(db, own=world.core.intake.entry) if e["what"] == "station"]


def test_a_database_without_room_for_alarms_answers_no_status_and_is_well_again_by_itself(
    world: World, ingesting: Ingest, fill: Callable[[bool], None]
) -> None:
    badge, hub = world.badge(), world.hub()
    assert ingesting.take(hub, hub.status(badge, badge.status()), "status")
    assert _proofs(world, hub, badge) == 1
    fill(True)
    for _ in range(2000):
        if not world.core.intake.answers:
            break
        assert ingesting.take(hub, hub.event(badge, badge.event(kinds.BATTERY)))
    (entry,) = _written(world)
    assert (entry["state"], entry["until"], entry["at"]) == ("not_taking", None, world.clock.now())
    assert "database or disk is full" in str(entry["text"])

    sos = badge.event(kinds.SOS)
    assert ingesting.take(hub, hub.event(badge, sos)), "the broker must not wait for it"
    assert sos.ident not in _receipts(world, hub)
    assert world.alarms(badge) == []

    before = world.counted("status unanswered")
    for _ in range(5):
        ingesting.pass_time(5)
        ingesting.take(hub, hub.status(badge, badge.status()), "status")
    assert world.counted("status unanswered") == before + 5, "the database takes these, and would not take an alarm"
    assert _proofs(world, hub, badge) == 1
    assert _written(world)[0]["until"] is None

    fill(False)
    ingesting.pass_time(2)
    assert ingesting.take(hub, hub.event(badge, sos))
    assert _receipts(world, hub)[-1] == sos.ident
    assert len(world.alarms(badge)) == 1
    assert ingesting.take(hub, hub.status(badge, badge.status()), "status")
    assert _proofs(world, hub, badge) == 2
    (entry,) = _written(world)
    assert entry["until"] == world.clock.now() - 1
    assert world.core.intake.entry is None
    with world.core.read() as db:
        left = db.scalar(text("SELECT count(*) FROM meta WHERE name LIKE 'trial%'"))
    assert left == 0


def test_while_an_alarm_is_still_refused_a_trial_that_succeeds_is_not_believed(
    world: World, ingesting: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    badge, hub = world.badge(), world.hub()
    take = dispatch.handle

    def damaged(core: object, topic: str, payload: bytes) -> None:
        if topic.endswith("event"):
            raise DatabaseError("insert", {}, Exception("database disk image is malformed"))
        take(core, topic, payload)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest, "handle", damaged)
    sos = badge.event(kinds.SOS)
    for _ in range(10):
        assert ingesting.take(hub, hub.event(badge, sos))
        ingesting.pass_time(2)
        ingesting.take(hub, hub.status(badge, badge.status()), "status")
        ingesting.pass_time(2)
    assert _proofs(world, hub, badge) == 0
    monkeypatch.undo()
    ingesting.pass_time(4)
    ingesting.take(hub, hub.status(badge, badge.status()), "status")
    assert _proofs(world, hub, badge) == 1


def test_consoles_hear_at_once_of_what_the_database_cannot_hold(world: World, ingesting: Ingest) -> None:
    heard: list[object] = []
    world.core.on_news(lambda out: heard.extend(n.data for n in out.notices))
    world.core.intake.gave_up(FULL)
    assert heard == [world.core.intake.entry]
    world.core.intake.gave_up(FULL)
    assert len(heard) == 1
    ingesting.pass_time(6)
    assert len(heard) == 2
    assert heard[1] == _written(world)[0]


def test_one_message_that_the_database_refuses_is_shown_for_a_minute_and_silences_no_badge(
    world: World, ingesting: Ingest
) -> None:
    badge, hub = world.badge(), world.hub()
    refused = badge.event(kinds.BATTERY)
    with world.core.store.write() as db:
        db.execute(
            text(
                "CREATE TRIGGER refuses BEFORE INSERT ON events WHEN NEW.ident = "
                f"x'{refused.ident.hex()}' BEGIN SELECT RAISE(ABORT, 'a defect'); END"
            )
        )
    assert ingesting.take(hub, hub.event(badge, refused))
    assert world.core.intake.entry is not None
    assert ingesting.take(hub, hub.status(badge, badge.status()), "status")
    assert _proofs(world, hub, badge) == 1
    ingesting.pass_time(59)
    assert _written(world)[0]["until"] is None
    ingesting.pass_time(2)
    assert _written(world)[0]["until"] == world.clock.now() - 1


def test_a_defect_of_ours_is_acknowledged_and_shown(
    world: World, ingesting: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(ingest, "handle", defect)
    badge, hub = world.badge(), world.hub()
    assert ingesting.take(hub, hub.event(badge, badge.event(kinds.SOS)))
    entry = world.core.intake.entry
    assert entry is not None
    assert entry["text"].startswith("a message cannot be taken (KeyError; the log says more)")


@pytest.mark.parametrize(("error", "answers"), [(FULL, False), (KeyError("x"), True)])
def test_timers_that_go_on_failing_are_shown_and_a_moment_is_not(
    world: World, ingesting: Ingest, monkeypatch: pytest.MonkeyPatch, error: Exception, answers: bool
) -> None:
    now = 100.0
    monkeypatch.setattr(repeat, "time", SimpleNamespace(monotonic=lambda: now))
    failing, tried = True, 0

    def act() -> None:
        nonlocal tried
        tried += 1
        if failing:
            raise error

    repeater = repeat.Repeater("timers", 0.05, act)
    repeater.trouble = world.core.intake.timers_failed
    repeater.start()
    try:
        until(lambda: tried >= 2, "it goes on")
        assert world.core.intake.entry is None
        now += repeat.PATIENCE_S + 0.1
        entry = until(lambda: world.core.intake.entry, "shown")
        assert entry["text"].startswith("the station's timers fail, so that missed check-ins raise no alarm (")
        assert "given up" not in entry["text"]
        assert world.core.intake.answers is answers
        ingesting.pass_time(2)
        assert world.core.intake.entry is not None
        failing, before = False, tried
        until(lambda: tried > before + 1, "it works again")
        ingesting.pass_time(62)
        assert world.core.intake.entry is None
    finally:
        repeater.stop()


def test_a_message_that_takes_for_ever_is_shown(world: World, ingesting: Ingest) -> None:
    watched = world.core.intake
    with watched.one():
        ingesting.pass_time(intake.STUCK_S)
        assert watched.entry is None
        ingesting.pass_time(5)
        assert watched.entry is not None
        assert watched.entry["text"] == "a message is being taken for 15 s already"
    assert watched.entry is None


def test_what_finds_no_room_in_the_queue_is_acknowledged_and_alarms_still_do(
    world: World, ingesting: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "QUEUE_MAX", 3)
    badge, hub = world.badge(), world.hub()

    def put(mid: int, kind: int) -> None:
        ingesting.worker.put(Arrived(hub.topic("event"), hub.event(badge, badge.event(kind)), mid, 1, 1))

    for mid in range(1, 6):
        put(mid, kinds.BATTERY)
    assert ingesting.done == [4, 5]
    assert world.counted("queue full") == 2
    for mid in range(6, 11):
        put(mid, kinds.SOS)
    assert ingesting.worker.waiting == 6
    assert ingesting.done == [4, 5, 9, 10], "as many alarms again, and no more"
    assert world.core.intake.entry is not None


def test_an_acknowledgement_that_fails_stops_nothing(world: World) -> None:
    badge, hub, done = world.badge(), world.hub(), threading.Event()

    def acknowledge(arrived: Arrived) -> None:
        if arrived.mid == 1:
            raise OSError("the connection is gone")
        done.set()

    worker = Worker(world.core, acknowledge)
    worker.start()
    try:
        worker.put(Arrived(hub.topic("event"), hub.event(badge, badge.event(kinds.SOS)), 1, 1, 1))
        until(lambda: world.alarms(badge), "taken")
        worker.put(Arrived(hub.topic("event"), hub.event(badge, badge.event(kinds.SOS)), 2, 1, 1))
        assert done.wait(PATIENCE_S)
    finally:
        worker.stop()


@pytest.mark.usefixtures("mosquitto")
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux: another process's limits are changed")
def test_a_disk_that_refuses_more_messages_than_the_broker_passes_on_costs_no_alarm_afterwards(tmp_path: Path) -> None:
    station = Running(tmp_path, broker='port = 0\nkind = "mosquitto"')
    with contextlib.ExitStack() as end:
        end.callback(station.stop)
        console = end.enter_context(station.person())
        badge, other, hub = station.badge(), station.badge("Cllr B. Example"), station.hub()
        public = bytes.fromhex(station.ready["station_key"])

        def told(to: Badge) -> list[int]:
            downs = [hub.open(public, bytes(m.payload)) for m in list(station.heard) if m.topic.endswith("/down")]
            blobs = [relay.unpack_down_badge(m.payload) for m in downs if m.type == relay.DOWN]
            return [to.open(blob).type for number, blob in blobs if number == to.number]

        def answered() -> bool:
            before = len(told(other))
            station.radio.publish(hub.topic("status"), hub.status(other, other.status()), 0)
            try:
                until(lambda: len(told(other)) > before, "an answer", 1.0)
            except AssertionError:
                return False
            return True

        def health() -> dict[str, object]:
            answer = station.api.get("/api/health")
            found: dict[str, object] = answer.json()
            assert answer.status_code == (200 if found["ok"] else 503)
            return found

        until(answered, "a STATUS is answered while all is well")
        assert health()["ok"]
        assert "cannot take what hubs bring" not in console.get("/").text

        # sessions that are due to be renewed: none may be lost because that is refused
        with sqlite3.connect(tmp_path / "data" / "station.db") as db:
            assert db.execute("UPDATE sessions SET used_at = used_at - 61").rowcount == 1
        # no byte more into any file, as on a full disk
        _, hard = resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert hard == resource.RLIM_INFINITY
        sos = badge.event(kinds.SOS)
        for _ in range(2 * WINDOW):
            station.say(hub, hub.event(badge, sos))
        found = until(lambda: not health()["ok"] and health(), "it says so")
        assert found["broker"] is True
        assert "the database refuses messages" in str(found["problem"])
        until(lambda: f"{2 * WINDOW} messages were given up" in str(health()["problem"]), "all given up")
        assert not answered(), "no badge may take itself for protected"
        page = console.get("/")
        assert page.status_code == 200
        assert "cannot take what hubs bring" in page.text, "who is signed in sees it"
        (entry, *_) = station.api.get("/api/supervision").json()["supervision"]
        assert (entry["what"], entry["state"], entry["until"]) == ("station", "not_taking", None)
        assert station.alarms(badge) == []

        resource.prlimit(station.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)

        def alarm() -> bool:
            station.say(hub, hub.event(badge, sos))
            return bool(station.alarms(badge))

        until(alarm, "the alarm, as soon as its hub repeats it")
        until(answered, "a STATUS is answered again")
        assert health()["ok"]
        entries = station.api.get("/api/supervision").json()["supervision"]
        assert [e["until"] is not None for e in entries if e["what"] == "station"] == [True]
