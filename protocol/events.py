"""What a badge tells the station: the inner envelope that no hub can read.

Every event has the same size whatever it is, so that a duress cannot be told from the check-in it imitates.
Sealed with AES-CCM under the badge's events key:

    boot 6 | uplink number u32 | cipher text 44 | tag 8                                  = 62 bytes

The nonce is boot, uplink number and three zeros; the uplink number grows with every sealing, so that sending the
same event again is a fresh proof of life without repeating a nonce. Associated data: version and badge number.
Plain text, 44 bytes:

    kind u8 | ident 8 | age ms u32 | battery % u8 | flags u8 | incident 8 | body length u8 | body, padded to 20

`ident` names the event (boot and number), also when a later boot sends it. `age` is how long ago it happened by
the badge's own counter. `incident` is the identity of the event that opened the incident, or zeros.
"""

import struct

from . import ident as identity
from .crypto import NONCE_LENGTH, Forged, ccm_open, ccm_seal

BODY_MAX = 20
PLAIN_LENGTH = 44
BLOB_LENGTH = 6 + 4 + PLAIN_LENGTH + 8
AGE_MAX = 0xFFFFFFFF

_HEAD = ">B8sIBB8sB"
_HEAD_LENGTH = 24

# flags
IN_VISIT = 1
CAPTURING = 2
ON_BEACON = 4  # the badge had no session when it sealed this
FELT_MASK = 0x70  # bits 4-6: highest custody level that the wearer was told of
FELT_SHIFT = 4


class Malformed(Exception):
    """Authentic bytes that do not follow the specification: a defect or a newer version, not an attack."""


class Event:
    """One thing that happened on a badge. See the module's text for units."""

    def __init__(
        self,
        kind: int,
        ident: bytes,
        age_ms: int = 0,
        battery: int = 100,
        flags: int = 0,
        incident: bytes = identity.NONE,
        body: bytes = b"",
    ) -> None:
        self.kind = kind
        self.ident = ident
        self.age_ms = age_ms
        self.battery = battery
        self.flags = flags
        self.incident = incident
        self.body = body


def _aad(badge: int) -> bytes:
    return b"\x01E" + badge.to_bytes(3, "big")


def seal_event(key: bytes, badge: int, boot: bytes, number: int, event: Event) -> bytes:
    """The envelope of `event` as uplink `number` of this boot: BLOB_LENGTH bytes. Raises ValueError if too long."""
    if len(event.body) > BODY_MAX:
        raise ValueError("an event's body has at most 20 bytes")
    plain = struct.pack(
        _HEAD,
        event.kind,
        event.ident,
        min(event.age_ms, AGE_MAX),
        event.battery,
        event.flags,
        event.incident,
        len(event.body),
    )
    plain += event.body + bytes(BODY_MAX - len(event.body))
    head = boot + number.to_bytes(4, "big")
    return head + ccm_seal(key, head + bytes(NONCE_LENGTH - 10), _aad(badge), plain)


def open_event(key: bytes, badge: int, blob: bytes) -> tuple[Event, bytes, int]:
    """The event, the boot that sealed it and its uplink number.

    Raises Forged for what this badge did not seal, Malformed for what it sealed wrongly.
    """
    if len(blob) != BLOB_LENGTH:
        raise Forged
    head = blob[:10]
    plain = ccm_open(key, head + bytes(NONCE_LENGTH - 10), _aad(badge), blob[10:])
    kind, ident, age, battery, flags, incident, length = struct.unpack(_HEAD, plain[:_HEAD_LENGTH])
    if length > BODY_MAX:
        raise Malformed("body of %d bytes" % length)
    body = plain[_HEAD_LENGTH : _HEAD_LENGTH + length]
    event = Event(kind, ident, age, battery, flags, incident, body)
    return event, head[:6], int.from_bytes(head[6:], "big")


# --- bodies, by kind --------------------------------------------------------------------------------------------

# VISIT_START, VISIT_ARMED, CHECK_IN, EXTEND, VISIT_END (and a DURESS that imitates one): which visit, and its times.
# `visit` is the station's number, or 0 for one that was started on the badge, which `ref` (the identity of its
# VISIT_START) then names. A CHECK_IN of one byte goes before the start or end of a visit, whose kind it is: it moves
# no timer. Heard as a beacon, which has no body, it is a check-in like any other.
_VISIT = ">I8sIHH"


def pack_visit(visit: int, ref: bytes, remaining_ms: int, interval_s: int, grace_s: int) -> bytes:
    """20 bytes: visit number, its start's identity, time left in ms, interval and grace in seconds."""
    return struct.pack(
        _VISIT, visit, ref, min(max(remaining_ms, 0), AGE_MAX), min(interval_s, 65535), min(grace_s, 65535)
    )


def unpack_visit(body: bytes) -> tuple[int, bytes, int, int, int]:
    """The inverse of pack_visit; raises Malformed."""
    if len(body) != 20:
        raise Malformed("visit body")
    return struct.unpack(_VISIT, body)


# AUDIO_START / AUDIO_END: capture number, why (a kind), packets made, packets lost on the badge, samples a packet.
_AUDIO = ">HBIIH"


def pack_audio(capture: int, reason: int, packets: int, dropped: int, samples: int) -> bytes:
    """13 bytes that open (packets = 0) or end a capture."""
    return struct.pack(_AUDIO, capture, reason, packets, dropped, samples)


def unpack_audio(body: bytes) -> tuple[int, int, int, int, int]:
    """The inverse of pack_audio; raises Malformed."""
    if len(body) != 13:
        raise Malformed("audio body")
    return struct.unpack(_AUDIO, body)


# STATUS: what the badge knows, so that the station can repeat what did not arrive:
# highest number received from the station, custody level it has proof of, armed visit, settings version, free heap,
# the version of settings that it refused last (0: none), and which group key it has (beacon.Group.tag).
_STATUS = ">IBIHIHH"


def pack_status(
    last_down: int, level: int, visit: int, settings: int, heap_free: int, refused: int = 0, group: int = 0
) -> bytes:
    """19 bytes."""
    return struct.pack(_STATUS, last_down, level, visit, settings, heap_free, refused, group)


def unpack_status(body: bytes) -> tuple[int, int, int, int, int, int, int]:
    """The inverse of pack_status; raises Malformed."""
    if len(body) != 19:
        raise Malformed("status body")
    return struct.unpack(_STATUS, body)


# BOOTED: why the badge began anew and what went before, as far as retained memory kept it. See protocol.restart.
_BOOTED = ">BBBBBBHH"


def pack_booted(
    reset: int, cause: int, task: int, faults: int, handler_faults: int, radio_restarts: int, minutes: int, heap: int
) -> bytes:
    """10 bytes: machine.reset_cause(), the firmware's own cause, the task that hung or died (its place in
    restart.TASKS), then of the run before: faults, faults of the radio's handler, restarts of the radio (255: that
    many or more), minutes that it lasted, free heap in units of 64 bytes."""
    return struct.pack(
        _BOOTED,
        reset & 0xFF,
        cause & 0xFF,
        task & 0xFF,
        min(faults, 255),
        min(handler_faults, 255),
        min(radio_restarts, 255),
        min(minutes, 65535),
        min(heap >> 6, 65535),
    )


def unpack_booted(body: bytes) -> tuple[int, int, int, int, int, int, int, int]:
    """The inverse of pack_booted, the heap in bytes again; raises Malformed."""
    if len(body) != 10:
        raise Malformed("booted body")
    values = struct.unpack(_BOOTED, body)
    return values[:7] + (values[7] << 6,)


# DURESS: the kind that it imitates, then that kind's body, so that the station can restart the timer too.
def pack_duress(imitates: int, body: bytes) -> bytes:
    """One byte for the imitated kind, then its body shortened to fit.

    A visit body loses its last two bytes' worth of interval: the station knows the visit's times.
    """
    return bytes((imitates,)) + body[: BODY_MAX - 1]


def unpack_duress(body: bytes) -> tuple[int, int, bytes]:
    """The imitated kind, the visit number and the visit's reference; raises Malformed."""
    if not body:
        raise Malformed("duress body")
    rest = body[1:]
    if len(rest) >= 12:
        return body[0], int.from_bytes(rest[:4], "big"), rest[4:12]
    return body[0], 0, identity.NONE
