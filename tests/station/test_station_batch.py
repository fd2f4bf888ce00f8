"""Messages that arrive together are taken in one transaction: none spoils another, alarms go before, and a death in
between costs nothing."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select, text
from station_parts import Badge, Hub
from station_running import PATIENCE_S, running, until
from station_world import World
from test_station_broker import start_broker

from protocol import downlink, kinds, relay
from station.bus import Arrived
from station.ingest import worker as ingest
from station.ingest.dispatch import take
from station.ingest.worker import BATCH_MAX, Worker
from station.model import Alarm, BadgeEvent, Identity


class Queue:
    """A worker whose queue is filled before it begins, and what it acknowledged to the broker, in order."""

    def __init__(self, world: World, timer: Callable[[], float] = lambda: 0.0) -> None:
        self.done: list[int] = []
        self.worker = Worker(world.core, lambda arrived: self.done.append(arrived.mid), timer)
        self._mids = itertools.count(1)

    def put(self, hub: Hub, data: bytes, kind: str = "event") -> int:
        """A message arrives; its number."""
        mid = next(self._mids)
        self.worker.put(Arrived(hub.topic(kind), data, mid, 1, 1))
        return mid

    def run(self, count: int) -> None:
        """Take what has arrived, until so many messages are dealt with."""
        self.worker.start()
        try:
            until(lambda: len(self.done) >= count, f"{count} messages")
        finally:
            self.worker.stop()


def _receipts(world: World, hub: Hub) -> list[bytes]:
    return [relay.unpack_receipt(m.payload)[1] for m in world.down(hub) if m.type == relay.RECEIPT]


def _known(world: World) -> dict[bytes, bool]:
    with world.core.read() as db:
        return {row.ident: row.sealed for row in db.scalars(select(Identity))}


def test_what_has_arrived_together_is_one_transaction_of_few_statements(world: World) -> None:
    badge, hub, queue = world.badge(), world.hub(), Queue(world)
    statements: list[str] = []
    sqlalchemy_event.listen(
        world.core.store.engine, "before_cursor_execute", lambda *given: statements.append(given[2])
    )
    told = [badge.event(kinds.BATTERY) for _ in range(40)]
    for event in told:
        queue.put(hub, hub.event(badge, event, rssi=-60))
    world.committed.clear()
    queue.run(len(told))
    assert [len(out.sends) for out in world.committed] == [40]
    assert _receipts(world, hub) == [event.ident for event in told]
    assert [m.echo for m in world.told(hub, badge)] == list(range(1, 41)), "each answers its own uplink"
    assert queue.done == list(range(1, 41))
    assert len(statements) <= len(told), "twenty for each of them would be a second for fifty"


def test_a_single_message_waits_for_no_other(world: World) -> None:
    badge, hub, queue = world.badge(), world.hub(), Queue(world)
    queue.put(hub, hub.event(badge, badge.event(kinds.SOS)))
    world.committed.clear()
    queue.run(1)
    assert len(world.committed) == 1
    assert len(world.alarms(badge)) == 1


def test_the_same_event_twice_in_a_batch_is_one_event_with_two_receipts(world: World) -> None:
    badge, one, two, queue = world.badge(), world.hub(), world.hub(), Queue(world)
    sos = badge.event(kinds.SOS)
    for hub in (one, two, one):
        queue.put(hub, hub.event(badge, sos, rssi=-50))
    queue.put(two, two.beacon(badge, sos))
    queue.run(4)
    (alarm,) = world.alarms(badge)
    assert len(alarm["signals"]) == 1
    assert sorted(h["hub"] for h in alarm["hubs"]) == sorted([one.name, two.name, two.name])
    assert (len(_receipts(world, one)), len(_receipts(world, two))) == (2, 2)
    assert sum(n.data["change"] == "raised" for n in world.notices if n.event == "alarm") == 1


def test_a_bad_message_spoils_none_of_those_around_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "RETRY_S", 0.001)
    badge, hub, queue = world.badge(), world.hub(), Queue(world)
    good = [badge.event(kinds.BATTERY) for _ in range(9)]
    stranger = Badge(badge.number, os.urandom(32), badge.group)
    refused = badge.event(kinds.BATTERY)
    with world.core.store.write() as db:
        db.execute(
            text(
                "CREATE TRIGGER refuses BEFORE INSERT ON events WHEN NEW.ident = "
                f"x'{refused.ident.hex()}' BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            )
        )
    forged = bytearray(hub.event(badge, badge.event(kinds.SOS)))
    forged[-1] ^= 1
    bad = (
        bytes(forged),  # not signed by its hub
        b"",
        hub.up(relay.EVENT, b"short"),  # signed, and noticed only when the hub's row was changed
        hub.event(stranger, stranger.event(kinds.BATTERY)),  # not sealed by its badge
        hub.event(badge, refused),  # what the database does not take
        hub.event(badge, badge.event(kinds.AUDIO_START, body=b"x")),  # sealed, and not understood
    )
    for number, event in enumerate(good):
        queue.put(hub, hub.event(badge, event))
        if number < len(bad):
            queue.put(hub, bad[number])
    queue.run(len(good) + len(bad))
    assert [name for name in _receipts(world, hub) if name in {e.ident for e in good}] == [e.ident for e in good]
    assert {e.ident for e in good} == _known(world).keys()
    counts = {
        name: world.counted(name)
        for name in ("hub forged", "hub malformed", "event forged", "event malformed", "duplicate", "internal error")
    }
    assert counts == {
        "hub forged": 1,
        "hub malformed": 2,
        "event forged": 1,
        "event malformed": 1,
        "duplicate": 0,
        "internal error": 0,
    }
    assert world.alarms() == []
    assert refused.ident not in _receipts(world, hub), "its hub asks again"
    assert len(queue.done) == len(good) + len(bad), "a broker passes on only so many that are not acknowledged"


def test_what_is_not_committed_is_not_told_to_anybody(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.sent.clear()
    world.notices.clear()
    messages = [(hub.topic("event"), hub.event(badge, badge.event(kinds.SOS))) for _ in range(3)]
    messages.append((hub.topic("event"), hub.up(relay.EVENT, b"short")))
    with pytest.raises(Exception, match="event payload"):
        take(world.core, messages)
    assert (world.sent, world.notices, world.alarms(badge)) == ([], [], [])


def test_an_alarm_that_arrives_waits_for_one_message_and_not_for_the_batch(world: World) -> None:
    badge, other, hub = world.badge(), world.badge("Cllr B. Example"), world.hub()
    sos = other.event(kinds.SOS)
    asked = 0

    def timer() -> float:
        nonlocal asked
        asked += 1
        if asked == 4:  # while the third message of the batch is being taken
            queue.put(hub, hub.event(other, sos))
        return 0.0

    queue = Queue(world, timer)
    told = [badge.event(kinds.BATTERY) for _ in range(20)]
    for event in told:
        queue.put(hub, hub.event(badge, event))
    queue.run(len(told) + 1)
    order = _receipts(world, hub)
    assert order.index(sos.ident) == 3
    assert [name for name in order if name != sos.ident] == [event.ident for event in told], "and nothing is reordered"


def test_alarms_are_taken_before_all_that_arrived_earlier(world: World) -> None:
    badge, hub, queue = world.badge(), world.hub(), Queue(world)
    queue.put(hub, hub.status(badge, badge.status()), "status")
    later = [badge.event(kinds.BATTERY), badge.event(kinds.VISIT_START)]
    for event in later:
        queue.put(hub, hub.event(badge, event))
    # a duress looks to the hub like the check-in that it imitates: all check-ins go with the alarms
    urgent = [badge.event(kind) for kind in (kinds.CHECK_IN, kinds.SOS, kinds.CANCEL)]
    for event in urgent:
        queue.put(hub, hub.event(badge, event))
    beacon = badge.event(kinds.LANYARD)
    queue.put(hub, hub.beacon(badge, beacon))
    queue.run(7)
    order = _receipts(world, hub)
    assert order == [e.ident for e in (*urgent, beacon, *later)]


def test_a_batch_ends_when_its_first_message_has_waited_long_enough(world: World) -> None:
    clock = itertools.count()
    badge, hub, queue = world.badge(), world.hub(), Queue(world, lambda: next(clock) * ingest.BATCH_S / 4.5)
    for _ in range(12):
        queue.put(hub, hub.event(badge, badge.event(kinds.SOS)))
    world.committed.clear()
    queue.run(12)
    sizes = [sum(s.topic.endswith("/down") for s in out.sends) for out in world.committed]
    assert sum(sizes) == 12
    assert max(sizes) == 5, "four more after the first"


def test_no_more_than_a_bounded_number_is_taken_at_once(world: World) -> None:
    badge, hub, queue = world.badge(), world.hub(), Queue(world)
    for _ in range(BATCH_MAX + 10):
        queue.put(hub, hub.event(badge, badge.event(kinds.BATTERY)))
    world.committed.clear()
    queue.run(BATCH_MAX + 10)
    assert [len(out.sends) for out in world.committed] == [BATCH_MAX, 10]


def test_two_workers_that_take_the_same_messages_in_batches_take_each_once(tmp_path: Path) -> None:
    one = World(tmp_path)
    badges, hubs = [one.badge(), one.badge("Cllr B. Example")], [one.hub(), one.hub()]
    two = World(tmp_path)
    queues = [Queue(one), Queue(two)]
    said = []
    for number in range(60):
        badge, kind = badges[number % 2], kinds.SOS if number % 10 == 0 else kinds.BATTERY
        event = badge.event(kind)
        said.append(event.ident)
        for hub in hubs:
            message = hub.event(badge, event)
            for queue in queues:
                queue.put(hub, message)
    threads = [threading.Thread(target=queue.run, args=(120,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(queue.done) for queue in queues] == [120, 120]
    assert _known(one) == dict.fromkeys(said, True)
    with one.core.read() as db:
        alarms = {row.id: row.ident for row in db.scalars(select(Alarm))}
        raised_as = [row.ident for row in db.scalars(select(BadgeEvent).where(BadgeEvent.kind == kinds.SOS))]
    assert sorted(alarms.values()) == sorted(raised_as)
    assert len(alarms) == 6
    raised = [n.data["alarm"]["id"] for w in (one, two) for n in w.notices if n.data.get("change") == "raised"]
    assert sorted(raised) == sorted(alarms)
    numbers = [m.number for w in (one, two) for hub in hubs for m in w.told(hub, badges[0])]
    assert len(numbers) == len(set(numbers)), "no number to a badge is used twice"
    for world in (one, two):
        world.core.store.close()


# --- death ------------------------------------------------------------------------------------------------------

KILLS = 3

_DIES = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from station_world import World
from station.ingest.dispatch import take
world = World(Path(sys.argv[1]))
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before":
    event.listen(world.core.store.engine, "commit", die)
else:
    world.core._listeners.insert(0, die)  # before anything is published
lines = [line.split() for line in sys.stdin.read().splitlines()]
take(world.core, [(topic, bytes.fromhex(data)) for topic, data in lines])
print("survived")
"""


def _dies(folder: Path, when: str, messages: list[tuple[str, bytes]]) -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", _DIES, str(folder), when],
        input="\n".join(f"{topic} {data.hex()}" for topic, data in messages),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(here)},
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_commit_and_receipts_the_hub_asks_again_and_is_answered(world: World, when: str) -> None:
    badge, hub = world.badge(), world.hub()
    told = [badge.event(kind) for kind in (kinds.SOS, kinds.BATTERY, kinds.CHECK_IN, kinds.LANYARD)]
    messages = [(hub.topic("event"), hub.event(badge, event)) for event in told]
    world.core.store.close()
    _dies(world.folder, when, messages)
    world.restart()
    assert len(_known(world)) == (4 if when == "after" else 0), "the batch holds as a whole or not at all"
    assert _receipts(world, hub) == [], "nobody was told anything"
    for event in told:
        world.say(hub, hub.event(badge, event))
    assert _receipts(world, hub) == [event.ident for event in told]
    assert _known(world) == {event.ident: True for event in told}
    assert len(world.alarms(badge)) == 2
    assert world.counted("duplicate") == (4 if when == "after" else 0)
    receipts = [downlink.unpack_receipt(m.body) for m in world.told(hub, badge) if m.type == downlink.RECEIPT]
    assert [level for ident, _, level, _ in receipts if ident == told[0].ident] == [kinds.RECEIVED]


def test_a_station_killed_again_and_again_while_it_drains_loses_and_doubles_nothing(tmp_path: Path) -> None:
    process, port = start_broker("auto")
    options: dict[str, Any] = {"broker": f'host = "127.0.0.1"\nport = {port}'}
    events, alarms, killed = 400, 0, 0
    try:
        with running(tmp_path, **options) as station:
            badge, hub = station.badge(), station.hub()
            told = [badge.event(kinds.SOS if n % 50 == 0 else kinds.BATTERY) for n in range(events)]
            alarms = sum(event.kind == kinds.SOS for event in told)
        waiting = {event.ident: event for event in told}
        while waiting:
            with running(tmp_path, **options) as station:
                public = bytes.fromhex(station.ready["station_key"])

                def answered(station: Any = station, public: bytes = public) -> list[bytes]:
                    downs = [hub.open(public, m.payload) for m in list(station.heard) if m.topic.endswith("/down")]
                    return [relay.unpack_receipt(m.payload)[1] for m in downs if m.type == relay.RECEIPT]

                # until the last kill not all at once: nothing would be left for the further ones
                for event in list(waiting.values())[: 100 if killed < KILLS else None]:
                    station.say(hub, hub.event(badge, event))
                wanted = 1 if killed < KILLS else len(waiting)
                until(lambda answered=answered, wanted=wanted: len(set(answered())) >= wanted, "receipts")  # type: ignore[misc]
                if killed < KILLS:
                    station.process.send_signal(signal.SIGKILL)
                    station.process.wait(PATIENCE_S)
                    killed += 1
                for name in answered():
                    waiting.pop(name, None)
        with running(tmp_path, **options) as station:
            assert len(station.alarms(badge)) == alarms
            found = station.api.get("/api/alarms?state=all").json()["alarms"]
            assert sorted(a["identity"] for a in found) == sorted({a["identity"] for a in found})
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    assert killed == KILLS
    world = World(tmp_path / "data")
    assert _known(world) == {event.ident: True for event in told}
    world.core.store.close()
