"""The station's configuration: one TOML file, every key with a default, every mistake one line that says where."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

BROKER_KINDS = ("auto", "amqtt", "mosquitto")
TOKEN_MIN = 16
WORKERS_MAX = 8


class ConfigError(Exception):
    """A configuration that cannot be used; the text names the place and what to do."""


@dataclass
class StationTable:
    """`[station]`: where it listens and keeps its data."""

    host: str = "127.0.0.1"
    port: int = 8080
    dir: Path = Path("var/station")
    database: str | None = None
    workers: int = 1
    worker: int = 1
    name: str = "Tocsin monitoring station"
    api_token: str | None = None
    url: str | None = None


@dataclass
class BrokerTable:
    """`[broker]`: one's own (host given) or the embedded one."""

    host: str | None = None
    port: int = 1883
    kind: str = "auto"
    user: str | None = None
    password: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass
class AlarmsTable:
    """`[alarms]`: seconds."""

    console_dead: float = 30.0
    receive_target: float = 30.0
    claim_target: float = 60.0
    listen_target: float = 180.0


@dataclass
class VisitsTable:
    """`[visits]`: minutes, and how many extensions a visit may have."""

    minutes: float = 60.0
    grace: float = 2.0
    extend_minutes: float = 15.0
    extend_max: int = 4


@dataclass
class SupervisionTable:
    """`[supervision]`: seconds of silence until something counts as lost."""

    lost: float = 90.0
    lost_idle: float = 600.0


@dataclass
class OperatorTable:
    """`[[operator]]`: somebody who exists from the start."""

    name: str = ""
    password: str = ""


@dataclass
class Config:
    """The whole file. `source` is what error messages call it."""

    station: StationTable = field(default_factory=StationTable)
    broker: BrokerTable = field(default_factory=BrokerTable)
    alarms: AlarmsTable = field(default_factory=AlarmsTable)
    visits: VisitsTable = field(default_factory=VisitsTable)
    supervision: SupervisionTable = field(default_factory=SupervisionTable)
    operators: list[OperatorTable] = field(default_factory=list)
    source: str = "defaults"


def load(path: Path) -> Config:
    """Read and check a file; relative paths in it are relative to it. Raises ConfigError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        data = tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return parse(data, str(path), path.resolve().parent)


def parse(data: dict[str, Any], source: str, base: Path) -> Config:
    """Check a table that was read from `source`. Raises ConfigError."""
    config = Config(source=source)
    tables: dict[str, Any] = {
        "station": config.station,
        "broker": config.broker,
        "alarms": config.alarms,
        "visits": config.visits,
        "supervision": config.supervision,
    }
    for name, value in data.items():
        if name == "operator":
            config.operators = _operators(value, source, base)
        elif name in tables:
            _fill(tables[name], value, f"{source}: [{name}]", base)
        else:
            raise ConfigError(f"{source}: unknown table [{name}]; known: {', '.join(tables)}, operator")
    check(config)
    return config


def _operators(value: object, source: str, base: Path) -> list[OperatorTable]:
    if not isinstance(value, list):
        raise ConfigError(f"{source}: operators are written as [[operator]], with two brackets")
    found: list[OperatorTable] = []
    for number, entry in enumerate(value, 1):
        where = f"{source}: [[operator]] {number}"
        operator = OperatorTable()
        _fill(operator, entry, where, base)
        if not operator.name or not operator.password:
            raise ConfigError(f"{where} needs a name and a password")
        if operator.name in (o.name for o in found):
            raise ConfigError(f"{where}: name {operator.name!r} is there twice")
        found.append(operator)
    return found


def _fill(table: Any, value: object, where: str, base: Path) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table")
    hints = get_type_hints(type(table))
    for key, given in value.items():
        if key not in hints:
            known = ", ".join(f.name for f in fields(table))
            raise ConfigError(f"{where} has no key {key!r}; known: {known}")
        wanted = next((t for t in get_args(hints[key]) if t is not type(None)), hints[key])
        setattr(table, key, _value(given, wanted, f"{where} {key}", base))


def _value(given: object, wanted: type, where: str, base: Path) -> object:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if wanted is float and number:
        return float(given)  # type: ignore[arg-type]
    if wanted is int and number and isinstance(given, int):
        return given
    if wanted is str and isinstance(given, str):
        return given
    if wanted is Path and isinstance(given, str) and given:
        return base / Path(given).expanduser()
    names = {float: "a number", int: "a whole number", str: "text", Path: "a path"}
    raise ConfigError(f"{where} must be {names[wanted]}, not {given!r}")


def check(config: Config) -> None:
    """What no single key shows: ranges, and keys that need each other. Raises ConfigError."""

    def refuse(where: str, text: str) -> None:
        raise ConfigError(f"{config.source}: {where} {text}")

    station, broker = config.station, config.broker
    for where, port in (("[station] port", station.port), ("[broker] port", broker.port)):
        if not 0 <= port <= 65535:
            refuse(where, f"must be 0..65535, not {port}")
    if broker.host and not broker.port:
        refuse("[broker] port", "must be given with a host: 0 is for the embedded broker only")
    if not 1 <= station.workers <= WORKERS_MAX:
        refuse("[station] workers", f"must be 1..{WORKERS_MAX}, not {station.workers}")
    if not 1 <= station.worker <= station.workers:
        refuse("[station] worker", f"must be 1..{station.workers} (workers), not {station.worker}")
    if station.workers > 1 and broker.host is None:
        refuse(
            "[broker] host",
            "must be given with several workers: an embedded broker would die with the one that started it",
        )
    if station.api_token is not None and len(station.api_token) < TOKEN_MIN:
        refuse("[station] api_token", f"must have at least {TOKEN_MIN} characters")
    if station.url is not None and not station.url.startswith(("http://", "https://")):
        refuse("[station] url", "must begin with http:// or https://")
    if broker.kind not in BROKER_KINDS:
        refuse("[broker] kind", f"must be one of {', '.join(BROKER_KINDS)}, not {broker.kind!r}")
    for where, path in (("ca", broker.ca), ("cert", broker.cert), ("key", broker.key)):
        if path is not None and not path.is_file():
            refuse(f"[broker] {where}", f"names no file: {path}")
    for name, table in (("alarms", config.alarms), ("visits", config.visits), ("supervision", config.supervision)):
        for entry in fields(table):
            if getattr(table, entry.name) <= 0:
                refuse(f"[{name}] {entry.name}", "must be greater than 0")
