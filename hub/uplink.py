"""The way to the broker: MQTT by paho, driven by asyncio.

Nothing of value lives in here. Every connection has a fresh paho client, so no message of an earlier one is waiting
inside; what must arrive is in the outbox and is published again. QoS 1 only paces: a PUBACK says that the broker took
a message, never that the station has it.

With a second broker given, one that fails is followed by the other, and so is one at which no station answers.

MQTT 5 is tried first and remembered while it works; a broker that refuses it is asked for 3.1.1 at once. paho reads
and writes on the event loop, so that a message leaves in the instant in which it is published.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from hub.background import in_background

logger = logging.getLogger("hub.uplink")

CONNECT_S = 3.0  # for TCP and for CONNACK each
PROBE_S = 1.0  # for CONNACK to MQTT 5: amqtt neither takes nor refuses it
PROBE_AGAIN_S = 600.0  # until MQTT 5 is tried again where it was not to be had
# s between attempts: at once for the first; an alarm that waits is never half a second late for it
RETRY_S = (0.05, 0.2, 0.5)
STEADY_S = 10.0  # a connection that held so long is no reason to wait before the next
MISC_S = 0.5  # how often paho looks at its keepalive
SESSION_S = 60  # MQTT 5: how long the broker keeps what the station says to a hub that has just lost it
SEND_BUFFER = 65_536  # bytes in the kernel that an alarm may find before it; Linux would take megabytes
RECEIVE_MAX = 100  # MQTT 5: messages of the station that the broker may have under way to this hub
INFLIGHT = 500  # messages without PUBACK; what publishes keeps its own, smaller windows
STATION_TOPIC = "tocsin/1/station"


@dataclass(frozen=True)
class Tls:
    """PEM files: the authority that the broker must be signed by; this hub's certificate, where it has one; its key."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True)
class Broker:
    """Where the broker is and how to sign in. `version`: auto, 5 or 3.1.1; `keepalive` in seconds."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    keepalive: int = 2
    version: str = "auto"
    tls: Tls | None = None


class Uplink:
    """A connection that comes back by itself.

    `on_ready(bool)` is called when the hub can publish and when it no longer can; `on_down(bytes)` with each message
    on the hub's own topic; `on_station()` when the station announces itself; `on_round()` every few seconds at most,
    while it is alive. All on the event loop.
    """

    def __init__(
        self,
        broker: Broker,
        hub_id: bytes,
        boot: int,
        on_ready: Callable[[bool], None],
        on_down: Callable[[bytes], None],
        on_station: Callable[[], None],
        fallback: Broker | None = None,
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        self.broker = broker
        self.denied = ""  # what the broker's rules do not let this hub do
        self._brokers = [broker, fallback] if fallback else [broker]
        self.ready = False
        self.problem = "not connected yet"
        self.protocol = ""
        self.connections = 0
        self.base = f"tocsin/1/hub/{hub_id.hex()}"
        self._boot = boot
        self._hub = hub_id.hex()
        self._on_ready = on_ready
        self._on_down = on_down
        self._on_station = on_station
        self._client: mqtt.Client | None = None
        self._done: dict[int, Callable[[], None]] = {}
        self._ended = asyncio.Event()
        self._refused5 = float("-inf")
        self._told = ""
        self._leaves = False
        self._on_round = on_round

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 1,
        done: Callable[[], None] | None = None,
        retain: bool = False,
        expiry_s: int | None = None,
    ) -> bool:
        """Publish under the hub's own topics; `done` when the broker has it. False when there is no connection.

        With MQTT 5 the broker throws the message away after `expiry_s`: for what is sent again anyway.
        """
        client = self._client
        if client is None or not self.ready:
            return False
        properties = None
        if expiry_s is not None and client.protocol is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        info = client.publish(f"{self.base}/{topic}", payload, qos, retain, properties)
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            return False
        if done is not None and qos:
            self._done[info.mid] = done
        elif done is not None:
            done()
        return True

    async def run(self) -> None:
        """Keep a connection for ever; cancel it to go offline properly."""
        attempt = 0
        while True:
            self._on_round()
            started = time.monotonic()
            before = self.connections
            try:
                await self._connection()
            except OSError as problem:
                self._say(_words(problem))
            except _Refused as refused:
                self._say(str(refused))
            finally:
                self._offline()
            if time.monotonic() - started > STEADY_S:
                attempt = 0
            if self._leaves or self.connections == before:
                # what failed is tried again after the other one
                self.broker = self._brokers[(self._brokers.index(self.broker) + 1) % len(self._brokers)]
                self._refused5 = float("-inf") if len(self._brokers) > 1 else self._refused5
            self._leaves = False
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    def elsewhere(self) -> bool:
        """There is no station at this broker: try the other one, if there is one."""
        if len(self._brokers) < 2 or not self.ready:
            return False
        self.problem = "no station answers there"
        self._leaves = True
        self._ended.set()
        return True

    def renew(self) -> None:
        """The broker keeps the connection and takes nothing: connect anew, to the other one if there is one."""
        if self.ready and not self.elsewhere():
            self._ended.set()
        self.problem = "takes no message, though it keeps the connection"

    def _deny(self, what: str) -> None:
        if self.denied != what:
            logger.warning("broker %s:%d: its rules do not let this hub %s", self.broker.host, self.broker.port, what)
        self.denied = what

    def _say(self, problem: str) -> None:
        """The first failure is told; the same again is for those who look closer."""
        self.problem = problem
        level = logging.DEBUG if problem == self._told else logging.WARNING
        self._told = problem
        logger.log(level, "broker %s:%d: %s", self.broker.host, self.broker.port, problem)

    # ------------------------------------------------------------------ one connection

    async def _connection(self) -> None:
        if self.broker.version == "3.1.1":
            versions = [MQTTProtocolVersion.MQTTv311]
        elif self.broker.version == "5":
            versions = [MQTTProtocolVersion.MQTTv5]
        elif time.monotonic() - self._refused5 < PROBE_AGAIN_S:
            versions = [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5]
        else:
            versions = [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311]
        for version in versions:
            client, connected = self._make(version)
            try:
                if await self._open(client, connected, last=version is versions[-1]):
                    if version is not versions[0]:
                        self._refused5 = time.monotonic() if version is MQTTProtocolVersion.MQTTv311 else float("-inf")
                    self.protocol = "5" if version is MQTTProtocolVersion.MQTTv5 else "3.1.1"
                    await self._serve(client)
                    return
            finally:
                self._close(client)

    def _make(self, version: MQTTProtocolVersion) -> tuple[mqtt.Client, asyncio.Future[ReasonCode]]:
        five = version is MQTTProtocolVersion.MQTTv5
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"tocsin-hub-{self._hub}",
            clean_session=None if five else True,
            protocol=version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        if self.broker.tls is not None:
            client.tls_set_context(_tls_context(self.broker.tls))
        client.max_inflight_messages_set(INFLIGHT)
        if self.broker.user:
            client.username_pw_set(self.broker.user, self.broker.password)
        client.will_set(f"{self.base}/state", self._state(False), 1, True)
        loop = asyncio.get_running_loop()
        connected: asyncio.Future[ReasonCode] = loop.create_future()
        self._ended.clear()

        # each of these only passes on: paho holds locks while it calls them
        def on_connect(
            _client: mqtt.Client,
            _user: Any,
            _flags: mqtt.ConnectFlags,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            if not connected.done():
                connected.set_result(code)

        def on_disconnect(
            _client: mqtt.Client,
            _user: Any,
            _flags: mqtt.DisconnectFlags,
            code: ReasonCode,
            _properties: Properties | None,
        ) -> None:
            if not connected.done():
                connected.set_exception(_Refused(f"closed the connection: {code}"))
            self.problem = f"connection lost: {code}"
            self._ended.set()

        def on_message(_client: mqtt.Client, _user: Any, message: mqtt.MQTTMessage) -> None:
            loop.call_soon(self._arrived, message.topic, bytes(message.payload))

        def on_publish(
            _client: mqtt.Client, _user: Any, mid: int, code: ReasonCode, _properties: Properties | None
        ) -> None:
            if code.is_failure:
                self._deny(f"publish: {code}")
            if done := self._done.pop(mid, None):
                loop.call_soon(done)

        def on_subscribe(
            _client: mqtt.Client, _user: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
        ) -> None:
            for code in codes:
                if code.is_failure:
                    self._deny(f"hear what is for it: {code}")

        client.on_subscribe = on_subscribe
        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_publish = on_publish
        client.suppress_exceptions = False
        return client, connected

    async def _open(self, client: mqtt.Client, connected: asyncio.Future[ReasonCode], last: bool) -> bool:
        """Connect; False when the broker refuses this version of the protocol and another may be tried."""
        properties = None
        if client.protocol is MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_S
            properties.ReceiveMaximum = RECEIVE_MAX

        def connect() -> None:
            client.connect(
                self.broker.host,
                self.broker.port,
                self.broker.keepalive,
                clean_start=False if properties else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )

        try:
            async with asyncio.timeout(CONNECT_S + 1):
                await in_background("mqtt-connect", connect)
        except TimeoutError:
            raise _Refused("does not answer") from None
        self._attach(client)
        try:
            async with asyncio.timeout(CONNECT_S if last else PROBE_S):
                code = await connected
        except TimeoutError:
            if last:
                raise _Refused("takes connections but says nothing") from None
            return False
        except _Refused:
            if last:
                raise
            return False
        if not code.is_failure:
            return True
        if "version" in str(code).lower() and not last:
            return False
        raise _Refused(f"refuses this hub: {code}")

    def _attach(self, client: mqtt.Client) -> None:
        """Let the event loop read and write for paho."""
        loop = asyncio.get_running_loop()
        sock = client.socket()
        if sock is None:
            raise _Refused("closed the connection")
        assert isinstance(sock, socket.socket)
        for level, option, value in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER),
        ):
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)
        descriptor = sock.fileno()

        def readable() -> None:
            client.loop_read()
            while (left := client.socket()) is not None and getattr(left, "pending", int)():
                client.loop_read()  # TLS has decrypted more than was asked for

        def register(_client: mqtt.Client, _user: Any, _sock: Any) -> None:
            loop.add_writer(descriptor, client.loop_write)

        def unregister(_client: mqtt.Client, _user: Any, _sock: Any) -> None:
            loop.remove_writer(descriptor)

        def closed(_client: mqtt.Client, _user: Any, _sock: Any) -> None:
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)

        client.on_socket_register_write = register
        client.on_socket_unregister_write = unregister
        client.on_socket_close = closed
        loop.add_reader(descriptor, readable)
        if client.want_write():
            loop.add_writer(descriptor, client.loop_write)

    async def _serve(self, client: mqtt.Client) -> None:
        """From CONNACK to the end of the connection."""
        self._client = client
        client.subscribe([(f"{self.base}/down", 1), (f"{self.base}/state", 1), (STATION_TOPIC, 1)])
        self.ready = True
        self.problem = self.denied = ""
        self._told = ""
        self.connections += 1
        logger.info("broker %s:%d: connected, MQTT %s", self.broker.host, self.broker.port, self.protocol)
        self.publish("state", self._state(True), retain=True)
        self._on_ready(True)
        try:
            while not self._ended.is_set():
                self._on_round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MISC_S):
                        await self._ended.wait()
                client.loop_misc()
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, ValueError):
                self.publish("state", self._state(False), retain=True)
                client.disconnect()
                for _ in range(10):
                    if not client.want_write():
                        break
                    client.loop_write()
                    await asyncio.sleep(0.02)
            raise
        raise _Refused(self.problem or "connection lost")

    def _close(self, client: mqtt.Client) -> None:
        sock = client.socket()
        if sock is None:
            return
        assert isinstance(sock, socket.socket)
        loop = asyncio.get_running_loop()
        # paho would call these when it is collected, with a descriptor that is somebody else's by then
        client.on_socket_close = client.on_socket_register_write = client.on_socket_unregister_write = None
        loop.remove_reader(sock.fileno())
        loop.remove_writer(sock.fileno())
        sock.close()

    def _offline(self) -> None:
        self._client = None
        self._done.clear()
        if self.ready:
            self.ready = False
            self._on_ready(False)

    def _state(self, online: bool) -> bytes:
        return json.dumps({"hub": self._hub, "boot": self._boot, "online": online}).encode()

    def _arrived(self, topic: str, payload: bytes) -> None:
        if topic == f"{self.base}/down":
            self._on_down(payload)
        elif topic == f"{self.base}/state":
            # the will of an earlier connection may come after this one's greeting
            if self.ready and b'"online": false' in payload:
                self.publish("state", self._state(True), retain=True)
        elif topic == STATION_TOPIC:
            self._on_station()


def _tls_context(files: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker's name checked. Raises _Refused, naming the file that is at fault."""
    file = files.ca
    try:
        context = ssl.create_default_context(cafile=str(file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.cert.exists():
            file = files.cert
            context.load_cert_chain(str(files.cert), str(files.key))
    except FileNotFoundError as problem:
        raise _Refused(f"{file}: there is no such file") from problem
    except (ssl.SSLError, OSError) as problem:
        raise _Refused(f"{file}: {problem.strerror or problem}") from problem
    return context


def _words(problem: OSError) -> str:
    """What went wrong, for a technician."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not right: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {problem.reason or problem}: is this hub's certificate good (tocsin-hub identity show)?"
    return problem.strerror or str(problem) or type(problem).__name__


class _Refused(Exception):
    """The broker does not want, or no longer; the text says how."""
