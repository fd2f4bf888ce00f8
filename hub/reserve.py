"""A few megabytes of disk kept for alarms: a file of nothing that is given up when the disk is full.

Whatever fills the disk (sound, logs, somebody else), alarms can be stored some thousand times more: the file goes, and
sound is not stored until there is room to keep the reserve again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

logger = logging.getLogger("hub.outbox")

BYTES = 4_000_000  # some ten thousand events with SQLite's log beside them
ROOM = 2  # times its size must be free before it is taken again, so that it does not fill the disk itself


class Reserve:
    """`held`: whether the reserve is there, and so whether there is room for anything but alarms."""

    def __init__(self, path: Path, size: int = BYTES) -> None:
        self.held = False
        self._path = path
        self._size = size

    def hold(self) -> bool:
        """Take the reserve, if there is room for it."""
        if self.held:
            return True
        try:
            if self._path.exists() and self._path.stat().st_size == self._size:
                self.held = True
                return True
            if free_bytes(self._path.parent) < ROOM * self._size:
                return False
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                _allocate(descriptor, self._size)
            finally:
                os.close(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()
            return False
        self.held = True
        return True

    def give(self) -> bool:
        """Give it up; False when there is none to give."""
        was, self.held = self.held, False
        try:
            self._path.unlink()
        except OSError:
            return False
        if was:
            logger.warning("disk: full; the reserve is given to alarms, and sound is not stored for now")
        return was


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write there. Raises OSError."""
    if not hasattr(os, "statvfs"):
        import shutil

        return shutil.disk_usage(folder).free
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    block = bytes(65_536)
    for _ in range(-(-size // len(block))):
        os.write(descriptor, block)
