"""From what the parts said and what the station knows to the report."""

import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx

from drill.operator import SAMPLE_RATE, Heard
from drill.play import Play
from drill.processes import DidNotStart
from drill.report import Alarm, Audio, Haptic, Problem, Report, SelfTest, Signal, Supervision, Visit, percentile
from drill.scenario import ALARM_KINDS, Badge, KillFault, LinkFault, Scenario
from drill.stage import Stage, Trouble
from firmware.badge.settings import TABLE as SETTINGS
from protocol import ident
from protocol.patterns import TABLE as PATTERNS

# how long after the threshold of a hold the firmware may take to say that it has raised the alarm, and how much
# earlier (its clock ticks in milliseconds and it samples the button every 10 to 20)
HOLD_LATE_S, HOLD_EARLY_S = 0.5, 0.1
# after the last touch of another gesture the badge waits whether there is more to come
GESTURE_S = 1.5
# badge and station count the same interval from the arming of a visit, each by its own clock
SAME_DEADLINE_S = 10.0
# a badge that no hub has connected to for two minutes restarts its radio and says so
DEAF = "'deaf'"


@dataclass
class Raised:
    """An alarm that a badge raised: when the gesture was complete, on CLOCK_MONOTONIC, and its identity as text."""

    badge: str
    kind: str
    identity: str
    at: float
    held_at: float | None = None


@dataclass
class Taken:
    """A capture of a badge's microphone: the badge's boot and number for it, the instant of its first sample."""

    badge: str
    started: float
    boot: int = 0
    number: int = 0
    samples: int = 0


@dataclass
class Told:
    """What a badge said and what was done to it, in the terms of the report."""

    raised: dict[str, Raised] = field(default_factory=dict)
    captures: list[Taken] = field(default_factory=list)
    haptics: list[tuple[str, float, str]] = field(default_factory=list)
    tests: list[tuple[str, float]] = field(default_factory=list)


class Reader:
    """Reads the events of one badge in their order. `kept_away`: the drill keeps hubs from it, so it may be deaf."""

    def __init__(
        self, badge: Badge, number: int, told: Told, complain: Callable[[float, str], None], kept_away: bool = False
    ) -> None:
        self.badge = badge
        self.kept_away = kept_away
        self.number = number
        self.told = told
        self.complain = complain
        self.threshold = float(badge.settings.get("hold_to_sos", SETTINGS["hold_to_sos"][2]))  # type: ignore[arg-type]
        self.boot = 0
        self.down: float | None = None
        self.touched: float | None = None
        self.capture: Taken | None = None
        self.named: int | None = None

    def read(self, event: dict[str, Any]) -> None:
        at, kind = float(event["at"]), event["type"]
        if kind == "haptic" and event["pattern"] in PATTERNS:
            self.told.haptics.append((self.badge.id, at, event["pattern"]))
        elif kind == "button":
            self.touched = at
            if event["button"] == "sos":
                self.down = at if event["pressed"] else None
        elif kind == "lanyard" and not event["attached"]:
            self.touched = at
        elif kind == "trace":
            self._trace(at, event["name"], event["fields"])
        elif kind == "capture" and event["on"]:
            self.capture = Taken(self.badge.id, at)
            self.told.captures.append(self.capture)
            self._name_capture()
        elif kind == "capture" and self.capture is not None:
            self.capture.samples = int(event["samples"])
            self.capture = None
        elif kind == "killed":
            if self.capture is not None:
                self.capture.samples = int((at - self.capture.started) * SAMPLE_RATE)
            self.capture = self.named = self.down = None
        elif kind == "state" and event.get("state") == "stopped":
            self.complain(at, f"the firmware ended by itself with status {event.get('status')}")
        elif kind == "log" and ("Traceback" in event["text"] or "Error" in event["text"]):
            self.complain(at, str(event["text"])[:300])

    def _trace(self, at: float, name: str, fields: dict[str, str]) -> None:
        if name in ("raised", "held") and "ident" in fields:
            identity = ident.text(self.number, bytes.fromhex(fields["ident"]))
            known = self.told.raised.get(identity)
            if name == "held" and known is not None and known.held_at is None:
                known.held_at = at
            elif name == "raised" and known is None and fields["kind"] in ALARM_KINDS:
                complete = self._complete(at)
                self.told.raised[identity] = Raised(self.badge.id, fields["kind"], identity, complete)
        elif name == "sent" and fields["kind"] == "test":
            self.told.tests.append((self.badge.id, at))
        elif name == "booted":
            self.boot = int(fields["boot"][:4], 16)
        elif name == "capture" and fields["state"] == "start":
            self.named = int(fields["n"])
            self._name_capture()
        elif name == "fault" and not self.badge.broken:
            if self.kept_away and DEAF in fields.get("error", ""):
                return
            self.complain(at, f"fault in {fields.get('subject')}: {fields.get('error')}")

    def _name_capture(self) -> None:
        """The firmware names a capture and the microphone starts: two pipes, so either may be heard of first."""
        if self.capture is not None and self.named is not None:
            self.capture.boot, self.capture.number = self.boot, self.named
            self.named = None

    def _complete(self, raised: float) -> float:
        """When the gesture was complete, by the hand that made it and not by what the firmware says of it."""
        if self.down is not None and -HOLD_EARLY_S <= raised - self.down - self.threshold <= HOLD_LATE_S:
            return self.down + self.threshold
        if self.touched is not None and raised - self.touched <= GESTURE_S:
            return self.touched
        return raised


def told(play: Play) -> Told:
    """Reads the events of all badges; what they should not have said becomes a trouble of the stage."""
    result = Told()
    for badge in play.scenario.badges:
        part = f"badge:{badge.id}"

        def complain(at: float, text: str, part: str = part) -> None:
            play.stage.troubles.append(Trouble(at, part, text))

        client = play.stage.badges[badge.id]
        reader = Reader(badge, client.number, result, complain, _kept_away(play.scenario, badge.id))
        for event in client.events:
            reader.read(event)
        if reader.capture is not None:
            # the drill ended while the microphone was on
            reader.capture.samples = int((time.monotonic() - reader.capture.started) * SAMPLE_RATE)
    return result


def _kept_away(scenario: Scenario, badge: str) -> bool:
    """Whether a drill has anything in it by which no hub may reach this badge for long."""
    for fault in scenario.faults:
        if isinstance(fault, LinkFault) and fault.badge == badge:
            if fault.air.get("down") or fault.air.get("connect") is False or fault.air.get("loss"):
                return True
        elif isinstance(fault, KillFault) and fault.what.startswith("hub:"):
            return True
    return not any(badge in hub.badges for hub in scenario.hubs)


async def collect(play: Play, keep: Path | None) -> Report:
    """The report of a drill that was played, its WAV files in `keep`. The stage must still stand."""
    stage, zero, unix_zero = play.stage, play.zero, play.unix_zero
    report = Report(play.scenario.title, play.scenario.end, play.scenario.seed)

    def since(unix: object) -> float | None:
        return float(unix) - unix_zero if isinstance(unix, int | float) else None

    for name in [part for part in stage.parts if part.startswith("station:")]:
        if not stage.parts[name].running:
            try:
                await stage.revive(name)
            except DidNotStart as error:
                stage.complain(name, str(error).replace("\n", " |"))
    try:
        alarms = (await stage.station.json("/api/alarms?state=all"))["alarms"]
        visits = (await stage.station.json("/api/visits?state=all"))["visits"]
        supervision = (await stage.station.json("/api/supervision"))["supervision"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        stage.complain("station", f"could not be asked at the end: {type(error).__name__}: {error}")
        alarms, visits, supervision = [], [], []
    names = {client.number: badge for badge, client in stage.badges.items()}
    news = told(play)
    for alarm in sorted(alarms, key=lambda entry: entry["received_at"]):
        report.alarms.append(_alarm(alarm, play, news, names, since))
    known = {alarm["identity"] for alarm in alarms}
    known |= {signal["identity"] for alarm in alarms for signal in alarm["signals"]}
    for raised in news.raised.values():
        if raised.kind == "missed_check_in" and any(_same_deadline(raised, entry, zero) for entry in report.alarms):
            known.add(raised.identity)
        if raised.identity not in known:
            lost = Alarm(raised.badge, raised.kind, raised.identity, raised.identity.replace("/", "-"))
            lost.pressed_at = raised.at - zero
            lost.hub_held_at = None if raised.held_at is None else raised.held_at - zero
            report.alarms.append(lost)
    report.lost = sum(identity not in known for identity in news.raised)
    report.duplicates = _duplicates(stage)
    for alarm in alarms:
        if "/" in alarm["identity"] and not alarm["identity"].startswith("station/"):
            identities = {alarm["identity"], *(signal["identity"] for signal in alarm["signals"])}
            if not identities & set(news.raised):
                stage.complain("station", f"has an alarm {alarm['identity']} that no badge raised")
    report.haptics = sorted(
        (Haptic(badge, at - zero, pattern) for badge, at, pattern in news.haptics if at >= zero), key=lambda h: h.at
    )
    report.audio = await _sound(play, news, alarms, names, keep)
    for visit in visits:
        report.visits.append(
            Visit(
                badge=names.get(visit["badge"], str(visit["badge"])),
                started_at=since(visit["started_at"]),
                due_at=since(visit["due_at"]),
                checked_in_at=[at for at in map(since, visit["checked_in_at"]) if at is not None],
                overdue_at=since(_overdue_at(visit, alarms)),
                ended_at=since(visit["ended_at"]),
            )
        )
    report.tests = [_self_test(badge, at, news, zero) for badge, at in news.tests if at >= zero]
    report.supervision = _supervision(stage, supervision, names, since)
    for trouble in stage.troubles:
        report.errors.append(Problem(trouble.at - zero, trouble.part, trouble.text))
    return report


def _self_test(badge: str, at: float, news: Told, zero: float) -> SelfTest:
    """A test is what its wearer felt of it: passed, failed, or (with a motor that is broken) nothing."""
    for who, felt, pattern in news.haptics:
        if who == badge and felt >= at and pattern in ("test_passed", "test_failed"):
            return SelfTest(badge, at - zero, pattern == "test_passed", felt - at)
    return SelfTest(badge, at - zero, False)


def _same_deadline(raised: Raised, alarm: Alarm, zero: float) -> bool:
    """Whether the station's own clock raised what a badge raised that could not say so: the same missed check-in."""
    if (alarm.badge, alarm.kind) != (raised.badge, raised.kind) or alarm.pressed_at is None:
        return False
    return abs(alarm.pressed_at - (raised.at - zero)) <= SAME_DEADLINE_S


def _alarm(alarm: dict[str, Any], play: Play, news: Told, names: dict[int, str], since: Any) -> Alarm:
    identities = [alarm["identity"], *(signal["identity"] for signal in alarm["signals"])]
    raised = next((news.raised[identity] for identity in identities if identity in news.raised), None)
    entry = Alarm(
        badge=names.get(alarm["badge"], str(alarm["badge"])),
        kind=alarm["kind"],
        identity=alarm["identity"],
        incident=alarm["incident"],
        pressed_at=since(alarm["raised_at"]),
        station_received_at=since(alarm["received_at"]),
        claimed_at=since(alarm["claimed_at"]),
        closed_at=since(alarm["closed_at"]),
        via=alarm["via"],
        hub=play.stage.hub_ids.get(alarm["hub"] or "", alarm["hub"]),
    )
    for signal in alarm["signals"]:
        known = news.raised.get(signal["identity"])
        entry.signals.append(
            Signal(
                kind=signal["kind"],
                identity=signal["identity"],
                pressed_at=since(signal["raised_at"]) if known is None else known.at - play.zero,
                station_received_at=since(signal["received_at"]),
                via=signal["via"],
            )
        )
    if raised is not None:
        entry.pressed_at = raised.at - play.zero
        entry.hub_held_at = None if raised.held_at is None else raised.held_at - play.zero
    seen = [op.seen[alarm["id"]].first for op in play.stage.operators.values() if alarm["id"] in op.seen]
    entry.operator_seen_at = min(seen) - play.zero if seen else None
    heard = [sound.at for op in play.stage.operators.values() for sound in op.heard if sound.alarm == alarm["id"]]
    entry.listening_at = min(heard) - play.zero if heard else None
    return entry


def _overdue_at(visit: dict[str, Any], alarms: list[dict[str, Any]]) -> float | None:
    """When a visit was first overdue (Unix seconds), also where a check-in came late and it runs again."""
    missed = [
        signal["received_at"]
        for alarm in alarms
        if alarm["visit"] is not None and alarm["visit"] == visit["id"]
        for signal in alarm["signals"]
        if signal["kind"] == "missed_check_in"
    ]
    told = missed + ([visit["overdue_at"]] if visit["overdue_at"] is not None else [])
    return min(told, default=None)


def _duplicates(stage: Stage) -> int:
    """Alarms that some operator saw twice: as two entries of the queue, or ringing again on a console."""
    worst = 0
    for operator in stage.operators.values():
        owners: dict[str, int] = {}
        doubled = 0
        for number, seen in sorted(operator.seen.items()):
            names = {seen.alarm["identity"], seen.alarm["incident"]}
            names |= {signal["identity"] for signal in seen.alarm["signals"]}
            doubled += any(owners.setdefault(name, number) != number for name in names)
        worst = max(worst, doubled + sum(max(0, seen.rang - 1) for seen in operator.seen.values()))
    return worst


async def _sound(
    play: Play, news: Told, alarms: list[dict[str, Any]], names: dict[int, str], keep: Path | None
) -> list[Audio]:
    result = []
    for alarm in alarms:
        badge = names.get(alarm["badge"], str(alarm["badge"]))
        heard = [s for op in play.stage.operators.values() for s in op.heard if s.alarm == alarm["id"]]
        captures = _captures_of(alarm, badge, play, news)
        if not alarm["audio"]["captures"] and not heard:
            continue
        entry = Audio(badge, alarm["incident"], gaps=alarm["audio"]["gaps"])
        entry.seconds_archived = float(alarm["audio"]["seconds"])
        entry.seconds_captured = sum(c.samples for c in captures) / SAMPLE_RATE
        late = mouth_to_ear(heard, captures)
        if late:
            entry.mouth_to_ear_ms = {"p50": percentile(late, 0.5), "p95": percentile(late, 0.95)}
        if keep is not None:
            entry.wav = await _wav(play.stage, alarm["id"], keep, f"audio/{badge}-{alarm['incident']}.wav")
        result.append(entry)
    return result


def _captures_of(alarm: dict[str, Any], badge: str, play: Play, news: Told) -> list[Taken]:
    """The captures that ran while an alarm was open; one that it found running (a spoken note) goes on for it."""
    opened = alarm["raised_at"] - play.unix_zero + play.zero - HOLD_LATE_S
    closed = play.zero + play.now if alarm["closed_at"] is None else alarm["closed_at"] - play.unix_zero + play.zero
    return [
        capture
        for capture in news.captures
        if capture.badge == badge
        and capture.started < closed
        and capture.started + capture.samples / SAMPLE_RATE > opened + 2 * HOLD_LATE_S
    ]


def mouth_to_ear(heard: list[Heard], captures: list[Taken]) -> list[float]:
    """Milliseconds from the microphone to the listener, of the first sample of each message of live sound."""
    starts = {(capture.boot, capture.number): capture.started for capture in captures}
    return [
        1000 * (sound.at - starts[sound.boot, sound.capture] - sound.position / SAMPLE_RATE)
        for sound in heard
        if sound.live and (sound.boot, sound.capture) in starts
    ]


async def _wav(stage: Stage, alarm: int, keep: Path, name: str) -> str | None:
    try:
        content = await stage.station.sound(alarm)
        with wave.open(BytesIO(content), "rb") as sound:
            if not sound.getnframes():
                return None
    except (httpx.HTTPError, wave.Error, EOFError) as error:
        stage.complain("station", f"the archived sound of alarm {alarm} cannot be had: {error}")
        return None
    file = keep / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return name


def _supervision(stage: Stage, entries: list[dict[str, Any]], names: dict[int, str], since: Any) -> list[Supervision]:
    result = []
    for entry in entries:
        kind, _, name = entry["what"].partition(":")
        name = names.get(int(name), name) if kind == "badge" else stage.hub_ids.get(name, name)
        what = f"{kind}:{name}" if name else kind
        result.append(Supervision(what, entry["state"], since(entry["at"]) or 0.0))
        if entry["until"] is not None and entry["state"] == "lost":
            result.append(Supervision(what, "back", since(entry["until"]) or 0.0))
    return sorted((entry for entry in result if entry.at >= 0), key=lambda entry: entry.at)
