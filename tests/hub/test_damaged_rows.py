"""A row of the outbox that the disk has damaged costs its facts at most: no other event, no start, no secret (B3)."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import modem_emulator
import pytest
from neighbours import until
from pocket import Pocket, free_of_errors, pocket
from second_path_bench import NUMBERS, Bench

from hub.clock import Clock
from hub.keeper import Keeper
from hub.outbox import Outbox, Row, words
from protocol import kinds, relay

FACTS = (
    '{"wall":1763750000.5,"rssi":-60,"place":{"lat":52.9225,"lon":-1.4746,"age":3.5,"source":"nmea","accuracy":10.0}}'
)
DAMAGES = (  # one byte each
    lambda text: text.replace(b"{", b";", 1),
    lambda text: text.replace(b"place", b"pl\xecce"),
    lambda text: text.replace(b'"lat"', b'"lbt"'),
    lambda text: text.replace(b"52.9225", b"52e9225"),
    lambda text: text.replace(b'"age":0', b'"age":}'),
)


def damage(path: Path) -> None:
    """Change one byte in the facts of each row, each in another way."""
    with closing(sqlite3.connect(path)) as database, database:
        rows = database.execute("SELECT badge, ident, form, CAST(facts AS BLOB) FROM outbox ORDER BY position")
        for number, (*key, facts) in enumerate(rows.fetchall()):
            assert b"place" in facts
            damaged = DAMAGES[number % len(DAMAGES)](facts)
            assert damaged != facts
            database.execute(
                "UPDATE outbox SET facts = CAST(? AS TEXT) WHERE badge = ? AND ident = ? AND form = ?", (damaged, *key)
            )
        assert number + 1 >= len(DAMAGES)


@pytest.mark.parametrize("with_modem", [False, True])
def test_a_hub_starts_sends_and_keeps_its_promises_with_any_byte_of_the_facts_wrong(
    tmp_path: Path, with_modem: bool
) -> None:
    modem = modem_emulator.Modem()
    extra = '[location]\nfixed = "52.9225,-1.4746"\n'
    if with_modem:
        extra += f'[second_path]\nmodem = "{modem.port}"\nnumbers = ["{NUMBERS[0]}"]\n'

    async def story(chain: Pocket) -> None:
        badge = chain.badges[0]
        chain.gate.close()
        raised = [badge.raise_event(kind) for kind in (kinds.SOS, *[kinds.CHECK_IN] * len(DAMAGES), kinds.LANYARD)]
        await until(lambda: set(raised) <= badge.held, what="held, and so forgotten by the badge")
        badge.kind = kinds.STATUS
        await chain.kill()
        damage(tmp_path / "hub/outbox.db")
        await chain.start_hub()
        await until(lambda: badge.established, what="a session: the hub has started")
        later = badge.raise_event(kinds.CHECK_IN)
        await until(lambda: later in badge.held, what="it promises as before")
        assert (await chain.status())["disk"] == "ok"
        if with_modem:
            chain.move_clock(16)
            await until(lambda: modem.sent, what="a message without the place")
            assert "SOS" in modem.sent[0][1]
            assert "Place unknown." in modem.sent[0][1]
        chain.gate.open = True
        await until(lambda: {*raised, later} <= badge.receipted, what="everything is at the station")
        assert (await chain.settled()).clean

    async def run() -> None:
        async with pocket(tmp_path, 1, extra) as chain:
            await story(chain)
        assert free_of_errors(tmp_path / "hub.log") == []
        log = (tmp_path / "hub.log").read_text()
        assert "52." not in log
        assert "1.4746" not in log

    try:
        asyncio.run(run())
    finally:
        modem.close()


def test_whatever_byte_of_a_row_is_flipped_what_is_left_of_it_can_be_sent_told_and_stored_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, payload = tmp_path / "good.db", bytes(range(100, 140))
    outbox = Outbox(good)
    outbox.load()
    name = bytes(range(1, 9))
    outbox.apply([Row(12, name, relay.EVENT, 7, kinds.SOS, payload, FACTS, 5000, Clock().run)], [])
    outbox.close()
    content = good.read_bytes()
    end = content.index(payload)
    start, stop = content.index(name) - 16, end + len(payload) + len(FACTS) + 40
    bench = Bench(tmp_path)
    outcomes = {"sent": 0, "left": 0, "set aside": 0, "without facts": 0}
    try:
        for at in range(start, min(stop, len(content))):
            for flip in (0x01, 0x40, 0x80):
                folder = tmp_path / f"{at}-{flip}"
                folder.mkdir()
                (folder / "outbox.db").write_bytes(content[:at] + bytes((content[at] ^ flip,)) + content[at + 1 :])
                outcomes[_outcome(folder / "outbox.db", bench)] += 1
                shutil.rmtree(folder)
    finally:
        bench.modem.close()
    assert outcomes["sent"] > 300, outcomes
    assert outcomes["without facts"] > 20, outcomes
    assert outcomes["left"] > 0, outcomes
    assert outcomes["set aside"] > 0, outcomes
    assert "52." not in caplog.text


def _outcome(path: Path, bench: Bench) -> str:
    """What became of a row: everything that a hub does with it is done here."""
    keeper = Keeper(path, bench.clock, lambda row: None, lambda: None)
    keeper.reserve.hold = lambda: False  # type: ignore[method-assign]
    keeper.load()
    assert keeper.problem == ""
    rows = keeper.queue.due(1 << 60, 10)
    for row in rows:
        held_ms, _ = keeper.held(row)
        up = relay.Up(row.form, bytes(8), 1, 1, held_ms, 0, b"", row.payload)
        assert relay.unpack_up(lambda *_: True, relay.pack_up(lambda text: bytes(64), up)).type == row.form
        second = bench.start()
        since_ms = bench.clock.now_ms() - held_ms
        second.resume([(row.badge, row.ident, kinds.SOS, row.place(), row.form == relay.EVENT, since_ms)])
        for waiting in second._waiting.values():
            second._text(waiting)
            second._finish(waiting, always=True)
        second.close()
    fresh = keeper.take(1, b"freshest", relay.EVENT, kinds.SOS, b"", "{}")
    keeper._outbox.apply([*rows, fresh], [])
    assert fresh.key in {row.key for row in keeper._outbox.load()}
    keeper._outbox.close()
    keeper._thread.shutdown()
    if not rows:
        return "set aside" if keeper.set_aside else "left"
    return "sent" if rows[0].known() else "without facts"


def test_an_error_that_quotes_a_row_is_told_in_other_words(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        with pytest.raises(sqlite3.Error, match="secret") as quoting:
            database.execute("SELECT CAST(x'736563726574ec' AS TEXT)").fetchall()
        with pytest.raises(sqlite3.Error) as own:
            database.execute("SELECT * FROM nowhere")
    assert words(quoting.value) == "cannot be read"
    assert words(own.value) == "no such table: nowhere"
