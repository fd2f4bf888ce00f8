"""`tocsin-hub doctor`: what is wrong with this hub, in plain words, and what to do about it.

It asks the running hub where one runs, and looks for itself where none does. Nothing is changed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub import certificates, control, power
from hub.clock import Clock
from hub.config import Config
from hub.identity import IDENTITY, KEYS
from hub.location import Location
from hub.modem import REFUSED, Modem, ModemFailed
from hub.reserve import free_bytes
from hub.uplink import Broker, Tls, Uplink

OK, WARN, FAIL = "ok", "warn", "FAIL"
DISK_LOW = 64_000_000  # bytes: an hour of one badge's sound and the reserve
BROKER_S = 6.0
GPS_S = 4.0
BLUEZ_S = 3.0
YEAR_MIN = 2025  # a clock that says less was never set


@dataclass(frozen=True)
class Finding:
    """`how`: ok, warn (works, but not for long) or FAIL."""

    what: str
    how: str
    text: str


@dataclass
class Machine:
    """What is looked at outside the hub's own folder; tests put something else in its place."""

    sys: Path = Path("/sys")
    bus: Path = Path("/run/dbus/system_bus_socket")
    clock: Clock = field(default_factory=Clock)
    bluez: Callable[[str | None], str] = lambda adapter: asyncio.run(_bluez(adapter))


def add_command(commands: Any) -> None:
    """Put it into a command line."""
    command = commands.add_parser("doctor", help="say what is wrong with this hub, and what to do about it")
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (TOML)")


def run(settings: Config, _args: argparse.Namespace) -> int:
    """Exit status: 0 nothing is wrong, 1 something is."""
    failed = False
    for finding in examine(settings, Machine()):
        failed = failed or finding.how == FAIL
        print(f"{finding.how:4} {finding.what}: {finding.text}", flush=True)
    return 1 if failed else 0


def examine(settings: Config, machine: Machine) -> Iterator[Finding]:
    """Every finding, the good ones too."""
    status: dict[str, Any] | None = None
    with contextlib.suppress(control.NoHub):
        status = control.ask(settings.dir / "hub.sock")
    if status is None:
        yield Finding("hub", WARN, "does not run here now: sudo systemctl start tocsin-hub")
    else:
        yield Finding("hub", OK, f"runs since {status.get('up_s', 0)} s as {status.get('hub_id')}")
    yield from _folder(settings)
    yield from _radio(settings, machine, status)
    yield from _broker(settings, status)
    yield from _certificate(settings)
    yield _station(status)
    yield _clock(machine)
    yield from _place(settings, status)
    yield from _modem(settings, status)
    yield _power(settings, machine)


# --- disk -------------------------------------------------------------------------------------------------------


def _folder(settings: Config) -> Iterator[Finding]:
    folder = settings.dir
    if not folder.exists():
        yield Finding("folder", WARN, f"{folder} is made at the first start")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("folder", FAIL, f"{folder}: {_user()} may not write there: chown it to the hub's user")
        return
    open_files = []
    for name in (IDENTITY, KEYS, settings.mqtt_key.name):
        path = folder / name
        if path.exists() and path.stat().st_mode & 0o077:
            open_files.append(name)
    if open_files:
        yield Finding("folder", FAIL, f"others may read {', '.join(open_files)}: chmod 600 in {folder}")
    try:
        free = free_bytes(folder)
        probe = folder / ".doctor"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as problem:
        yield Finding("disk", FAIL, f"{folder}: {problem.strerror}: alarms are sent, but would not survive a restart")
        return
    if free < DISK_LOW:
        yield Finding("disk", FAIL, f"{free // 1_000_000} MB free: make room; sound is not kept, alarms have a reserve")
    else:
        yield Finding("disk", OK, f"{free // 1_000_000} MB free")


def _user() -> str:
    return os.environ.get("USER") or (f"user {os.getuid()}" if hasattr(os, "getuid") else "this user")


# --- radio ------------------------------------------------------------------------------------------------------


def _radio(settings: Config, machine: Machine, status: dict[str, Any] | None) -> Iterator[Finding]:
    if settings.air:
        host, _, port = settings.air.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 3.0).close()
        except OSError as problem:
            yield Finding("radio", FAIL, f"simulated air at {settings.air}: {problem.strerror}: start tocsin-air run")
            return
        yield Finding("radio", OK, f"simulated air at {settings.air}")
        return
    if sys.platform.startswith("linux"):
        wrong = _adapter(settings, machine) or _blocked(machine) or _bus(machine)
        if wrong:
            yield Finding("radio", FAIL, wrong)
            return
    if status is not None:
        radio = str(status.get("radio"))
        yield Finding("radio", OK if radio == "ok" else FAIL, radio)
    elif sys.platform.startswith("linux"):
        said = machine.bluez(settings.adapter)
        yield Finding("radio", FAIL if said else OK, said or "adapter is there and switched on")


def _adapter(settings: Config, machine: Machine) -> str:
    folder = machine.sys / "class/bluetooth"
    there = sorted(p.name for p in folder.glob("hci*") if ":" not in p.name) if folder.exists() else []
    if not there:
        return "no Bluetooth adapter: plug one in, or switch the built-in one on in the firmware settings"
    for name in (settings.adapter or "").split(","):
        if name and name not in there:
            return f"no adapter {name}: there is {', '.join(there)}; give that as adapter in [radio]"
    return ""


def _blocked(machine: Machine) -> str:
    for switch in sorted((machine.sys / "class/rfkill").glob("rfkill*")):
        if _read(switch / "type") != "bluetooth":
            continue
        if _read(switch / "hard") == "1":
            return "Bluetooth is switched off by a switch or key on the machine (rfkill, hard)"
        if _read(switch / "soft") == "1":
            return "Bluetooth is switched off by software: sudo rfkill unblock bluetooth"
    return ""


def _bus(machine: Machine) -> str:
    if not machine.bus.exists():
        return "there is no D-Bus, and so no BlueZ: sudo apt install bluez, sudo systemctl start dbus bluetooth"
    if not os.access(machine.bus, os.R_OK | os.W_OK):
        return f"{_user()} may not use D-Bus: run as the hub's user"
    return ""


async def _bluez(adapter: str | None) -> str:
    """What is wrong with BlueZ, as far as D-Bus says; "" for nothing."""
    from dbus_fast import BusType, Message, MessageType
    from dbus_fast.aio import MessageBus

    try:
        async with asyncio.timeout(BLUEZ_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            path = f"/org/bluez/{(adapter or 'hci0').split(',')[0]}"
            asked = Message("org.bluez", path, "org.freedesktop.DBus.Properties", "Get", signature="ss",
                            body=["org.bluez.Adapter1", "Powered"])  # fmt: skip
            reply = await bus.call(asked)
            bus.disconnect()
    except (OSError, EOFError, TimeoutError) as problem:
        return f"D-Bus: {getattr(problem, 'strerror', None) or 'no answer'}: sudo systemctl start dbus"
    if reply is None or reply.message_type is MessageType.ERROR:
        name = "" if reply is None else str(reply.error_name)
        if "ServiceUnknown" in name or "NameHasNoOwner" in name:
            return "BlueZ does not run: sudo systemctl enable --now bluetooth"
        if "AccessDenied" in name:
            return "BlueZ does not let this user in: put the hub's user into the group bluetooth"
        return f"BlueZ does not know the adapter ({name}): sudo systemctl restart bluetooth"
    return "" if reply.body[0].value else "the adapter is switched off: bluetoothctl power on"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# --- network ----------------------------------------------------------------------------------------------------


def _broker(settings: Config, status: dict[str, Any] | None) -> Iterator[Finding]:
    where = f"{settings.mqtt_host}:{settings.mqtt_port}"
    if status is not None:
        broker = status.get("broker", {})
        if not broker.get("connected"):
            yield Finding("broker", FAIL, f"{where}: {broker.get('problem')}{_advice(str(broker.get('problem')))}")
        elif broker.get("problem"):
            yield Finding(
                "broker", FAIL, f"{where}: its rules do not let this hub {broker['problem']}: see deploy/mosquitto"
            )
        else:
            yield Finding("broker", OK, f"{broker.get('host', where)}: connected, MQTT {broker.get('version')}")
        return
    problem = asyncio.run(_connect(settings))
    yield Finding(
        "broker", FAIL if problem else OK, f"{where}: {problem + _advice(problem) if problem else 'lets us in'}"
    )


async def _connect(settings: Config) -> str:
    """Sign in as the hub would; gives what is wrong, or ""."""
    from hub.identity import Identity

    identity = Identity.load(settings.dir)
    tls = Tls(settings.mqtt_ca, settings.mqtt_cert, settings.mqtt_key) if settings.mqtt_ca else None
    broker = Broker(settings.mqtt_host, settings.mqtt_port, settings.mqtt_user, settings.mqtt_password,
                    settings.mqtt_keepalive, settings.mqtt_version, tls)  # fmt: skip
    ready = asyncio.Event()
    uplink = Uplink(
        broker, identity.hub_id, 0, lambda yes: ready.set() if yes else None, lambda _: None, lambda: None
    )  # fmt: skip
    task = asyncio.create_task(uplink.run())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BROKER_S):
            await ready.wait()
            await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait({task})
    if not ready.is_set():
        return uplink.problem
    return f"its rules do not let this hub {uplink.denied}" if uplink.denied else ""


def _advice(problem: str) -> str:
    for part, advice in (
        ("refused", "is it started, and the port right?"),
        ("not known", "is the name right, and is there a network?"),
        ("resolution", "is the name right, and is there a network?"),
        ("does not answer", "is there a network, and does a firewall let it through?"),
        ("self-signed", "is ca in [mqtt] the authority of this broker?"),
        ("unable to get local issuer", "is ca in [mqtt] the authority of this broker?"),
        ("authori", "are user and password, or the certificate, right?"),
        ("accepts and drops", "is that port the one for hubs?"),
        ("closed the connection", "is that port for TLS (ca in [mqtt]), and is this hub's certificate good?"),
    ):
        if part in problem.lower():
            return f"; {advice}"
    return ""


def _certificate(settings: Config) -> Iterator[Finding]:
    if settings.mqtt_ca is None:
        yield Finding("certificate", WARN, "the way to the broker is not encrypted: give ca in [mqtt]")
        return
    try:
        authority = certificates.load(settings.mqtt_ca.read_bytes())
        found = certificates.load(settings.mqtt_cert.read_bytes())
    except OSError as problem:
        yield Finding("certificate", FAIL, f"{problem.filename}: {problem.strerror}: tocsin-hub identity request")
        return
    except certificates.CertificateError as problem:
        yield Finding("certificate", FAIL, f"{settings.mqtt_cert} or {settings.mqtt_ca}: {problem}")
        return
    from hub.identity import Identity

    wrong = certificates.problem_of(found, settings.mqtt_key, Identity.load(settings.dir).hub_id)
    days = min(certificates.days_left(found), certificates.days_left(authority))
    if wrong:
        yield Finding("certificate", FAIL, wrong)
    elif certificates.days_left(authority) < 0:
        yield Finding("certificate", FAIL, f"{settings.mqtt_ca}: the authority itself has ended: make a new one")
    elif days < certificates.RENEW_DAYS:
        yield Finding("certificate", WARN, f"ends in {days:.0f} days: renew it with tocsin-hub identity request")
    else:
        yield Finding("certificate", OK, f"good for another {days:.0f} days")


def _station(status: dict[str, Any] | None) -> Finding:
    if status is None:
        return Finding("station", WARN, "not asked: only a running hub can tell")
    if not status.get("station_answers"):
        return Finding(
            "station", FAIL, "does not answer: is it running, on this broker, and is the hub accepted there?"
        )
    badges = status.get("keys", 0)
    return Finding("station", OK, f"answers; {badges} badges enrolled here")


# --- clock, place, modem, power ---------------------------------------------------------------------------------


def _clock(machine: Machine) -> Finding:
    year = time.gmtime(machine.clock.wall()).tm_year
    if year < YEAR_MIN:
        return Finding("clock", FAIL, f"says {year}: certificates cannot be checked; set it with timedatectl")
    if not machine.clock.synchronised():
        return Finding("clock", WARN, "not synchronised: sudo timedatectl set-ntp true (alarms do not depend on it)")
    return Finding("clock", OK, "synchronised")


def _place(settings: Config, status: dict[str, Any] | None) -> Iterator[Finding]:
    if settings.place:
        yield Finding("place", OK, "fixed")
        return
    if not settings.nmea and not settings.gpsd:
        yield Finding("place", WARN, "none: give fixed, nmea or gpsd in [location]")
        return
    if status is not None:
        known, problem = bool(status.get("place_known")), str(status.get("location_problem") or "no fix yet")
    else:
        known, problem = asyncio.run(_fix(settings))
    yield Finding("place", OK if known else FAIL, "a fix" if known else problem)


async def _fix(settings: Config) -> tuple[bool, str]:
    place = Location(Clock().now_ms)
    if settings.nmea:
        task = asyncio.create_task(place.follow(settings.nmea, settings.baud))
    else:
        task = asyncio.create_task(place.follow_gpsd(str(settings.gpsd)))
    end = time.monotonic() + GPS_S
    while time.monotonic() < end and place.facts() is None:  # noqa: ASYNC110 - a fix announces itself to nobody
        await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})
    return place.facts() is not None, place.problem or "no fix yet: it needs a view of the sky"


def _modem(settings: Config, status: dict[str, Any] | None) -> Iterator[Finding]:
    if settings.modem is None:
        return
    second = (status or {}).get("second_path")
    if isinstance(second, dict):
        yield Finding("modem", OK if second.get("ok") else FAIL, str(second.get("state")))
        return
    try:
        with Modem(settings.modem, settings.modem_baud, settings.modem_pin, settings.dir / REFUSED) as modem:
            yield Finding("modem", OK, str(modem.check()))
    except ModemFailed as problem:
        yield Finding("modem", FAIL, str(problem))


def _power(settings: Config, machine: Machine) -> Finding:
    given = settings.power_supply
    found = power.read(machine.sys / "class/power_supply" if given == power.ROOT else given)
    if found.mains or found.percent is None:
        return Finding("power", OK, "on mains" if found.mains else "no battery that the machine tells of")
    if found.percent <= 20:
        return Finding("power", FAIL, f"battery at {found.percent} %: charge it")
    return Finding("power", OK, f"battery at {found.percent} %")
