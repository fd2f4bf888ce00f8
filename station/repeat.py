"""A thread that does one thing again and again until it is stopped, and survives what goes wrong in it."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

logger = logging.getLogger("station.repeat")


class Repeater:
    """Calls `act` every `seconds`, beginning at once."""

    def __init__(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        self._name = name
        self._seconds = seconds
        self._act = act
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
        while True:
            try:
                self._act()
            except OperationalError as error:
                logger.error("the database refused the %s: %s", self._name, error.orig)
            except Exception:
                logger.exception("the %s failed and go on", self._name)
            if self._stop.wait(self._seconds):
                return
