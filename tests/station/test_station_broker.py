"""The embedded broker, of both kinds, and the station's way through its death."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from station_running import PATIENCE_S, Running, free_port, running, until

from protocol import kinds
from station import broker as broker_module
from station.broker import BrokerError, EmbeddedBroker, find_mosquitto
from station.bus import Arrived, BrokerAddress, Bus
from station.serve import _listen

KINDS = ["amqtt", "mosquitto"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each broker that is there."""
    name: str = request.param
    if name == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed; on Debian and Ubuntu: apt install mosquitto")
    return name


def _below(pid: int) -> list[int]:
    """All processes that a process has started, and theirs."""
    if not _alive(pid):
        return []
    found = [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            found += [int(n) for n in (task / "children").read_text().split() if int(n) not in found]
    return found + [n for child in found for n in _below(child)]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_broker(kind: str, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """`tocsin-station broker` and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "station.cli", "broker", "--kind", kind, "--port", str(port or free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TOCSIN_PARENT_DEATH": "1"},
    )
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert (line["ready"], line["part"]) == (True, "broker")
    assert kind in ("auto", line["kind"])
    return process, line["port"]


@pytest.fixture
def broker(kind: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A broker of its own."""
    process, port = start_broker(kind)
    yield process, port
    process.kill()
    process.wait()


def test_a_broker_starts_carries_and_stops_cleanly(broker: tuple[subprocess.Popen[str], int]) -> None:
    process, port = broker
    got: list[Arrived] = []
    bus = Bus(BrokerAddress("127.0.0.1", port), "test", bytes(32), got.append, list)
    bus.start()
    assert bus.wait(PATIENCE_S)
    from station.work import Send

    bus.publish([Send("tocsin/1/hub/x/up/event", b"hello")])
    until(lambda: got, "the message came back")
    assert (got[0].topic, got[0].payload) == ("tocsin/1/hub/x/up/event", b"hello")
    bus.done(got[0])
    bus.stop()
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_a_killed_broker_leaves_no_process_and_its_port_is_free_at_once(
    kind: str, broker: tuple[subprocess.Popen[str], int]
) -> None:
    process, port = broker
    below = _below(process.pid)
    process.kill()
    process.wait()
    until(lambda: not any(_alive(pid) for pid in below), "children gone")
    again, same = start_broker(kind, port)
    assert same == port
    again.terminate()
    again.wait(PATIENCE_S)


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "station.cli", "broker", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert done.stderr.count("\n") == 1


def test_where_any_port_will_do_one_that_somebody_took_meanwhile_is_left(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(broker_module, "free_port", lambda: next(found))
        monkeypatch.setattr(broker_module, "START_S", 60.0)  # two starts, one after the other
        embedded = EmbeddedBroker(kind, 0)
        embedded.start()
        try:
            assert embedded.port != taken.getsockname()[1]
            socket.create_connection(("127.0.0.1", embedded.port), 1).close()
        finally:
            embedded.stop()


@pytest.mark.usefixtures("mosquitto")
def test_a_stranger_who_took_the_port_is_not_taken_for_our_own_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_taken", lambda _port: False)  # it was free a moment ago
    monkeypatch.setattr(broker_module, "_SETTLE_S", PATIENCE_S)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    said: list[int] = []
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as stranger,
            pytest.raises(BrokerError, match="instead of starting"),
        ):
            broker_module.serve("mosquitto", stranger.getsockname()[1], lambda _kind, port: said.append(port))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert said == []


@pytest.mark.parametrize("port", [0, 1])
def test_the_consoles_port_is_the_stations_own_before_it_serves(port: int) -> None:
    """While the station starts, nobody else may listen where its console will be: it ended with a traceback."""
    with _listen("127.0.0.1", port and free_port()) as console, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(console.getsockname())


def test_the_station_brings_its_broker_back_and_no_alarm_is_lost(kind: str, tmp_path: Path) -> None:
    with running(tmp_path, broker=f'port = {free_port()}\nkind = "{kind}"') as station:
        assert station.ready["broker_kind"] == kind
        badge, hub = station.badge(), station.hub()
        victims = _below(station.process.pid)
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        sos = badge.event(kinds.SOS)

        def repeated() -> bool:
            # as a hub's outbox does: again and again until there is a receipt
            station.say(hub, hub.event(badge, sos))
            time.sleep(0.2)
            return bool(station.alarms(badge))

        until(repeated, "the alarm")
        assert len(station.alarms(badge)) == 1
        # readable alarms are there again, though the new broker remembers nothing
        station.heard.clear()
        station.radio.subscribe("tocsin/1/alarms/+", 1)
        until(lambda: [m for m in station.heard if m.topic.startswith("tocsin/1/alarms/") and m.payload], "alarm")


def test_a_killed_station_forgets_nothing_and_repeats_its_receipt(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, broker=f"port = {port}") as station:
        badge, hub = station.badge(), station.hub()
        sos = badge.event(kinds.SOS)
        station.say(hub, hub.event(badge, sos))
        first = station.alarm(badge)
        below = _below(station.process.pid)
        station.stop(signal.SIGKILL)
        until(lambda: not any(_alive(pid) for pid in below), "its broker gone too")
    again = Running(tmp_path, broker=f"port = {port}")
    again.say(hub, hub.event(badge, sos))
    until(lambda: any(m.topic.endswith(f"{hub.name}/down") for m in again.heard), "receipt")
    (alarm,) = again.alarms(badge)
    assert (alarm["id"], alarm["identity"]) == (first["id"], first["identity"])
    assert again.stop() == 0
