"""The database: opening it, its schema's version, and transactions that either hold or never happened.

SQLite runs with a write-ahead log and full synchronisation: what was committed survives the power cut. One writer
at a time is let in by a lock here rather than by SQLite's own waiting, which sleeps in growing steps. PostgreSQL
needs no such lock: there `SELECT ... FOR UPDATE` of the badge's row (Work.badge) keeps workers apart.

Requests from outside have connections of their own, few and counted: however many of them wait for something, the
station's own threads (ingest, timers, news) find one free.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy import exc as errors
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from station.errors import CannotRun
from station.model import SCHEMA, Base, Meta

_BUSY_MS = 5000  # another process, such as a second worker, may hold the write lock for a moment
_OWN = {"pool_size": 4, "max_overflow": 4}  # ingest, timers, news, the broker's thread, the start: one each
_VISITORS = {"pool_size": 5, "max_overflow": 10, "pool_timeout": 5.0}
VISITOR: ContextVar[bool] = ContextVar("visitor", default=False)  # whether this is done for a request from outside

# what a request meets when the database does not take it: refused, or no connection free in time
UNAVAILABLE = (errors.OperationalError, errors.TimeoutError)


class StoreError(CannotRun):
    """The database cannot be used; the text says what to do."""


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of a database file."""
    return f"sqlite:///{path}"


class Store:
    """A database of one station. `url` is SQLAlchemy's. Raises StoreError."""

    def __init__(self, url: str) -> None:
        try:
            # errors are logged, and what is stored of people must not be
            self.engine: Engine = create_engine(url, hide_parameters=True, **_OWN)
            self.visitors: Engine = create_engine(url, hide_parameters=True, **_VISITORS)
        except (ArgumentError, NoSuchModuleError, ImportError, TypeError) as error:
            raise StoreError(f"[station] database: {error}") from error
        self.sqlite = self.engine.dialect.name == "sqlite"
        self._writer = threading.Lock() if self.sqlite else nullcontext()
        if self.sqlite:
            for engine in (self.engine, self.visitors):
                event.listen(engine, "connect", _on_connect)
                event.listen(engine, "begin", _on_begin)
        try:
            self._prepare()
        except SQLAlchemyError as error:
            raise StoreError(f"the database {self.engine.url!r} cannot be used: {error}") from error

    def _prepare(self) -> None:
        with self.write() as db:
            Base.metadata.create_all(db.connection())
            version = db.get(Meta, "schema")
            if version is None:
                db.add(Meta(name="schema", value=str(SCHEMA)))
            elif version.value != str(SCHEMA):
                raise StoreError(
                    f"the database has schema {version.value} and this program needs {SCHEMA}: "
                    "use the matching version, or another directory"
                )

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write: committed at the end, rolled back by an exception."""
        # the connection first: who has to wait for one must not hold up the writers meanwhile
        with (
            self._engine().connect() as connection,
            self._writer,
            Session(connection.execution_options(tocsin_write=True)) as db,
            db.begin(),
        ):
            yield db

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view that writes nothing. Not to be held while somebody outside is waited for."""
        with Session(self._engine()) as db:
            yield db
            db.rollback()

    def _engine(self) -> Engine:
        return self.visitors if VISITOR.get() else self.engine

    def close(self) -> None:
        """Let go of all connections; nothing is lost that was committed."""
        self.engine.dispose()
        self.visitors.dispose()


def _on_connect(connection: object, _record: ConnectionPoolEntry) -> None:
    # the driver must not begin transactions of its own: they would start as readers and fail when they write
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute("PRAGMA " + pragma)
    cursor.close()


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("tocsin_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
