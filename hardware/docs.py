"""Writes what the documents say in numbers: the pin table, the power tables, the drawing of the breadboard badge.

`make hardware-docs` writes; `docs.py --check` only compares, and tests/hardware does the same.
"""

import json
import sys
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[1]))

from firmware.boards import xiao_esp32s3 as xiao
from hardware import power
from hardware.design import PARTS, PINS, STRAPPING
from hardware.symbols import pins as symbol_pins

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- made by hardware/docs.py: {} -->", "<!-- end -->"
WAKE = range(22)  # RTC pins of the ESP32-S3: these can end deep sleep
PAD_OF_XIAO = {1: "D0", 2: "D1", 3: "D2", 4: "D3", 5: "D4", 6: "D5", 43: "D6", 44: "D7", 7: "D8", 8: "D9", 9: "D10"}


def pin_table() -> str:
    """Every pin of the module that carries a net, and every strapping pin, as Markdown."""
    module = PARTS["U1"]
    names = {pin.number: pin.name for pin in symbol_pins(module.part.symbol)}
    pad_of_net = {net: pad for pad, net in module.nets.items()}
    others: dict[str, list[str]] = {}
    for ref, placed in PARTS.items():
        for pad, net in placed.nets.items():
            if ref != "U1" and not ref.startswith("TP"):
                others.setdefault(net, []).append(f"{ref}.{pad}")
    rows = ["| GPIO | net | module pad | goes to | wakes | strapping |", "| --- | --- | --- | --- | --- | --- |"]
    used = {gpio: net for net, gpio in PINS.items()}
    for gpio in sorted(set(used) | set(STRAPPING)):
        net = used.get(gpio, "")
        pad = pad_of_net[net] if net else next(n for n, name in names.items() if name == f"IO{gpio}")
        to = ", ".join(others.get(net, [])) if net else ""
        rows.append(
            f"| {gpio} | {net or 'not connected'} | {pad} ({names[pad]}) | {to or '-'} | "
            f"{'yes' if net and gpio in WAKE else '-'} | {STRAPPING.get(gpio, '-')} |"
        )
    return "\n".join(rows) + "\n"


def case_table() -> str:
    """What `enclosure.py` reckoned for the case as it is committed, as Markdown."""
    found = json.loads((Path(__file__).parent / "out" / "case" / "report.json").read_text(encoding="utf-8"))
    force, way, usb = found["squeeze"], found["sound"], found["usb"]
    rows = [
        ("squeeze on the SOS button", f"{force['usual N']:g} N ({force['least N']:g} to {force['most N']:g})",
         "below 10 N (University of Arizona, design of controls), at most 22.2 N (ADA 309.4)"),
        ("of it the card in the middle", f"{force['card N/mm, free to clamped']:g} N/mm", "thinner cards are softer"),
        ("strain of the tongue at its stop", f"{force['strain of the tongue at its stop %']:g} %", "below 1 %"),
        ("sound channel", f"{way['length mm']:g} mm long, {way['section mm2']:g} mm²", "-"),
        ("its resonance", f"{way['resonance kHz, least']:g} to {way['resonance kHz, most']:g} kHz",
         "above 8 kHz, where 16 kHz sampling ends"),
        ("lift at 4 kHz", f"{way['lift at 4 kHz dB, most']:g} to {way['lift at 4 kHz dB, least']:g} dB", "below 3 dB"),
        ("gasket pressed by", f"{way['gasket pressed by %']:g} %", "25 to 50 %"),
        ("USB plug, 20 N: solder of the legs", f"{usb['solder of the legs MPa (of 20)']:g} MPa", "20 MPa"),
        ("board's pins in shear", f"{usb['pins in shear MPa (of 25)']:g} MPa", "25 MPa"),
        ("one pin alone in bending", f"{usb['one pin alone in bending MPa (of 48)']:g} MPa", "48 MPa (PA12)"),
        ("receptacle behind the case's side", f"{usb['receptacle behind the case mm']:g} mm",
         f"{usb['collar mm deep']:g} mm of it a collar for the plug"),
    ]  # fmt: skip
    lines = ["| what | reckoned | against |", "| --- | --- | --- |", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    return "\n".join(lines) + "\n"


# Breadboard badge: what hangs on which pad; colour of the wire, far end, and where the far end is drawn
def wires() -> list[tuple[str, str, str, str]]:
    """Pad of the XIAO, part, its terminal, colour of the wire, from the firmware's pin map."""
    pad = PAD_OF_XIAO
    return [
        (pad[xiao.SOS_N], "SOS button", "one side", "#c0392b"),
        (pad[xiao.SIDE_N], "side button", "one side", "#c98a1b"),
        (pad[xiao.HAPTIC], "motor board", "IN", "#7d3c98"),
        (pad[xiao.BATTERY], "divider 2 x 200 kOhm", "middle", "#0b6e6e"),
        (pad[xiao.MIC_SCK], "microphone", "SCK (BCLK)", "#1f618d"),
        (pad[xiao.MIC_WS], "microphone", "WS (LRCL)", "#2e86c1"),
        (pad[xiao.MIC_SD], "microphone", "SD (DOUT)", "#5dade2"),
        ("3V3", "microphone", "3V", "#d35400"),
        ("3V3", "motor board", "VCC", "#d35400"),
        ("GND", "microphone", "GND, SEL", "#1c2733"),
        ("GND", "motor board", "GND", "#1c2733"),
        ("GND", "SOS button", "other side", "#1c2733"),
        ("GND", "side button", "other side", "#1c2733"),
        ("GND", "divider 2 x 200 kOhm", "foot", "#1c2733"),
        ("BAT+", "divider 2 x 200 kOhm", "top", "#d35400"),
    ]


def wire_table() -> str:
    """The wires as Markdown."""
    rows = ["| XIAO pad | GPIO | goes to | terminal |", "| --- | --- | --- | --- |"]
    gpio = {pad: number for number, pad in PAD_OF_XIAO.items()}
    rows += [f"| {pad} | {gpio.get(pad, '-')} | {part} | {end} |" for pad, part, end, _ in wires()]
    return "\n".join(rows) + "\n"


def drawing() -> str:
    """The breadboard badge as SVG."""
    left = ["D0", "D1", "D2", "D3", "D4", "D5", "D6"]
    right = ["5V", "GND", "3V3", "D10", "D9", "D8", "D7"]
    spots = {name: (330.0, 150.0 + 34 * row) for row, name in enumerate(left)}
    spots |= {name: (500.0, 150.0 + 34 * row) for row, name in enumerate(right)}
    spots["BAT+"] = (415.0, 420.0)
    boxes = {
        "SOS button": (40.0, 170.0, ["one side", "other side"]),
        "side button": (40.0, 270.0, ["one side", "other side"]),
        "divider 2 x 200 kOhm": (40.0, 60.0, ["top", "middle", "foot"]),
        "motor board": (40.0, 370.0, ["IN", "VCC", "GND"]),
        "microphone": (650.0, 200.0, ["SCK (BCLK)", "WS (LRCL)", "SD (DOUT)", "3V", "GND, SEL"]),
    }
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 500" width="880" height="500" role="img" '
        'font-family="system-ui, sans-serif" font-size="14"><title>A badge on a breadboard: XIAO ESP32S3, microphone, '
        "motor, "
        'two buttons</title><rect width="880" height="500" fill="#ffffff"/>'
    ]
    ends: dict[tuple[str, str], tuple[float, float]] = {}
    for name, (x, y, terminals) in boxes.items():
        high = 30 + 24 * len(terminals)
        out.append(f'<rect x="{x:g}" y="{y:g}" width="190" height="{high}" rx="8" fill="#eef4f4" stroke="#9fb0bd"/>')
        out.append(f'<text x="{x + 12:g}" y="{y + 20:g}" font-weight="600" fill="#1c2733">{escape(name)}</text>')
        for row, terminal in enumerate(terminals):
            ty = y + 42 + 24 * row
            tx = x + 190 if x < 400 else x
            anchor, dx = ("end", -12) if x < 400 else ("start", 12)
            out.append(f'<circle cx="{tx:g}" cy="{ty:g}" r="4" fill="#1c2733"/>')
            out.append(
                f'<text x="{tx + dx:g}" y="{ty + 5:g}" text-anchor="{anchor}" fill="#1c2733">{escape(terminal)}</text>'
            )
            ends[(name, terminal)] = (tx, ty)
    out.append(
        '<rect x="330" y="110" width="170" height="290" rx="12" fill="#1c2733"/>'
        '<rect x="385" y="92" width="60" height="34" '
        'rx="6" fill="#9fb0bd"/><text x="415" y="386" fill="#ffffff" text-anchor="middle">XIAO ESP32S3</text>'
    )
    for name, (x, y) in spots.items():
        if name == "BAT+":
            out.append(f'<rect x="{x - 30:g}" y="400" width="60" height="26" rx="4" fill="#c98a1b"/>')
            out.append(f'<text x="{x:g}" y="445" text-anchor="middle" fill="#1c2733">BAT+ (pad below)</text>')
            continue
        inside, anchor = (x + 10, "start") if x < 400 else (x - 10, "end")
        out.append(f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="#c98a1b"/>')
        out.append(f'<text x="{inside:g}" y="{y + 5:g}" fill="#ffffff" text-anchor="{anchor}">{name}</text>')
    # The upright piece of each wire has a lane of its own; ground on the left shares one, being one net
    lanes = {
        ("SOS button", "one side"): 270,
        ("side button", "one side"): 282,
        ("motor board", "IN"): 294,
        ("divider 2 x 200 kOhm", "middle"): 306,
        ("divider 2 x 200 kOhm", "top"): 318,
        ("motor board", "VCC"): 258,
        ("microphone", "SCK (BCLK)"): 572,
        ("microphone", "WS (LRCL)"): 586,
        ("microphone", "SD (DOUT)"): 600,
        ("microphone", "3V"): 614,
        ("microphone", "GND, SEL"): 628,
    }
    for pad, part, end, color in wires():
        x1, y1 = spots[pad]
        x2, y2 = ends[(part, end)]
        lane = lanes.get((part, end), 246)
        if pad == "BAT+":
            path = f"M{x1:g} 413 H{lane} V40 H258 V{y2:g} H{x2:g}"
        elif x2 < 400 < x1:  # a rail's way round below to the left
            side, low = (540, 468) if pad == "GND" else (554, 482)
            path = f"M{x1:g} {y1:g} H{side} V{low} H{lane} V{y2:g} H{x2:g}"
        else:
            path = f"M{x1:g} {y1:g} H{lane} V{y2:g} H{x2:g}"
        out.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2.5" stroke-linejoin="round"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _between(text: str, name: str, body: str) -> str:
    start = text.index(BEGIN.format(name)) + len(BEGIN.format(name))
    return text[:start] + "\n" + body + text[text.index(END, start) :]


def files() -> dict[Path, str]:
    """Every file that this writes, with what it should say."""
    pins = DOCS / "hardware-pins.md"
    main = DOCS / "hardware.md"
    breadboard = DOCS / "hardware-breadboard.md"
    return {
        pins: _between(pins.read_text(encoding="utf-8"), "pins", pin_table()),
        main: _between(_between(main.read_text(encoding="utf-8"), "power", power.report()), "case", case_table()),
        breadboard: _between(breadboard.read_text(encoding="utf-8"), "wires", wire_table()),
        DOCS / "img" / "breadboard.svg": drawing(),
    }


def main() -> int:
    """0 when all is as it should be (or was written)."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is stale: make hardware-docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
