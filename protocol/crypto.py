"""Sealing and key derivation: AES-CCM (RFC 3610, NIST SP 800-38C), HMAC-SHA256 (RFC 2104), HKDF (RFC 5869).

MicroPython brings none of the three. CCM is built from one CBC call (the MAC) and one ECB call over the
counter blocks (the key stream), which on the badge are two calls into the ESP32's AES hardware.
The nonce is always 13 bytes, so one message holds at most 65,535 bytes.
"""

from hashlib import sha256

from . import aes

NONCE_LENGTH = 13
TAG_LENGTH = 8


class Forged(Exception):
    """The bytes were not sealed with this key, or somebody changed them."""


def _xor(a: bytes, b: bytes) -> bytes:
    # whole-number arithmetic: one C loop instead of one bytecode loop per byte
    n = len(a)
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(n, "big")


def _mac(key: bytes, nonce: bytes, aad: bytes, plain: bytes, tag: int) -> bytes:
    flags = (0x40 if aad else 0) | ((tag - 2) // 2) << 3 | 1
    length = len(plain)
    text = bytes((flags,)) + nonce + bytes((length >> 8, length & 0xFF))
    if aad:
        head = bytes((len(aad) >> 8, len(aad) & 0xFF)) + aad
        text += head + bytes(-len(head) % 16)
    text += plain + bytes(-length % 16)
    return aes.cbc(key, text)[-16:]


def _stream(key: bytes, nonce: bytes, blocks: int) -> bytes:
    counters = bytearray(16 * blocks)
    head = b"\x01" + nonce
    for i in range(blocks):
        at = 16 * i
        counters[at : at + 14] = head
        counters[at + 14] = i >> 8
        counters[at + 15] = i & 0xFF
    return aes.ecb(key, bytes(counters))


def ccm_seal(key: bytes, nonce: bytes, aad: bytes, plain: bytes, tag: int = TAG_LENGTH) -> bytes:
    """Encrypt `plain` and append a tag of `tag` bytes (4..16, even) over it and `aad`.

    `key` 16 bytes, `nonce` 13 bytes and never used twice under one key, `aad` at most 65,279 bytes.
    Raises ValueError where a length does not fit.
    """
    if len(nonce) != NONCE_LENGTH or len(plain) > 0xFFFF or len(aad) > 0xFEFF or tag not in (4, 6, 8, 10, 12, 14, 16):
        raise ValueError("ccm: length")
    stream = _stream(key, nonce, 1 + (len(plain) + 15) // 16)
    sealed_tag = _xor(_mac(key, nonce, aad, plain, tag), stream[:16])[:tag]
    return _xor(plain, stream[16 : 16 + len(plain)]) + sealed_tag


def ccm_open(key: bytes, nonce: bytes, aad: bytes, sealed: bytes, tag: int = TAG_LENGTH) -> bytes:
    """The plain text of what `ccm_seal` made; raises Forged for anything else, of any length."""
    length = len(sealed) - tag
    if len(nonce) != NONCE_LENGTH or length < 0 or length > 0xFFFF:
        raise Forged
    stream = _stream(key, nonce, 1 + (length + 15) // 16)
    plain = _xor(sealed[:length], stream[16 : 16 + length])
    if not equal(_xor(_mac(key, nonce, aad, plain, tag), stream[:16])[:tag], sealed[length:]):
        raise Forged
    return plain


def equal(a: bytes, b: bytes) -> bool:
    """Compare without telling by the time taken where the first difference is."""
    if len(a) != len(b):
        return False
    difference = 0
    for i in range(len(a)):
        difference |= a[i] ^ b[i]
    return difference == 0


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    if len(key) > 64:
        key = sha256(key).digest()
    padded = key + bytes(64 - len(key))
    inner = sha256(bytes(b ^ 0x36 for b in padded))
    inner.update(data)
    outer = sha256(bytes(b ^ 0x5C for b in padded))
    outer.update(inner.digest())
    return outer.digest()


def hkdf(secret: bytes, info: bytes, length: int = 16, salt: bytes = b"") -> bytes:
    """HKDF-SHA256: `length` bytes (at most 8,160) derived from `secret` for the one purpose `info`."""
    if length > 255 * 32:
        raise ValueError("hkdf: length")
    extracted = hmac_sha256(salt or bytes(32), secret)
    out = b""
    block = b""
    n = 1
    while len(out) < length:
        block = hmac_sha256(extracted, block + info + bytes((n,)))
        out += block
        n += 1
    return out[:length]
