"""Free heap of the badge over a duty with ten alarms: what is not given back shows here.

The duty runs in real time, because Bluetooth, hub and station around the badge do: an hour takes an hour
(`--duty 60`), and the default is shorter, with as many alarms.
"""

import asyncio
import time
from statistics import median
from typing import Any

from bench import chain
from drill.badge import BadgeClient

ALARMS = 10
# The badge says how much is free after a collection once a minute. Something may be on its way just then, a message or
# a packet, and what looks like an address on the stack keeps what lies there, a block of 32 bytes
# or two: the middle of a few counts.
REPORT_S = 75.0
REPORTS = 3


async def measure(minutes: float) -> dict[str, Any]:
    """Bytes free after the first alarm and after the last of ten spread over some minutes of duty."""
    async with chain.standing(chain.scenario(1)) as play:
        client = play.stage.badges["b1"]
        began = time.monotonic()
        free = []
        for number in range(ALARMS):
            await asyncio.sleep(max(0.0, began + 60 * minutes * number / ALARMS - time.monotonic()))
            await chain.one(play.stage, "b1")
            if number in (0, ALARMS - 1):
                free.append([await _free(client) for _ in range(REPORTS)])
        took = (time.monotonic() - began) / 60
    return {
        "unit": "bytes free after a collection, of a 64-bit heap of 160 KiB that stands for 80 KB on the badge",
        "after_one_alarm": median(free[0]),
        "after_ten_alarms": median(free[1]),
        "reports": {"after_one_alarm": free[0], "after_ten_alarms": free[1]},
        "minutes_of_duty": round(took, 1),
        "target": "not lower than after one alarm, after an hour (python -m bench --only badge_memory --duty 60)",
        "met": median(free[1]) >= median(free[0]),
    }


async def _free(client: BadgeClient) -> int:
    """The next word of the badge on its heap."""
    start = len(client.events)

    def told(event: dict[str, Any]) -> bool:
        return bool(event["type"] == "trace" and event["name"] == "heap")

    if not await client.wait_for(told, REPORT_S, start):
        raise RuntimeError(f"the badge did not say how much memory is free within {REPORT_S:g} s")
    return next(int(event["fields"]["free"]) for event in client.events[start:] if told(event))
