"""The emulated microphone loses what a firmware is too slow to hear, and nothing because this machine was slow."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
from shim_bench import WAIT, Bench, bench, run

from firmware.emulator import microphone
from firmware.emulator.events import Bus

GO_ON = 40  # a pin that stands for the test: the script goes on when it is high
LONG_S = 0.5
SCRIPT = (
    WAIT
    + """
import utime
from machine import Pin
from firmware.badge.microphone import Microphone
from firmware.boards import emulator as board
blocks = missed = 0
def heard(lost):
    global blocks, missed
    blocks += 1
    missed += lost
    if blocks == 5:
        %s
mic = Microphone(board)
print("open", mic.open(heard))
while blocks < 3:
    wait(1)
print("hears")
while not Pin(40).value():
    wait(1)
seen = blocks
while blocks < seen + 10:
    wait(1)
print("blocks", blocks, "missed", missed)
mic.close()
"""
)


async def hears(b: Bench, script: str, meanwhile: Callable[[], Awaitable[None]]) -> tuple[int, float]:
    """Play a capture: blocks that the badge says it has missed, and seconds that the air rested."""
    heard = microphone.Microphone(b.board, b.link, Bus(), microphone.load(microphone.VOICE))
    try:
        await b.start(script)
        await b.until("hears")
        await meanwhile()
        b.board.set_pin(GO_ON, 1)
        await asyncio.sleep(0)
        lines = await b.end()
    finally:
        heard.stop()
    assert "open True" in lines
    return int(lines[-1].split()[-1]), heard.rested


@pytest.mark.parametrize("who", ["board", "companion"])
def test_time_that_the_machine_takes_away_costs_no_sound(who: str) -> None:
    async def story() -> None:
        async with bench() as b:

            async def meanwhile() -> None:
                assert b.child
                if who == "companion":
                    time.sleep(LONG_S)  # noqa: ASYNC251  nothing here comes round
                else:
                    os.kill(b.child.process.pid, signal.SIGSTOP)
                    await asyncio.sleep(LONG_S)
                    os.kill(b.child.process.pid, signal.SIGCONT)

            missed, rested = await hears(b, SCRIPT % "pass", meanwhile)
            assert missed == 0
            assert rested > LONG_S - 0.2

    run(story)


@pytest.mark.parametrize(
    "slow", ["began = utime.clock()\n        while utime.clock() - began < 0.5: pass", "utime.sleep_ms(500)"]
)
def test_a_firmware_that_is_too_slow_loses_what_it_does_not_hear_and_knows_it(slow: str) -> None:
    async def story() -> int:
        async with bench() as b:

            async def meanwhile() -> None:
                await asyncio.sleep(0)

            missed, _ = await hears(b, SCRIPT % slow, meanwhile)
            return missed

    # 128 of the 500 ms are in the microphone's own memory: 14 blocks are lost, fewer when the air had to rest
    assert any(asyncio.run(story()) >= 8 for _ in range(5))
