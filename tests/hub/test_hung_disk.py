"""A disk that hangs holds up no alarm, neither on its way to the station nor as a text message (B3, B9).

A pipe that nobody reads lies where the hub wants to write: opening it hangs in the kernel, as on a dying card, until
somebody opens its other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import modem_emulator
import pytest
from neighbours import until
from pocket import Pocket, free_of_errors, pocket
from second_path_bench import NUMBERS, Bench
from sqlalchemy import select

from hub import identity
from hub.identity import PrivateFile
from protocol import kinds
from station.model import Hub


class Hang:
    """Whoever writes this file of a hub hangs until `end()`."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".part")
        os.mkfifo(self._path)

    def end(self) -> None:
        """The disk fails what it had under way, and works from now on."""
        os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)  # open to the end: who comes late must not hang either


def test_keys_that_the_disk_does_not_take_hold_up_nothing(tmp_path: Path) -> None:
    async def story(chain: Pocket) -> None:
        badge, stored = chain.badges[0], chain.folder / "hub/keys.json"
        await until(lambda: not stored.with_name(stored.name + ".part").exists(), what="nothing is being written")
        before = json.loads(stored.read_text())["number"]
        hang = Hang(stored)
        chain.gate.close()
        chain.gate.open = True

        def numbers() -> list[int]:
            with chain.station.core.read() as db:
                return list(db.scalars(select(Hub.keys_number)))

        await until(lambda: max(numbers()) > before, what="its hello is answered with keys")
        note = badge.raise_event(kinds.BATTERY)
        await until(lambda: note in badge.receipted, what="and what the station said after them is heard")
        alarm = badge.raise_event(kinds.SOS)
        # a machine that stalls takes its time; the disk none of it
        await until(lambda: alarm in badge.receipted, 8, "an answer")
        assert alarm in badge.held, "the outbox is another file"
        assert json.loads(stored.read_text())["number"] == before, "the disk did hang"
        hang.end()
        chain.gate.close()
        chain.gate.open = True
        await until(lambda: json.loads(stored.read_text())["number"] > before, what="keys on disk once it takes them")

    async def run() -> None:
        async with pocket(tmp_path, 1) as chain:
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []

    asyncio.run(run())


def test_a_note_that_the_disk_does_not_take_holds_up_no_text_message_and_nothing_else(tmp_path: Path) -> None:
    modem = modem_emulator.Modem()
    numbers = ", ".join(f'"{number}"' for number in NUMBERS)

    async def story(chain: Pocket) -> None:
        badge = chain.badges[0]
        chain.gate.close()
        hang = Hang(chain.folder / "hub/sms.json")
        alarm = badge.raise_event(kinds.SOS)
        await until(lambda: alarm in badge.held, what="held")
        chain.move_clock(16)
        due = time.monotonic()
        await until(lambda: {number for number, _ in modem.sent} == set(NUMBERS), what="everybody is told")
        assert time.monotonic() - due < 8, "a second for the note, and what the modem takes"
        later = badge.raise_event(kinds.CHECK_IN)
        await until(lambda: later in badge.held, what="the hub lives")
        await chain.until_status(lambda status: status["queue"] >= 3, "what was told is in the outbox")
        hang.end()
        chain.gate.open = True
        await until(lambda: {alarm, later} <= badge.receipted, what="answers")
        assert len(modem.sent) == len(NUMBERS)
        assert (await chain.settled()).clean

    async def run() -> None:
        async with pocket(tmp_path, 1, f'[second_path]\nmodem = "{modem.port}"\nnumbers = [{numbers}]\n') as chain:
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []

    try:
        asyncio.run(run())
    finally:
        modem.close()


def test_what_the_station_takes_while_the_note_hangs_is_told_to_nobody(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        hang = Hang(tmp_path / "sms.json")
        task = asyncio.create_task(bench.second.run())
        name = bench.alarm(1)
        bench.clock.moved_ms += 15_100
        await until(lambda: bench.second._at is not None, what="its turn")
        bench.second.acknowledged(12, name)
        await until(lambda: bench.second._at is None, what="the next turn")
        assert bench.modem.sent == []
        assert bench.told == [], "nothing was tried, and nothing is reported"
        bench.alarm(2, badge=13)
        bench.clock.moved_ms += 15_100
        begun = time.monotonic()
        await until(lambda: bench.second.pending == 0, what="another alarm")
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)
        assert time.monotonic() - begun < 5
        hang.end()
        task.cancel()
        await asyncio.wait({task})
        bench.second.close()

    bench = Bench(tmp_path)
    try:
        asyncio.run(story(bench))
    finally:
        bench.modem.close()


def test_the_latest_content_is_written_and_a_disk_that_hangs_is_waited_for_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        file = PrivateFile(tmp_path / "file")
        assert await file.settled(0.0), "nothing to wait for"
        file.put(b"first")
        assert await file.settled(10)
        assert file.path.read_bytes() == b"first"
        hang = Hang(file.path)
        for number in range(100):
            file.put(b"%d" % number)
        begun = time.monotonic()
        assert not await file.settled(0.2)
        file.put(b"latest")
        assert not await file.settled(60), "the same hanging is not waited for again"
        assert time.monotonic() - begun < 10
        hang.end()
        await until(lambda: file.path.read_bytes() == b"latest", what="the latest content")
        assert await file.settled(10)
        hang = Hang(file.path)
        file.put(b"more")
        assert not await file.settled(0.2), "another hanging is waited for"
        hang.end()

    asyncio.run(story())
    assert [record.message.count("the disk hangs") for record in caplog.records].count(1) == 2


def test_a_disk_that_fails_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote = 0

    def write(path: Path, content: bytes) -> None:
        nonlocal wrote
        wrote += 1
        real(path, content)

    real = identity.write_private
    monkeypatch.setattr(identity, "write_private", write)

    async def story() -> None:
        file = PrivateFile(tmp_path / "folder" / "file")
        for _ in range(3):
            file.put(b"lost")
            assert await file.settled(10), "refused is an answer"
        file.path.parent.mkdir()
        file.put(b"stored")
        assert await file.settled(10)
        assert file.path.read_bytes() == b"stored"

    asyncio.run(story())
    assert wrote == 4
    assert len(caplog.records) == 1
