"""Sound: what the badge is told to forget is stored, what is stored reaches the station, whatever breaks."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import audio
from hub.audio import Packets, Spool
from hub.audiostore import AudioStore
from hub.clock import Clock
from hub.ranges import Ranges
from protocol import link

BOOT = b"\x00\x01boot"


class Watch(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000

    def now_ms(self) -> int:
        return self.now


class Line:
    """The way to the station and back to the badge."""

    def __init__(self) -> None:
        self.up = True
        self.sent: list[tuple[int, bytes]] = []
        self.acks: list[tuple[bytes, int, int, int]] = []
        self.claimed: set[int] = set()  # what the badge forgets: never what it has not sent to this hub
        self.sent_here: set[int] = set()
        self.landing: list[Callable[[], None]] = []
        self.lands = True
        self.alarm = False

    def publish(self, badge: int, boot: bytes, capture: int, packets: Packets, done: Callable[[], None]) -> bool:
        if not self.up:
            return False
        self.sent += packets
        if self.lands:
            done()
        else:
            self.landing.append(done)
        return True

    def acknowledge(self, badge: int, body: bytes) -> None:
        ack = link.unpack_audio_ack(body)
        self.acks.append(ack)
        told = set(range(ack[2])) | {ack[2] + 1 + bit for bit in range(64) if ack[3] >> bit & 1}
        self.claimed |= told & self.sent_here


def spool(folder: Path, line: Line, clock: Clock) -> Spool:
    made = Spool(folder / "audio.db", clock, 10**9, line.publish, line.acknowledge, lambda: line.alarm)
    made.load()
    return made


async def rounds(made: Spool, count: int = 1) -> None:
    """What run() does, without its pauses."""
    for _ in range(count):
        made._send_live()
        await made._commit()
        await made._send_backlog()


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 59), max_size=40),
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["round", "kill", "down", "up", "receipt"]), max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_every_packet_reaches_the_station_and_none_is_forgotten_too_soon(
    count: int, repeats: list[int], seed: int, breaks: list[str]
) -> None:
    chance = random.Random(seed)
    order = [*range(count), *(n for n in repeats if n < count)]
    chance.shuffle(order)
    cuts = sorted(chance.randrange(len(order) + 1) for _ in breaks)

    async def play(folder: Path) -> None:
        line, clock = Line(), Watch()
        made = spool(folder, line, clock)
        stored: set[int] = set()
        at = 0
        for cut, happens in [*zip(cuts, breaks, strict=True), (len(order), "round")]:
            for index in order[at:cut]:
                line.sent_here.add(index)
                made.received(1, BOOT, 1, index, bytes([index]))
            at = cut
            if happens in ("down", "up"):
                line.up = happens == "up"
                made.connected()
            elif happens == "kill":
                # nothing that was not committed survives; what the badge was told of must
                line.sent_here.clear()
                made._store.close()
                made = spool(folder, line, clock)
            elif happens == "receipt" and line.sent:
                made.receipt(1, BOOT, 1, [(index, index) for index, _ in line.sent])
            await rounds(made)
            on_disk = AudioStore(folder / "audio.db").load()
            stored |= {p for positions in on_disk.values() for p in positions} | {index for index, _ in line.sent}
            assert line.claimed <= stored
            clock.now += 100
        line.up = True
        made.connected()
        for index in sorted(set(range(count)) - line.claimed):  # the badge sends again what was not acknowledged
            line.sent_here.add(index)
            made.received(1, BOOT, 1, index, bytes([index]))
        for _ in range(6):
            await rounds(made)
            clock.now += audio.RESEND_MS
        assert dict(line.sent) == {index: bytes([index]) for index in range(count)}
        assert line.claimed == set(range(count))
        made.receipt(1, BOOT, 1, [(0, count)])
        await rounds(made)
        assert made.waiting() == 0
        await made.close()
        assert AudioStore(folder / "audio.db").load() == {}

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


def test_live_sound_leaves_before_it_is_stored(tmp_path: Path) -> None:
    async def play() -> None:
        line = Line()
        made = spool(tmp_path, line, Watch())
        made.received(1, BOOT, 1, 0, b"now")
        made._send_live()
        assert line.sent == [(0, b"now")]
        assert line.acks == []
        await rounds(made)
        assert line.acks == [(BOOT, 1, 1, 0)]

    asyncio.run(play())


def test_the_backlog_waits_while_an_alarm_waits_and_live_sound_does_not(tmp_path: Path) -> None:
    async def play() -> None:
        line, clock = Line(), Watch()
        line.up = False
        made = spool(tmp_path, line, clock)
        for index in range(20):
            made.received(1, BOOT, 1, index, b"old")
        await rounds(made)
        line.up, line.alarm = True, True
        made.connected()
        made.received(1, BOOT, 1, 20, b"live")
        await rounds(made)
        assert line.sent == [(20, b"live")]
        line.alarm = False
        await rounds(made, 2)
        assert dict(line.sent).keys() == set(range(21))

    asyncio.run(play())


def test_a_slow_network_gets_no_more_than_it_takes(tmp_path: Path) -> None:
    async def play() -> None:
        line, clock = Line(), Watch()
        line.up = False
        made = spool(tmp_path, line, clock)
        for index in range(1000):
            made.received(1, BOOT, 1, index, bytes(200))
        await rounds(made)
        line.up, line.lands = True, False
        made.connected()
        await rounds(made, 5)
        flying = sum(len(sealed) for _, sealed in line.sent)
        assert flying <= audio.BACKLOG_BYTES + audio.BATCH * 255
        while line.landing:
            line.landing.pop(0)()
            await rounds(made)
        assert len(dict(line.sent)) == 1000

    asyncio.run(play())


def test_a_capture_that_began_with_another_hub_is_acknowledged_from_its_lowest_packet(tmp_path: Path) -> None:
    async def play() -> None:
        line, clock = Line(), Watch()
        made = spool(tmp_path, line, clock)
        made.received(1, BOOT, 1, 700, b"lead")
        made.received(1, BOOT, 1, 703, b"live")
        await rounds(made)
        assert line.acks == [(BOOT, 1, 701, 0b10)]
        made.received(1, BOOT, 1, 699, b"came late")
        made.received(1, BOOT, 1, 701, b"next")
        clock.now += audio.ACK_MS
        await rounds(made)
        assert line.acks[1:] == [(BOOT, 1, 702, 0b1)]

    asyncio.run(play())


def test_packets_that_are_nowhere_any_more_are_not_waited_for(tmp_path: Path) -> None:
    async def play() -> None:
        line, clock = Line(), Watch()
        made = spool(tmp_path, line, clock)
        for index in (0, 1, 150, 151):
            made.received(1, BOOT, 1, index, b"x")
        await rounds(made)
        assert line.acks[-1] == (BOOT, 1, 2, 0)
        made.skipped(1, BOOT, 1, 150)
        await rounds(made)
        assert line.acks[-1] == (BOOT, 1, 152, 0)
        made.skipped(1, BOOT, 9, 150)  # of a capture that never came here

    asyncio.run(play())


RATE = 40  # packets a second


async def speech(folder: Path, seconds: int, lost: frozenset[int] = frozenset()) -> tuple[Line, int, dict[int, int]]:
    """A badge speaks, the hub's rounds come as they do; what was said to the badge, the most that it had to keep, and
    after how many ms a lost packet was asked for."""
    line, clock = Line(), Watch()
    made = spool(folder, line, clock)
    kept = told = index = 0
    asked: dict[int, int] = {}
    when: dict[int, int] = {}
    began = clock.now
    while clock.now < began + 1000 * seconds:
        clock.now += int(1000 * audio.TICK_S)
        while index < (clock.now - began) * RATE // 1000:
            if index not in lost:
                made.received(1, BOOT, 1, index, bytes(200))
            elif index not in when:
                when[index] = clock.now
            index += 1
        await rounds(made)
        for _, _, following, beyond in line.acks[told:]:
            if beyond and following in lost and following not in asked:
                asked[following] = clock.now - when[following]
                made.received(1, BOOT, 1, following, bytes(200))
        told = len(line.acks)
        if line.acks:
            kept = max(kept, index - line.acks[-1][2])
    await made.close()
    return line, kept, asked


def test_a_badge_that_speaks_is_written_to_a_few_times_a_second_and_never_keeps_more_than_its_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("now", "each"):
        (tmp_path / folder).mkdir()
    line, kept, _ = asyncio.run(speech(tmp_path / "now", 30))
    assert len(line.acks) / 30 <= 4.5
    assert kept <= 30 - 8, "packets that wait in its memory before it writes to flash, and those on their way (200 ms)"
    assert line.acks[0][2] <= 4, "of the first it hears at once: it sends them again after 300 ms"
    monkeypatch.setattr(audio, "ACK_MS", 0)
    before, kept_before, _ = asyncio.run(speech(tmp_path / "each", 30))
    assert len(before.acks) / 30 >= 12, "one for each batch, as it was"
    assert kept_before <= kept


def test_a_gap_is_told_at_once_whatever_else_is_held_back(tmp_path: Path) -> None:
    lost = frozenset(range(40, 1000, 37))
    line, _, asked = asyncio.run(speech(tmp_path, 25, lost))
    assert asked.keys() == lost
    # noticed by the packet after it, and told with the batch in which that comes
    assert max(asked.values()) <= 2000 * audio.TICK_S
    assert line.acks[-1][2] >= 25 * RATE - audio.ACK_PACKETS - 4


def test_an_acknowledgement_that_was_lost_is_repeated_while_sound_comes(tmp_path: Path) -> None:
    async def play() -> None:
        line, clock = Line(), Watch()
        made = spool(tmp_path, line, clock)
        made.received(1, BOOT, 1, 0, b"x")
        await rounds(made, 3)
        assert len(line.acks) == 1
        for _ in range(30):
            clock.now += 500
            await rounds(made)
        assert len(line.acks) == 1 + audio.ACTIVE_MS // audio.REPEAT_MS - 1
        assert len(set(line.acks)) == 1

    asyncio.run(play())


@given(st.lists(st.one_of(st.integers(0, 40), st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()))))
def test_ranges_are_a_set_of_numbers(changes: list[int | tuple[int, int, bool]]) -> None:
    ranges, model = Ranges(), set[int]()
    for change in changes:
        if isinstance(change, int):
            ranges.add(change)
            model.add(change)
        elif change[2]:
            ranges.fill(change[0], change[1])
            model |= set(range(change[0], change[1]))
        else:
            ranges.remove(change[0], change[1])
            model -= set(range(change[0], change[1] + 1))
    assert list(ranges) == sorted(model)
    assert len(ranges) == len(model)
    assert bool(ranges) == bool(model)
    for number in range(-1, 43):
        assert (number in ranges) == (number in model)
        assert ranges.following(number) == min((n for n in model if n >= number), default=None)
    if model:
        missing = ranges.first_missing()
        assert missing not in model
        assert set(range(min(model), missing)) <= model


def test_sound_that_finds_no_room_on_disk_goes_on_live_and_stays_on_the_badge(tmp_path: Path) -> None:
    async def play() -> None:
        line = Line()
        made = spool(tmp_path, line, Watch())
        made.full = True
        made.received(1, BOOT, 1, 0, b"live")
        await rounds(made)
        assert line.sent == [(0, b"live")]
        assert line.acks == []

    asyncio.run(play())


def test_a_damaged_store_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "audio.db").write_bytes(b"damaged" * 1000)

    async def play() -> None:
        line = Line()
        made = spool(tmp_path, line, Watch())
        line.sent_here.add(0)
        made.received(1, BOOT, 1, 0, b"new")
        await rounds(made)
        assert line.claimed == {0}
        await made.close()

    asyncio.run(play())
    assert (tmp_path / "audio.db.damaged-1").exists()
