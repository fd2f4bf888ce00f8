"""The outbox on disk: what this hub has taken custody of, until the station says that it has it.

One transaction per call, in SQLite's write-ahead log with synchronous=FULL: when apply() returns, the rows are on
disk and survive any loss of power; when the process is killed inside it, all of the call holds or nothing. A file
that is damaged is set aside for somebody to look at, and the hub goes on with an empty one: an alarm that comes now
matters more than the reason why an old one cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol import ident, kinds, relay

SCHEMA = 1
SET_ASIDE_MAX = 5  # damaged files that are kept
NUMBER_MAX = 1 << 53  # of times and positions, which are far below it
LOG_BYTES = 1_000_000  # to which the write-ahead log is cut after a checkpoint

_TABLE = """
CREATE TABLE IF NOT EXISTS outbox (
    badge INTEGER NOT NULL, ident BLOB NOT NULL, form INTEGER NOT NULL, position INTEGER NOT NULL,
    kind INTEGER NOT NULL, payload BLOB NOT NULL, facts TEXT NOT NULL, taken_ms INTEGER NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (badge, ident, form)
) WITHOUT ROWID
"""
_PUT = "INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM outbox WHERE badge = ? AND ident = ? AND form = ?"
_LOAD = "SELECT badge, ident, form, position, kind, payload, facts, taken_ms, run FROM outbox ORDER BY position"

Key = tuple[int, bytes, int]


class StoreFailed(Exception):
    """The disk did not take it: full, failing, or the file is damaged. The text says which."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event on its way, as a payload of protocol.relay.

    `form` is relay.EVENT or relay.BEACON. `position` orders rows of one priority and stays when a fresher copy takes
    the row's place. `taken_ms` is when this copy came, by a clock that counts within the machine's run `run`.
    """

    badge: int
    ident: bytes
    form: int
    position: int
    kind: int
    payload: bytes
    facts: str
    taken_ms: int
    run: str

    @property
    def key(self) -> Key:
        """What makes a row the same row."""
        return self.badge, self.ident, self.form

    def known(self) -> dict[str, Any]:
        """The facts, as far as they can be read: the event is worth sending without them."""
        try:
            facts = json.loads(self.facts)
        except (ValueError, RecursionError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def place(self) -> dict[str, Any] | None:
        """The place in the facts, as hub.location gives it; None where there is none, or none to believe."""
        place = self.known().get("place")
        if not isinstance(place, dict):
            return None
        limits = {"lat": 90.0, "lon": 180.0, "age": 1e9, "accuracy": 1e7}
        if not {"lat", "lon"} <= place.keys() or not all(_within(place.get(k, 0), most) for k, most in limits.items()):
            return None
        return place


class Outbox:
    """The file. Not for several threads at once.

    `set_aside` is where a damaged file went, or None; `unreadable` how many rows load() had to leave where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self.unreadable = 0
        self._database: sqlite3.Connection | None = None

    def load(self) -> list[Row]:
        """All rows, oldest first. Raises StoreFailed when there is no way to read or begin a file."""
        try:
            return self._rows()
        except sqlite3.Error as problem:
            self.close()
            if not damaged(problem):
                raise StoreFailed(words(problem)) from problem
        self.set_aside = set_aside(self.path)
        try:
            return self._rows()
        except sqlite3.Error as problem:
            self.close()
            raise StoreFailed(words(problem)) from problem

    def apply(self, puts: Iterable[Row], deletes: Iterable[Key]) -> None:
        """Delete, then put, all in one transaction. Raises StoreFailed, and nothing of it holds then.

        A file that turns out to be damaged is set aside; the caller puts everything again that it still has.
        """
        try:
            database = self._open()
            with database:
                database.executemany(_DELETE, deletes)
                database.executemany(
                    _PUT,
                    (
                        (r.badge, r.ident, r.form, r.position, r.kind, r.payload, r.facts, r.taken_ms, r.run)
                        for r in puts
                    ),
                )
        except sqlite3.Error as problem:
            # what the connection holds of the log is not to be trusted after a failed write
            self.close()
            if damaged(problem):
                self.set_aside = set_aside(self.path)
            raise StoreFailed(words(problem)) from problem

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _rows(self) -> list[Row]:
        found = [_row(fields) for fields in self._open().execute(_LOAD)]
        rows = [row for row in found if row is not None]
        self.unreadable = len(found) - len(rows)
        return rows

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = open_database(self.path, _TABLE, "FULL")
            # one wrong byte in a text would cost every row, and be told with all that the text says
            self._database.text_factory = bytes
        return self._database


def _row(fields: tuple[Any, ...]) -> Row | None:
    """A row as it may be used, whatever the disk has made of it; None where not even an event is left of it.

    SQLite checks its own structures, not what is in them: a flipped bit makes another number, type or length.
    """
    badge, name, form, position, kind, payload, facts, taken_ms, run = fields
    if not _number(badge, ident.BADGE_MAX) or form not in (relay.EVENT, relay.BEACON, relay.SECOND_PATH):
        return None
    if not isinstance(name, bytes) or len(name) != len(ident.NONE) or not isinstance(payload, bytes):
        return None
    dated = _number(taken_ms, NUMBER_MAX) and isinstance(run, bytes)
    return Row(
        badge,
        name,
        int(form),
        position if _number(position, NUMBER_MAX) else 0,
        kind if _number(kind, 255) else kinds.STATUS,
        payload,
        facts.decode("utf-8", "replace") if isinstance(facts, bytes) else "",
        taken_ms if dated else 0,
        run.decode("utf-8", "replace") if dated else "",
    )


def _number(value: object, most: int) -> bool:
    return isinstance(value, int) and 0 <= value <= most


def _within(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


def open_database(path: Path, tables: str, synchronous: str) -> sqlite3.Connection:
    """A database in WAL mode with these tables, checked for damage. Raises sqlite3.Error."""
    database = sqlite3.connect(path, check_same_thread=False, timeout=1.0)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {synchronous}")
        database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise _Foreign("database disk image is malformed")
        if database.execute("PRAGMA user_version").fetchone()[0] not in (0, SCHEMA):
            raise _Foreign("made by another version")
        for table in tables.split(";"):
            database.execute(table)
        database.execute(f"PRAGMA user_version = {SCHEMA}")
        database.commit()
    except BaseException:
        database.close()
        raise
    return database


class _Foreign(sqlite3.DatabaseError):
    """Readable, but not what this version of the hub writes."""


def words(problem: sqlite3.Error) -> str:
    """What a log may hold of it: SQLite's own words name tables and files, those of Python's module may quote a row."""
    return str(problem) if hasattr(problem, "sqlite_errorcode") or isinstance(problem, _Foreign) else "cannot be read"


def damaged(problem: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not the disk that it is on."""
    if isinstance(problem, _Foreign):
        return True
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    # a plain SQLITE_ERROR is a statement that does not fit the tables: another schema under our name
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def set_aside(path: Path) -> Path:
    """Rename a damaged database and what belongs to it; the oldest of several are removed. Raises StoreFailed."""
    pattern = re.compile(re.escape(path.name) + r"\.damaged-(\d+)")
    try:
        numbers = sorted(int(found[1]) for p in path.parent.iterdir() if (found := pattern.fullmatch(p.name)))
        target = path.with_name(f"{path.name}.damaged-{numbers[-1] + 1 if numbers else 1}")
        for suffix in ("-wal", "-shm", ""):  # the database last: cut short here, it is found again
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                beside.replace(target.with_name(target.name + suffix))
        for number in numbers[: 1 - SET_ASIDE_MAX]:
            for suffix in ("-wal", "-shm", ""):
                path.with_name(f"{path.name}.damaged-{number}{suffix}").unlink(missing_ok=True)
    except OSError as problem:
        raise StoreFailed(f"{path} is damaged and cannot be set aside: {problem.strerror}") from problem
    return target
