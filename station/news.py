"""Several workers on one database: each one's consoles hear of what the others committed.

A worker writes its news into a table in the transaction that they are about; the others look there often. Looking
back over a few seconds instead of at the last number finds also what was numbered early and committed late.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from station import archive
from station.model import Capture, News, Packet
from station.repeat import Repeater
from station.work import Committed, Core, Notice, Sound

LOOK_S = 0.05
BACK_S = 5.0  # seconds that are looked back over: longer than any transaction takes
KEEP_S = 60.0


class Follower:
    """Reads the others' news. `wanted` gives the alarms that somebody listens to here."""

    def __init__(self, core: Core, wanted: Callable[[], set[int]]) -> None:
        self._core = core
        self._wanted = wanted
        self._me = core.config.station.worker
        self._read: dict[int, float] = {}
        self._from = self._tidied_at = core.clock.now()

    def thread(self) -> Repeater:
        """Looks all the time."""
        return Repeater("news", LOOK_S, self.look)

    def look(self) -> None:
        """Read what is new and hand it to this worker's listeners."""
        since = max(self._core.clock.now() - BACK_S, self._from)
        found = []
        with self._core.read() as db:
            query = select(News).where(News.at >= since, News.worker != self._me).order_by(News.id)
            for row in db.scalars(query):
                if row.id not in self._read:
                    self._read[row.id] = row.at
                    found.append(self._committed(db, row))
        self._read = {number: at for number, at in self._read.items() if at >= since - BACK_S}
        for out in found:
            self._core.heard(out)
        if self._core.clock.now() - self._tidied_at > KEEP_S:
            self._tidy()

    def _committed(self, db: Session, row: News) -> Committed:
        notices = [Notice(event, data) for event, data in row.notices]
        wanted = self._wanted() if row.sounds else set()
        sounds = [self._sound(db, *entry) for entry in row.sounds if entry[1] in wanted]
        return Committed(notices=notices, sounds=sounds, closed=list(row.closed))

    def _sound(self, db: Session, capture_id: int, alarm_id: int, numbers: list[Any]) -> Sound:
        info = archive.info(db.get_one(Capture, capture_id))
        rows = db.scalars(select(Packet).where(Packet.capture_id == capture_id, Packet.number.in_(numbers)))
        sealed = sorted((row.number, row.sealed) for row in rows)
        keys = self._core.keyring.by_row(db, info.key_id)
        return Sound(capture_id, alarm_id, archive.opened(keys, info, sealed))

    def _tidy(self) -> None:
        self._tidied_at = self._core.clock.now()
        with self._core.store.write() as db:
            db.execute(delete(News).where(News.at < self._tidied_at - KEEP_S))
