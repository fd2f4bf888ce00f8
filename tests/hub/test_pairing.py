"""The pairing agent, over a real D-Bus: it gives one badge's passkey for that badge, and nothing else to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from dbus_fast.aio import MessageBus
from dbus_fast.message import Message
from dbus_fast.signature import Variant
from fake_bluez import system_bus

from hub.pairing import PATH, PairingFailed, pair

BADGE = "/org/bluez/hci0/dev_C0_00_00_00_00_01"
STRANGER = "/org/bluez/hci0/dev_C0_00_00_00_00_02"


class FakeBluez:
    """org.bluez as far as pairing goes."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.calls: list[str] = []
        self.capability = ""
        self.asks = BADGE
        self.question = "RequestPasskey"
        self.answers: list[Any] = []
        self.fails = ""
        self.paired = True
        bus.add_message_handler(self._handle)

    def _handle(self, message: Message) -> Message | bool | None:
        if message.destination is None or message.member is None or not (message.interface or "").startswith("org."):
            return None
        if message.path not in (BADGE, "/org/bluez"):
            return None
        self.calls.append(message.member)
        if message.member == "RegisterAgent":
            assert message.body[0] == PATH
            self.capability = message.body[1]
        elif message.member == "Pair":
            asyncio.get_running_loop().create_task(self._pair(message))
            return True  # answered later
        elif message.member == "Get":
            return Message.new_method_return(message, "v", [Variant("b", self.paired)])
        return Message.new_method_return(message)

    async def _pair(self, message: Message) -> None:
        if self.question:
            answer = await self.bus.call(
                Message(
                    destination=message.sender,
                    path=PATH,
                    interface="org.bluez.Agent1",
                    member=self.question,
                    signature="o" if self.question == "RequestPasskey" else "ou",
                    body=[self.asks] if self.question == "RequestPasskey" else [self.asks, 1],
                )
            )
            assert answer is not None
            self.answers.append(answer.body[0] if answer.error_name is None else answer.error_name)
        if self.fails:
            await self.bus.send(Message.new_error(message, self.fails, "no"))
        else:
            await self.bus.send(Message.new_method_return(message))


def play(story: Callable[[FakeBluez, str], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def run() -> None:
        async with system_bus(folder) as (bus, address):
            await story(FakeBluez(bus), address)

    asyncio.run(run())


def test_the_card_s_passkey_is_given_for_its_badge(tmp_path: Path) -> None:
    async def story(bluez: FakeBluez, address: str) -> None:
        await pair(BADGE, 4711, address)
        assert bluez.answers == [4711]
        assert bluez.capability == "KeyboardOnly"
        assert bluez.calls == ["RegisterAgent", "Pair", "Get", "UnregisterAgent"]

    play(story, tmp_path)


@pytest.mark.parametrize(
    ("asks", "question"),
    [(STRANGER, "RequestPasskey"), (BADGE, "RequestConfirmation"), (STRANGER, "RequestConfirmation")],
)
def test_nothing_else_is_answered(asks: str, question: str, tmp_path: Path) -> None:
    async def story(bluez: FakeBluez, address: str) -> None:
        bluez.asks, bluez.question, bluez.fails = asks, question, "org.bluez.Error.AuthenticationFailed"
        with pytest.raises(PairingFailed, match="refuses"):
            await pair(BADGE, 4711, address)
        assert bluez.answers == ["org.bluez.Error.Rejected"]
        assert bluez.calls[-2:] == ["CancelPairing", "UnregisterAgent"]

    play(story, tmp_path)


def test_success_that_is_none_is_not_believed(tmp_path: Path) -> None:
    async def story(bluez: FakeBluez, address: str) -> None:
        bluez.question = ""
        with pytest.raises(PairingFailed, match="did not ask"):
            await pair(BADGE, 4711, address)
        bluez.question, bluez.paired = "RequestPasskey", False
        with pytest.raises(PairingFailed, match="has not"):
            await pair(BADGE, 4711, address)

    play(story, tmp_path)


def test_one_that_is_paired_already_stays_so(tmp_path: Path) -> None:
    async def story(bluez: FakeBluez, address: str) -> None:
        bluez.question, bluez.fails = "", "org.bluez.Error.AlreadyExists"
        await pair(BADGE, 4711, address)

    play(story, tmp_path)


def test_no_bus_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(PairingFailed, match="no D-Bus"):
        asyncio.run(pair(BADGE, 4711, f"unix:path={tmp_path}/nothing"))
