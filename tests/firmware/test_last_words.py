"""A task that hangs in the emulated badge: its own watchdog resets it, and the station is told which task it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

from badge_central import Heard
from test_badge_air import story
from test_sos_in_every_state import play

from protocol import events, kinds, patterns, restart

FIRMWARE = Path(__file__).with_name("hanging_badge.py")


def test_a_task_that_hangs_ends_in_a_watchdog_reset_and_words_that_the_station_understands(tmp_path: Path) -> None:
    async def scene() -> None:
        async with story(tmp_path, module="hanging", extra={"hanging.py": FIRMWARE}) as told:
            await told.feels(patterns.PROTECTED)
            bitten = asyncio.get_running_loop().time()
            await told.central.until(lambda: bool(told.traces("stuck")))
            assert told.traces("stuck")[0]["fields"]["tasks"] == "battery"

            def words() -> Heard | None:
                booted = [h for h in told.central.events.values() if h.kind == kinds.BOOTED and h.event is not None]
                return next((h for h in booted if h.event and h.event.body[0] == 3), None)

            await told.central.until(lambda: words() is not None)
            heard = words()
            assert heard is not None
            assert heard.event is not None
            said = events.unpack_booted(heard.event.body)
            assert restart.worrying(*said[:3])
            assert restart.words(*said).startswith("watchdog, task battery")
            # six seconds until it is missed and ten of the watchdog, less what lay before the badge was protected
            assert asyncio.get_running_loop().time() - bitten >= 5
            # it runs, is protected, and calls for help as ever
            await told.badge.do({"do": "hold", "seconds": 0.9})
            await told.central.event(kinds.SOS)

    play(scene)
