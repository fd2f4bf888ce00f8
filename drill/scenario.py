"""A drill's file: what people do, what breaks, what is expected.

`load` reads a TOML file into plain dataclasses or raises `validate.ScenarioError` with one line. All times
are seconds since time zero of the drill; `minutes` and `grace` of a visit are minutes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from drill.validate import ScenarioError, Table, one_of, read_toml, shown
from firmware.badge.settings import TABLE as SETTINGS
from firmware.badge.settings import BadSetting, check
from protocol.patterns import TABLE as PATTERNS

BROKEN = ("microphone", "filesystem", "haptic", "bonds", "settings")
BROKERS = ("auto", "amqtt", "mosquitto")
ALARM_KINDS = ("sos", "duress", "missed_check_in", "lanyard", "fall", "loss_of_contact")
VIAS = ("connection", "beacon", "second_path", "station")
OPERATOR_ACTS = ("claim", "takeover", "listen", "next_step", "note", "close")
AIR_FAULTS = ("loss", "corrupt", "duplicate", "reorder")
OPERATOR = re.compile(r"op[1-9]")
# what acts may carry beside `at`, `badge` and `do`: (key, default, lowest, highest); whole numbers are int
BADGE_ACTS: dict[str, tuple[tuple[str, float | int, float | int, float | int], ...]] = {
    "hold": (("seconds", 2.0, 0.01, 60.0),),
    "press": (),
    "presses": (("count", 5, 1, 20),),
    "side_press": (),
    "side_hold": (),
    "side_double": (),
    "start_visit": (),
    "amber": (),
    "check_in": (),
    "extend": (),
    "end_visit": (),
    "cancel": (),
    "duress": (),
    "self_test": (),
    "pair": (),
    "pull_lanyard": (),
    "fall": (),
    "battery": (("percent", 9, 0, 100),),
    "standby": (),
    "wake": (),
    "reset": (),
    "power_cut": (("for", 1.0, 0.0, 3600.0),),
}
# after the last thing that happens a drill goes on for so long when the file does not say
TAIL = 10.0
EARLIEST = -600.0


@dataclass(frozen=True)
class Badge:
    id: str
    wearer: str
    microphone: Path | None
    settings: dict[str, object]
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Hub:
    id: str
    location: str | None
    nmea: Path | None
    badges: tuple[str, ...]
    clock_offset: float


@dataclass(frozen=True)
class BadgeStep:
    at: float
    badge: str
    do: str
    arguments: dict[str, float | int]
    place: str


@dataclass(frozen=True)
class OperatorStep:
    at: float
    operator: str
    do: str
    alarm: str | None
    text: str
    outcome: str
    welfare: str | bool
    place: str


@dataclass(frozen=True)
class VisitStep:
    at: float
    badge: str
    minutes: float
    grace: float
    visited: str
    purpose: str
    place: str


Step = BadgeStep | OperatorStep | VisitStep


@dataclass(frozen=True)
class LinkFault:
    start: float
    end: float | None
    badge: str
    hub: str
    air: dict[str, float | bool]


@dataclass(frozen=True)
class UplinkFault:
    start: float
    end: float | None
    hub: str


@dataclass(frozen=True)
class DiskFault:
    start: float
    end: float | None
    hub: str


@dataclass(frozen=True)
class KillFault:
    start: float
    seconds: float
    what: str


Fault = LinkFault | UplinkFault | DiskFault | KillFault


@dataclass(frozen=True)
class AlarmExpect:
    badge: str
    kind: str | None
    received_within: float | None
    claimed_within: float | None
    via: str | None
    count: int | None
    absent: bool
    place: str


@dataclass(frozen=True)
class HapticExpect:
    badge: str
    pattern: str
    after: float | None
    by: float | None
    count: int | None
    absent: bool
    place: str


Expect = AlarmExpect | HapticExpect


@dataclass(frozen=True)
class Scenario:
    title: str
    seed: int
    badges: tuple[Badge, ...]
    hubs: tuple[Hub, ...]
    broker: str
    workers: int
    steps: tuple[Step, ...]
    faults: tuple[Fault, ...]
    expects: tuple[Expect, ...]
    end: float
    operators: tuple[str, ...] = field(default=("op1",))


def load(file: Path, seed: int | None = None) -> Scenario:
    """The drill in a TOML file; `seed` replaces the file's own. Raises ScenarioError with one line."""
    return parse(file, read_toml(file), seed)


def parse(file: Path, data: dict[str, Any], seed: int | None = None) -> Scenario:
    top = Table(file, "", data)
    title = top.text("title", file.stem)
    own_seed = top.integer("seed", 1, 0, 2**63 - 1)
    badges = _unique(top, "badge", _badge)
    if not badges:
        raise top.wrong(None, "has no [[badge]]; a drill needs at least one")
    ids = [badge.id for badge in badges]
    hubs = _unique(top, "hub", lambda table: _hub(table, ids))
    hub_ids = [hub.id for hub in hubs]
    broker = top.table("broker")
    kind = broker.text("kind", "auto", BROKERS)
    broker.done()
    station = top.table("station")
    workers = station.integer("workers", 1, 1, 8)
    station.done()
    steps = tuple(_step(table, ids) for table in top.tables("step"))
    operators = ("op1", *sorted({s.operator for s in steps if isinstance(s, OperatorStep)} - {"op1"}))
    faults = tuple(_fault(table, ids, hub_ids, operators, workers) for table in top.tables("fault"))
    expects = tuple(_expect(table, ids) for table in top.tables("expect"))
    end = top.table("end")
    last = max([0.0, *(s.at for s in steps), *(_ends(f) for f in faults)])
    until = end.number("at", last + TAIL, 0.0)
    end.done()
    top.done()
    return Scenario(
        title=title,
        seed=own_seed if seed is None else seed,
        badges=badges,
        hubs=hubs,
        broker=kind,
        workers=workers,
        steps=tuple(sorted(steps, key=lambda step: step.at)),
        faults=faults,
        expects=expects,
        end=until,
        operators=operators,
    )


def _ends(fault: Fault) -> float:
    if isinstance(fault, KillFault):
        return fault.start + fault.seconds
    return fault.start if fault.end is None else fault.end


Part = TypeVar("Part", Badge, Hub)


def _unique(top: Table, key: str, read: Callable[[Table], Part]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for table in top.tables(key):
        part = read(table)
        if part.id in [other.id for other in parts]:
            raise table.wrong("id", f"{shown(part.id)} is there twice; every {key} needs an id of its own")
        parts.append(part)
    return tuple(parts)


def _badge(table: Table) -> Badge:
    badge = Badge(
        id=table.name("id"),
        wearer=table.text("wearer", table.data.get("id", "")),
        microphone=table.wav_at("microphone") if table.has("microphone") else None,
        broken=table.names("broken", (), BROKEN),
        settings={},
    )
    table.asked.append("microphone")
    for name in SETTINGS:
        if table.has(name):
            try:
                badge.settings[name] = check(name, table.value(name))
            except BadSetting as error:
                raise table.wrong(name, f"{error}, not {shown(table.value(name))}") from None
        table.asked.append(name)
    table.done()
    return badge


def _hub(table: Table, badges: list[str]) -> Hub:
    hub = Hub(
        id=table.name("id"),
        location=_location(table) if table.has("location") else None,
        nmea=table.file_at("nmea") if table.has("nmea") else None,
        badges=table.names("badges", badges, badges),
        clock_offset=table.number("clock_offset", 0.0, -1e9, 1e9),
    )
    table.asked += ["location", "nmea"]
    if hub.location is not None and hub.nmea is not None:
        raise table.wrong(None, "has both location and nmea; a hub has one place or one receiver")
    table.done()
    return hub


def _location(table: Table) -> str:
    text = table.text("location")
    try:
        latitude, longitude = (float(part) for part in text.split(","))
        good = -90 <= latitude <= 90 and -180 <= longitude <= 180
    except ValueError:
        good = False
    if not good:
        raise table.wrong("location", f'{shown(text)} is no place; write it as "52.9225,-1.4746"')
    return text


def _known(table: Table, key: str, value: str, what: str, known: list[str]) -> str:
    if value not in known:
        raise table.wrong(key, f"no {what} {shown(value)} in this drill; allowed: {one_of(known) or 'there is none'}")
    return value


def _step(table: Table, badges: list[str]) -> Step:
    who = [key for key in ("badge", "operator", "visit") if table.has(key)]
    if len(who) != 1:
        raise table.wrong(None, "needs exactly one of badge, operator, visit")
    at = table.number("at")
    if who == ["visit"]:
        step: Step = _visit(table, at, badges)
    elif who == ["operator"]:
        step = _operator_step(table, at, badges)
    else:
        badge = _known(table, "badge", table.text("badge"), "badge", badges)
        do = table.text("do", allowed=BADGE_ACTS)
        arguments: dict[str, float | int] = {}
        for key, default, low, high in BADGE_ACTS[do]:
            if isinstance(default, int):
                arguments[key] = table.integer(key, default, int(low), int(high))
            else:
                arguments[key] = table.number(key, default, low, high)
        step = BadgeStep(at, badge, do, arguments, table.where)
    table.done()
    return step


def _operator_step(table: Table, at: float, badges: list[str]) -> OperatorStep:
    operator = table.text("operator")
    if not OPERATOR.fullmatch(operator):
        raise table.wrong("operator", f"no operator {shown(operator)}; allowed: op1 to op9")
    do = table.text("do", allowed=OPERATOR_ACTS)
    alarm = _known(table, "alarm", table.text("alarm"), "badge", badges) if table.has("alarm") else None
    table.asked.append("alarm")
    text, outcome = "", ""
    welfare: bool | str = True
    if do == "note":
        text = table.text("text")
        if not text.strip():
            raise table.wrong("text", "is empty; a note needs words")
    elif do == "close":
        outcome = table.text("outcome", "training")
        if not outcome.strip():
            raise table.wrong("outcome", "is empty; closing needs an outcome")
        value = table.value("welfare", True)
        if not isinstance(value, bool | str):
            raise table.wrong("welfare", f"must be true, false or text, not {shown(value)}")
        welfare = value
    return OperatorStep(at, operator, do, alarm, text, outcome, welfare, table.where)


def _visit(table: Table, at: float, badges: list[str]) -> VisitStep:
    inner = table.table("visit")
    visit = VisitStep(
        at=at,
        badge=_known(inner, "badge", inner.text("badge"), "badge", badges),
        minutes=inner.number("minutes", low=0.01, high=1440.0),
        grace=inner.number("grace", 1.0, low=0.01, high=1440.0),
        visited=inner.text("place", ""),
        purpose=inner.text("with", ""),
        place=table.where,
    )
    inner.done()
    return visit


def _fault(table: Table, badges: list[str], hubs: list[str], operators: tuple[str, ...], workers: int) -> Fault:
    what = [key for key in ("link", "uplink", "kill", "disk_full") if table.has(key)]
    if len(what) != 1:
        raise table.wrong(None, "needs exactly one of link, uplink, kill, disk_full")
    if what == ["kill"]:
        fault: Fault = KillFault(
            start=table.number("at", low=EARLIEST),
            what=_victim(table, badges, hubs, operators, workers),
            seconds=table.number("for", 1.0),
        )
        table.done()
        return fault
    start = table.number("from", low=EARLIEST)
    end = table.number("to", low=EARLIEST) if table.has("to") else None
    table.asked.append("to")
    if end is not None and end <= start:
        raise table.wrong("to", f"must be later than from ({start:g}), not {end:g}")
    if what == ["uplink"]:
        fault = UplinkFault(start, end, _known(table, "uplink", table.text("uplink"), "hub", hubs))
        if not table.flag("down", True):
            raise table.wrong("down", "must be true: a network is down or the fault is not there")
    elif what == ["disk_full"]:
        fault = DiskFault(start, end, _known(table, "disk_full", table.text("disk_full"), "hub", hubs))
    else:
        badge, hub = _link(table, badges, hubs)
        fault = LinkFault(start, end, badge, hub, _air(table))
    table.done()
    return fault


def _link(table: Table, badges: list[str], hubs: list[str]) -> tuple[str, str]:
    text = table.text("link")
    badge, dash, hub = text.partition("-")
    if not dash:
        raise table.wrong("link", f"{shown(text)} is no link; write badge-hub, for example {badges[0]}-hub")
    return _known(table, "link", badge, "badge", badges), _known(table, "link", hub, "hub", hubs)


def _air(table: Table) -> dict[str, float | bool]:
    air: dict[str, float | bool] = {}
    for key in AIR_FAULTS:
        if table.has(key):
            air[key] = table.number(key, low=0.0, high=1.0)
    if table.has("delay_ms"):
        air["delay_ms"] = table.number("delay_ms", low=0.0, high=60000.0)
    for key in ("connect", "down"):
        if table.has(key):
            air[key] = table.flag(key)
    table.asked += [*AIR_FAULTS, "delay_ms", "connect", "down"]
    if not air:
        raise table.wrong(
            None, f"breaks nothing; give any of {one_of(AIR_FAULTS)}, delay_ms, connect = false, down = true"
        )
    return air


def _victim(table: Table, badges: list[str], hubs: list[str], operators: tuple[str, ...], workers: int) -> str:
    victims = [
        *(f"hub:{hub}" for hub in hubs),
        "broker",
        "station",
        *(f"station:{number}" for number in range(1, workers + 1)),
        *(f"badge:{badge}" for badge in badges),
        *(f"operator:{operator}" for operator in operators),
    ]
    return table.text("kill", allowed=victims)


def _expect(table: Table, badges: list[str]) -> Expect:
    what = [key for key in ("alarm", "haptic") if table.has(key)]
    if len(what) != 1:
        raise table.wrong(None, "needs exactly one of alarm, haptic")
    badge = _known(table, what[0], table.text(what[0]), "badge", badges)
    count = table.integer("count", low=0, high=100000) if table.has("count") else None
    absent = table.flag("absent", False)
    expect: Expect
    if what == ["alarm"]:
        expect = AlarmExpect(
            badge=badge,
            kind=table.text("kind", allowed=ALARM_KINDS) if table.has("kind") else None,
            received_within=_seconds(table, "received_within"),
            claimed_within=_seconds(table, "claimed_within"),
            via=table.text("via", allowed=VIAS) if table.has("via") else None,
            count=count,
            absent=absent,
            place=table.where,
        )
        table.asked += ["kind", "received_within", "claimed_within", "via", "count"]
        clash = expect.received_within is not None or expect.claimed_within is not None
    else:
        expect = HapticExpect(
            badge=badge,
            pattern=table.text("pattern", allowed=PATTERNS),
            after=_seconds(table, "after"),
            by=_seconds(table, "by"),
            count=count,
            absent=absent,
            place=table.where,
        )
        table.asked += ["after", "by", "count"]
        clash = False
    if absent and (clash or count):
        raise table.wrong("absent", "says that it must not happen; take away when or how often it should")
    table.done()
    return expect


def _seconds(table: Table, key: str) -> float | None:
    return table.number(key, low=EARLIEST) if table.has(key) else None


__all__ = [
    "AlarmExpect",
    "Badge",
    "BadgeStep",
    "DiskFault",
    "Expect",
    "Fault",
    "HapticExpect",
    "Hub",
    "KillFault",
    "LinkFault",
    "OperatorStep",
    "Scenario",
    "ScenarioError",
    "Step",
    "UplinkFault",
    "VisitStep",
    "load",
    "parse",
]
