"""What happened in a drill, as plain data and as one JSON object.

Every time is in seconds since time zero of the drill, or None where it is unknown. Readers ignore fields that
they do not know.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

PASSED, FAILED, WRONG_FILE, DID_NOT_RUN = 0, 1, 2, 3


@dataclass
class Signal:
    """One of the events that an alarm is made of; see Alarm."""

    kind: str
    identity: str
    pressed_at: float | None
    station_received_at: float | None
    via: str | None


@dataclass
class Alarm:
    """One alarm: raised on a badge (`identity` badge/boot/seq) or by the station (station/visit).

    `kind` is the gravest of its signals, the times are those of the first.
    """

    badge: str
    kind: str
    identity: str
    incident: str
    pressed_at: float | None = None
    hub_held_at: float | None = None
    station_received_at: float | None = None
    operator_seen_at: float | None = None
    claimed_at: float | None = None
    listening_at: float | None = None
    closed_at: float | None = None
    via: str | None = None
    hub: str | None = None
    signals: list[Signal] = field(default_factory=list)

    def as_kind(self, kind: str | None) -> "Alarm | None":
        """This alarm as one of that kind, with its first such signal's times; None when nothing in it is."""
        first = next((signal for signal in self.signals if signal.kind == kind), None)
        if kind is None or (kind == self.kind and first in (None, *self.signals[:1])):
            return self
        if first is None:
            return None
        return replace(
            self,
            kind=first.kind,
            identity=first.identity,
            pressed_at=first.pressed_at,
            station_received_at=first.station_received_at,
            via=first.via,
        )


@dataclass
class Haptic:
    """A pattern of the motor of a badge as its wearer would recognise it."""

    badge: str
    at: float
    pattern: str


@dataclass
class Audio:
    """The sound of one incident: what the microphone took, what the archive holds, how late it was heard."""

    badge: str
    incident: str
    seconds_captured: float = 0.0
    seconds_archived: float = 0.0
    gaps: int = 0
    mouth_to_ear_ms: dict[str, float] | None = None
    wav: str | None = None


@dataclass
class Visit:
    badge: str
    started_at: float | None
    due_at: float | None = None
    checked_in_at: list[float] = field(default_factory=list)
    overdue_at: float | None = None
    ended_at: float | None = None


@dataclass
class SelfTest:
    badge: str
    at: float
    passed: bool
    seconds: float | None = None


@dataclass
class Supervision:
    """Something that went quiet or came back: `what` is badge:ID or hub:ID, `state` lost or back."""

    what: str
    state: str
    at: float


@dataclass
class Problem:
    """Something that went wrong and was not part of the script; `at` is None where the moment is unknown."""

    at: float | None
    part: str
    text: str


@dataclass
class Failed:
    """An expectation of the file that did not hold: which one, and why."""

    expect: str
    text: str


@dataclass
class Report:
    title: str
    seconds: float
    seed: int
    lost: int = 0
    duplicates: int = 0
    alarms: list[Alarm] = field(default_factory=list)
    haptics: list[Haptic] = field(default_factory=list)
    audio: list[Audio] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    tests: list[SelfTest] = field(default_factory=list)
    supervision: list[Supervision] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (self.lost or self.duplicates or self.errors or self.failed)

    @property
    def exit_status(self) -> int:
        return PASSED if self.ok else FAILED

    def as_json(self) -> dict[str, object]:
        """The report with `ok` in it, times rounded to a tenth of a millisecond."""
        body = _rounded(asdict(self))
        assert isinstance(body, dict)
        return {"title": body.pop("title"), "ok": self.ok, **body}

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return value


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie, by the nearest rank; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
