"""From what the parts said and what the station knows to the report."""

import wave
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx

from drill.operator import SAMPLE_RATE, Heard
from drill.play import Play
from drill.processes import DidNotStart
from drill.report import Alarm, Audio, Haptic, Problem, Report, SelfTest, Supervision, Visit, percentile
from drill.scenario import ALARM_KINDS
from drill.stage import Stage
from firmware.badge.settings import TABLE as SETTINGS
from protocol import ident

# how long after the threshold of a hold the firmware may take to say that it has raised the alarm, and how much
# earlier (its clock ticks in milliseconds and it samples the button every 10 to 20)
HOLD_LATE_S, HOLD_EARLY_S = 0.5, 0.1


@dataclass
class Raised:
    """An alarm that a badge's serial console reported: on CLOCK_MONOTONIC, with its identity as text."""

    badge: str
    kind: str
    identity: str
    at: float
    held_at: float | None = None


@dataclass
class Taken:
    """A capture of a badge's microphone: the instant of its first sample and how many samples were taken."""

    badge: str
    boot: int
    capture: int
    started: float
    samples: int = 0


@dataclass
class Told:
    """What all badges said, in the terms of the report."""

    raised: dict[str, Raised] = field(default_factory=dict)
    captures: list[Taken] = field(default_factory=list)
    haptics: list[tuple[str, float, str]] = field(default_factory=list)


def told(play: Play) -> Told:
    """Reads the events of all badges."""
    result = Told()
    for badge, client in play.stage.badges.items():
        boot = 0
        for event in client.events:
            at = float(event["at"])
            if event["type"] == "haptic":
                result.haptics.append((badge, at, str(event["pattern"])))
            elif event["type"] == "trace":
                fields = event.get("fields", event)
                if event["name"] in ("raised", "held") and "ident" in fields:
                    identity = ident.text(client.number, bytes.fromhex(fields["ident"]))
                    if event["name"] == "raised" and fields["kind"] in ALARM_KINDS:
                        raised = Raised(badge, fields["kind"], identity, at)
                        result.raised.setdefault(identity, raised)
                    elif identity in result.raised and result.raised[identity].held_at is None:
                        result.raised[identity].held_at = at
                elif event["name"] == "booted":
                    boot = int(fields.get("boot", boot))
            elif event["type"] == "capture":
                number = int(event["capture"])
                if event["state"] == "start":
                    result.captures.append(Taken(badge, int(event.get("boot", boot)), number, at))
                elif result.captures and result.captures[-1].badge == badge:
                    result.captures[-1].samples = int(event["samples"])
    return result


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
        tests = (await stage.station.json("/api/tests"))["tests"]
        supervision = (await stage.station.json("/api/supervision"))["supervision"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        stage.complain("station", f"could not be asked at the end: {type(error).__name__}: {error}")
        alarms, visits, tests, supervision = [], [], [], []
    names = {client.number: badge for badge, client in stage.badges.items()}
    news = told(play)
    for alarm in sorted(alarms, key=lambda entry: entry["received_at"]):
        report.alarms.append(_alarm(alarm, play, news, names, visits, since))
    known = {alarm["identity"] for alarm in alarms}
    known |= {signal["identity"] for alarm in alarms for signal in alarm["signals"]}
    for raised in news.raised.values():
        if raised.identity not in known:
            lost = Alarm(raised.badge, raised.kind, raised.identity, raised.identity.replace("/", "-"))
            lost.pressed_at = _pressed(play, raised) - zero
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
                overdue_at=since(visit["overdue_at"]),
                ended_at=since(visit["ended_at"]),
            )
        )
    for test in tests:
        at = since(test["at"])
        report.tests.append(
            SelfTest(names.get(test["badge"], str(test["badge"])), at or 0.0, bool(test["passed"]), test["seconds"])
        )
    report.supervision = _supervision(stage, supervision, names, since)
    for trouble in stage.troubles:
        report.errors.append(Problem(trouble.at - zero, trouble.part, trouble.text))
    return report


def _alarm(alarm: dict[str, Any], play: Play, news: Told, names: dict[int, str], visits: Any, since: Any) -> Alarm:
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
    if raised is not None:
        entry.pressed_at = _pressed(play, raised) - play.zero
        entry.hub_held_at = None if raised.held_at is None else raised.held_at - play.zero
    elif alarm["kind"] == "missed_check_in":
        for visit in visits:
            if visit["alarm"] == alarm["id"] and visit["due_at"] is not None:
                entry.pressed_at = since(visit["due_at"] + 60 * visit["grace"])
    seen = [op.seen[alarm["id"]].first for op in play.stage.operators.values() if alarm["id"] in op.seen]
    entry.operator_seen_at = min(seen) - play.zero if seen else None
    heard = [sound.at for op in play.stage.operators.values() for sound in op.heard if sound.alarm == alarm["id"]]
    entry.listening_at = min(heard) - play.zero if heard else None
    return entry


def _pressed(play: Play, raised: Raised) -> float:
    """When the gesture was complete: for a hold by the hand and the threshold, not by what the firmware says of it."""
    badge = next(badge for badge in play.scenario.badges if badge.id == raised.badge)
    threshold = float(badge.settings.get("hold_to_sos", SETTINGS["hold_to_sos"][2]))  # type: ignore[arg-type]
    holds = [done for done in play.done if (done.step.badge, done.step.do) == (raised.badge, "hold")]
    for done in holds if raised.kind == "sos" else []:
        complete = done.at + threshold
        if -HOLD_EARLY_S <= raised.at - complete <= HOLD_LATE_S:
            return complete
    return raised.at


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
        boot = int(alarm["identity"].split("/")[1]) if alarm["identity"].count("/") == 2 else 0
        heard = [s for op in play.stage.operators.values() for s in op.heard if s.alarm == alarm["id"]]
        captures = [c for c in news.captures if c.badge == badge]
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
        del boot
        result.append(entry)
    return result


def mouth_to_ear(heard: list[Heard], captures: list[Taken]) -> list[float]:
    """Milliseconds from the microphone to the listener, of the first sample of each message of live sound."""
    starts = {(capture.boot, capture.capture): capture.started for capture in captures}
    return [
        1000 * (sound.at - starts[sound.boot, sound.capture] - sound.position / SAMPLE_RATE)
        for sound in heard
        if sound.live and (sound.boot, sound.capture) in starts
    ]


async def _wav(stage: Stage, alarm: int, keep: Path, name: str) -> str | None:
    try:
        reply = await stage.station.get(f"/alarms/{alarm}/audio.wav")
        with wave.open(BytesIO(reply.content), "rb") as sound:
            if not sound.getnframes():
                return None
    except (httpx.HTTPError, wave.Error, EOFError) as error:
        stage.complain("station", f"the archived sound of alarm {alarm} cannot be had: {error}")
        return None
    file = keep / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(reply.content)
    return name


def _supervision(stage: Stage, entries: list[dict[str, Any]], names: dict[int, str], since: Any) -> list[Supervision]:
    result = []
    for entry in entries:
        kind, _, name = entry["what"].partition(":")
        name = names.get(int(name), name) if kind == "badge" else stage.hub_ids.get(name, name)
        result.append(Supervision(f"{kind}:{name}", entry["state"], since(entry["at"]) or 0.0))
        if entry["until"] is not None and entry["state"] == "lost":
            result.append(Supervision(f"{kind}:{name}", "back", since(entry["until"]) or 0.0))
    return sorted((entry for entry in result if entry.at >= 0), key=lambda entry: entry.at)
