"""What is wrong with the air between two devices.

A fault belongs to a pair of device names and has an id by which it is cleared. Several may be in force for
one pair at once; together they are one `Conditions`: independent probabilities combine, delays add up, and
one `down` is enough. Every random draw for a pair comes from a generator of that pair, seeded by the seed
and the two names, so that traffic between others does not change what happens here.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

PROBABILITIES = ("loss", "corrupt", "duplicate", "reorder")
MAX_DELAY_MS = 60_000
ANY = "*"


class BadFault(ValueError):
    """A fault that cannot be: the message says which field and why."""


@dataclass(frozen=True)
class Conditions:
    """The state of the air between two devices; probabilities 0..1 per packet, delay in milliseconds."""

    loss: float = 0.0
    corrupt: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_ms: float = 0.0
    connect: bool = True
    down: bool = False

    def merged(self, other: Conditions) -> Conditions:
        """Both at once."""

        def either(a: float, b: float) -> float:
            return a + b - a * b

        return Conditions(
            loss=either(self.loss, other.loss),
            corrupt=either(self.corrupt, other.corrupt),
            duplicate=either(self.duplicate, other.duplicate),
            reorder=either(self.reorder, other.reorder),
            delay_ms=self.delay_ms + other.delay_ms,
            connect=self.connect and other.connect,
            down=self.down or other.down,
        )


CLEAN = Conditions()


@dataclass(frozen=True)
class Fault:
    """Conditions between the devices named `a` and `b` (either may be "*")."""

    a: str
    b: str
    conditions: Conditions

    def concerns(self, x: str, y: str) -> bool:
        """Whether it is in force between x and y, in either direction."""

        def names(one: str, other: str) -> bool:
            return self.a in (ANY, one) and self.b in (ANY, other)

        return names(x, y) or names(y, x)

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Fault:
        """A fault from a JSON object. Raises BadFault."""
        known = {"cmd", "id", "a", "b", "delay_ms", "connect", "down", *PROBABILITIES}
        if unknown := sorted(set(fields) - known):
            raise BadFault(f"unknown field {unknown[0]!r}")
        for end in ("a", "b"):
            if not isinstance(fields.get(end), str) or not fields[end]:
                raise BadFault(f"{end!r} must be the name of a device")
        for name in PROBABILITIES:
            _number(fields, name, 1.0)
        _number(fields, "delay_ms", MAX_DELAY_MS)
        for name in ("connect", "down"):
            if not isinstance(fields.get(name, False), bool):
                raise BadFault(f"{name!r} must be true or false")
        return cls(
            fields["a"],
            fields["b"],
            Conditions(
                **{name: float(fields.get(name, 0.0)) for name in PROBABILITIES},
                delay_ms=float(fields.get("delay_ms", 0.0)),
                connect=fields.get("connect", True),
                down=fields.get("down", False),
            ),
        )


def _number(fields: dict[str, Any], name: str, most: float) -> None:
    value = fields.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadFault(f"{name!r} must be a number")
    if not 0 <= value <= most:
        raise BadFault(f"{name!r} must be between 0 and {most:g}")


class Faults:
    """All faults in force, and the random generators of the pairs."""

    def __init__(self, seed: int = 0) -> None:
        self._faults: dict[int, Fault] = {}
        self._merged: dict[tuple[str, str], Conditions] = {}
        self._random: dict[tuple[str, str], random.Random] = {}
        self._seed = seed

    def set(self, number: int, fault: Fault) -> None:
        """Put a fault in force; one with the same number is replaced."""
        self._faults[number] = fault
        self._merged.clear()

    def clear(self, number: int) -> bool:
        """End a fault; False when there is none with this number."""
        found = self._faults.pop(number, None) is not None
        self._merged.clear()
        return found

    def seed(self, seed: int) -> None:
        """Start every pair's draws afresh from this seed."""
        self._seed = seed
        self._random.clear()

    def between(self, a: str, b: str) -> Conditions:
        """What holds between two devices now."""
        pair = (a, b) if a <= b else (b, a)
        conditions = self._merged.get(pair)
        if conditions is None:
            conditions = CLEAN
            for fault in self._faults.values():
                if fault.concerns(a, b):
                    conditions = conditions.merged(fault.conditions)
            self._merged[pair] = conditions
        return conditions

    def random(self, a: str, b: str) -> random.Random:
        """The generator of a pair."""
        pair = (a, b) if a <= b else (b, a)
        generator = self._random.get(pair)
        if generator is None:
            generator = self._random[pair] = random.Random(f"{self._seed}/{pair[0]}/{pair[1]}")
        return generator
