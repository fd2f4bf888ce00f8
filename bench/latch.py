"""From the hold that is complete to the first transmission of the alarm: on duty, and out of deep sleep.

Out of deep sleep the badge starts while the button is down, so that the start costs what it takes longer than the hold.
The start itself is modelled by a constant of the emulator (BOOT_S); loading the application is this machine's.
"""

from typing import Any

from bench import chain
from drill.badge import BadgeClient
from firmware.emulator.badge import BOOT_S

ASLEEP_S = 15.0
WAKINGS = 10
ON_DUTY_MS = 50
WOKEN_MS = 1500


async def measure(count: int) -> dict[str, Any]:
    """Milliseconds on duty of `count` alarms, and of some that woke the badge; counted from the press for these too."""
    async with chain.standing(chain.scenario(1)) as play:
        client = play.stage.badges["b1"]
        on_duty = []
        for _ in range(count):
            start = len(client.events)
            await chain.one(play.stage, "b1")
            on_duty.append(_pressed_to_air(client, start) - chain.HOLD_S)
        woken = []
        for _ in range(WAKINGS):
            await client.do("standby")
            start = len(client.events)
            await chain.one(play.stage, "b1")
            woken.append(_pressed_to_air(client, start))
    return {
        "on_duty": chain.milliseconds(on_duty),
        "out_of_deep_sleep_from_the_press": chain.milliseconds(woken),
        "out_of_deep_sleep": chain.milliseconds([max(0.0, late - chain.HOLD_S) for late in woken]),
        "hold_ms": 1000 * chain.HOLD_S,
        "boot_ms": 1000 * BOOT_S,
        "estimate": "MicroPython's start is modelled; an ESP32-S3 loads the application more slowly than this machine",
    }


def _pressed_to_air(client: BadgeClient, start: int) -> float:
    """Seconds from the press of the hidden button to the first advertisement after the hold was complete."""
    events = client.events[start:]
    pressed = next(e["at"] for e in events if e["type"] == "button" and e["button"] == "sos" and e["pressed"])
    complete = pressed + chain.HOLD_S
    return float(next(e["at"] for e in events if e["type"] == "advertise" and e["at"] >= complete) - pressed)
