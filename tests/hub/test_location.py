"""Where the hub is: NMEA over a serial port, gpsd, real and played; age, accuracy and source with every fix (B4)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import random
import shutil
import subprocess
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neighbours import GUARD_S, free_port, until

from hub import gpsd, location
from hub.location import Location

PLACE = (52.9225, -1.4746)


def sentence(body: str) -> bytes:
    total = 0
    for byte in body.encode():
        total ^= byte
    return f"${body}*{total:02X}\r\n".encode()


GGA = sentence("GPGGA,123519,5255.350,N,00128.476,W,1,08,0.9,545.4,M,46.9,M,,")
NO_FIX = sentence("GPGGA,123519,,,,,0,00,,,M,,M,,")


@pytest.fixture
def port() -> Iterator[tuple[int, str]]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def say(port: tuple[int, str], data: bytes) -> None:
    """A receiver reports, whether anybody reads it or not; what comes before the port is opened is thrown away."""
    with contextlib.suppress(BlockingIOError):
        os.write(port[0], data)


def follow(place: Location, name: str, story: object) -> None:
    async def run() -> None:
        task = asyncio.create_task(place.follow(name, 9600))
        await story()  # type: ignore[operator]
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run())


def test_a_receiver_on_a_serial_port_is_read_and_its_fix_ages(port: tuple[int, str]) -> None:
    now = 1000
    place = Location(lambda: now)

    async def story() -> None:
        nonlocal now
        async with asyncio.timeout(GUARD_S):
            while "needs a view of the sky" not in place.problem:
                say(port, NO_FIX)
                await asyncio.sleep(0.05)
        say(port, GGA[:20])
        await asyncio.sleep(0.05)
        say(port, GGA[20:])
        await until(lambda: place.facts())
        now += 7000
        assert place.facts() == {"lat": 52.9225, "lon": -1.4746, "age": 7.0, "source": "nmea", "accuracy": 4.5}
        assert place.problem == ""

    follow(place, port[1], story)


def test_noise_on_the_port_gives_no_fix_and_is_told(port: tuple[int, str]) -> None:
    place = Location(lambda: 0)
    noise = random.Random(1)

    async def story() -> None:
        async with asyncio.timeout(GUARD_S):
            while "is the baud rate right" not in place.problem:
                say(port, noise.randbytes(100) + b"\n")
                await asyncio.sleep(0.005)
        assert place.facts() is None

        def report() -> object:
            say(port, b"\n" + GGA)
            return place.facts()

        await until(report, what="and what comes after it is read")

    follow(place, port[1], story)


def test_a_receiver_that_is_silent_or_gone_is_told(port: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "SILENT_S", 0.5)
    place = Location(lambda: 0)

    async def story() -> None:
        await until(lambda: "silent" in place.problem)

    follow(place, port[1], story)
    gone = Location(lambda: 0)

    async def other() -> None:
        await until(lambda: "No such file" in gone.problem)

    follow(gone, "/dev/ttyUSB98", other)


@pytest.mark.parametrize(
    "problem", [termios.error(5, "Input/output error"), RuntimeError("odd"), TypeError(), OSError(5, "gone")]
)
def test_a_receiver_that_vanishes_while_its_port_is_opened_is_found_again(
    port: tuple[int, str], monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(location, "RETRY_S", 0.2)
    place = Location(lambda: 0)
    real = termios.tcflush
    raised: list[bool] = []

    def gone(*args: Any) -> None:
        if not raised:
            raised.append(True)
            raise problem
        real(*args)

    monkeypatch.setattr(termios, "tcflush", gone)

    async def story() -> None:
        await until(lambda: raised)
        await until(lambda: place.problem, what="it is told")
        assert port[1] in place.problem
        assert "(" not in place.problem, "in words"

        def report() -> object:
            say(port, GGA)
            return place.facts()

        await until(report, what="a fix after it was looked for again")
        assert place.problem == ""

    follow(place, port[1], story)


TPV = {"class": "TPV", "device": "/dev/x", "mode": 3, "lat": PLACE[0], "lon": PLACE[1], "eph": 9.52}


class FakeGpsd:
    """Says what gpsd says, after it was asked to."""

    def __init__(self, *lines: object) -> None:
        self.lines = lines
        self.asked = b""

    async def start(self) -> int:
        """Its port."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"class":"VERSION","release":"3.22","proto_major":3}\r\n')
        self.asked = await reader.readline()
        for line in self.lines:
            writer.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\r\n")
        await writer.drain()


def test_gpsd_is_asked_and_its_fixes_are_taken() -> None:
    async def story() -> None:
        fake = FakeGpsd({"class": "TPV", "mode": 1}, {"class": "SKY"}, b"garbage\n", TPV)
        place = Location(lambda: 0)
        task = asyncio.create_task(place.follow_gpsd(f"127.0.0.1:{await fake.start()}"))
        await until(lambda: place.facts())
        assert fake.asked == gpsd.WATCH
        assert place.facts() == {"lat": PLACE[0], "lon": PLACE[1], "age": 0.0, "source": "gpsd", "accuracy": 9.5}
        task.cancel()
        await asyncio.wait({task})
        fake.server.close()

    asyncio.run(story())


def test_no_gpsd_and_something_else_in_its_place_are_told() -> None:
    async def story() -> None:
        for lines, says in (((), ""), ((b"x" * 200_000,), "is no gpsd")):
            fake = FakeGpsd(*lines)
            port = await fake.start() if lines else free_port()
            place = Location(lambda: 0)
            task = asyncio.create_task(place.follow_gpsd(f"127.0.0.1:{port}"))
            await until(lambda place=place: place.problem)  # type: ignore[misc]
            assert "gpsd at 127.0.0.1" in place.problem
            assert says in place.problem
            task.cancel()
            await asyncio.wait({task})

    asyncio.run(story())


@given(
    st.one_of(st.binary(max_size=200), st.dictionaries(st.text(), st.floats()).map(lambda d: json.dumps(d).encode()))
)
def test_any_line_in_gpsds_place_is_no_fix_or_a_sane_one(line: bytes) -> None:
    fix = gpsd.parse(line)
    assert fix is None or (abs(fix[0]) <= 90 and abs(fix[1]) <= 180)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({}, (*PLACE, 9.5)),
        ({"eph": None, "epx": 3, "epy": 4}, (*PLACE, 5.0)),
        ({"eph": None}, (*PLACE, None)),
        ({"eph": float("nan")}, (*PLACE, None)),
        ({"lat": 91}, None),
        ({"lat": True}, None),
        ({"mode": 0}, None),
        ({"lon": "1"}, None),
    ],
)
def test_what_gpsd_says_of_its_error_is_kept_as_far_as_it_makes_sense(
    change: dict[str, object], fix: tuple[float, float, float | None] | None
) -> None:
    assert gpsd.parse(json.dumps({**TPV, **change}).encode()) == fix


def test_a_real_gpsd_reads_a_receiver_for_the_hub(tmp_path: Path) -> None:
    """gpsd itself, with a receiver played on a pseudo-terminal."""
    program = shutil.which("gpsd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("gpsd is not installed: apt install gpsd")
    master, slave = pty.openpty()
    tty.setraw(slave)
    port = free_port()
    process = subprocess.Popen(
        [program, "-N", "-n", "-b", "-S", str(port), "-P", str(tmp_path / "pid"), os.ttyname(slave)],
        stderr=subprocess.DEVNULL,
    )

    async def story() -> None:
        place = Location(lambda: 0)
        task = asyncio.create_task(place.follow_gpsd(f"127.0.0.1:{port}"))
        for second in range(600):
            time_of_day = f"12{second // 60:02}{second % 60:02}"
            os.write(master, sentence(f"GPGGA,{time_of_day},5255.350,N,00128.476,W,1,08,0.9,545.4,M,46.9,M,,"))
            os.write(master, sentence(f"GPRMC,{time_of_day},A,5255.350,N,00128.476,W,0.5,54.7,211126,,"))
            await asyncio.sleep(0.1)
            if place.facts():
                break
        facts = place.facts()
        assert facts is not None, place.problem
        assert (facts["lat"], facts["lon"], facts["source"]) == (PLACE[0], PLACE[1], "gpsd")
        task.cancel()
        await asyncio.wait({task})

    try:
        asyncio.run(story())
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


def test_no_position_is_written_outside_an_alarm_or_a_visit(tmp_path: Path) -> None:
    """The facts of an event carry it where the kind allows; nothing else of the hub's folder ever holds one."""
    from pocket import pocket

    from protocol import kinds

    def content(path: Path) -> bytes:
        with contextlib.suppress(FileNotFoundError):  # has got its name by now
            return path.read_bytes()
        return b""

    async def story() -> None:
        async with pocket(tmp_path, 1, '[location]\nfixed = "52.9225,-1.4746"\n') as chain:
            badge = chain.badges[0]
            chain.gate.close()
            for kind, stored in ((kinds.BATTERY, False), (kinds.BOOTED, False), (kinds.TEST, False), (kinds.SOS, True)):
                name = badge.raise_event(kind)
                await until(lambda name=name: name in badge.held)  # type: ignore[misc]
                written = b"".join(content(p) for p in (tmp_path / "hub").iterdir() if p.is_file())
                assert (b"52.9225" in written) == stored
            chain.gate.open = True
            await chain.settled()
        assert "52.92" not in (tmp_path / "hub.log").read_text()

    asyncio.run(story())
