"""Checks a signature: ECDSA on the curve P-256 with SHA-256 (FIPS 186-5, section 6.4.2; curve: SP 800-186, 3.2.1.3).

With Python's integers and nothing else, because MicroPython has no public-key cryptography. Of the schemes that would
do, this one needs the least memory: integers of 32 bytes, where RSA-3072 takes 4 KB while it works, which a badge on
duty does not have. Nothing here is secret, so nothing here needs to take the same time for every input.
"""

LENGTH = 64  # bytes of a signature (r, s) and of a public key (x, y)

_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF  # the field
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # the order of the base point
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Generator

    Jacobian = tuple[int, int, int]  # (X, Y, Z) is the point (X / Z**2, Y / Z**3); Z = 0 is the point at infinity
    Affine = tuple[int, int]


def _inverse(a: int, m: int) -> int:
    """1 / a modulo the prime m, by Euclid; a is not 0."""
    old, new = a % m, m
    x, y = 1, 0
    while new:
        quotient = old // new
        old, new = new, old - quotient * new
        x, y = y, x - quotient * y
    return x % m


def _double(point: "Jacobian") -> "Jacobian":
    # dbl-2001-b of the Explicit-Formulas Database, a = -3
    x, y, z = point
    delta = z * z % _P
    gamma = y * y % _P
    beta = x * gamma % _P
    alpha = 3 * (x - delta) * (x + delta) % _P
    x3 = (alpha * alpha - 8 * beta) % _P
    z3 = ((y + z) * (y + z) - gamma - delta) % _P
    return x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % _P, z3


def _add(point: "Jacobian", other: "Affine") -> "Jacobian":
    x1, y1, z1 = point
    x2, y2 = other
    if z1 == 0:
        return x2, y2, 1
    zz = z1 * z1 % _P
    h = (x2 * zz - x1) % _P
    r = (y2 * z1 * zz - y1) % _P
    if h == 0:
        return _double(point) if r == 0 else (1, 1, 0)
    hh = h * h % _P
    hhh = h * hh % _P
    v = x1 * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - y1 * hhh) % _P, z1 * h % _P


def on_curve(key: bytes) -> bool:
    """Whether 64 bytes are a public key."""
    x = int.from_bytes(key[:32], "big")
    y = int.from_bytes(key[32:], "big")
    return len(key) == LENGTH and x < _P and y < _P and (y * y - (x * x - 3) * x - _B) % _P == 0


def verifying(key: bytes, digest: bytes, signature: bytes) -> "Generator[None, None, bool]":
    """The check in 256 steps of a few milliseconds each on a badge (estimate), which has other things to do: a
    generator that returns whether `signature` is of the public key `key` over what has the SHA-256 `digest`."""
    if len(signature) != LENGTH or len(digest) != 32 or not on_curve(key):
        return False
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if not 0 < r < _N or not 0 < s < _N:
        return False
    w = _inverse(s, _N)
    yield
    u = int.from_bytes(digest, "big") * w % _N
    v = r * w % _N
    public = (int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big"))
    x, y, z = _add((_G[0], _G[1], 1), public)
    if z == 0:
        return False  # the key of the secret 1 or -1: nobody's
    i = _inverse(z, _P)
    both = (x * i * i % _P, y * i * i * i % _P)
    point = (1, 1, 0)
    for bit in range(255, -1, -1):
        yield
        point = _double(point)
        one = u >> bit & 1
        two = v >> bit & 1
        if one or two:
            point = _add(point, both if one and two else _G if one else public)
    yield
    x, y, z = point
    zz = z * z % _P
    # r is x / z**2 modulo the order, which is a little less than the field
    return z != 0 and ((r * zz - x) % _P == 0 or (r + _N < _P and ((r + _N) * zz - x) % _P == 0))


def verify(key: bytes, digest: bytes, signature: bytes) -> bool:
    """The same at once."""
    steps = verifying(key, digest, signature)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bool(end.value)
