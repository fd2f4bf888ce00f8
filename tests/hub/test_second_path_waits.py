"""An alarm that cannot be told by message is tried until somebody is told, and stands in nobody's way (B9)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from neighbours import until
from second_path_bench import NUMBERS, PLACE, Bench, play

from hub import keeper as keeping
from hub import sms
from hub.app import Hub
from hub.keeper import Keeper
from hub.modem import Modem, ModemFailed, Report
from hub.outbox import Outbox, Row, StoreFailed
from hub.secondpath import ONE_MATTER_MS, PENDING_MAX, PER_HOUR, TRIES, VERIFIED, SecondPath
from protocol import ident, kinds, relay


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.modem.close()


def test_a_modem_that_does_not_work_is_tried_again_and_the_station_hears_that_nobody_was_told(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.pin = "1234"
        name = bench.alarm(1)
        for _ in range(3):
            await bench.later(61)
            assert "asks for its PIN" in bench.second.problem
        assert bench.told == []
        assert bench.second.pending == 1
        bench.second.acknowledged(12, name)
        assert bench.told[0][3:5] == (2, 0)

    play(bench, story)


def test_a_modem_without_a_network_for_an_hour_is_asked_every_minute_and_then_tells(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.registration = 2  # searching
        bench.alarm(1)
        for minute in range(62):
            asked = bench.modem.commands.count("AT+CREG?")
            await bench.later(60)
            if minute > 3:
                assert bench.modem.commands.count("AT+CREG?") == asked + 1, "once a minute, not for each number"
            bench.alarm(1)  # its badge repeats it
        assert bench.modem.sent == []
        assert bench.told == []
        assert "searching" in bench.second.problem
        bench.modem.registration = 1
        await bench.later(60)
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)
        assert "63 min ago" in bench.texts[0]
        assert bench.told[0][3:5] == (2, 2)
        assert bench.second.pending == 0
        assert bench.second.problem == ""
        await bench.later(3600)
        assert len(bench.modem.sent) == 2

    play(bench, story)


def test_what_nobody_was_told_of_stands_in_the_way_of_nothing(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.registration = 2
        first = bench.alarm(1)
        await bench.later(60)
        bench.alarm(2)  # the same wearer, the same matter: one message tells of both
        other = bench.alarm(3, badge=13)
        await bench.later(1200)
        latest = bench.alarm(4)  # the same wearer, twenty minutes later: another matter
        await bench.later(60)
        for number in range(20, 60):  # more than anybody's budget
            bench.alarm(number, badge=14)
            await bench.later(16)
        bench.modem.registration = 1
        await bench.later(60)
        assert {told[1] for told in bench.told if told[0] == 12} == {first, latest}
        assert [told[1] for told in bench.told if told[0] == 13] == [other]
        assert len([told for told in bench.told if told[0] == 14]) == 2, "two times ten minutes"

    play(bench, story)


def test_an_alarm_over_the_budget_is_told_when_the_hour_is_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PER_HOUR, VERIFIED, (30, 2))

    async def story() -> None:
        for number in range(1, 4):
            bench.alarm(number)
            await bench.later(16)
            await bench.later(ONE_MATTER_MS / 1000)
        assert len(bench.texts) == 2
        assert bench.second.pending == 1
        for _ in range(10):
            await bench.later(180)
            bench.alarm(3)
        assert len(bench.texts) == 3
        assert "12/7/3" in bench.texts[-1]
        assert bench.second.counters["over_budget"] == 1

    play(bench, story)


def test_a_receipt_that_comes_while_there_is_no_network_ends_it(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.registration = 2
        name = bench.alarm(1)
        for _ in range(12):
            await bench.later(60)
        bench.second.acknowledged(12, name)
        bench.modem.registration = 1
        bench.alarm(1)
        await bench.later(120)
        assert bench.modem.sent == []
        assert [told[3:5] for told in bench.told] == [(2, 0)], "the station hears that nobody was told"
        bench.alarm(2)
        await bench.later(16)
        assert len(bench.texts) == 1, "it was told to nobody, so the next one is no second message of it"

    play(bench, story)


def test_a_hub_that_restarts_without_a_network_goes_on_and_knows_how_old_the_alarm_is(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.registration = 2
        task = asyncio.create_task(bench.second.run())
        name = bench.alarm(1)
        for _ in range(15):
            await bench.later(60)
        task.cancel()
        await asyncio.wait({task})
        await bench.restart()
        # the copy in the outbox came a minute ago
        bench.second.resume([(12, name, kinds.SOS, PLACE, True, bench.clock.now_ms() - 60_000)])
        task = asyncio.create_task(bench.second.run())
        await bench.later(60)
        assert bench.modem.sent == []
        assert bench.second.pending == 1
        bench.modem.registration = 1
        await bench.later(60)
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)
        assert "17 min ago" in bench.texts[0]
        assert "Perhaps" not in bench.texts[0], "nothing was sent before"
        assert [told[2:5] for told in bench.told] == [(0, 2, 2)]
        task.cancel()
        await asyncio.wait({task})
        await bench.restart()
        bench.second.resume([(12, name, kinds.SOS, PLACE, True, bench.clock.now_ms())])
        assert bench.second.pending == 0, "told is told"
        bench.second.close()

    asyncio.run(story())


def test_a_hub_whose_outbox_was_lost_while_nobody_was_told_takes_the_alarm_again(bench: Bench) -> None:
    async def story() -> None:
        bench.modem.registration = 2
        task = asyncio.create_task(bench.second.run())
        bench.alarm(1)
        await bench.later(60)
        task.cancel()
        await asyncio.wait({task})
        await bench.restart()
        bench.second.resume([])
        bench.modem.registration = 1
        task = asyncio.create_task(bench.second.run())
        bench.alarm(1)
        await bench.later(16)
        assert len(bench.texts) == 1
        task.cancel()
        await asyncio.wait({task})
        bench.second.close()

    asyncio.run(story())


@pytest.mark.parametrize(("verified", "trusted"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("failing", [0, 1])
def test_one_of_two_numbers_took_it_so_the_other_is_tried_for_some_minutes_and_then_it_is_done(
    bench: Bench, failing: int, verified: bool, trusted: bool
) -> None:
    async def story() -> None:
        send = bench.second._hand_over
        tries: list[str] = []

        def hand_over(number: str, text: Any) -> None:
            tries.append(number)
            if number == NUMBERS[failing]:
                bench.modem.refuse = 1
            send(number, text)

        bench.second._hand_over = hand_over  # type: ignore[method-assign]
        bench.alarm(1, verified=verified, trusted=trusted)
        for _ in range(30):
            await bench.later(60)
        assert [number for number, _ in bench.modem.sent] == [NUMBERS[1 - failing]]
        assert tries.count(NUMBERS[1 - failing]) == 1
        assert tries.count(NUMBERS[failing]) == TRIES + 1
        assert [told[3:5] for told in bench.told] == [(2, 1)]
        assert bench.second.pending == 0
        bench.second._hand_over = send  # type: ignore[method-assign]
        await bench.later(3600)  # another matter, another hour
        bench.modem.sent.clear()
        bench.alarm(2, verified=verified, trusted=trusted)
        await bench.later(16)
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)

    play(bench, story)


def test_a_number_that_failed_once_is_told_after_a_beacon_also_by_a_hub_that_was_killed_in_between(
    bench: Bench,
) -> None:
    async def story() -> None:
        send = bench.second._hand_over

        def hand_over(number: str, text: Any) -> None:
            bench.modem.refuse = int(number == NUMBERS[1])
            send(number, text)

        bench.second._hand_over = hand_over  # type: ignore[method-assign]
        task = asyncio.create_task(bench.second.run())
        name = bench.alarm(1, verified=False)
        await bench.later(16)
        task.cancel()
        await asyncio.wait({task})
        assert [number for number, _ in bench.modem.sent] == [NUMBERS[0]]
        await bench.restart()
        bench.second.resume([(12, name, kinds.SOS, PLACE, False, bench.clock.now_ms() - 16_000)])
        task = asyncio.create_task(bench.second.run())
        await bench.later(1)
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)
        assert [told[3:5] for told in bench.told] == [(2, 2)]
        task.cancel()
        await asyncio.wait({task})
        bench.second.close()

    asyncio.run(story())


@pytest.mark.parametrize("raised", [OSError(5, "Input/output error"), RuntimeError("a fault of a driver"), TypeError()])
def test_whatever_goes_wrong_with_the_modem_costs_a_try_and_never_the_hub(bench: Bench, raised: Exception) -> None:
    async def story() -> None:
        send = bench.second._hand_over
        wrong = [raised]

        def hand_over(number: str, text: Any) -> None:
            if wrong:
                raise wrong.pop()
            send(number, text)

        bench.second._hand_over = hand_over  # type: ignore[method-assign]
        real = bench.second._modem
        looks = [raised]

        def modem() -> Modem:
            if looks:
                raise looks.pop()
            return real()

        bench.second._modem = modem
        await until(lambda: bench.second.problem, what="the first look tells of it")
        assert type(raised).__name__ in bench.second.problem
        bench.alarm(1)
        await bench.later(16)
        assert bench.modem.sent == []
        assert type(raised).__name__ in bench.second.problem
        await bench.later(6)
        assert [number for number, _ in bench.modem.sent] == list(NUMBERS)
        assert "Perhaps" not in bench.texts[0], "the modem was not given it"
        assert bench.second.problem == ""

    play(bench, story)


def test_a_hub_that_stops_while_the_modem_wakes_hands_nothing_over_any_more(bench: Bench) -> None:
    checks, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow(Modem):
        def check(self) -> Report:
            found = super().check()
            checks.set()
            go_on.wait(10)
            return found

        def __exit__(self, *problem: object) -> None:
            super().__exit__(*problem)
            ended.set()

    async def story() -> None:
        bench.second._modem = lambda: Slow(bench.modem.port)
        task = asyncio.create_task(bench.second.run())
        bench.alarm(1)
        bench.clock.moved_ms += 16_000
        await until(checks.is_set, what="the modem is ready")
        task.cancel()
        await asyncio.wait({task})
        bench.second.close()
        go_on.set()
        await until(ended.is_set)

    asyncio.run(story())
    assert bench.modem.sent == []


def test_a_message_whose_fate_is_unknown_is_sent_again_marked_and_soon_seldom(bench: Bench) -> None:
    async def story() -> None:
        tries = 0

        def hand_over(number: str, text: Any) -> None:
            nonlocal tries
            tries += 1
            bench.second._fit = True
            assert tries == 1 or number == NUMBERS[1] or "Perhaps sent before." in sms.decode(text)
            raise ModemFailed("it does not say", perhaps=True)

        bench.second._hand_over = hand_over  # type: ignore[method-assign]
        bench.alarm(1)
        for _ in range(60):
            await bench.later(60)
        assert 2 * (TRIES // 2) < tries < 30
        bench.second._hand_over = SecondPath._hand_over.__get__(bench.second)  # type: ignore[method-assign]
        await bench.later(600)
        assert bench.told[0][2:5] == (relay.PERHAPS_TWICE, 2, 2)

    play(bench, story)


def test_a_forged_beacon_uses_no_identity_up_that_a_true_event_will_have(bench: Bench) -> None:
    async def story() -> None:
        for number in range(1, 30):
            bench.alarm(number, badge=12, verified=False)
            bench.alarm(number, badge=12 + number, verified=False, trusted=number % 2 == 0)
        refused = bench.alarm(50, verified=False)
        bench.second.refused(12, refused)
        await bench.later(16)
        assert 4 < len(bench.texts) <= 4 + 30
        assert all("UNVERIFIED" in text for text in bench.texts)
        before = len(bench.texts)
        bench.alarm(1)  # which was told as unverified
        await bench.later(16)
        assert bench.texts[before:][0].startswith("TOCSIN SOS: Cllr A. Example")
        await bench.later(ONE_MATTER_MS / 1000)
        bench.alarm(7)  # which was over the budget of the unverified
        await bench.later(16)
        await bench.later(ONE_MATTER_MS / 1000)
        bench.alarm(50)  # which the station had refused
        await bench.later(16)
        assert [told[1] for told in bench.told if told[2] == 0] == [ident.pack(bench.boot, n) for n in (1, 7, 50)]

    play(bench, story)


def test_a_refused_beacon_takes_no_true_event_with_it_and_a_refused_forgery_is_not_told(bench: Bench) -> None:
    async def story() -> None:
        true, forged = bench.alarm(1), bench.alarm(2, badge=13, verified=False)
        bench.second.refused(12, true)
        bench.second.refused(13, forged)
        bench.alarm(2, badge=13, verified=False)
        await bench.later(16)
        assert [told[1] for told in bench.told] == [true]
        assert bench.second.pending == 0

    play(bench, story)


def test_a_true_alarm_finds_room_among_many_that_wait_and_takes_no_other_badge_s(bench: Bench) -> None:
    for number in range(1, 2 * PENDING_MAX):
        bench.alarm(number, badge=12)
    true = bench.alarm(1, badge=13)
    for number in range(1, 2 * PENDING_MAX):
        bench.alarm(number, badge=12, verified=False, trusted=True)
        last = bench.alarm(2 * PENDING_MAX + number, badge=12)
    waiting = set(bench.second._waiting)
    assert len(waiting) == PENDING_MAX
    assert {(13, true), (12, ident.pack(bench.boot, 1)), (12, last)} <= waiting
    bench.second.close()


def test_an_alarm_of_an_earlier_run_is_told_though_the_disk_was_not_read_before_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its badge may be gone, so that nothing repeats it."""
    name = ident.pack(bench.boot, 1)
    monkeypatch.setattr(keeping, "RETRY_S", 0.01)

    def started() -> Keeper:
        hub: Any = SimpleNamespace(second=bench.second, clock=bench.clock)
        hub._waiting_alarms = lambda: Hub._waiting_alarms(hub)
        hub.keeper = Keeper(
            bench.folder / "outbox.db", bench.clock, lambda _: None, lambda: None, None, lambda: Hub._restored(hub)
        )  # fmt: skip
        keeper: Keeper = hub.keeper
        keeper.load()
        return keeper

    def unreadable(_outbox: Outbox) -> list[Row]:
        raise StoreFailed("cannot read")

    async def story() -> None:
        first = started()
        first.take(12, name, relay.EVENT, kinds.SOS, b"", "{}")
        await first.close()
        with monkeypatch.context() as broken:
            broken.setattr(Outbox, "load", unreadable)
            keeper = started()
            assert keeper.problem
            assert bench.second.pending == 0
        task = asyncio.create_task(keeper.run())
        await until(lambda: bench.second.pending == 1, what="the disk is read")
        await bench.later(16)
        assert [told[1] for told in bench.told] == [name]
        task.cancel()
        await asyncio.wait({task})
        await keeper.close()

    play(bench, story)


def test_alarms_that_are_tried_in_vain_for_minutes_keep_no_new_one_waiting(bench: Bench) -> None:
    async def story() -> None:
        tried: list[int] = []

        def hand_over(number: str, text: Any) -> None:
            tried.append(next(badge for badge in range(20, 30) if f"badge {badge}," in sms.decode(text)))
            if len(tried) < 60:
                bench.clock.moved_ms += 60_000  # the modem waits so long for the network
            if len(tried) == 20:
                asyncio.run_coroutine_threadsafe(raise_one(), loop).result()
            bench.second._fit = True
            raise ModemFailed("not taken")

        async def raise_one() -> None:
            bench.alarm(1, badge=29)

        loop = asyncio.get_running_loop()
        bench.second._hand_over = hand_over  # type: ignore[method-assign]
        for badge in range(20, 25):
            bench.alarm(1, badge=badge)
        await bench.later(16)
        assert 29 in tried[20:24], "after what was being sent, and one more until its 15 s are over"
        assert {tried[-20:].count(badge) > 0 for badge in (20, 21, 22, 23, 24, 29)} == {True}, "all take turns"

    play(bench, story)
