"""Which packets on a connection carry values of Tocsin's characteristics, and how they are spoilt.

Corruption, duplication and reordering stand for a faulty implementation above the link layer, whose own CRC
and sequence numbers would hide them. They touch only what the application must defend against: the value of
an ATT Write Request, Write Command or notification, never the protocols that carry it.
"""

from __future__ import annotations

import random

L2CAP_HEADER = 4
ATT_CID = b"\x04\x00"
WRITE_REQUEST, WRITE_COMMAND, NOTIFICATION = 0x12, 0x52, 0x1B
VALUE_AT = L2CAP_HEADER + 3  # opcode and handle before it
# A client characteristic configuration (Core Vol 3 Part G 3.3.3.3) is the only short write there is: two
# bytes, of which the second is reserved. No frame of ours is that short.
SUBSCRIPTION = 2


def carries_value(pdu: bytes) -> bool:
    """Whether an L2CAP packet is an ATT write or notification of a characteristic's value."""
    if len(pdu) <= VALUE_AT or pdu[2:4] != ATT_CID:
        return False
    if pdu[L2CAP_HEADER] == NOTIFICATION:
        return True
    if pdu[L2CAP_HEADER] not in (WRITE_REQUEST, WRITE_COMMAND):
        return False
    return not (len(pdu) - VALUE_AT == SUBSCRIPTION and pdu[-1] == 0 and pdu[-2] <= 3)


def corrupted(pdu: bytes, rng: random.Random) -> bytes:
    """The same packet with one bit of its value flipped."""
    spoilt = bytearray(pdu)
    spoilt[rng.randrange(VALUE_AT, len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def repeated(pdu: bytes) -> bytes:
    """What to deliver once more. A request is repeated as a command: ATT allows one answer to one request."""
    if pdu[L2CAP_HEADER] == WRITE_REQUEST:
        return pdu[:L2CAP_HEADER] + bytes((WRITE_COMMAND,)) + pdu[L2CAP_HEADER + 1 :]
    return pdu
