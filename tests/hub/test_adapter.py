"""An adapter: out of the way while a badge is dialled, doubted when it fails, and said so. On a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError
from test_badges import Time

import hub.adapter
from hub.adapter import (
    ANSWER_S,
    ASK_S,
    DEAF_S,
    HUSH_S,
    SCAN_CHECK_S,
    SHUNNED,
    SHUNNED_S,
    SWITCH_S,
    UNANSWERED,
    WAKE_S,
    Adapter,
)
from hub.bluez import CALL_S, BluezFailed
from hub.connection import Connection
from hub.radio import Radio
from hub.recovery import TIMES, HandOver, Step, Trouble
from protocol import beacon

PATH = "/org/bluez/hci0/dev_C0_00_00_00_00_01"
ADVERTISEMENT = AdvertisementData(None, {beacon.COMPANY: bytes(24)}, {}, [], None, -60, ())


class FakeBluez:
    """hub.bluez.Bluez, as far as an adapter uses it."""

    open_still = True

    def __init__(self, world: World) -> None:
        self.world = world

    async def adapters(self) -> dict[str, bool]:
        if self.world.mute:
            await asyncio.sleep(CALL_S)
            raise BluezFailed("GetManagedObjects: no answer")
        if self.world.service_gone:
            raise BluezFailed("GetManagedObjects", "org.freedesktop.DBus.Error.ServiceUnknown")
        return dict(self.world.present)

    async def powered(self, adapter: str, seconds: float = CALL_S) -> bool:
        if self.world.hangs:
            await asyncio.sleep(seconds)
            raise BluezFailed("Get: no answer")
        return self.world.present[adapter]

    async def power(self, adapter: str, on: bool) -> None:
        self.world.log.append((adapter, "on" if on else "off"))
        self.world.present[adapter] = on

    async def drop(self, adapter: str, ours: Any) -> list[str]:
        self.world.log.append((adapter, "drop"))
        return []

    def watched(self, path: str, told: Callable[[bool], None]) -> Any:
        world = self.world

        class Watch:
            async def __aenter__(self) -> None:
                world.told = told

            async def __aexit__(self, *_: object) -> None:
                world.told = None

        return Watch()

    def close(self) -> None:
        self.open_still = False


class FakeScanner:
    """bleak's scanner."""

    world: World

    def __init__(self, heard: Callable[[BLEDevice, AdvertisementData], None], **_: Any) -> None:
        self.heard = heard

    async def start(self) -> None:
        world = self.world
        if world.hangs:
            await asyncio.sleep(3600)
        if world.refuses:
            raise BleakError("[org.bluez.Error.InProgress] Operation already in progress")
        world.scans.append(world.loop.time())
        world.scanning = self

    async def stop(self) -> None:
        self.world.scanning = None


class World:
    """One adapter with everything around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Time()
        self.present = {"hci0": True}
        self.service_gone = self.refuses = self.hangs = self.mute = False
        self.log: list[tuple[str, str]] = []
        self.scans: list[float] = []
        self.scanning: FakeScanner | None = None
        self.told: Callable[[bool], None] | None = None
        self.steps: list[tuple[float, Step]] = []
        self.alone = True
        self.on_gone: Callable[[str], None] = lambda _path: None

        async def open_bluez(on_gone: Callable[[str], None]) -> FakeBluez:
            self.on_gone = on_gone
            return FakeBluez(self)

        monkeypatch.setattr(hub.adapter, "Bluez", SimpleNamespace(open=open_bluez))
        monkeypatch.setattr(hub.adapter, "BleakScanner", type("Scanner", (FakeScanner,), {"world": self}))
        monkeypatch.setattr("sys.platform", "linux")
        self.adapter = Adapter(
            "hci0",
            None,
            "",
            lambda *_: None,
            lambda _adapter, step, _why: self.steps.append((self.loop.time(), step)),
            lambda: self.alone,
        )

    def play(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            self.running = asyncio.create_task(self.adapter.run())
            await story()
            self.running.cancel()
            await asyncio.wait({self.running})

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(run())

    def hear(self) -> None:
        assert self.scanning
        self.scanning.heard(BLEDevice("C0:00:00:00:00:01", None, {"path": PATH}), ADVERTISEMENT)

    async def hearing(self, seconds: float) -> None:
        """Advertisements, four times a minute."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            if self.scanning:
                self.hear()
            await asyncio.sleep(15)

    def connection(self) -> Connection:
        made = self.adapter.connection(BLEDevice("C0:00:00:00:00:01", None, {"path": PATH}), lambda: None)
        made.quiet.set()
        return made

    def taken(self) -> list[Step]:
        return [step for _, step in self.steps]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_an_adapter_that_is_off_is_switched_on(world: World) -> None:
    world.present["hci0"] = False

    async def story() -> None:
        await asyncio.sleep(1)
        assert world.log == [("hci0", "on")]
        assert world.adapter.usable
        assert world.adapter.problem == ""

    world.play(story)


def test_scanning_pauses_until_the_badge_answers_and_no_longer(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        seen: list[tuple[float, bool]] = []

        async def work() -> None:
            begun = world.loop.time()
            for _ in range(20):
                seen.append((world.loop.time() - begun, world.scanning is not None))
                if len(seen) == 4:
                    assert world.told
                    world.told(True)
                await asyncio.sleep(0.1)

        await world.adapter.dial(world.connection(), work, lambda: None)
        assert [scanning for at, scanning in seen if at < 0.3] == [False] * 3
        assert all(scanning for at, scanning in seen if at > 0.45)
        assert world.taken() == []

    world.play(story)


def test_a_badge_that_does_not_answer_makes_the_adapter_deaf_for_a_moment_only(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        begun = world.loop.time()
        with pytest.raises(TimeoutError):
            await world.adapter.dial(world.connection(), lambda: asyncio.sleep(3600), lambda: None)
        assert world.loop.time() - begun == pytest.approx(ANSWER_S, abs=0.1)
        assert world.scans[-1] - begun == pytest.approx(HUSH_S, abs=0.1)

    world.play(story)


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1, 1.0])
def test_a_dial_that_is_given_up_leaves_the_adapter_scanning(world: World, after_s: float) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        dialling = asyncio.create_task(
            world.adapter.dial(world.connection(), lambda: asyncio.sleep(3600), lambda: None)
        )
        await asyncio.sleep(after_s)
        dialling.cancel()
        await asyncio.wait({dialling})
        await asyncio.sleep(0.1)
        assert world.scanning is not None
        assert world.adapter.hushes == 0

    world.play(story)


def test_one_that_hears_no_badge_while_another_does_is_deaf(world: World) -> None:
    async def story() -> None:
        world.adapter._heard_elsewhere = world.loop.time
        await asyncio.sleep(DEAF_S + DEAF_S / 2)
        assert world.taken() == [Step.RETRY]
        assert world.adapter.ladder.trouble is Trouble.DEAF
        world.hear()
        assert world.adapter.ladder.trouble is None

    world.play(story)


@pytest.mark.parametrize("linked", [False, True])
def test_many_calls_that_come_to_nothing_raise_doubts(world: World, linked: bool) -> None:
    async def work() -> None:
        await asyncio.sleep(0.2)
        if linked and world.told:
            world.told(True)
        await asyncio.sleep(ANSWER_S if linked else 3600)
        raise BleakError("nothing passes")

    async def dial() -> None:
        with pytest.raises((BleakError, TimeoutError)):
            await world.adapter.dial(world.connection(), work, lambda: None)

    async def story() -> None:
        await asyncio.sleep(1)
        for _ in range(UNANSWERED):
            await dial()
        await asyncio.sleep(1)
        assert world.taken() == [Step.DROP]
        for _ in range(UNANSWERED):
            await dial()
        await asyncio.sleep(1)
        assert world.taken() == [Step.DROP, Step.POWER_CYCLE]
        await session(world, Peer())
        assert world.adapter.ladder.trouble is None

    world.play(story)


def test_an_adapter_that_nobody_answers_leaves_a_badge_to_another_that_hears_it_and_tries_again_later(
    world: World,
) -> None:
    """The kernel of a bluetoothd that was killed has been seen to hear badges and to connect to none for a minute."""

    async def story() -> None:
        radio = Radio("hci0,hci1", None, "", lambda *_: None, lambda: None)
        device = BLEDevice("C0:00:00:00:00:01", None, {"path": PATH})
        stuck, other = radio.adapters

        def chosen() -> Adapter:
            for adapter in radio.adapters:
                adapter.ready.set()
                radio._heard(adapter, device, ADVERTISEMENT)
            return radio.connection(device, lambda: None)._adapter

        other.connections.add(world.connection())
        assert chosen() is stuck, "it has fewer connections"
        stuck.connections.clear()
        for _ in range(SHUNNED):
            assert chosen() is stuck
            stuck.connections.clear()
            stuck.came_to_nothing()
        assert chosen() is other
        other._unanswered, other._unanswered_at = SHUNNED, stuck._unanswered_at
        other.connections.add(world.connection())
        assert chosen() is stuck, "where none is answered all are tried"
        stuck.connections.clear()
        other._unanswered = 0
        await asyncio.sleep(SHUNNED_S)
        assert chosen() is stuck

    world.play(story)


def test_silence_for_a_minute_starts_the_scan_anew_and_a_sound_ends_the_doubt(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(SCAN_CHECK_S + 1)
        assert world.taken() == [Step.RETRY]
        assert world.adapter.ladder.trouble is not None
        world.hear()
        assert world.adapter.ladder.trouble is None
        await world.hearing(600)
        assert world.taken() == [Step.RETRY]

    world.play(story)


def test_a_refusal_climbs_to_the_end_and_says_every_step(world: World) -> None:
    world.refuses = True

    async def story() -> None:
        await asyncio.wait({world.running}, timeout=300)
        with pytest.raises(HandOver, match="InProgress"):
            await world.running
        assert world.taken()[:7] == [*[Step.RETRY] * TIMES[Step.RETRY], Step.DROP, Step.POWER_CYCLE]
        assert world.taken()[-1] is Step.HAND_OVER
        assert 30 <= world.steps[-1][0] - world.steps[0][0] < 60
        assert ("hci0", "drop") in world.log
        assert [what for _, what in world.log if what != "drop"][:2] == ["off", "on"]

    world.play(story)


def test_a_bluez_that_does_not_answer_is_noticed(world: World) -> None:
    world.hangs = True

    async def story() -> None:
        await asyncio.sleep(SWITCH_S + 1)
        assert world.taken() == [Step.RETRY]
        assert "does not answer" in world.adapter.problem
        world.hangs = False
        await asyncio.sleep(SWITCH_S + 1)
        assert world.adapter.usable

    world.play(story)


def test_a_bluez_that_stops_answering_is_noticed_while_scanning(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        world.hangs = world.mute = True
        await asyncio.sleep(ASK_S + WAKE_S + CALL_S)
        assert world.adapter.ladder.trouble is Trouble.HUNG
        begun = world.loop.time()
        await asyncio.wait({world.running}, timeout=60)
        with pytest.raises(HandOver, match="no answer"):
            await world.running
        assert world.loop.time() - begun < 15
        assert set(world.taken()) == {Step.RETRY, Step.HAND_OVER}

    world.play(story)


def test_a_write_that_hangs_ends_in_time_and_makes_the_adapter_doubted(world: World) -> None:
    """A session that waits for its write for ever would stand, and keep the hub from handing over."""

    async def forever(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    async def story() -> None:
        await asyncio.sleep(1)
        world.hangs = world.mute = True
        connection = world.connection()
        connection.client = SimpleNamespace(write_gatt_char=forever, start_notify=forever)  # type: ignore[assignment]
        connection._rx = SimpleNamespace()  # type: ignore[assignment]
        for call in (connection.write(b"x"), connection.listen(lambda _value: None)):
            begun = world.loop.time()
            with pytest.raises(TimeoutError, match="no answer"):
                await call
            assert world.loop.time() - begun == pytest.approx(CALL_S, abs=0.1)
            await asyncio.sleep(0.1)
            assert world.adapter.ladder.trouble is Trouble.HUNG

    world.play(story)


def test_one_that_somebody_switches_off_is_switched_on_again(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        world.present["hci0"] = False
        await asyncio.sleep(ASK_S + WAKE_S + 1)
        assert world.log == [("hci0", "on")]
        assert world.adapter.usable

    world.play(story)


def test_with_another_adapter_that_works_nobody_hands_over(world: World) -> None:
    world.refuses, world.alone = True, False

    async def story() -> None:
        await asyncio.sleep(900)
        assert not world.running.done()
        assert max(world.taken()) is Step.POWER_CYCLE
        world.refuses = False
        await asyncio.sleep(30)
        assert world.adapter.usable

    world.play(story)


def test_an_adapter_that_is_pulled_out_ends_its_connections_and_is_waited_for(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        ended: list[bool] = []
        connection = world.connection()
        connection._dropped = lambda: ended.append(True)
        del world.present["hci0"]
        world.on_gone("/org/bluez/hci1")
        await asyncio.sleep(0.1)
        assert world.adapter.usable
        world.on_gone("/org/bluez/hci0")
        await asyncio.sleep(0.1)
        assert ended == [True]
        assert not world.adapter.usable
        await asyncio.sleep(600)
        assert set(world.taken()) == {Step.RETRY}
        assert "plugged in" in world.adapter.problem
        world.present["hci0"] = False
        await asyncio.sleep(6)
        assert world.adapter.usable

    world.play(story)


def test_a_bluetoothd_that_has_ended_is_missed_at_once_and_found_again(world: World) -> None:
    async def story() -> None:
        await asyncio.sleep(1)
        world.service_gone = True
        world.on_gone("")
        await asyncio.sleep(1)
        assert "bluetooth service" in world.adapter.problem
        world.service_gone = False
        await asyncio.sleep(3)
        assert world.adapter.usable

    world.play(story)


class Peer:
    """A bleak client, connected, of a badge that may leave every question to itself without an answer."""

    def __init__(self, answers: bool = True) -> None:
        self.answers = answers
        self.is_connected = True
        self.services = SimpleNamespace(get_characteristic=lambda _uuid: SimpleNamespace())

    async def connect(self) -> None:
        await asyncio.sleep(0.3)

    async def disconnect(self) -> None:
        self.is_connected = False

    async def start_notify(self, *_: object, **__: object) -> None:
        await asyncio.sleep(0.1 if self.answers else 3600)

    async def write_gatt_char(self, *_: object, **__: object) -> None:
        return


async def session(world: World, peer: Peer) -> Connection:
    """Dial a peer and subscribe; hung up when it does not answer, and TimeoutError."""
    made = world.connection()
    made.client = peer  # type: ignore[assignment]
    try:
        await made.connect()
        await made.listen(lambda _value: None)
    except TimeoutError:
        await made.hang_up()
        raise
    return made
