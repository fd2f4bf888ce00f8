"""The companion's radio answers the badge whatever becomes of a command: a badge without an answer waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest

from firmware.emulator import radio
from firmware.emulator.air.link import Air
from firmware.emulator.air.server import serve
from firmware.emulator.childlink import ChildLink
from firmware.emulator.events import Bus
from firmware.emulator.radio import Radio

PATIENCE_S = 8.0
ON, OFF = b"\x01", b"\x00"
NEW_ADDRESS = b"a\x01"
SERVICE = b"\x01" + b"\x02\x0f\x18" + b"\x01" + b"\x02\x19\x2a" + b"\x00\x02" + b"\x00"  # one readable value


class Child:
    """The badge's end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *frames: tuple[str, bytes]) -> None:
        """Frames in one go: none of them is handled before all are there."""
        self._writer.write(b"".join(len(body).to_bytes(2, "big") + kind.encode() + body for kind, body in frames))

    async def answer(self) -> bytes:
        """The body of the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                head = await self._reader.readexactly(3)
                body = await self._reader.readexactly(head[0] << 8 | head[1])
                if head[2:] == b"r":
                    return body

    async def nothing_more(self) -> None:
        """Each command was answered once: the next answer is the next command's."""
        self.send(("A", OFF))
        assert await self.answer() == bytes(6)


@contextlib.asynccontextmanager
async def stage(port: int | None = None) -> AsyncIterator[tuple[Radio, ChildLink, Child]]:
    """A radio on the air, or on what listens at this port, and a child of its own."""
    server = await serve(Air(), "127.0.0.1", 0)
    link = ChildLink()
    await link.open()
    made = Radio(("127.0.0.1", port or server.sockets[0].getsockname()[1]), "badge:a", link, Bus())
    made.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield made, link, Child(reader, writer)
    finally:
        await made.close()
        link.close()
        writer.close()
        server.close()


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(story())


def test_a_command_that_succeeds_is_answered_once() -> None:
    async def story() -> None:
        async with stage() as (_, _, child):
            child.send(("A", ON), ("C", b"m\x00\xf7"), ("C", NEW_ADDRESS), ("S", SERVICE))
            first, second = await child.answer(), await child.answer()
            assert len(first) == len(second) == 6
            assert len({first, second, bytes(6)}) == 3
            assert len(await child.answer()) == 2
            await child.nothing_more()

    run(story)


def test_a_command_that_fails_is_answered_with_nothing_in_it() -> None:
    async def story() -> None:
        async with stage() as (_, _, child):
            child.send(("A", ON), ("S", SERVICE[:4]), ("C", NEW_ADDRESS[:1]))
            assert len(await child.answer()) == 6
            assert await child.answer() == b""
            assert await child.answer() == b""
            await child.nothing_more()

    run(story)


def test_what_a_badge_says_after_its_radio_lost_power_is_done_and_answered() -> None:
    async def story() -> None:
        async with stage() as (_, _, child):
            child.send(("A", ON), ("Z", b""), ("C", NEW_ADDRESS), ("S", SERVICE), ("A", ON))
            assert len(await child.answer()) == 6
            assert await child.answer() == bytes(6)  # without power there is no address,
            assert await child.answer() == b""  # and there are no services
            assert await child.answer() > bytes(6)
            await child.nothing_more()

    run(story)


def test_a_controller_that_never_answers_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        async with stage(silent.sockets[0].getsockname()[1]) as (_, _, child):
            child.send(("A", ON))
            assert await child.answer() == b""
            await child.nothing_more()
        silent.close()

    monkeypatch.setattr(radio, "JOB_S", 0.1)
    run(story)


def test_what_a_badge_said_before_a_reset_is_not_answered_to_the_next_one() -> None:
    async def story() -> None:
        asked = asyncio.Event()
        silent = await asyncio.start_server(lambda _reader, _writer: asked.set(), "127.0.0.1", 0)
        async with stage(silent.sockets[0].getsockname()[1]) as (made, link, child):
            child.send(("A", ON), ("C", NEW_ADDRESS))
            async with asyncio.timeout(PATIENCE_S):
                await asked.wait()
            link.detach()
            await made.off()
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            await Child(reader, writer).nothing_more()
            writer.close()
        silent.close()

    run(story)
