"""Sound through the hub: live at once, stored at the same time, and sent again until the station has it.

The hub cannot hear what it carries. A packet is published in the next batch after it came, whether it is stored yet
or not; the badge is told of it (AUDIO_ACK) when it is stored, and may then forget it; the station's receipt deletes
it here. What was not delivered live goes out as backlog, when no alarm waits and the network has room.

A capture may have begun with another hub, or before this one was killed. So what is acknowledged begins with the lowest
packet that came: the badge, which sends its oldest one first, has got rid of everything below it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hub.audiostore import AudioStore, CaptureKey, Change
from hub.clock import Clock
from hub.outbox import StoreFailed
from hub.ranges import Ranges
from protocol import link

logger = logging.getLogger("hub.audio")

Packets = list[tuple[int, bytes]]

TICK_S = 0.08  # a batch holds the three or four packets of this time; more would be felt as delay
BATCH = 8  # packets in one message: about 2 kB
LIVE_BYTES = 65_536  # given to the broker and not yet taken by it; beyond this even live sound waits its turn
BACKLOG_BYTES = 16_384  # the same for backlog: what an alarm may find before it on a slow network
RESEND_MS = 4000  # until a packet without receipt is sent again
# Each acknowledgement is a write to the badge, on BlueZ a round trip over D-Bus. So several batches have one, while the
# badge keeps less than it moves to flash (30 packets); of a new gap, and of the first packets, it hears at once.
ACK_MS = 240
ACK_PACKETS = 10
REPEAT_MS = 1000  # acknowledgements may be lost: the last one is repeated
ACTIVE_MS = 10_000  # while packets of the capture came in this time
UNSTORED_MAX = 2400  # packets kept in memory while the disk fails: a minute of one badge
GAPS_MAX = 1000  # in one capture; a badge that leaves more sends again what it did not get acknowledged
USED_EVERY_S = 5.0
IDLE_MS = 600_000  # a capture that is delivered and silent is forgotten


@dataclass
class _Capture:
    key: CaptureKey
    have: Ranges = field(default_factory=Ranges)  # stored here at some time, also what is delivered since
    stored: Ranges = field(default_factory=Ranges)  # on disk, and not delivered
    unstored: dict[int, bytes] = field(default_factory=dict)
    live: Packets = field(default_factory=list)
    delivered: list[tuple[int, int]] = field(default_factory=list)
    sent: dict[int, int] = field(default_factory=dict)
    cursor: int = 0
    touched_ms: int = 0
    acknowledged_ms: int = -ACK_MS
    acknowledge: bool = False
    fresh: int = 0  # packets that came since the last acknowledgement
    gaps: int = 0  # those that the badge was told of


class Spool:
    """Sound of all badges.

    `publish(badge, boot, capture, packets, done)` gives a message to the broker and calls `done` when the broker has
    it; False when it cannot now. `acknowledge(badge, body)` sends an AUDIO_ACK. `alarm_waits()` holds the backlog
    back. `room()`: whether the disk has room for anything but alarms. `problem` is what is wrong with the disk, or "".
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        max_bytes: int,
        publish: Callable[[int, bytes, int, Packets, Callable[[], None]], bool],
        acknowledge: Callable[[int, bytes], None],
        alarm_waits: Callable[[], bool],
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.problem = ""
        self.full = False
        self._store = AudioStore(path)
        self._clock = clock
        self._max_bytes = max_bytes
        self._publish = publish
        self._acknowledge = acknowledge
        self._alarm_waits = alarm_waits
        self._room = room
        self._captures: dict[CaptureKey, _Capture] = {}
        self._flying = 0
        self._epoch = 0
        self._loaded = False
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "audio")
        self._measured = float("-inf")

    def load(self) -> None:
        """Read what an earlier run left; never raises for a bad file or disk."""
        try:
            self._restore(self._store.load())
        except StoreFailed as failed:
            self._failed(failed)
        if self._store.set_aside:
            logger.warning("disk: the sound store was damaged and is set aside as %s", self._store.set_aside.name)
        self._wake.set()

    def _restore(self, stored: dict[CaptureKey, list[int]]) -> None:
        """Packets on disk join what has come since."""
        self._loaded = True
        for key, positions in stored.items():
            capture = self._captures.setdefault(key, _Capture(key, touched_ms=self._clock.now_ms() - ACTIVE_MS))
            for position in positions:
                capture.have.add(position)
                capture.stored.add(position)

    def waiting(self) -> int:
        """Packets that the station has not confirmed."""
        return sum(len(c.stored) + len(c.unstored) for c in self._captures.values())

    def received(self, badge: int, boot: bytes, number: int, index: int, sealed: bytes) -> None:
        """A packet from a badge, in any order, any number of times."""
        key = (badge, boot, number)
        capture = self._captures.get(key)
        if capture is None:
            capture = self._captures[key] = _Capture(key)
        capture.touched_ms = self._clock.now_ms()
        capture.acknowledge = True
        capture.fresh += 1
        self._wake.set()
        if index in capture.have or index in capture.unstored:
            return
        capture.live.append((index, sealed))
        if self.full or not self._room() or capture.have.gaps() >= GAPS_MAX:
            return  # not stored, so not acknowledged: the badge keeps it
        capture.unstored[index] = sealed
        if self.problem and len(capture.unstored) > UNSTORED_MAX:
            del capture.unstored[min(capture.unstored)]

    def skipped(self, badge: int, boot: bytes, number: int, index: int) -> None:
        """The badge has no packet below this one any more: another hub took them, and nobody need wait for them."""
        capture = self._captures.get((badge, boot, number))
        if capture is None or not capture.have:
            return
        capture.have.fill(capture.have.first_missing(), index)
        capture.touched_ms = self._clock.now_ms()
        capture.acknowledge = True
        capture.fresh += ACK_PACKETS  # it waits for the answer
        self._wake.set()

    def receipt(self, badge: int, boot: bytes, number: int, ranges: list[tuple[int, int]]) -> None:
        """The station has these packets: first and last number of each range."""
        capture = self._captures.get((badge, boot, number))
        if capture is None:
            return
        for first, last in ranges:
            capture.stored.remove(first, last)
            for index in [index for index in capture.sent if first <= index <= last]:
                del capture.sent[index]
            capture.delivered.append((first, last))
        self._wake.set()

    def connected(self) -> None:
        """The broker is there (again): what flew is lost, the backlog begins from its start."""
        self._flying = 0
        self._epoch += 1
        for capture in self._captures.values():
            capture.cursor = 0
        self._wake.set()

    async def run(self) -> None:
        """Batch, store, acknowledge and send for ever; cancel it to stop, then call close()."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(TICK_S)
            self._wake.clear()
            self._send_live()
            await self._commit()
            await self._send_backlog()
            self._forget()
            if self._captures or not self._loaded:
                self._wake.set()

    async def close(self) -> None:
        """Store what is left, if the disk takes it, and close the file."""
        await self._commit()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    # ------------------------------------------------------------------ sending

    def _send(self, capture: _Capture, packets: Packets) -> bool:
        size = sum(len(sealed) + 5 for _, sealed in packets)
        epoch = self._epoch

        def done() -> None:
            if epoch == self._epoch:
                self._flying -= size

        badge, boot, number = capture.key
        if not self._publish(badge, boot, number, packets, done):
            return False
        self._flying += size
        now = self._clock.now_ms()
        for index, _ in packets:
            capture.sent[index] = now
        return True

    def _send_live(self) -> None:
        for capture in self._captures.values():
            live, capture.live = capture.live, []
            for start in range(0, len(live), BATCH):
                if self._flying >= LIVE_BYTES or not self._send(capture, live[start : start + BATCH]):
                    break  # it is stored, and goes out as backlog

    async def _send_backlog(self) -> None:
        now = self._clock.now_ms()
        for capture in list(self._captures.values()):
            while capture.stored and self._flying < BACKLOG_BYTES and not self._alarm_waits():
                wanted = self._overdue(capture, now)
                if not wanted:
                    break
                loop = asyncio.get_running_loop()
                try:
                    packets = await loop.run_in_executor(self._thread, self._store.read, capture.key, wanted)
                except StoreFailed as failed:
                    self._failed(failed)
                    return
                if not packets:
                    capture.stored.remove(wanted[0], wanted[-1])  # set aside with a damaged file
                elif not self._send(capture, packets):
                    capture.cursor = wanted[0]
                    return

    def _overdue(self, capture: _Capture, now_ms: int) -> list[int]:
        """The next packets of the backlog; the search goes on where it ended."""
        wanted: list[int] = []
        for _ in range(BATCH + len(capture.sent) + 1):
            index = capture.stored.following(capture.cursor)
            if index is None:
                capture.cursor = 0
                break
            capture.cursor = index + 1
            if now_ms - capture.sent.get(index, now_ms - RESEND_MS) >= RESEND_MS:
                wanted.append(index)
                if len(wanted) == BATCH:
                    break
        return wanted

    # ------------------------------------------------------------------ storing

    async def _commit(self) -> None:
        changes: dict[CaptureKey, Change] = {}
        for key, capture in self._captures.items():
            if capture.unstored or capture.delivered:
                changes[key] = Change(list(capture.unstored.items()), capture.delivered)
                capture.delivered = []
        if changes or not self._loaded:
            loop = asyncio.get_running_loop()
            try:
                if not self._loaded:
                    self._restore(await loop.run_in_executor(self._thread, self._store.load))
                await loop.run_in_executor(self._thread, self._store.apply, changes)
            except StoreFailed as failed:
                self._failed(failed)
                for key, change in changes.items():
                    self._captures[key].delivered[:0] = change.delivered
                return
            if self.problem:
                logger.info("disk: takes sound again")
                self.problem = ""
            for key, change in changes.items():
                _stored(self._captures[key], change)
            await self._measure()
        for capture in self._captures.values():
            self._acknowledge_what_is_stored(capture)

    def _acknowledge_what_is_stored(self, capture: _Capture) -> None:
        now = self._clock.now_ms()
        waited = now - capture.acknowledged_ms
        repeat = now - capture.touched_ms < ACTIVE_MS and waited >= REPEAT_MS
        gaps = capture.have.gaps()
        due = capture.acknowledge and (waited >= ACK_MS or capture.fresh >= ACK_PACKETS or gaps > capture.gaps)
        if not capture.have or not (due or repeat):
            return
        capture.acknowledge = False
        capture.acknowledged_ms = now
        capture.fresh, capture.gaps = 0, gaps
        badge, boot, number = capture.key
        following = capture.have.first_missing()
        beyond = sum(1 << bit for bit in range(64) if following + 1 + bit in capture.have)
        self._acknowledge(badge, link.pack_audio_ack(boot, number, following, beyond))

    async def _measure(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._measured < USED_EVERY_S:
            return
        self._measured = now
        try:
            used = await asyncio.get_running_loop().run_in_executor(self._thread, self._store.used)
        except StoreFailed as failed:
            self._failed(failed)
            return
        if self.full != (used > self._max_bytes):
            self.full = not self.full
            if self.full:
                logger.warning("sound takes %d MB: no more is stored until the station has some", used // 1_000_000)

    def _forget(self) -> None:
        now = self._clock.now_ms()
        for key, capture in list(self._captures.items()):
            idle = not (capture.live or capture.unstored or capture.stored or capture.delivered)
            if idle and now - capture.touched_ms > IDLE_MS:
                del self._captures[key]

    def _failed(self, failed: StoreFailed) -> None:
        if not self.problem:
            logger.warning("disk: %s; sound goes on live and stays on the badge", failed)
        self.problem = str(failed)


def _stored(capture: _Capture, change: Change) -> None:
    """A change is on disk."""
    delivered = change.delivered + capture.delivered
    for index, _ in change.packets:
        capture.unstored.pop(index, None)
        capture.have.add(index)
        if not any(first <= index <= last for first, last in delivered):
            capture.stored.add(index)
