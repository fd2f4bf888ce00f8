"""The station's answer as an advertisement of the hub: felt even while no connection succeeds.

A badge whose alarm has no answer and that has no session listens for advertisements. The hub that relayed its beacon
broadcasts these 24 bytes, made by the station, with the head of protocol.beacon:

    AES block under the group key: badge 3 | ident 8 | level u8 | rotation u16 | check 2
    8 bytes of MAC under the badge's answer key: over its present boot and the plain block

`ident` is the incident, or the event that an errand waits for; `level` its custody level (protocol.kinds). `rotation`
is the beacon that the station answers: the badge lets it be felt only when that one is young (protocol.fresh). An
answer can raise a level, never lower it.
"""

from . import aes
from .beacon import LENGTH, Group
from .crypto import equal, hmac_sha256


def _mac(key: bytes, boot: bytes, block: bytes) -> bytes:
    return hmac_sha256(key, b"answer" + boot + block)[:8]


def seal_answer(group: Group, key: bytes, badge: int, boot: bytes, ident: bytes, level: int, rotation: int) -> bytes:
    """24 bytes to advertise; `key` is keys.BadgeKeys.answer, `boot` the badge's present one."""
    head = badge.to_bytes(3, "big") + ident + bytes((level,)) + (rotation & 0xFFFF).to_bytes(2, "big")
    block = head + group.answer_check(head)
    return aes.ecb(group.key, block) + _mac(key, boot, block)


def open_answer(group: Group, key: bytes, badge: int, boot: bytes, data: bytes) -> "tuple[bytes, int, int] | None":
    """ident, level and rotation of an answer to this badge in this boot, or None for anything else."""
    if len(data) != LENGTH:
        return None
    block = aes.ecb_decrypt(group.key, data[:16])
    if int.from_bytes(block[:3], "big") != badge or not equal(group.answer_check(block[:14]), block[14:]):
        return None
    if not equal(_mac(key, boot, block), data[16:]):
        return None
    return block[3:11], block[11], int.from_bytes(block[12:14], "big")
