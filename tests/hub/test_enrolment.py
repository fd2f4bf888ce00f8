"""Enrolling by the card: what the technician is told, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from test_badges import LoopClock, Time

from hub.badges import Event, Machine
from hub.cli import main
from hub.enrolment import DOOR, WAIT_S, Desk, Outcome, ask
from hub.roster import Entry

BADGE, PASSKEY = 12, 4711


class Bench:
    """A desk, and a roster whose one badge does what the story says."""

    def __init__(self, folder: Path) -> None:
        self.loop = Time()
        self.entry = Entry(Machine(BADGE, 0))
        self.keys: set[int] = set()
        self.desk = Desk(folder / DOOR, lambda: self, self.keys.__contains__)  # type: ignore[arg-type, return-value]

    def entries(self) -> dict[int, Entry]:
        return {BADGE: self.entry}

    def happen(self, *events: Event, reason: str = "") -> None:
        for event in events:
            assert self.entry.machine.change(event, LoopClock(self.loop).now_ms(), reason)

    def play(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(story())

    async def enrol(self, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> Outcome:
        waiting = asyncio.create_task(self.desk.enrol(BADGE, PASSKEY))
        await asyncio.sleep(1)
        assert self.desk.passkey(BADGE) == PASSKEY
        await meanwhile()
        outcome = await waiting
        assert self.desk.passkey(BADGE) is None
        return outcome


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_paired_and_enrolled(bench: Bench) -> None:
    async def badge() -> None:
        bench.happen(Event.HEARD, Event.DIALLED, Event.PAIRS)
        await asyncio.sleep(2)
        bench.happen(Event.CONNECTED)
        await asyncio.sleep(1)
        bench.keys.add(BADGE)
        bench.happen(Event.PROVED)

    async def story() -> None:
        assert await bench.enrol(badge) == Outcome(True, "badge 12 is paired and enrolled")

    bench.play(story)


def test_a_refusal_is_said_with_its_reason_and_ends_it(bench: Bench) -> None:
    async def badge() -> None:
        bench.happen(Event.HEARD, Event.DIALLED, Event.PAIRS)
        await asyncio.sleep(2)
        bench.happen(Event.FAILED, reason="the badge refuses: wrong passkey")

    async def story() -> None:
        outcome = await bench.enrol(badge)
        assert outcome == Outcome(False, "badge 12 is not paired: the badge refuses: wrong passkey")

    bench.play(story)


def test_a_refusal_that_was_over_before_anybody_looked_is_said_too(bench: Bench) -> None:
    async def badge() -> None:
        bench.happen(Event.HEARD, Event.DIALLED, Event.PAIRS)
        bench.happen(Event.FAILED, reason="the badge refuses: wrong passkey")
        bench.happen(Event.RESTED, Event.DIALLED)

    async def story() -> None:
        begun = bench.loop.time()
        outcome = await bench.enrol(badge)
        assert outcome == Outcome(False, "badge 12 is not paired: the badge refuses: wrong passkey")
        assert bench.loop.time() - begun < 2

    bench.play(story)


def test_an_earlier_refusal_does_not_end_a_new_attempt(bench: Bench) -> None:
    bench.happen(Event.HEARD, Event.DIALLED, Event.PAIRS)
    bench.happen(Event.FAILED, reason="the badge refuses: wrong passkey")
    bench.happen(Event.RESTED)

    async def badge() -> None:
        bench.happen(Event.DIALLED, Event.PAIRS, Event.CONNECTED)
        bench.keys.add(BADGE)
        bench.happen(Event.PROVED)

    async def story() -> None:
        assert await bench.enrol(badge) == Outcome(True, "badge 12 is paired and enrolled")

    bench.play(story)


def test_one_that_does_not_answer_is_tried_again_and_not_for_ever(bench: Bench) -> None:
    async def badge() -> None:
        bench.happen(Event.HEARD, Event.DIALLED, Event.FAILED, Event.RESTED, Event.DIALLED, Event.FAILED)

    async def story() -> None:
        begun = bench.loop.time()
        outcome = await bench.enrol(badge)
        assert "did not open its pairing window" in outcome.text
        assert bench.loop.time() - begun == pytest.approx(WAIT_S, abs=1)

    bench.play(story)


def test_a_station_that_does_not_enrol_it_is_told_from_a_badge_that_is_not_there(bench: Bench) -> None:
    async def badge() -> None:
        bench.happen(Event.HEARD, Event.DIALLED, Event.PAIRS)
        await asyncio.sleep(2)
        bench.happen(Event.CONNECTED)

    async def story() -> None:
        outcome = await bench.enrol(badge)
        assert "is paired, and the station has not enrolled it" in outcome.text

    bench.play(story)


def test_what_is_enrolled_already_is_not_waited_for(bench: Bench) -> None:
    bench.keys.add(BADGE)

    async def story() -> None:
        assert await bench.desk.enrol(BADGE, PASSKEY) == Outcome(False, "badge 12 is enrolled here already")

    bench.play(story)


def test_the_door_answers_requests_and_nonsense(tmp_path: Path) -> None:
    async def story() -> None:
        desk = Desk(tmp_path / DOOR, lambda: None, lambda badge: badge == BADGE)  # type: ignore[arg-type, return-value]
        await desk.open()
        outcome = await asyncio.to_thread(ask, tmp_path / DOOR, BADGE, PASSKEY)
        assert outcome.text == "badge 12 is enrolled here already"
        reader, writer = await asyncio.open_unix_connection(tmp_path / DOOR)
        writer.write(b'{"badge": "x"}\n')
        assert b"not a request" in await reader.readline()
        writer.close()
        await desk.close()
        assert not (tmp_path / DOOR).exists()

    asyncio.run(story())


@pytest.mark.parametrize("passkey", ["4711", "00471a", "0047110", "٠٠٤٧١١"])
def test_what_is_no_passkey_is_refused(passkey: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enrol", "12", "--passkey", passkey, "--config", str(config(tmp_path))]) == 2
    assert "six digits" in capsys.readouterr().err


def test_without_a_running_hub_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enrol", "12", "--passkey", "004711", "--config", str(config(tmp_path))]) == 1
    assert "no hub answers" in capsys.readouterr().err


def config(folder: Path) -> Path:
    file = folder / "hub.toml"
    file.write_text(f'[hub]\ndir = "h"\n[station]\nkey = "{"0" * 64}"\n')
    return file
