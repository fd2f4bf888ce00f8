"""The hub's own figures: how fast an event passes, how an alarm fares among sound and after an outage.

    python -m bench.hub                 all of it, about a minute
    python -m bench.hub --only drain

The hub is the real one with its real outbox, on a real broker and with the real station; its radio is a Unix socket,
on which badges speak the real protocol, so that what is measured is the hub and not an emulated connection interval.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "hub"))

from light_station import LightStation
from neighbours import until
from pocket import Pocket, pocket

from drill.report import percentile
from protocol import kinds

Figures = dict[str, Any]
BADGES = 20
PACKET_S = 0.025  # 40 packets a second
STREAM_S = 12.0
DRAINED = 1000


def figure(value: float, target: float, unit: str) -> Figures:
    """A measured value beside what was promised."""
    return {"measured": value, "target": target, "unit": unit, "met": value <= target}


def _ms(values: list[float]) -> Figures:
    return {f"p{share}": round(1000 * percentile(values, share / 100), 2) for share in (50, 99)} | {
        "max": round(1000 * max(values), 2)
    }


async def passing(count: int) -> Figures:
    """Notification received to PUBACK, and to the row on disk; the same by paho alone, in the same run."""
    with tempfile.TemporaryDirectory() as folder:
        async with pocket(Path(folder), 1) as chain:
            badge = chain.badges[0]
            badge.resends = False
            trace = Path(folder) / "trace"
            await chain.kill()
            await chain.start_hub(trace=str(trace))
            await until(lambda: badge.established, 10)
            for _ in range(count):
                name = badge.raise_event(
                    kinds.BATTERY
                )  # an alarm passes in the same way; its handling is not asked for
                await until(lambda name=name: name in badge.receipted, 10)  # type: ignore[misc]
            await chain.kill()
            bare = await _bare(chain, count)
        passed: list[float] = []
        committed: list[float] = []
        times: dict[str, dict[str, float]] = {}
        for line in trace.read_text().splitlines():
            what, event, at = line.split()
            times.setdefault(event, {}).setdefault(what, float(at))
        for one in times.values():
            if {"heard", "puback", "stored"} <= set(one):
                passed.append(max(one["puback"], one["stored"]) - one["heard"])
                committed.append(one["stored"] - one["heard"])
    took, plain = _ms(passed), _ms(bare)
    return {
        "events": len(passed),
        "notification_to_puback_and_commit": took,
        "notification_to_commit": _ms(committed),
        "p99": figure(took["p99"], 30, "ms"),
        "bare_paho": plain,
        "ratio_p50": round(took["p50"] / plain["p50"], 1),
        "ratio_p99": round(took["p99"] / plain["p99"], 1),
    }


async def _bare(chain: Pocket, count: int) -> list[float]:
    """A socket read, a publish, a PUBACK: the least that a relay could do, in a process of its own."""
    path, took = chain.folder / "bare", chain.folder / "bare.json"
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(count):
            writer.write(bytes(240))
            await reader.readexactly(1)
        writer.close()
        done.set()

    server = await asyncio.start_unix_server(serve, str(path))
    script = str(Path(__file__).with_name("hub_bare.py"))
    process = await asyncio.create_subprocess_exec(sys.executable, script, str(path), str(chain.broker_port), str(took))
    async with asyncio.timeout(60):
        await done.wait()
    await process.wait()
    server.close()
    values: list[float] = json.loads(took.read_text())
    return values


def _usage(pid: int) -> tuple[float, float]:
    """Processor seconds so far, and resident megabytes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return (int(fields[11]) + int(fields[12])) / ticks, pages * os.sysconf("SC_PAGESIZE") / 1e6


async def streaming(_count: int) -> Figures:
    """Twenty badges speak into one hub at once, and each raises alarms: how late is the latest at the station?"""
    with tempfile.TemporaryDirectory() as folder:
        async with pocket(Path(folder), BADGES) as chain:
            light = LightStation(chain)
            for badge in chain.badges:
                badge.resends = False
            before, _ = _usage(chain.pid)
            began = time.monotonic()
            spoken = alarms = 0
            raised: dict[tuple[int, bytes], float] = {}
            while (now := time.monotonic()) - began < STREAM_S:
                while spoken < (now - began) / PACKET_S:
                    for badge in chain.badges:
                        badge.speak(1, spoken)
                    spoken += 1
                if now - began > (alarms + 1) * STREAM_S / (BADGES * 2 + 2) and alarms < BADGES * 2:
                    badge = chain.badges[alarms % BADGES]
                    at = time.monotonic()
                    raised[(badge.number, badge.raise_event(kinds.SOS))] = at
                    badge.kind = kinds.STATUS
                    alarms += 1
                await asyncio.sleep(0.002)
            spent, memory = _usage(chain.pid)
            seconds = time.monotonic() - began
            await until(lambda: raised.keys() <= light.events.keys(), 10, "the alarms")
            await until(lambda: len(light.sounds) >= spoken * BADGES, 30, "the sound")
            late = [light.events[key] - at for key, at in raised.items()]
            light.restore()
    return {
        "badges": BADGES,
        "packets_a_second": round(spoken * BADGES / seconds),
        "alarms": alarms,
        "press_to_station": _ms(late),
        "latest_alarm": figure(_ms(late)["max"], 200, "ms"),
        "processor_percent_of_one_core": round(100 * (spent - before) / seconds, 1),
        "memory_mb": round(memory, 1),
    }


async def _arrived(there: Callable[[], int], wanted: int) -> None:
    """Until the station has so many events; looked at seldom, so that looking costs it nothing."""
    end = time.monotonic() + 90
    while there() < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{there()} of {wanted} events after a minute and a half")
        await asyncio.sleep(0.05)


async def drain(_count: int) -> Figures:
    """A thousand events after an outage, an alarm raised meanwhile; a station that only counts, and the real one."""
    counting, real = await _drain(light=True), await _drain(light=False)
    return {
        "events": DRAINED,
        "counting_station": counting,
        "real_station": real,
        "drained": figure(real["seconds"], 5, "s"),
        "alarm": figure(real["alarm_raised_meanwhile_s"], 1, "s"),
        "not_overtaken": figure(DRAINED - real["events_that_the_alarm_overtook"], DRAINED // 10, "events"),
    }


async def _drain(light: bool) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        async with pocket(Path(folder), 2) as chain:
            first, other = chain.badges
            counting = LightStation(chain) if light else None
            chain.gate.close()
            while len(first.raised) < DRAINED:
                for _ in range(40):
                    first.raise_event(kinds.BATTERY)
                await until(lambda: not first.unheld, 30, "held")

            def there() -> int:
                return len(counting.events) if counting else chain.events_at_station()

            def has(name: bytes) -> bool:
                return (other.number, name) in counting.events if counting else chain.has(other, name)

            before = there()
            chain.gate.open = True
            opened = time.monotonic()
            await _arrived(there, before + 1)
            reached = time.monotonic()
            alarm = other.raise_event(kinds.SOS)
            raised = time.monotonic()
            await until(lambda: has(alarm), 20, "the alarm")
            alarm_s = time.monotonic() - raised
            left = before + DRAINED + 1 - there()
            await _arrived(there, before + DRAINED + 1)
            seconds = time.monotonic() - reached
            if counting:
                counting.restore()
    return {
        "seconds": round(seconds, 2),
        "from_the_network_back_to_the_first_event_s": round(reached - opened, 2),
        "alarm_raised_meanwhile_s": round(alarm_s, 3),
        "events_that_the_alarm_overtook": left,
    }


PARTS: dict[str, Callable[[int], Awaitable[Figures]]] = {"passing": passing, "streaming": streaming, "drain": drain}


def _met(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("met", True) is True and all(_met(entry) for entry in value.values())
    return True


async def measure(names: list[str], count: int) -> Figures:
    """The parts named, in order."""
    result: Figures = {}
    for name in names:
        print(f"measuring hub {name} ...", file=sys.stderr, flush=True)
        result[name] = await PARTS[name](count)
    return result


def main() -> int:
    """Exit status: 0 every figure was met, 1 one was not."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub", description="The hub's figures.")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part; may be given several times")
    parser.add_argument("--events", type=int, default=300, metavar="N", help="how many events pass (default 300)")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments.only or list(PARTS), arguments.events))
    result["all_met"] = _met(result)
    print(json.dumps(result, indent=1))
    return 0 if result["all_met"] else 1


if __name__ == "__main__":
    sys.exit(main())
