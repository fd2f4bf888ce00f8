"""Seals sound packets without allocating: AES-CCM as protocol.audio does it, which is the oracle.

protocol.crypto builds a dozen objects a packet; at forty packets a second the collector would run into the alarm's
way. Here all buffers are made when the capture starts: the coder writes into `text`, which lies inside the input of
the MAC, and `seal` writes the sealed packet where it is to stay. The chained MAC uses one CBC object for the whole
capture: what it still holds from the packet before is the last cipher block, known, and is taken out of the first
block again.
"""

from time import ticks_diff, ticks_us

from cryptolib import aes
from micropython import const

from protocol.adpcm import PACKET_LENGTH, RATE, SAMPLES
from protocol.crypto import TAG_LENGTH

from . import codec
from .buffers import RAW_LENGTH, SEALED_LENGTH

_BLOCKS = (PACKET_LENGTH + 15) // 16
_TEXT_AT = const(32)  # in the MAC's input: first block and associated data come before the text
_MAC_LENGTH = _TEXT_AT + 16 * _BLOCKS
_LAST = _MAC_LENGTH - 16
_FLAGS = 0x40 | (TAG_LENGTH - 2) // 2 << 3 | 1
_INDEX_AT = const(9)  # the packet's number in the first block and in each counter block


class Sealer:
    """Seals the packets of one capture. `text` takes the plain packet (PACKET_LENGTH bytes)."""

    def __init__(self, key: bytes, badge: int, boot: bytes, capture: int) -> None:
        aad = b"\x01A" + badge.to_bytes(3, "big")
        nonce = boot + capture.to_bytes(2, "big") + bytes(5)
        first = bytes((_FLAGS,)) + nonce + bytes((PACKET_LENGTH >> 8, PACKET_LENGTH & 0xFF))
        head = first + bytes((0, len(aad))) + aad
        self._ecb = aes(key, 1)
        self._cbc = aes(key, 2, bytes(16))
        self._first = bytearray(first)
        self._mac_in = bytearray(head + bytes(_MAC_LENGTH - len(head)))
        self._mac_out = bytearray(_MAC_LENGTH)
        self.text = memoryview(self._mac_in)[_TEXT_AT : _TEXT_AT + PACKET_LENGTH]
        self._counters = bytearray(16 * (1 + _BLOCKS))
        for i in range(1 + _BLOCKS):
            self._counters[16 * i : 16 * i + 16] = b"\x01" + nonce + bytes((0, i))
        self._stream = bytearray(len(self._counters))
        self._text_stream = memoryview(self._stream)[16:]

    def seal(self, index: int, target: "bytearray", to: int) -> None:
        """Write packet `index`, whose plain form lies in `text`, sealed into SEALED_LENGTH bytes at target[to]."""
        mac_in = self._mac_in
        mac_out = self._mac_out
        counters = self._counters
        first = self._first
        for byte in range(4):
            value = index >> 24 - 8 * byte & 0xFF
            if first[_INDEX_AT + byte] != value:
                first[_INDEX_AT + byte] = value
                for at in range(_INDEX_AT + byte, len(counters), 16):
                    counters[at] = value
        for i in range(16):
            mac_in[i] = first[i] ^ mac_out[_LAST + i]
        self._cbc.encrypt(mac_in, mac_out)
        self._ecb.encrypt(counters, self._stream)
        codec.xor(target, to, self.text, self._text_stream)
        for i in range(TAG_LENGTH):
            target[to + PACKET_LENGTH + i] = mac_out[_LAST + i] ^ self._stream[i]


def benchmark() -> "tuple[int, int, bool]":
    """Microseconds that one second of speech costs to code and to seal, and whether the coder is machine code."""
    state = codec.new_state()
    raw = bytearray(i * 7 & 0xFF for i in range(RAW_LENGTH))
    sealer = Sealer(bytes(16), 1, bytes(6), 1)
    target = bytearray(SEALED_LENGTH)
    packets = RATE // SAMPLES
    began = ticks_us()
    for _ in range(packets):
        codec.encode(state, raw, sealer.text, 4)
    coded = ticks_us()
    for i in range(packets):
        sealer.seal(i, target, 0)
    return ticks_diff(coded, began), ticks_diff(ticks_us(), coded), codec.compiled
