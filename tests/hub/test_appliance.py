"""The hub as an appliance: its unit, its watchdog, its figures, and the check before leaving (B5, B10)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from neighbours import free_port, until
from pocket import pocket

from hub import cli, config, control, metrics, power, ready_check
from hub.systemd import STALE_S, Notifier
from protocol import kinds
from station.ingest import events as ingest

TOP = Path(__file__).parents[2]
UNIT = TOP / "deploy/systemd/tocsin-hub.service"
BLUETOOTH = TOP / "deploy/systemd/bluetooth.service.d/tocsin.conf"
KEY = "ab" * 32
START_S = 90.0  # a start imports much, on a machine that does other things (drill.processes.START_S)
SOON_S = 9.5  # systemd kills after ten


# --- systemd ----------------------------------------------------------------------------------------------------


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt install systemd")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/tocsin/bin/tocsin-hub", "/bin/true"))
    done = subprocess.run([program, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert said == []
    rated = subprocess.run(
        [program, "security", "--offline=yes", "--no-pager", str(copy)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert found, rated.stderr
    assert float(found[1]) < 3.0, "0 is a service that can do nothing, 10 one that may do everything"


def test_the_unit_waits_for_the_hub_watches_it_and_starts_it_again() -> None:
    text = UNIT.read_text()
    for line in ("Type=notify", "WatchdogSec=30", "Restart=always", "StartLimitIntervalSec=0", "User=tocsin"):
        assert f"\n{line}\n" in text


def test_systemd_takes_the_drop_in_that_has_a_hanging_bluetoothd_killed(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    unit = next(
        (p for at in ("/usr/lib", "/lib") if (p := Path(at, "systemd/system/bluetooth.service")).is_file()), None
    )
    if program is None or unit is None:
        pytest.skip("systemd-analyze or BlueZ is not installed: apt install systemd bluez")
    assert "WatchdogSec" in unit.read_text(), "this bluetoothd feeds no watchdog"
    copy = tmp_path / "bluetooth.service"
    copy.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    folder = tmp_path / BLUETOOTH.parent.name
    folder.mkdir()
    (folder / BLUETOOTH.name).write_text(BLUETOOTH.read_text())

    def said() -> list[str]:
        done = subprocess.run([program, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
        return [line for line in done.stderr.splitlines() if BLUETOOTH.name in line]

    assert said() == []
    (folder / BLUETOOTH.name).write_text(BLUETOOTH.read_text().replace("WatchdogSec", "WatchSec"))
    assert said(), "the check is blind"


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.door.bind(str(self.path))
        self.door.setblocking(False)

    def heard(self) -> list[str]:
        """What has come since the last look."""
        said = []
        while True:
            try:
                said.append(self.door.recv(4096).decode())
            except BlockingIOError:
                return said


def test_the_watchdog_is_fed_only_while_the_loops_go_round(tmp_path: Path) -> None:
    now = 0.0
    systemd = Systemd(tmp_path)
    notifier = Notifier(lambda: now, {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "90000"})

    async def story() -> None:
        nonlocal now
        notifier.beat("sender")
        task = asyncio.create_task(notifier.run(lambda: "all is well"))
        said: list[str] = []

        def fed() -> bool:
            said.extend(systemd.heard())
            return said.count("WATCHDOG=1") >= 2

        await until(fed)
        assert "STATUS=all is well" in said
        now = STALE_S + 1
        await asyncio.sleep(0.1)
        systemd.heard()
        await asyncio.sleep(0.1)
        assert "WATCHDOG=1" not in systemd.heard(), "a loop is stuck: systemd starts the hub again"
        notifier.beat("sender")
        await until(lambda: "WATCHDOG=1" in systemd.heard())
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(story())


def test_without_systemd_nothing_is_said() -> None:
    assert not Notifier(lambda: 0, {}).say("READY=1")
    assert not Notifier(lambda: 0, {"NOTIFY_SOCKET": "/nowhere/at/all"}).say("READY=1")
    other = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(lambda: 0, other).watchdog_s is None, "meant for another process"


def test_a_hub_without_radio_is_ready_for_systemd_feeds_its_watchdog_and_says_goodbye(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path)

    async def story() -> None:
        (tmp_path / "x.toml").write_text(f'[radio]\nair = "127.0.0.1:9"\n[mqtt]\nport = 9\n[station]\nkey = "{KEY}"\n')
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub.cli", "run", "--config", str(tmp_path / "x.toml"),
            stderr=asyncio.subprocess.DEVNULL,
            env={
                **os.environ, "NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "600000",
                "TOCSIN_PARENT_DEATH": "1",
            },
        )  # fmt: skip
        said: list[str] = []

        def enough() -> bool:
            said.extend(systemd.heard())
            told = any("no radio" in line and "no broker" in line for line in said)
            return said.count("WATCHDOG=1") >= 3 and "READY=1" in said and told

        await until(enough, START_S)
        process.terminate()
        async with asyncio.timeout(SOON_S):
            await process.wait()
        assert "STOPPING=1" in systemd.heard()

    asyncio.run(story())


# --- configuration ----------------------------------------------------------------------------------------------


def test_the_published_schema_is_the_readers_own() -> None:
    published = json.loads((TOP / "docs/hub.schema.json").read_text())
    assert published == json.loads(json.dumps(config.schema())), "tocsin-hub config schema > docs/hub.schema.json"
    for table, keys in config.KEYS.items():
        assert set(published["properties"][table]["properties"]) == set(keys)


def test_the_environment_goes_before_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(f'[mqtt]\nhost = "a"\n[station]\nkey = "{KEY}"\n')
    found = config.load(
        path,
        {
            "TOCSIN_HUB_MQTT_HOST": "broker.example", "TOCSIN_HUB_MQTT_PORT": "8883", "TOCSIN_HUB_HUB_ENROL": "[1, 2]",
            "TOCSIN_HUB_SECOND_PATH_MODEM": "/dev/ttyUSB2", "TOCSIN_HUB_SECOND_PATH_NUMBERS": '["+441632960001"]',
            "TOCSIN_HUB_HUB_NAME": "007", "TOCSIN_PARENT_DEATH": "1", "HOME": "/",
        },
    )  # fmt: skip
    assert (found.mqtt_host, found.mqtt_port, found.enrol) == ("broker.example", 8883, frozenset({1, 2}))
    assert (found.modem, found.numbers, found.name) == ("/dev/ttyUSB2", ("+441632960001",), "007")
    for environment, says in (
        ({"TOCSIN_HUB_MQTT_HOTS": "x"}, "did you mean 'TOCSIN_HUB_MQTT_HOST'?"),
        ({"TOCSIN_HUB_MQTT_PORT": "many"}, "TOCSIN_HUB_MQTT_PORT must be a whole number from 1 to 65535, not 'many'"),
    ):
        with pytest.raises(config.ConfigError) as caught:
            config.load(path, environment)
        assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[second_path]\nmodem = '/dev/ttyUSB2'", "numbers is missing"),
        ("[second_path]\nnumbers = ['+441632960001']", "modem is missing"),
        ("[second_path]\nmodem = 'x'\nnumbers = ['01632 960001']", "with country code"),
        ("[second_path]\nlabels = { alice = 'x' }", "badge numbers with a text"),
        ("[mqtt]\nfallback = 'other'", "host:port"),
        ("[mqtt]\ncert = 'x.pem'", "ca is missing"),
        ("[location]\ngpsd = '127.0.0.1:2947'\nfixed = '1,1'", "has both fixed and gpsd"),
        ("[second_path]\nmodme = 'x'", "did you mean 'modem'?"),
        ("[second_paht]\n", "did you mean 'second_path'?"),
    ],
)
def test_mistakes_in_what_is_new(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "hub.toml"
    path.write_text(f'[station]\nkey = "{KEY}"\n{text}\n')
    with pytest.raises(config.ConfigError) as caught:
        config.load(path, {})
    assert says in str(caught.value)


# --- power, figures, ready --------------------------------------------------------------------------------------


def supply(root: Path, name: str, **values: str) -> None:
    (root / name).mkdir(parents=True)
    for key, value in values.items():
        (root / name / key).write_text(value + "\n")


def test_battery_and_mains_are_read_from_the_machine(tmp_path: Path) -> None:
    assert power.read(tmp_path / "nothing") == power.Power(None, None)
    supply(tmp_path, "BAT0", type="Battery", capacity="64", status="Discharging")
    supply(tmp_path, "mouse", type="Battery", capacity="3", status="Discharging", scope="Device")
    assert power.read(tmp_path) == power.Power(64, False)
    supply(tmp_path, "AC", type="Mains", online="1")
    assert power.read(tmp_path) == power.Power(64, True)
    (tmp_path / "BAT0/capacity").write_bytes(b"\xff\xfe")
    assert power.read(tmp_path) == power.Power(None, True)


STATUS: dict[str, Any] = {
    "queue": 0, "oldest_s": 0, "audio_queue": 3, "disk": "ok", "radio": "ok", "radio_usable": True,
    "battery": 80, "mains": False, "station_answers": True, "clock_synchronised": True, "place_known": True, "up_s": 5,
    "broker": {"connected": True, "connections": 2}, "counters": {"strangers": 7}, "certificate_days": None,
    "badges": {"12": {"state": "established", "enrolled": True, "rssi": -60, "battery": 70},
               "13": {"state": "silent", "enrolled": False, "rssi": None, "battery": None}},
    "second_path": {"ok": True, "state": "home network, signal 17 of 31", "pending": 0, "signal": 17},
}  # fmt: skip


def test_figures_are_written_as_prometheus_reads_them() -> None:
    text = metrics.text(STATUS)
    lines = text.splitlines()
    for line in (
        "tocsin_hub_queue 0", "tocsin_hub_broker_connected 1", 'tocsin_hub_badge_rssi_dbm{badge="12"} -60',
        'tocsin_hub_badge_established{badge="13"} 0', "tocsin_hub_battery_percent 80", "tocsin_hub_mains 0",
        'tocsin_hub_events_total{what="strangers"} 7', "tocsin_hub_second_path_signal 17", "tocsin_hub_disk_ok 1",
    ):  # fmt: skip
        assert line in lines
    assert "certificate_days" not in text, "what is unknown is left out"
    for line in lines:
        assert re.fullmatch(r'# (HELP|TYPE) tocsin_hub_\w+ .+|tocsin_hub_\w+(\{\w+="[^"]*"\})? -?[\d.e+]+', line)
    assert text.endswith("\n")


def ready(status: dict[str, Any], badge: int | None = 12) -> list[str]:
    return [f"{f.what}: {f.text}" for f in ready_check.look(status, [badge] if badge else None) if not f.good]


def test_what_is_missing_before_leaving_is_said() -> None:
    assert ready(STATUS) == []
    assert ready(STATUS, None) == []
    badge = STATUS["badges"]["12"]

    def with_badge(**change: Any) -> dict[str, Any]:
        return {**STATUS, "badges": {"12": {**badge, **change}}}

    for status, says in (
        ({**STATUS, "battery": 20}, "hub battery: 20 %; charge it"),
        ({**STATUS, "station_answers": False}, "station: does not answer, though the broker is reached"),
        ({**STATUS, "queue": 4}, "waiting: 4 events"),
        ({**STATUS, "clock_synchronised": False}, "clock: not synchronised"),
        ({**STATUS, "place_known": False}, "place: no fix"),
        ({**STATUS, "disk": "failed: full"}, "disk: failed: full"),
        ({**STATUS, "radio": "there is no adapter", "radio_usable": False}, "radio: there is no adapter"),
        ({**STATUS, "radio": "hci1: it was pulled out"}, "radio: hci1: it was pulled out"),
        ({**STATUS, "second_path": {"ok": False, "state": "no SIM"}}, "text messages: no SIM"),
        (with_badge(battery=9), "badge 12: battery at 9 %: charge it"),
        (with_badge(rssi=-95), "badge 12: weak signal (-95 dBm)"),
        (with_badge(state="seen"), "badge 12: not connected"),
        ({**STATUS, "badges": {}}, "badge 12: not connected"),
    ):
        assert [line for line in ready(status) if line.startswith(says)], (says, ready(status))
    assert ready({**STATUS, "battery": 5, "mains": True}) == [], "on mains it matters not"
    assert "none is enrolled here" in ready({**STATUS, "badges": {}}, None)[0]


def test_the_running_hub_answers_ready_and_gives_its_figures_and_a_self_test_carries_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    tests: list[dict[str, Any]] = []
    real = ingest.take_event

    def take_event(work: Any, hub: Any, up: Any, facts: dict[str, Any]) -> None:
        if up.payload[3] == kinds.TEST:
            tests.append(facts)
        real(work, hub, up, facts)

    monkeypatch.setattr(ingest, "take_event", take_event)

    async def story() -> None:
        async with pocket(tmp_path, 1, f"[metrics]\nport = {port}\n") as chain:
            badge = chain.badges[0]
            name = badge.raise_event(kinds.TEST)
            await until(lambda: name in badge.receipted)
            await chain.settled()
            await chain.until_status(
                lambda s: s["station_answers"] and s["badges"]["1"]["state"] == "established", "all is well again"
            )
            status = await asyncio.to_thread(cli.main, ["ready", "--config", str(chain.config), "--badge", "1"])
            said = capsys.readouterr().out
            assert "ok  station: answers" in said
            assert "ok  badge 1: connected" in said
            assert "NOT place: no fix" in said
            assert (status, "NOT ready to leave" in said) == (1, True)
            assert tests[0]["ready"] is False
            assert "place" in tests[0]["missing"]

            def get(path: str) -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                    return str(answer.read().decode())

            figures = await asyncio.to_thread(get, "/metrics")
            assert 'tocsin_hub_badge_established{badge="1"} 1' in figures
            assert "tocsin_hub_station_answers 1" in figures
            with pytest.raises(urllib.error.HTTPError):
                await asyncio.to_thread(get, "/other")

    asyncio.run(story())


def test_ready_without_a_hub_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hub.toml").write_text(f'[station]\nkey = "{KEY}"\n')
    assert cli.main(["ready", "--config", str(tmp_path / "hub.toml")]) == 1
    assert "no hub answers" in capsys.readouterr().err
    assert issubclass(control.NoHub, Exception)
