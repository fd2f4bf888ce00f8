"""Sound on disk: sealed packets that wait for the station's receipt, apart from the alarms' outbox.

Forty packets a second must not wear the flash or hold up an alarm, so commits are batched by the caller and not
synchronised one by one (synchronous=NORMAL): a killed hub loses nothing, a cut of power perhaps the last second.
The badge is acknowledged after the commit.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hub.outbox import StoreFailed, damaged, open_database, set_aside, words

_TABLES = """
CREATE TABLE IF NOT EXISTS captures (
    id INTEGER PRIMARY KEY, badge INTEGER NOT NULL, boot BLOB NOT NULL, number INTEGER NOT NULL,
    UNIQUE (badge, boot, number)
);
CREATE TABLE IF NOT EXISTS packets (
    capture INTEGER NOT NULL, position INTEGER NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (capture, position)
) WITHOUT ROWID
"""

CaptureKey = tuple[int, bytes, int]


@dataclass
class Change:
    """What one transaction does to a capture: packets that came, and ranges that were delivered."""

    packets: list[tuple[int, bytes]]
    delivered: list[tuple[int, int]]


class AudioStore:
    """The file. Not for several threads at once; every method raises StoreFailed when the disk or file does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self._database: sqlite3.Connection | None = None

    def load(self) -> dict[CaptureKey, list[int]]:
        """The numbers of the packets that wait, by capture, the oldest first; a damaged file is set aside."""
        try:
            try:
                return self._load()
            except sqlite3.Error as problem:
                self._fail(problem)
                return self._load()
        except sqlite3.Error as problem:
            raise StoreFailed(words(problem)) from problem

    def apply(self, changes: dict[CaptureKey, Change]) -> None:
        """Everything or nothing."""
        try:
            database = self._open()
            with database:
                for key, change in changes.items():
                    database.execute("INSERT OR IGNORE INTO captures VALUES (NULL, ?, ?, ?)", key)
                    capture = self._find(database, key)
                    database.executemany(
                        "INSERT OR IGNORE INTO packets VALUES (?, ?, ?)",
                        ((capture, position, sealed) for position, sealed in change.packets),
                    )
                    for first, last in change.delivered:
                        database.execute(
                            "DELETE FROM packets WHERE capture = ? AND position BETWEEN ? AND ?", (capture, first, last)
                        )
                # a capture whose packets are all delivered leaves nothing behind
                database.execute("DELETE FROM captures WHERE id NOT IN (SELECT capture FROM packets)")
        except sqlite3.Error as problem:
            self._fail(problem)
            raise StoreFailed(words(problem)) from problem

    def read(self, key: CaptureKey, positions: Iterable[int]) -> list[tuple[int, bytes]]:
        """These packets of a capture, as far as they are here."""
        try:
            database = self._open()
            capture = self._find(database, key)
            found = []
            for position in positions:
                row = database.execute(
                    "SELECT sealed FROM packets WHERE capture = ? AND position = ?", (capture, position)
                ).fetchone()
                if row:
                    found.append((position, row[0]))
            return found
        except sqlite3.Error as problem:
            self._fail(problem)
            raise StoreFailed(words(problem)) from problem

    def used(self) -> int:
        """Bytes that the packets take."""
        try:
            database = self._open()
            pages, free, size = (
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * size)
        except sqlite3.Error as problem:
            self._fail(problem)
            raise StoreFailed(words(problem)) from problem

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _load(self) -> dict[CaptureKey, list[int]]:
        database = self._open()
        stored: dict[CaptureKey, list[int]] = {}
        for capture, badge, boot, number in database.execute("SELECT * FROM captures ORDER BY id").fetchall():
            rows = database.execute("SELECT position FROM packets WHERE capture = ? ORDER BY position", (capture,))
            stored[(badge, boot, number)] = [row[0] for row in rows]
        return stored

    @staticmethod
    def _find(database: sqlite3.Connection, key: CaptureKey) -> int | None:
        row = database.execute("SELECT id FROM captures WHERE badge = ? AND boot = ? AND number = ?", key).fetchone()
        return int(row[0]) if row else None

    def _fail(self, problem: sqlite3.Error) -> None:
        """Nothing that the connection holds is trusted after an error; a damaged file is set aside."""
        self.close()
        if damaged(problem):
            self.set_aside = set_aside(self.path)

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = open_database(self.path, _TABLES, "NORMAL")
        return self._database
