"""Which key protects what. All are 16 bytes, derived with HKDF-SHA256 from a badge's root key of 32 bytes.

The root key is made at provisioning and known to the badge and the station only. A hub learns the link key of
one badge and itself, from the station, and nothing from which another could be derived.
"""

from .crypto import hkdf, hmac_sha256

ROOT_LENGTH = 32
KEY_LENGTH = 16
HUB_ID_LENGTH = 8


class BadgeKeys:
    """The keys of one badge. `root`: 32 bytes; raises ValueError for any other length."""

    def __init__(self, root: bytes) -> None:
        if len(root) != ROOT_LENGTH:
            raise ValueError("a root key has 32 bytes")
        self._root = root
        self.events = hkdf(root, b"tocsin 1 events")
        self.down = hkdf(root, b"tocsin 1 down")
        self.audio = hkdf(root, b"tocsin 1 audio")
        self.beacon = hkdf(root, b"tocsin 1 beacon")
        self.answer = hkdf(root, b"tocsin 1 answer")

    def link(self, hub_id: bytes) -> bytes:
        """The key that this badge shares with the hub of that identifier (8 bytes)."""
        return hkdf(self._root, b"tocsin 1 link" + hub_id)

    def passkey(self) -> int:
        """The six-digit Bluetooth pairing passkey printed on the card, 0..999,999."""
        return int.from_bytes(hkdf(self._root, b"tocsin 1 passkey", 8), "big") % 1000000


def session_keys(link: bytes, hub_nonce: bytes, badge_nonce: bytes, boot: bytes) -> tuple[bytes, bytes]:
    """The two keys of one connection: badge to hub, hub to badge."""
    both = hkdf(link, b"tocsin 1 session" + boot, 32, hub_nonce + badge_nonce)
    return both[:16], both[16:]


def beacon_mac(key: bytes, block: bytes, kind: int) -> bytes:
    """The 8 bytes by which the station knows a beacon: over its plain block and the true kind."""
    return hmac_sha256(key, b"beacon" + block + bytes((kind,)))[:8]
