"""The whole badge on the simulated air: its own files under MicroPython, the emulator's radio, a hub of paper."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from badge_central import PATIENCE_S, Central

from firmware.emulator import microphone
from firmware.emulator.air.link import Air
from firmware.emulator.air.server import serve
from firmware.emulator.badge import Badge
from firmware.emulator.heap import LIMIT
from firmware.emulator.quiet import quieten
from protocol import kinds, patterns

LONG_HOLD_S = 2.6
HOLD_S = 0.6  # as short as a wearer may have it: the story takes less time
FREE = 8 * 1024  # bytes that are left in the worst moment, of a heap that stands for 80 KB


class Story:
    """A provisioned badge, a hub, and what happened so far."""

    def __init__(self, badge: Badge, central: Central) -> None:
        self.badge = badge
        self.central = central
        self.events: list[dict[str, Any]] = []

    async def listen(self) -> None:
        queue = self.badge.bus.listen()
        while (event := await queue.get()) is not None:
            self.events.append(event)

    def felt(self) -> list[str]:
        return [event["pattern"] for event in self.events if event["type"] == "haptic"]

    def states(self) -> list[str]:
        return [event["state"] for event in self.events if event["type"] == "state"]

    def traces(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == "trace" and event["name"] == name]

    async def hold(self, seconds: float = HOLD_S + 0.3) -> float:
        """Hold the hidden button; when the threshold was reached (CLOCK_MONOTONIC seconds)."""
        await self.badge.do({"do": "hold", "seconds": seconds})
        return self.pressed_at() + HOLD_S

    def pressed_at(self) -> float:
        """When a button was pressed last (CLOCK_MONOTONIC seconds)."""
        down = [event for event in self.badge.bus.history if event["type"] == "button" and event["pressed"]]
        return float(down[-1]["at"])

    async def feels(self, pattern: str, seconds: float = PATIENCE_S) -> None:
        await self.central.until(lambda: pattern in self.felt(), seconds)

    async def state(self) -> dict[str, Any]:
        """What the badge says of itself; its heap after a collection."""
        before = len(self.traces("state"))
        self.badge.console("state")
        await self.central.until(lambda: len(self.traces("state")) > before)
        line: str = self.traces("state")[-1]["line"]
        return dict(json.loads(line.split(" ", 1)[1]))


@asynccontextmanager
async def story(folder: Path, *, settings: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Story]:
    air = Air()
    server = await serve(air, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sound = microphone.load(microphone.VOICE)
    badge = Badge("badge:alice", ("127.0.0.1", port), folder, sound, **options)
    central = Central(12, secrets.token_bytes(32), secrets.token_bytes(16))
    told = Story(badge, central)
    await badge.start()
    listening = asyncio.create_task(told.listen())
    try:
        await central.until(lambda: told.traces("unprovisioned"))
        keys = {"badge": 12, "root": central.root.hex(), "group_key": central.group_key.hex()}
        badge.console("provision " + json.dumps(keys | {"settings": {"hold_to_sos": HOLD_S} | (settings or {})}))
        await central.until(lambda: told.traces("booted"))
        await central.open("127.0.0.1", port)
        yield told
    finally:
        await central.close()
        await badge.close()
        listening.cancel()
        server.close()


def play(scene: Callable[[], Awaitable[None]]) -> None:
    quieten()

    async def run() -> None:
        async with asyncio.timeout(180):
            await scene()

    asyncio.run(run())


@contextmanager
def standstill(told: Story) -> Iterator[None]:
    """The firmware's process gets no processor, as on a laptop that is busy; a board never stands still."""
    child = told.badge._child
    assert child is not None
    os.kill(child.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.process.pid, signal.SIGCONT)


def faults(told: Story) -> list[str]:
    return [event["line"] for event in told.events if event["type"] == "trace" and event["name"] in ("fault", "stuck")]


def test_a_machine_that_gives_the_firmware_no_processor_spoils_no_gesture(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            acts = []
            for count in range(1, 7):
                act = ("check_in", "start_visit")[count % 2]
                acts.append(("side_1", "side_hold")[count % 2])
                with standstill(told):
                    await told.badge.do({"do": act})
                await told.central.until(lambda: len(told.traces("act")) >= len(acts))
            assert [event["fields"]["name"] for event in told.traces("act")] == acts

    play(scene)


def test_from_the_press_to_the_operator_with_sound_and_back_to_rest(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            central = told.central
            await told.feels(patterns.PROTECTED)
            pressed_at = await told.hold()
            heard = await central.event(kinds.SOS)
            # 30 ms of connection interval, 100 ms of advertising interval; the rest is for this machine's other work:
            # how long it takes as a rule is for bench to say
            assert -0.05 <= heard.at - pressed_at <= 8.0
            await told.feels(patterns.STATION_HAS_IT)
            assert central.beacons[-1][2].kind in (kinds.SOS, kinds.STATUS)
            central.state(kinds.CLAIMED)
            await told.feels(patterns.OPERATOR_WITH_YOU)
            assert [name for name in told.felt() if name != patterns.PROTECTED] == [
                patterns.PRESSED,
                patterns.STATION_HAS_IT,
                patterns.OPERATOR_WITH_YOU,
            ]
            worst = await told.state()
            assert worst["capturing"]
            assert worst["heap"] >= FREE, worst
            central.state(kinds.CLOSED)
            await central.until(lambda: not told.badge.microphone.capturing)
            end = await central.event(kinds.AUDIO_END)
            assert end.event is not None
            made = int.from_bytes(end.event.body[3:7], "big")
            packets = next(iter(central.sounds.values()))
            await central.until(lambda: len(packets) == made)
            assert sorted(packets) == list(range(made))
            assert int.from_bytes(end.event.body[7:11], "big") == 0
            for _ in range(100):
                after = await told.state()
                if not after["waiting"]:
                    break
                await asyncio.sleep(0.2)
            assert after["alarm"] is None
            assert after["waiting"] == 0
            assert after["heap"] >= worst["heap"] - 1024
            assert faults(told) == []

    play(scene)


def test_a_short_press_is_nothing_and_without_a_connection_the_beacon_carries_the_alarm(tmp_path: Path) -> None:
    async def scene() -> None:
        # so long that a hand which this machine keeps from letting go does not hold it for that
        async with story(tmp_path, settings={"hold_to_sos": LONG_HOLD_S}) as told:
            central = told.central
            central.connect = False
            await told.badge.do({"do": "hold", "seconds": HOLD_S - 0.15})
            await told.badge.do({"do": "presses", "count": 4})
            await asyncio.sleep(0.7)
            assert central.find(kinds.SOS) is None
            before = {address for _, address, _ in central.beacons}
            assert before
            await told.badge.do({"do": "button", "button": "sos", "pressed": True})
            heard = await central.event(kinds.SOS)
            await told.badge.do({"do": "button", "button": "sos", "pressed": False})
            assert heard.via == "beacon"
            assert -0.05 <= heard.at - (told.pressed_at() + LONG_HOLD_S) <= 8.0
            assert central.beacons[-1][1] not in before  # a new address for every new beacon
            central.connect = True
            await told.feels(patterns.STATION_HAS_IT)

    play(scene)


def test_after_a_reset_in_the_middle_the_same_alarm_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            central = told.central
            await told.feels(patterns.PROTECTED)
            await told.hold()
            heard = await central.event(kinds.SOS)
            await told.feels(patterns.STATION_HAS_IT)
            await told.badge.do({"do": "reset"})
            await central.until(lambda: told.traces("resumed"))
            assert told.traces("resumed")[0]["fields"]["ident"] == heard.ident.hex()
            await central.until(lambda: len(central.sounds) >= 2)
            assert told.felt().count(patterns.STATION_HAS_IT) == 1
            assert told.felt().count(patterns.PRESSED) == 1
            central.state(kinds.CLOSED)
            await central.until(lambda: not told.badge.microphone.capturing)

    play(scene)


def test_alarm_sound_visit_and_backlog_at_once_fit_into_the_heap_and_lose_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path, settings={"visit_minutes": 0.1, "grace_minutes": 0.02}) as told:
            central = told.central
            await told.feels(patterns.PROTECTED)
            await told.badge.do({"do": "start_visit"})
            await told.feels(patterns.CHECKED_IN)
            central.connect = False
            await central.hang_up()
            await told.hold()
            await told.badge.do({"do": "check_in"})
            await told.badge.do({"do": "amber"})
            await told.feels(patterns.CHECK_IN_DUE)
            # from here on looked at between any two bytecodes: the backlog drains
            await told.badge.do({"do": "watch_heap"})
            central.connect = True
            await central.event(kinds.SOS)
            await told.feels(patterns.STATION_HAS_IT)
            worst = await told.state()
            assert worst["capturing"]
            assert worst["visit"]
            assert worst["heap"] >= FREE, worst
            await central.until(lambda: sum(map(len, central.sounds.values())) > 100)
            # live sound came at once, and what had waited on the badge has come as well
            await central.until(
                lambda: all(sorted(sound) == list(range(len(sound))) for sound in central.sounds.values())
            )
            in_use = told.badge.state()["heap_peak"]
            assert in_use > LIMIT // 2  # it was looked at
            assert told.badge.heap.of_the_badge(in_use) <= LIMIT - FREE
            assert faults(told) == []

    play(scene)


@pytest.mark.parametrize("broken", [("filesystem", "microphone", "haptic", "bonds", "settings")])
def test_an_sos_works_with_everything_else_broken(tmp_path: Path, broken: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            await told.feels(patterns.PROTECTED)
            told.badge.board.break_parts(
                sum(
                    {"filesystem": 1, "microphone": 2, "haptic": 4, "bonds": 8, "settings": 16}[part] for part in broken
                )
            )
            before = len(told.traces("booted"))
            await told.badge.do({"do": "power_cut", "for": 0.2})
            await told.central.until(lambda: len(told.traces("booted")) > before)
            await told.badge.do({"do": "hold", "seconds": 1.8})  # damaged settings are the defaults: 1.5 s
            heard = await told.central.event(kinds.SOS)
            assert heard.kind == kinds.SOS

    play(scene)
