"""How long a charge lasts: states from `firmware/boards/power.py`, patterns of use, an ageing battery; tables and
charts.

`python hardware/power.py` prints the tables that the documentation shows.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from firmware.boards import power as table

# mAh, nominal, by pack: the one whose datasheet is public and fits, and what the bay has room for but nobody confirmed
PACKS = {"500 mAh (Renata)": 500.0, "650 mAh (403450 class, unconfirmed)": 650.0}
CAPACITY, LARGER = PACKS.values()
USABLE = 0.95  # the rail lets go at 3.3 V; below 3.4 V lie about five percent of a LiPo's charge
RESERVE = 0.10  # what must be left when the wearer comes home: the warning at 10 % is the last
HEALTH = {"new": 1.0, "after 300 charges": 0.80, "new, at 0 °C": 0.85}
SELF_DISCHARGE = 0.03  # of the capacity a month, with the pack's protection (makers' typical)

# Hours in each state of one pattern, and pulses of the motor
PROFILES: dict[str, tuple[dict[str, float], int]] = {
    "surgery evening (3 h, then home)": ({"on duty": 0.5, "visit": 2.5, "standby": 21.0}, 60),
    "day of home visits (9 h)": ({"on duty": 4.0, "visit": 5.0, "standby": 15.0}, 200),
    "a week in standby": ({"standby": 168.0}, 0),
    "an hour's alarm after 2 h on duty": ({"on duty": 2.0, "alarm": 1.0}, 120),
}


NTC_B = 3900.0  # K, B25/50 of TH1


def charge_window(b: float) -> dict[str, float]:
    """Temperatures in degrees C between which the charger works with a thermistor of 10 kOhm and this B: typical ends,
    and the hottest at which it may still charge (BQ24074, SLUS810 section 8.5: 75 uA, 300 mV and 2.1 V; 270 mV and
    78 uA; 5 % of 10 kOhm, 3 % of B)."""

    def at(ohm: float, beta: float, r25: float = 10e3) -> float:
        return 1 / (1 / 298.15 + math.log(ohm / r25) / beta) - 273.15

    hottest = at(0.270 / 78e-6, b * 0.97, 10.5e3)
    return {"cold": at(2.1 / 75e-6, b), "hot": at(0.3 / 75e-6, b), "hottest": hottest}


@dataclass(frozen=True)
class Span:
    """Least, typical, most."""

    low: float
    typical: float
    high: float

    def text(self, digits: int = 1) -> str:
        """As the tables print it."""
        return f"{self.typical:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def current(state: str, own_build: bool = False) -> Span:
    """Battery current of a state in mA. `own_build` takes a firmware with light sleep for the awake states."""
    rows: tuple[tuple[str, float, float, float, str, str], ...] = table.STATES[state]
    if own_build and state in ("on duty", "visit"):
        rows = tuple(table.OWN_BUILD if row[0] == "module" else row for row in rows)
    return Span(sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows))


def charge(profile: str, own_build: bool = False, capacity: float = CAPACITY) -> Span:
    """Charge that one pattern takes from a pack of `capacity` mAh, in mAh, self-discharge included."""
    hours, pulses = PROFILES[profile]
    lost = capacity * SELF_DISCHARGE * sum(hours.values()) / 730
    sums = []
    for place, name in enumerate(("low", "typical", "high")):
        used = sum(getattr(current(state, own_build), name) * time for state, time in hours.items())
        sums.append(used + pulses * table.HAPTIC_PULSE_MA[place] * table.HAPTIC_PULSE_MS / 3.6e6 + lost)
    return Span(*sums)


def hours_on_duty(health: float, own_build: bool = False, capacity: float = CAPACITY) -> Span:
    """Hours from full to the last warning, on duty all the time; least life first."""
    usable = capacity * USABLE * health * (1 - RESERVE)
    draw = current("visit", own_build)
    return Span(usable / draw.high, usable / draw.typical, usable / draw.low)


def left(profile: str, health: float, capacity: float = CAPACITY) -> Span:
    """Part of a full battery that is left after one pattern; least first, not below nothing."""
    full = capacity * USABLE * health
    used = charge(profile, capacity=capacity)
    return Span(*(max(0.0, 1 - amount / full) for amount in (used.high, used.typical, used.low)))


def build(out: Path) -> None:
    """The tables (`power.md`) and the charts into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "power.md").write_text(report(), encoding="utf-8")
    charts(out)


def report() -> str:
    """The tables, as Markdown."""
    lines = [
        "| state | mA from the battery, typical (least to most) | what takes most | source |",
        "| --- | --- | --- | --- |",
    ]
    for state, rows in table.STATES.items():
        name, _, _, _, kind, source = max(rows, key=lambda row: row[2])
        lines.append(f"| {state} | {current(state).text(3 if state == 'standby' else 0)} | {name} | {kind}: {source} |")
    lines += ["", "| part | state | µA, typical (least to most) | source |", "| --- | --- | --- | --- |"]
    seen: dict[tuple[str, float, float, float, str, str], list[str]] = {}
    for state, listed in table.STATES.items():
        for row in listed:
            seen.setdefault(row, []).append(state)
    seen[table.OWN_BUILD] = ["own build"]
    for (part, least, typical, most, kind, source), states in sorted(seen.items(), key=lambda item: item[0][0]):
        where = "all" if len(states) == len(table.STATES) else ", ".join(states)
        numbers = f"{typical * 1000:g} ({least * 1000:g} to {most * 1000:g})"
        lines.append(f"| {part} | {where} | {numbers} | {kind}: {source} |")
    pulse = " to ".join(f"{value:.0f}" for value in (table.HAPTIC_PULSE_MA[0], table.HAPTIC_PULSE_MA[2]))
    lines.append(
        f"| motor, a pulse of {table.HAPTIC_PULSE_MS} ms | all | {table.HAPTIC_PULSE_MA[1]:.0f} mA ({pulse}) | "
        "estimate: 1.8 Vrms into 22.5 Ohm from 3.3 V without loss, and the most that the VG0832022D may have |"
    )
    lines += [
        "",
        "| pattern | mAh | left of 500 mAh, new | after 300 charges | left of 650 mAh, new | after 300 charges |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for profile in PROFILES:
        cells = [
            f"{100 * span.typical:.0f} % ({100 * span.low:.0f} to {100 * span.high:.0f})"
            for span in (left(profile, health, pack) for pack in PACKS.values() for health in (1.0, 0.8))
        ]
        lines.append(f"| {profile} | {charge(profile).text(0)} | {' | '.join(cells)} |")
    lines += [
        "",
        "| pack | battery | hours on duty until the warning at 10 % | with a build of our own (not made yet) |",
        "| --- | --- | --- | --- |",
    ]
    for pack, capacity in PACKS.items():
        for name, health in HEALTH.items():
            life, own = hours_on_duty(health, False, capacity), hours_on_duty(health, True, capacity)
            lines.append(f"| {pack} | {name} | {life.text()} | {own.text(0)} |")
    weeks = CAPACITY * USABLE / (charge("a week in standby").typical)
    lines += [
        "",
        f"In standby a full battery of 500 mAh lasts {weeks:.0f} weeks; most is lost inside the battery itself.",
    ]
    return "\n".join(lines) + "\n"


def charts(out: Path) -> None:
    """Two charts as SVG, the same bytes every time."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "tocsin",
            "svg.fonttype": "path",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    import matplotlib.pyplot as plt

    ink, accent, soft = "#1c2733", "#0b6e6e", "#9fb0bd"
    rows = [(row[0], row[2] * 1000, row[4]) for row in table.STATES["standby"]]
    rows.sort(key=lambda row: row[1])
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    shades = {"datasheet": accent, "vendor": "#c98a1b", "estimate": soft}
    axes.barh([row[0] for row in rows], [row[1] for row in rows], color=[shades[row[2]] for row in rows])
    for place, row in enumerate(rows):
        axes.text(row[1] + 0.15, place, f"{row[1]:.1f}", va="center", color=ink)
    axes.set_xlabel("µA in standby, typical")
    axes.set_title(
        f"Standby: {current('standby').typical * 1000:.0f} µA (green: datasheet, ochre: builders, grey: estimate)",
        loc="left",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(out / "power-standby.svg", metadata={"Date": None})
    plt.close(figure)

    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    labels, bars = [], []
    for capacity in PACKS.values():
        for name, health in HEALTH.items():
            labels.append(f"{capacity:.0f} mAh, {name}")
            bars.append((hours_on_duty(health, False, capacity), False))
    for capacity in PACKS.values():
        labels.append(f"{capacity:.0f} mAh, new, own build")
        bars.append((hours_on_duty(1.0, True, capacity), True))
    order = range(len(bars) - 1, -1, -1)
    for place, index in enumerate(order):
        span, own = bars[index]
        axes.barh(place, span.typical, color=soft if own else accent)
        axes.plot([span.low, span.high], [place, place], color=ink, linewidth=1.5)
        axes.text(
            span.high + 1.5,
            place,
            f"{span.typical:.1f} h" if span.typical < 10 else f"{span.typical:.0f} h",
            va="center",
            color=ink,
        )
    axes.set_yticks(range(len(bars)), [labels[index] for index in order])
    axes.set_xlabel("hours on duty until 10 % are left (line: least to most)")
    figure.tight_layout()
    figure.savefig(out / "power-life.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.stdout.write(report())
