"""A modem on a pseudo-terminal that does what modems do: echoes, reports unasked, asks for a PIN, loses the network.

Text mode of 3GPP TS 27.005. What it was given to send is in `sent`, as the receiver would read it.
"""

from __future__ import annotations

import os
import pty
import re
import select
import threading
import tty
from pathlib import Path

from hub import sms

SILENCE, GONE = "", "gone"


class Modem:
    """`port` is what a program opens. Set the attributes to break things."""

    def __init__(self, link: Path | None = None) -> None:
        self.master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        if link is not None:
            link.symlink_to(self.port)
            self.port = str(link)
        self.sent: list[tuple[str, str]] = []
        self.commands: list[str] = []
        self.pin: str | None = None
        self.pin_tries = 3
        self.pin_answers: list[str] = []  # to a PIN, before the SIM is asked: a line, SILENCE, or GONE
        self.pin_wrong = "+CME ERROR: 16"
        self.registration = 1
        self.signal = 17
        self.deaf = False
        self.noise = b""
        self.chatty = True  # unasked reports in between
        self.refuse = 0  # so many messages
        self.slow_s = 0.0
        self.without_prompt = False
        self.taking = threading.Event()  # set while a message is being taken
        self._closing = threading.Event()
        self._gone = False
        self._echo = True
        self._charset = "GSM"
        self._coding = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Unplug it."""
        self._closing.set()
        self._thread.join()
        os.close(self._slave)
        if not self._gone:
            os.close(self.master)

    def _say(self, text: str) -> None:
        os.write(self.master, f"\r\n{text}\r\n".encode())

    def _byte(self) -> bytes:
        while not select.select([self.master], [], [], 0.02)[0]:
            if self._closing.is_set():
                raise OSError
        return os.read(self.master, 1)

    def _read(self) -> bytes:
        data = self._byte()
        if self._echo and not self.deaf:
            os.write(self.master, data)
        return data

    def _run(self) -> None:
        line = b""
        try:
            while True:
                data = self._read()
                if self.noise:
                    os.write(self.master, self.noise)
                if data == b"\x1b":
                    line = b""
                elif data == b"\r":
                    command, line = line.decode("ascii", "replace"), b""
                    if command and not self.deaf:
                        self._do(command)
                elif data != b"\n":
                    line += data
        except OSError:
            return

    def _do(self, command: str) -> None:
        self.commands.append(command)
        if self.chatty and len(self.commands) % 3 == 0:
            self._say("+CREG: 1")
            self._say("^RSSI: 17")
        if command == "ATE0":
            self._echo = False
        elif command == "AT+CPIN?":
            self._say("+CPIN: " + ("SIM PUK" if not self.pin_tries else "SIM PIN" if self.pin else "READY"))
        elif found := re.fullmatch(r'AT\+CPIN="(\d+)"', command):
            if self.pin_answers:
                self._instead(self.pin_answers.pop(0))
                return
            if found[1] != self.pin:
                self.pin_tries -= 1
                if self.pin_wrong != SILENCE:
                    self._say(self.pin_wrong)
                return
            self.pin = None
            self.pin_tries = 3
        elif command == "AT+CREG?":
            self._say(f"+CREG: 0,{self.registration}")
        elif command == "AT+CEREG?":
            self._say("ERROR")
            return
        elif command == "AT+CSQ":
            self._say(f"+CSQ: {self.signal},99")
        elif found := re.fullmatch(r'AT\+CSCS="(\w+)"', command):
            self._charset = found[1]
        elif found := re.fullmatch(r"AT\+CSMP=17,167,0,(\d+)", command):
            self._coding = int(found[1])
        elif found := re.fullmatch(r'AT\+CMGS="([^"]+)"', command):
            self._take(found[1])
            return
        elif command not in ("AT", "AT+CMEE=1", "AT+CMGF=1"):
            self._say("ERROR")
            return
        self._say("OK")

    def _instead(self, answer: str) -> None:
        if answer == GONE:
            self._gone = True
            os.close(self.master)
            raise OSError
        if answer != SILENCE:
            self._say(answer)

    def _take(self, number: str) -> None:
        if self.without_prompt:
            return
        os.write(self.master, b"\r\n> ")
        data = b""
        while (byte := self._byte()) != b"\x1a":
            if byte == b"\x1b":
                return
            data += byte
        self.taking.set()
        if self.refuse:
            self.refuse -= 1
            self._say("+CMS ERROR: 500")
            return
        text = sms.decode(sms.Text(self._charset, self._coding, data))
        if self._charset == "UCS2":
            number = bytes.fromhex(number).decode("utf-16-be")
        self.sent.append((number, text))
        self._closing.wait(self.slow_s)
        self._say(f"+CMGS: {len(self.sent)}")
        self._say("OK")
