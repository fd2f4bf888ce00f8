"""A hub that ends does so at once, and with its status, whatever its modem is doing (docs/bluetooth.md)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import modem_emulator
import pytest
from neighbours import free_port

from hub.recovery import HAND_OVER_STATUS

MODEM_S = 20.0  # hub.modem.PIN_S: for so long it waits for an answer
SOON_S = 9.5  # systemd kills after ten, and then does not see the status (deploy/tocsin-hub.service)

# the command as it is shipped, but for a radio that gives up when a line comes
PROGRAM = """
import asyncio, sys
import hub.app
from hub.cli import main
from hub.recovery import HandOver

class GivesUp(hub.app.Radio):
    async def run(self):
        self.ready.set()
        await asyncio.get_running_loop().connect_read_pipe(lambda: Line(asyncio.current_task()), sys.stdin)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not Line.come:
                raise
            raise HandOver("no answer") from None

class Line(asyncio.Protocol):
    come = False
    def __init__(self, task):
        self.task = task
    def data_received(self, data):
        Line.come = True
        self.task.cancel()

hub.app.Radio = GivesUp
sys.exit(main(["run", "--config", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("handing_over", "status"), [(True, HAND_OVER_STATUS), (False, 0)], ids=["hand over", "SIGTERM"]
)
def test_a_hub_ends_with_its_status_at_once_though_its_modem_gives_no_answer(
    tmp_path: Path, handing_over: bool, status: int
) -> None:
    modem = modem_emulator.Modem()
    modem.pin, modem.pin_answers = "1234", [modem_emulator.SILENCE] * 9
    (tmp_path / "hub.toml").write_text(
        f'[hub]\ndir = "{tmp_path / "hub"}"\n[station]\nkey = "{"11" * 32}"\n[radio]\nair = "127.0.0.1:9"\n'
        f"[mqtt]\nport = {free_port()}\n"
        f'[second_path]\nmodem = "{modem.port}"\nnumbers = ["+441632960001"]\npin = "1234"\n'
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "hub.toml")], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 30
        while 'AT+CPIN="1234"' not in modem.commands:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.02)
        started = time.monotonic()
        if handing_over:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        else:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(MODEM_S + 30)
        took_s = time.monotonic() - started
        assert process.returncode == status, (tmp_path / "log").read_text()
        assert took_s < SOON_S
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
        modem.close()
