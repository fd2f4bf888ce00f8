"""Several workers on one database: each one's consoles hear of what the others committed.

A worker writes its news into a table in the transaction that they are about; the others look there often, and follow
by number. What was numbered early and committed late leaves a hole in the numbers, which is looked for until it is
filled. No clock is asked for any of this: it may go back, and a commit may take long.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from station import archive
from station.model import Capture, News, Packet
from station.repeat import Repeater
from station.work import Committed, Core, Notice, Sound

logger = logging.getLogger("station.news")

LOOK_S = 0.05
KEEP_S = 60.0  # news stay so long, and a hole is looked for so long: longer than any transaction takes
HOLES_MAX = 1000  # looked for at once; a transaction that was rolled back leaves one in PostgreSQL's numbers
BATCH_MAX = 500  # read in one go, should one worker have been held up


class Follower:
    """Reads the others' news. `wanted` gives the alarms that somebody listens to here.

    `timer` gives seconds that only grow.
    """

    def __init__(self, core: Core, wanted: Callable[[], set[int]], timer: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._wanted = wanted
        self._timer = timer
        self._me = core.config.station.worker
        with core.read() as db:
            self._last = _newest(db)  # up to here everything was read, but for the holes
        self._holes: dict[int, float] = {}  # number, since when
        self._old = (timer(), self._last)

    def thread(self) -> Repeater:
        """Looks all the time."""
        return Repeater("news", LOOK_S, self.look)

    def look(self) -> None:
        """Read what is new and hand it to this worker's listeners."""
        with self._core.read() as db:
            which = or_(News.id > self._last, News.id.in_(list(self._holes))) if self._holes else News.id > self._last
            numbers = db.execute(select(News.id, News.worker).where(which).order_by(News.id).limit(BATCH_MAX)).all()
            others = [row.id for row in numbers if row.worker != self._me]
            rows = db.scalars(select(News).where(News.id.in_(others)).order_by(News.id)) if others else ()
            found = [out for row in rows if (out := self._committed(db, row)) is not None]
        self._passed([row.id for row in numbers])
        for out in found:
            self._core.heard(out)
        if self._timer() - self._old[0] > KEEP_S:
            self._tidy()

    def _passed(self, numbers: Iterable[int]) -> None:
        """These were read: what is missing between them is looked for the next time."""
        now = self._timer()
        for number in numbers:
            self._holes.pop(number, None)
            for hole in range(max(self._last + 1, number - HOLES_MAX), number):
                self._holes[hole] = now
            self._last = max(self._last, number)
        if self._holes:
            kept = [(number, since) for number, since in self._holes.items() if now - since <= KEEP_S]
            self._holes = dict(sorted(kept)[-HOLES_MAX:])

    def _committed(self, db: Session, row: News) -> Committed | None:
        try:
            notices = [Notice(event, data) for event, data in row.notices]
            wanted = self._wanted() if row.sounds else set()
            sounds = [self._sound(db, *entry) for entry in row.sounds if entry[1] in wanted]
            return Committed(notices=notices, sounds=sounds, closed=list(row.closed))
        except (NoResultFound, LookupError, TypeError, ValueError):
            # a defect of ours: read again for ever, it would keep everything after it from the consoles
            logger.exception("news %d of worker %d cannot be read", row.id, row.worker)
            return None

    def _sound(self, db: Session, capture_id: int, alarm_id: int, numbers: list[Any]) -> Sound:
        info = archive.info(db.get_one(Capture, capture_id))
        rows = db.scalars(select(Packet).where(Packet.capture_id == capture_id, Packet.number.in_(numbers)))
        sealed = sorted((row.number, row.sealed) for row in rows)
        keys = self._core.keyring.by_row(db, info.key_id)
        return Sound(capture_id, alarm_id, archive.opened(keys, info, sealed))

    def _tidy(self) -> None:
        """Forget what had been read a while ago. The newest stays: SQLite would give its number again."""
        with self._core.store.write() as db:
            db.execute(delete(News).where(News.id <= self._old[1], News.id < _newest(db)))
        self._old = (self._timer(), self._last)


def _newest(db: Session) -> int:
    return db.scalar(select(func.max(News.id))) or 0
