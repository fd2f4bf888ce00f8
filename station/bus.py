"""The station on MQTT: one client with a fixed name, callbacks that only enqueue, acknowledgement after the commit.

MQTT 5 where the broker offers it, else 3.1.1. What arrives is acknowledged to the broker only when its work is
done, but nothing depends on that: hubs repeat what has no receipt. What the station says while the broker is away
is dropped rather than queued, because an old proof proves nothing; retained facts are said anew after every connect.

Alarms hang on paho's one thread. Nothing that happens in a callback ends it, nothing in a callback waits for the
database, and a watch notices when it ended all the same, or stands still, or hears nothing: then a new client begins.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from station.work import Send

logger = logging.getLogger("station.bus")

TOPICS = ("tocsin/1/hub/+/up/#", "tocsin/1/hub/+/hello", "tocsin/1/hub/+/state")
KEEPALIVE_S = 10
INFLIGHT = 400
_CONNECT_S = 5.0
_ANSWER_S = 1.0  # until a broker that was reached must have answered CONNECT
_WATCH_S = 1.0
_SUBSCRIBE_S = 5.0  # until a broker that let us in must have granted the subscriptions
_STILL_S = 10.0  # paho's thread goes round every second; after the keepalive the broker gives us up as well
_UNDONE_S = 120.0  # longer than any backlog takes; a broker passes on only so many that are not acknowledged

P = ParamSpec("P")


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


class _Client(mqtt.Client):
    """paho's client, of which can be told whether its thread lives."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.ended = False
        self.round_at = time.monotonic()

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """What paho's thread does from its beginning to its end."""
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:
            logger.exception("the connection to the broker failed: %s", type(error).__name__)
            return MQTTErrorCode.MQTT_ERR_UNKNOWN
        finally:
            self.ended = True

    def loop_misc(self) -> MQTTErrorCode:
        """Once in each round."""
        self.round_at = time.monotonic()
        return super().loop_misc()


def _guarded(
    callback: Callable[Concatenate["Bus", mqtt.Client, P], None],
) -> Callable[Concatenate["Bus", mqtt.Client, P], None]:
    """A callback that raises nothing into paho's thread, which would end by it, and that hears no former client."""

    def called(bus: "Bus", client: mqtt.Client, /, *given: P.args, **named: P.kwargs) -> None:
        if not bus.owns(client):
            return
        try:
            callback(bus, client, *given, **named)
        except Exception:
            logger.exception("the connection to the broker goes on after a failure in %s", callback.__name__)

    return called


class Bus:
    """The connection. `arrived` is called in paho's thread and must only enqueue.

    `retained` gives what to publish after a connect; it may read the database, and is asked again when it raises.
    """

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
        self._accepted_at: float | None = None  # since when the broker lets us in
        self._told = self._untold = 0  # the connection on which retained facts were said, or could not be
        self._undone: dict[int, float] = {}  # message identifiers that wait for our acknowledgement, since when
        self._up = threading.Event()
        self._stopping = False
        self._wake = threading.Event()
        self._lock = threading.Lock()  # of which client is in use and how it stands; held for no longer than that takes
        self._client = self._build()
        self.dropped = 0
        self.problem = ""  # why nothing is received, where more is known than that there is no broker

    # --- life ---

    def start(self) -> None:
        """Connect in the background, for ever again."""
        self._connect()
        threading.Thread(target=self._watch, name="mqtt watch", daemon=True).start()
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
        self._wake.set()
        if self.connected:
            info = self._client.publish(self._topic, self._presence(False), qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):  # the broker may go before us
                info.wait_for_publish(1.0)
        self._end(self._client).join(3.0)

    def owns(self, client: mqtt.Client) -> bool:
        """Whether this is the client in use, and not one that was given up."""
        return client is self._client

    def _build(self) -> _Client:
        # no session is kept at the broker: what it would have stored for us the hubs repeat
        client = _Client(
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
        """Begin again with the other version: runs in a thread of its own, because paho's cannot end itself."""
        with self._lock:
            if self._stopping or self._settled:
                return
            five = self._version == MQTTProtocolVersion.MQTTv5
            self._version = MQTTProtocolVersion.MQTTv311 if five else MQTTProtocolVersion.MQTTv5
            self._again()

    def _again(self) -> None:
        """Begin again with a new client; the former one ends by itself, unheard. Needs the lock."""
        former, self._client = self._client, self._build()
        self._end(former)
        self._up.clear()
        self._accepted_at = None
        self._connection += 1
        self._undone.clear()
        self._connect()

    @staticmethod
    def _end(client: _Client) -> threading.Thread:
        """Disconnect a client and end its thread, which may hang or wait for an answer that never comes."""

        def end() -> None:
            with contextlib.suppress(OSError, ValueError):
                client.disconnect()
            client.loop_stop()

        thread = threading.Thread(target=end, name="mqtt end", daemon=True)
        thread.start()
        return thread

    # --- the watch ---

    def _watch(self) -> None:
        """See to it that there is a client that lives and receives, and say retained facts."""
        while not self._stopping:
            self._wake.wait(_WATCH_S)
            self._wake.clear()
            try:
                with self._lock:
                    wrong = "" if self._stopping else self._wrong()
                    if wrong:
                        self._complain(wrong)
                        self._again()
                self._say_retained()
            except Exception:
                logger.exception("the watch over the connection to the broker goes on after a failure")

    def _wrong(self) -> str:
        """Why a new client is needed, or nothing."""
        client, now = self._client, time.monotonic()
        if client.ended:
            return "the thread of the connection to the broker ended"
        if self._up.is_set() and now - client.round_at > _STILL_S:
            return "the thread of the connection to the broker stands still"
        if not self._up.is_set() and self._accepted_at is not None and now - self._accepted_at > _SUBSCRIBE_S:
            return self.problem or "the broker does not answer the subscriptions"
        if any(now - since > _UNDONE_S for since in list(self._undone.values())):
            return "messages of the broker were not acknowledged"
        return ""

    def _complain(self, problem: str) -> None:
        """The first time is told; the same again is for those who look closer."""
        logger.log(logging.DEBUG if problem == self.problem else logging.ERROR, "%s", problem)
        self.problem = problem

    def _say_retained(self) -> None:
        """Say retained facts, once on each connection.

        They are read again until nothing has changed: what was committed and said between reading and saying would
        otherwise be followed by what was true before.
        """
        connection, said = self._connection, dict[str, Send]()
        while self._up.is_set() and connection == self._connection != self._told:
            try:
                facts = {send.topic: send for send in self._retained()}
            except Exception as error:
                # the database is away: the watch comes again
                logger.log(
                    logging.DEBUG if self._untold == connection else logging.ERROR,
                    "the broker is not told the readable alarms yet: %s",
                    type(error).__name__,
                )
                self._untold = connection
                return
            news = [send for topic, send in facts.items() if said.get(topic) != send]
            if not news:
                self._told = connection
            self.publish(news)
            said = facts

    def _presence(self, online: bool) -> str:
        return json.dumps({"online": online, "key": self._key.hex()})

    # --- paho's callbacks ---

    @_guarded
    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            # a broker of 3.1.1 refuses the first attempt: said only when the older version was refused as well
            if self._version != MQTTProtocolVersion.MQTTv5 and str(reason) != self._refused:
                self._refused = str(reason)
                logger.warning("the broker refuses the station: %s", reason)
            return
        with self._lock:
            if not self.owns(client):
                return  # given up since this began
            self._refused = ""
            self._settled = True
            self._connection += 1
            self._undone.clear()
            self._accepted_at = time.monotonic()
        client.subscribe([(topic, 1) for topic in TOPICS])

    @_guarded
    def _on_subscribe(
        self, client: mqtt.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        denied = [topic for topic, code in zip(TOPICS, codes, strict=False) if code.is_failure]
        if denied or len(codes) < len(TOPICS):
            # the watch asks again: rules can be changed while the broker runs
            self._complain(f"the broker's rules do not let the station hear {' '.join(denied) or 'all topics'}")
            return
        with self._lock:
            if not self.owns(client):
                return
            self.problem = ""
            self._up.set()
        logger.info("connected to the broker, MQTT %s", "5" if client.protocol == 5 else "3.1.1")
        client.publish(self._topic, self._presence(True), qos=1, retain=True)
        self._wake.set()

    @_guarded
    def _on_disconnect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        with self._lock:
            if not self.owns(client):
                return
            was_up = self._up.is_set()
            self._up.clear()
            self._accepted_at = None
            self._connection += 1
            self._undone.clear()
        if self._stopping:
            return
        if was_up:
            logger.warning("the broker is gone: %s", reason)
        elif not self._settled:
            threading.Thread(target=self._older, name="mqtt version", daemon=True).start()

    @_guarded
    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        arrived = Arrived(topic, bytes(message.payload), message.mid, message.qos, self._connection)
        if arrived.qos:
            self._undone[arrived.mid] = time.monotonic()
        try:
            self._arrived(arrived)
        except Exception:
            self.done(arrived)  # not taken, and repeated by its hub: the broker must not wait for it
            raise

    # --- what others call, from any thread ---

    def done(self, arrived: Arrived) -> None:
        """The message is dealt with or dropped: tell the broker, unless the connection it came by is gone.

        A broker passes on only so many messages (mosquitto: 20) that were not acknowledged, and then none.
        """
        if arrived.qos and arrived.connection == self._connection:
            try:
                self._client.ack(arrived.mid, arrived.qos)
            except (OSError, ValueError) as error:
                logger.warning("a message could not be acknowledged: %s", error)
                return  # the watch counts on it
            self._undone.pop(arrived.mid, None)

    def publish(self, sends: Iterable[Send]) -> None:
        """Send now, or drop where there is no connection. What fails concerns no other message."""
        for send in sends:
            if not self._up.is_set():
                self.dropped += 1
                continue
            try:
                self._client.publish(send.topic, send.payload, qos=send.qos, retain=send.retain)
            except (OSError, ValueError, RuntimeError):
                self.dropped += 1
                logger.exception("a message on %s could not be sent", send.topic)
