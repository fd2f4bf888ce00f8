"""Hours without a way out, clocks that are moved, disks that are full: everything arrives, alarms first (B3, B8)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from neighbours import until
from pocket import Pocket, free_of_errors, pocket

import station.ingest.worker as ingest
from hub.app import DEAF_MS
from hub.outbox import Row
from hub.queue import ROWS_MAX, Queue
from protocol import kinds, relay

HOUR = 3600.0


def test_four_hours_without_uplink_and_a_moved_clock_lose_no_event_no_sound_and_no_time(tmp_path: Path) -> None:
    async def story(chain: Pocket) -> None:
        badge = chain.badges[0]
        chain.gate.close()
        raised: list[tuple[bytes, int, float]] = []  # which, kind, when by the clock at the end
        for hours, kind in ((4, kinds.VISIT_START), (3, kinds.BATTERY), (2, kinds.SOS), (1, kinds.LANYARD)):
            badge.kind = kinds.STATUS
            name = badge.raise_event(kind)
            for index in range(4):
                badge.speak(hours, index)
            raised.append((name, kind, time.time() - hours * HOUR))
            await until(lambda name=name: name in badge.held, what="held")  # type: ignore[misc]
            await until(lambda: not badge.unacked, what="sound held")
            if hours == 2:
                await chain.kill()  # a restart on the way changes nothing
            chain.move_clock(HOUR)
            if hours == 2:
                await chain.start_hub()
                await until(lambda: badge.established, what="a session again")
        chain.gate.open = True
        tally = await chain.settled()
        assert tally.clean, tally
        assert tally.sounds == 16
        rows = {row.ident: row for row in chain.rows()}
        order = [row.kind for row in chain.rows() if row.ident in {name for name, _, _ in raised}]
        assert order[:2] == [kinds.SOS, kinds.LANYARD], "alarms first, the older one before"
        assert order[2:] == [kinds.VISIT_START, kinds.BATTERY]
        for name, _, was in raised:
            assert abs(rows[name].raised_at - was) < 15, "when it happened, by the station's clock"
            assert not rows[name].uncertain

    async def run() -> None:
        async with pocket(tmp_path, 1) as chain:
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []

    asyncio.run(run())


def test_a_wrong_wall_clock_changes_no_time_at_the_station(tmp_path: Path) -> None:
    async def run() -> None:
        async with pocket(tmp_path, 1) as chain:
            await chain.kill()
            chain.config.write_text(chain.config.read_text().replace("[hub]\n", "[hub]\nclock_offset = -86400\n"))
            await chain.start_hub()
            badge = chain.badges[0]
            await until(lambda: badge.established, what="a session")
            name, was = badge.raise_event(kinds.SOS), time.time()
            assert (await chain.settled()).clean
            row = next(row for row in chain.rows() if row.ident == name)
            assert abs(row.raised_at - was) < 10

    asyncio.run(run())


def test_a_disk_that_takes_nothing_stops_no_alarm_and_no_badge_is_told_held(tmp_path: Path) -> None:
    async def run() -> None:
        async with pocket(tmp_path, 1) as chain:
            badge = chain.badges[0]
            chain.gate.close()
            chain.fill_disk(True)
            alarm = badge.raise_event(kinds.SOS)
            status = await chain.until_status(lambda status: "failed" in status["disk"], "it says so")
            assert alarm not in badge.held
            assert status["queue"] >= 1, "kept in memory"
            chain.gate.open = True
            await until(lambda: alarm in badge.receipted, what="sent from memory, and answered")
            assert alarm not in badge.held, "never claimed"
            chain.fill_disk(False)
            later = badge.raise_event(kinds.CHECK_IN)
            await until(lambda: later in badge.held or later in badge.receipted, what="as before")
            assert (await chain.settled()).clean

    asyncio.run(run())


def row(number: int, kind: int, form: int = relay.EVENT) -> Row:
    return Row(1, number.to_bytes(8, "big"), form, number, kind, b"", "{}", 0, "")


def test_beyond_its_quota_the_queue_lets_notes_go_first_then_events_and_never_an_alarm() -> None:
    queue = Queue()
    kept = [row(n, kinds.SOS) for n in range(1, 6)]
    for one in kept:
        queue.add(one, 0)
    note, event = row(6, kinds.BOOTED), row(7, kinds.VISIT_START)
    queue.add(event, 0)
    queue.add(note, 0)
    dropped = []
    for number in range(10, ROWS_MAX + 10):
        dropped += queue.add(row(number, kinds.CHECK_IN), 0).dropped
    assert dropped == [note, event]
    assert len(queue) > ROWS_MAX, "what is left are alarms, and none is refused"
    assert all(one.key in queue for one in kept)


FULL = """
import asyncio, json, pathlib, sys
from hub.audio import Spool
from hub.clock import Clock
from hub.keeper import Keeper
from protocol import kinds, link, relay

folder = pathlib.Path(sys.argv[1])

async def main():
    held, acked, clock = [], [], Clock()
    keeper = Keeper(folder / "outbox.db", clock, lambda row: held.append(row.ident), lambda: None)
    spool = Spool(folder / "audio.db", clock, 10**9, lambda *_: False, lambda badge, body: acked.append(body),
                  lambda: False, lambda: keeper.reserve.held)
    keeper.load(), spool.load()
    tasks = [asyncio.create_task(keeper.run()), asyncio.create_task(spool.run())]
    assert keeper.reserve.held
    # sound fills whatever there is
    for index in range(40_000):
        spool.received(1, b"bootbo", 1, index, bytes(230))
        if index % 200 == 0:
            await asyncio.sleep(0.1)
        if spool.problem:
            break
    for _ in range(300):
        if spool.problem:
            break
        await asyncio.sleep(0.1)
    filled = spool.problem
    # and somebody else the rest
    with contextlib_suppress(), (folder / "else").open("wb") as other:
        while True:
            other.write(bytes(4096))
            other.flush()
    for number in range(1, 301):
        keeper.take(1, number.to_bytes(8, "big"), relay.EVENT, kinds.SOS, bytes(80), "{}")
        await asyncio.sleep(0.001)
    for _ in range(300):
        if len(held) == 300:
            break
        await asyncio.sleep(0.1)
    before = spool.waiting()
    spool.received(1, b"bootbo", 2, 0, bytes(230))
    await asyncio.sleep(0.3)
    print(json.dumps({"filled": filled, "held": len(held), "reserve": keeper.reserve.held,
                      "more": spool.waiting() - before, "problem": keeper.problem}))

from contextlib import suppress
def contextlib_suppress():
    return suppress(OSError)
asyncio.run(main())
import os
os._exit(0)
"""


def test_a_disk_that_sound_has_filled_still_stores_alarms(tmp_path: Path) -> None:
    """On a real file system of 16 MB that really is full."""
    unshare = shutil.which("unshare")
    mount = ["-rm", "sh", "-c", 'mount -t tmpfs -o size=16m none "$0" && exec "$@"', str(tmp_path)]
    if unshare is None or subprocess.run([unshare, *mount, "true"], capture_output=True).returncode:
        pytest.skip("mounting in a namespace of one's own is not allowed here: run as root, or apt install util-linux")
    (tmp_path / "x").mkdir()
    done = subprocess.run(
        [unshare, *mount, sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "full" in said["filled"], "sound met the end of the disk first"
    assert said["held"] == 300, said
    assert said["more"] == 0, "no sound is stored while the reserve is given"
    assert not said["reserve"]


def test_a_broker_through_which_no_alarm_is_answered_is_left_though_all_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = True

    def heard(topic: str, payload: bytes) -> bool:
        if not deaf or not topic.endswith("/up/event"):
            return True
        up = relay.unpack_up(lambda _signature, _text: True, payload)
        return up.type == relay.EVENT and relay.unpack_event(up.payload)[1] not in kinds.ALARMS

    real_take, real_handle = vars(ingest)["take"], vars(ingest)["handle"]

    def take(core: Any, messages: Any, go_on: Any) -> int:
        some = [message for message in messages if heard(*message)]
        return len(messages) if not some or real_take(core, some, go_on) == len(some) else 0

    def handle(core: Any, topic: str, payload: bytes) -> None:
        if heard(topic, payload):
            real_handle(core, topic, payload)

    monkeypatch.setattr(ingest, "take", take)
    monkeypatch.setattr(ingest, "handle", handle)

    async def story(chain: Pocket) -> None:
        nonlocal deaf
        await chain.kill()
        # the same broker by another way
        text = chain.config.read_text()
        chain.config.write_text(text.replace("[mqtt]\n", f'[mqtt]\nfallback = "127.0.0.1:{chain.broker_port}"\n'))
        await chain.start_hub()
        badge = chain.badges[0]
        await until(lambda: badge.established, what="a session")
        begun = time.monotonic() + chain.moved_ms / 1000

        def gone() -> float:
            """Seconds by the hub's clock; a machine that stalls has its part in them."""
            return time.monotonic() + chain.moved_ms / 1000 - begun

        alarm = badge.raise_event(kinds.SOS)
        await until(lambda: alarm in badge.held, what="held")
        while gone() < 24:
            connections = (await chain.status())["broker"]["connections"]
            assert connections == 1 or gone() > DEAF_MS / 1000
            chain.move_clock(min(5.0, 28 - gone()))
            other = badge.raise_event(kinds.BATTERY)
            await until(lambda other=other: other in badge.receipted, what="what is no alarm is answered")  # type: ignore[misc]
        await chain.until_status(
            lambda status: status["alarm_unanswered_s"] >= 20 or gone() > DEAF_MS / 1000, "it counts the seconds"
        )
        chain.move_clock(8)
        await chain.until_status(lambda status: status["broker"]["connections"] == 2, "the other broker")
        chain.gate.close()
        deaf = False
        await until(lambda: alarm in badge.receipted, what="an answer by the other way")
        await chain.until_status(lambda status: status["alarm_unanswered_s"] == 0, "all is well")

    async def run() -> None:
        async with pocket(tmp_path, 1) as chain:
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []

    asyncio.run(run())
