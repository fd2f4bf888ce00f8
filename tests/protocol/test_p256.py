"""Signatures of updates: our check agrees with published ones and with the reference, on both interpreters."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import p256

ROOT = Path(__file__).resolve().parents[2]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# RFC 6979, A.2.5: the key, and what it signs with SHA-256
KEY = bytes.fromhex(
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
)
PUBLISHED = {
    b"sample": "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    b"test": "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367"
    "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
}
# checks what the standard input holds, as a badge does
ON_BADGE = """
import json, sys
from binascii import unhexlify
sys.path.insert(0, ".")
from protocol import p256
for line in sys.stdin:
    key, digest, signature = [unhexlify(text) for text in json.loads(line)]
    print(int(p256.verify(key, digest, signature)))
"""

Case = tuple[bytes, bytes, bytes]


def raw(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def reference(message: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8 % len(out)] ^= 1 << bit % 8
    return bytes(out)


@cache
def a_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


@pytest.mark.parametrize("message", sorted(PUBLISHED))
def test_published_signatures_are_good(message: bytes) -> None:
    assert p256.verify(KEY, sha256(message).digest(), bytes.fromhex(PUBLISHED[message]))


@pytest.mark.parametrize("part", ["key", "digest", "signature"])
def test_any_flipped_bit_is_noticed(part: str) -> None:
    case = {"key": KEY, "digest": sha256(b"sample").digest(), "signature": bytes.fromhex(PUBLISHED[b"sample"])}
    for bit in range(0, 8 * len(case[part]), 3):
        assert not p256.verify(**case | {part: flipped(case[part], bit)}), bit


@given(st.integers(1, 50), st.binary(max_size=80), st.integers(0, 511))
@settings(max_examples=60, deadline=None)
def test_it_agrees_with_the_reference(number: int, message: bytes, bit: int) -> None:
    key = a_key(number)
    signature = raw(key.sign(message, ec.ECDSA(hashes.SHA256())))
    digest = sha256(message).digest()
    # the key 1 is the base point itself: equal points are added
    assert p256.verify(public(key), digest, signature)
    assert not p256.verify(public(a_key(number + 1)), digest, signature)
    other = flipped(signature, bit)
    assert p256.verify(public(key), digest, other) == reference(message, other, key.public_key())


@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=80))
def test_bytes_of_any_length_never_raise_and_are_never_good(key: bytes, digest: bytes, signature: bytes) -> None:
    assert not p256.verify(key, digest, signature)
    assert not p256.verify(KEY, digest, signature)


def test_numbers_out_of_their_range_are_refused() -> None:
    digest = sha256(b"sample").digest()
    good = bytes.fromhex(PUBLISHED[b"sample"])
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    for low, high in ((0, s), (r, 0), (ORDER, s), (r, ORDER), (r, (1 << 256) - 1)):
        assert not p256.verify(KEY, digest, low.to_bytes(32, "big") + high.to_bytes(32, "big"))
    assert p256.verify(KEY, digest, r.to_bytes(32, "big") + (ORDER - s).to_bytes(32, "big"))  # ECDSA knows no sign of s
    assert not p256.verify(KEY, digest, good[:63])
    assert not p256.verify(KEY, digest[:31], good)
    assert not p256.verify(bytes(64), digest, good)


def test_micropython_agrees_bit_by_bit_of_it() -> None:
    cases: list[Case] = []
    for message, signature in PUBLISHED.items():
        cases.append((KEY, sha256(message).digest(), bytes.fromhex(signature)))
    for number in (2, 3, 1234567, ORDER - 2):
        key = a_key(number)
        message = number.to_bytes(40, "big")
        signed = raw(key.sign(message, ec.ECDSA(hashes.SHA256())))
        digest = sha256(message).digest()
        cases.append((public(key), digest, signed))
        cases += [(public(key), digest, flipped(signed, bit)) for bit in range(0, 512, 31)]
        cases += [(public(key), flipped(digest, bit), signed) for bit in range(0, 256, 31)]
        cases += [(flipped(public(key), bit), digest, signed) for bit in range(0, 512, 63)]
        cases += [(public(key), digest, signed[:-1]), (public(key), digest, signed + b"\0"), (b"", b"", b"")]
    lines = "".join(json.dumps([part.hex() for part in case]) + "\n" for case in cases)
    interpreter = Path(sys.executable).parent / "micropython"
    command = [str(interpreter), "-c", ON_BADGE]
    done = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split() == [str(int(p256.verify(*case))) for case in cases], done.stderr
    assert sum(p256.verify(*case) for case in cases) == 6
