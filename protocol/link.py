"""What badge and hub say to each other inside a session: one type byte, then a body.

From the badge: EVENT, AUDIO, TELEMETRY, PONG. From the hub: READY, HELD, STATION, AUDIO_ACK, UPLINK, PING.
Every unpack_ raises events.Malformed for a body of the wrong length.
"""

import struct

from .events import BLOB_LENGTH, Malformed

SERVICE = "7a0c0001-5e2f-4b0e-9a54-c1d0b7e6f100"
RX = "7a0c0002-5e2f-4b0e-9a54-c1d0b7e6f100"  # hub writes, with or without response
TX = "7a0c0003-5e2f-4b0e-9a54-c1d0b7e6f100"  # badge notifies

EVENT = 0x10
AUDIO = 0x11
TELEMETRY = 0x12
PONG = 0x13
READY = 0x20
HELD = 0x21
STATION = 0x22
AUDIO_ACK = 0x23
UPLINK = 0x24
PING = 0x25

# Never on the air: what a link reports to its own side.
ESTABLISHED = 0x80
ENROL_REQUEST = 0x81  # to the badge: hub identifier, 8 bytes
ENROL = 0x82  # to the hub: identity 8, sealed ENROL event

_EVENT = ">B8sIBB"
_EVENT_LENGTH = 15


def pack_event(kind: int, ident: bytes, age_ms: int, battery: int, flags: int, blob: bytes) -> bytes:
    """An event as a hub may see it (`kind`: what a duress imitates), with the envelope for the station."""
    return struct.pack(_EVENT, kind, ident, min(age_ms, 0xFFFFFFFF), battery, flags) + blob


def unpack_event(body: bytes) -> tuple[int, bytes, int, int, int, bytes]:
    """kind, identity 8, age ms, battery %, flags, envelope."""
    if len(body) != _EVENT_LENGTH + BLOB_LENGTH:
        raise Malformed("event of %d bytes" % len(body))
    kind, ident, age, battery, flags = struct.unpack(_EVENT, body[:_EVENT_LENGTH])
    return kind, ident, age, battery, flags, body[_EVENT_LENGTH:]


def pack_telemetry(battery: int, blob: bytes) -> bytes:
    """A STATUS: battery in %, then its envelope."""
    return bytes((battery,)) + blob


def unpack_telemetry(body: bytes) -> tuple[int, bytes]:
    """Battery in % and envelope."""
    if len(body) != 1 + BLOB_LENGTH:
        raise Malformed("telemetry of %d bytes" % len(body))
    return body[0], body[1:]


_AUDIO = ">6sHI"
AUDIO_HEAD = 12


def pack_audio(boot: bytes, capture: int, index: int, sealed: bytes) -> bytes:
    """One sealed packet of a capture; with an empty one: no packet below this number is still to come."""
    return struct.pack(_AUDIO, boot, capture, index) + sealed


def unpack_audio(body: bytes) -> tuple[bytes, int, int, bytes]:
    """boot 6, capture, packet number, sealed packet (empty: none below that number is still to come)."""
    if not AUDIO_HEAD + 8 < len(body) <= AUDIO_HEAD + 240 and len(body) != AUDIO_HEAD:
        raise Malformed("audio of %d bytes" % len(body))
    boot, capture, index = struct.unpack(_AUDIO, body[:AUDIO_HEAD])
    return boot, capture, index, body[AUDIO_HEAD:]


def pack_held(idents: "list[bytes]") -> bytes:
    """Identities of events that the hub has on disk."""
    return b"".join(idents)


def unpack_held(body: bytes) -> "list[bytes]":
    """The inverse of pack_held."""
    if not body or len(body) % 8:
        raise Malformed("held of %d bytes" % len(body))
    return [body[i : i + 8] for i in range(0, len(body), 8)]


_ACK = ">6sHIQ"


def pack_audio_ack(boot: bytes, capture: int, next_index: int, beyond: int) -> bytes:
    """All packets below `next_index` are stored; bit i of `beyond` (64 bits) says that next_index + 1 + i is too."""
    return struct.pack(_ACK, boot, capture, next_index, beyond)


def unpack_audio_ack(body: bytes) -> tuple[bytes, int, int, int]:
    """The inverse of pack_audio_ack."""
    if len(body) != 20:
        raise Malformed("audio ack of %d bytes" % len(body))
    return struct.unpack(_ACK, body)


def pack_ready(uplink: bool, payload: int) -> bytes:
    """The session works; whether the hub has proof of the station; bytes that one notification may carry."""
    return bytes((1 if uplink else 0,)) + payload.to_bytes(2, "big")


def unpack_ready(body: bytes) -> tuple[bool, int]:
    """The inverse of pack_ready."""
    if len(body) != 3:
        raise Malformed("ready of %d bytes" % len(body))
    return bool(body[0]), int.from_bytes(body[1:], "big")
