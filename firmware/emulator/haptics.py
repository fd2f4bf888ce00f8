"""From the motor to what the wearer feels: pulses are measured and named by the table of protocol.patterns."""

from __future__ import annotations

import asyncio
import struct

from firmware.emulator.childlink import ChildLink
from firmware.emulator.events import Bus
from protocol import patterns

REST_S = patterns.GAP_MS / 1000 - 0.075  # a motor at rest this long has finished its pattern; within one it is 350 ms
WEAKEST = 6_000  # of 65535: below, a coin motor does not turn


class Haptics:
    """Listens to the motor's pin. Emits `motor` at every change and `haptic` when a pattern is complete.

    A pattern's `at` is when it began: what the wearer felt first.
    """

    def __init__(self, link: ChildLink, bus: Bus, pin: int) -> None:
        self._bus = bus
        self._pin = pin
        self._on_at: float | None = None
        self._pulses: list[tuple[float, float]] = []  # when a pulse began, when it ended
        self._timer: asyncio.TimerHandle | None = None
        self.dead = False
        link.handlers["M"] = self._on_pwm
        link.handlers["O"] = self._on_level

    def stop(self) -> None:
        """The badge has lost power or was reset: the motor stops."""
        if self._on_at is not None:
            self._set(False, asyncio.get_running_loop().time())

    def _on_pwm(self, body: bytes) -> None:
        pin, duty, at = struct.unpack(">BHQ", body)
        if pin == self._pin:
            self._set(duty >= WEAKEST, at / 1e6)

    def _on_level(self, body: bytes) -> None:
        pin, level, at = struct.unpack(">BBQ", body)
        if pin == self._pin:
            self._set(bool(level), at / 1e6)

    def _set(self, on: bool, at: float) -> None:
        if self.dead or on == (self._on_at is not None):
            return
        self._bus.emit("motor", at=at, on=on)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if on:
            if self._pulses and at - self._pulses[-1][1] >= REST_S:
                self._finish()
            self._on_at = at
        else:
            assert self._on_at is not None
            self._pulses.append((self._on_at, at))
            self._on_at = None
            self._timer = asyncio.get_running_loop().call_later(REST_S, self._finish)

    def _finish(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        pulses, self._pulses = self._pulses, []
        felt = []
        for i, (begin, end) in enumerate(pulses):
            rest = pulses[i + 1][0] - end if i + 1 < len(pulses) else 0.0
            felt.append((round((end - begin) * 1000), round(rest * 1000)))
        name = patterns.match(felt)
        meaning = patterns.TABLE[name][1] if name else ""
        self._bus.emit("haptic", at=pulses[0][0], pattern=name or "unknown", meaning=meaning, pulses=felt)
