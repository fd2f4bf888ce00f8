"""The hub's one configuration file: TOML, every key optional but the station's.

KEYS is the whole table: what may be written, what it means and what it is when nothing is written. The reader,
the error messages and `tocsin-hub config check --keys` all come from it.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BADGE_MAX = 0xFFFFFF
_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")


class ConfigError(Exception):
    """The configuration is wrong. The text is one line: file, key, what is allowed."""


class Wrong(Exception):
    """A value is not allowed; the text says what is."""


@dataclass(frozen=True)
class Key:
    """One key of the file: its default, what it means, and the function that reads or refuses a value."""

    default: Any
    meaning: str
    read: Callable[[Any], Any]


def _text(pattern: str = ".{1,200}", allowed: str = "a text") -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise Wrong(f"must be {allowed}")
        return value

    return read


def _number(low: float, high: float, unit: str = "") -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Wrong(f"must be a number from {low:g} to {high:g}{unit}")
        return float(value)

    return read


def _whole(low: int, high: int, unit: str = "") -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Wrong(f"must be a whole number from {low} to {high}{unit}")
        return value

    return read


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise Wrong("must be one of " + ", ".join(f'"{one}"' for one in allowed))
        return str(value)

    return read


_adapters = _text("[a-z0-9]{1,16}(,[a-z0-9]{1,16})*", "as hci0, or hci0,hci1")


def _address(value: Any) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Wrong('must be "host:port", as "127.0.0.1:7000"')
    return str(value)


def _enrol(value: Any) -> bool | frozenset[int]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 < n <= BADGE_MAX for n in value
    ):
        return frozenset(value)
    raise Wrong("must be true, false, or a list of badge numbers")


def _place(value: Any) -> tuple[float, float]:
    parts = value.split(",") if isinstance(value, str) else []
    try:
        latitude, longitude = (float(part) for part in parts)
    except ValueError:
        raise Wrong('must be "latitude,longitude" in degrees, as "52.9225,-1.4746"') from None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise Wrong("latitude goes from -90 to 90 and longitude from -180 to 180")
    return latitude, longitude


def _station_key(value: Any) -> bytes:
    if not isinstance(value, str) or not _HEX_KEY.fullmatch(value):
        raise Wrong("must be the station's public key, 64 hexadecimal digits")
    return bytes.fromhex(value)


KEYS: dict[str, dict[str, Key]] = {
    "hub": {
        "dir": Key("var/hub", "folder for the hub's identity, keys and outbox; relative to this file", _text()),
        "name": Key("hub", "what operators call it", _text("[A-Za-z0-9_.-]{1,32}", "1 to 32 of A-Z a-z 0-9 _ . -")),
        "enrol": Key(True, "badges in their pairing window that it takes: true (all), false, or a list", _enrol),
        "clock_offset": Key(0.0, "seconds that its wall clock is wrong, for drills", _number(-1e9, 1e9, " seconds")),
    },
    "radio": {
        "adapter": Key(None, "Bluetooth adapters, as hci0 or hci0,hci1; whichever there is without it", _adapters),
        "air": Key(None, "simulated air, host:port, instead of an adapter", _address),
        "name": Key(None, "name on the simulated air; hub:NAME without it", _text("[A-Za-z0-9_.:-]{1,64}", "a name")),
    },
    "mqtt": {
        "host": Key("127.0.0.1", "the broker", _text()),
        "port": Key(1883, "its port", _whole(1, 65535)),
        "user": Key(None, "user name at the broker", _text()),
        "password": Key(None, "password at the broker", _text()),
        "keepalive": Key(2, "seconds of silence until the broker is asked for a sign", _whole(1, 60, " seconds")),
        "version": Key("auto", "auto: 5 where the broker offers it, else 3.1.1", _one_of("auto", "5", "3.1.1")),
    },
    "station": {
        "key": Key(None, "the station's public key, 64 hexadecimal digits (its start prints it)", _station_key),
        "key_file": Key(None, "a file with that key, instead", _text()),
    },
    "location": {
        "fixed": Key(None, 'where this hub stands, "latitude,longitude"', _place),
        "accuracy": Key(None, "of the fixed place, metres", _number(0, 100_000, " metres")),
        "nmea": Key(None, "a GPS: serial port, or a file that is replayed at one sentence a second", _text()),
        "baud": Key(9600, "of the serial port", _whole(1200, 921_600)),
    },
    "audio": {
        "max_mb": Key(512, "disk for sound that waits for the station", _whole(1, 1_000_000, " megabytes")),
    },
    "log": {
        "level": Key("info", "how much is told on stderr", _one_of("debug", "info", "warning", "error")),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """A valid configuration. Paths are absolute."""

    dir: Path
    name: str
    enrol: bool | frozenset[int]
    clock_offset: float
    adapter: str | None
    air: str | None
    air_name: str
    mqtt_host: str
    mqtt_port: int
    mqtt_user: str | None
    mqtt_password: str | None
    mqtt_keepalive: int
    mqtt_version: str
    station_key: bytes
    place: tuple[float, float] | None
    accuracy_m: float | None
    nmea: Path | None
    baud: int
    audio_max_bytes: int
    log_level: str


def load(path: Path) -> Config:
    """Read and check a configuration file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as problem:
        raise ConfigError(f"{path}: {problem.strerror or problem}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: not TOML: {problem}") from problem
    try:
        return _build(_read(raw), path.resolve().parent)
    except Wrong as wrong:
        raise ConfigError(f"{path}: {wrong}") from None


def _read(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    for table in raw:
        if table not in KEYS:
            raise Wrong(f"unknown table [{table}]{_near(table, KEYS)}")
        if not isinstance(raw[table], dict):
            raise Wrong(f"{table} must be a table, written [{table}]")
    values: dict[str, dict[str, Any]] = {}
    for table, keys in KEYS.items():
        given = raw.get(table, {})
        for name in given:
            if name not in keys:
                raise Wrong(f"unknown key {name!r} in [{table}]{_near(name, keys)}")
        values[table] = {}
        for name, key in keys.items():
            if name not in given:
                values[table][name] = key.default
                continue
            try:
                values[table][name] = key.read(given[name])
            except Wrong as wrong:
                raise Wrong(f"[{table}] {name} {wrong}, not {_shown(given[name])}") from None
    return values


def _build(values: dict[str, dict[str, Any]], base: Path) -> Config:
    hub, radio, mqtt = values["hub"], values["radio"], values["mqtt"]
    station, location = values["station"], values["location"]
    if radio["air"] and radio["adapter"]:
        raise Wrong("[radio] has both air and adapter; give one")
    if location["fixed"] and location["nmea"]:
        raise Wrong("[location] has both fixed and nmea; give one")
    return Config(
        dir=base / hub["dir"],
        name=hub["name"],
        enrol=hub["enrol"],
        clock_offset=hub["clock_offset"],
        adapter=radio["adapter"],
        air=radio["air"],
        air_name=radio["name"] or f"hub:{hub['name']}",
        mqtt_host=mqtt["host"],
        mqtt_port=mqtt["port"],
        mqtt_user=mqtt["user"],
        mqtt_password=mqtt["password"],
        mqtt_keepalive=mqtt["keepalive"],
        mqtt_version=mqtt["version"],
        station_key=_pinned(station, base),
        place=location["fixed"],
        accuracy_m=location["accuracy"],
        nmea=base / location["nmea"] if location["nmea"] else None,
        baud=location["baud"],
        audio_max_bytes=values["audio"]["max_mb"] * 1_000_000,
        log_level=values["log"]["level"],
    )


def _pinned(station: dict[str, Any], base: Path) -> bytes:
    if station["key"] and station["key_file"]:
        raise Wrong("[station] has both key and key_file; give one")
    if station["key"]:
        key: bytes = station["key"]
        return key
    if not station["key_file"]:
        raise Wrong(
            "[station] key is missing: the station prints it as station_key when it starts. "
            "Without it nobody could tell the station's receipts from forged ones"
        )
    file = base / station["key_file"]
    try:
        return _station_key(file.read_text().strip())
    except (OSError, UnicodeDecodeError) as problem:
        raise Wrong(f"[station] key_file {file}: {getattr(problem, 'strerror', None) or 'not text'}") from problem
    except Wrong as wrong:
        raise Wrong(f"[station] key_file {file}: its content {wrong}") from None


def _near(name: str, known: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "; there are " + ", ".join(known)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def table() -> str:
    """All keys as text, one line each: name, default, meaning."""
    lines = []
    for section, keys in KEYS.items():
        for name, key in keys.items():
            default = (
                "none"
                if key.default is None
                else str(key.default).lower()
                if isinstance(key.default, bool)
                else key.default
            )
            lines.append(f"[{section}] {name:13} {default!s:12} {key.meaning}")
    return "\n".join(lines)
