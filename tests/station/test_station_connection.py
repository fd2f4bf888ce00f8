"""The station's connection to a real broker: what goes wrong in it is noticed, and it receives again."""

import contextlib
import getpass
import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy.exc import OperationalError
from station_running import PATIENCE_S, free_port, until

from station import bus as connection
from station.broker import find_mosquitto
from station.bus import Arrived, BrokerAddress, Bus
from station.work import Send

WINDOW = 20  # messages that mosquitto passes on without an acknowledgement
TOPIC = "tocsin/1/hub/x/up/event"
DYNSEC = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")

pytestmark = pytest.mark.usefixtures("mosquitto")


class Broker:
    """mosquitto with nothing but its defaults, on one port from start to start."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
            f"log_dest stderr\nlog_type none\nset_tcp_nodelay true\n{more}"
        )
        self.start()

    def start(self) -> None:
        """Until it accepts connections."""
        program = find_mosquitto()
        assert program is not None
        self.process = subprocess.Popen([program, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        until(self._accepts, "the broker")

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """It ends."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def say(self, *payloads: bytes, topic: str = TOPIC) -> None:
        """Somebody publishes."""
        radio = mqtt.Client(CallbackAPIVersion.VERSION2)
        radio.connect("127.0.0.1", self.port)
        radio.loop_start()
        for payload in payloads:
            radio.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)
        radio.disconnect()
        radio.loop_stop()

    def retained(self, topic: str) -> bytes | None:
        """What the broker keeps on a topic."""
        got: list[bytes] = []
        radio = mqtt.Client(CallbackAPIVersion.VERSION2)
        radio.on_message = lambda _client, _data, message: got.append(bytes(message.payload))
        radio.connect("127.0.0.1", self.port)
        radio.loop_start()
        radio.subscribe(topic, 1)
        with contextlib.suppress(AssertionError):
            until(lambda: got, "retained", 2)
        radio.disconnect()
        radio.loop_stop()
        return got[0] if got else None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of its own."""
    made = Broker(tmp_path)
    yield made
    made.stop()


@contextlib.contextmanager
def connected(
    port: int, arrived: Callable[[Arrived], None], retained: Callable[[], Any] = list, **options: Any
) -> Iterator[Bus]:
    """A connection, ended at the end."""
    made = Bus(BrokerAddress("127.0.0.1", port), "station", bytes(32), arrived, retained, **options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Ear:
    """Receives and acknowledges, as the ingest does."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.bus: Bus | None = None

    def __call__(self, arrived: Arrived) -> None:
        self.got.append(arrived.payload)
        if self.bus is not None:
            self.bus.done(arrived)

    def heard(self, broker: Broker, payload: bytes) -> None:
        """A message reaches it, repeated as hubs do."""

        def said() -> bool:
            broker.say(payload)
            return payload in self.got

        until(said, f"{payload!r} arrived")


def test_a_database_that_fails_while_the_broker_comes_back_costs_no_message_and_no_retained_fact(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    ear, failing = Ear(), False

    def retained() -> list[Send]:
        if failing:
            raise OperationalError("select", {}, Exception("the server closed the connection"))
        return [Send("tocsin/1/alarms/12-3-45", b"open", retain=True)]

    with connected(broker.port, ear, retained) as bus:
        ear.bus = bus
        assert bus.wait(PATIENCE_S)
        ear.heard(broker, b"before")
        failing = True
        broker.stop()
        until(lambda: not bus.connected, "the loss noticed")
        broker.start()
        until(lambda: "not told the readable alarms" in caplog.text, "the database was asked")
        assert broker.retained("tocsin/1/alarms/12-3-45") is None
        ear.heard(broker, b"while it fails")
        assert bus.connected
        failing = False
        until(lambda: broker.retained("tocsin/1/alarms/12-3-45") == b"open", "the alarm is readable again")


def test_what_is_said_while_retained_facts_are_read_is_not_followed_by_what_was_true_before(broker: Broker) -> None:
    topic = "tocsin/1/alarms/12-3-45"
    facts, given = [b"open"], threading.Event()

    def retained() -> list[Send]:
        read = facts[0]
        if read == b"open":
            # somebody closes the alarm in this moment
            facts[0] = b"closed"
            assert given.wait(PATIENCE_S)
            bus.publish([Send(topic, b"closed", retain=True)])
        return [Send(topic, read, retain=True)]

    with connected(broker.port, Ear(), retained) as bus:
        given.set()
        assert bus.wait(PATIENCE_S)
        until(lambda: broker.retained(topic) == b"closed", "the alarm is not open for ever")
        time.sleep(0.3)
        assert until(lambda: broker.retained(topic), "retained") == b"closed"


def test_a_receiver_that_fails_again_and_again_ends_nothing_and_holds_nothing_up(broker: Broker) -> None:
    ear, failed = Ear(), 0

    def arrived(message: Arrived) -> None:
        nonlocal failed
        if message.payload == b"bad":
            failed += 1
            raise RuntimeError("a defect")
        ear(message)

    with connected(broker.port, arrived) as bus:
        ear.bus = bus
        assert bus.wait(PATIENCE_S)
        broker.say(*[b"bad"] * (2 * WINDOW))
        until(lambda: failed == 2 * WINDOW, "more than the broker passes on without an acknowledgement")
        ear.heard(broker, b"good")
        assert bus.connected


def test_a_thread_that_ended_is_replaced(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()

    def defect() -> None:
        raise RuntimeError("a defect of the library")

    with connected(broker.port, ear) as bus:
        ear.bus = bus
        assert bus.wait(PATIENCE_S)
        ear.heard(broker, b"before")
        bus._client.loop_misc = defect  # type: ignore[assignment,method-assign]
        until(lambda: "ended" in caplog.text, "noticed")
        ear.heard(broker, b"after")
        assert bus.connected


def test_a_thread_that_stands_still_is_replaced_and_unheard_from_then_on(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "_STILL_S", 2.5)
    ear, goes_on = Ear(), threading.Event()

    def arrived(message: Arrived) -> None:
        if message.payload == b"stop":
            goes_on.wait(30)
        ear(message)

    with connected(broker.port, arrived) as bus:
        ear.bus = bus
        assert bus.wait(PATIENCE_S)
        former = bus._client
        broker.say(b"stop")
        ear.heard(broker, b"after")
        assert "stands still" in caplog.text
        goes_on.set()
        until(lambda: former.ended, "the former thread ends by itself")
        monkeypatch.setattr(connection, "_STILL_S", PATIENCE_S)
        ear.heard(broker, b"later")
        until(lambda: bus.connected, "connected")


@pytest.mark.parametrize("callback", ["connect", "subscribe", "disconnect"])
def test_what_a_former_client_tells_while_it_is_given_up_is_not_believed_of_the_new_one(callback: str) -> None:
    class Overtaken(Bus):
        given_up = False

        def owns(self, client: mqtt.Client) -> bool:
            mine = super().owns(client)
            if mine and not self.given_up:
                # in this moment the watch begins again with another client
                self.given_up = True
                with self._lock:
                    self._again()
            return mine

    # where nobody listens: the new client is not connected
    bus = Overtaken(BrokerAddress("127.0.0.1", free_port()), "station", bytes(32), lambda _: None, list)
    former, before = bus._client, bus._connection
    try:
        if callback == "connect":
            bus._on_connect(former, None, {}, ReasonCode(PacketTypes.CONNACK, "Success"), None)
        elif callback == "subscribe":
            granted = [ReasonCode(PacketTypes.SUBACK, "Granted QoS 1")] * len(connection.TOPICS)
            bus._on_subscribe(former, None, 1, granted, None)
        else:
            bus._on_disconnect(former, None, {}, ReasonCode(PacketTypes.DISCONNECT), None)
        assert bus._client is not former
        assert (bus.connected, bus._settled, bus._accepted_at) == (False, False, None)
        assert bus._connection == before + 1, "by the new client alone"
    finally:
        bus.stop()


def test_messages_that_are_never_acknowledged_make_the_station_deaf_for_a_limited_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = Ear()
    with connected(broker.port, ear) as bus:
        assert bus.wait(PATIENCE_S)
        broker.say(*[b"forgotten"] * (2 * WINDOW))
        until(lambda: ear.got.count(b"forgotten") == WINDOW, "as many as the broker passes on")
        monkeypatch.setattr(connection, "_UNDONE_S", 1.5)
        ear.bus = bus
        ear.heard(broker, b"after")


def test_a_broker_that_never_grants_the_subscriptions_is_not_called_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SUBSCRIBE_S", 0.5)
    accepted: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                accepted.append(client)
                client.recv(1024)
                client.sendall(b"\x20\x02\x00\x00")  # CONNACK, and no more

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        with connected(listening.getsockname()[1], Ear(), only_3_1_1=True) as bus:
            until(lambda: len(accepted) >= 3, "tried again")
            assert not bus.connected
            assert bus.problem == "the broker does not answer the subscriptions"
        for client in accepted:
            client.close()


def test_a_station_that_may_not_subscribe_says_so_and_receives_once_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not DYNSEC.exists():
        pytest.skip(f"{DYNSEC} is missing, mosquitto's plugin for rules at run time: apt install mosquitto")
    monkeypatch.setattr(connection, "_SUBSCRIBE_S", 0.5)
    caplog.set_level(logging.DEBUG, connection.logger.name)
    rules = tmp_path / "rules.json"
    allowed = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    rules.write_text(json.dumps({"defaultACLAccess": allowed}))
    broker = Broker(tmp_path, f"plugin {DYNSEC}\nplugin_opt_config_file {rules}\n")
    ear = Ear()
    try:
        with connected(broker.port, ear) as bus:
            ear.bus = bus
            refused = "rules do not let the station hear tocsin/1/hub/+/up/#"
            until(lambda: refused in bus.problem, "refusal noticed")
            until(lambda: sum(refused in record.getMessage() for record in caplog.records) >= 2, "asked again")
            assert not bus.connected
            said = [record for record in caplog.records if "rules do not let" in record.getMessage()]
            assert sum(record.levelno > logging.INFO for record in said) == 1, "said, and not for ever"
            broker.stop()
            rules.write_text(json.dumps({"defaultACLAccess": {**allowed, "subscribe": True}}))
            broker.start()
            ear.heard(broker, b"now")
            assert (bus.connected, bus.problem) == (True, "")
    finally:
        broker.stop()
