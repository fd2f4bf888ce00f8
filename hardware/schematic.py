"""Writes the schematic: a root sheet and one sheet a function, from `design.py`. Standard library only.

Every pin gets a short wire and a label or a power symbol; a part's texts stand where no wire goes. `overlaps()`
measures all texts and bodies against each other, so that a sheet that cannot be read fails a test instead of a
reader.
"""

import itertools
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from hardware import symbols
from hardware.design import GND, PARTS, SHEETS, V33, VBUS, Placed
from hardware.sexpr import Node, bare, child, dump, parse, quote

GRID = 2.54
REVISION = "A"
POWER_SYMBOL = {GND: "power:GND", V33: "power:+3V3", VBUS: "power:VBUS"}
OUTWARD = {0: (-1, 0), 90: (0, 1), 180: (1, 0), 270: (0, -1)}  # from a pin's angle to the way its wire leaves, y down
# Titles of the blocks on a sheet: words, left, top, right, bottom in grid steps
BLOCKS: dict[str, list[tuple[str, float, float, float, float]]] = {
    "power": [
        ("USB-C, one port for charging and console", 6, 6, 43, 41),
        ("Charger with power path: 0.46 A from USB, 0.27 A into the battery", 44, 6, 87, 39),
        ("Battery", 88, 6, 110, 23),
        ("3.3 V rail, 2 uA when idle, and bulk capacitors", 6, 43, 67, 66),
        ("Fuel gauge, and a second reading by divider", 68, 40, 111.5, 64),
    ],
    "module": [
        ("ESP32-S3 module, antenna beyond the board's edge", 6, 6, 48, 58),
        ("Decoupling, reset, boot, 32.768 kHz", 49, 6, 74, 65),
        ("Test points on the back", 75, 6, 104, 62),
    ],
    "senses": [
        ("Haptics: linear motor", 6, 6, 64, 26),
        ("Microphone, port on the back", 65, 6, 110, 26),
        ("Motion, I2C pull-ups", 6, 27, 64, 48),
        ("Hidden SOS button", 65, 27, 110, 44),
        ("Button on the edge", 65, 45, 110, 63),
        ("Lanyard: magnet held, output low", 6, 49, 64, 69),
    ],
}


def ident(name: str) -> str:
    """A UUID that is the same every time for the same thing."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "tocsin-badge/" + name))


ROOT = ident("root")


@dataclass
class Box:
    """What a text or a body covers on the sheet (mm, y down), and what it is."""

    what: str
    left: float
    top: float
    right: float
    bottom: float
    body: bool = False

    def hits(self, other: "Box") -> bool:
        """Whether both cover a common area larger than a touch."""
        slack = 0.05
        return (
            self.left < other.right - slack
            and other.left < self.right - slack
            and self.top < other.bottom - slack
            and other.top < self.bottom - slack
        )


def text_box(what: str, words: str, x: float, y: float, turn: int = 0, justify: str = "", size: float = 1.27) -> Box:
    """Area of a text in KiCad's stroke font: about 0.86 of its size a character, 1.25 of it high."""
    long, high = len(words.replace("~{", "").replace("}", "")) * size * 0.86, size * 1.25
    if turn in (90, 270):
        start = {"left": y - long, "right": y}.get(justify, y - long / 2)
        return Box(what, x - high / 2, start, x + high / 2, start + long)
    start = {"left": x, "right": x - long}.get(justify, x - long / 2)
    return Box(what, start, y - high / 2, start + long, y + high / 2)


@dataclass
class Sheet:
    """One page being written: its items as text, the symbols it uses, what its texts cover."""

    name: str
    path: str
    items: list[str] = field(default_factory=list)
    used: dict[str, Node] = field(default_factory=dict)
    boxes: list[Box] = field(default_factory=list)
    powers: int = 0

    def wire(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """A wire between two points."""
        where = f"{self.name}w{x1:g},{y1:g},{x2:g},{y2:g}"
        self.items.append(
            f"(wire (pts (xy {x1:g} {y1:g}) (xy {x2:g} {y2:g})) (stroke (width 0) (type default)) "
            f'(uuid "{ident(where)}"))'
        )

    def words(self, words: str, x: float, y: float, size: float = 1.27, bold: bool = False) -> None:
        """Free text, left-justified."""
        self.boxes.append(text_box(words, words, x, y, 0, "left", size))
        self.items.append(
            f"(text {quote(words)} (exclude_from_sim no) (at {x:g} {y:g} 0) (effects (font (size {size} {size})"
            f'{" (bold yes)" if bold else ""}) (justify left)) (uuid "{ident(self.name + "t" + words)}"))'
        )

    def symbol(
        self,
        full: str,
        ref: str,
        value: str,
        x: float,
        y: float,
        turn: int,
        ref_at: tuple[float, float, str] | None,
        value_at: tuple[float, float, str],
        fields: tuple[tuple[str, str], ...] = (),
        in_bom: bool = True,
    ) -> None:
        """An instance of a symbol with its texts; `ref_at` None hides the reference."""
        node = self.used.setdefault(full, symbols.symbol(full))
        props = []

        def prop(name: str, words: str, at: tuple[float, float, str] | None) -> None:
            px, py, justify = at or (x, y, "")
            # A turned symbol turns its texts with it: take that back, so that all can be read from below
            angle = turn if turn in (90, 270) and at else 0
            style = f" (justify {justify})" if justify else ""
            hide = "" if at else " (hide yes)"
            props.append(
                f"(property {quote(name)} {quote(words)} (at {px:g} {py:g} {angle}) "
                f"(effects (font (size 1.27 1.27)){style}{hide}))"
            )
            if at:
                self.boxes.append(text_box(f"{ref} {name}", words, px, py, 0, justify))

        prop("Reference", ref, ref_at)
        prop("Value", value, value_at)
        sheet = dict(fields)
        datasheet = child(node, "property") and next(
            (p[2] for p in node if isinstance(p, list) and p[0] == "property" and bare(p[1]) == "Datasheet"), '""'
        )
        prop("Footprint", sheet.pop("Footprint", ""), None)
        prop("Datasheet", sheet.pop("Datasheet", bare(datasheet or '""')), None)
        for name, words in sheet.items():
            prop(name, words, None)
        numbers = " ".join(
            f'(pin {quote(pin.number)} (uuid "{ident(ref + "pin" + pin.number)}"))' for pin in symbols.pins(full)
        )
        self.items.append(
            f"(symbol (lib_id {quote(full)}) (at {x:g} {y:g} {turn}) (unit 1) (exclude_from_sim no) "
            f"(in_bom {'yes' if in_bom else 'no'}) (on_board yes) (dnp no) "
            f'(uuid "{ident(ref)}") {" ".join(props)} {numbers} '
            f'(instances (project "badge" (path "{self.path}" (reference {quote(ref)}) (unit 1)))))'
        )

    def end(self, net: str, x: float, y: float, dx: int, dy: int, owner: str) -> None:
        """A power symbol or a label at the end of a wire that leaves towards dx, dy."""
        if net in POWER_SYMBOL:
            self.powers += 1
            down = net == GND
            turns = {(0, 1): 0, (0, -1): 180, (1, 0): 90, (-1, 0): 270}
            turn = turns[(dx, dy)] if down else turns[(-dx, -dy)]
            reach = 3.1 + len(net) * 0.55
            self.boxes.append(
                Box(
                    f"{net} symbol",
                    min(x, x + 2.5 * dx) - 0.5,
                    min(y, y + 2.0 * dy) - 0.5,
                    max(x, x + 2.5 * dx) + 0.5,
                    max(y, y + 2.0 * dy) + 0.5,
                )
            )
            at = (x + dx * reach if dx else x, y + dy * (3.81 if down else 3.6) if dy else y, "")
            self.symbol(POWER_SYMBOL[net], f"#PWR{self.name[0].upper()}{self.powers:03d}", net, x, y, turn, None, at)
            return
        turn = {(1, 0): 0, (-1, 0): 180, (0, -1): 90, (0, 1): 270}[(dx, dy)]
        justify = "right" if turn in (180, 270) else "left"
        long = len(net) * 1.27 * 0.86 + 3.8
        self.boxes.append(
            Box(f"label {net}", min(x, x + dx * long) - abs(dy) * 1.27, min(y, y + dy * long) - abs(dx) * 1.27,
                max(x, x + dx * long) + abs(dy) * 1.27, max(y, y + dy * long) + abs(dx) * 1.27)
        )  # fmt: skip
        self.items.append(
            f"(global_label {quote(net)} (shape bidirectional) (at {x:g} {y:g} {turn}) (fields_autoplaced yes) "
            f'(effects (font (size 1.27 1.27)) (justify {justify})) (uuid "{ident(owner)}") '
            f'(property "Intersheetrefs" "${{INTERSHEET_REFS}}" (at {x:g} {y:g} 0) '
            "(effects (font (size 1.27 1.27)) (hide yes))))"
        )

    def part(self, placed: Placed) -> None:
        """A part with its wires."""
        full = placed.part.symbol
        x, y = round(placed.at[0] * GRID, 4), round(placed.at[1] * GRID, 4)
        left, bottom, right, top = symbols.extent(full)
        pins = symbols.pins(full)
        ref_at: tuple[float, float, str]
        if placed.kind == "pad":
            ref_at, value_at = (x - 1.9, y - 2.2, "right"), (x + 1.9, y - 2.2, "left")
        elif len(pins) == 2 and all(pin.angle in (90, 270) for pin in pins):
            ref_at, value_at = (x + 2.54, y - 1.27, "left"), (x + 2.54, y + 1.27, "left")
        else:
            over = max([top, *(pin.y for pin in pins if pin.angle == 270)])
            above = [placed.nets[pin.number] for pin in pins if pin.angle == 270 and pin.number in placed.nets]
            lift = over + max([1.6, *(8.9 if net in POWER_SYMBOL else 7.6 + len(net) * 1.1 for net in above)])
            ref_at, value_at = (x + left, y - lift - 2.4, "left"), (x + left, y - lift, "left")
        part = placed.part
        fields = (
            ("Footprint", part.footprint),
            ("Datasheet", part.datasheet),
            ("Description", part.about),
            ("Manufacturer", part.maker),
            ("MPN", part.number),
            ("Alternate", part.alternate),
        )
        value = placed.value
        shown = (value_at[0], value_at[1], value_at[2])
        if placed.kind == "pad":
            self.symbol(full, placed.ref, value, x, y, 0, (x, y - 6.4, ""), None, fields, in_bom=False)  # type: ignore[arg-type]
        else:
            self.symbol(full, placed.ref, value, x, y, 0, ref_at, shown, fields)
        self.boxes.append(Box(f"{placed.ref} body", x + left, y - top, x + right, y - bottom, body=True))
        seen: dict[tuple[float, float], str | None] = {}
        last: dict[tuple[int, int], tuple[float, float, str]] = {}  # end of the last wire on a side
        for pin in pins:
            px, py = round(x + pin.x, 4), round(y - pin.y, 4)
            net = placed.nets.get(pin.number)
            if (px, py) in seen:
                if seen[(px, py)] != net:
                    raise ValueError(f"{placed.ref}: pins drawn over each other carry {seen[(px, py)]} and {net}")
                continue
            seen[(px, py)] = net
            if net is None:
                self.items.append(f'(no_connect (at {px:g} {py:g}) (uuid "{ident(placed.ref + "nc" + pin.number)}"))')
                continue
            dx, dy = OUTWARD[pin.angle]
            ex, ey = round(px + GRID * dx, 4), round(py + GRID * dy, 4)
            self.wire(px, py, ex, ey)
            near = last.get((dx, dy))
            last[(dx, dy)] = (ex, ey, net)
            if near and near[2] == net and net in POWER_SYMBOL and abs(near[0] - ex) + abs(near[1] - ey) <= 2 * GRID:
                self.wire(near[0], near[1], ex, ey)  # neighbours of one rail share its symbol
                continue
            self.end(net, ex, ey, dx, dy, f"{placed.ref}label{pin.number}")

    def flag(self, net: str, x: float, y: float) -> None:
        """Says that the net is driven from outside."""
        self.powers += 1
        x, y = round(x * GRID, 4), round(y * GRID, 4)
        self.symbol("power:PWR_FLAG", f"#FLG{self.powers:02d}", "PWR_FLAG", x, y, 0, None, (x, y - 3.81, ""))
        self.wire(x, y, x, y + GRID)
        self.end(net, x, y + GRID, 0, 1, "flag" + net)

    def text(self, page: str, title: str, paper: str = "A4") -> str:
        """The file."""
        node = parse(
            f'(kicad_sch (version 20250114) (generator "tocsin") (generator_version "9.0") (uuid "{ident(self.name)}") '
            f'(paper "{paper}") (title_block (title {quote(title)}) (rev "{REVISION}") (company "Tocsin") '
            f'(comment 1 "DRAFT: no person has reviewed this yet") (comment 2 "CERN-OHL-P-2.0") '
            f'(comment 3 "Generated from hardware/design.py")))'
        )
        node.append(["lib_symbols", *self.used.values()])
        node += [parse(item) for item in self.items]
        if self.name == "root":
            node.append(["sheet_instances", ["path", '"/"', ["page", '"1"']]])
        node.append(["embedded_fonts", "no"])
        return dump(node) + "\n"


def sheets() -> dict[str, Sheet]:
    """All pages by name, drawn."""
    pages: dict[str, Sheet] = {}
    root = Sheet("root", f"/{ROOT}")
    root.words("Tocsin badge: a lone-working alarm behind an ID card", 25.4, 25.4, 3, True)
    for number, (name, title) in enumerate(SHEETS):
        page = pages[name] = Sheet(name, f"/{ROOT}/{ident('sheet' + name)}")
        for words, left, top, right, bottom in BLOCKS[name]:
            page.items.append(
                f"(rectangle (start {left * GRID:g} {top * GRID:g}) (end {right * GRID:g} {bottom * GRID:g}) "
                f'(stroke (width 0.15) (type dash)) (fill (type none)) (uuid "{ident(name + words)}"))'
            )
            page.words(words, left * GRID + 1.5, top * GRID + 2.5, 1.6, True)
        for placed in PARTS.values():
            if placed.sheet == name:
                page.part(placed)
        x, y = 25.4, 45 + number * 35.56
        root.items.append(
            f"(sheet (at {x:g} {y:g}) (size 60.96 25.4) (exclude_from_sim no) (in_bom yes) (on_board yes) (dnp no) "
            f"(stroke (width 0.2) (type solid)) (fill (color 238 244 244 1)) "
            f'(uuid "{ident("sheet" + name)}") '
            f'(property "Sheetname" {quote(name.capitalize())} (at {x:g} {y - 1.0:g} 0) '
            "(effects (font (size 1.8 1.8) (bold yes)) (justify left bottom))) "
            f'(property "Sheetfile" "{name}.kicad_sch" (at {x:g} {y + 26.4:g} 0) '
            "(effects (font (size 1.27 1.27)) (justify left top))) "
            f'(instances (project "badge" (path "/{ROOT}" (page "{number + 2}")))))'
        )
        nets = sorted({net for placed in PARTS.values() if placed.sheet == name for net in placed.nets.values()})
        inside = {net for p in PARTS.values() if p.sheet == name for net in p.nets.values()}
        outside = {net for p in PARTS.values() if p.sheet != name for net in p.nets.values()}
        shared = [net for net in nets if net in inside & outside]
        root.words(title, 91.4, y + 3, 1.8, True)
        rows = _rows(shared)
        for line, chunk in enumerate(rows):
            words = ("Shared nets: " if line == 0 else "") + ", ".join(chunk) + ("," if chunk is not rows[-1] else "")
            root.words(words, 91.4, y + 8 + line * 3.5)
    pages["power"].flag(GND, 96, 32)
    pages["power"].flag(VBUS, 91, 32)
    pages["root"] = root
    return pages


def _rows(items: list[str], count: int = 7) -> list[list[str]]:
    return [items[start : start + count] for start in range(0, len(items), count)]


def overlaps(pages: dict[str, Sheet] | None = None) -> list[str]:
    """Every two texts, or text and body, that cover each other on a sheet."""
    found = []
    for page in (pages or sheets()).values():
        for one, other in itertools.combinations(page.boxes, 2):
            if one.hits(other):
                found.append(f"{page.name}: {one.what} over {other.what}")
    return found


def write(folder: Path) -> None:
    """The schematic's files into `folder`."""
    titles = dict(SHEETS) | {"root": "Tocsin badge"}
    for name, page in sheets().items():
        file = "badge" if name == "root" else name
        (folder / f"{file}.kicad_sch").write_text(page.text(name, titles[name]), encoding="utf-8")
    (folder / "tocsin.kicad_sym").write_text(symbols.library_file(), encoding="utf-8")
    used = sorted({placed.part.symbol.split(":")[0] for placed in PARTS.values()} | {"power"})
    prints = sorted({placed.part.footprint.split(":")[0] for placed in PARTS.values()} | {"Fiducial", "MountingHole"})
    own = {"tocsin": "${KIPRJMOD}/tocsin.kicad_sym"}
    rows = "".join(
        f'  (lib (name "{lib}")(type "KiCad")(uri "{own.get(lib, "${KICAD9_SYMBOL_DIR}/" + lib + ".kicad_sym")}")'
        '(options "")(descr ""))\n'
        for lib in used
    )
    (folder / "sym-lib-table").write_text(f"(sym_lib_table\n  (version 7)\n{rows})\n", encoding="utf-8")
    own = {"tocsin": "${KIPRJMOD}/tocsin.pretty"}
    rows = "".join(
        f'  (lib (name "{lib}")(type "KiCad")(uri "{own.get(lib, "${KICAD9_FOOTPRINT_DIR}/" + lib + ".pretty")}")'
        '(options "")(descr ""))\n'
        for lib in prints
    )
    (folder / "fp-lib-table").write_text(f"(fp_lib_table\n  (version 7)\n{rows})\n", encoding="utf-8")
