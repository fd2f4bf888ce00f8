"""The air as a process: its door, its control line, and rubbish thrown at it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from bumble import hci
from bumble.device import Device
from bumble.host import Host
from hypothesis import given
from hypothesis import strategies as st

from firmware.emulator.air import cli
from firmware.emulator.air.client import open_hci
from firmware.emulator.air.link import Air
from firmware.emulator.air.server import Deframer, Garbage, serve

AIR = [sys.executable, "-m", "firmware.emulator.air.cli", "run"]


@contextlib.contextmanager
def running_air() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(AIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] is True
        yield process, ready["port"]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Control:
    """The control line of an air."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.sendall(b"control\n")
        self.file = self.socket.makefile("rb")

    def __call__(self, line: bytes | None = None, **fields: Any) -> dict[str, Any]:
        self.socket.sendall((json.dumps(fields).encode() if line is None else line) + b"\n")
        answer: dict[str, Any] = json.loads(self.file.readline())
        return answer

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def test_the_process_serves_hosts_survives_rubbish_and_stops_when_asked() -> None:
    with running_air() as (process, port):
        control = Control(port)
        for rubbish in (b"\x00" * 300, b"GET / HTTP/1.1\r\n\r\n", b"hci\n", b"hci a b\n", b"hci " + b"x" * 65 + b"\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(rubbish)
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(100) == b""
        for rubbish in (b"\x09\x09\x09", b"\x04\x0e\x01\x00", b"\x01\x03\x0c\x05\x00"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as host:
                host.sendall(b"hci badge:bad\n" + rubbish)
                host.settimeout(0.3)
                with contextlib.suppress(ConnectionResetError, TimeoutError):
                    host.recv(100)

        async def good_host() -> None:
            transport = await open_hci("127.0.0.1", port, "badge:good")
            device = Device(
                name="x", address=hci.Address("F0:00:00:00:00:01"), host=Host(transport.source, transport.sink)
            )
            await device.power_on()
            assert control(cmd="stats")["devices"] == ["badge:good"]
            await transport.close()

        asyncio.run(good_host())
        control.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


def test_faults_are_set_cleared_and_refused_over_the_control_line() -> None:
    async def story() -> None:
        air = Air()
        server = await serve(air, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        control = await asyncio.to_thread(Control, port)

        async def ask(line: bytes | None = None, **fields: Any) -> dict[str, Any]:
            return await asyncio.to_thread(control, line, **fields)

        assert await ask(cmd="fault", id=1, a="badge:a", b="hub:h", loss=0.3) == {"ok": True}
        assert air.faults.between("hub:h", "badge:a").loss == 0.3
        assert await ask(cmd="clear", id=1) == {"ok": True}
        assert air.faults.between("hub:h", "badge:a").loss == 0.0
        for line, says in (
            (b"hello", "not JSON"),
            (b"[1]", "not a JSON object"),
            (b'{"cmd":"dance"}', "unknown cmd"),
            (b'{"cmd":"clear","id":9}', "no fault 9"),
            (b'{"cmd":"fault","a":"x","b":"y"}', "'id'"),
            (b'{"cmd":"fault","id":1,"a":"x","b":"y","loss":7}', "'loss'"),
            (b'{"cmd":"seed","seed":"x"}', "'seed'"),
        ):
            answer = await ask(line)
            assert answer["ok"] is False
            assert says in answer["error"]
        assert await ask(cmd="seed", seed=7) == {"ok": True}
        assert (await ask(cmd="stats"))["connections"] == []
        await asyncio.to_thread(control.close)
        server.close()

    asyncio.run(story())


def test_a_port_that_cannot_be_had_is_one_line_and_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["run", "--port", str(taken.getsockname()[1])]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_the_deframer_takes_any_bytes_in_any_pieces(pieces: list[bytes]) -> None:
    deframer = Deframer()
    out = b""
    try:
        for piece in pieces:
            out += b"".join(deframer.feed(piece))
    except Garbage:
        return
    assert b"".join(pieces).startswith(out)


@given(st.binary(min_size=0, max_size=250), st.integers(1, 20))
def test_packets_survive_being_cut_into_pieces(payload: bytes, size: int) -> None:
    command = b"\x01\x03\x0c" + bytes((len(payload),)) + payload
    data = b"\x02\x01\x20" + len(payload).to_bytes(2, "little") + payload
    stream = command + data + command
    deframer = Deframer()
    got = [p for at in range(0, len(stream), size) for p in deframer.feed(stream[at : at + size])]
    assert got == [command, data, command]
