"""A hub's network: a TCP forwarder between the hub and the broker that can go down.

Down is what a mobile network without coverage does: connections that exist go silent without being closed, new ones do
not come about. When it is up again, connections that nobody gave up in the meantime go on where they stopped.
"""

import asyncio
import contextlib

CHUNK = 65536


class Uplink:
    """Listens on a port of its own and forwards to the broker's."""

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        self.port = 0
        self._up = asyncio.Event()
        self._up.set()
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Begins to listen; returns the port for the hub."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    def down(self) -> None:
        self._up.clear()

    def up(self) -> None:
        self._up.set()

    async def stop(self) -> None:
        for flow in list(self._flows):
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            # one end went away: the other hears of it when its half is closed below
            pass
        finally:
            self._flows.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_up:
            return
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self.broker_port)
        halves = [
            asyncio.create_task(self._pump(reader, broker_writer)),
            asyncio.create_task(self._pump(broker_reader, writer)),
        ]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
            # the end of a connection does not cross a network that is down either
            await self._up.wait()
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            broker_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._up.wait()
                writer.write(data)
                await writer.drain()
