"""One connection between a badge and a hub, each side as an object without I/O.

How a session comes about, and why so:

1. The hub has subscribed and writes HELLO: its identifier and 16 fresh random bytes. The badge is silent before
   (it cannot see subscriptions, and Windows loses early notifications).
2. The badge answers WELCOME: 16 fresh random bytes and, sealed under the link key of that hub, its boot. To anybody
   without the link key the answer is noise, and different every time: nothing to track the badge by.
3. Both derive two session keys from the link key, both random values and the boot. The first SEALED frame from the
   hub (READY) proves that it has the link key; only then the badge sends anything of substance.

A frame is one type byte and a body, cut into chunks (protocol.chunks):

    HELLO 1    version u8 | flags u8 | hub 8 | nonce 16 | payload u16
    WELCOME 2  version u8 | nonce 16 | CCM(link key, nonce[:13], aad HELLO; boot 6 | payload u16 | badge u24)
    SEALED 4   counter u32 | CCM(session key of the direction, counter and nine zeros; type u8 | body)
    STATION 5  a downlink envelope, from a hub that has no session with this badge
    ENROL 6    identity 8 | a sealed ENROL event, only inside the badge's pairing window

Any order, repetition, loss or change of chunks is survived: an identical HELLO gets the identical WELCOME, SEALED
frames pass a replay window of 64, everything else is counted in `counters` and dropped. Acknowledgement and
retransmission of what is said belong to its sender (custody, audio), not to the session.

Times are milliseconds of any clock that does not run backwards.
"""

from . import link
from .chunks import PAYLOAD_MAX, PAYLOAD_MIN, Assembler, Splitter
from .crypto import Forged, ccm_open, ccm_seal
from .fresh import Window
from .keys import session_keys

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

    from .hublink import HubLink as HubLink

HELLO = 1
WELCOME = 2
SEALED = 4
STATION = 5
ENROL = 6

VERSION = 1
FLAG_ENROL = 1  # of a HELLO
_HELLO_LENGTH = 29
_ZEROS = bytes(9)

PROOF_MS = 3000  # a peer that proved nothing by then is dropped
SILENCE_MS = 15000  # three pings unanswered
PING_MS = 5000
RETRY_MS = 500  # HELLO and READY are repeated: a chunk may have been lost to corruption

_GREETINGS = 8  # different HELLOs of a peer that proves nothing: each costs a badge the derivation of keys
_OUT_MAX = 64  # chunks that wait; who does not take them gets no more answers


class Link:
    """What both sides share. Use BadgeLink or HubLink."""

    def __init__(self, now_ms: int, payload: int = PAYLOAD_MIN) -> None:
        self.payload = payload
        self.established = False
        self.began_ms = now_ms
        self.heard_ms = now_ms
        self.counters = {"forged": 0, "replayed": 0, "malformed": 0}
        self._splitter = Splitter()
        self._assembler = Assembler()
        self._window = Window()
        self._number = 0
        self._send_key = b""
        self._receive_key = b""
        self._out: "list[bytes]" = []

    def _frame(self, frame: bytes) -> None:
        for chunk in self._splitter.split(frame, self.payload):
            self._out.append(chunk)

    def send(self, kind: int, body: bytes = b"") -> None:
        """Seal a message of protocol.link; poll() gives its chunks. Raises ValueError before there is a session."""
        if not self._send_key:
            raise ValueError("no session")
        counter = self._number.to_bytes(4, "big")
        self._number += 1
        sealed = ccm_seal(self._send_key, counter + _ZEROS, b"", bytes((kind,)) + body)
        self._frame(b"\x04" + counter + sealed)

    def receive(self, chunk: bytes, now_ms: int) -> "list[tuple[int, bytes]]":
        """Messages (protocol.link type, body) that this value completes; never raises on any bytes."""
        frame = self._assembler.feed(chunk)
        if frame is None:
            return []
        if frame[0] != SEALED:
            return self._unsealed(frame, now_ms)
        message = self._open(frame)
        if message is None:
            return []
        self.heard_ms = now_ms
        return self._sealed(message)

    def _sealed(self, message: "tuple[int, bytes]") -> "list[tuple[int, bytes]]":
        """What a message inside the session means to this side."""
        raise NotImplementedError

    def _unsealed(self, frame: bytes, now_ms: int) -> "list[tuple[int, bytes]]":
        """What any other frame means to this side."""
        raise NotImplementedError

    def _open(self, frame: bytes) -> "tuple[int, bytes] | None":
        if not self._receive_key or len(frame) < 14:
            self.counters["malformed"] += 1
            return None
        counter = frame[1:5]
        try:
            plain = ccm_open(self._receive_key, counter + _ZEROS, b"", frame[5:])
        except Forged:
            self.counters["forged"] += 1
            return None
        if not self._window.accept(int.from_bytes(counter, "big")):
            self.counters["replayed"] += 1
            return None
        return plain[0], plain[1:]

    def _take(self) -> "list[bytes]":
        out = self._out
        self._out = []
        return out

    @property
    def dropped(self) -> int:
        """Everything that arrived and could not be used."""
        c = self.counters
        return c["forged"] + c["replayed"] + c["malformed"] + self._assembler.dropped


class BadgeLink(Link):
    """The badge's side. `link_key(hub_id)` gives the 16-byte key shared with a hub, `random(n)` n random bytes.

    What receive() gives: ESTABLISHED comes once, with the hub's first proof. ENROL_REQUEST brings the identifier of a
    hub that asks to be enrolled: the application answers with enrol() if its window is open. STATION also comes from
    hubs without a session, and is to be believed only as far as the station's seal goes.
    """

    def __init__(
        self,
        badge: int,
        boot: bytes,
        link_key: "Callable[[bytes], bytes]",
        random: "Callable[[int], bytes]",
        now_ms: int,
        payload: int = PAYLOAD_MIN,
    ) -> None:
        super().__init__(now_ms, payload)
        self._badge = badge
        self._boot = boot
        self._link_key = link_key
        self._random = random
        self._hello = b""
        self._welcome = b""
        self._greetings = 0
        self.hub_id = b""

    def _sealed(self, message: "tuple[int, bytes]") -> "list[tuple[int, bytes]]":
        messages = [message]
        if message[0] == link.PING:
            self.send(link.PONG)
            messages = []
        if not self.established:
            self.established = True
            messages.insert(0, (link.ESTABLISHED, b""))
        return messages

    def _unsealed(self, frame: bytes, now_ms: int) -> "list[tuple[int, bytes]]":
        kind = frame[0]
        if kind == STATION and len(frame) > 1:
            return [(link.STATION, frame[1:])]
        if kind == HELLO and len(frame) == _HELLO_LENGTH and frame[1] == VERSION:
            return self._greet(frame)
        self.counters["malformed"] += 1
        return []

    def _greet(self, hello: bytes) -> "list[tuple[int, bytes]]":
        if len(self._out) > _OUT_MAX:
            self.counters["malformed"] += 1
            return []
        if hello == self._hello:
            self._frame(self._welcome)
            return []
        if self.established:
            # a second HELLO could only come from somebody who wants this session gone
            self.counters["malformed"] += 1
            return []
        hub_id = hello[3:11]
        if hello[2] & FLAG_ENROL:
            return [(link.ENROL_REQUEST, hub_id)]
        self._greetings += 1
        if self._greetings > _GREETINGS:
            self.counters["malformed"] += 1
            return []
        self.payload = max(
            PAYLOAD_MIN, min(int.from_bytes(hello[27:29], "big"), PAYLOAD_MAX, max(self.payload, PAYLOAD_MIN))
        )
        key = self._link_key(hub_id)
        nonce = self._random(16)
        inside = self._boot + self.payload.to_bytes(2, "big") + self._badge.to_bytes(3, "big")
        self._welcome = b"\x02\x01" + nonce + ccm_seal(key, nonce[:13], hello, inside)
        self._send_key, self._receive_key = session_keys(key, hello[11:27], nonce, self._boot)
        self._window = Window()
        self._number = 0
        self._hello = hello
        self.hub_id = hub_id
        self._frame(self._welcome)
        return []

    def enrol(self, ident: bytes, blob: bytes) -> None:
        """Answer an ENROL_REQUEST with a sealed ENROL event."""
        self._frame(b"\x06" + ident + blob)

    def vouch(self, now_ms: int) -> None:
        """The station's own seal came over this connection: a guest hub may stay a while."""
        self.heard_ms = now_ms
        self.began_ms = now_ms

    def poll(self, now_ms: int) -> "tuple[list[bytes], int | None]":
        """Chunks to notify now, and when to call again at the latest."""
        limit = self.heard_ms + SILENCE_MS if self.established else self.began_ms + PROOF_MS
        return self._take(), limit

    def dead(self, now_ms: int) -> bool:
        """Whether this peer is to be disconnected: it has proved nothing for too long."""
        if self.established:
            return now_ms - self.heard_ms >= SILENCE_MS
        return now_ms - self.began_ms >= PROOF_MS or self._greetings > _GREETINGS


def __getattr__(name: str) -> "Any":
    # the hub's side is loaded where it is asked for: a badge has better uses for its memory
    if name == "HubLink":
        from .hublink import HubLink as found

        return found
    raise AttributeError(name)
