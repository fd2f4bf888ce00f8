"""Draw docs/img/*.svg: the architecture, an alarm's messages, and the state machines from their own tables.

`make drawings` writes them; tests/protocol/test_drawings.py fails when a committed drawing is not what this gives.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[1]))

from hub import badges
from protocol import custody, kinds, visit

INK, SOFT, PAPER, ACCENT, LINE = "#1c2733", "#5b6b7a", "#ffffff", "#0b6e6e", "#9fb0bd"
FONT = 'font-family="system-ui, sans-serif"'


class Svg:
    """A drawing of a given size in pixels, built up by calls; `text()` gives the file."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img"><title>{escape(title)}</title>',
            '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{ACCENT}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        ]

    def box(self, x: float, y: float, w: float, h: float, fill: str = "#eef4f4", dash: bool = False) -> None:
        """A rounded box with its top left corner at x, y."""
        style = ' stroke-dasharray="5 4"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="8" fill="{fill}" stroke="{LINE}"{style}/>'
        )

    def words(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 13,
        colour: str = INK,
        anchor: str = "middle",
        bold: bool = False,
    ) -> None:
        """One line of text, its baseline at y."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" {FONT} font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def path(self, d: str, arrow: bool = True, dash: bool = False, colour: str = ACCENT) -> None:
        """A line, with an arrow at its end."""
        style = (' marker-end="url(#a)"' if arrow else "") + (' stroke-dasharray="4 4"' if dash else "")
        self.parts.append(f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="1.5"{style}/>')

    def text(self) -> str:
        """The SVG file."""
        return "\n".join([*self.parts, "</svg>", ""])


def architecture() -> str:
    """Badge, hub, broker, station, console: what each holds and what crosses between them."""
    s = Svg(1060, 400, "Tocsin: a badge seals, a hub carries, a station answers")
    columns = [
        (20, 200, "Badge", ["behind an ID card", "MicroPython, ESP32", "button, motor, microphone"]),
        (300, 200, "Hub", ["in the bag or the venue", "Python, bleak", "outbox on disk, place"]),
        (580, 170, "Broker", ["mosquitto or amqtt", "trusted with nothing"]),
        (830, 210, "Station", ["alarms, visits, audio", "the clock that decides", "console in the browser"]),
    ]
    for x, w, name, lines in columns:
        s.box(x, 60, w, 120)
        s.words(x + w / 2, 90, name, 18, bold=True)
        for n, line in enumerate(lines):
            s.words(x + w / 2, 116 + 20 * n, line, 12, SOFT)
    for x1, x2, label in ((222, 298, "BLE"), (502, 578, "MQTT"), (752, 828, "MQTT")):
        s.path(f"M{x1} 110H{x2}")
        s.path(f"M{x2} 135H{x1}")
        s.words((x1 + x2) / 2, 100, label, 12, ACCENT)
    s.words(530, 36, "a badge seals what happened · a hub carries it unread · the station's answer is felt", 14, SOFT)
    rows = [
        (120, 935, 220, "inner envelope: events, speech, answers (keys known to badge and station only)"),
        (120, 400, 268, "outer envelope, and the link key"),
        (400, 935, 268, "signed by the hub, receipts signed by the station"),
        (120, 400, 316, "beacon under the group key: any hub of the council relays it"),
    ]
    for x1, x2, y, label in rows:
        s.path(f"M{x1} {y}H{x2}")
        s.path(f"M{x2} {y}H{x1}")
        s.words((x1 + x2) / 2, y - 8, label, 12)
    s.words(530, 368, "Custody moves only when the taker has it on disk. PUBACK, a notify that returned, "
            "“connected”: none of these is delivery.", 13, SOFT)  # fmt: skip
    return s.text()


def alarm() -> str:
    """The messages of one alarm, top to bottom."""
    names = ["wearer", "badge", "hub", "station", "operator"]
    at = {name: 90 + 215 * n for n, name in enumerate(names)}
    steps = [
        ("wearer", "badge", "holds the button 1.5 s", False),
        ("badge", "wearer", "feels: pressed", True),
        ("badge", "hub", "EVENT, sealed twice (and the beacon)", False),
        ("hub", "hub", "commit to the outbox", False),
        ("hub", "badge", "HELD (never felt)", True),
        ("hub", "station", "publish, signed", False),
        ("station", "station", "verify, open, commit", False),
        ("station", "operator", "rings", False),
        ("station", "hub", "receipt, signed: the row may go", True),
        ("hub", "badge", "receipt, sealed for the badge", True),
        ("badge", "wearer", "feels: station has it", True),
        ("operator", "station", "claims", False),
        ("station", "badge", "state: claimed, echoing a young uplink", True),
        ("badge", "wearer", "feels: an operator is with you", True),
        ("badge", "operator", "speech, sealed on the badge, opened at the station", False),
    ]
    s = Svg(1040, 90 + 42 * len(steps), "An alarm, from the press to the operator")
    bottom = 80 + 42 * len(steps)
    for name, x in at.items():
        s.box(x - 60, 14, 120, 32)
        s.words(x, 35, name, 14, bold=True)
        s.path(f"M{x} 46V{bottom}", arrow=False, dash=True, colour=LINE)
    for n, (source, target, label, back) in enumerate(steps):
        y = 84 + 42 * n
        a, b = at[source], at[target]
        if a == b:
            s.path(f"M{a} {y - 10}h26v14h-24")
            s.words(a + 34, y + 2, label, 12, anchor="start")
        else:
            gap = 4 if b > a else -4
            s.path(f"M{a + gap} {y}H{b - gap}", dash=back)
            s.words((a + b) / 2, y - 7, label, 12)
    return s.text()


def machine(
    title: str,
    places: dict[int, tuple[int, int]],
    names: tuple[str, ...],
    table: dict[tuple[int, str], int],
    notes: dict[int, str],
) -> str:
    """A state machine from its transition table; every row of the table is on the drawing."""
    width = max(x for x, _ in places.values()) + 140
    lines = [(names[a], what, names[b]) for (a, what), b in table.items()]
    per_column = (len(lines) + 1) // 2
    top = max(y for _, y in places.values()) + 130
    s = Svg(max(width, 900), top + 30 + 20 * per_column, title)
    pairs: dict[tuple[int, int], list[str]] = {}
    for (a, what), b in table.items():
        pairs.setdefault((a, b), []).append(what)
    for (a, b), _whats in pairs.items():
        (x1, y1), (x2, y2) = places[a], places[b]
        if a == b:
            s.path(f"M{x1 - 20} {y1 - 24}c-10 -34 50 -34 40 -2")
        elif y1 == y2:
            bend = 26 + abs(x2 - x1) / 7
            side = -1 if x2 > x1 else 1
            s.path(f"M{x1} {y1 + side * 24}Q{(x1 + x2) / 2:g} {y1 + side * (24 + bend):g} {x2} {y2 + side * 26}")
        else:
            s.path(f"M{x1} {y1}L{x2} {y2 - 26 if y2 > y1 else y2 + 26}")
    for state, (x, y) in places.items():
        s.box(x - 70, y - 24, 140, 48)
        s.words(x, y + (0 if state in notes else 5), names[state].replace("_", " "), 13, bold=True)
        if state in notes:
            s.words(x, y + 16, notes[state].replace("_", " "), 11, ACCENT)
    for n, (a, what, b) in enumerate(lines):
        x = 40 + (n // per_column) * 430
        y = top + 20 + 20 * (n % per_column)
        s.words(x, y, f"{a}  +  {what}  →  {b}".replace("_", " "), 12, SOFT, "start")
    return s.text()


def connection() -> str:
    """The hub's connection to one badge."""
    upper, lower = ("silent", "seen", "connecting", "hello", "established"), ("backoff", "pairing", "lost")
    places = {name: (110 + 220 * n, 130) for n, name in enumerate(upper)}
    places |= {name: (440 + 220 * n, 240) for n, name in enumerate(lower)}
    names = tuple(state.value for state in badges.State)
    at = {names.index(name): place for name, place in places.items()}
    table = {(names.index(a.value), e.value): names.index(b.value) for (a, e), b in badges.TRANSITIONS.items()}
    return machine("The connection to a badge", at, names, table, {})


def drawings() -> dict[str, str]:
    """File name -> SVG of every drawing."""
    levels = {n: (110 + 170 * n, 130) for n in range(6)}
    felt = {level: f"felt: {pattern}" for level, pattern in custody.FELT.items()}
    states = {n: (150 + 220 * n, 130) for n in range(4)}
    return {
        "architecture.svg": architecture(),
        "alarm.svg": alarm(),
        "custody.svg": machine("Custody of an alarm", levels, kinds.LEVEL_NAMES, custody.TRANSITIONS, felt),
        "connection.svg": connection(),
        "visit.svg": machine("A visit", states, visit.STATE_NAMES, visit.TRANSITIONS, {}),
    }


if __name__ == "__main__":
    folder = Path(__file__).parent / "img"
    folder.mkdir(exist_ok=True)
    for name, text in drawings().items():
        (folder / name).write_text(text)
