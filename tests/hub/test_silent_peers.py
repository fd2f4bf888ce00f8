"""A badge that is silent, by fault or on purpose, and a bluetoothd that hangs: told apart. On a clock that jumps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from bleak.backends.device import BLEDevice
from bleak.exc import BleakError
from dbus_fast.message import Message
from dbus_fast.signature import Variant
from fake_bluez import system_bus
from test_adapter import PATH, Peer, World, session

from hub.adapter import SHUNNED, UNANSWERED, Adapter
from hub.bluez import CALL_S, Bluez, call
from hub.radio import Radio
from hub.recovery import HandOver, Step, Trouble


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize("every_s", [0.5, 15.0, 45.0])
@pytest.mark.parametrize("busy", [False, True])
def test_a_peer_that_answers_no_subscription_never_makes_the_hub_restart(
    world: World, every_s: float, busy: bool
) -> None:
    """Anybody can offer our service and ignore the subscription; bluetoothd, which waits for the peer, is well."""
    ended: list[float] = []

    async def attack(until: float) -> None:
        while world.loop.time() < until:
            with pytest.raises(TimeoutError, match="no answer"):
                await session(world, Peer(answers=False))
            await asyncio.sleep(every_s)

    async def story() -> None:
        await asyncio.sleep(1)
        other = await session(world, Peer())
        other.proved, other._dropped = busy, lambda: ended.append(world.loop.time())
        attacking = asyncio.create_task(attack(world.loop.time() + 900))
        moments = deaf = 0
        while not attacking.done():
            await asyncio.sleep(0.1)
            moments += 1
            deaf += world.scanning is None
            if world.scanning and moments % 10 == 0:
                world.hear()
        await attacking
        assert not world.running.done()
        assert Step.HAND_OVER not in world.taken()
        assert world.adapter.ladder.trouble is not Trouble.HUNG
        assert world.adapter.problem == ""
        assert deaf / moments < 0.07, "as much as it takes to dial"
        if busy:
            assert ended == []
            assert Step.POWER_CYCLE not in world.taken()
        assert [what for _, what in world.log].count("off") <= 4, "once in five minutes, where no session works"

    world.play(story)


def test_an_adapter_that_connects_and_then_sends_nothing_is_left_alone_and_then_switched_off_and_on(
    world: World,
) -> None:
    async def fail() -> None:
        with pytest.raises(TimeoutError):
            await session(world, Peer(answers=False))

    async def story() -> None:
        await asyncio.sleep(1)
        for _ in range(SHUNNED):
            assert not world.adapter.shunned
            await fail()
        assert world.adapter.shunned, "although it connected"
        await session(world, Peer())
        assert not world.adapter.shunned
        world.alone = False
        for _ in range(UNANSWERED):
            await fail()
        await asyncio.sleep(1)
        assert world.taken() == [Step.DROP]
        for _ in range(UNANSWERED):
            await fail()
        await asyncio.sleep(1)
        assert world.taken() == [Step.DROP, Step.POWER_CYCLE]
        assert world.adapter.usable

    world.play(story)


@pytest.mark.parametrize("during", ["services", "subscription"])
def test_a_connection_that_ends_while_the_badge_is_asked_has_come_to_nothing(world: World, during: str) -> None:
    async def drops(*_: object, **__: object) -> None:
        await asyncio.sleep(0.2)
        raise BleakError("disconnected")

    async def story() -> None:
        await asyncio.sleep(1)
        for _ in range(UNANSWERED):
            peer = Peer()
            setattr(peer, "connect" if during == "services" else "start_notify", drops)
            with pytest.raises(BleakError):
                await session(world, peer)
        await asyncio.sleep(1)
        assert world.taken() == [Step.DROP]

    world.play(story)


def test_a_guest_which_is_only_written_to_shows_that_the_adapter_works_and_a_session_that_drops_says_nothing(
    world: World,
) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        guest = world.connection()
        guest.client = Peer()  # type: ignore[assignment]
        world.adapter.came_to_nothing()
        await guest.connect()
        assert world.adapter._unanswered == 1
        await guest.write(b"x")
        assert world.adapter._unanswered == 0

        async def drops(*_: object, **__: object) -> None:
            raise BleakError("disconnected")

        guest.client.write_gatt_char = drops  # type: ignore[method-assign]
        with pytest.raises(BleakError):
            await guest.write(b"x")
        assert world.adapter._unanswered == 0

    world.play(story)


def test_a_bluetoothd_that_hangs_while_a_badge_is_talked_to_is_handed_over_in_time(world: World) -> None:
    """With a session that is believed to stand until its next write."""

    async def hangs(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    async def story() -> None:
        await asyncio.sleep(1)
        connection = await session(world, Peer())
        connection.proved = True
        world.hangs = world.mute = True
        begun = world.loop.time()
        connection.client.write_gatt_char = hangs  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            await connection.write(b"x")
        assert world.loop.time() - begun == pytest.approx(CALL_S, abs=0.1)
        hanging_up = asyncio.create_task(connection.hang_up())
        await asyncio.wait({world.running}, timeout=60)
        with pytest.raises(HandOver, match="no answer"):
            await world.running
        assert world.loop.time() - begun < 25
        assert world.adapter.ladder.trouble is Trouble.HUNG
        await hanging_up

    world.play(story)


def test_a_bluetoothd_that_was_slow_twice_is_not_handed_over(world: World) -> None:
    async def hangs(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    async def story() -> None:
        await asyncio.sleep(1)
        for _ in range(20):
            connection = await session(world, Peer())
            world.hangs = True
            connection.client.write_gatt_char = hangs  # type: ignore[method-assign]
            with pytest.raises(TimeoutError):
                await connection.write(b"x")
            world.hangs = False
            await asyncio.sleep(0.1)
            await connection.hang_up()
            await asyncio.sleep(45)
            assert world.adapter.usable
            assert world.adapter.ladder.trouble is None, "it has answered since"
        assert set(world.taken()) == {Step.RETRY}

    world.play(story)


@pytest.mark.parametrize("hangs", [False, True])
def test_all_adapters_ask_as_soon_as_one_has_had_no_answer_and_the_hub_ends_in_time_or_goes_on(
    world: World, hangs: bool
) -> None:
    """Each of two adapters would wait for the other while it asks but once in a quarter of a minute."""

    async def story() -> None:
        radio = Radio("hci0,hci1", None, "", lambda *_: None, lambda: None)
        running = asyncio.create_task(radio.run())
        world.present["hci1"] = True
        await asyncio.sleep(2)
        assert all(adapter.usable for adapter in radio.adapters)
        begun = world.loop.time()
        if hangs:
            world.hangs = world.mute = True
        radio.adapters[0].unanswered_call("a write", hangs=True)
        if not hangs:
            await asyncio.sleep(50)
            assert all(adapter.usable and not adapter.problem for adapter in radio.adapters)
            assert [adapter.counters["retry"] for adapter in radio.adapters] == [1, 1], "and no more of it"
            running.cancel()
            await asyncio.wait({running})
            return
        await asyncio.wait({running}, timeout=60)
        with pytest.raises(HandOver, match="no answer"):
            await running
        assert world.loop.time() - begun < 17

    world.play(story)


@pytest.mark.parametrize("mute", [False, True])
def test_over_a_real_d_bus_a_badge_that_is_silent_and_a_bluetoothd_that_hangs_are_told_apart(
    mute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A org.bluez that waits for ever for the badge and answers for itself, or answers nothing at all."""
    monkeypatch.setattr("hub.connection.CALL_S", 1.0 if mute else 2.5)  # for who answers, though the machine stalls
    monkeypatch.setattr("hub.connection.DOUBT_S", 0.3)

    def handle(message: Message) -> Message | bool | None:
        if message.path != "/org/bluez/hci0":
            return None
        if message.member == "Get" and not mute:
            return Message.new_method_return(message, "v", [Variant("b", True)])
        return True  # and nothing more

    async def story() -> None:
        async with system_bus(tmp_path) as (bus, address):
            bus.add_message_handler(handle)
            adapter = Adapter("hci0", None, "", lambda *_: None, lambda *_: None, lambda: True)
            adapter.bluez = await Bluez.open(lambda _path: None, address)
            try:
                connection = adapter.connection(BLEDevice("C0:00:00:00:00:01", None, {"path": PATH}), lambda: None)
                start_notify = call(
                    adapter.bluez.bus, "/org/bluez/hci0", "org.bluez.GattCharacteristic1", "StartNotify"
                )
                connection.client = SimpleNamespace(start_notify=lambda *_, **__: start_notify)  # type: ignore
                connection._found = True
                with pytest.raises(TimeoutError, match="a subscription has no answer"):
                    await connection.listen(lambda _value: None)
            finally:
                adapter.bluez.close()
            assert (adapter._stuck != "") == mute
            assert adapter._unanswered == (0 if mute else 1)
            if mute:
                assert adapter._trouble is Trouble.HUNG

    asyncio.run(story())
