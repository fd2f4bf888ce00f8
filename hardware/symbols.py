"""Schematic symbols: KiCad's own where it has them, ours (`tocsin:`) where it has not. Standard library only."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hardware.sexpr import Node, bare, child, children, dump, load, parse, quote

LIBRARY = Path(os.environ.get("KICAD9_SYMBOL_DIR", "/usr/share/kicad/symbols"))

# name, reference letter, half width, pins by side as (number, name, type); None leaves a row empty
_Pin = tuple[str, str, str] | None
OURS: dict[str, tuple[str, float, dict[str, list[_Pin]]]] = {
    "RT9080": ("U", 7.62, {
        "left": [("1", "VIN", "power_in"), None, ("3", "EN", "input")],
        "right": [("5", "VOUT", "power_out"), None, ("4", "NC", "no_connect")],
        "bottom": [("2", "GND", "power_in")],
    }),
    "MAX17048": ("U", 10.16, {
        "left": [("2", "CELL", "passive"), None, ("1", "CTG", "input"), ("6", "QSTRT", "input")],
        "right": [("8", "SDA", "bidirectional"), ("7", "SCL", "input"), None, ("5", "~{ALRT}", "open_collector")],
        "top": [("3", "VDD", "power_in")],
        "bottom": [("4", "GND", "power_in"), ("9", "EP", "passive")],
    }),
    "DRV5032": ("U", 7.62, {
        "right": [None, None, ("2", "OUT", "output"), None, None],
        "top": [("1", "VCC", "power_in")],
        "bottom": [("3", "GND", "power_in")],
    }),
    "LIS2DH12": ("U", 10.16, {
        "left": [("2", "~{CS}", "input"), ("4", "SDA", "bidirectional"), ("3", "SA0", "input"), ("1", "SCL", "input")],
        "right": [("12", "INT1", "output"), ("11", "INT2", "output"), None, ("5", "RES", "passive")],
        "top": [("9", "VDD", "power_in"), ("10", "VDD_IO", "power_in")],
        "bottom": [("6", "GND", "power_in"), ("7", "GND", "passive"), ("8", "GND", "passive")],
    }),
    "LRA": ("M", 5.08, {"left": [("1", "A", "passive"), ("2", "B", "passive")]}),
}  # fmt: skip


@dataclass(frozen=True)
class Pin:
    """A pin as the sheet sees it: its free end relative to the symbol's middle (mm, y up) and where it points
    (degrees)."""

    number: str
    name: str
    kind: str
    x: float
    y: float
    angle: int
    hidden: bool


def _font(size: float = 1.27) -> str:
    return f"(effects (font (size {size} {size})))"


def _ours(name: str) -> Node:
    letter, half, sides = OURS[name]
    rows = max((len(sides.get(side, [])) for side in ("left", "right")), default=1)
    tall = rows // 2 * 2.54 + 2.54
    pins = []
    for side, listed in sides.items():
        for place, pin in enumerate(listed):
            if pin is None:
                continue
            number, label, kind = pin
            if side in ("left", "right"):
                y = (rows // 2 - place) * 2.54
                x, angle = (-half - 2.54, 0) if side == "left" else (half + 2.54, 180)
            else:
                x = (place - (len(listed) - 1) / 2) * 5.08
                x = round(x / 2.54) * 2.54
                y, angle = (tall + 2.54, 270) if side == "top" else (-tall - 2.54, 90)
            pins.append(
                f"(pin {kind} line (at {x:g} {y:g} {angle}) (length 2.54) "
                f"(name {quote(label)} {_font()}) (number {quote(number)} {_font()}))"
            )
    text = (
        f'(symbol "{name}" (pin_names (offset 1.016)) (exclude_from_sim no) (in_bom yes) (on_board yes) '
        f'(property "Reference" "{letter}" (at 0 {tall + 1.27:g} 0) {_font()}) '
        f'(property "Value" "{name}" (at 0 {-tall - 1.27:g} 0) {_font()}) '
        f'(property "Footprint" "" (at 0 0 0) (effects (font (size 1.27 1.27)) (hide yes))) '
        f'(property "Datasheet" "" (at 0 0 0) (effects (font (size 1.27 1.27)) (hide yes))) '
        f'(symbol "{name}_0_1" (rectangle (start {-half:g} {tall:g}) (end {half:g} {-tall:g}) '
        f"(stroke (width 0.254) (type default)) (fill (type background)))) "
        f'(symbol "{name}_1_1" {" ".join(pins)}))'
    )
    return parse(text)


@cache
def _kicad(library: str) -> dict[str, Node]:
    return {bare(node[1]): node for node in children(load(LIBRARY / f"{library}.kicad_sym"), "symbol")}


@cache
def symbol(full: str) -> Node:
    """The symbol `library:name` as a sheet embeds it: flattened when it extends another, named in full."""
    library, name = full.split(":")
    if library == "tocsin":
        node = _ours(name)
    else:
        node = _kicad(library)[name]
        extends = child(node, "extends")
        if extends is not None:
            parent = bare(extends[1])
            own = {part[1]: part for part in children(node, "property")}
            flat: Node = []
            for part in _kicad(library)[parent]:
                if isinstance(part, list) and part[0] == "property":
                    part = own.get(part[1], part)
                elif isinstance(part, list) and part[0] == "symbol":
                    part = ["symbol", part[1].replace(f'"{parent}_', f'"{name}_'), *part[2:]]
                flat.append(part)
            node = flat
    return ["symbol", quote(full), *node[2:]]


@cache
def pins(full: str) -> tuple[Pin, ...]:
    """The pins of a symbol, in the order of its file."""
    found = []
    for unit in children(symbol(full), "symbol"):
        for node in children(unit, "pin"):
            at = child(node, "at")
            hidden = "hide" in node or ["hide", "yes"] in node
            number, name = bare(child(node, "number")[1]), bare(child(node, "name")[1])
            found.append(Pin(number, name, node[1], float(at[1]), float(at[2]), int(float(at[3])), hidden))
    return tuple(found)


@cache
def extent(full: str) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the symbol's pins and graphics (mm, y up)."""
    xs, ys = [], []

    def walk(node: Node) -> None:
        for part in node:
            if isinstance(part, list):
                if part[0] in ("start", "end", "xy", "mid", "center"):
                    xs.append(float(part[1]))
                    ys.append(float(part[2]))
                elif part[0] != "property":
                    walk(part)

    for unit in children(symbol(full), "symbol"):
        walk([part for part in unit if isinstance(part, list) and part[0] != "pin"])
    return (min(xs, default=0), min(ys, default=0), max(xs, default=0), max(ys, default=0))


def library_file() -> str:
    """The project's own symbol library, as a file."""
    body = [_ours(name) for name in OURS]
    return dump(["kicad_symbol_lib", ["version", "20241209"], ["generator", '"tocsin"'], *body]) + "\n"
