"""Free heap of the badge over a long duty with alarms: what is not given back shows here."""

import asyncio
from typing import Any

from bench import chain

ALARMS = 10
# the radio, statuses and beacons go on in between; an hour's worth of them would take an hour
PAUSE_S = 20.0


async def measure() -> dict[str, Any]:
    """Bytes free after the first alarm and after the last of ten, with duty in between."""
    async with chain.standing(chain.scenario(1)) as play:
        client = play.stage.badges["b1"]
        free: list[int] = []
        for _ in range(ALARMS):
            await chain.one(play.stage, "b1")
            await asyncio.sleep(PAUSE_S)
            heaps = [event for event in client.events if event["type"] == "trace" and event["name"] == "heap"]
            free.append(int(heaps[-1]["fields"]["free"]))
    return {"after_one_alarm": free[0], "after_ten_alarms": free[-1], "all": free, "met": free[-1] >= free[0]}
