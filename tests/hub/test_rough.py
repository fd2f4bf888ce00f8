"""Rough neighbours of a whole hub: an air full of strangers, a broker that takes everything and passes nothing on."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from neighbours import until
from pocket import Badge, Pocket, free_of_errors, pocket
from pocket_hub import ADVERT

from protocol import ident, kinds

STRANGERS_PER_S = 1000
FLOOD_S = 6.0


def processor_s(pid: int) -> float:
    """What a process has used so far, seconds of one processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """What a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


async def flood(chain: Pocket) -> tuple[int, float]:
    """Strangers advertise what looks like a beacon, each time another one; how many, and what they cost the hub."""
    began, sent, used = time.monotonic(), 0, processor_s(chain.pid)
    while sent < STRANGERS_PER_S * FLOOD_S:
        while sent < min(time.monotonic() - began, FLOOD_S) * STRANGERS_PER_S:
            sent += 1
            chain._tell(ADVERT, 1_000_000 + sent % 5000, os.urandom(24))
        await asyncio.sleep(0.01)
    return sent, processor_s(chain.pid) - used


async def reaches(chain: Pocket, badge: Badge, name: bytes, seconds: float) -> float:
    """How long until the station has an event; fails after so many seconds."""
    began = time.monotonic()
    await until(lambda: chain.has(badge, name), seconds, "the alarm")
    return time.monotonic() - began


def test_a_thousand_strangers_a_second_cost_a_running_hub_little_and_harm_no_alarm(tmp_path: Path) -> None:
    async def story() -> None:
        async with pocket(tmp_path, 2) as chain:
            connected, beaconing = chain.badges
            await chain.settled()
            held = memory_mb(chain.pid)
            strangers = asyncio.create_task(flood(chain))
            took = []
            for _ in range(3):
                await asyncio.sleep(1.0)
                took.append(await reaches(chain, connected, connected.raise_event(kinds.SOS), 10))
                # nobody tells this one in a session: it is heard among the strangers or not at all
                beaconing.seq += 1
                beaconing.kind = kinds.SOS
                name = ident.pack(beaconing.boot, beaconing.seq)
                beaconing.alarm = name
                took.append(await reaches(chain, beaconing, name, 10))
                await until(lambda name=name: name in beaconing.receipted)  # type: ignore[misc]
            sent, spent = await strangers
            for badge in chain.badges:
                badge.kind = kinds.STATUS

            def all_heard(status: dict[str, Any]) -> bool:
                counters = status["counters"]
                return bool(status["queue"] == 0 and counters["unrouted"] + counters.get("too_many", 0) >= sent * 0.9)

            status = await chain.until_status(all_heard, "all heard, and an empty queue")
            # one in 65,536 passes the check by which beacons are routed; the station's seal is what they all lack
            assert {"1", "2"} <= status["badges"].keys()
            assert len(status["badges"]) <= 5
            assert spent < FLOOD_S * 0.5, f"{spent:.1f} s of a processor in {FLOOD_S:g} s"
            assert memory_mb(chain.pid) - held < 20
            print(
                f"{sent} strangers: {1e6 * spent / sent:.0f} us each at most, alarms {sorted(took)[-1]:.2f} s at most"
            )

    asyncio.run(story())
    assert free_of_errors(tmp_path / "hub.log") == []


class Hole:
    """A broker (MQTT 5) that signs everybody in, acknowledges everything, and passes nothing on."""

    def __init__(self) -> None:
        self.port = 0
        self.taken = 0
        self.mute = False  # no PUBACK either
        self._server: asyncio.Server | None = None

    async def open(self) -> Hole:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        """Take no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readexactly(1))[0]
                length, shift, more = 0, 0, True
                while more:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 127) << shift
                    shift, more = shift + 7, bool(byte & 128)
                writer.write(self._answer(head, await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, head: int, body: bytes) -> bytes:
        kind = head >> 4
        if kind == 1:  # CONNECT
            return bytes((0x20, 3, 0, 0, 0))
        if kind == 8:  # SUBSCRIBE: three topics are asked for
            return bytes((0x90, 6)) + body[:2] + bytes((0, 1, 1, 1))
        if kind == 12:  # PINGREQ
            return bytes((0xD0, 0))
        if kind == 3 and head >> 1 & 3:  # PUBLISH that wants to be acknowledged
            self.taken += 1
            if self.mute:
                return b""
            at = 2 + int.from_bytes(body[:2], "big")
            return bytes((0x40, 2)) + body[at : at + 2]
        return b""


def test_a_broker_that_takes_everything_and_passes_nothing_on_is_seen_through_and_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        hole = await Hole().open()
        async with pocket(tmp_path, 1) as chain:
            (badge,) = chain.badges
            await chain.settled()
            chain.gate.close()
            chain.gate.to, chain.gate.open = hole.port, True
            await chain.until_status(lambda s: s["broker"]["connected"], "the broker that is none")
            alarm = badge.raise_event(kinds.SOS)
            note = badge.raise_event(kinds.BATTERY)
            await until(lambda: {alarm, note} <= badge.held, what="held on the hub's disk")
            await until(lambda: hole.taken >= 3, what="the hole's PUBACKs")
            # nobody is told that help knows, and the hub does not believe in a station that says nothing
            status = await chain.until_status(lambda s: not s["station_answers"], "no proof of the station")
            assert status["queue"] == 2
            assert not badge.receipted
            assert not chain.has(badge, alarm)
            chain.gate.close()
            chain.gate.to, chain.gate.open = chain.broker_port, True
            await until(lambda: {alarm, note} <= badge.receipted, what="both at the station")
            tally = await chain.settled()
            assert tally.clean, str(tally)
        hole.close()

    asyncio.run(story())
    assert free_of_errors(tmp_path / "hub.log") == []


def test_a_broker_that_answers_pings_and_takes_nothing_is_left_before_it_holds_every_alarm_up(tmp_path: Path) -> None:
    async def story() -> None:
        hole = await Hole().open()
        hole.mute = True
        async with pocket(tmp_path, 1) as chain:
            (badge,) = chain.badges
            await chain.settled()
            chain.gate.close()
            chain.gate.to, chain.gate.open = hole.port, True
            await chain.until_status(lambda s: s["broker"]["connections"] == 2, "the broker that is none")
            alarm = badge.raise_event(kinds.SOS)
            await until(lambda: hole.taken >= 2, what="sent")
            chain.gate.to = chain.broker_port  # for the next connection; this one lives
            chain.move_clock(20)
            await asyncio.sleep(0.3)
            assert (await chain.status())["broker"]["connections"] == 2, "a slow one is given its time"
            chain.move_clock(11)
            await until(lambda: alarm in badge.receipted, 10, "an answer on a new connection")
            assert (await chain.settled()).clean
        hole.close()

    asyncio.run(story())
    assert free_of_errors(tmp_path / "hub.log") == []
