"""Enrolling one badge by its card: `tocsin-hub enrol 12 --passkey 004711`, while the hub runs.

The command waits beside the badge: the hub pairs with it when its pairing window opens, asks it to be enrolled, and the
station decides. It reaches the running hub by a Unix socket in the hub's folder, as `tocsin-hub status` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.badges import State
from hub.control import NoHub, _short
from hub.roster import Roster

logger = logging.getLogger("hub")

DOOR = "enrol.sock"
WAIT_S = 120.0  # two pairing windows: the wearer may have to be told how to open one
LOOK_S = 0.1
LINE = 1000


@dataclass(frozen=True)
class Outcome:
    """How it ended, in a sentence for the technician."""

    done: bool
    text: str


class Desk:
    """The hub's side: which badges are to be paired with which passkey, and what became of it."""

    def __init__(self, path: Path, roster: Callable[[], Roster], enrolled: Callable[[int], bool]) -> None:
        self._path = path
        self._roster = roster
        self._enrolled = enrolled
        self._passkeys: dict[int, int] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def passkey(self, badge: int) -> int | None:
        """What a technician has said is on its card."""
        return self._passkeys.get(badge)

    async def open(self) -> None:
        """Listen; a hub that cannot does everything else."""
        try:
            with _short(self._path) as name, contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
                self._path.unlink(missing_ok=True)
                door.bind(name)
                self._path.chmod(0o600)
                self._server = await asyncio.start_unix_server(self._come, sock=door.dup(), limit=LINE)
        except (OSError, AttributeError) as problem:
            logger.warning("no enrolment by card: %s: %s", self._path, problem)

    async def close(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            outcome = await self.enrol(int(request["badge"]), int(request["passkey"]))
        except (ValueError, KeyError, TypeError, OSError):
            outcome = Outcome(False, "not a request of ours")
        with contextlib.suppress(OSError):
            writer.write(json.dumps({"done": outcome.done, "text": outcome.text}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def enrol(self, badge: int, passkey: int) -> Outcome:
        """Wait for the badge and enrol it by its passkey."""
        if self._enrolled(badge):
            return Outcome(False, f"badge {badge} is enrolled here already")
        if badge in self._passkeys:
            return Outcome(False, f"badge {badge} is being enrolled already")
        self._passkeys[badge] = passkey
        try:
            return await self._wait(badge)
        finally:
            del self._passkeys[badge]

    async def _wait(self, badge: int) -> Outcome:
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_S
        known = self._roster().entries().get(badge)
        machine = known.machine if known else None
        had = (machine.paired, machine.refused) if machine else (0, 0)
        paired = False
        while loop.time() < end:
            entry = self._roster().entries().get(badge)
            if entry is not None:
                if machine is not entry.machine:
                    machine, had = entry.machine, (0, 0)
                if machine.refused > had[1]:
                    return Outcome(False, f"badge {badge} is not paired: {machine.refusal}")
                paired = paired or machine.paired > had[0]
                if paired and machine.state is State.ESTABLISHED and self._enrolled(badge):
                    return Outcome(True, f"badge {badge} is paired and enrolled")
            await asyncio.sleep(LOOK_S)
        if paired:
            return Outcome(False, f"badge {badge} is paired, and the station has not enrolled it within {WAIT_S:g} s")
        return Outcome(False, f"badge {badge} did not open its pairing window within {WAIT_S:g} s")


# ---------------------------------------------------------------------- the command


def add_command(commands: Any) -> None:
    """The command `enrol`."""
    command = commands.add_parser("enrol", help="pair with one badge by its card, and enrol it")
    command.add_argument("badge", type=int, help="the badge's number")
    command.add_argument("--passkey", required=True, help="the six digits on its card; - asks for them")
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")


def run_command(folder: Path, args: argparse.Namespace) -> int:
    """Ask the hub that runs in `folder`. Exit status: 0 enrolled, 1 not, 2 not a passkey."""
    passkey = input("passkey: ") if args.passkey == "-" else args.passkey
    if len(passkey) != 6 or not passkey.isascii() or not passkey.isdecimal():
        print("tocsin-hub: the passkey is the six digits on the badge's card", file=sys.stderr)
        return 2
    print(f"open the pairing window of badge {args.badge} now: hold its side button for eight seconds", file=sys.stderr)
    try:
        outcome = ask(folder / DOOR, args.badge, int(passkey))
    except NoHub as problem:
        print(f"tocsin-hub: {problem}", file=sys.stderr)
        return 1
    print(outcome.text if outcome.done else f"tocsin-hub: {outcome.text}", file=None if outcome.done else sys.stderr)
    return 0 if outcome.done else 1


def ask(path: Path, badge: int, passkey: int) -> Outcome:
    """Have the hub whose door is at `path` enrol a badge, and wait for it. Raises NoHub."""
    try:
        with _short(path) as name, contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
            door.settimeout(WAIT_S + 10)
            door.connect(name)
            door.sendall(json.dumps({"badge": badge, "passkey": passkey}).encode() + b"\n")
            answer = json.loads(b"".join(_parts(door)))
            return Outcome(bool(answer["done"]), str(answer["text"]))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise NoHub(f"no hub answers at {path}: {getattr(problem, 'strerror', None) or problem}") from problem


def _parts(door: socket.socket) -> Iterator[bytes]:
    while part := door.recv(4096):
        yield part
