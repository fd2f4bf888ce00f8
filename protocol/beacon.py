"""The sealed beacon: presence, or an alarm, in the 24 bytes that a legacy advertisement leaves.

    one AES block under the council's group key | 8 bytes of MAC under the badge's beacon key

The block: badge 3 | boot 6 | event number u16 | kind and battery u8 | rotation u16 | check u16. It never repeats,
because the rotation counts every advertisement that is made in a boot, so it needs no nonce. The check only routes:
any hub of the council can tell whose it is, a stranger can neither read nor follow it. Only the station can verify
the MAC, which covers the true kind: a duress shows a hub the kind that it imitates.

An advertisement is 31 bytes: flags (3), manufacturer data with the company identifier that the Bluetooth SIG
reserves for tests (4), these 24.
"""

from . import aes
from .crypto import equal, hkdf
from .keys import beacon_mac
from .kinds import CANCEL, CHECK_IN, DURESS, STATUS

COMPANY = 0xFFFF
LENGTH = 24
_ADVERTISEMENT_HEAD = b"\x02\x01\x06\x1b\xff\xff\xff"


class Beacon:
    """What a hub can read of a beacon, and what it forwards. `battery` in sixteenths, 0..15."""

    def __init__(
        self,
        badge: int,
        boot: bytes,
        seq: int,
        kind: int,
        battery: int,
        rotation: int,
        block: bytes,
        mac: bytes,
    ) -> None:
        self.badge = badge
        self.boot = boot
        self.seq = seq
        self.kind = kind
        self.battery = battery
        self.rotation = rotation
        self.block = block
        self.mac = mac

    @property
    def ident(self) -> bytes:
        """The identity of the event that it announces (8 bytes)."""
        return self.boot + self.seq.to_bytes(2, "big")


class Group:
    """A council's group key (16 bytes) with what is derived from it once."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise ValueError("a group key has 16 bytes")
        self.key = key
        self._check_key = hkdf(key, b"tocsin 1 check")

    def check(self, head: bytes) -> bytes:
        """Two bytes that a beacon under this key carries; `head` is its first 14 bytes."""
        return aes.ecb(self._check_key, head + b"\x00\x00")[:2]

    @property
    def tag(self) -> int:
        """A number from 1 by which two sides find out whether they have the same key: it tells nothing else of it."""
        return int.from_bytes(self.check(bytes(14)), "big") or 1

    def answer_check(self, head: bytes) -> bytes:
        """The same for an answer (protocol.answer), so that neither is taken for the other."""
        return aes.ecb(self._check_key, head + b"\x00\x01")[:2]


def seal_beacon(
    group: Group,
    beacon_key: bytes,
    badge: int,
    boot: bytes,
    seq: int,
    kind: int,
    imitates: int,
    battery: int,
    rotation: int,
) -> bytes:
    """24 bytes. `kind` is the true one, `imitates` what a hub may see (the same but for duress); battery in %."""
    head = badge.to_bytes(3, "big") + boot + seq.to_bytes(2, "big")
    head += bytes((imitates << 4 | min(battery * 16 // 101, 15),)) + (rotation & 0xFFFF).to_bytes(2, "big")
    block = head + group.check(head)
    return aes.ecb(group.key, block) + beacon_mac(beacon_key, block, kind)


def route(groups: "list[Group]", data: bytes) -> "Beacon | None":
    """Whose beacon this is, under any of the group keys, or None for what is not ours."""
    if len(data) != LENGTH:
        return None
    for group in groups:
        block = aes.ecb_decrypt(group.key, data[:16])
        if equal(group.check(block[:14]), block[14:]):
            badge = int.from_bytes(block[:3], "big")
            if not badge:
                continue
            kind = block[11] >> 4
            seq = int.from_bytes(block[9:11], "big")
            rotation = int.from_bytes(block[12:14], "big")
            return Beacon(badge, block[3:9], seq, kind, block[11] & 15, rotation, block, data[16:])
    return None


def verify(beacon_key: bytes, beacon: Beacon) -> "int | None":
    """The true kind of a beacon that this badge really sent, else None."""
    if equal(beacon_mac(beacon_key, beacon.block, beacon.kind), beacon.mac):
        return beacon.kind
    if beacon.kind in (CHECK_IN, CANCEL) and equal(beacon_mac(beacon_key, beacon.block, DURESS), beacon.mac):
        return DURESS
    return None


def parse_block(block: bytes, mac: bytes) -> Beacon:
    """A beacon from its plain block (16 bytes) as a hub forwarded it; nothing is verified yet."""
    return Beacon(
        int.from_bytes(block[:3], "big"),
        block[3:9],
        int.from_bytes(block[9:11], "big"),
        block[11] >> 4,
        block[11] & 15,
        int.from_bytes(block[12:14], "big"),
        block,
        mac,
    )


def announces(kind: int) -> bool:
    """Whether a beacon of this kind is an event that a hub must relay, and not mere presence."""
    return kind != STATUS


def advertisement(data: bytes) -> bytes:
    """The 31 bytes to advertise for a beacon of 24."""
    return _ADVERTISEMENT_HEAD + data


def parse_advertisement(data: bytes) -> "bytes | None":
    """The 24 bytes in an advertisement of ours, with or without flags before them, else None."""
    at = 0
    while at + 28 <= len(data):
        length = data[at]
        if length == 27 and data[at + 1 : at + 4] == b"\xff\xff\xff":
            return bytes(data[at + 4 : at + 28])
        if not length:
            return None
        at += 1 + length
    return None
