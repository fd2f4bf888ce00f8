"""The hub's one configuration file: TOML, every key optional but the station's.

KEYS is the whole table: what may be written, what it means and what it is when nothing is written. The reader,
the error messages, `tocsin-hub config keys` and the JSON Schema all come from it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub import power

BADGE_MAX = 0xFFFFFF
NUMBERS_MAX = 8
ENVIRONMENT = "TOCSIN_HUB_"
_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_TELEPHONE = re.compile(r"\+[1-9][0-9]{5,14}")


class ConfigError(Exception):
    """The configuration is wrong. The text is one line: file, key, what is allowed."""


class Wrong(Exception):
    """A value is not allowed; the text says what is."""


@dataclass(frozen=True)
class Kind:
    """What a value may be: the function that reads or refuses it, and the same as JSON Schema."""

    read: Callable[[Any], Any]
    schema: dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One key of the file: its default, what it means, and what it may be."""

    default: Any
    meaning: str
    kind: Kind

    def read(self, value: Any) -> Any:
        """The value as the hub uses it. Raises Wrong."""
        return self.kind.read(value)


def _text(pattern: str = ".{1,200}", allowed: str = "a text") -> Kind:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise Wrong(f"must be {allowed}")
        return value

    return Kind(read, {"type": "string", "pattern": f"^{pattern}$"})


def _number(low: float, high: float, unit: str = "") -> Kind:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Wrong(f"must be a number from {low:g} to {high:g}{unit}")
        return float(value)

    return Kind(read, {"type": "number", "minimum": low, "maximum": high})


def _whole(low: int, high: int, unit: str = "") -> Kind:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Wrong(f"must be a whole number from {low} to {high}{unit}")
        return value

    return Kind(read, {"type": "integer", "minimum": low, "maximum": high})


def _one_of(*allowed: str) -> Kind:
    def read(value: Any) -> str:
        if value not in allowed:
            raise Wrong("must be one of " + ", ".join(f'"{one}"' for one in allowed))
        return str(value)

    return Kind(read, {"enum": list(allowed)})


_adapters = _text("[a-z0-9]{1,16}(,[a-z0-9]{1,16})*", "as hci0, or hci0,hci1")


def _read_address(value: Any) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Wrong('must be "host:port", as "127.0.0.1:7000"')
    return str(value)


def _read_enrol(value: Any) -> bool | frozenset[int]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 < n <= BADGE_MAX for n in value
    ):
        return frozenset(value)
    raise Wrong("must be true, false, or a list of badge numbers")


def _read_place(value: Any) -> tuple[float, float]:
    parts = value.split(",") if isinstance(value, str) else []
    try:
        latitude, longitude = (float(part) for part in parts)
    except ValueError:
        raise Wrong('must be "latitude,longitude" in degrees, as "52.9225,-1.4746"') from None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise Wrong("latitude goes from -90 to 90 and longitude from -180 to 180")
    return latitude, longitude


def _read_station_key(value: Any) -> bytes:
    if not isinstance(value, str) or not _HEX_KEY.fullmatch(value):
        raise Wrong("must be the station's public key, 64 hexadecimal digits")
    return bytes.fromhex(value)


def _read_numbers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(n, str) and _TELEPHONE.fullmatch(n) for n in value):
        raise Wrong('must be a list of telephone numbers with country code, as ["+441632960001"]')
    if len(value) > NUMBERS_MAX:
        raise Wrong(f"may hold {NUMBERS_MAX} numbers at most: each message takes seconds")
    return tuple(dict.fromkeys(value))


def _read_labels(value: Any) -> dict[int, str]:
    if not isinstance(value, dict) or not all(
        n.isdecimal() and 0 < int(n) <= BADGE_MAX and isinstance(t, str) and 0 < len(t) <= 40 for n, t in value.items()
    ):
        raise Wrong('must be badge numbers with a text of at most 40 characters, as { 12 = "Cllr A. Example" }')
    return {int(n): t for n, t in value.items()}


_ADDRESS = Kind(_read_address, {"type": "string", "pattern": "^.+:[0-9]{1,5}$"})
_ENROL = Kind(
    _read_enrol,
    {
        "anyOf": [
            {"type": "boolean"},
            {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": BADGE_MAX}},
        ]
    },
)
_PLACE = Kind(_read_place, {"type": "string", "pattern": "^ *-?[0-9.]+ *, *-?[0-9.]+ *$"})
_STATION_KEY = Kind(_read_station_key, {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
_NUMBERS = Kind(
    _read_numbers,
    {"type": "array", "maxItems": NUMBERS_MAX, "items": {"type": "string", "pattern": "^\\+[1-9][0-9]{5,14}$"}},
)
_LABELS = Kind(
    _read_labels,
    {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,8}$"},
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 40},
    },
)


KEYS: dict[str, dict[str, Key]] = {
    "hub": {
        "dir": Key("var/hub", "folder for the hub's identity, keys and outbox; relative to this file", _text()),
        "name": Key("hub", "what operators call it", _text("[A-Za-z0-9_.-]{1,32}", "1 to 32 of A-Z a-z 0-9 _ . -")),
        "enrol": Key(True, "badges in their pairing window that it takes: true (all), false, or a list", _ENROL),
        "power_supply": Key(None, "where the system tells of its battery; /sys/class/power_supply without it", _text()),
        "clock_offset": Key(0.0, "seconds that its wall clock is wrong, for drills", _number(-1e9, 1e9, " seconds")),
    },
    "radio": {
        "adapter": Key(None, "Bluetooth adapters, as hci0 or hci0,hci1; whichever there is without it", _adapters),
        "air": Key(None, "simulated air, host:port, instead of an adapter", _ADDRESS),
        "name": Key(None, "name on the simulated air; hub:NAME without it", _text("[A-Za-z0-9_.:-]{1,64}", "a name")),
    },
    "mqtt": {
        "host": Key("127.0.0.1", "the broker", _text()),
        "port": Key(1883, "its port", _whole(1, 65535)),
        "user": Key(None, "user name at the broker", _text()),
        "password": Key(None, "password at the broker", _text()),
        "keepalive": Key(2, "seconds of silence until the broker is asked for a sign", _whole(1, 60, " seconds")),
        "fallback": Key(None, "a second broker, host:port, tried when the first fails or has no station", _ADDRESS),
        "ca": Key(None, "TLS: the authority that signed the broker's certificate, a PEM file", _text()),
        "cert": Key(None, "TLS: this hub's certificate; mqtt.pem in the hub's folder without it", _text()),
        "key": Key(None, "TLS: its private key; mqtt.key in the hub's folder without it", _text()),
        "version": Key("auto", "auto: 5 where the broker offers it, else 3.1.1", _one_of("auto", "5", "3.1.1")),
    },
    "station": {
        "key": Key(None, "the station's public key, 64 hexadecimal digits (its start prints it)", _STATION_KEY),
        "key_file": Key(None, "a file with that key, instead", _text()),
    },
    "location": {
        "fixed": Key(None, 'where this hub stands, "latitude,longitude"', _PLACE),
        "accuracy": Key(None, "of the fixed place, metres", _number(0, 100_000, " metres")),
        "nmea": Key(None, "a GPS: serial port, or a file that is replayed at one sentence a second", _text()),
        "baud": Key(9600, "of the serial port", _whole(1200, 921_600)),
        "gpsd": Key(None, "a GPS by gpsd, host:port, as 127.0.0.1:2947", _ADDRESS),
    },
    "second_path": {
        "modem": Key(None, "serial port of a modem for text messages, as /dev/ttyUSB2", _text()),
        "baud": Key(115_200, "of the modem's port", _whole(1200, 921_600)),
        "pin": Key(None, "of the SIM; better take it off the SIM", _text("[0-9]{4,8}", "4 to 8 digits")),
        "numbers": Key((), "who is told, in this order", _NUMBERS),
        "labels": Key({}, "what to call badges in messages; badge N without", _LABELS),
        "after": Key(15.0, "seconds without an answer of the station", _number(5, 600, " seconds")),
    },
    "metrics": {
        "port": Key(None, "figures for Prometheus on this port of the loopback; none without", _whole(1, 65535)),
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
    power_supply: Path | None
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
    mqtt_fallback: str | None
    mqtt_ca: Path | None
    mqtt_cert: Path
    mqtt_key: Path
    station_key: bytes
    place: tuple[float, float] | None
    accuracy_m: float | None
    nmea: Path | None
    baud: int
    gpsd: str | None
    modem: str | None
    modem_baud: int
    modem_pin: str | None
    numbers: tuple[str, ...]
    labels: dict[int, str]
    after_s: float
    metrics_port: int | None
    audio_max_bytes: int
    log_level: str


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file; what the environment says goes before it. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as problem:
        raise ConfigError(f"{path}: {problem.strerror or problem}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: not TOML: {problem}") from problem
    try:
        values = _read(raw)
    except Wrong as wrong:
        raise ConfigError(f"{path}: {wrong}") from None
    try:
        _override(values, os.environ if environment is None else environment)
    except Wrong as wrong:
        raise ConfigError(f"environment: {wrong}") from None
    try:
        return _build(values, path.resolve().parent)
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


def _override(values: dict[str, dict[str, Any]], environment: Mapping[str, str]) -> None:
    """TOCSIN_HUB_MQTT_HOST=... stands for host in [mqtt]; a value is written as in TOML, a text also without quotes."""
    known = {f"{ENVIRONMENT}{t}_{n}".upper(): (t, n) for t, keys in KEYS.items() for n in keys}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT):
            continue
        if variable not in known:
            raise Wrong(f"unknown variable {variable}{_near(variable, known, silent=True)}")
        table, name = known[variable]
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        key = KEYS[table][name]
        try:
            try:
                values[table][name] = key.read(value)
            except Wrong:
                values[table][name] = key.read(text)
        except Wrong as wrong:
            raise Wrong(f"{variable} {wrong}, not {_shown(text)}") from None


def _build(values: dict[str, dict[str, Any]], base: Path) -> Config:
    hub, radio, mqtt = values["hub"], values["radio"], values["mqtt"]
    station, location = values["station"], values["location"]
    if radio["air"] and radio["adapter"]:
        raise Wrong("[radio] has both air and adapter; give one")
    second = values["second_path"]
    places = [name for name in ("fixed", "nmea", "gpsd") if location[name]]
    if len(places) > 1:
        raise Wrong(f"[location] has both {places[0]} and {places[1]}; give one")
    if bool(second["modem"]) != bool(second["numbers"]):
        missing = "numbers" if second["modem"] else "modem"
        raise Wrong(f"[second_path] {missing} is missing: it needs a modem and at least one number")
    if (mqtt["cert"] or mqtt["key"]) and not mqtt["ca"]:
        raise Wrong("[mqtt] ca is missing: without it the broker could be anybody")
    return Config(
        dir=base / hub["dir"],
        name=hub["name"],
        enrol=hub["enrol"],
        power_supply=_power_supply(base, hub["power_supply"], bool(radio["air"])),
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
        mqtt_fallback=mqtt["fallback"],
        mqtt_ca=base / mqtt["ca"] if mqtt["ca"] else None,
        mqtt_cert=base / (mqtt["cert"] or f"{hub['dir']}/mqtt.pem"),
        mqtt_key=base / (mqtt["key"] or f"{hub['dir']}/mqtt.key"),
        station_key=_pinned(station, base),
        place=location["fixed"],
        accuracy_m=location["accuracy"],
        nmea=base / location["nmea"] if location["nmea"] else None,
        baud=location["baud"],
        gpsd=location["gpsd"],
        modem=_port(base, second["modem"]) if second["modem"] else None,
        modem_baud=second["baud"],
        modem_pin=second["pin"],
        numbers=second["numbers"],
        labels=second["labels"],
        after_s=second["after"],
        metrics_port=values["metrics"]["port"],
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
        return _read_station_key(file.read_text().strip())
    except (OSError, UnicodeDecodeError) as problem:
        raise Wrong(f"[station] key_file {file}: {getattr(problem, 'strerror', None) or 'not text'}") from problem
    except Wrong as wrong:
        raise Wrong(f"[station] key_file {file}: its content {wrong}") from None


def _power_supply(base: Path, given: str | None, simulated: bool) -> Path | None:
    """A hub on a simulated air runs on somebody's laptop, whose battery says nothing of a hub's."""
    if given:
        return base / given
    return None if simulated else power.ROOT


def _port(base: Path, name: str) -> str:
    """A serial port by its path, or by a URL of pyserial (socket://, rfc2217://)."""
    return name if "://" in name else str(base / name)


def schema() -> dict[str, Any]:
    """The file as JSON Schema (2020-12), for editors and for whoever writes it by machine."""
    tables = {
        table: {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                name: {
                    **key.kind.schema,
                    "description": key.meaning,
                    **(
                        {}
                        if key.default is None
                        else {"default": list(key.default) if key.default == () else key.default}
                    ),
                }
                for name, key in keys.items()
            },
        }
        for table, keys in KEYS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tocsin hub",
        "description": "hub.toml, the one configuration file of tocsin-hub",
        "type": "object",
        "additionalProperties": False,
        "required": ["station"],
        "properties": tables,
    }


def _near(name: str, known: dict[str, Any], silent: bool = False) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if silent and not close:
        return "; tocsin-hub config keys lists all keys"
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
