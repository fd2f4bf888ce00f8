"""The hub's side of a connection; protocol.session has the theory and the badge's side."""

from . import link
from .chunks import PAYLOAD_MIN
from .crypto import Forged, ccm_open
from .keys import session_keys
from .session import ENROL, FLAG_ENROL, PING_MS, PROOF_MS, RETRY_MS, SILENCE_MS, VERSION, WELCOME, Link

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

_WELCOME_LENGTH = 18 + 11 + 8


class HubLink(Link):
    """The hub's side. `link_key` is None for a badge it is not enrolled for: then only STATION frames pass."""

    def __init__(
        self,
        hub_id: bytes,
        badge: int,
        link_key: "bytes | None",
        random: "Callable[[int], bytes]",
        now_ms: int,
        payload: int = PAYLOAD_MIN,
        enrol: bool = False,
    ) -> None:
        super().__init__(now_ms, payload)
        self.hub_id = hub_id
        self.badge = badge
        self.boot = b""
        self._key = link_key
        self._enrol = enrol
        self._proved = False  # a sealed frame from the badge was opened: it has our READY
        self._next_ms = now_ms
        self._uplink = False
        self._hello = (
            b"\x01\x01" + bytes((FLAG_ENROL if enrol else 0,)) + hub_id + random(16) + payload.to_bytes(2, "big")
        )

    def start(self, now_ms: int, uplink: bool = False) -> None:
        """Begin once notifications are subscribed. `uplink`: the hub has proof of the station."""
        self._uplink = uplink
        self._next_ms = now_ms

    def _sealed(self, message: "tuple[int, bytes]") -> "list[tuple[int, bytes]]":
        self._proved = True
        return [] if message[0] == link.PONG else [message]

    def _unsealed(self, frame: bytes, now_ms: int) -> "list[tuple[int, bytes]]":
        kind = frame[0]
        if kind == WELCOME and len(frame) == _WELCOME_LENGTH and frame[1] == VERSION and self._key:
            return self._welcomed(frame, now_ms)
        if kind == ENROL and self._enrol and len(frame) == 1 + 8 + 62:
            self.heard_ms = now_ms
            return [(link.ENROL, frame[1:])]
        self.counters["malformed"] += 1
        return []

    def _welcomed(self, welcome: bytes, now_ms: int) -> "list[tuple[int, bytes]]":
        if self.established or self._key is None:
            return []
        nonce = welcome[2:18]
        try:
            inside = ccm_open(self._key, nonce[:13], self._hello, welcome[18:])
        except Forged:
            self.counters["forged"] += 1
            return []
        if int.from_bytes(inside[8:11], "big") != self.badge:
            self.counters["forged"] += 1
            return []
        self.boot = inside[:6]
        self.payload = max(PAYLOAD_MIN, min(self.payload, int.from_bytes(inside[6:8], "big")))
        self._receive_key, self._send_key = session_keys(self._key, self._hello[11:27], nonce, self.boot)
        self.established = True
        self.heard_ms = now_ms
        self._next_ms = now_ms
        return [(link.ESTABLISHED, self.boot)]

    def station(self, blob: bytes) -> None:
        """Hand a station's envelope to the badge, inside the session where there is one."""
        if self.established:
            self.send(link.STATION, blob)
        else:
            self._frame(b"\x05" + blob)

    def poll(self, now_ms: int) -> "tuple[list[bytes], int | None]":
        """Chunks to write now, and when to call again at the latest."""
        if now_ms >= self._next_ms:
            if self.established:
                if self._proved:
                    self.send(link.PING)
                    self._next_ms = now_ms + PING_MS
                else:
                    self.send(link.READY, link.pack_ready(self._uplink, self.payload))
                    self._next_ms = now_ms + RETRY_MS
            else:
                if self._key or self._enrol:
                    self._frame(self._hello)
                self._next_ms = now_ms + RETRY_MS
        return self._take(), self._next_ms

    def dead(self, now_ms: int) -> bool:
        """Whether this connection is to be given up: nothing authentic came for too long."""
        return now_ms - self.heard_ms >= (SILENCE_MS if self.established else PROOF_MS)
