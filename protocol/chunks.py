"""Frames cut to what one attribute value carries.

Each value is one chunk: a head byte (FIRST 0x80, LAST 0x40, a counter modulo 64) and a part of the frame. A frame
that fits one chunk needs no order at all; a longer one is dropped whole when a chunk is missing, doubled or out of
turn, and what it carried is sent again by whoever waits for its acknowledgement.
"""

FIRST = 0x80
LAST = 0x40
FRAME_MAX = 512
PAYLOAD_MIN = 20  # an ATT_MTU of 23 leaves 20 bytes
PAYLOAD_MAX = 244  # an ATT_MTU of 247 fits one link-layer packet of 251


class Splitter:
    """Cuts frames of one direction of one connection."""

    def __init__(self) -> None:
        self._counter = 0

    def split(self, frame: bytes, payload: int) -> "list[bytes]":
        """The chunks of a frame, each at most `payload` bytes. Raises ValueError for a frame over FRAME_MAX."""
        if len(frame) > FRAME_MAX or payload < 2:
            raise ValueError("frame of %d bytes" % len(frame))
        step = payload - 1
        count = (len(frame) + step - 1) // step or 1
        out = []
        for i in range(count):
            head = self._counter & 0x3F
            self._counter += 1
            if i == 0:
                head |= FIRST
            if i == count - 1:
                head |= LAST
            out.append(bytes((head,)) + frame[i * step : (i + 1) * step])
        return out


class Assembler:
    """Puts chunks together again. Never raises, whatever arrives; `dropped` counts what could not be used."""

    def __init__(self) -> None:
        self._parts: "list[bytes]" = []
        self._length = 0
        self._expected = -1
        self.dropped = 0

    def feed(self, chunk: bytes) -> "bytes | None":
        """The frame that this chunk completes, or None."""
        if len(chunk) < 2:
            self.dropped += 1
            return None
        head = chunk[0]
        if head & FIRST and head & LAST:
            return bytes(chunk[1:])
        if head & FIRST:
            if self._expected >= 0:
                self.dropped += 1
            self._parts = []
            self._length = 0
        elif head & 0x3F != self._expected:
            self.dropped += 1
            self._expected = -1
            return None
        self._length += len(chunk) - 1
        if self._length > FRAME_MAX:
            self.dropped += 1
            self._expected = -1
            return None
        self._parts.append(bytes(chunk[1:]))
        if head & LAST:
            self._expected = -1
            frame = b"".join(self._parts)
            self._parts = []
            return frame
        self._expected = (head + 1) & 0x3F
        return None
