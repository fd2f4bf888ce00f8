"""What hub and station say to each other over MQTT: bytes, signed, each with the sender's own facts.

The broker in between is trusted with nothing. A hub signs with its Ed25519 identity, the station with its own;
signing and verifying come in as functions, so that nothing here knows a library.

From a hub (`tocsin/1/hub/<id>/up/...`):

    version u8 | type u8 | hub 8 | hub boot u32 | number u32 | held ms u32 | flags u8
    | facts length u16 | facts | payload | signature 64

`number` grows within a hub's boot. `held ms` is how long the hub had it, by its monotonic clock. Facts are a JSON
object, at most 1,024 bytes: rssi, location, and what else the hub knows. To a hub (`.../down`):

    version u8 | type u8 | hub 8 | number u32 | payload | signature 64
"""

import struct

from .beacon import Beacon, parse_block
from .crypto import Forged, ccm_open, ccm_seal, hkdf
from .events import BLOB_LENGTH, Malformed

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

SIGNATURE = 64
FACTS_MAX = 1024
HUB_ID = 8

# up
EVENT = 1  # an event over a connection
BEACON = 2  # an event heard as a beacon
TELEMETRY = 3  # a badge's STATUS
AUDIO = 4  # packets of one capture
HEALTH = 5  # the hub's own state; payload: nothing, facts say it
HELLO = 6  # the hub's public keys: Ed25519 32 | X25519 32
SECOND_PATH = 7  # an alarm went out by another way than this one, because no receipt came

# down
RECEIPT = 1  # an event is committed: its outbox row may go
REJECTED = 2  # an event that the station cannot verify: its outbox row may go
AUDIO_RECEIPT = 3
DOWN = 4  # something for a badge
KEYS = 5  # group and link keys, sealed to this hub
ANSWER = 6  # 24 bytes to advertise for a badge that has no session (protocol.answer)

CLOCK_SYNCHRONISED = 1

_UP = ">BB8sIIIBH"
_UP_LENGTH = 25
_DOWN = ">BB8sI"
_DOWN_LENGTH = 14


class Up:
    """One message of a hub. `facts` is the JSON text, `payload` depends on `type`."""

    def __init__(
        self,
        type: int,
        hub: bytes,
        boot: int,
        number: int,
        held_ms: int,
        flags: int,
        facts: bytes,
        payload: bytes,
    ) -> None:
        self.type = type
        self.hub = hub
        self.boot = boot
        self.number = number
        self.held_ms = held_ms
        self.flags = flags
        self.facts = facts
        self.payload = payload


def pack_up(sign: "Callable[[bytes], bytes]", up: Up) -> bytes:
    """The signed bytes of a hub's message; raises ValueError for facts over FACTS_MAX."""
    if len(up.facts) > FACTS_MAX:
        raise ValueError("facts of %d bytes" % len(up.facts))
    text = (
        struct.pack(_UP, 1, up.type, up.hub, up.boot, up.number, min(up.held_ms, 0xFFFFFFFF), up.flags, len(up.facts))
        + up.facts
        + up.payload
    )
    return text + sign(text)


def sender(data: bytes) -> bytes:
    """The hub that a message claims to be from, to look its key up; raises Malformed."""
    if len(data) < _UP_LENGTH + SIGNATURE or data[0] != 1:
        raise Malformed("relay message of %d bytes" % len(data))
    return data[2:10]


def unpack_up(verify: "Callable[[bytes, bytes], bool]", data: bytes) -> Up:
    """The message; `verify(signature, text)` knows the hub's key. Raises Forged, Malformed."""
    sender(data)
    text = data[:-SIGNATURE]
    if not verify(data[-SIGNATURE:], text):
        raise Forged
    _version, kind, hub, boot, number, held, flags, length = struct.unpack(_UP, text[:_UP_LENGTH])
    if length > FACTS_MAX or _UP_LENGTH + length > len(text):
        raise Malformed("facts of %d bytes" % length)
    at = _UP_LENGTH + length
    return Up(kind, hub, boot, number, held, flags, text[_UP_LENGTH:at], text[at:])


class Down:
    """One message of the station to a hub."""

    def __init__(self, type: int, hub: bytes, number: int, payload: bytes) -> None:
        self.type = type
        self.hub = hub
        self.number = number
        self.payload = payload


def pack_down(sign: "Callable[[bytes], bytes]", down: Down) -> bytes:
    """The signed bytes of a station's message."""
    text = struct.pack(_DOWN, 1, down.type, down.hub, down.number) + down.payload
    return text + sign(text)


def unpack_down(verify: "Callable[[bytes, bytes], bool]", hub: bytes, data: bytes) -> Down:
    """The message, if the station signed it for this hub. Raises Forged, Malformed."""
    if len(data) < _DOWN_LENGTH + SIGNATURE or data[0] != 1:
        raise Malformed("relay message of %d bytes" % len(data))
    text = data[:-SIGNATURE]
    if text[2:10] != hub or not verify(data[-SIGNATURE:], text):
        raise Forged
    _version, kind, _hub, number = struct.unpack(_DOWN, text[:_DOWN_LENGTH])
    return Down(kind, hub, number, text[_DOWN_LENGTH:])


# --- payloads, up -----------------------------------------------------------------------------------------------

_EVENT = ">3sB8sIBB"
_EVENT_LENGTH = 18


def pack_event(badge: int, kind: int, ident: bytes, age_ms: int, battery: int, flags: int, blob: bytes) -> bytes:
    """An event as the hub may see it, and the badge's envelope for the station."""
    head = struct.pack(_EVENT, badge.to_bytes(3, "big"), kind, ident, min(age_ms, 0xFFFFFFFF), battery, flags)
    return head + blob


def unpack_event(payload: bytes) -> "tuple[int, int, bytes, int, int, int, bytes]":
    """badge, kind as the hub saw it, identity, age ms, battery %, flags, envelope; raises Malformed."""
    if len(payload) != _EVENT_LENGTH + BLOB_LENGTH:
        raise Malformed("event payload")
    badge, kind, ident, age, battery, flags = struct.unpack(_EVENT, payload[:_EVENT_LENGTH])
    return int.from_bytes(badge, "big"), kind, ident, age, battery, flags, payload[_EVENT_LENGTH:]


def pack_beacon(beacon: Beacon) -> bytes:
    """24 bytes: the beacon's plain block and its MAC."""
    return beacon.block + beacon.mac


def unpack_beacon(payload: bytes) -> Beacon:
    """A beacon, not yet verified (protocol.beacon.verify); raises Malformed."""
    if len(payload) != 24:
        raise Malformed("beacon payload")
    return parse_block(payload[:16], payload[16:])


def pack_telemetry(badge: int, battery: int, blob: bytes) -> bytes:
    """A badge's STATUS."""
    return badge.to_bytes(3, "big") + bytes((battery,)) + blob


def unpack_telemetry(payload: bytes) -> "tuple[int, int, bytes]":
    """badge, battery %, envelope; raises Malformed."""
    if len(payload) != 4 + BLOB_LENGTH:
        raise Malformed("telemetry payload")
    return int.from_bytes(payload[:3], "big"), payload[3], payload[4:]


_AUDIO = ">3s6sHH"
_AUDIO_LENGTH = 13


def pack_audio(badge: int, boot: bytes, capture: int, packets: "list[tuple[int, bytes]]") -> bytes:
    """Sealed packets (number, bytes) of one capture; each at most 255 bytes."""
    parts = [struct.pack(_AUDIO, badge.to_bytes(3, "big"), boot, capture, len(packets))]
    for index, sealed in packets:
        parts.append(index.to_bytes(4, "big") + bytes((len(sealed),)) + sealed)
    return b"".join(parts)


def unpack_audio(payload: bytes) -> "tuple[int, bytes, int, list[tuple[int, bytes]]]":
    """badge, boot, capture, packets; raises Malformed."""
    if len(payload) < _AUDIO_LENGTH:
        raise Malformed("audio payload")
    badge, boot, capture, count = struct.unpack(_AUDIO, payload[:_AUDIO_LENGTH])
    at = _AUDIO_LENGTH
    packets = []
    for _ in range(count):
        if at + 5 > len(payload) or at + 5 + payload[at + 4] > len(payload):
            raise Malformed("audio payload")
        end = at + 5 + payload[at + 4]
        packets.append((int.from_bytes(payload[at : at + 4], "big"), payload[at + 5 : end]))
        at = end
    if at != len(payload):
        raise Malformed("audio payload")
    return int.from_bytes(badge, "big"), boot, capture, packets


_SECOND_PATH = ">3s8sBBBI"
_SECOND_PATH_LENGTH = 18
BY_BEACON_ONLY = 1  # nothing but a beacon was heard, and the text said so
PERHAPS_TWICE = 2  # the hub was interrupted while it sent


def pack_second_path(badge: int, ident: bytes, flags: int, asked: int, sent: int, waited_ms: int) -> bytes:
    """An alarm that was told by text message: to how many numbers of how many, and how long it had waited."""
    waited = min(waited_ms, 0xFFFFFFFF)
    return struct.pack(_SECOND_PATH, badge.to_bytes(3, "big"), ident, flags, asked, sent, waited)


def unpack_second_path(payload: bytes) -> "tuple[int, bytes, int, int, int, int]":
    """badge, identity, flags, numbers, numbers that took it, ms waited; raises Malformed."""
    if len(payload) != _SECOND_PATH_LENGTH:
        raise Malformed("second path payload")
    badge, ident, flags, asked, sent, waited = struct.unpack(_SECOND_PATH, payload)
    return int.from_bytes(badge, "big"), ident, flags, asked, sent, waited


# --- payloads, down ---------------------------------------------------------------------------------------------


def pack_receipt(badge: int, ident: bytes, blob: bytes, form: int = EVENT) -> bytes:
    """RECEIPT or REJECTED: whose event, which, and an envelope to hand to the badge (or nothing).

    `form` (EVENT, BEACON, SECOND_PATH) says which of them the station has taken or refused. A beacon tells the kind and
    no more, so its receipt leaves the event itself in the outbox; and a forged beacon must not take a true event with
    it.
    """
    return badge.to_bytes(3, "big") + bytes((form,)) + ident + blob


def unpack_receipt(payload: bytes) -> "tuple[int, bytes, bytes, int]":
    """badge, identity, envelope, form; raises Malformed."""
    if len(payload) < 12 or payload[3] not in (EVENT, BEACON, SECOND_PATH):
        raise Malformed("receipt payload")
    return int.from_bytes(payload[:3], "big"), payload[4:12], payload[12:], payload[3]


def pack_down_badge(badge: int, blob: bytes) -> bytes:
    """DOWN: an envelope to hand to a badge. ANSWER: the 24 bytes to advertise for it."""
    return badge.to_bytes(3, "big") + blob


def unpack_down_badge(payload: bytes) -> "tuple[int, bytes]":
    """badge, envelope; raises Malformed."""
    if len(payload) < 4:
        raise Malformed("down payload")
    return int.from_bytes(payload[:3], "big"), payload[3:]


_AUDIO_RECEIPT = ">3s6sHH"


def pack_audio_receipt(badge: int, boot: bytes, capture: int, ranges: "list[tuple[int, int]]") -> bytes:
    """Packets that are committed, as ranges of first and last number, both included."""
    head = struct.pack(_AUDIO_RECEIPT, badge.to_bytes(3, "big"), boot, capture, len(ranges))
    return head + b"".join(first.to_bytes(4, "big") + last.to_bytes(4, "big") for first, last in ranges)


def unpack_audio_receipt(payload: bytes) -> "tuple[int, bytes, int, list[tuple[int, int]]]":
    """badge, boot, capture, ranges; raises Malformed."""
    if len(payload) < 13:
        raise Malformed("audio receipt")
    badge, boot, capture, count = struct.unpack(_AUDIO_RECEIPT, payload[:13])
    if len(payload) != 13 + 8 * count:
        raise Malformed("audio receipt")
    ranges = []
    for i in range(13, len(payload), 8):
        ranges.append((int.from_bytes(payload[i : i + 4], "big"), int.from_bytes(payload[i + 4 : i + 8], "big")))
    return int.from_bytes(badge, "big"), boot, capture, ranges


# KEYS: ephemeral X25519 public key 32 | CCM under HKDF of the shared secret. Each is sealed under a key of its own,
# so the nonce may be zeros. Plain text: JSON {"group": [hex, ...], "links": {"badge": hex, ...}, "number": n}.


def _keys_key(shared: bytes, ephemeral: bytes, hub: bytes) -> bytes:
    return hkdf(shared, b"tocsin 1 hub keys" + ephemeral + hub)


def seal_keys(shared: bytes, ephemeral: bytes, hub: bytes, text: bytes) -> bytes:
    """Seal keys to a hub; `shared` is the X25519 secret of the ephemeral key (32 bytes) and the hub's."""
    return ephemeral + ccm_seal(_keys_key(shared, ephemeral, hub), bytes(13), hub, text)


def open_keys(exchange: "Callable[[bytes], bytes]", hub: bytes, payload: bytes) -> bytes:
    """The JSON text; `exchange(ephemeral public key)` gives the shared secret. Raises Forged, Malformed."""
    if len(payload) < 32 + 8:
        raise Malformed("keys payload")
    ephemeral = payload[:32]
    return ccm_open(_keys_key(exchange(ephemeral), ephemeral, hub), bytes(13), hub, payload[32:])
