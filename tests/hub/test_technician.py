"""The technician's page says what works: each command of it is run here, up to an enrolled badge, or is in the list
of those that cannot be, with the reason. A command that is new on the page and neither of them fails."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from neighbours import free_port
from test_tls import site

from hub import config, control

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/technician.md").read_text()
THREE = "Three machines and a broker of one's own"
RASPBERRY = "A hub from a new Raspberry Pi"
REHEARSE = "Rehearse"
TOKEN = "at least sixteen characters of your own"  # as the page has it
PASSWORD = "a-password-for-asha"
HUB = str(Path(sys.executable).parent / "tocsin-hub")

# What is not run in these tests, and why; everything else on the page is.
NOT_RUN = {
    "sudo apt install bluez python3-venv": "changes the machine; both are packages of Debian, checked below",
    "sudo /opt/tocsin/bin/pip install -c constraints.txt '.[hub]'": "downloads; make venv installs the same from the "
    "same constraints, and every test runs from that",
    "sudo systemctl status tocsin-hub": "needs a running systemd; what the hub tells it is in test_appliance.py",
    "tocsin-badge update tocsin-badge_s3-0.2.0.tbu --port /dev/ttyACM0": "needs a signed release of a board; the same "
    "command with one for the emulated badge is in tests/firmware/test_badge_update.py",
    "tocsin-drill run tests/drills/uplink_down.toml": "it is run by tests/drills/test_drills.py, with all the others",
}
# The page also names commands in its text: to say what they are, not to be typed there.
NAMED = {
    "pip install -c constraints.txt '.[station]'": "make venv installs the same",
    "pip install -c constraints.txt '.[hub]'": "make venv installs the same",
    "pip install -c constraints.txt '.[tools]'": "make venv installs the same",
    "pip install -c constraints.txt '.[emulator]'": "make venv installs the same",
    "make venv": "without it no test runs",
    "make demo": "tests/drills run what it starts",
    "make bench": "a measurement",
    "make test-bluez": "tests of its own, in a machine of their own",
    "tocsin-hub config keys": "test_config.py",
    "sudo -u tocsin": "the user of the service, whom a test does not make",
}
# and these to look at what does not work: run at the end of the first way
LOOKED = tuple(f"tocsin-hub {what} --config hub.toml" for what in ("status", "doctor", "ready"))


def section(heading: str) -> str:
    start = PAGE.index(f"## {heading}\n")
    return PAGE[start : PAGE.index("\n## ", start)]


def commands(text: str) -> list[str]:
    """What is to be typed: the indented lines that are no configuration."""
    return [line.strip() for line in text.splitlines() if re.match(r"    (sudo|pip|make|tocsin-[a-z]+) ", line)]


def files(text: str) -> list[str]:
    """The configurations that are shown."""
    found, block = [], ""
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block += line[4:] + "\n"
            continue
        if block.startswith("["):
            found.append(block)
        block = ""
    return found


class Machine:
    """Where the page's commands run: a folder, ports of its own, and what was started. `ran` has every line as it is
    on the page."""

    def __init__(self, folder: Path, **instead: str) -> None:
        self.folder = folder
        self.instead = instead
        self.ran: list[str] = []
        self.ready: dict[str, dict[str, Any]] = {}
        self._running: list[subprocess.Popen[str]] = []
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.environment["TOCSIN_PARENT_DEATH"] = "1"

    def here(self, text: str) -> str:
        """A command or file of the page with this machine's own places in it."""
        for theirs, ours in self.instead.items():
            text = text.replace(theirs, ours)
        return text

    def run(self, line: str, good: tuple[int, ...] = (0,), said: str = "", here: str | None = None) -> str:
        """Run a line to its end, with something to say to it; what it printed."""
        self.ran.append(line)
        command = self.here(line) if here is None else here
        done = subprocess.run(
            command, shell=True, cwd=self.folder, input=said, capture_output=True, text=True, timeout=90,
            env=self.environment, check=False, start_new_session=True,
        )  # fmt: skip
        assert done.returncode in good, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str, here: str | None = None) -> dict[str, Any]:
        """Run a line that goes on; what it said when it was ready."""
        self.ran.append(line)
        command = shlex.split(self.here(line) if here is None else here)
        log = (self.folder / "log").open("a")
        started = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment
        )
        self._running.append(started)
        assert started.stdout is not None
        said = started.stdout.readline()
        assert said, f"{command}: {(self.folder / 'log').read_text()}"
        ready: dict[str, Any] = json.loads(said)
        return ready

    def stop(self) -> None:
        """End everything, the last started first; each ends cleanly."""
        for started in reversed(self._running):
            started.send_signal(signal.SIGTERM)
            assert started.wait(20) == 0, started.args


@contextlib.contextmanager
def machine(folder: Path, **instead: str) -> Iterator[Machine]:
    made = Machine(folder, **instead)
    try:
        yield made
    except BaseException:
        print((folder / "log").read_text() if (folder / "log").exists() else "no log")
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            made.stop()
        raise
    made.stop()


def until(true: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return found


def accept(station: str, hub_id: str) -> None:
    """A supervisor accepts the hub in the console, with the account that the page has made."""
    with httpx.Client(base_url=station, headers={"Origin": station}, trust_env=False, timeout=20) as console:
        assert console.post("/login", data={"username": "asha", "password": PASSWORD}).status_code < 400
        until(lambda: console.get("/api/hubs").json()["hubs"], "the hub under Devices")
        console.post(f"/api/hubs/{hub_id}/accept").raise_for_status()


def enrolled(folder: Path, badge: int) -> None:
    """Until the hub has a session with a badge that is enrolled there."""

    def there() -> bool:
        with contextlib.suppress(control.NoHub):
            status = control.ask(folder / "hub.sock")
            entry = status["badges"].get(str(badge), {})
            established = entry.get("enrolled") and entry.get("state") == "established"
            return bool(established and status["station_answers"])
        return False

    until(there, f"badge {badge} enrolled and connected", 60)  # as drill.stage.ENROL_S


def looked(here: Machine, line: str, says: str) -> str:
    """What a command says of the running hub once it says this: a connection may be made anew in this very moment."""
    return str(until(lambda: re.search(rf"(?s).*{says}.*", here.run(line, (0, 1)), re.MULTILINE), f"{line}: {says}")[0])


@contextlib.contextmanager
def cable(panel: str) -> Iterator[str]:
    """A serial port whose other end is the console of an emulated badge's firmware, by way of its panel."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)

    def badge() -> None:
        heard = b""
        with contextlib.suppress(OSError):
            while True:
                heard += os.read(ours, 4096)
                *lines, heard = heard.split(b"\n")
                for line in lines:
                    if line.startswith(b"provision "):
                        reply = httpx.post(panel + "/provision", content=line[10:], timeout=20, trust_env=False)
                        answer = reply.json()
                        os.write(ours, f"@provisioned badge={answer['badge']}\r\n".encode())

    threading.Thread(target=badge, daemon=True).start()
    try:
        yield os.ttyname(theirs)
    finally:
        os.close(theirs)
        os.close(ours)


def test_every_command_of_the_page_is_run_or_is_known_not_to_be() -> None:
    typed = commands(PAGE)
    told = [line for heading in (THREE, RASPBERRY, REHEARSE) for line in commands(section(heading))]
    assert sorted(typed) == sorted(told), "a section that no test goes through has commands"
    assert NOT_RUN.keys() <= set(typed), "not on the page any more"
    assert "uplink_down" in {file.stem for file in (TOP / "tests/drills").glob("*.toml")}
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in PAGE.splitlines():
        for word in re.findall(r"'\.\[(\w+)\]'", line):
            assert word in extras, line
        for word in re.findall(r"\bdeploy/[\w./-]+\w", line):
            assert (TOP / word).exists(), line
    mentioned = set(re.findall(r"`((?:tocsin-[a-z]+|make|pip|sudo) [^`]+)`", PAGE))
    for command in mentioned - NAMED.keys():
        assert any(line.startswith(command) for line in (*typed, *LOOKED)), command
        name, *rest = shlex.split(command)
        known = subprocess.run(
            [str(Path(sys.executable).parent / name), *rest[:2], "--help"], capture_output=True, text=True, check=False
        )
        assert known.returncode in (0, 2), command
        assert "invalid choice" not in known.stderr, command
    assert NAMED.keys() <= mentioned, "not on the page any more"


def test_the_packages_of_the_page_are_debians() -> None:
    program = shutil.which("apt-cache")
    if program is None:
        pytest.skip("not Debian: no apt-cache")
    shown = subprocess.run([program, "show", "bluez", "python3-venv"], capture_output=True, text=True, check=False)
    if not shown.stdout:
        pytest.skip("this machine has no list of packages: apt-get update")
    assert {"Package: bluez", "Package: python3-venv"} <= set(shown.stdout.splitlines())


def test_the_page_leads_from_three_machines_to_an_enrolled_badge(tmp_path: Path) -> None:
    """The first way: nothing but a laptop, an emulated badge by panel and one by cable."""
    text = section(THREE)
    station_toml, hub_toml = files(text)
    ports = {name: str(free_port()) for name in ("1883", "8080", "7000", "8081")}
    air = f"127.0.0.1:{ports['7000']}"
    lines = [line for line in commands(text) if line not in NOT_RUN]
    # the radio comes first where it is emulated, or the hub would have none when it starts; the rest in its order
    lines.sort(key=lambda line: not line.startswith(("tocsin-air", "tocsin-badge emulate")))
    with machine(tmp_path, **ports, **{"broker.example": "127.0.0.1", "https://station.example": "STATION"}) as here:
        here.environment |= {"TOCSIN_HUB_RADIO_AIR": air, "TOCSIN_HUB_MQTT_PORT": ports["1883"]}
        (tmp_path / "station.toml").write_text(here.here(station_toml))
        station = here.instead["https://station.example"] = f"http://127.0.0.1:{ports['8080']}"
        provisioned, key = 0, ""
        for line in lines:
            if line.startswith("tocsin-station user add"):
                here.run(line, said=PASSWORD + "\n")
            elif line.startswith("tocsin-hub config check"):
                (tmp_path / "hub.toml").write_text(
                    here.here(hub_toml).replace("the station_key of the station's ready line", key)
                )
                here.run(line)
            elif line.startswith("tocsin-station run"):
                key = here.start(line)["station_key"]
            elif line.startswith("tocsin-hub run"):
                hub = here.start(line)
                accept(station, hub["hub_id"])
            elif line.startswith("tocsin-badge provision") and "--serial" in line:
                port = str(free_port())
                second = f"tocsin-badge emulate --air {air} --name badge:2 --dir badge-2 --port {port}"
                here.start(second)
                with cable(f"http://127.0.0.1:{port}") as serial:
                    said = here.run(line, said=TOKEN + "\n", here=here.here(line).replace("/dev/ttyACM0", serial))
                provisioned += 1
                assert re.search(rf"^badge {provisioned} is provisioned for .*; on its card: \d{{6}}$", said, re.M)
                enrolled(tmp_path / "hub", provisioned)
            elif line.startswith("tocsin-badge provision"):
                here.run(line, said=TOKEN + "\n")
                provisioned += 1
                enrolled(tmp_path / "hub", provisioned)
            else:
                here.start(line)
        assert sorted(line for line in here.ran if line in lines) == sorted(lines)
        assert provisioned == 2
        # what the page says of looking at it
        shown = json.loads(looked(here, LOOKED[0], r'"station_answers": true'))
        assert shown["broker"]["connected"]
        for word in ("badge 1: connected", "badge 2: connected", "place: known"):
            looked(here, LOOKED[2], f"^ok  {word}")
        assert re.search(r"^ok +hub: runs since", here.run(LOOKED[1], (0, 1)), re.MULTILINE)


def test_the_page_leads_from_a_new_raspberry_pi_to_an_enrolled_badge(tmp_path: Path) -> None:
    """The second way: every command in its order. What belongs to the machine goes below a root of the test's own, and
    systemd's part is done by its own tools there; the broker is mosquitto as shipped, with the page's certificates."""
    text = section(RASPBERRY)
    (toml,) = files(text)
    root, desk = tmp_path / "root", tmp_path / "desk"
    etc, var = root / "etc/tocsin", root / "var/lib/tocsin"
    for folder in (etc, desk, root / "usr/lib/sysusers.d", root / "etc/systemd/system"):
        folder.mkdir(parents=True)
    (desk / "deploy").symlink_to(TOP / "deploy")
    air = free_port()
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(
            machine(desk, **{"/etc/tocsin": str(etc), "broker.example": "localhost", "sudo ": "", "tocsin-hub": HUB})
        )
        here.environment["TOCSIN_HUB_RADIO_AIR"] = f"127.0.0.1:{air}"
        for line in commands(text):
            if line in NOT_RUN:
                continue
            if line.startswith("sudo "):
                _on_the_machine(here, line, root)
            elif line.startswith("tocsin-hub doctor"):
                said = here.run(line, (0, 1))
                # no adapter, receiver or modem in a test; what the page has set up is right
                assert re.search(r"^ok +broker: localhost: connected", said, re.MULTILINE), said
                assert re.search(r"^ok +station: answers", said, re.MULTILINE), said
                assert re.search(r"^ok +certificate: good for another 398 days", said, re.MULTILINE), said
            elif line.startswith("tocsin-hub ready"):
                enrolled(var, 1)
                said = here.run(line, (0, 1))
                assert "ok  station: answers" in said
                assert "ok  badge 1: connected" in said
                assert "NOT text messages:" in said
            else:
                here.run(line)
            if line == "tocsin-hub ca station ca":
                broker = stack.enter_context(site(desk))
                station = _station_by_tls(here, broker.station_port)
                shown = toml.replace("/var/lib/tocsin", str(var)).replace("broker.example", "localhost")
                shown = shown.replace("8883", str(broker.port))
                (etc / "hub.toml").write_text(
                    shown.replace("the station_key of the station's ready line", station["station_key"])
                )
                shutil.copy(desk / "ca/ca.pem", etc / "ca.pem")
                read = config.load(etc / "hub.toml", {})
                assert (read.labels, read.numbers) == ({12: "Cllr A. Example"}, ("+441632960001",))
            elif line.startswith("sudo systemctl enable"):
                here.start(f"tocsin-air run --port {air}")
                hub = here.start(_exec_start(root))
                accept(station["url"].rstrip("/"), hub["hub_id"])
                port = free_port()
                here.start(f"tocsin-badge emulate --air 127.0.0.1:{air} --dir badge --port {port}")
                here.run(
                    f"tocsin-badge provision --station {station['url']} --wearer 'Cllr A. Example' "
                    f"--panel http://127.0.0.1:{port}",
                    said=TOKEN + "\n",
                )
        assert [line for line in here.ran if line in commands(text)] == [
            line for line in commands(text) if line not in NOT_RUN
        ]


def _station_by_tls(here: Machine, port: int) -> dict[str, Any]:
    """A station with the certificate that the desk has made for it, as the page says below the commands."""
    data = tomllib.loads(files(section(THREE))[0])
    (here.folder / "station.toml").write_text(
        f'[station]\nport = 0\ndir = "station"\napi_token = "{data["station"]["api_token"]}"\n'
        f'[broker]\nhost = "localhost"\nport = {port}\nca = "ca/ca.pem"\n'
        'cert = "ca/station.pem"\nkey = "ca/station.key"\n'
    )
    here.run("tocsin-station user add asha --config station.toml", said=PASSWORD + "\n")
    return here.start("tocsin-station run --config station.toml")


def _exec_start(root: Path) -> str:
    """What systemd would start, from the unit that was installed."""
    unit = (root / "etc/systemd/system/tocsin-hub.service").read_text()
    found = re.search(r"^ExecStart=/opt/tocsin/bin/(tocsin-hub run --config /etc/tocsin/hub.toml)$", unit, re.MULTILINE)
    assert found
    return found[1]


def _on_the_machine(here: Machine, line: str, root: Path) -> None:
    """A command that changes the machine, below another root."""
    words = shlex.split(line.removeprefix("sudo "))
    if words[0] == "python3":
        here.run(line, here=f"{sys.executable} -m venv --without-pip {root}{words[-1]}")
        assert (root / "opt/tocsin/bin/python").exists()
    elif words[0] == "install" and "-d" in words:
        assert words[1:-1] == ["-d", "-m", "700", "-o", "tocsin", "-g", "tocsin"]  # a user whom a test does not make
        here.run(line, here=f"install -d -m 700 {root}{words[-1]}")
    elif words[0] == "ln":
        here.run(line, here=f"mkdir -p {root}/usr/local/bin && {shlex.join([*words[:-1], f'{root}{words[-1]}'])}")
        assert (root / "usr/local/bin/tocsin-hub").readlink() == Path("/opt/tocsin/bin/tocsin-hub")
    elif words[0] == "install":
        here.run(line, here=shlex.join([*words[:-1], f"{root}{words[-1]}"]))
    elif words[0] == "systemd-sysusers":
        if shutil.which(words[0]) is None:
            pytest.skip("systemd-sysusers is not installed: apt install systemd")
        here.run(line, here=f"systemd-sysusers --dry-run --root={root}")
    else:
        assert words == ["systemctl", "enable", "--now", "tocsin-hub"], f"nobody knows how to try: {line}"
        if shutil.which(words[0]) is None:
            pytest.skip("systemctl is not installed: apt install systemd")
        here.run(line, here=f"systemctl --root={root} enable tocsin-hub")
        assert (root / "etc/systemd/system/multi-user.target.wants/tocsin-hub.service").is_symlink()


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
