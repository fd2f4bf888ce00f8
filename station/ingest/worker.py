"""The one thread that takes messages: alarms first, then the rest; commit, then the broker's acknowledgement.

What has arrived is taken together, and nothing is waited for: a single message is committed at once, and behind an
outage, when hubs bring hundreds, each commit carries many. A batch holds messages of one urgency only and ends when
something more urgent arrives, so an alarm waits for no more than the one message that is being taken.

What cannot be taken is given up after a few attempts and acknowledged all the same: its hub repeats it until it has a
receipt, and a broker passes on nothing more once it waits for too many acknowledgements.
"""

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable

from sqlalchemy import exc

from station.bus import Arrived
from station.ingest.dispatch import ALARM, handle, take, urgency
from station.intake import TRIAL_S, reason
from station.work import Core

logger = logging.getLogger("station.ingest")

QUEUE_MAX = 20_000  # messages, and as many alarms again; beyond they are left to the hubs, which repeat what matters
BATCH_MAX = 64  # messages; twice what one hub has under way
BATCH_S = 0.05  # the first of a batch waits so long at most for the others: a claim waits behind it as well
RETRIES = 5
RETRY_S = 0.2  # another worker was there first, or the disk is full; each attempt holds up what waits behind it

_STOP = Arrived("", b"", 0, 0, 0)

_Entry = tuple[int, int, Arrived]  # urgency, order of arrival, message


class Worker:
    """Takes messages from a queue that any thread may fill. `done` is called when one is dealt with, or given up.

    `timer` gives seconds that only grow.
    """

    def __init__(
        self, core: Core, done: Callable[[Arrived], None], timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._core = core
        self._done = done
        self._timer = timer
        self._queue: queue.PriorityQueue[_Entry] = queue.PriorityQueue()
        self._number = itertools.count()
        self._alone = 0  # how many are still to be taken one by one
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin to take messages."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the message in work and end; what waits was not acknowledged and comes again."""
        self._stop.set()
        self._queue.put((-1, -1, _STOP))
        if self._thread.is_alive():
            self._thread.join(5.0)

    def put(self, arrived: Arrived) -> None:
        """Enqueue; never blocks."""
        what = urgency(arrived.topic, arrived.payload)
        if self._queue.qsize() >= QUEUE_MAX * (2 if what == ALARM else 1):
            self._core.count("queue full")
            self._acknowledge(arrived)
            self._core.intake.dropped()
            return
        self._queue.put((what, next(self._number), arrived))

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return self._queue.qsize()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with contextlib.suppress(queue.Empty):
                    first = self._queue.get(timeout=TRIAL_S)
                    if self._stop.is_set():
                        return
                    self.take(first)
                self._core.intake.look()
            except Exception:
                logger.exception("the ingest failed and goes on")

    def take(self, first: _Entry) -> None:
        """Take a message and what has arrived with it; what finds no room in the batch is queued again."""
        batch = self._batch(first)
        taken = self._together(batch) if len(batch) > 1 else self._by_itself(first[2])
        for entry in batch[taken:]:
            self._queue.put(entry)

    def _batch(self, first: _Entry) -> list[_Entry]:
        batch = [first]
        while len(batch) < (1 if self._alone else BATCH_MAX):
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
            if entry[0] != first[0]:
                self._queue.put(entry)
                break
            batch.append(entry)
        return batch

    def _together(self, batch: list[_Entry]) -> int:
        end = self._timer() + BATCH_S

        def go_on() -> bool:
            return self._timer() < end and not self._stop.is_set() and not self._waits_before(batch[0][0])

        try:
            with self._core.intake.one():
                taken = take(self._core, [(arrived.topic, arrived.payload) for _, _, arrived in batch], go_on)
        except Exception as error:
            # one of them spoils the others: which one, and why, is found out and said when each is taken alone
            logger.info("%d messages are taken one by one: %s", len(batch), type(error).__name__)
            self._alone = len(batch)
            return 0
        for _, _, arrived in batch[:taken]:
            self._acknowledge(arrived)
        return taken

    def _waits_before(self, urgency: int) -> bool:
        with self._queue.mutex:
            waiting = self._queue.queue
            return bool(waiting) and waiting[0][0] < urgency

    def _by_itself(self, arrived: Arrived) -> int:
        self._alone = max(self._alone - 1, 0)
        if self._take(arrived):
            self._acknowledge(arrived)
        return 1

    def _acknowledge(self, arrived: Arrived) -> None:
        try:
            self._done(arrived)
        except Exception:
            logger.exception("a message could not be acknowledged to the broker")

    def _take(self, arrived: Arrived) -> bool:
        """Take one message or give it up; False only when the station stops meanwhile."""
        intake = self._core.intake
        # while nothing is taken, patience would only hold up the next one, and the news that it is over
        attempts = RETRIES if intake.answers else 1
        for attempt in range(attempts):
            try:
                with intake.one():
                    handle(self._core, arrived.topic, arrived.payload)
                return True
            except (exc.DBAPIError, exc.TimeoutError) as error:
                # another worker was there first, no connection is free, or the disk is full
                level = logging.WARNING if attempt == 0 else logging.ERROR
                logger.log(
                    level if intake.answers else logging.DEBUG,
                    "the database refused a message (attempt %d): %s",
                    attempt + 1,
                    reason(error),
                )
                if attempt + 1 == attempts:
                    self._core.count("given up")
                    intake.gave_up(error)
                elif self._stop.wait(RETRY_S * (attempt + 1)):
                    return False
            except Exception as error:
                # a defect of ours: it must not stop the alarms behind it
                logger.exception("a message on %s could not be taken", arrived.topic)
                self._core.count("internal error")
                intake.gave_up(error)
                break
        return True
