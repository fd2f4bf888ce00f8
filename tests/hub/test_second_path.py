"""An alarm that the station has not acknowledged in 15 s goes to the agreed numbers, once (B9)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modem_emulator
import pytest
from neighbours import until
from pocket import Pocket, free_of_errors, pocket
from pocket_hub import MESSAGE_POINTS
from second_path_bench import NUMBERS, PLACE, Bench, play
from sqlalchemy import select

from hub.secondpath import ONE_MATTER_MS
from protocol import ident, kinds, relay
from station.model import Alarm, Entry


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.modem.close()


def test_everybody_agreed_is_told_once_with_kind_label_place_and_age(bench: Bench) -> None:
    async def story() -> None:
        bench.alarm(1)
        await bench.later(14.5)
        assert bench.modem.sent == []
        await bench.later(0.6)
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)
        text = bench.texts[0]
        assert text.startswith("TOCSIN SOS: Cllr A. Example (badge 12), 15 s ago.")
        assert "52.92250,-1.47460 +-10m, fix 115 s old." in text
        assert "Station not reached." in text
        assert "12/7/1" in text
        assert "UNVERIFIED" not in text
        badge, name, flags, asked, sent, waited = bench.told[0]
        assert (badge, name, flags, asked, sent) == (12, ident.pack(bench.boot, 1), 0, 2, 2)
        assert waited == 15_100
        bench.alarm(1)  # its badge repeats it
        await bench.later(1000)
        assert len(bench.modem.sent) == 2
        assert len(bench.told) == 1

    play(bench, story)


def test_what_the_station_has_is_not_told(bench: Bench) -> None:
    async def story() -> None:
        name = bench.alarm(1)
        await bench.later(14)
        bench.second.acknowledged(12, name)
        bench.alarm(1)
        await bench.later(60)
        assert bench.modem.sent == []
        assert bench.told == []

    play(bench, story)


def test_only_alarms_are_told_and_a_cancel_is_mentioned_but_stops_nothing(bench: Bench) -> None:
    async def story() -> None:
        for number, kind in enumerate((kinds.BATTERY, kinds.CHECK_IN, kinds.AMBER, kinds.TEST), 10):
            bench.alarm(number, kind=kind)
        bench.alarm(1, kind=kinds.LANYARD)
        bench.alarm(2, kind=kinds.CANCEL)  # may have been forced: the station would decide
        await bench.later(16)
        assert len(bench.texts) == 1
        assert "SOS (lanyard pulled)" in bench.texts[0]
        assert "A cancel followed." in bench.texts[0]

    play(bench, story)


def test_where_only_a_beacon_was_heard_the_message_says_so(bench: Bench) -> None:
    async def story() -> None:
        bench.alarm(1, badge=99, verified=False)
        await bench.later(16)
        assert bench.texts[0].startswith("TOCSIN UNVERIFIED SOS: badge 99, ")
        assert bench.told[0][2] == relay.BY_BEACON_ONLY

    play(bench, story)


def test_the_event_itself_makes_it_verified_and_is_not_a_second_alarm(bench: Bench) -> None:
    async def story() -> None:
        bench.alarm(1, verified=False)
        await bench.later(5)
        bench.alarm(1, verified=True)
        await bench.later(11)
        assert len(bench.texts) == 1
        assert "UNVERIFIED" not in bench.texts[0]

    play(bench, story)


def test_forged_beacons_fire_a_few_times_an_hour_and_hold_no_true_alarm_up(bench: Bench) -> None:
    async def story() -> None:
        for number in range(1, 200):
            bench.alarm(number, badge=12, verified=False)
            bench.alarm(number, badge=1000 + number, verified=False)
        await bench.later(16)
        assert len(bench.texts) == 4, "the budget of all that was never proved, one of badge 12 among them"
        assert sum("badge 12" in text for text in bench.texts) <= 1
        true = bench.alarm(300, badge=12)
        await bench.later(16)
        assert len(bench.texts) == 5
        assert "UNVERIFIED" not in bench.texts[-1]
        assert bench.told[-1][1] == true
        bench.alarm(301, badge=13, verified=False, trusted=True)
        await bench.later(16)
        assert "badge 13" in bench.texts[-1], "a boot that has proved itself before has the budget of true ones"
        assert len(bench.second._waiting) == 0

    play(bench, story)


def test_a_second_press_of_the_same_wearer_is_the_same_matter_for_ten_minutes(bench: Bench) -> None:
    async def story() -> None:
        bench.alarm(1)
        await bench.later(16)
        bench.alarm(2)
        await bench.later(16)
        assert len(bench.texts) == 1
        await bench.later(ONE_MATTER_MS / 1000)
        bench.alarm(3)
        await bench.later(16)
        assert len(bench.texts) == 2

    play(bench, story)


def test_a_network_that_refuses_is_asked_again_and_nobody_is_told_twice(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.refuse = 1  # the first number; the second gets its message
        bench.alarm(1)
        await bench.later(16)
        assert [number for number, _ in bench.modem.sent] == [NUMBERS[1]]
        assert "CMS ERROR" in bench.second.problem
        assert bench.told == []
        await bench.later(6)
        assert [number for number, _ in bench.modem.sent] == [NUMBERS[1], NUMBERS[0]]
        assert bench.told[0][3:5] == (2, 2)
        assert bench.second.problem == ""

    play(bench, story)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_hub_that_is_killed_while_it_sends_sends_the_rest_and_says_that_it_may_be_the_second_time(
    bench: Bench, taken: int
) -> None:
    async def story() -> None:
        real = bench.second._hand_over
        count = 0

        class Killed(BaseException):
            pass

        def hand_over(number: str, text: Any) -> None:
            nonlocal count
            if count == taken:
                real(number, text)
                raise Killed  # the network has it, and the hub does not know
            count += 1
            real(number, text)

        bench.second._hand_over = hand_over  # type: ignore[method-assign]
        task = asyncio.create_task(bench.second.run())
        name = bench.alarm(1)
        bench.clock.moved_ms += 16_000
        if taken < 2:
            with pytest.raises(Killed):
                await task
        else:
            await until(lambda: bench.told)
            task.cancel()
            bench.told.clear()
        await bench.restart()
        bench.second.resume([(12, name, kinds.SOS, PLACE, True, bench.clock.now_ms() - 16_000)])
        task = asyncio.create_task(bench.second.run())
        await bench.later(1)
        await asyncio.sleep(0.1)
        sent = [number for number, _ in bench.modem.sent]
        if taken == 2:
            assert sent == list(NUMBERS), "done is done"
        else:
            assert len(bench.told) == 1
            assert bench.told[0][2] == relay.PERHAPS_TWICE
            assert sent == [*NUMBERS[: taken + 1], *NUMBERS[taken:]]
            assert "Perhaps sent before." in bench.modem.sent[-1][1]
        task.cancel()
        bench.second.close()

    asyncio.run(story())


@pytest.mark.parametrize("refused", [0, 99])
def test_a_report_that_is_not_on_disk_when_the_hub_is_killed_is_made_again_and_nobody_is_told_twice(
    bench: Bench, refused: int
) -> None:
    async def story() -> None:
        bench.stores = False
        bench.modem.refuse = refused  # all: then it reports that nobody could be told
        name = bench.alarm(1)
        await bench.later(16)
        if refused:
            bench.second.acknowledged(12, name)
        assert len(bench.told) == 1
        messages = len(bench.modem.sent)
        assert messages == (0 if refused else len(NUMBERS))
        waits = [(12, name, kinds.SOS, PLACE, True, bench.clock.now_ms() - 16_000)] if not refused else []
        for reports in (2, 3, 3):
            assert await bench.second.file.settled(10)
            bench.second.close()
            bench.second = bench.start()
            bench.stores = reports == 3
            bench.second.resume(waits)
            assert len(bench.told) == reports
        assert len({told[:5] for told in bench.told}) == 1
        assert len(bench.modem.sent) == messages

    play(bench, story)


def test_the_whole_chain_tells_the_numbers_and_later_the_station(tmp_path: Path) -> None:
    modem = modem_emulator.Modem()
    extra = (
        f'[location]\nfixed = "52.9225,-1.4746"\n[second_path]\nmodem = "{modem.port}"\n'
        f'numbers = ["{NUMBERS[0]}"]\nlabels = {{ 1 = "Cllr A. Example" }}\n'
    )

    async def story(chain: Pocket) -> None:
        badge = chain.badges[0]
        quick = badge.raise_event(kinds.SOS)
        await until(lambda: quick in badge.receipted, 10, "an answer")
        chain.move_clock(20)
        await asyncio.sleep(0.3)
        assert modem.sent == [], "the station has it"
        chain.gate.close()
        chain.move_clock(700)
        alarm = badge.raise_event(kinds.LANYARD)
        await until(lambda: alarm in badge.held, 5, "held")
        chain.move_clock(16)
        await until(lambda: modem.sent, 10, "a message")
        assert "Cllr A. Example (badge 1)" in modem.sent[0][1]
        assert "52.92250,-1.47460, venue." in modem.sent[0][1]
        await chain.until_status(lambda status: status["queue"] >= 2, "the report is in the outbox")
        # else the next life makes the report anew, and it looks younger than the alarm's arrival
        await until(lambda: alarm.hex() in _sms(chain).partition('"done"')[2], 10, "noted")
        await until(lambda: alarm.hex() not in _sms(chain).partition('"done"')[0], 10, "the report is on disk")
        chain.move_clock(60)  # however long after the alarm the station reads the report: it was older
        await chain.kill()
        chain.gate.open = True
        await chain.start_hub()
        assert (await chain.settled()).clean

        def told() -> list[Entry]:
            with chain.station.core.read() as db:
                found = list(db.scalars(select(Entry).where(Entry.what == "second_path")))
                db.expunge_all()
                return found

        await until(told, 5, "a line in the alarm's timeline")
        assert len(told()) == 1
        assert "1 of 1 agreed numbers, after 1" in told()[0].text
        with chain.station.core.read() as db:
            row = db.scalar(select(Alarm).where(Alarm.ident == alarm))
            assert row is not None
            assert row.via == "second_path"
            assert row.id == told()[0].alarm_id
        assert len(modem.sent) == 1

    async def run() -> None:
        async with pocket(tmp_path, 1, extra) as chain:
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []

    try:
        asyncio.run(run())
    finally:
        modem.close()


def _sms(chain: Pocket) -> str:
    return (chain.folder / "hub/sms.json").read_text()


def _noted(chain: Pocket, name: str) -> bool:
    """Whether an alarm is done with on disk, and its report in the outbox."""
    with contextlib.suppress(FileNotFoundError):
        stored = json.loads(_sms(chain))
        done, waiting = ({entry["ident"] for entry in stored[what]} for what in ("done", "waiting"))
        return name in done - waiting
    return False


def test_a_hub_process_that_is_killed_around_a_message_tells_everybody_and_owns_up_to_a_second_time(
    tmp_path: Path,
) -> None:
    modem = modem_emulator.Modem()
    numbers = ", ".join(f'"{number}"' for number in NUMBERS)
    extra = f'[second_path]\nmodem = "{modem.port}"\nnumbers = [{numbers}]\n'
    points = [(f"{name}.{side}", nth) for name in MESSAGE_POINTS for side in ("before", "after") for nth in (1, 2)]

    async def story(chain: Pocket) -> None:
        badge, killed, twice = chain.badges[0], 0, 0
        for point, nth in points:
            await chain.kill()
            chain.move_clock(4000)  # another hour, another matter
            modem.sent.clear()
            badge.kind = kinds.STATUS
            await chain.start_hub(point, nth)
            await until(lambda: badge.established, what="a session")
            alarm = badge.raise_event(kinds.SOS)
            await until(lambda alarm=alarm: alarm in badge.held or chain.died.is_set(), what="held")  # type: ignore[misc]
            chain.move_clock(16)
            await until(
                lambda alarm=alarm: chain.died.is_set() or _noted(chain, alarm.hex()),  # type: ignore[misc]
                what=f"its end at {point} {nth}, or of its work",
            )
            killed += chain.died.is_set()
            await chain.kill()
            await chain.start_hub()
            await until(lambda: {number for number, _ in modem.sent} == set(NUMBERS), what=f"everybody, {point} {nth}")
            # the next kill is not of this alarm any more: what was sent is noted, however slow the disk
            await until(lambda alarm=alarm: _noted(chain, alarm.hex()), what=f"noted, {point} {nth}")  # type: ignore[misc]
            for number in NUMBERS:
                texts = [text for to, text in modem.sent if to == number]
                assert len(texts) <= 2, (point, nth, texts)
                if len(texts) == 2:
                    twice += 1
                    assert "Perhaps sent before." in texts[1], (point, nth, texts)
        assert killed >= len(points) * 0.6
        assert twice < killed
        chain.gate.open = True
        assert (await chain.settled()).clean

        def told() -> int:
            with chain.station.core.read() as db:
                return len(list(db.scalars(select(Entry).where(Entry.what == "second_path"))))

        await until(lambda: told() == len(points), what="one line in the timeline of each alarm")

    async def run() -> None:
        async with pocket(tmp_path, 1, extra) as chain:
            chain.gate.close()
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []

    try:
        asyncio.run(run())
    finally:
        modem.close()
