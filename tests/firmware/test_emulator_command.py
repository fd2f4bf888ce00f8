"""`tocsin-badge emulate` as a process: ready line, HTTP, the page in a browser, and an end without remains."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from playwright.sync_api import sync_playwright

from firmware.tools import cli

COMMAND = [sys.executable, "-m", "firmware.tools.cli", "emulate"]


class Running:
    """A badge's process and its HTTP interface."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.process = process
        self.ready = ready
        self.url = f"http://127.0.0.1:{ready['port']}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return json.load(reply)

    def post(self, path: str, body: bytes | dict[str, Any]) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, method="POST")) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def events(self, until: str, after: int = 0) -> list[dict[str, Any]]:
        """The events up to a trace line of this name."""
        found = []
        with urllib.request.urlopen(f"{self.url}/events?after={after}", timeout=10) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    found.append(json.loads(line[6:]))
                    if found[-1].get("name") == until:
                        return found
        raise AssertionError("the stream ended")


@contextlib.contextmanager
def emulated(*options: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
        yield Running(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def family_of(pid: int) -> list[int]:
    """Children of a process, and theirs."""
    mine = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return mine + [below for child in mine for below in family_of(child)]


def remains(family: list[int]) -> list[int]:
    """Which of these processes still run after a moment."""

    def runs(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    end = time.monotonic() + 15
    while any(map(runs, family)) and time.monotonic() < end:
        time.sleep(0.02)
    return [pid for pid in family if runs(pid)]


def test_a_badge_of_its_own_serves_its_panel_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with emulated("--dir", str(tmp_path / "state"), "--battery", "80", "--card", "Cllr B") as badge:
        assert badge.ready["ready"] is True
        with serial.Serial(badge.ready["serial"], timeout=10) as cable:  # a port that any program may open
            cable.write(b"\nstate\n")
            assert b"@" in cable.readline()
        family = family_of(badge.process.pid)
        events = badge.events("boot")
        assert [event["n"] for event in events] == sorted(event["n"] for event in events)
        assert all(abs(event["at"] - time.monotonic()) < 20 for event in events)
        state = badge.get("/state")
        assert state["battery"] == 80
        assert state["card"] == "Cllr B"
        assert state["running"] is True
        assert state["heap"]["limit"] == 160 * 1024
        assert badge.post("/do", {"do": "battery", "percent": 9}) == (200, {"ok": True})
        for path, body, says in (
            ("/do", b"rubbish", "not JSON"),
            ("/do", b"[]", "not a JSON object"),
            ("/do", {"do": "fly"}, "unknown act 'fly'"),
            ("/hear", {"name": "nothing"}, "no such sound"),
            ("/console", {"line": "a\nb"}, "one line"),
            ("/sounds?name=x.wav", b"RIFFrubbish", "x.wav: not a PCM WAV file"),
        ):
            status, answer = badge.post(path, body)
            assert status == 400
            assert says in answer["error"]
        assert badge.get("/sounds")["sounds"] == ["a voice"]
        family += family_of(badge.process.pid)
        badge.process.send_signal(signal.SIGTERM)
        assert badge.process.wait(30) == 0
        assert not remains(family)
        assert badge.process.stderr
        assert badge.process.stderr.read() == ""
        assert (tmp_path / "state" / "flash.bin").stat().st_size == 1 << 20


def test_killed_it_takes_its_children_along() -> None:
    with emulated() as badge:
        badge.events("boot")
        family = family_of(badge.process.pid)
        assert len(family) == 2  # MicroPython, and an air of its own
        badge.process.kill()
        badge.process.wait(30)
        assert not remains(family)


def test_wrong_options_are_one_line_and_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("speed = 3\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, says in (
            (["--config", str(bad)], "bad.toml: unknown key 'speed'"),
            (["--config", str(tmp_path / "none.toml")], "none.toml: No such file"),
            (["--microphone", str(tmp_path / "none.wav")], "none.wav: no such file"),
            (["--microphone", str(bad)], "not a PCM WAV file"),
            (["--card", "x" * 61], "not a name of at most 60"),
            (["--air", "nowhere"], "air: 'nowhere' is not HOST:PORT"),
            (["--air", "127.0.0.1:9", "--port", str(port)], "port: cannot listen"),
            (["--air", "127.0.0.1:9", "--dir", str(bad)], "dir:"),
        ):
            assert cli.main(["emulate", *options]) == 2
            error = capsys.readouterr().err
            assert error.startswith("tocsin-badge emulate: ")
            assert says in error
            assert error.count("\n") == 1


def test_the_card_can_be_pressed_in_a_browser_by_pointer_and_by_keyboard(chromium: str) -> None:
    with emulated() as badge, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(badge.url)
        page.get_by_text("hidden button").first.wait_for()
        page.locator("#log", has_text="@boot").wait_for()
        page.locator("#sos").hover()
        page.mouse.down()
        page.locator("#log", has_text="hidden button pressed").wait_for()
        page.mouse.up()
        page.locator("#log", has_text="hidden button released").wait_for()
        page.locator("#side").focus()
        page.keyboard.down("Space")
        page.locator("#log", has_text="side button pressed").wait_for()
        page.keyboard.up("Space")
        page.locator("#log", has_text="side button released").wait_for()
        page.get_by_role("button", name="Pull the lanyard").click()
        page.get_by_role("button", name="Attach the lanyard again").wait_for()
        page.locator("#battery").fill("9")
        page.locator("#battery-text", has_text="battery 9 %").wait_for()
        assert badge.get("/state")["battery"] == 9
        assert badge.get("/state")["lanyard"] is False
        browser.close()
        assert not problems


def test_the_badge_goes_off_duty_and_on_again_by_the_panel(chromium: str) -> None:
    with emulated() as badge, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(badge.url)
        page.locator("#log", has_text="@unprovisioned").wait_for()
        keys = {"badge": 12, "root": "11" * 32, "group_key": "22" * 16}
        assert badge.post("/provision", keys)[0] == 200
        page.locator("#log", has_text="@booted").wait_for()
        page.get_by_role("button", name="Go on duty again").click()
        page.locator("#note", has_text="The badge is on duty.").wait_for()
        page.get_by_role("button", name="Go off duty").click()
        page.locator("#radio", has_text="off duty, asleep").wait_for(timeout=30000)
        assert badge.get("/state")["asleep"] is True
        page.get_by_role("button", name="Go on duty again").click()
        page.locator("#log", has_text="@awake by=side_hold").wait_for(timeout=30000)
        page.locator("#radio", has_text="no hub connected").wait_for(timeout=30000)
        assert badge.get("/state")["asleep"] is False
        browser.close()
