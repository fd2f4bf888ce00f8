"""How long a charge lasts: states from `firmware/boards/power.py`, patterns of use, an ageing battery; tables and
charts.

`python hardware/power.py` prints the tables that the documentation shows.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from firmware.boards import power as table

CAPACITY = 650.0  # mAh, nominal, 403450 pouch
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


def charge(profile: str, own_build: bool = False) -> Span:
    """Charge that one pattern takes, in mAh, self-discharge included."""
    hours, pulses = PROFILES[profile]
    lost = CAPACITY * SELF_DISCHARGE * sum(hours.values()) / 730
    sums = []
    for place, name in enumerate(("low", "typical", "high")):
        used = sum(getattr(current(state, own_build), name) * time for state, time in hours.items())
        sums.append(used + pulses / 100 * table.HAPTIC_PULSE[place] + lost)
    return Span(*sums)


def hours_on_duty(health: float, own_build: bool = False) -> Span:
    """Hours from full to the last warning, on duty all the time; least life first."""
    usable = CAPACITY * USABLE * health * (1 - RESERVE)
    draw = current("visit", own_build)
    return Span(usable / draw.high, usable / draw.typical, usable / draw.low)


def left(profile: str, health: float) -> Span:
    """Part of a full battery that is left after one pattern; least first, not below nothing."""
    full = CAPACITY * USABLE * health
    used = charge(profile)
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
    lines += [
        "",
        "| pattern | mAh | left of a full new battery | left after 300 charges |",
        "| --- | --- | --- | --- |",
    ]
    for profile in PROFILES:
        cells = [
            f"{100 * span.typical:.0f} % ({100 * span.low:.0f} to {100 * span.high:.0f})"
            for span in (left(profile, 1.0), left(profile, 0.8))
        ]
        lines.append(f"| {profile} | {charge(profile).text(0)} | {' | '.join(cells)} |")
    lines += [
        "",
        "| battery | hours on duty until the warning at 10 % | with a build of our own (light sleep, not made yet) |",
        "| --- | --- | --- |",
    ]
    for name, health in HEALTH.items():
        lines.append(f"| {name} | {hours_on_duty(health).text()} | {hours_on_duty(health, True).text(0)} |")
    weeks = CAPACITY * USABLE / (charge("a week in standby").typical)
    lines += ["", f"In standby a full battery lasts {weeks:.0f} weeks, most of it lost inside the battery itself."]
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
        f"Standby: {current('standby').typical * 1000:.0f} µA (green: datasheet, ochre: maker's or builder's table)",
        loc="left",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(out / "power-standby.svg", metadata={"Date": None})
    plt.close(figure)

    figure, axes = plt.subplots(figsize=(7.2, 3.2))
    labels, bars = [], []
    for name, health in HEALTH.items():
        for own in (False, True):
            labels.append(f"{name}{', own build' if own else ''}")
            bars.append((hours_on_duty(health, own), own))
    order = range(len(bars) - 1, -1, -1)
    for place, index in enumerate(order):
        span, own = bars[index]
        axes.barh(place, span.typical, color=soft if own else accent)
        axes.plot([span.low, span.high], [place, place], color=ink, linewidth=1.5)
        axes.text(span.high + 0.8, place, f"{span.typical:.0f} h", va="center", color=ink)
    axes.set_yticks(range(len(bars)), [labels[index] for index in order])
    axes.set_xlabel("hours on duty until 10 % are left (line: least to most)")
    figure.tight_layout()
    figure.savefig(out / "power-life.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.stdout.write(report())
