"""Several workers on one database: each one's consoles hear of what the others committed.

A worker writes its news into a table in the transaction that they are about; the others look there often. Looking
back over a few seconds instead of at the last number finds also what was numbered early and committed late.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from station import archive
from station.model import Capture, News, Packet
from station.work import Committed, Core, Notice, Sound

logger = logging.getLogger("station.news")

LOOK_S = 0.05
BACK_S = 5.0  # seconds that are looked back over: longer than any transaction takes
KEEP_S = 60.0


class Follower:
    """A thread that reads the others' news. `wanted` gives the alarms that somebody listens to here."""

    def __init__(self, core: Core, wanted: Callable[[], set[int]]) -> None:
        self._core = core
        self._wanted = wanted
        self._me = core.config.station.worker
        self._read: dict[int, float] = {}
        self._from = core.clock.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="news", daemon=True)

    def start(self) -> None:
        """Begin with what is committed from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        looks = 0
        while not self._stop.wait(LOOK_S):
            looks += 1
            try:
                self.look()
                if looks % round(KEEP_S / LOOK_S) == 0:
                    self._tidy()
            except OperationalError as error:
                logger.error("the database refused the news: %s", error.orig)
            except Exception:
                logger.exception("the news could not be read")

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
        with self._core.store.write() as db:
            db.execute(delete(News).where(News.at < self._core.clock.now() - KEEP_S))
