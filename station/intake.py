"""Whether the station takes what hubs bring: what it had to give up, and the trial that shows when it can again.

What is given up is not lost, because hubs repeat what has no receipt. But while the database refuses messages no badge
may believe that it is protected, so no STATUS is answered, and consoles and monitors are told. The database itself
cannot hold that news then: it is kept here, and written down when it is over.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import delete
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

from station.clock import Clock
from station.model import Meta, Supervision
from station.store import Store

logger = logging.getLogger("station.intake")

WHAT, STATE = "station", "not_taking"  # the entry of supervision
TRIAL_S = 1.0  # between two trials
TRIAL_BYTES = 65_536  # more than an alarm writes: full pages of the rows and indexes that it touches
QUIET_S = 5.0  # an alarm without a receipt comes every 4 s: none was refused for so long, none is waiting
CALM_S = 60.0  # twice the longest pause between two sendings of what has no receipt
STUCK_S = 10.0  # a message takes milliseconds; SQLite waits 5 s for another process

# what is wrong with one message; every other error of the database is likely to meet the next message as well
_ITS_OWN = (IntegrityError, DataError)

Json = dict[str, Any]


def refuses(error: Exception) -> bool:
    """Whether the database as a whole is at fault: full, locked, damaged, away, or no connection free."""
    return isinstance(error, DBAPIError | NoConnection) and not isinstance(error, _ITS_OWN)


def reason(error: Exception) -> str:
    """What the database said, without the statement and what it is about."""
    return str(getattr(error, "orig", error))


class Intake:
    """What the ingest of one process says of itself. `announce` is called with the entry of supervision as it changes.

    `timer` gives seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        worker: int,
        announce: Callable[[Json], None],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timer = timer
        self._store = store
        self._clock = clock
        self._name = f"trial {worker}"
        self._announce = announce
        self._lock = threading.Lock()
        self._since: float | None = None  # the station's clock, as in all entries
        self._text = ""
        self._given_up = 0
        self._refusing = False
        self._refused_at = self._failed_at = self._trial_at = float("-inf")
        self._begun: float | None = None

    @property
    def answers(self) -> bool:
        """Whether a STATUS may be answered: an alarm that came now would be taken, as far as is known."""
        return not self._refusing

    @property
    def entry(self) -> Json | None:
        """What is wrong, as an open entry of supervision; None while all is well."""
        with self._lock:
            if self._since is not None:
                more = f"; {self._given_up} messages were given up, and hubs repeat them" if self._given_up else ""
                return _entry(self._since, None, self._text + more)
            begun = self._begun
        waited = 0.0 if begun is None else self.timer() - begun
        if waited <= STUCK_S:
            return None
        return _entry(self._clock.now() - waited, None, f"a message is being taken for {waited:.0f} s already")

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around the taking of a message, or of several together."""
        self._begun = self.timer()
        try:
            yield
        finally:
            self._begun = None

    def gave_up(self, error: Exception) -> None:
        """A message was given up because of this error: the database's, or a defect of ours."""
        if refuses(error):
            self._note(error, f"the database refuses messages: {reason(error)}", 1)
        else:
            self._note(error, f"a message cannot be taken ({type(error).__name__}; the log says more)", 1)

    def dropped(self) -> None:
        """A message found no room to wait in."""
        self._note(None, "more arrives than can be taken", 1)

    def timers_failed(self, error: Exception) -> None:
        """The station's own timers have failed for a while."""
        why = reason(error) if refuses(error) else f"{type(error).__name__}; the log says more"
        self._note(error, f"the station's timers fail, so that missed check-ins raise no alarm ({why})", 0)

    def _note(self, error: Exception | None, text: str, given_up: int) -> None:
        with self._lock:
            if error is not None and refuses(error):
                self._refusing = True
                self._refused_at = self.timer()
            else:
                self._failed_at = self.timer()
            first = self._since is None
            if self._since is None:
                self._since, self._given_up = self._clock.now(), 0
            self._text = text
            self._given_up += given_up
        if first:
            logger.error("the station does not take everything: %s", text)
            self._tell()

    def look(self) -> None:
        """See whether it is over; called often, by the thread that takes messages."""
        now = self.timer()
        if (self._since is None and not self._refusing) or now - self._trial_at < TRIAL_S:
            return
        self._trial_at = now
        if self._refusing:
            if not self._trial() or now - self._refused_at < QUIET_S:
                return
            self._refusing = False
        if now - self._failed_at >= CALM_S:
            self._over()

    def _trial(self) -> bool:
        """Whether the database takes, and keeps, as much as an alarm needs."""
        try:
            with self._store.write() as db:
                db.merge(Meta(name=self._name, value=os.urandom(TRIAL_BYTES // 2).hex()))
            with self._store.write() as db:
                db.execute(delete(Meta).where(Meta.name == self._name))
        except SQLAlchemyError as error:
            logger.debug("the database still refuses: %s", error)
            return False
        return True

    def _over(self) -> None:
        """Write down how long it was, and tell."""
        entry = self.entry
        if entry is None:
            return
        entry["until"] = self._clock.now()
        try:
            with self._store.write() as db:
                db.add(Supervision(**entry))
        except SQLAlchemyError as error:
            logger.error("the database does not take the end of its refusal: %s", type(error).__name__)
            return
        with self._lock:
            self._since = None
        logger.warning("the station takes everything again")
        self._tell(entry)

    def _tell(self, entry: Json | None = None) -> None:
        try:
            self._announce(entry or self.entry or {})
        except Exception:
            logger.exception("the consoles could not be told")


def _entry(at: float, until: float | None, text: str) -> Json:
    return {"what": WHAT, "state": STATE, "at": at, "until": until, "text": text}
