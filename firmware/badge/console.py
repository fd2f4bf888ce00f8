"""The serial cable: one line in, one answer out. For technicians, provisioning and the emulator.

    provision {"badge": 12, "root": "64 hex digits", "group_key": "32 hex digits", "settings": {...}}
    set {"visit_minutes": 30}
    state
    standby
    update ...                    (update.py)

Answers are trace lines: `@provisioned badge=12`, `@set version=3`, `@state {...}`, `@refused why=...`. Keys go in and
never come out.
"""

import asyncio
import json
import select
import sys
from binascii import unhexlify

from micropython import const

from protocol.ident import BADGE_MAX

from . import trace
from .settings import BadSetting, check_all
from .store import Identity

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

_POLL_MS = const(100)
_HURRY_MS = const(2)  # while an update comes, a short line at a time
_LINE_MAX = const(1024)
_AT_ONCE = const(256)


class Refused(Exception):
    """A line that cannot be obeyed; the text says why."""


def _hex(values: "dict[str, Any]", name: str, length: int) -> bytes:
    try:
        value = unhexlify(values[name])
    except (KeyError, ValueError, TypeError):
        value = b""
    if len(value) != length:
        raise Refused("%s is %d hex digits" % (name, 2 * length))
    return value


def parse_provision(values: object) -> "tuple[Identity, dict[str, int | float | bool]]":
    """Identity and settings of a provision line; raises Refused or BadSetting."""
    if not isinstance(values, dict):
        raise Refused("provision takes an object")
    badge = values.get("badge")
    if not isinstance(badge, int) or isinstance(badge, bool) or not 0 < badge <= BADGE_MAX:
        raise Refused("badge is a number from 1 to %d" % BADGE_MAX)
    identity = Identity(badge, _hex(values, "root", 32), _hex(values, "group_key", 16))
    return identity, check_all(values.get("settings") or {})


class Console:
    """Reads lines from stdin without blocking and hands them to the handlers set by the application."""

    def __init__(self) -> None:
        self.on_provision: "Callable[[Identity, dict[str, int | float | bool]], None]"
        self.on_set: "Callable[[dict[str, int | float | bool]], None]"
        self.on_state: "Callable[[], dict[str, Any]]"
        self.on_standby: "Callable[[], str]"
        self.on_update: "Callable[[str], None]"
        self.step: "Callable[[], bool] | None" = None  # what is in work, as long as it gives True
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)
        self._char = bytearray(1)
        self._line = bytearray()
        self._closed = False

    def obey(self, line: str) -> None:
        """Do what one line says."""
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "provision":
                self.on_provision(*parse_provision(json.loads(rest)))
            elif word == "set":
                self.on_set(check_all(json.loads(rest)))
            elif word == "state":
                trace.say("state", json.dumps(self.on_state()))
            elif word == "standby":
                why = self.on_standby()
                if why:
                    raise Refused(why)
            elif word == "update":
                self.on_update(rest)
            elif word:
                raise Refused("no such command: " + word[:20])
        except (Refused, BadSetting) as error:
            trace.say("refused", "why=" + str(error).replace(" ", "_"))
        except ValueError:
            trace.say("refused", "why=not_JSON")

    def _read(self) -> None:
        # into what is there already: a text that grew letter by letter would leave its length squared behind
        char = self._char
        for _ in range(_AT_ONCE):
            if self._closed or not self._poll.poll(0):
                return
            if not sys.stdin.buffer.readinto(char):
                self._closed = True  # nobody is at the other end any more
                return
            if char[0] in b"\r\n":
                line, self._line = self._line, bytearray()
                try:
                    self.obey(line.decode())
                except UnicodeError:  # noise on the cable
                    trace.say("refused", "why=not_UTF-8")
            elif len(self._line) < _LINE_MAX:
                self._line.append(char[0])

    async def run(self, alive: "Callable[[], None]") -> None:
        """Listen for ever."""
        while True:
            self._read()
            if self.step is not None and not self.step():
                self.step = None
            alive()
            await asyncio.sleep_ms(_POLL_MS if self.step is None else _HURRY_MS)
