"""The station's answers aloud: for badges without a session, in turns, for a short time, on Bumble and on BlueZ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from bleak.exc import BleakError
from dbus_fast.aio import MessageBus
from dbus_fast.message import Message
from fake_bluez import system_bus
from neighbours import until
from test_badges import LoopClock, Time

from hub.bluez_advertiser import PATH, AdvertiserFailed, BluezAdvertiser
from hub.broadcast import BADGES_MAX, SHOWN_MS, Broadcaster
from protocol.beacon import COMPANY


class FakeRadio:
    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.broken = False

    async def broadcast(self, data: bytes) -> None:
        if self.broken:
            raise BleakError("no advertising here")
        self.shown.append(data)


class Bench:
    def __init__(self) -> None:
        self.loop = Time()
        self.radio = FakeRadio()
        self.sessions: set[int] = set()
        self.broadcaster: Broadcaster

    def play(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            self.broadcaster = Broadcaster(
                self.radio,  # type: ignore[arg-type]
                LoopClock(self.loop),
                self.sessions.__contains__,
            )
            task = asyncio.create_task(self.broadcaster.run())
            await story()
            task.cancel()
            await asyncio.wait({task})

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(run())


def answer(number: int) -> bytes:
    return bytes([number]) * 24


def test_an_answer_is_said_for_a_few_seconds_and_then_silence() -> None:
    bench = Bench()

    async def story() -> None:
        bench.broadcaster.answer(1, answer(1))
        await asyncio.sleep(0.01)
        assert bench.radio.shown == [answer(1)]
        await asyncio.sleep(SHOWN_MS / 1000 + 0.5)
        assert bench.radio.shown == [answer(1), b""]

    bench.play(story)


def test_a_newer_answer_replaces_an_older_one_at_once() -> None:
    bench = Bench()

    async def story() -> None:
        bench.broadcaster.answer(1, answer(1))
        await asyncio.sleep(0.1)
        bench.broadcaster.answer(1, answer(2))
        await asyncio.sleep(0.01)
        assert bench.radio.shown == [answer(1), answer(2)]

    bench.play(story)


def test_several_badges_take_turns_and_one_with_a_session_needs_none() -> None:
    bench = Bench()

    async def story() -> None:
        for badge in (1, 2, 3):
            bench.broadcaster.answer(badge, answer(badge))
        await asyncio.sleep(2)
        assert all(bench.radio.shown.count(answer(badge)) >= 1 for badge in (1, 2, 3))
        bench.sessions.add(2)
        await asyncio.sleep(0.5)
        bench.radio.shown.clear()
        await asyncio.sleep(1)
        assert answer(2) not in bench.radio.shown

    bench.play(story)


def test_only_so_many_badges_and_only_answers_of_the_right_size() -> None:
    bench = Bench()

    async def story() -> None:
        bench.broadcaster.answer(1, b"too short")
        for badge in range(1, 200):
            bench.broadcaster.answer(badge, answer(badge))
        assert len(bench.broadcaster._answers) == BADGES_MAX
        assert bench.broadcaster.counters["answer_malformed"] == 1

    bench.play(story)


def test_a_radio_that_cannot_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.radio.broken = True

    async def story() -> None:
        bench.broadcaster.answer(1, answer(1))
        await asyncio.sleep(2)
        assert bench.broadcaster.problem == "no advertising here"
        bench.radio.broken = False
        await asyncio.sleep(1)
        assert bench.radio.shown == [answer(1)]
        assert bench.broadcaster.problem == ""

    bench.play(story)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


class FakeBluez:
    """org.bluez as far as advertising goes: reads the object that is registered, as the real one does."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.calls: list[str] = []
        self.data: dict[str, Any] = {}
        self.refuses = False
        bus.add_message_handler(self._handle)

    def _handle(self, message: Message) -> Message | None:
        if message.interface != "org.bluez.LEAdvertisingManager1":
            return None
        self.calls.append(f"{message.path} {message.member}")
        if self.refuses:
            return Message.new_error(message, "org.bluez.Error.NotPermitted", "no")
        if message.member == "RegisterAdvertisement":
            asyncio.get_running_loop().create_task(self._read(message))
        return Message.new_method_return(message)

    async def _read(self, message: Message) -> None:
        answer = await self.bus.call(
            Message(
                destination=message.sender,
                path=message.body[0],
                interface="org.freedesktop.DBus.Properties",
                member="GetAll",
                signature="s",
                body=["org.bluez.LEAdvertisement1"],
            )
        )
        assert answer is not None
        self.data = {name: variant.value for name, variant in answer.body[0].items()}


@contextlib.asynccontextmanager
async def bluez(folder: Path) -> AsyncIterator[tuple[FakeBluez, str]]:
    async with system_bus(folder) as (bus, address):
        yield FakeBluez(bus), address


def test_bluez_is_given_a_broadcast_with_the_answer_in_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with bluez(tmp_path) as (fake, address):
            advertiser = await BluezAdvertiser.open("hci1", address)
            await advertiser.show(answer(1))
            await until(lambda: fake.data)
            assert fake.data["Type"] == "broadcast"
            assert {number: bytes(v.value) for number, v in fake.data["ManufacturerData"].items()} == {
                COMPANY: answer(1)
            }
            assert fake.data["MinInterval"] == fake.data["MaxInterval"] == 100
            await advertiser.show(answer(2))
            await advertiser.hide()
            await advertiser.hide()
            adapter = "/org/bluez/hci1"
            assert fake.calls == [
                f"{adapter} RegisterAdvertisement",
                f"{adapter} UnregisterAdvertisement",
                f"{adapter} RegisterAdvertisement",
                f"{adapter} UnregisterAdvertisement",
            ]
            fake.refuses = True
            with pytest.raises(AdvertiserFailed, match="NotPermitted"):
                await advertiser.show(answer(3))
            advertiser.close()

    assert PATH.startswith("/")
    asyncio.run(story())


def test_no_bus_is_an_error_that_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(AdvertiserFailed, match="no D-Bus"):
            await BluezAdvertiser.open(None, f"unix:path={tmp_path}/nothing")

    asyncio.run(story())
