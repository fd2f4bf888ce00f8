"""A modem on a serial port that sends text messages: AT commands in text mode (3GPP TS 27.005 and 27.007).

The port is opened for each use, so that a modem that was unplugged is found again and others may look at it in
between. Everything here blocks and belongs into a thread.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.serialport import open_port
from hub.simpin import SimPin
from hub.sms import Text

logger = logging.getLogger("hub.modem")

REFUSED = "sim-pin-refused"  # in the hub's folder
ANSWER_S = 3.0  # for an ordinary command
PIN_S = 20.0  # a SIM that was just unlocked needs seconds until it is ready
SAYS_NOTHING = "nothing"
SEND_S = 60.0  # until the network has taken a message: 27.005 gives no limit, modems give up after a minute
WEAK = 5  # of 31 (AT+CSQ): -103 dBm; below it messages are often refused
REGISTERED = {1: "home network", 5: "roaming", 6: "home network, text only", 7: "roaming, text only"}
# +CME ERROR (27.007, 9.2), by number and in words: the SIM said no; the SIM was not asked
_PIN_WRONG = {"16", "incorrect password"}
_PIN_NOT_SEEN = {"10", "14", "sim not inserted", "sim busy"}
_NOT = {0: "not searching", 2: "searching", 3: "refused by the network", 4: "unknown"}


class ModemFailed(Exception):
    """It did not work; the text says what to do. `lasting`: trying again will not help.

    `perhaps`: the message was given to the modem, which did not say what became of it. `said`: the line by which the
    modem itself said that it did not work, or "".
    """

    def __init__(self, text: str, lasting: bool = False, perhaps: bool = False, said: str = "") -> None:
        super().__init__(text)
        self.said = said
        self.lasting = lasting
        self.perhaps = perhaps


@dataclass(frozen=True)
class Report:
    """How a modem is: `signal` 0 to 31 or None if unknown, `network` in words."""

    signal: int | None
    network: str

    def __str__(self) -> str:
        strength = "signal unknown" if self.signal is None else f"signal {self.signal} of 31"
        weak = ", weak" if self.signal is not None and self.signal < WEAK else ""
        return f"{self.network}, {strength}{weak}"


class Modem:
    """A modem at a port, opened. Use as a context. Every method raises ModemFailed.

    `refused` is a file that remembers a PIN which the SIM did not take: three wrong ones lock it, and a hub that is
    started again and again would soon have tried three times. It may be entered again after it was left.
    """

    def __init__(
        self, port: str, baud: int = 115_200, pin: str | None = None, refused: Path | None = None
    ) -> None:  # fmt: skip
        self._name = port
        self._baud = baud
        self._sim = SimPin(pin or "", refused)
        self._port: Any = None
        self._buffer = b""
        self._lines: deque[str] = deque()

    def __enter__(self) -> Modem:
        self._buffer = b""
        self._lines.clear()
        try:
            self._port = open_port(self._name, self._baud, timeout=0.1, write_timeout=ANSWER_S, exclusive=True)
        except OSError as problem:
            raise ModemFailed(_why(self._name, problem)) from problem
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._port.close()

    def check(self) -> Report:
        """Wake it, unlock the SIM, and say how it stands with the network."""
        self._wake()
        self._unlock()
        return Report(self._signal(), self._network())

    def send(self, number: str, text: Text) -> None:
        """One message; returns when the network has taken it. Call check() before.

        Raises ModemFailed, and says when the network may have taken it all the same.
        """
        self.command("AT+CMGF=1")
        self.command(f'AT+CSCS="{text.charset}"')
        self.command(f"AT+CSMP=17,167,0,{text.coding}")  # no status report, valid for a day, this alphabet
        self._write(f'AT+CMGS="{text.number(number)}"\r'.encode())
        if not self._until(lambda line: line.startswith(">"), ANSWER_S):
            self._write(b"\x1b")  # leave the prompt, wherever it is
            raise ModemFailed(f"{self._name}: does not ask for the text")
        self._write(text.data + b"\x1a")
        try:
            found = self._until(lambda line: line.startswith("+CMGS:"), SEND_S)
        except ModemFailed as problem:
            refused = "ERROR" in problem.said
            raise ModemFailed(str(problem), perhaps=not refused) from problem
        if not found:
            raise ModemFailed(
                f"{self._name}: does not say within {SEND_S:g} s whether the network took the message", perhaps=True
            )
        with contextlib.suppress(ModemFailed):  # the network has it, whatever the modem does now
            self._until(lambda line: line == "OK", ANSWER_S)

    def command(self, command: str, seconds: float = ANSWER_S) -> list[str]:
        """Send a command and give the lines before its OK."""
        self._lines.clear()
        self._write(command.encode() + b"\r")
        lines: list[str] = []
        if not self._until(lambda line: line == "OK", seconds, lines):
            raise ModemFailed(f"{self._name}: no answer to {command.split('=')[0]}")
        # a command that is echoed, and what the modem reports unasked, are no answer
        return [line for line in lines[:-1] if line != command]

    # ------------------------------------------------------------------ steps

    def _wake(self) -> None:
        for attempt in range(3):
            if attempt:
                self._write(b"\x1b")  # leave a prompt that somebody was interrupted at
                self._drain()
            try:
                self.command("AT", 1.0)
                break
            except ModemFailed:
                continue
        else:
            raise ModemFailed(
                f"{self._name}: does not answer AT: it is not a modem, or not its command port, or another program "
                "(ModemManager) has it"
            )
        self.command("ATE0")
        with contextlib.suppress(ModemFailed):
            self.command("AT+CMEE=1")  # errors as numbers, where it can

    def _unlock(self) -> None:
        state = self._pin_state()
        if state == "SIM PIN":
            self._give_pin()
            state = self._opened()
        if state == "READY":
            self._sim.open()
            return
        if state == SAYS_NOTHING:  # nothing for a technician's hand: it may well say more the next time
            raise ModemFailed(f"{self._name}: does not say how it stands with its SIM")
        raise ModemFailed(f"the SIM says {state}: unlock it in a telephone first", True)

    def _give_pin(self) -> None:
        if not self._sim.pin:
            raise ModemFailed("the SIM asks for its PIN: give pin in [second_path], or take the PIN off", True)
        if why := self._sim.against():
            raise ModemFailed(why, True)
        self._sim.giving()
        try:
            self.command(f'AT+CPIN="{self._sim.pin}"', PIN_S)
        except ModemFailed as problem:
            error = problem.said.partition("+CME ERROR:")[2].strip().lower()
            if error in _PIN_WRONG:
                self._sim.refused()
                raise ModemFailed("the SIM does not take this PIN; it is not tried again", True) from problem
            if error in _PIN_NOT_SEEN:
                self._sim.not_judged()
            raise ModemFailed(f"no word of the SIM whether it took its PIN: {problem}", said=problem.said) from problem

    def _opened(self) -> str:
        """The state of a SIM that was just unlocked, and may be busy with that for a while."""
        end = time.monotonic() + PIN_S
        while True:
            try:
                state = self._pin_state()
            except ModemFailed as problem:
                if not problem.said or time.monotonic() >= end:
                    raise
            else:
                if state == "READY" or time.monotonic() >= end:
                    return state
            time.sleep(0.2)

    def _pin_state(self) -> str:
        try:
            lines = self.command("AT+CPIN?")
        except ModemFailed as problem:
            raise ModemFailed(f"{self._name}: no SIM, or it is not read ({problem})", said=problem.said) from problem
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("+CPIN:")), SAYS_NOTHING)

    def _network(self) -> str:
        said = "unknown"
        for command in ("AT+CREG?", "AT+CEREG?"):  # voice and text; LTE alone
            try:
                lines = self.command(command)
            except ModemFailed:
                continue
            for line in lines:
                if found := re.match(r"\+CE?REG: ?\d,(\d)", line):
                    state = int(found[1])
                    if state in REGISTERED:
                        return REGISTERED[state]
                    said = _NOT.get(state, "unknown")
        raise ModemFailed(f"no network for text messages: {said}")

    def _signal(self) -> int | None:
        for line in self.command("AT+CSQ"):
            if found := re.match(r"\+CSQ: ?(\d+)", line):
                return int(found[1]) if int(found[1]) <= 31 else None
        return None

    # ------------------------------------------------------------------ the port

    def _write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as problem:
            raise ModemFailed(_why(self._name, problem)) from problem

    def _drain(self) -> None:
        self._buffer = b""
        self._lines.clear()
        end = time.monotonic() + 0.3
        with contextlib.suppress(OSError):
            while time.monotonic() < end and self._port.read(4096):
                pass

    def _until(self, wanted: Any, seconds: float, lines: list[str] | None = None) -> bool:
        """Read lines until one is wanted. Raises ModemFailed for one that is an error."""
        end = time.monotonic() + seconds
        while True:
            while self._lines:
                line = self._lines.popleft()
                if lines is not None:
                    lines.append(line)
                if wanted(line):
                    return True
                if line == "ERROR" or line.startswith(("+CMS ERROR", "+CME ERROR", "NO CARRIER")):
                    raise ModemFailed(f"{self._name}: {line}", said=line)
            if time.monotonic() >= end:
                return False
            self._read()

    def _read(self) -> None:
        try:
            self._buffer += self._port.read(max(1, min(self._port.in_waiting, 4096)))
        except (OSError, TypeError) as problem:
            raise ModemFailed(_why(self._name, problem)) from problem
        *complete, self._buffer = re.split(rb"[\r\n]+", self._buffer[-8192:])
        if self._buffer.startswith(b"> "):  # it asks for the text, and ends no line
            complete.append(b">")
            self._buffer = b""
        self._lines += [line for raw in complete if (line := raw.decode("ascii", "replace").strip())]


def _why(name: str, problem: Exception) -> str:
    number = getattr(problem, "errno", None)
    if number == 13:
        return f"{name}: not allowed: put the hub's user into the group that owns it (dialout)"
    if number == 2:
        return f"{name}: there is no such port: is the modem plugged in?"
    if number in (11, 16):
        return f"{name}: another program has it (ModemManager?)"
    return f"{name}: {getattr(problem, 'strerror', None) or problem}"
