"""What the station does because time passes: overdue visits, dead consoles, silent devices."""

import logging
import threading

from sqlalchemy.exc import OperationalError

from station import alarms, supervision, visits
from station.work import Core

logger = logging.getLogger("station.timers")

STEP_S = 0.25  # how late a timer may be
_SUPERVISE_EVERY = 8  # steps


def step(core: Core) -> None:
    """Everything that is due now."""
    with core.work() as work:
        visits.watch(work)
        alarms.watch(work)


def supervise(core: Core) -> None:
    """The slower part: who went quiet."""
    with core.work() as work:
        supervision.watch(work)
    core.save_counters()


class Timers:
    """A thread that calls both."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timers", daemon=True)

    def start(self) -> None:
        """Begin; what fell due while the station was down is raised at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the step in work."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        number = 0
        while True:
            try:
                step(self._core)
                if number % _SUPERVISE_EVERY == 0:
                    supervise(self._core)
            except OperationalError as error:
                logger.error("the database refused the timers: %s", error.orig)
            except Exception:
                logger.exception("the timers failed and go on")
            number += 1
            if self._stop.wait(STEP_S):
                return
