"""`tocsin-badge update`: hands an update to a badge over its serial cable and stays until the badge has judged it.

The badge leads: it says which byte it wants next (`@update at=N`), and gets that. A piece that is lost, doubled or
damaged is asked for again; a cable that was pulled out is waited for.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from firmware.tools.image import ImageError, describe, read_update
from protocol.image import CHUNK, HEAD, Head

BAUD = 115_200
ANSWER_S = (
    3.0  # a badge looks at its console ten times a second, and a block of flash is erased in less than half a second
)
PAUSE_S = 1.0  # between two tries while the badge is needed for something else
TRIES = 10  # without an answer
SHORT_TRIES = 120  # while the badge has no memory to spare, as after an alarm whose sound it still sends
BACK_S = 30.0  # for a port to come back: USB goes away when the badge begins anew
MARGIN_S = 60.0  # longer than the trial itself: two starts
_STATE = re.compile(r"@update (?P<fields>.*=.*)")


class UpdateError(Exception):
    """The badge was not updated; the text says why and what to do."""


class RunsAlready(Exception):
    """The badge has this version and has kept it; what it said of that was lost on the cable."""


class Port(Protocol):
    """What is used of serial.Serial."""

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> object: ...
    def reset_input_buffer(self) -> None: ...
    def close(self) -> None: ...


def piece(data: bytes, at: int) -> str:
    """The line with the bytes from `at`."""
    part = data[at : at + CHUNK]
    return f"update at {at} {zlib.crc32(part, at):08x} {base64.b64encode(part).decode()}"


class Updater:
    """One update of one badge. `open_port` opens the cable and raises OSError when it cannot."""

    def __init__(
        self,
        data: bytes,
        head: Head,
        open_port: Callable[[], Port],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._data = data
        self._head = head
        self._open = open_port
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._port: Port | None = None
        self._heard = b""
        self._unheard = False  # of what became of it, once
        self.sent = 0  # lines with pieces, for tests

    def run(self) -> None:
        """Update the badge. Returns when the new firmware has reached a hub; raises UpdateError."""
        self._connect(wait=False)
        try:
            while not self._watch(on_trial=self._transfer()):
                pass
        except RunsAlready:
            self._say(f"{self._head.version} runs on the badge already, and stays")
        finally:
            if self._port is not None:
                self._port.close()

    # --- the cable

    def _connect(self, *, wait: bool) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None
        end = self._clock() + BACK_S
        while True:
            try:
                self._port = self._open()
                self._port.reset_input_buffer()
                self._heard = b""
                return
            except OSError as error:
                if not wait:
                    raise UpdateError(str(error)) from None
                if self._clock() >= end:
                    raise UpdateError("the port did not come back: put the cable in and run this again") from None
                self._sleep(0.2)

    def _write(self, line: str) -> None:
        try:
            assert self._port is not None
            self._port.write(b"\n" + line.encode() + b"\n")
        except OSError:
            self._again()

    def _again(self) -> None:
        self._say("the cable is gone; waiting for it")
        self._connect(wait=True)

    def _line(self, seconds: float) -> str | None:
        """The next whole line, None when there was none in that time."""
        end = self._clock() + seconds
        while b"\n" not in self._heard:
            try:
                assert self._port is not None
                more = self._port.read(1)
                if more:
                    more += self._port.read(self._port.in_waiting)
            except OSError:
                self._again()
                return None
            self._heard += more
            if not more and self._clock() >= end:
                return None
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode("utf-8", "replace").strip()

    def _news(self, seconds: float) -> dict[str, str] | None:
        """What the badge says of the update next; {} when it began anew. Raises UpdateError when it refuses."""
        end = self._clock() + seconds
        while True:
            line = self._line(max(0.0, end - self._clock()))
            if line is None:
                return None
            if line.startswith("@refused why="):
                why = line[len("@refused why=") :].replace("_", " ")
                if why.startswith("no such command"):
                    raise UpdateError("the badge's firmware is too old for updates by cable: flash it")
                if why == f"{self._head.version} runs already".replace("_", " "):
                    raise RunsAlready
                raise UpdateError(f"the badge refuses: {why}")
            if found := _STATE.match(line):
                return dict(part.split("=", 1) for part in found["fields"].split() if "=" in part)
            if line.startswith("@booted"):
                return {}
            if self._clock() >= end:
                return None

    # --- what is said

    def _transfer(self) -> bool:
        """Send it; True when it had arrived before and is on trial already."""
        size = len(self._data)
        begin = f"update begin {size} {zlib.crc32(self._data[:HEAD]):08x}"
        line, at, silent, short, shown, paused = begin, -1, 0, 0, -1, ""
        answered = True
        while True:
            if answered:
                self._write(line)
            answered = True
            news = self._news(ANSWER_S)
            if news is None:
                silent += 1
                if silent >= TRIES:
                    raise UpdateError("the badge does not answer; is another program on the port?")
                # after the head it checks a signature, at the end the whole slot: that takes its time
                line = begin
                continue
            silent = 0
            if "state" in news:
                if news["state"] in ("checked", "restart", "trial"):
                    self._state(news)
                    return news["state"] == "trial"
                line = begin
                continue
            if not news.get("at", "").isdigit():
                line = begin  # it began anew, and has forgotten what it had
                continue
            why, before, at = news.get("why"), at, int(news["at"])
            if why == "on_trial":
                self._say("what runs is on trial; waiting for what becomes of it")
                return True
            if why is not None and why not in ("begin_first", "damaged"):
                if why != paused:
                    self._say("the badge is needed and waits with the update: " + why.replace("_", " "))
                paused = why
                short += why == "memory_is_short"
                if short >= SHORT_TRIES:
                    raise UpdateError("the badge has no memory to spare: switch it off and on, and run this again")
                line = begin
                self._sleep(PAUSE_S)
                continue
            if paused:
                self._say("going on")
                paused = ""
            if why == "begin_first":
                line = begin
                continue
            if why is None and at == before and line != begin:
                answered = False  # said twice, because it was asked twice: another answer is on its way
                continue
            if at >= size:
                line = begin
                if before >= size:
                    self._sleep(PAUSE_S)
                continue
            line = piece(self._data, at)
            self.sent += 1
            if at * 10 // size != shown:
                shown = at * 10 // size
                self._say(f"{shown * 10} %")

    def _state(self, news: dict[str, str]) -> None:
        state = news["state"]
        version = self._head.version
        if state == "checked":
            self._say("the badge has it whole, and the signature is good")
        elif state == "restart":
            self._say(f"it restarts with {version}")
        elif state == "trial":
            self._say(f"{version} runs on trial: {news.get('seconds', '?')} s to reach a hub")

    def _watch(self, on_trial: bool) -> bool:
        """Wait for what becomes of it; False when the badge was needed before the restart, or nothing was heard of it:
        then it is sent again."""
        trial_s = self._head.trial + MARGIN_S
        end = self._clock() + (trial_s if on_trial else MARGIN_S)
        version = self._head.version
        said = ""
        while self._clock() < end:
            news = self._news(1.0)
            if not news or news.get("why") == "on_trial":
                continue
            state = news.get("state", "")
            if state == "stays":
                self._say(f"{version} has reached a hub, and stays")
                return True
            if "at" in news or state == "stopped":
                return False
            if state in ("failed", "back"):
                self._say(f"{version} goes")
                if state == "back":
                    raise UpdateError(
                        f"{version} did not reach a hub in {self._head.trial} s or did not run; the badge went back to"
                        " the firmware it had. Is a hub on beside it that knows it?"
                    )
                end = self._clock() + MARGIN_S
                continue
            if state in ("restart", "trial"):
                end = self._clock() + trial_s
            text = state + news.get("why", "")
            if text != said:
                said = text
                self._state(news)
        if not self._unheard:
            self._unheard = True  # perhaps only its words were lost: who has it says so when it is sent again
            return False
        raise UpdateError(
            f"the badge says nothing any more: switch it off and on. If {version} does not stand, the badge starts what"
            " it had before"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `tocsin-badge update`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an update, *.tbu")
    parser.add_argument("--port", required=True, metavar="PORT", help="the badge's serial port, e.g. /dev/ttyACM0")


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 updated and confirmed, 1 the badge did not take or keep it, 2 the file or port is wrong."""
    import serial

    def open_port() -> Port:
        try:
            return serial.Serial(args.port, BAUD, timeout=0.1, write_timeout=10)  # type: ignore[no-any-return]
        except serial.SerialException as error:
            raise OSError(f"{args.port}: {error}") from None

    try:
        head, data = read_update(args.file)
    except ImageError as error:
        print(f"tocsin-badge update: {error}", file=sys.stderr)
        return 2
    print(f"{args.file}: {describe(head)}")
    updater = Updater(data, head, open_port, lambda text: print(text, flush=True))
    try:
        updater.run()
    except UpdateError as error:
        print(f"tocsin-badge update: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "tocsin-badge update: stopped; what runs on the badge is untouched until it says 'restart'", file=sys.stderr
        )
        return 1
    return 0
