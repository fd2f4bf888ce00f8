"""The one thread that takes messages: alarms first, then the rest; commit, then the broker's acknowledgement."""

import itertools
import logging
import queue
import threading
from collections.abc import Callable

from sqlalchemy.exc import IntegrityError, OperationalError

from station.bus import Arrived
from station.ingest.dispatch import PREFIX, handle
from station.work import Core

logger = logging.getLogger("station.ingest")

QUEUE_MAX = 20_000  # messages; beyond it they are left to the hubs, which repeat what matters
RETRIES = 5
RETRY_S = 0.2  # a database that is locked or full: the hub repeats what is given up here

_PRIORITY = {"up/event": 0, "hello": 1, "state": 1, "up/status": 2, "up/audio": 3}
_STOP = Arrived("", b"", 0, 0, 0)


class Worker:
    """Takes messages from a queue that any thread may fill. `done` is called when one is dealt with."""

    def __init__(self, core: Core, done: Callable[[Arrived], None]) -> None:
        self._core = core
        self._done = done
        self._queue: queue.PriorityQueue[tuple[int, int, Arrived]] = queue.PriorityQueue()
        self._number = itertools.count()
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
        if self._queue.qsize() >= QUEUE_MAX:
            self._core.count("queue full")
            return
        kind = arrived.topic.removeprefix(PREFIX).partition("/")[2]
        self._queue.put((_PRIORITY.get(kind, 2), next(self._number), arrived))

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return self._queue.qsize()

    def _run(self) -> None:
        while True:
            arrived = self._queue.get()[2]
            if self._stop.is_set():
                return
            if self._take(arrived):
                self._done(arrived)

    def _take(self, arrived: Arrived) -> bool:
        for attempt in range(RETRIES):
            try:
                handle(self._core, arrived.topic, arrived.payload)
                return True
            except (IntegrityError, OperationalError) as error:
                # another worker was there first, or the disk is full
                log = logger.error if attempt else logger.warning
                log("the database refused a message (attempt %d): %s", attempt + 1, error.orig)
                if self._stop.wait(RETRY_S * (attempt + 1)):
                    return False
            except Exception:
                # a defect of ours: it must not stop the alarms behind it
                logger.exception("a message on %s could not be taken", arrived.topic)
                self._core.count("internal error")
                return True
        return False
