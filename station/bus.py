"""The station on MQTT: one client with a fixed name, callbacks that only enqueue, acknowledgement after the commit.

MQTT 5 where the broker offers it, else 3.1.1. What arrives is acknowledged to the broker only when its work is
done, but nothing depends on that: hubs repeat what has no receipt. What the station says while the broker is away
is dropped rather than queued, because an old proof proves nothing; retained facts are said anew after every connect.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from station.work import Send

logger = logging.getLogger("station.bus")

TOPICS = ("tocsin/1/hub/+/up/#", "tocsin/1/hub/+/hello", "tocsin/1/hub/+/state")
KEEPALIVE_S = 10
INFLIGHT = 400
_CONNECT_S = 5.0
_ANSWER_S = 1.0  # until a broker that was reached must have answered CONNECT


@dataclass
class BrokerAddress:
    """Where the broker is and how to be let in; paths are PEM files, `ca` switches TLS on."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Arrived:
    """A message with what is needed to acknowledge it on the connection that it came by."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    connection: int


class Bus:
    """`arrived` is called in paho's thread and must only enqueue; `connected` gives what to publish after a connect."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        key: bytes,
        arrived: Callable[[Arrived], None],
        retained: Callable[[], Iterable[Send]],
        only_3_1_1: bool = False,
        presence_topic: str = "tocsin/1/station",
    ) -> None:
        self.address = address
        self._client_id = client_id
        self._key = key
        self._arrived = arrived
        self._topic = presence_topic
        self._retained = retained
        self._version = MQTTProtocolVersion.MQTTv311 if only_3_1_1 else MQTTProtocolVersion.MQTTv5
        self._refused = ""  # why, when that was last said
        self._settled = False  # the broker has accepted this version once
        self._connection = 0
        self._up = threading.Event()
        self._stopping = False
        self._lock = threading.Lock()
        self._client = self._build()
        self.dropped = 0

    # --- life ---

    def start(self) -> None:
        """Connect in the background, for ever again."""
        self._connect()
        if self._version == MQTTProtocolVersion.MQTTv5:
            threading.Thread(target=self._doubt, name="mqtt version", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether there is a connection within that time."""
        return self._up.wait(seconds)

    @property
    def connected(self) -> bool:
        """Subscribed and receiving."""
        return self._up.is_set()

    def stop(self) -> None:
        """Say goodbye and disconnect."""
        self._stopping = True
        if self.connected:
            info = self._client.publish(self._topic, self._presence(False), qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # the broker may go before us
                info.wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()

    def _build(self) -> mqtt.Client:
        # no session is kept at the broker: what it would have stored for us the hubs repeat
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=self._version, manual_ack=True
        )
        address = self.address
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if address.ca is not None:
            client.tls_set(address.ca, address.cert, address.key)
        client.will_set(self._topic, self._presence(False), qos=1, retain=True)
        client.max_inflight_messages_set(INFLIGHT)
        client.reconnect_delay_set(1, 1)  # never longer: alarms wait behind it
        client.connect_timeout = _CONNECT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _connect(self) -> None:
        self._client.connect_async(self.address.host, self.address.port, KEEPALIVE_S)
        self._client.loop_start()

    def _doubt(self) -> None:
        """Some brokers of 3.1.1 neither accept nor refuse MQTT 5: no answer counts as no."""
        while not self._stopping and not self._settled:
            silent_since = time.monotonic()
            while self._client.socket() is not None and not self._settled:
                if time.monotonic() - silent_since > _ANSWER_S:
                    self._older()
                    break
                time.sleep(0.05)
            time.sleep(0.2)

    def _older(self) -> None:
        """Begin again with MQTT 3.1.1: runs in a thread of its own, because paho's cannot end itself."""
        with self._lock:
            if self._stopping or self._settled:
                return
            # paho may wait for an answer that never comes: the old client ends by itself, unheard
            before = self._client
            before.on_connect = before.on_disconnect = None
            before.disconnect()
            threading.Thread(target=before.loop_stop, name="mqtt end", daemon=True).start()
            five = self._version == MQTTProtocolVersion.MQTTv5
            self._version = MQTTProtocolVersion.MQTTv311 if five else MQTTProtocolVersion.MQTTv5
            self._client = self._build()
            self._connect()

    def _presence(self, online: bool) -> str:
        return json.dumps({"online": online, "key": self._key.hex()})

    # --- paho's callbacks ---

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            # a broker of 3.1.1 refuses the first attempt: said only when the older version was refused as well
            if self._version != MQTTProtocolVersion.MQTTv5 and str(reason) != self._refused:
                self._refused = str(reason)
                logger.warning("the broker refuses the station: %s", reason)
            return
        self._refused = ""
        self._settled = True
        self._connection += 1
        client.subscribe([(topic, 1) for topic in TOPICS])

    def _on_subscribe(self, client: mqtt.Client, *_: Any) -> None:
        logger.info("connected to the broker, MQTT %s", "5" if client.protocol == 5 else "3.1.1")
        self._up.set()
        client.publish(self._topic, self._presence(True), qos=1, retain=True)
        for send in self._retained():
            client.publish(send.topic, send.payload, qos=send.qos, retain=send.retain)

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        was_up = self._up.is_set()
        self._up.clear()
        self._connection += 1
        if self._stopping:
            return
        if was_up:
            logger.warning("the broker is gone: %s", reason)
        elif not self._settled:
            threading.Thread(target=self._older, name="mqtt version", daemon=True).start()

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._arrived(Arrived(message.topic, bytes(message.payload), message.mid, message.qos, self._connection))

    # --- what others call, from any thread ---

    def done(self, arrived: Arrived) -> None:
        """The message is dealt with: tell the broker, unless the connection it came by is gone."""
        if arrived.qos and arrived.connection == self._connection:
            self._client.ack(arrived.mid, arrived.qos)

    def publish(self, sends: Iterable[Send]) -> None:
        """Send now, or drop where there is no connection."""
        for send in sends:
            if not self._up.is_set():
                self.dropped += 1
                continue
            self._client.publish(send.topic, send.payload, qos=send.qos, retain=send.retain)
