"""The air's door: one TCP port on loopback.

The first line of a connection says what it is: `hci NAME` (from then on raw H4 HCI with a controller of its
own, on the air until the connection ends) or `control` (JSON lines: set and clear faults, seed, statistics).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import struct
from collections.abc import Callable
from typing import Any

from bumble import hci

from firmware.emulator.air.controller import AirController
from firmware.emulator.air.faults import BadFault, Fault
from firmware.emulator.air.link import Air

logger = logging.getLogger("air")

GREETING_LIMIT = 100
CONTROL_LIMIT = 16_384
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# H4: type -> bytes of header after it, offset and format of the length
_HEADERS = {hci.HCI_COMMAND_PACKET: (3, 3, "<B"), hci.HCI_ACL_DATA_PACKET: (4, 3, "<H")}


class Garbage(Exception):
    """What came in is not what this port speaks; the message says what was wrong."""


class Deframer:
    """Cuts a stream of H4 into packets of a host: commands and data."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that are now complete. Raises Garbage at a type that no host sends."""
        self._buffer += data
        packets = []
        at = 0
        while at < len(self._buffer):
            header = _HEADERS.get(self._buffer[at])
            if header is None:
                raise Garbage(f"not an HCI packet of a host: type {self._buffer[at]:#04x}")
            size, offset, form = header
            if len(self._buffer) < at + 1 + size:
                break
            end = at + 1 + size + int(struct.unpack_from(form, self._buffer, at + offset)[0])
            if len(self._buffer) < end:
                break
            packets.append(bytes(self._buffer[at:end]))
            at = end
        del self._buffer[:at]
        return packets


class Door(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, air: Air) -> None:
        self.air = air
        self.device: AirController | None = None
        self._transport: asyncio.Transport | None = None
        self._line = bytearray()
        self._feed: Callable[[bytes], None] = self._greeting
        self._deframer = Deframer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first line."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Feed whoever is behind this connection; garbage ends it."""
        try:
            self._feed(data)
        except Garbage as problem:
            logger.warning("connection closed: %s", problem)
            self.air.count["garbage"] += 1
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone, and with it its device."""
        self._transport = None
        if self.device:
            self.air.leave(self.device)
            logger.info("%s has left the air", self.device.name)
            self.device = None

    def on_packet(self, packet: bytes) -> None:
        """From the controller to its host."""
        if self._transport:
            self._transport.write(packet)

    def _close(self) -> None:
        if self._transport:
            self._transport.abort()

    def _greeting(self, data: bytes) -> None:
        self._line += data
        line, newline, rest = bytes(self._line).partition(b"\n")
        if not newline:
            if len(line) > GREETING_LIMIT:
                raise Garbage("no line of greeting")
            return
        words = line.decode("ascii", "replace").split()
        if words == ["control"]:
            self._line.clear()
            self._feed = self._control
        elif len(words) == 2 and words[0] == "hci" and NAME.fullmatch(words[1]):
            self.device = self.air.join(words[1])
            self.device.set_packet_sink(self)
            self._feed = self._hci
            logger.info("%s is on the air", words[1])
        else:
            raise Garbage(f"unknown greeting {line[:40]!r}")
        if rest:
            self._feed(rest)

    def _hci(self, data: bytes) -> None:
        assert self.device
        for packet in self._deframer.feed(data):
            try:
                self.device.on_packet(packet)
            except Exception as problem:  # Bumble's parser raises nearly anything on malformed packets
                raise Garbage(f"{self.device.name}: {type(problem).__name__}: {problem}") from problem

    def _control(self, data: bytes) -> None:
        self._line += data
        while b"\n" in self._line:
            line, _, rest = self._line.partition(b"\n")
            self._line = bytearray(rest)
            answer = self._command(bytes(line))
            if self._transport:
                self._transport.write(json.dumps(answer).encode() + b"\n")
        if len(self._line) > CONTROL_LIMIT:
            raise Garbage("control line too long")

    def _command(self, line: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(line)
        except ValueError:
            return {"ok": False, "error": "not JSON"}
        if not isinstance(fields, dict):
            return {"ok": False, "error": "not a JSON object"}
        command, number = fields.get("cmd"), fields.get("id")
        if command in ("fault", "clear") and (not isinstance(number, int) or isinstance(number, bool)):
            return {"ok": False, "error": "'id' must be a whole number"}
        if command == "fault":
            try:
                self.air.faults.set(int(number or 0), Fault.parse(fields))
            except BadFault as problem:
                return {"ok": False, "error": str(problem)}
            self.air.changed()
        elif command == "clear":
            if not self.air.faults.clear(int(number or 0)):
                return {"ok": False, "error": f"no fault {number}"}
            self.air.changed()
        elif command == "seed":
            if not isinstance(fields.get("seed"), int):
                return {"ok": False, "error": "'seed' must be a whole number"}
            self.air.faults.seed(fields["seed"])
            self.air.changed()
        elif command == "stats":
            return {"ok": True, **self.air.stats()}
        else:
            return {"ok": False, "error": f"unknown cmd {command!r}"}
        return {"ok": True}


async def serve(air: Air, host: str, port: int) -> asyncio.Server:
    """Open the door. Raises OSError when the port cannot be had."""
    return await asyncio.get_running_loop().create_server(lambda: Door(air), host, port)
