"""Sealed speech: one packet of a capture, readable by the station alone.

The nonce is boot 6 | capture u16 | packet number u32 | 0: a packet is sealed once, and its cipher text is what is
stored, sent, and sent again. Associated data: version and badge number.
"""

from .crypto import ccm_open, ccm_seal


def _nonce(boot: bytes, capture: int, index: int) -> bytes:
    return boot + capture.to_bytes(2, "big") + index.to_bytes(4, "big") + b"\x00"


def _aad(badge: int) -> bytes:
    return b"\x01A" + badge.to_bytes(3, "big")


def seal_audio(key: bytes, badge: int, boot: bytes, capture: int, index: int, packet: bytes) -> bytes:
    """Seal an ADPCM packet (protocol.adpcm); 8 bytes longer than it."""
    return ccm_seal(key, _nonce(boot, capture, index), _aad(badge), packet)


def open_audio(key: bytes, badge: int, boot: bytes, capture: int, index: int, sealed: bytes) -> bytes:
    """The ADPCM packet; raises crypto.Forged."""
    return ccm_open(key, _nonce(boot, capture, index), _aad(badge), sealed)
