"""Alarms through the whole chain, one after the other, and when each of them got how far.

The parts are those of a drill. Each badge holds its button, the operator claims and closes as soon as the alarm is on
the console, and when the badge knows that it is closed the next one begins.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drill.collect import Raised, told
from drill.operator import Operator
from drill.play import Play
from drill.report import percentile
from drill.scenario import Badge, Fault, Hub, OperatorStep, Scenario
from drill.stage import Stage

# the shortest hold that may be set; what is measured begins when it is complete
HOLD_S = 0.5
GIVE_UP_S = 30.0
CLOSED_S = 10.0


@dataclass
class Trip:
    """One alarm: instants in seconds since time zero."""

    identity: str
    alarm: int
    pressed: float
    raised: float
    held: float | None
    committed: float
    shown: float | None
    via: str


def scenario(badges: int, faults: tuple[Fault, ...] = (), seed: int = 1, operators: int = 1) -> Scenario:
    """Some badges that raise after the shortest hold, and one hub."""
    people = tuple(Badge(f"b{n}", f"Bench {n}", None, {"hold_to_sos": HOLD_S}, ()) for n in range(1, badges + 1))
    hub = Hub("bag", None, None, tuple(badge.id for badge in people), 0.0)
    names = tuple(f"op{n}" for n in range(1, operators + 1))
    return Scenario("bench", seed, people, (hub,), "auto", 1, (), faults, (), 0.0, names)


@asynccontextmanager
async def standing(wanted: Scenario) -> AsyncIterator[Play]:
    """The stage of a scenario with its faults in force, and a play whose zero is now."""
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-", ignore_cleanup_errors=True) as folder:
        stage = Stage(wanted, Path(folder))
        try:
            await stage.start()
            play = Play(stage)
            await play.begin()
            yield play
        finally:
            await stage.stop()


async def until(ready: Any, seconds: float) -> bool:
    """Looks every few milliseconds whether something is so."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    return True


async def alarms(play: Play, each: int) -> None:
    """Every badge raises `each` alarms; the operator handles each at once."""
    chance = random.Random(play.scenario.seed)

    async def one_badge(badge: str, rest: list[float]) -> None:
        for pause in rest:
            await one(play.stage, badge)
            # no two presses in step with each other or with the air
            await asyncio.sleep(pause)

    await asyncio.gather(
        *(one_badge(b.id, [chance.uniform(0.0, 0.2) for _ in range(each)]) for b in play.scenario.badges)
    )


async def one(stage: Stage, badge: str) -> None:
    """One alarm from the press until the badge knows that it is closed."""
    client, operator = stage.badges[badge], stage.operators["op1"]
    before = set(operator.seen)

    def mine() -> list[int]:
        return [n for n, seen in operator.seen.items() if n not in before and seen.alarm["badge"] == client.number]

    start = len(client.events)
    await client.do("hold", seconds=HOLD_S + 0.1)
    if not await until(mine, GIVE_UP_S):
        raise RuntimeError(f"an alarm of {badge} was not on the console after {GIVE_UP_S:g} s")
    await handle(operator, badge)
    closed = {"name": "custody", "level": "closed"}

    def knows(event: dict[str, Any]) -> bool:
        fields = event.get("fields", {})
        return event["type"] == "trace" and {"name": event["name"], "level": fields.get("level")} == closed

    await client.wait_for(knows, CLOSED_S, start)


async def handle(operator: Operator, badge: str) -> None:
    """Claims and closes an alarm of a badge."""
    deadline = time.monotonic() + GIVE_UP_S
    for act in ("claim", "close"):
        await operator.perform(OperatorStep(0.0, operator.name, act, badge, "", "training", True, "bench"), deadline)


async def trips(play: Play) -> tuple[list[Trip], int, int]:
    """All alarms of a play, how many were lost, how many were there twice."""
    stage, news = play.stage, told(play)
    entries = (await stage.station.json("/api/alarms?state=all"))["alarms"]
    found: list[Trip] = []
    owners: dict[str, list[int]] = {}
    for entry in entries:
        for identity in {entry["identity"], *(signal["identity"] for signal in entry["signals"])}:
            owners.setdefault(identity, []).append(entry["id"])
    raised_at = _traces(play)
    for raised in news.raised.values():
        numbers = owners.get(raised.identity, [])
        if numbers:
            entry = next(entry for entry in entries if entry["id"] == numbers[0])
            found.append(_trip(play, raised, entry, raised_at[raised.identity]))
    lost = sum(identity not in owners for identity in news.raised)
    twice = sum(len(numbers) - 1 for numbers in owners.values())
    return found, lost, twice


def _traces(play: Play) -> dict[str, float]:
    """Identity to the instant at which the firmware said that it had raised the alarm."""
    from protocol import ident

    found: dict[str, float] = {}
    for client in play.stage.badges.values():
        for event in client.events:
            if event["type"] == "trace" and event["name"] == "raised":
                identity = ident.text(client.number, bytes.fromhex(event["fields"]["ident"]))
                found.setdefault(identity, event["at"])
    return found


def _trip(play: Play, raised: Raised, entry: dict[str, Any], said: float) -> Trip:
    seen = play.stage.operators["op1"].seen.get(entry["id"])
    return Trip(
        raised.identity,
        entry["id"],
        raised.at - play.zero,
        said - play.zero,
        None if raised.held_at is None else raised.held_at - play.zero,
        entry["received_at"] - play.unix_zero,
        None if seen is None else seen.first - play.zero,
        entry["via"],
    )


def milliseconds(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the most of some durations in seconds."""
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * percentile(values, share), 1) for name, share in shares.items()}
