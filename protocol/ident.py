"""Who and which: the names that make every consumer idempotent.

A badge is a number from 1 to 16,777,215. A `boot` is 6 bytes: a stored counter (u16) and 4 random bytes drawn
with the radio on, so that a wiped or restored flash never repeats one. An event is numbered from 1 within its
boot; its identity is `ident`, 8 bytes: boot, then the number (u16). An incident is named by the identity of the
event that opened it.
"""

BADGE_MAX = 0xFFFFFF
NONE = bytes(8)  # no incident


def boot_bytes(counter: int, random4: bytes) -> bytes:
    """The 6 bytes that name one run of a badge; `counter` is taken modulo 65,536."""
    return (counter & 0xFFFF).to_bytes(2, "big") + random4


def pack(boot: bytes, seq: int) -> bytes:
    """Boot (6 bytes) and event number (1..65,535) as an 8-byte identity."""
    return boot + seq.to_bytes(2, "big")


def unpack(ident: bytes) -> tuple[bytes, int]:
    """The boot and the event number of an identity."""
    return ident[:6], int.from_bytes(ident[6:8], "big")


def text(badge: int, ident: bytes) -> str:
    """As people read it: badge number/boot counter/event number."""
    return "%d/%d/%d" % (badge, int.from_bytes(ident[:2], "big"), int.from_bytes(ident[6:8], "big"))
