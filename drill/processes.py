"""The parts of a drill as processes: started, watched, killed, started again, and gone at the end.

Each part runs in a session of its own, so that Ctrl-C reaches the drill alone and the drill stops the parts in order,
and each dies with the drill (PR_SET_PDEATHSIG) should that be killed. What a part says on its standard error goes into
one log file a part and is searched for what must never be there.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1
# a cold start imports a few hundred modules and hashes passwords; on two busy cores this takes seconds, not minutes
START_S = 90.0
# a hub lets its badges go, its jobs end and its files reach the disk, one after the other, and the disk may be slow
STOP_S = 30.0
# a process that was killed while it wrote is gone when the disk has answered
LEFT_S = 5.0
# both ends of a pipe are closed by then, and what was said is read
LAST_WORDS_S = 5.0
LAST_LINES = 12
LOOK_S = 0.02
# of the niceness; only a privileged user may be less nice
FIRST = -10
# a line longer than this is a part gone mad; the rest of it is dropped, not the part
LINE = 1 << 20
BAD = re.compile(r"\b(ERROR|CRITICAL|FATAL)\b|never retrieved|^Exception ignored")
TRACEBACK = "Traceback (most recent call last)"

_libc = ctypes.CDLL(None, use_errno=True)

Complain = Callable[[str, str], None]


class DidNotStart(Exception):
    """A part is not there: the drill cannot run. The text names the part and shows its last lines."""


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Waits for the end of the process itself; asyncio's `wait` waits for its children's pipes too."""
    while process.returncode is None:  # noqa: ASYNC110 (nothing that could be waited for says it)
        await asyncio.sleep(LOOK_S)
    return process.returncode


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _first_in_line() -> None:
    _die_with_parent()
    with contextlib.suppress(OSError):
        os.nice(FIRST)


def command(name: str) -> list[str]:
    """The installed command of that name beside the running interpreter."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise DidNotStart(f"{name} is not installed beside {sys.executable}; run `make venv`")
    return [str(path)]


class Port:
    """A TCP port of the loopback that stays this drill's while the part that listens on it is dead.

    A bound socket that does not listen keeps others away, and lets a listener with SO_REUSEADDR in.
    """

    def __init__(self, preferred: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", preferred))
        except OSError:
            # somebody else has it: any free one
            self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


class Part:
    """One process of the drill. `complain(part, text)` hears of everything that should not be.

    `first`: it stands for hardware, which on a busy machine should not wait for the others (where the system lets us).
    """

    def __init__(self, name: str, argv: list[str], log: Path, complain: Complain, first: bool = False) -> None:
        self.name = name
        self.first = first
        self.argv = argv
        self.log = log
        self.complain = complain
        self.ready: dict[str, Any] = {}
        self.kills = 0
        self.process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=LAST_LINES)
        self._expected = False
        self._tasks: list[asyncio.Task[None]] = []
        self._traceback: list[str] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def up(self) -> bool:
        """Whether it runs and has said that it is ready."""
        return self.running and bool(self.ready)

    async def start(self) -> dict[str, Any]:
        """Starts the process and waits for its JSON ready line, which it returns. Raises DidNotStart.

        Returns {} when it was killed before it was ready: whoever killed it starts it again.
        """
        self._expected = False
        self.ready = {}
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOCSIN_PARENT_DEATH": "1"}
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_first_in_line if self.first else _die_with_parent,
                env=environment,
                limit=LINE,
            )
        except OSError as error:
            raise DidNotStart(f"{self.name}: {self.argv[0]}: {error.strerror}") from None
        process = self.process
        if self._expected:
            await self.kill()
            return {}
        assert process.stdout is not None
        assert process.stderr is not None
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(OSError):
            self.log.parent.mkdir(parents=True, exist_ok=True)
        self._tasks = [
            asyncio.create_task(self._read(process.stdout, ready)),
            asyncio.create_task(self._read(process.stderr, None)),
        ]
        exited = asyncio.create_task(_ended(process))
        waiting: set[asyncio.Future[Any]] = {ready, exited}
        await asyncio.wait(waiting, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            exited.cancel()
            if self._expected:
                return {}
            how = f"ended with status {process.returncode}" if process.returncode is not None else "said nothing"
            await self.kill()
            last = "".join(f"\n  {line}" for line in self._said) or "\n  (it printed nothing)"
            raise DidNotStart(f"{self.name} did not start: {how} within {START_S:g} s. Its last lines:{last}")
        exited.cancel()
        self.ready = ready.result()
        self._tasks.append(asyncio.create_task(self._watch(process)))
        return self.ready

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        status = await _ended(process)
        if not self._expected:
            # its last words explain the end better than a status does; they are still in the pipe
            await asyncio.wait(self._tasks[:2], timeout=LAST_WORDS_S)
            last = self._said[-1] if self._said else "it printed nothing"
            self.complain(self.name, f"ended by itself with status {status}: {last}")

    async def _read(self, stream: asyncio.StreamReader, ready: asyncio.Future[dict[str, Any]] | None) -> None:
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self.log.open("a", encoding="utf-8"))
            while True:
                try:
                    raw = await stream.readline()
                except ValueError:
                    self.complain(self.name, f"printed a line longer than {LINE} bytes")
                    continue
                if not raw:
                    self._end_of_traceback()
                    return
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self._note(log, line)
                if ready is not None and not ready.done() and line.startswith("{"):
                    with contextlib.suppress(ValueError):
                        body = json.loads(line)
                        if body.get("ready"):
                            ready.set_result(body)

    def _note(self, log: TextIO, line: str) -> None:
        log.write(f"{time.monotonic():.4f} {line}\n")
        log.flush()
        self._said.append(line)
        if TRACEBACK in line:
            self._traceback = [line]
        elif self._traceback is not None:
            self._traceback.append(line)
            if line and not line[0].isspace():
                self._end_of_traceback()
        elif BAD.search(line):
            self.complain(self.name, line[:400])

    def _end_of_traceback(self) -> None:
        if self._traceback:
            where = next((row.strip() for row in reversed(self._traceback[:-1]) if "File " in row), "")
            self.complain(self.name, f"traceback: {self._traceback[-1][:300]} ({where})")
        self._traceback = None

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    async def kill(self) -> None:
        """SIGKILL to the process and all that it started, and waits until they are gone."""
        self._expected = True
        self.kills += 1
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        await _ended(self.process)
        await self._drain()

    async def stop(self) -> None:
        """SIGTERM, SIGKILL to whoever is still there after STOP_S, which is worth a complaint."""
        self._expected = True
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await _ended(process)
            except TimeoutError:
                self.complain(self.name, f"did not stop within {STOP_S:g} s of SIGTERM")
            else:
                if process.returncode != 0:
                    last = self._said[-1] if self._said else ""
                    self.complain(self.name, f"stopped with status {process.returncode}: {last}")
        if process.returncode is not None and await self._left_behind(process.pid):
            self.complain(self.name, "left processes behind when it stopped")
        self._signal(signal.SIGKILL)
        await _ended(process)
        await self._drain()

    async def _left_behind(self, group: int) -> bool:
        """Whether the group still has a process LEFT_S after its leader ended."""
        end = time.monotonic() + LEFT_S
        while time.monotonic() < end:
            try:
                os.killpg(group, 0)
            except (ProcessLookupError, PermissionError):
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def _drain(self) -> None:
        done, pending = await asyncio.wait(self._tasks, timeout=2.0) if self._tasks else (set(), set())
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, *done, return_exceptions=True)
        self._tasks = []
