"""SOS in every state that a badge can be in (A3): its own files under MicroPython, one thing broken at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from badge_central import Heard
from test_badge_air import HOLD_S, Story, story

from firmware.emulator.badge import BROKEN
from firmware.emulator.quiet import quieten
from protocol import kinds, patterns

DEFAULT_HOLD_S = 1.5


def play(scene: Callable[[], Awaitable[None]]) -> None:
    quieten()

    async def run() -> None:
        async with asyncio.timeout(240):
            await scene()

    asyncio.run(run())


async def restarted(told: Story, how: str) -> None:
    before = len(told.traces("booted"))
    await told.badge.do({"do": how, "for": 0.2} if how == "power_cut" else {"do": how})
    await told.central.until(lambda: len(told.traces("booted")) > before)


async def an_sos_gets_out(told: Story, hold: float = HOLD_S) -> Heard:
    """Hold the button and see the alarm arrive, by connection or beacon."""
    known = set(told.central.events)
    await told.badge.do({"do": "hold", "seconds": hold + 0.3})

    def fresh() -> Heard | None:
        return next((h for i, h in told.central.events.items() if i not in known and h.kind == kinds.SOS), None)

    await told.central.until(lambda: fresh() is not None)
    heard = fresh()
    assert heard is not None
    return heard


@pytest.mark.parametrize("part", sorted(BROKEN))
def test_with_one_part_broken_from_the_start(tmp_path: Path, part: str) -> None:
    async def scene() -> None:
        async with story(tmp_path, settings={"fall_alarm": part == "accelerometer"}) as told:
            told.badge.board.break_parts(BROKEN[part])
            await restarted(told, "power_cut")
            settings_lost = part in ("filesystem", "settings")
            await an_sos_gets_out(told, DEFAULT_HOLD_S if settings_lost else HOLD_S)
            if part != "haptic":
                await told.feels(patterns.STATION_HAS_IT)
            if part != "microphone":
                await told.central.until(lambda: bool(told.central.sounds))

    play(scene)


def test_in_pairing_mode(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            # keys that came over the cable open the window, as the gesture does
            assert [trace["fields"]["state"] for trace in told.traces("pairing")] == ["open"]
            await an_sos_gets_out(told)
            assert [trace["fields"]["state"] for trace in told.traces("pairing")] == ["open"]
            await told.feels(patterns.STATION_HAS_IT)

    play(scene)


def test_while_sound_that_was_kept_on_flash_is_sent(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path, settings={"amber_seconds": 6}) as told:
            central = told.central
            await told.feels(patterns.PROTECTED)
            central.connect = False
            await central.hang_up()
            await told.badge.do({"do": "start_visit"})
            await asyncio.sleep(6.5)
            central.connect = True
            await central.until(lambda: any(len(packets) > 20 for packets in central.sounds.values()), 12)
            before = sum(map(len, central.sounds.values()))
            assert before < 240  # it is still at it
            heard = await an_sos_gets_out(told)
            assert heard.kind == kinds.SOS
            await central.until(lambda: len(central.sounds) >= 2, 15)

    play(scene)


def test_on_a_nearly_empty_battery(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            await told.badge.do({"do": "battery", "percent": 1})
            await restarted(told, "reset")
            await told.feels(patterns.BATTERY_LOW)
            await an_sos_gets_out(told)
            await told.feels(patterns.STATION_HAS_IT)

    play(scene)


def test_in_standby_by_the_hold_that_wakes_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            await told.feels(patterns.PROTECTED)
            await told.badge.do({"do": "standby"})
            await told.central.until(lambda: told.badge.state()["asleep"])
            beacons = len(told.central.beacons)
            await told.central.until(lambda: told.states()[-1] == "deep sleep")
            before = len(told.states())
            await told.badge.do({"do": "press"})  # a touch
            await told.central.until(lambda: told.states()[before:] == ["booting", "deep sleep"])
            assert told.badge.state()["asleep"]
            assert len(told.central.beacons) == beacons  # and the radio stayed off
            await told.badge.do({"do": "button", "button": "sos", "pressed": True})
            heard = await told.central.event(kinds.SOS)  # and not when the button was let go; how fast, bench says
            await told.badge.do({"do": "button", "button": "sos", "pressed": False})
            await told.feels(patterns.STATION_HAS_IT)
            assert not told.badge.microphone.capturing or heard.kind == kinds.SOS

    play(scene)


def test_while_it_asks_after_a_fall(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path, settings={"fall_alarm": True}) as told:
            await told.feels(patterns.PROTECTED)
            for _ in range(4):
                await told.badge.do({"do": "fall"})
                try:
                    await told.feels(patterns.CHECK_IN_DUE, 15)
                    break
                except TimeoutError:  # the sensor remembers 640 ms: a badge that stood still so long has not seen it
                    await told.badge.do({"do": "get_up"})
            assert patterns.CHECK_IN_DUE in told.felt()
            await an_sos_gets_out(told)
            await told.feels(patterns.STATION_HAS_IT)
            assert told.central.find(kinds.FALL) is None

    play(scene)


def test_a_watchdog_that_bites_in_the_middle_of_an_alarm_resumes_it_and_leaves_its_last_words(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path) as told:
            await told.feels(patterns.PROTECTED)
            heard = await an_sos_gets_out(told)
            await asyncio.sleep(6)  # the counters are noted every five seconds
            await told.badge.do({"do": "reset"})
            await told.central.until(lambda: bool(told.traces("resumed")))
            assert told.traces("resumed")[0]["fields"]["ident"] == heard.ident.hex()
            await told.central.until(
                lambda: any(
                    h.kind == kinds.BOOTED and h.event is not None and h.event.body[0] == 3
                    for h in told.central.events.values()
                )
            )
            await told.central.until(lambda: told.badge.microphone.capturing)

    play(scene)


def test_across_the_wrap_of_the_clock(tmp_path: Path) -> None:
    async def scene() -> None:
        # ticks_ms() wraps 9 s after the start: in the middle of the hold or of the alarm
        async with story(tmp_path, ticks=(1 << 30) - 9000) as told:
            await told.feels(patterns.PROTECTED)
            for _ in range(3):
                await an_sos_gets_out(told)
                await asyncio.sleep(1.0)
            await told.feels(patterns.STATION_HAS_IT)
            assert not told.traces("stuck")

    play(scene)
