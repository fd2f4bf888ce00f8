"""From the motor to what the wearer feels: pulses are measured and named by the table of protocol.patterns.

A laptop that gives the firmware no processor for a tenth of a second makes a pulse or a pause longer, which a board
does not. So pulses that are the ones of the pattern that the firmware says it plays, with nothing but more time in
them, are that pattern. What the firmware says is never enough: the motor must have made every pulse of it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque

from firmware.emulator.childlink import ChildLink
from firmware.emulator.events import Bus
from protocol import patterns

REST_S = patterns.GAP_MS / 1000 - 0.075  # a motor at rest this long has finished its pattern; within one it is 350 ms
STALL_S = 3.0  # and this long also when pulses are missing from what the firmware said it plays
WEAKEST = 6_000  # of 65535: below, a coin motor does not turn
SHORT_MS = 10  # by how much the two ends of a pulse may be told too close together
ANNOUNCED = 16  # patterns said and not felt yet: a motor that is dead makes none


class Haptics:
    """Listens to the motor's pin. Emits `motor` at every change and `haptic` when a pattern is complete.

    A pattern's `at` is when it began: what the wearer felt first. Its `pulses` are as they were, in ms.
    """

    def __init__(self, link: ChildLink, bus: Bus, pin: int) -> None:
        self._bus = bus
        self._pin = pin
        self._on_at: float | None = None
        self._pulses: list[tuple[float, float]] = []  # when a pulse began, when it ended
        self._timer: asyncio.TimerHandle | None = None
        self._said: deque[str] = deque(maxlen=ANNOUNCED)  # what the firmware plays: the first is under way, or begins
        self.dead = False
        link.handlers["M"] = self._on_pwm
        link.handlers["O"] = self._on_level

    def playing(self, name: str) -> None:
        """The firmware says that it begins a pattern: the one before it is over."""
        if self._pulses and self._on_at is None and self._said:
            self._finish()
        if name in patterns.TABLE:
            self._said.append(name)

    def stop(self) -> None:
        """The badge has lost power or was reset: the motor stops."""
        if self._on_at is not None:
            self._set(False, asyncio.get_running_loop().time())
        if self._pulses:
            self._finish()
        self._said.clear()

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
            if self._pulses and at - self._pulses[-1][1] >= self._rest_s():
                self._finish()
            self._on_at = at
        else:
            assert self._on_at is not None
            self._pulses.append((self._on_at, at))
            self._on_at = None
            self._timer = asyncio.get_running_loop().call_later(self._rest_s(), self._finish)

    def _rest_s(self) -> float:
        """How long a rest ends what is being felt."""
        missing = self._said and len(self._pulses) < len(patterns.pulses(self._said[0]))
        return STALL_S if missing else REST_S

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
        if self._said:
            said = self._said.popleft()
            name = said if stretched(said, felt) else name
        meaning = patterns.TABLE[name][1] if name else ""
        self._bus.emit("haptic", at=pulses[0][0], pattern=name or "unknown", meaning=meaning, pulses=felt)


def stretched(name: str, felt: list[tuple[int, int]]) -> bool:
    """Whether pulses of (on ms, off ms) are those of a pattern, none of them shorter than it should be."""
    wanted = patterns.pulses(name)
    return len(felt) == len(wanted) and all(
        on >= least - SHORT_MS for (on, _), (least, _) in zip(felt, wanted, strict=True)
    )
