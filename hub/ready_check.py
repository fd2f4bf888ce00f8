"""The check before leaving (B10): is everything that an alarm needs there? `tocsin-hub ready` asks the running hub.

The same findings go to the station with every self-test of a badge, as facts of the hub. Those that are grave, by which
an alarm might not get through, the wearer feels: the self-test is then not passed, although its answer came back.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import control
from hub.config import Config

HUB_BATTERY = 30  # percent: an afternoon; below it the hub is to be charged before it leaves
BADGE_BATTERY = 20  # percent: where the badge itself warns
SIGNAL_DBM = -85  # weaker, and a door in between may be too much
CERTIFICATE_DAYS = 2  # doctor warns weeks before; now it is a matter of the next visit


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `what` in a word or two; `text` says how it is, and what to do where it is not.

    `grave`: where it is not good, an alarm might not get through. What is left is less help: a place that is not
    known, a second path that does not work. And a test that is answered has itself shown that the station answers.
    """

    what: str
    good: bool
    text: str
    grave: bool = False


def add_command(commands: Any) -> None:
    """Put it into a command line."""
    command = commands.add_parser("ready", help="before leaving: is everything there that an alarm needs?")
    command.add_argument("--config", required=True, metavar="FILE", help="configuration (TOML)", type=Path)
    command.add_argument("--badge", type=int, action="append", metavar="N", help="this badge; else all enrolled ones")
    command.add_argument("--json", action="store_true", help="as JSON")


def run(settings: Config, args: argparse.Namespace) -> int:
    """Exit status: 0 ready, 1 not."""
    try:
        status = control.ask(settings.dir / "hub.sock")
    except control.NoHub as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 1
    findings = look(status, args.badge)
    if args.json:
        print(json.dumps([{"what": f.what, "ready": f.good, "text": f.text} for f in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.good else 'NOT'} {finding.what}: {finding.text}")
        print("ready to leave" if all(f.good for f in findings) else "NOT ready to leave")
    return 0 if all(f.good for f in findings) else 1


def look(status: dict[str, Any], badges: list[int] | None = None) -> list[Finding]:
    """Everything that B10 names, in a status of hub.health."""
    return [*_hub(status), *_badges(status, badges)]


def _hub(status: dict[str, Any]) -> list[Finding]:
    percent, mains = status.get("battery"), status.get("mains")
    if mains:
        power = Finding("hub battery", True, "on mains" + ("" if percent is None else f", {percent} %"))
    elif percent is None:
        power = Finding("hub battery", True, "none that the machine tells of: it has to stay on mains")
    else:
        low = "" if percent >= HUB_BATTERY else f"; charge it to {HUB_BATTERY} % at least"
        power = Finding("hub battery", percent >= HUB_BATTERY, f"{percent} %{low}", grave=True)
    broker = status.get("broker", {})
    station = bool(status.get("station_answers"))
    if station:
        answer = "answers"
    elif broker.get("connected"):
        answer = "does not answer, though the broker is reached: ask the station"
    else:
        answer = f"not reached: {broker.get('problem') or 'no broker'}; check the hub's network"
    clock = bool(status.get("clock_synchronised"))
    known = bool(status.get("place_known"))
    location = status.get("location_problem") or "no fix: wait under the open sky, or give the venue as fixed"
    days = status.get("certificate_days")
    disk = str(status.get("disk", "unknown"))
    radio = str(status.get("radio", "unknown"))
    findings = [
        power,
        Finding("station", station, answer),
        Finding("waiting", not status.get("queue"), f"{status.get('queue', 0)} events wait for the station"),
        Finding(
            "clock",
            clock,
            "synchronised" if clock else "not synchronised: give the hub a network for some minutes",
            grave=days is not None,  # a wrong one refuses the broker's certificate
        ),
        Finding("place", known, "known" if known else location),
        Finding("disk", disk.startswith("ok"), disk, grave=True),
        # with one adapter of several in trouble the others carry everything
        Finding("radio", radio == "ok", radio, grave=not status.get("radio_usable")),
    ]
    if days is not None:
        ends = "ends today" if days < 1 else f"good for another {days} days"
        renew = "" if days >= CERTIFICATE_DAYS else ": renew it (tocsin-hub identity request)"
        findings.append(Finding("certificate", days >= CERTIFICATE_DAYS, ends + renew, grave=True))
    second = status.get("second_path")
    if isinstance(second, dict):
        findings.append(Finding("text messages", bool(second.get("ok")), str(second.get("state"))))
    return findings


def _badges(status: dict[str, Any], wanted: list[int] | None) -> list[Finding]:
    entries = status.get("badges", {})
    numbers = wanted or [int(n) for n, entry in entries.items() if entry.get("enrolled")]
    if not numbers:
        return [Finding("badge", False, "none is enrolled here: switch the badge on beside the hub")]
    findings = []
    for number in numbers:
        entry, what = entries.get(str(number), {}), f"badge {number}"
        if entry.get("state") != "established":
            findings.append(
                Finding(what, False, "not connected: is it switched on, beside the hub, and enrolled here?")
            )
            continue
        battery, rssi = entry.get("battery"), entry.get("rssi")
        if battery is not None and battery < BADGE_BATTERY:
            findings.append(Finding(what, False, f"battery at {battery} %: charge it", grave=True))
        elif rssi is not None and rssi < SIGNAL_DBM:
            findings.append(Finding(what, False, f"weak signal ({rssi} dBm): bring the hub nearer", grave=True))
        else:
            charge = "battery not told yet" if battery is None else f"battery {battery} %"
            findings.append(Finding(what, True, f"connected, {charge}, signal {rssi} dBm"))
    return findings
