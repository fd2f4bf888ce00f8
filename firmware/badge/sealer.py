"""Seals sound packets where they lie, without allocating: AES-CCM as protocol.audio does it, which is the oracle.

protocol.crypto builds a dozen objects a packet; at forty packets a second the collector would run into the alarm's
way. Here all buffers are made when the capture starts. The chained MAC uses one CBC object for the whole capture:
what it still holds from the packet before is the last cipher block, known, and taken out of the first block again.
"""

from cryptolib import aes

from protocol.adpcm import PACKET_LENGTH
from protocol.crypto import TAG_LENGTH

from .codec import xor_into

SEALED_LENGTH = PACKET_LENGTH + TAG_LENGTH

_BLOCKS = (PACKET_LENGTH + 15) // 16
_TEXT_AT = 32  # in the MAC's input: first block and associated data come before the text
_MAC_LENGTH = _TEXT_AT + 16 * _BLOCKS
_FLAGS = 0x40 | (TAG_LENGTH - 2) // 2 << 3 | 1


class Sealer:
    """Seals the packets of one capture."""

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
        self._text = memoryview(self._mac_in)[_TEXT_AT : _TEXT_AT + PACKET_LENGTH]
        self._tag = memoryview(self._mac_out)[_MAC_LENGTH - 16 :]
        self._counters = bytearray(16 * (1 + _BLOCKS))
        for i in range(1 + _BLOCKS):
            self._counters[16 * i : 16 * i + 16] = b"\x01" + nonce + bytes((0, i))
        self._stream = bytearray(len(self._counters))

    def seal(self, index: int, packet: memoryview) -> None:
        """Replace the packet (PACKET_LENGTH bytes of a slot of SEALED_LENGTH) by its sealed form."""
        mac_in = self._mac_in
        mac_out = self._mac_out
        counters = self._counters
        first = self._first
        for byte in range(4):
            value = index >> 24 - 8 * byte & 0xFF
            first[9 + byte] = value
            for at in range(9 + byte, len(counters), 16):
                counters[at] = value
        for i in range(16):
            mac_in[i] = first[i] ^ mac_out[_MAC_LENGTH - 16 + i]
        text = self._text
        for i in range(PACKET_LENGTH):
            text[i] = packet[i]
        self._cbc.encrypt(mac_in, mac_out)
        self._ecb.encrypt(counters, self._stream)
        xor_into(packet, self._stream, 16, PACKET_LENGTH)
        for i in range(TAG_LENGTH):
            packet[PACKET_LENGTH + i] = mac_out[_MAC_LENGTH - 16 + i] ^ self._stream[i]
