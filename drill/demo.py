"""The whole chain on one machine: to click on in the browser, or as a short story on the terminal."""

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

from drill.report import Report
from drill.run import perform
from drill.scenario import Scenario, load
from drill.stage import Stage

STORY = Path(__file__).with_name("demo.toml")
# the ports that people expect; another free one is taken where somebody has them already
CONSOLE_PORT, PANEL_PORT = 8080, 8081

FELT = {
    "pressed": "a short tick: pressed",
    "station_has_it": "two long: the station has it",
    "operator_with_you": "one long, three short: a person is with you",
    "not_delivered": "six short: nobody has it yet",
    "check_in_due": "three even: check in, please",
    "checked_in": "two short: checked in",
    "not_protected": "falling: not protected",
    "protected": "rising: protected",
    "battery_low": "three short, far apart: battery low",
    "test_passed": "test passed",
    "test_failed": "test failed",
}


class Narrator:
    """Prints what happens, one line each, with the seconds since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def tell(self, line: str, at: float | None = None) -> None:
        print(f"{(time.monotonic() if at is None else at) - self.start:6.1f} s  {line}", flush=True)

    def felt(self, badge: str, event: dict[str, Any]) -> None:
        # named when the last pulse is over, with the time of the first
        if event.get("type") == "haptic":
            self.tell(f"{badge} feels {FELT.get(event['pattern'], event['pattern'])}", event["at"])


async def headless() -> Report:
    """Plays the story and returns its report. Raises DidNotStart."""
    narrator = Narrator()
    report = await perform(load(STORY), None, narrator.tell, narrator.felt)
    for alarm in report.alarms:
        took = (alarm.station_received_at or 0.0) - (alarm.pressed_at or 0.0)
        narrator.tell(f"{alarm.kind}: at the station {1000 * took:.0f} ms after it was due or pressed")
    for audio in report.audio:
        late = audio.mouth_to_ear_ms or {}
        narrator.tell(f"sound: {audio.seconds_archived:.1f} s archived, {late.get('p95', 0):.0f} ms from mouth to ear")
    narrator.tell("all well" if report.ok else "something went wrong")
    return report


def _empty(story: Scenario) -> Scenario:
    """The people and devices of the story without its script."""
    return Scenario(story.title, story.seed, story.badges, story.hubs, story.broker, 1, (), (), (), 0.0)


async def show() -> None:
    """Starts everything, says which pages to open, and stays until cancelled. Raises DidNotStart."""
    narrator = Narrator()
    with tempfile.TemporaryDirectory(prefix="tocsin-demo-", ignore_cleanup_errors=True) as folder:
        stage = Stage(_empty(load(STORY)), Path(folder), narrator.tell, narrator.felt, watched=True)
        stage.prefer_port("station:1", CONSOLE_PORT)
        stage.prefer_port("badge:alice", PANEL_PORT)
        try:
            await stage.start()
            await stage.protected(["alice"])
            print(
                f"\nopen this page  {stage.console}/   sign in as op1, password {stage.password}"
                f"\nand this one    {stage.badges['alice'].url}/   hold the hidden button for a second and a half"
                "\nCtrl-C stops everything.\n",
                flush=True,
            )
            told = 0
            while True:
                await asyncio.sleep(0.5)
                for trouble in stage.troubles[told:]:
                    narrator.tell(f"trouble: {trouble.part}: {trouble.text}")
                told = len(stage.troubles)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(stage.stop())
