"""The socket between the companion and the MicroPython child: what runs on wires inside a real badge.

A frame is u16 length of the body, u8 type, body, big-endian; the types are letters, listed in `shims/` where they
are sent (capitals) or handled (small letters). One child at a time: a new one replaces the old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Handler = Callable[[bytes], None]


class _Connection(asyncio.Protocol):
    def __init__(self, link: ChildLink) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.link.attach(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        at = 0
        while len(self.buffer) - at >= 3:
            end = at + 3 + (self.buffer[at] << 8 | self.buffer[at + 1])
            if len(self.buffer) < end:
                break
            self.link.received(self, self.buffer[at + 2], bytes(self.buffer[at + 3 : end]))
            at = end
        del self.buffer[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


class ChildLink:
    """Listens on loopback for the child; frames go to the handler of their letter."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.port = 0
        self._server: asyncio.Server | None = None
        self._current: _Connection | None = None

    async def open(self) -> None:
        """Start listening; `port` is set then."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and drop the child."""
        self.detach()
        if self._server:
            self._server.close()

    @property
    def attached(self) -> bool:
        """Whether a child hears what is sent."""
        return self._current is not None and self._current.transport is not None

    def attach(self, connection: _Connection) -> None:
        """A child has connected."""
        self.detach()
        self._current = connection

    def detach(self) -> None:
        """The child is no more: nothing it said is heard from now on."""
        current, self._current = self._current, None
        if current and current.transport:
            current.transport.abort()

    def received(self, connection: _Connection, kind: int, body: bytes) -> None:
        """A frame from a child; a former one's are dropped."""
        if connection is self._current and (handler := self.handlers.get(chr(kind))):
            handler(body)

    def send(self, kind: str, body: bytes = b"") -> None:
        """One frame to the child; lost when there is none."""
        if self._current and self._current.transport:
            self._current.transport.write(len(body).to_bytes(2, "big") + kind.encode() + body)
