"""Every figure that is promised, measured on this machine, as one JSON object on standard output.

    make bench                         all of it, some minutes
    python -m bench --alarms 20        quicker, with worse tails
    python -m bench --only connected   one part

The radio is emulated, with a connection interval of 30 ms. What is said of hardware is an estimate.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import barest, browser, chain, duty, latch, peak, sound, speech
from drill.processes import DidNotStart
from drill.report import percentile
from drill.scenario import LinkFault
from firmware.emulator.heap import LIMIT

Figures = dict[str, Any]
BADGES = 2
BAREST = 200


def figure(value: float, target: float, unit: str, at_least: bool = False) -> Figures:
    """A measured value beside what was promised."""
    met = value >= target if at_least else value <= target
    return {"measured": value, "target": target, "unit": unit, "met": met}


def machine() -> Figures:
    """What this was measured on."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "note": "badge, hub, broker, station and browser share these cores; the radio is emulated",
    }


async def connected(count: int) -> Figures:
    """Press to station and browser over a standing connection, and the same air and broker with the barest chain."""
    async with chain.standing(chain.scenario(BADGES, operators=2)) as play:
        stage = play.stage
        painted: dict[int, float] = {}
        if browser.executable() is None:
            await chain.alarms(play, count // BADGES)
        else:
            # a colleague's console: op2 only looks
            await stage.operators["op2"].die()
            async with browser.Console(stage.console, "op2", stage.password) as console:
                await chain.alarms(play, count // BADGES)
                painted = await console.painted()
        found, lost, twice = await chain.trips(play)
        bare = await barest.measure(stage.port("air"), stage.port("broker"), BAREST)
        unix = play.unix_zero
    committed = [trip.committed - trip.pressed for trip in found]
    if painted:
        shown = [painted[trip.alarm] - unix - trip.pressed for trip in found if trip.alarm in painted]
    else:
        shown = [trip.shown - trip.pressed for trip in found if trip.shown is not None]
    took = chain.milliseconds(committed)
    bare_took = chain.milliseconds([trip.received - trip.sent for trip in bare])
    held = [trip.held - trip.raised for trip in found if trip.held is not None]
    return {
        "alarms": len(found),
        "lost": lost,
        "twice": twice,
        "via": {via: sum(trip.via == via for trip in found) for via in sorted({trip.via for trip in found})},
        "press_to_committed": took,
        "press_to_committed_p50": figure(took["p50"], 120, "ms"),
        "press_to_committed_p99": figure(took["p99"], 400, "ms"),
        "press_to_shown": chain.milliseconds(shown),
        "press_to_shown_p99": figure(chain.milliseconds(shown)["p99"], 1000, "ms"),
        "shown_in": "Chromium" if painted else "an event stream client (no Chromium on this machine)",
        "shown_of": len(shown),
        "barest_chain": {
            "what": "advertisement heard by bleak, published by paho, received by paho; same air, same broker",
            **bare_took,
            "ratio_p50": round(took["p50"] / bare_took["p50"], 1),
            "ratio_p99": round(took["p99"] / bare_took["p99"], 1),
            "where_the_time_goes_p50_ms": {
                "barest: advertisement to bleak": _p50([trip.heard - trip.sent for trip in bare]),
                "barest: paho, broker, paho": _p50([trip.received - trip.heard for trip in bare]),
                "press recognised by the firmware": _p50([trip.raised - trip.pressed for trip in found]),
                "firmware to committed at the station": _p50([trip.committed - trip.raised for trip in found]),
                "committed to an event stream": _p50([t.shown - t.committed for t in found if t.shown is not None]),
                "firmware to the hub's word that it is on its disk": _p50(held),
            },
        },
    }


def _p50(values: list[float]) -> float:
    return round(1000 * percentile(values, 0.5), 1)


async def beacon(count: int) -> Figures:
    """Press to station when connections are refused and only the beacon gets through."""
    faults = tuple(LinkFault(0.0, None, f"b{n}", "bag", {"connect": False}) for n in range(1, BADGES + 1))
    async with chain.standing(chain.scenario(BADGES, faults, 2)) as play:
        await chain.alarms(play, count // BADGES)
        found, lost, twice = await chain.trips(play)
    took = chain.milliseconds([trip.committed - trip.pressed for trip in found])
    return {
        "alarms": len(found),
        "lost": lost,
        "twice": twice,
        "via": {via: sum(trip.via == via for trip in found) for via in sorted({trip.via for trip in found})},
        "press_to_committed": took,
        "press_to_committed_p99": figure(took["p99"], 1000, "ms"),
    }


async def lossy(count: int) -> Figures:
    """The same with three packets in ten lost in the air."""
    faults = tuple(LinkFault(0.0, None, f"b{n}", "bag", {"loss": 0.3}) for n in range(1, BADGES + 1))
    async with chain.standing(chain.scenario(BADGES, faults, 3)) as play:
        await chain.alarms(play, count // BADGES)
        found, lost, twice = await chain.trips(play)
    took = chain.milliseconds([trip.committed - trip.pressed for trip in found])
    return {
        "alarms": len(found),
        "lost": figure(lost, 0, "alarms"),
        "twice": figure(twice, 0, "alarms"),
        "press_to_committed": took,
        "press_to_committed_p99": figure(took["p99"], 3000, "ms"),
    }


async def speaking(_count: int) -> Figures:
    """Live and archived sound, and the archive after ten seconds without radio."""
    clean, gap = await sound.measure(gap=False), await sound.measure(gap=True)
    late = {name: round(percentile(clean.late_ms, share), 1) for name, share in (("p50", 0.5), ("p95", 0.95))}
    return {
        "mouth_to_ear": late,
        "mouth_to_ear_p95": figure(late["p95"], 700, "ms"),
        "ear": "arrival of the first sample of each message at a listening client; a browser's buffer comes on top",
        "archive_stoi": figure(round(clean.stoi, 3), 0.9, "STOI", at_least=True),
        "archive_gaps": figure(clean.gaps, 0, "gaps"),
        "after_10_s_gap": {
            "seconds_captured": round(gap.captured_s, 2),
            "seconds_archived": round(gap.archived_s, 2),
            "gaps": figure(gap.gaps, 0, "gaps"),
            "stoi": round(gap.stoi, 3),
        },
    }


async def processor(_count: int) -> Figures:
    """What a second of speech costs the badge's processor."""
    cost = speech.measure()
    return {**cost, "share": figure(float(str(cost["percent_of_a_second"])), 10, "% of a second")}


async def latched(count: int) -> Figures:
    """How soon the badge transmits what the hand wants."""
    took = await latch.measure(count // 4)
    return {
        **took,
        "on_duty_p99": figure(took["on_duty"]["p99"], latch.ON_DUTY_MS, "ms"),
        "out_of_deep_sleep_max": figure(took["out_of_deep_sleep_from_the_press"]["max"], latch.WOKEN_MS, "ms"),
    }


async def worst(_count: int) -> Figures:
    """The most memory that the badge's objects take at once."""
    found = await peak.measure()
    return {
        **found,
        "peak": figure(found["peak"], LIMIT, "bytes of a 64-bit heap, of which 160 KiB stand for 80 KB on the badge"),
        "faults": figure(found["faults"], 0, "faults said by the badge"),
        "resets": figure(found["resets"], 0, "resets of the badge"),
    }


PARTS: dict[str, Callable[[int], Awaitable[Figures]]] = {
    "connected": connected,
    "beacon_alone": beacon,
    "loss_30_percent": lossy,
    "sound": speaking,
    "badge_latch": latched,
    "badge_processor": processor,
    "badge_peak": worst,
}


MEMORY = "badge_memory"


async def measure(names: list[str], count: int, minutes: float) -> Figures:
    """The parts named, in order; `count` alarms for a figure, `minutes` of duty for the badge's memory."""
    result: Figures = {"machine": machine()}
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        result[name] = await (duty.measure(minutes) if name == MEMORY else PARTS[name](count))
    result["all_met"] = all(_met(result[name]) for name in names)
    return result


def _met(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("met", True) is True and all(_met(entry) for entry in value.values())
    return True


def main() -> int:
    """Exit status: 0 every figure was met, 1 one was not, 3 a part did not start."""
    names = [*PARTS, MEMORY]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--alarms", type=int, default=200, metavar="N", help="how many for each figure (default 200)")
    parser.add_argument("--only", action="append", choices=names, help="one part; may be given several times")
    parser.add_argument("--duty", type=float, default=5.0, metavar="MINUTES", help="of duty for the badge's memory")
    arguments = parser.parse_args()
    if arguments.alarms < BADGES:
        parser.error(f"--alarms must be at least {BADGES}")
    try:
        result = asyncio.run(measure(arguments.only or names, arguments.alarms, arguments.duty))
    except DidNotStart as error:
        print(error, file=sys.stderr)
        return 3
    print(json.dumps(result, indent=1))
    return 0 if result["all_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
