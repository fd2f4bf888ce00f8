"""A station as a process of its own, with a real broker, and hubs that reach it over MQTT."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from station_parts import Badge, Hub

from drill.processes import Port

TOKEN = "token-for-tests-0123456789"
PATIENCE_S = 60.0  # costs nothing where all is well: processes stall, and disks take a second for a commit

_held: list[Port] = []


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given while the tests run."""
    _held.append(Port())
    return _held[-1].number


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Wait for something that another process does; gives what the condition gave."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class Running:
    """`tocsin-station run` in a folder. `radio` publishes what hubs say."""

    def __init__(
        self, folder: Path, more: str = "", broker: str = "port = 0", limits: str = "", worker: int = 1
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f"station-{worker}.toml"
        config.write_text(
            f'[station]\nport = 0\ndir = "data"\napi_token = "{TOKEN}"\n{more}\n[broker]\n{broker}\n{limits}\n'
            '[[operator]]\nname = "op1"\npassword = "first-operator"\n'
            '[[operator]]\nname = "op2"\npassword = "second-operator"\n'
        )
        self.log = (folder / "log").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "station.cli", "run", "--config", str(config), "--worker", str(worker)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "TOCSIN_PARENT_DEATH": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the station did not start: {(folder / 'log').read_text()}"
        self.ready: dict[str, Any] = json.loads(line)
        self.url = str(self.ready["url"]).rstrip("/")
        self.api = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=PATIENCE_S
        )
        self.heard: list[mqtt.MQTTMessage] = []
        self.radio = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.radio.on_message = lambda _client, _data, message: self.heard.append(message)
        self.radio.reconnect_delay_set(1, 1)
        self.radio.connect("127.0.0.1", int(self.ready["broker"].rsplit(":", 1)[1]))
        self.radio.loop_start()
        self.radio.subscribe([("tocsin/1/hub/+/down", 1), ("tocsin/1/alarms/+", 1), ("tocsin/1/station", 1)])

    @contextlib.contextmanager
    def person(self, name: str = "op1", password: str = "first-operator") -> Iterator[httpx.Client]:
        """A signed-in operator's client, as a browser would send."""
        headers = {"Origin": self.url, "Accept": "application/json"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=PATIENCE_S) as client:
            reply = client.post("/login", data={"username": name, "password": password})
            assert reply.status_code == 200, reply.text
            yield client

    def badge(self, wearer: Any = "Cllr A. Example") -> Badge:
        """A provisioned badge."""
        made = self.api.post("/api/badges", json={"wearer": wearer}).raise_for_status().json()
        return Badge(made["badge"], bytes.fromhex(made["root"]), bytes.fromhex(made["group_key"]["key"]))

    def hub(self) -> Hub:
        """An accepted hub."""
        hub = Hub()
        self.say(hub, hub.hello(), "hello")
        until(lambda: any(h["hub"] == hub.name for h in self.api.get("/api/hubs").json()["hubs"]), "hub known")
        self.api.post(f"/api/hubs/{hub.name}/accept").raise_for_status()
        return hub

    def say(self, hub: Hub, data: bytes, kind: str = "event") -> None:
        """A hub's bytes go to the broker."""
        self.radio.publish(hub.topic(kind), data, qos=1)

    def alarms(self, badge: Badge) -> list[dict[str, Any]]:
        """ALARMs of a badge."""
        found = self.api.get("/api/alarms").json()["alarms"]
        return [a for a in found if a["badge"] == badge.number]

    def alarm(self, badge: Badge) -> dict[str, Any]:
        """The one alarm of a badge, once it is there."""
        found: dict[str, Any] = until(lambda: self.alarms(badge), "alarm")[0]
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit status."""
        self.radio.loop_stop()
        self.api.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        self.log.close()
        return status

    def complaints(self) -> str:
        """What it wrote to stderr of level ERROR, or a traceback."""
        text = (self.folder / "log").read_text()
        return "\n".join(line for line in text.splitlines() if " ERROR " in line or "Traceback" in line)


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[Running]:
    """A station that is stopped at the end and has complained of nothing."""
    station = Running(folder, **options)
    try:
        yield station
    finally:
        station.stop()
    assert station.complaints() == ""
