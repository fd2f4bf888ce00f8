"""How a host reaches its controller on the air."""

from __future__ import annotations

import asyncio
import contextlib

from bumble.transport.common import StreamPacketSink, StreamPacketSource, Transport


class _Source(StreamPacketSource):
    def connection_lost(self, exc: Exception | None) -> None:
        # Bumble ends what waited on the connection, and stumbles over a wait that was cancelled just before
        with contextlib.suppress(asyncio.InvalidStateError):
            self.on_transport_lost()


async def open_hci(host: str, port: int, name: str) -> Transport:
    """A Bumble transport to a controller of one's own, on the air under this name.

    Close it (or die) to vanish from the air. Raises OSError when the air is not there.
    """
    transport, source = await asyncio.get_running_loop().create_connection(_Source, host, port)
    transport.write(f"hci {name}\n".encode())
    return Transport(source, StreamPacketSink(transport))
