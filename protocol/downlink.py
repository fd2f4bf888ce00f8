"""What the station tells a badge. Sealed under the badge's down key; a hub carries it unread.

    nonce 13, random | cipher text | tag 8
    plain text: type u8 | number u32 | boot 6 | echo u32 | body

`number` grows with everything the station sends to that badge and survives its restarts. `boot` and `echo` say
which uplink of the badge the station answers: the highest uplink number that it has seen of that boot, or
BEACON | rotation where it has heard the badge by beacon only. The badge lets its wearer feel a message only when
that uplink is young (protocol.fresh): a hub can delay or drop, never replay or invent.
"""

import struct

from .crypto import NONCE_LENGTH, ccm_open, ccm_seal
from .events import Malformed

PROOF = 1  # answer to a STATUS: station, hub and path work. Body: state
RECEIPT = 2  # an event is committed. Body: ident 8, then state
STATE = 3  # an alarm's custody changed. Body: state
REJECTED = 4  # an event that the station will never take. Body: ident 8
VISIT = 5  # arm, change or end a visit. Body: see pack_visit
SETTINGS = 6  # Body: version u16, then JSON
GROUP_KEY = 7  # Body: key 16
NOT_PROTECTED = 8  # the planned visit began and the badge was silent. Body: visit u32

BEACON = 0x80000000

_HEAD = ">BI6sI"
_HEAD_LENGTH = 15


class Down:
    """One message from the station to a badge."""

    def __init__(self, type: int, number: int, boot: bytes, echo: int, body: bytes = b"") -> None:
        self.type = type
        self.number = number
        self.boot = boot
        self.echo = echo
        self.body = body


def _aad(badge: int) -> bytes:
    return b"\x01D" + badge.to_bytes(3, "big")


def seal_down(key: bytes, badge: int, nonce: bytes, down: Down) -> bytes:
    """The envelope of `down`; `nonce` is 13 random bytes."""
    plain = struct.pack(_HEAD, down.type, down.number, down.boot, down.echo) + down.body
    return nonce + ccm_seal(key, nonce, _aad(badge), plain)


def open_down(key: bytes, badge: int, blob: bytes) -> Down:
    """The message; raises crypto.Forged for what the station did not seal, Malformed for a short one."""
    plain = ccm_open(key, bytes(blob[:NONCE_LENGTH]), _aad(badge), bytes(blob[NONCE_LENGTH:]))
    if len(plain) < _HEAD_LENGTH:
        raise Malformed("downlink of %d bytes" % len(plain))
    kind, number, boot, echo = struct.unpack(_HEAD, plain[:_HEAD_LENGTH])
    return Down(kind, number, boot, echo, plain[_HEAD_LENGTH:])


# --- bodies -----------------------------------------------------------------------------------------------------

# flags of a state
RETURNED = 1  # the operator is gone: a lower level than before is meant
YOUNG = 4  # it was raised less than half an hour ago by the station's clock: sound may go on after a loss of power
YOUNG_S = 1800
NOT_READY = 8  # of a self-test's receipt: it came back, but the hub found something by which an alarm might not
BY_BEACON = 2  # of a receipt: only the event's beacon was heard, so go on sending the event itself
_STATE = ">8sBB"


def pack_state(incident: bytes, level: int, flags: int = 0) -> bytes:
    """10 bytes: the incident (zeros: none open), its custody level (protocol.kinds), flags."""
    return struct.pack(_STATE, incident, level, flags)


def unpack_state(body: bytes) -> tuple[bytes, int, int]:
    """The inverse of pack_state; raises Malformed."""
    if len(body) < 10:
        raise Malformed("state body")
    return struct.unpack(_STATE, body[:10])


def pack_receipt(ident: bytes, incident: bytes, level: int, flags: int = 0) -> bytes:
    """18 bytes: which event is committed, and the state of the incident that it belongs to."""
    return ident + pack_state(incident, level, flags)


def unpack_receipt(body: bytes) -> tuple[bytes, bytes, int, int]:
    """Event identity, incident, level, flags; raises Malformed."""
    if len(body) < 18:
        raise Malformed("receipt body")
    incident, level, flags = unpack_state(body[8:])
    return body[:8], incident, level, flags


# A visit as the station orders it. `ref` names one that was started on the badge. remaining_ms = 0 with ENDED ends it.
VISIT_ENDED = 1
VISIT_AUDIO = 2  # a missed check-in may start the microphone: agreed in advance
_VISIT = ">I8sIIIB"


def pack_visit(visit: int, ref: bytes, remaining_ms: int, interval_ms: int, grace_ms: int, flags: int = 0) -> bytes:
    """25 bytes: number, start's identity, ms until due, whole interval ms, grace ms, flags."""
    return struct.pack(_VISIT, visit, ref, remaining_ms, interval_ms, grace_ms, flags)


def unpack_visit(body: bytes) -> tuple[int, bytes, int, int, int, int]:
    """The inverse of pack_visit; raises Malformed."""
    if len(body) != 25:
        raise Malformed("visit body")
    return struct.unpack(_VISIT, body)
