"""Custody as the badge sees it: HELD is said only for what is on disk, and a broken disk stops no alarm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from neighbours import until

from hub import keeper as keeping
from hub.clock import Clock
from hub.keeper import Keeper
from hub.outbox import Key, Outbox, Row, StoreFailed
from hub.reserve import Reserve
from protocol import kinds, relay


class Bench:
    """A keeper, and a disk that can be broken."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.broken = ""
        real = Outbox.apply

        def apply(outbox: Outbox, puts: list[Row], deletes: list[Key]) -> None:
            if self.broken:
                raise StoreFailed(self.broken)
            real(outbox, puts, deletes)
            self.events += [f"disk {row.facts}" for row in puts]

        monkeypatch.setattr(Outbox, "apply", apply)
        monkeypatch.setattr(keeping, "RETRY_S", 0.01)
        self.folder = folder
        self.keeper = self.start()

    def start(self) -> Keeper:
        """As after a start of the hub."""
        keeper = Keeper(
            self.folder / "outbox.db",
            Clock(),
            lambda row: self.events.append(f"held {row.facts}"),
            lambda: self.events.append("send"),
        )
        keeper.load()
        return keeper

    def take(self, number: int, text: str = "") -> None:
        """An event from a badge."""
        ident = number.to_bytes(8, "big")
        self.keeper.take(1, ident, relay.EVENT, kinds.SOS, b"", text or str(number))

    def stored(self) -> list[str]:
        """What is on disk."""
        outbox = Outbox(self.folder / "outbox.db")
        rows = outbox.load()
        outbox.close()
        return [row.facts for row in rows]


def play(bench: Bench, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        task = asyncio.create_task(bench.keeper.run())
        await story()
        task.cancel()
        await asyncio.wait({task})
        await bench.keeper.close()

    asyncio.run(run())


def test_it_is_sent_at_once_and_held_once_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        bench.take(1)
        assert bench.events == ["send"]
        await until(lambda: "held 1" in bench.events)

    bench = Bench(tmp_path, monkeypatch)
    play(bench, story)
    assert bench.events == ["send", "disk 1", "held 1"]


def test_a_full_disk_is_told_and_nothing_is_held_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        bench.broken = "disk full"
        bench.take(1)
        bench.take(2)
        await until(lambda: bench.keeper.problem)
        await asyncio.sleep(0.05)
        assert bench.keeper.problem == "disk full"
        assert len(bench.keeper.queue.due(10**12, 9)) == 2
        assert not [event for event in bench.events if event.startswith("held")]
        bench.keeper.retire(1, (1).to_bytes(8, "big"), (relay.EVENT,))
        bench.take(2, "2 fresher")
        await asyncio.sleep(0.05)  # a write that was under way has failed
        bench.broken = ""
        await until(lambda: "held 2 fresher" in bench.events)
        assert bench.keeper.problem == ""

    bench = Bench(tmp_path, monkeypatch)
    play(bench, story)
    assert bench.stored() == ["2 fresher"]


def test_the_reserve_is_given_in_the_thread_of_the_disk_which_may_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave: list[str] = []

    def give(reserve: Reserve) -> bool:
        gave.append(threading.current_thread().name)
        bench.broken = ""
        return real(reserve)

    real = Reserve.give
    monkeypatch.setattr(Reserve, "give", give)

    async def story() -> None:
        bench.broken = "disk full"
        bench.take(1)
        await until(lambda: "held 1" in bench.events)

    bench = Bench(tmp_path, monkeypatch)
    play(bench, story)
    assert bench.stored() == ["1"]
    assert [name.startswith("outbox") for name in gave] == [True]


def test_a_disk_that_cannot_be_read_at_the_start_is_read_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def before() -> None:
        bench.take(1, "of an earlier run")
        await until(lambda: "held of an earlier run" in bench.events)

    async def story() -> None:
        bench.take(2)
        await asyncio.sleep(0.05)
        assert "held 2" not in bench.events
        monkeypatch.setattr(Outbox, "load", real)
        await until(lambda: "held 2" in bench.events)
        assert {row.facts for row in bench.keeper.queue.rows()} == {"of an earlier run", "2"}

    def unreadable(outbox: Outbox) -> list[Row]:
        raise StoreFailed("cannot read")

    bench = Bench(tmp_path, monkeypatch)
    play(bench, before)
    real = Outbox.load
    monkeypatch.setattr(Outbox, "load", unreadable)
    bench.keeper = bench.start()
    assert bench.keeper.problem == "cannot read"
    play(bench, story)


def test_an_outbox_that_is_damaged_while_it_runs_is_written_anew_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        for number in range(1, 30):
            bench.take(number)
        await until(lambda: "held 29" in bench.events)
        await asyncio.get_running_loop().run_in_executor(bench.keeper._thread, bench.keeper._outbox.close)
        (tmp_path / "outbox.db").write_bytes(b"damaged" * 4000)
        bench.take(99)
        await until(lambda: "held 99" in bench.events)

    bench = Bench(tmp_path, monkeypatch)
    play(bench, story)
    assert bench.stored() == [str(number) for number in [*range(1, 30), 99]]
    assert bench.keeper.set_aside is not None


def test_what_waited_when_the_hub_died_is_sent_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        bench.take(1)
        bench.take(2)
        await until(lambda: "held 2" in bench.events)
        bench.keeper.retire(1, (1).to_bytes(8, "big"), (relay.EVENT,))

    bench = Bench(tmp_path, monkeypatch)
    play(bench, story)
    again = bench.start()
    rows = again.queue.due(10**12, 9)
    assert [row.facts for row in rows] == ["2"]
    held_ms, certain = again.held(rows[0])
    assert certain
    assert 0 <= held_ms < 10_000


def test_how_long_it_was_held_is_unknown_after_the_machine_was_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        bench.take(1)
        await until(lambda: "held 1" in bench.events)

    bench = Bench(tmp_path, monkeypatch)
    play(bench, story)
    again = bench.start()
    again._clock.run = "another run of the machine"
    assert again.held(again.queue.due(10**12, 9)[0])[1] is False
