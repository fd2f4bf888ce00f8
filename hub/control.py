"""A door for technicians on the same machine: a Unix socket in the hub's folder that answers with its status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger("hub")

ANSWER_S = 3.0


class NoHub(Exception):
    """No hub answers there."""


class Control:
    """The hub's side. `status()` gives what is answered."""

    def __init__(self, path: Path, status: Callable[[], dict[str, Any]]) -> None:
        self._path = path
        self._status = status
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a hub that cannot does everything else."""
        try:
            with _short(self._path) as name, contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
                self._path.unlink(missing_ok=True)
                door.bind(name)
                self._path.chmod(0o600)
                self._server = await asyncio.start_unix_server(self._answer, sock=door.dup())
        except (OSError, AttributeError) as problem:
            logger.warning("no status for technicians: %s: %s", self._path, problem)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(json.dumps(self._status()).encode() + b"\n")
            await writer.drain()
        writer.close()


def ask(path: Path) -> dict[str, Any]:
    """The status of the hub that runs in a folder. Raises NoHub."""
    try:
        with _short(path) as name, contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
            door.settimeout(ANSWER_S)
            door.connect(name)
            text = b""
            while part := door.recv(65_536):
                text += part
            answer = json.loads(text)
    except (OSError, ValueError) as problem:
        raise NoHub(f"no hub answers at {path}: {getattr(problem, 'strerror', None) or problem}") from problem
    if not isinstance(answer, dict):
        raise NoHub(f"{path} is not a hub's")
    return answer


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of at most 108 bytes, which is all that the system takes for a socket, however deep the folder is."""
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
