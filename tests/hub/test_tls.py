"""A hub's own certificate and topic rights, with the shipped configuration, on a real mosquitto (B6)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from neighbours import free_port, until
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from hub import certificates, cli
from hub.certificates import CertificateError
from hub.identity import Identity
from hub.uplink import Broker, Tls, Uplink

DEPLOY = Path(__file__).parents[2] / "deploy" / "mosquitto"
KEY = "ab" * 32


@dataclass
class Site:
    """A broker with certificates, and what hubs need to sign in. Ports: hubs', the station's."""

    folder: Path
    port: int = 0
    station_port: int = 0

    @property
    def ca(self) -> Path:
        """The authority."""
        return self.folder / "ca"

    def hub(self, name: str, days: int = 30, ca: Path | None = None) -> tuple[bytes, Tls]:
        """A hub with a certificate."""
        folder = self.folder / name
        identity = Identity.load(folder)
        key, cert = folder / "mqtt.key", folder / "mqtt.pem"
        cert.write_bytes(certificates.sign_hub(ca or self.ca, certificates.request(key, identity.hub_id), days))
        return identity.hub_id, Tls(self.ca / "ca.pem", cert, key)

    @property
    def station(self) -> Tls:
        """The station's certificate."""
        if not (self.ca / "station.pem").exists():
            certificates.make_pair(self.ca, "station", [])
        return Tls(self.ca / "ca.pem", self.ca / "station.pem", self.ca / "station.key")


@contextlib.contextmanager
def site(folder: Path, host: str = "localhost") -> Iterator[Site]:
    """A broker with the shipped configuration; what `folder`/ca has no authority for is made."""
    folder.mkdir(exist_ok=True)
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    made = Site(folder, free_port(), free_port())
    if not (made.ca / "ca.pem").exists():
        certificates.make_authority(made.ca)
        certificates.make_pair(made.ca, "broker", [host])
    shutil.copy(DEPLOY / "acl", made.ca / "acl")
    for secret in made.ca.iterdir():
        secret.chmod(0o644)  # mosquitto started by root becomes another user
    for above in (made.ca, *made.ca.parents):
        if above.stat().st_mode & 0o5 != 0o5 and str(above).startswith("/tmp/"):
            above.chmod(0o755)
    text = (DEPLOY / "tocsin.conf").read_text().replace("/etc/mosquitto/tocsin", str(made.ca))
    text = text.replace("listener 8883", f"listener {made.port} 127.0.0.1")
    text = text.replace("listener 8884", f"listener {made.station_port} 127.0.0.1")
    (folder / "mosquitto.conf").write_text(text)
    process = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.PIPE, text=True)
    try:
        _listens(process, made.station_port)
        yield made
    finally:
        process.kill()
        process.wait()


def _listens(process: subprocess.Popen[str], port: int) -> None:
    """Wait until a broker takes connections."""
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), contextlib.closing(socket.create_connection(("127.0.0.1", port), 0.2)):
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.02)


class Client:
    """A client that tries things. `denied` and `not_subscribed`: reason codes of refusals."""

    def __init__(self, port: int, tls: Tls | None, client_id: str = "x", ca: Path | None = None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.denied: list[str] = []
        self.not_subscribed: list[str] = []
        self.subscriptions = 0  # that were answered, with whatever
        self.connected = self.ended = False
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5)
        context = ssl.create_default_context(cafile=str(tls.ca if tls else ca))
        if tls:
            context.load_cert_chain(tls.cert, tls.key)
        self.client.tls_set_context(context)
        self.client.on_connect = lambda *_: setattr(self, "connected", True)
        self.client.on_disconnect = lambda *_: setattr(self, "ended", True)
        self.client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        self.client.on_publish = lambda _c, _u, _m, code, _p: self.denied.extend([str(code)] * code.is_failure)
        self.client.on_subscribe = self._subscribed
        self.client.connect("localhost", port)
        self.client.loop_start()

    def _subscribed(self, _client: Any, _user: Any, _mid: int, codes: Any, _properties: Any) -> None:
        self.not_subscribed.extend(str(code) for code in codes if code.is_failure)
        self.subscriptions += 1

    def close(self) -> None:
        """Go."""
        self.client.disconnect()
        self.client.loop_stop()


def test_a_hub_signs_in_with_its_certificate_and_hears_what_is_for_it(tmp_path: Path) -> None:
    async def story(s: Site) -> None:
        hub, tls = s.hub("bag")
        station = Client(s.station_port, s.station, "tocsin-station-1")
        await until(lambda: station.connected)
        station.client.subscribe("tocsin/1/hub/#", 1)
        await until(lambda: station.subscriptions)
        down: list[bytes] = []
        uplink = Uplink(
            Broker("localhost", s.port, tls=tls), hub, 1, lambda _ready: None, down.append, lambda: down.append(b"!")
        )
        task = asyncio.create_task(uplink.run())
        await until(lambda: uplink.ready)
        base = f"tocsin/1/hub/{hub.hex()}"
        assert uplink.protocol == "5"
        for topic in ("up/event", "up/status", "up/audio", "hello"):
            uplink.publish(topic, topic.encode(), expiry_s=10)
        await until(lambda: {t for t, _ in station.heard} >= {f"{base}/{t}" for t in ("up/event", "hello", "state")})
        station.client.publish(f"{base}/down", b"for you", 1)
        station.client.publish("tocsin/1/station", b"here", 1)
        await until(lambda: set(down) == {b"for you", b"!"})
        assert uplink.denied == ""
        task.cancel()
        await asyncio.wait({task})
        station.close()

    with site(tmp_path) as s:
        asyncio.run(story(s))


def test_what_a_hub_with_anothers_certificate_cannot_do(tmp_path: Path) -> None:
    async def story(s: Site) -> None:
        hub, tls = s.hub("bag")
        other, other_tls = s.hub("stolen")
        victim = Client(s.port, tls, "whatever")
        station = Client(s.station_port, s.station, "tocsin-station-1")
        thief = Client(s.port, other_tls, f"tocsin-hub-{hub.hex()}")  # with the other's client identifier, too
        await until(lambda: victim.connected and station.connected and thief.connected)
        station.client.subscribe("tocsin/#", 1)
        victim.client.subscribe(f"tocsin/1/hub/{hub.hex()}/down", 1)
        await until(lambda: station.subscriptions and victim.subscriptions)
        base = f"tocsin/1/hub/{hub.hex()}"
        wanted = [f"{base}/down", f"{base}/up/#", f"{base}/#", "tocsin/1/hub/+/down", "tocsin/#", "#", "$SYS/#",
                  "tocsin/1/alarms/#"]  # fmt: skip
        for topic in wanted:
            thief.client.subscribe(topic, 1)
        forbidden = [f"{base}/up/event", f"{base}/hello", f"{base}/state", f"{base}/down", "tocsin/1/station",
                     f"tocsin/1/hub/{other.hex()}/down", "tocsin/1/alarms/x", "anything"]  # fmt: skip
        for topic in forbidden:
            thief.client.publish(topic, b"forged", 1)
        await until(lambda: len(thief.denied) >= len(forbidden), what="refusals")
        await until(lambda: thief.subscriptions == len(wanted), what="answers")
        station.client.publish(f"{base}/down", b"secret", 1)
        await until(lambda: victim.heard)
        thief.client.publish(f"tocsin/1/hub/{other.hex()}/up/event", b"its own", 1)
        await until(lambda: any(payload == b"its own" for _, payload in station.heard))
        assert all(payload != b"forged" for _, payload in station.heard)
        assert thief.heard == []
        assert not victim.ended, "nobody took its place"
        for client in (victim, station, thief):
            client.close()

    with site(tmp_path) as s:
        asyncio.run(story(s))


async def _refused(s: Site, tls: Tls, host: str = "localhost") -> str:
    """What the hub says when it is not let in."""
    uplink = Uplink(Broker(host, s.port, tls=tls), b"testhub!", 1, lambda _: None, lambda _: None, lambda: None)
    task = asyncio.create_task(uplink.run())
    await until(lambda: uplink.problem != "not connected yet")
    assert not uplink.ready
    task.cancel()
    await asyncio.wait({task})
    return uplink.problem


def test_strangers_are_not_let_in_and_the_hub_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(s: Site) -> None:
        _, good = s.hub("bag")
        nothing = Tls(good.ca, s.folder / "none.pem", good.key)
        assert await _refused(s, nothing)
        certificates.make_authority(s.folder / "other")
        _, foreign = s.hub("foreign", ca=s.folder / "other")
        assert await _refused(s, foreign)
        with monkeypatch.context() as then:
            then.setattr(certificates, "_now", lambda: datetime.datetime.now(datetime.UTC) - datetime.timedelta(100))
            _, old = s.hub("old", days=30)
        assert await _refused(s, old)
        # a broker that is somebody else
        assert "its certificate is not right" in await _refused(s, Tls(s.folder / "other/ca.pem", good.cert, good.key))
        assert "there is no such file" in await _refused(s, Tls(s.folder / "no.pem", good.cert, good.key))
        (s.folder / "bad.pem").write_text("no certificate")
        assert "bad.pem" in await _refused(s, Tls(good.ca, s.folder / "bad.pem", good.key))

    with site(tmp_path) as s:
        asyncio.run(story(s))


def test_a_broker_whose_certificate_is_for_another_name_is_not_believed_and_the_hub_says_which(tmp_path: Path) -> None:
    async def story(s: Site) -> None:
        _, good = s.hub("bag")
        assert "not valid for '127.0.0.1'" in await _refused(s, good, "127.0.0.1")

    with site(tmp_path) as s:
        asyncio.run(story(s))


def test_a_revoked_hub_is_not_let_in_any_more(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    with site(first) as s:
        _, tls = s.hub("bag")
        client = Client(s.port, tls)
        asyncio.run(until(lambda: client.connected))
        client.close()
        ca = s.ca
        assert cli.main(["ca", "revoke", str(ca), str(tls.cert)]) == 0
        config = (first / "mosquitto.conf").read_text()
    port = free_port()
    (first / "again.conf").write_text(re.sub(rf"listener {s.port} ", f"listener {port} ", config))
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert program is not None
    for file in ca.iterdir():
        file.chmod(0o644)
    process = subprocess.Popen([program, "-c", str(first / "again.conf")], stderr=subprocess.DEVNULL, text=True)
    try:
        s.port = port
        _listens(process, port)
        said = asyncio.run(_refused(s, tls))
        assert "Connection refused" not in said, "it was tried"
        _, fresh = s.hub("bag2")
        client = Client(port, fresh)
        asyncio.run(until(lambda: client.connected))
        client.close()
    finally:
        process.kill()
        process.wait()


def test_certificates_are_made_and_renewed_by_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca, config = tmp_path / "ca", tmp_path / "hub.toml"
    config.write_text(f'[hub]\ndir = "hub"\n[mqtt]\nca = "ca/ca.pem"\n[station]\nkey = "{KEY}"\n')
    assert cli.main(["ca", "init", str(ca)]) == 0
    assert cli.main(["ca", "init", str(ca)]) == 1
    assert "would lock every hub out" in capsys.readouterr().err
    assert cli.main(["ca", "broker", str(ca), "--host", "broker.example", "--host", "10.0.0.1"]) == 0
    assert cli.main(["ca", "station", str(ca)]) == 0
    assert cli.main(["identity", "show", "--config", str(config)]) == 1
    capsys.readouterr()
    for days in (10, 398):  # made, and renewed
        assert cli.main(["identity", "request", "--config", str(config)]) == 0
        (tmp_path / "request.pem").write_text(capsys.readouterr().out)
        signed = tmp_path / "signed.pem"
        assert (
            cli.main(["ca", "sign", str(ca), str(tmp_path / "request.pem"), "-o", str(signed), f"--days={days}"]) == 0
        )
        assert cli.main(["identity", "install", str(signed), "--config", str(config)]) == 0
        capsys.readouterr()
        assert cli.main(["identity", "show", "--config", str(config)]) == 0
        assert f"good for another {days} days" in capsys.readouterr().out
    for secret in (ca / "ca.key", ca / "broker.key", tmp_path / "hub/mqtt.key"):
        assert secret.stat().st_mode & 0o777 == 0o600
    # what does not belong here is refused, and the old one stays
    before = (tmp_path / "hub/mqtt.pem").read_bytes()
    stranger = tmp_path / "stranger.pem"
    request = certificates.request(tmp_path / "s.key", b"stranger")
    stranger.write_bytes(certificates.sign_hub(ca, request))
    assert cli.main(["identity", "install", str(stranger), "--config", str(config)]) == 1
    assert "this certificate is for" in capsys.readouterr().err
    assert (tmp_path / "hub/mqtt.pem").read_bytes() == before
    for wrong in (b"x", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(CertificateError, match="no certificate request"):
            certificates.sign_hub(ca, wrong)
    with pytest.raises(CertificateError, match="make one with tocsin-hub ca init"):
        certificates.sign_hub(tmp_path / "nowhere", request)


def test_a_second_broker_is_used_when_the_first_fails_and_when_it_has_no_station(tmp_path: Path) -> None:
    from neighbours import broker

    async def story(first: int, second: int) -> None:
        uplink = Uplink(
            Broker("127.0.0.1", free_port()), b"testhub!", 1, lambda _: None, lambda _: None, lambda: None,
            Broker("127.0.0.1", second),
        )  # fmt: skip
        task = asyncio.create_task(uplink.run())
        await until(lambda: uplink.ready, what="the second broker")
        assert uplink.broker.port == second
        task.cancel()
        await asyncio.wait({task})
        uplink = Uplink(
            Broker("127.0.0.1", first), b"testhub!", 1, lambda _: None, lambda _: None, lambda: None,
            Broker("127.0.0.1", second),
        )  # fmt: skip
        task = asyncio.create_task(uplink.run())
        await until(lambda: uplink.ready)
        assert uplink.broker.port == first
        assert uplink.elsewhere()
        await until(lambda: uplink.ready and uplink.broker.port == second, what="the other one")
        task.cancel()
        await asyncio.wait({task})

    with broker("mosquitto", tmp_path) as first, broker("mosquitto", tmp_path) as second:
        asyncio.run(story(first, second))


def test_what_the_shipped_rules_allow_is_all_that_a_hub_needs(tmp_path: Path) -> None:
    """The topics of docs/protocol.md, and no wildcard but the hub's own `up`."""
    rules = (DEPLOY / "acl").read_text()
    patterns = re.findall(r"^pattern (\w+) (\S+)$", rules, re.MULTILINE)
    assert {topic for _, topic in patterns} == {
        "tocsin/1/hub/%u/up/#", "tocsin/1/hub/%u/hello", "tocsin/1/hub/%u/state", "tocsin/1/hub/%u/down",
        "tocsin/1/station",
    }  # fmt: skip
    assert json.dumps(patterns).count("#") == 1
