"""A thread that does one thing again and again until it is stopped, and survives what goes wrong in it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

logger = logging.getLogger("station.repeat")

PATIENCE_S = 2.0  # another process may hold the database for a moment


class Repeater:
    """Calls `act` every `seconds`, beginning at once."""

    def __init__(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        self._name = name
        self._seconds = seconds
        self._act = act
        self.trouble: Callable[[Exception], None] = lambda error: None  # told each time, once it fails for PATIENCE_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the call in progress."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        failing_since, said = None, ""
        while True:
            try:
                self._act()
                failing_since, said = None, ""
            except Exception as error:
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                # the same again, several times a second, would only fill the disk
                if str(error) != said:
                    said = str(error)
                    self._say(error)
                if now - failing_since >= PATIENCE_S:
                    with contextlib.suppress(Exception):
                        self.trouble(error)
            if self._stop.wait(self._seconds):
                return

    def _say(self, error: Exception) -> None:
        if isinstance(error, OperationalError):
            logger.error("the database refused the %s: %s", self._name, error.orig)
        else:
            logger.error("the %s failed and go on", self._name, exc_info=error)
