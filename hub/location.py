"""Where the hub is: a fixed place, or a GPS by NMEA 0183 or gpsd. A fix carries its age and its source.

Positions live in memory only, and leave it only in the facts of an event; they are never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import gpsd
from hub.serialport import open_port

logger = logging.getLogger("hub.location")

SENTENCE_MAX = 120  # the standard allows 82; receivers with more digits go beyond
REPLAY_MAX = 10_000_000  # bytes of a file that are replayed
READ_S = 0.5
SILENT_S = 5.0  # receivers report once a second
NOISE = 20  # lines that are none, until somebody is told
RETRY_S = 5.0  # until a receiver that was unplugged is looked for again
HDOP_METRES = 5.0  # a receiver's usual error is about 5 m for each unit of dilution
STALE_MS = 10 * 60_000  # an older fix says where the hub was, not where it is: left out


@dataclass(frozen=True)
class Fix:
    """A place in degrees (WGS 84), its error in metres if known, when it was fixed, and what says so."""

    latitude: float
    longitude: float
    accuracy_m: float | None
    at_ms: int
    source: str


class Nmea:
    """Reads a stream of NMEA sentences; whatever is not one, or has a wrong checksum, is counted and dropped."""

    def __init__(self) -> None:
        self.dropped = 0
        self.understood = 0  # sentences with a right checksum
        self._buffer = bytearray()
        self._accuracy: float | None = None

    def feed(self, data: bytes, now_ms: int) -> Fix | None:
        """The newest fix that these bytes complete."""
        self._buffer += data
        newest = None
        while b"\n" in self._buffer:
            line, _, rest = self._buffer.partition(b"\n")
            self._buffer = bytearray(rest)
            newest = self.sentence(bytes(line), now_ms) or newest
        if len(self._buffer) > SENTENCE_MAX:
            self._buffer.clear()
            self.dropped += 1
        return newest

    def sentence(self, line: bytes, now_ms: int) -> Fix | None:
        """The fix that one sentence gives; None for one without."""
        line = line.strip()
        if not line:
            return None
        fields = _checked(line)
        if fields is None:
            self.dropped += 1
            return None
        self.understood += 1
        kind = fields[0][-3:]
        try:
            if kind == "GGA" and len(fields) >= 10:
                if fields[6] in ("", "0"):
                    self._accuracy = None
                    return None
                self._accuracy = round(float(fields[8]) * HDOP_METRES, 1) if fields[8] else None
                latitude, longitude = _degrees(fields[2], fields[3]), _degrees(fields[4], fields[5])
            elif kind == "RMC" and len(fields) >= 10:
                if fields[2] != "A":
                    return None
                latitude, longitude = _degrees(fields[3], fields[4]), _degrees(fields[5], fields[6])
            else:
                return None
        except ValueError:
            self.dropped += 1
            return None
        if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
            self.dropped += 1
            return None
        return Fix(latitude, longitude, self._accuracy, now_ms, "nmea")


def _checked(line: bytes) -> list[str] | None:
    """The fields of a sentence whose checksum is right, else None."""
    if len(line) > SENTENCE_MAX or not line.startswith(b"$") or line[-3:-2] != b"*":
        return None
    body = line[1:-3]
    total = 0
    for byte in body:
        total ^= byte
    try:
        if int(line[-2:], 16) != total:
            return None
        return body.decode("ascii").split(",")
    except ValueError:
        return None


def _degrees(value: str, side: str) -> float:
    """ddmm.mmmm or dddmm.mmmm with N, S, E or W as degrees. Raises ValueError."""
    limit = 2 if side in ("N", "S") else 3
    if side not in ("N", "S", "E", "W") or value.find(".") not in (-1, limit + 2) or not value[:limit].isdecimal():
        raise ValueError
    minutes = float(value[limit:])
    if not 0 <= minutes < 60:
        raise ValueError
    degrees = int(value[:limit]) + minutes / 60
    return round(-degrees if side in ("S", "W") else degrees, 7)


class Location:
    """The latest fix. A fixed place is always fresh; nothing is known until a GPS has said something."""

    def __init__(
        self, now_ms: Callable[[], int], place: tuple[float, float] | None = None, accuracy_m: float | None = None
    ) -> None:
        self._now_ms = now_ms
        self._fixed = place is not None
        self._fix = Fix(*place, accuracy_m, now_ms(), "fixed") if place else None
        self.problem = ""

    def set(self, fix: Fix) -> None:
        """A newer fix."""
        self._fix = fix

    def facts(self) -> dict[str, Any] | None:
        """For the facts of an event: lat, lon, source, age in seconds, and accuracy in metres where known."""
        fix = self._fix
        if fix is None:
            return None
        age_ms = 0 if self._fixed else max(0, self._now_ms() - fix.at_ms)
        if age_ms > STALE_MS:
            return None
        facts = {"lat": fix.latitude, "lon": fix.longitude, "age": round(age_ms / 1000, 1), "source": fix.source}
        if fix.accuracy_m is not None:
            facts["accuracy"] = fix.accuracy_m
        return facts

    async def follow(self, path: Path | str, baud: int) -> None:
        """Read a GPS for ever: a file is replayed in real time, a serial port is read as it comes."""
        nmea = Nmea()
        await self._for_ever(f"{path}", lambda: self._read_nmea(path, baud, nmea))

    async def follow_gpsd(self, address: str) -> None:
        """Read fixes from gpsd (host:port) for ever."""
        await self._for_ever(f"gpsd at {address}", lambda: gpsd.watch(address, self._from_gpsd))

    async def _for_ever(self, name: str, read: Callable[[], Awaitable[None]]) -> None:
        told = ""
        while True:
            try:
                await read()
            except (OSError, EOFError) as problem:
                self.problem = f"{name}: {getattr(problem, 'strerror', None) or problem or 'has ended'}"
                if self.problem != told:
                    logger.warning("no GPS: %s", self.problem)
                    told = self.problem
            await asyncio.sleep(RETRY_S)

    def _from_gpsd(self, latitude: float, longitude: float, accuracy_m: float | None) -> None:
        self.problem = ""
        self.set(Fix(latitude, longitude, accuracy_m, self._now_ms(), "gpsd"))

    async def _read_nmea(self, path: Path | str, baud: int, nmea: Nmea) -> None:
        if isinstance(path, Path) and await asyncio.to_thread(path.is_file):
            self.problem = ""
            await self._replay(path, nmea)
        else:
            await self._read_port(str(path), baud, nmea)

    async def _replay(self, path: Path, nmea: Nmea) -> None:
        lines = (await asyncio.to_thread(path.read_bytes))[:REPLAY_MAX].splitlines()
        while lines:
            second = None
            for line in lines:
                # sentences of one second carry the same time of day in their first field
                time_of_day = line.split(b",", 2)[1:2]
                if second is not None and time_of_day != second:
                    await asyncio.sleep(1.0)
                second = time_of_day
                if fix := nmea.sentence(line, self._now_ms()):
                    self.set(fix)
            await asyncio.sleep(1.0)

    async def _read_port(self, name: str, baud: int, nmea: Nmea) -> None:
        """Until the receiver goes. Raises OSError."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        stop = threading.Event()

        def fail(problem: OSError) -> None:
            if not ended.done():
                ended.set_exception(problem)

        def take(data: bytes) -> None:
            before = nmea.understood
            if fix := nmea.feed(data, self._now_ms()):
                self.problem = ""
                self.set(fix)
            elif not data:
                self.problem = f"{name}: silent: is the receiver switched on, and this its port?"
            elif nmea.understood > before:
                if self._fix is None:
                    self.problem = f"{name}: no fix yet: it needs a view of the sky"
            elif nmea.dropped > NOISE and not nmea.understood:
                self.problem = f"{name}: nothing that it says is NMEA: is the baud rate right?"

        def read() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the hub has stopped
                try:
                    with open_port(name, baud, timeout=READ_S) as port:
                        quiet = 0.0
                        while not stop.is_set():
                            data = port.read(max(1, min(port.in_waiting, 4096)))
                            quiet = 0.0 if data else quiet + READ_S
                            if data or quiet >= SILENT_S:
                                loop.call_soon_threadsafe(take, data)
                except Exception as problem:  # whatever it is: it must be heard of, or nobody looks again
                    text = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
                    loop.call_soon_threadsafe(fail, OSError(getattr(problem, "errno", 0) or 0, text))

        thread = threading.Thread(target=read, name="gps", daemon=True)
        thread.start()
        try:
            await ended
        finally:
            stop.set()
