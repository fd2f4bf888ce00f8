"""The technician's page says what works: each command of the way from a new machine to a running hub is run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_tls import site

from hub import config

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/technician.md").read_text()
HEADING = "## A hub from a new Raspberry Pi"
# what changes the machine itself is not run in a test: what it names is looked at instead
MACHINE = {
    "sudo apt install bluez python3-venv",
    "sudo python3 -m venv /opt/tocsin",
    "sudo /opt/tocsin/bin/pip install -c constraints.txt '.[hub]'",
    "sudo install -m 644 deploy/systemd/tocsin.sysusers /usr/lib/sysusers.d/tocsin.conf",
    "sudo systemd-sysusers",
    "sudo install -m 644 deploy/systemd/tocsin-hub.service /etc/systemd/system/tocsin-hub.service",
    "sudo systemctl enable --now tocsin-hub",
    "sudo systemctl status tocsin-hub",
}


def section() -> str:
    start = PAGE.index(HEADING) + len(HEADING)
    return PAGE[start : PAGE.index("\n## ", start)]


def commands() -> list[str]:
    return [line.strip() for line in section().splitlines() if re.match(r"    (sudo|tocsin-hub) ", line)]


def toml() -> str:
    """The configuration that the page shows."""
    text = section()
    return "\n".join(
        line[4:] for line in text[text.index("    [hub]") : text.index("Whether it is right")].splitlines()
    )


def test_every_command_of_the_page_is_run_here_or_changes_the_machine() -> None:
    for line in commands():
        assert line in MACHINE or line.startswith("tocsin-hub "), line
    for line in MACHINE:
        assert line in commands()
        for word in shlex.split(line):
            if word.startswith("deploy/") or word == "constraints.txt":
                assert (TOP / word).exists()
    unit = (TOP / "deploy/systemd/tocsin-hub.service").read_text()
    assert "ExecStart=/opt/tocsin/bin/tocsin-hub run --config /etc/tocsin/hub.toml" in unit


def test_the_users_file_is_one_that_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-sysusers")
    if program is None:
        pytest.skip("systemd-sysusers is not installed: apt install systemd")
    done = subprocess.run(
        [program, "--dry-run", f"--root={tmp_path}", str(TOP / "deploy/systemd/tocsin.sysusers")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Failed to parse" not in done.stderr
    assert "tocsin" in done.stderr + done.stdout or done.returncode == 0


def test_the_page_leads_from_nothing_to_a_hub_that_the_broker_lets_in(tmp_path: Path) -> None:
    """Every command in its order, with the hub's folder and broker in the test's own places."""
    etc = tmp_path / "etc"
    etc.mkdir()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(line: str, good: tuple[int, ...] = (0,)) -> str:
        line = line.replace("/etc/tocsin", str(etc)).replace("broker.example", "localhost")
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode in good, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    with site(tmp_path / "site") as s:
        text = toml().replace("/var/lib/tocsin", str(tmp_path / "var")).replace("broker.example", "localhost")
        text = text.replace("8883", str(s.port)).replace("the station_key of the station's ready line", "ab" * 32)
        (etc / "hub.toml").write_text(text)
        shown = config.load(etc / "hub.toml", {})
        assert (shown.labels, shown.numbers) == ({12: "Cllr A. Example"}, ("+441632960001",))
        ran = []
        for line in commands():
            if line in MACHINE:
                continue
            if line.startswith("tocsin-hub ca init"):
                run(line)
                # the broker of this test has an authority already: the desk's is put in its place
                shutil.rmtree(tmp_path / "ca")
                shutil.copytree(s.ca, tmp_path / "ca")
                shutil.copy(s.ca / "ca.pem", etc / "ca.pem")
                continue
            said = run(line, (0, 1) if "doctor" in line or "ready" in line else (0,))
            ran.append(line)
            if "doctor" in line:
                # no adapter, receiver or modem in a test; what the page has set up is right
                assert re.search(r"^ok +broker: localhost:\d+: lets us in", said, re.MULTILINE), said
                assert re.search(r"^ok +certificate: good for another 398 days", said, re.MULTILINE), said
        assert len(ran) >= 9
