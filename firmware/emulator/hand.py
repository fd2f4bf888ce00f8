"""The wearer's hand: acts of the wearer's card as levels of two buttons over time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from firmware.badge import card

SOS, SIDE = "sos", "side"
TAP_MS, TAP_GAP_MS = 120, 180
LONGEST_S = 60.0
MOST_PRESSES = 20
Step = tuple[int, str, bool]  # milliseconds from the beginning, button, pressed


class BadAct(ValueError):
    """An act that nobody can do; the message says why."""


def number(fields: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A number out of a request. Raises BadAct."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadAct(f"{name!r} must be a number")
    if not least <= value <= most:
        raise BadAct(f"{name!r} must be between {least:g} and {most:g}")
    return float(value)


def _presses(button: str, presses: tuple[tuple[int, int], ...]) -> list[Step]:
    steps, at = [], 0
    squeezed = button == "side+sos"
    for pressed_ms, released_ms in presses:
        steps += [(at, SIDE if squeezed else button, True), (at + pressed_ms, SIDE if squeezed else button, False)]
        at += pressed_ms + released_ms
    if squeezed:
        steps += [(card.SQUEEZE_AT_MS, SOS, True), (card.SQUEEZE_AT_MS + card.SQUEEZE_MS, SOS, False)]
    return sorted(steps)


def steps(act: str, fields: Mapping[str, Any]) -> list[Step]:
    """What the hand does for an act, in order of time. Raises BadAct."""
    if act in ("hold", "side_hold"):
        button = SOS if act == "hold" else SIDE
        ordinary = 2.0 if act == "hold" else card.GESTURES["side_hold"][1][0][0] / 1000
        seconds = number(fields, "seconds", ordinary, 0.01, LONGEST_S)
        return [(0, button, True), (round(seconds * 1000), button, False)]
    if act == "presses":
        count = int(number(fields, "count", len(card.GESTURES["sos_presses"][1]), 1, MOST_PRESSES))
        return _presses(SOS, ((TAP_MS, TAP_GAP_MS),) * count)
    if act not in card.GESTURES:
        raise BadAct(f"unknown act {act!r}")
    return _presses(*card.GESTURES[act])


class Hand:
    """Presses the buttons. One act at a time: a hand finishes one before it begins the next."""

    def __init__(self, press: Callable[[str, bool], None]) -> None:
        self._press = press
        self._busy = asyncio.Lock()

    async def wake(self, started: Callable[[], Awaitable[None]], least_s: float, after_s: float) -> None:
        """Hold the side button for `least_s`, and for `after_s` from when the badge has `started()`."""
        loop = asyncio.get_running_loop()
        async with self._busy:
            end = loop.time() + least_s
            start = asyncio.ensure_future(started())
            await asyncio.sleep(0)  # it listens before anything is pressed
            self._press(SIDE, True)
            try:
                await start
                await asyncio.sleep(max(after_s, end - loop.time()))
            finally:
                start.cancel()
                self._press(SIDE, False)

    async def do(self, planned: list[Step]) -> None:
        """Carry out the steps; returns when the last one is done."""
        loop = asyncio.get_running_loop()
        async with self._busy:
            begin = loop.time()
            down: set[str] = set()
            try:
                for at_ms, button, pressed in planned:
                    await asyncio.sleep(max(0.0, begin + at_ms / 1000 - loop.time()))
                    (down.add if pressed else down.discard)(button)
                    self._press(button, pressed)
                    # where this machine was late the rest of the act is: no press becomes too short to be one
                    begin = max(begin, loop.time() - at_ms / 1000)
            finally:
                for button in down:  # cancelled in the middle: let go
                    self._press(button, False)
