"""The control connection to the air: what is wrong with it between two devices, and what it counts."""

import asyncio
import json
from typing import Any

from drill.scenario import LinkFault


class AirControl:
    """JSON lines to the air's port, one answer for each."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, port: int) -> "AirControl":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"control\n")
        return cls(reader, writer)

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Sends one command and returns its answer. Raises RuntimeError with the air's sentence when it refuses."""
        async with self._turn:
            self._writer.write(json.dumps(command).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"ok": False, "error": "the air is gone"}
        if not answer.get("ok"):
            raise RuntimeError(f"air: {command.get('cmd')}: {answer.get('error')}")
        return answer

    async def seed(self, seed: int) -> None:
        await self.ask(cmd="seed", seed=seed)

    async def put(self, number: int, fault: LinkFault) -> None:
        """Puts a fault in force under a number by which it is cleared."""
        await self.ask(cmd="fault", id=number, a=f"badge:{fault.badge}", b=f"hub:{fault.hub}", **fault.air)

    async def clear(self, number: int) -> None:
        await self.ask(cmd="clear", id=number)

    async def stats(self) -> dict[str, Any]:
        return await self.ask(cmd="stats")

    def close(self) -> None:
        self._writer.close()
