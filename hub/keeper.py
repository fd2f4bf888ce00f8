"""Custody: what this hub promised to carry, in memory for speed and on disk for the promise.

A row is sent at once and stored at the same time; the badge hears HELD only when it is stored. Writing goes on in one
thread, so rows and receipts that come while the disk is busy share its next transaction. A disk that fails or fills
takes nothing away from an alarm: it goes on from memory, without HELD, the badge keeps it too, and everything is
written as soon as the disk is back. Before that, a full disk is given the reserve that was kept for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hub.clock import Clock
from hub.outbox import Key, Outbox, Row, StoreFailed
from hub.queue import Queue
from hub.reserve import Reserve
from protocol import kinds

logger = logging.getLogger("hub.outbox")

RETRY_S = 1.0  # until a disk that failed is tried again: a person frees space in minutes, a drill in seconds
RESERVE_S = 10.0  # until it is tried to have a reserve again


class Keeper:
    """The outbox as the rest of the hub uses it.

    `on_stored(row)` is called when a row is on disk; `on_work()` when there is something to send; `on_loaded()`, once,
    when what an earlier run left behind is in the queue. `problem` is what is wrong with the disk, or "".
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        on_stored: Callable[[Row], None],
        on_work: Callable[[], None],
        reserve: Reserve | None = None,
        on_loaded: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue = Queue()
        self.reserve = reserve or Reserve(path.with_name("reserve"))
        self.problem = ""
        self.set_aside: Path | None = None
        self._outbox = Outbox(path)
        self._clock = clock
        self._on_stored = on_stored
        self._on_work = on_work
        self._on_loaded = on_loaded
        self._puts: dict[Key, Row] = {}
        self._deletes: set[Key] = set()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._loaded = False
        self._loaded_ms = clock.now_ms()

    def load(self) -> None:
        """Read what an earlier run left behind; never raises for a bad file or disk, and tries again then."""
        try:
            self.queue.restore(self._outbox.load(), self._clock.now_ms())
            self._loaded = True
            self._on_loaded()
        except StoreFailed as failed:
            self._failed(failed)
            self._wake.set()
        self._note_damage()
        self.reserve.hold()

    def take(self, badge: int, ident: bytes, form: int, kind: int, payload: bytes, facts: str) -> Row:
        """Take an event, or a fresher copy of one: to be sent now, and stored."""
        clock = self._clock
        place = self.queue.place(badge, ident, form)
        row = Row(badge, ident, form, place, kind, payload, facts, clock.now_ms(), clock.run)
        for dropped in self.queue.add(row, clock.now_ms()).dropped:
            logger.warning("outbox full: a waiting %s of badge %d made room", kinds.name(dropped.kind), dropped.badge)
            self._puts.pop(dropped.key, None)
            self._deletes.add(dropped.key)
        if row.key in self.queue:
            self._puts[row.key] = row
            self._deletes.discard(row.key)
        self._wake.set()
        self._on_work()
        return row

    def retire(self, badge: int, ident: bytes, forms: tuple[int, ...]) -> int:
        """The station has answered for an event: its rows may go. Gives how many there were."""
        keys = self.queue.retire(badge, ident, forms)
        for key in keys:
            self._puts.pop(key, None)
            self._deletes.add(key)
        if keys:
            self._wake.set()
        return len(keys)

    async def run(self) -> None:
        """Write for ever; cancel it to stop, then call close()."""
        while True:
            try:
                async with asyncio.timeout(None if self.reserve.held else RESERVE_S):
                    await self._wake.wait()
            except TimeoutError:
                await asyncio.get_running_loop().run_in_executor(self._thread, self.reserve.hold)
            self._wake.clear()
            while self._puts or self._deletes or not self._loaded:
                if not (self._loaded or await self._load_late()) or not await self._write():
                    await asyncio.sleep(RETRY_S)

    async def _load_late(self) -> bool:
        """The disk was unreadable at the start: what it holds joins what has come since."""
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._outbox.load)
        except StoreFailed as failed:
            self._failed(failed)
            return False
        self._loaded = True
        self._note_damage()
        known = [row for row in rows if row.key not in self.queue and row.key not in self._deletes]
        self.queue.restore(known, self._clock.now_ms())
        self._on_loaded()
        self._on_work()
        return True

    async def _write(self) -> bool:
        puts, deletes = self._puts, self._deletes
        self._puts, self._deletes = {}, set()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._outbox.apply, list(puts.values()), list(deletes))
        except StoreFailed as failed:
            if self._note_damage():
                puts = {row.key: row for row in self.queue.rows()}
            # what changed meanwhile is newer
            self._deletes |= {key for key in deletes if key not in self._puts}
            self._puts = {k: r for k, r in puts.items() if k in self.queue and k not in self._deletes} | self._puts
            relieved = await loop.run_in_executor(self._thread, self.reserve.give)
            if not relieved:
                self._failed(failed)
            return relieved
        if self.problem:
            logger.info("disk: works again, %d rows stored", len(puts))
            self.problem = ""
        for row in puts.values():
            self._on_stored(row)
        return True

    def _failed(self, failed: StoreFailed) -> None:
        if not self.problem:
            logger.warning("disk: %s; sending from memory, badges are not told that the hub holds", failed)
        self.problem = str(failed)

    def _note_damage(self) -> bool:
        """Say what was damaged; whether the outbox was set aside for it."""
        if self._outbox.unreadable:
            logger.warning("disk: %d damaged rows of the outbox cannot be sent", self._outbox.unreadable)
            self._outbox.unreadable = 0
        if self._outbox.set_aside is None or self._outbox.set_aside == self.set_aside:
            return False
        self.set_aside = self._outbox.set_aside
        logger.warning("disk: the outbox was damaged and is set aside as %s", self.set_aside.name)
        return True

    async def close(self) -> None:
        """Write what is left, if the disk takes it, and close the file."""
        if self._loaded and (self._puts or self._deletes):
            await self._write()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._outbox.close)
        self._thread.shutdown()

    def held(self, row: Row) -> tuple[int, bool]:
        """How long the hub has held this copy, ms, and whether that is certain.

        After the machine was off it is the time since this start, and at least that.
        """
        now = self._clock.now_ms()
        if row.run == self._clock.run and row.run:
            return max(0, now - row.taken_ms), True
        return now - self._loaded_ms, False
