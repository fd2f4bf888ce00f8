"""Makes the board with KiCad's own Python: `board.py place FOLDER`, the router, `board.py finish FOLDER`, `board.py
fill FOLDER`.

`place` puts the parts, the outline, the USB pair and a via beside every pad of a supply, and writes what the router
has to know (`board.json`). `finish` reads `routes.json` and adds copper areas and legend, `fill` pours them. Needs
Debian's `kicad`.
"""

import itertools
import json
import math
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pcbnew

from hardware import symbols
from hardware.board_shape import ARM, FIDUCIALS, HEIGHT, HOLES, INNER, OUTLINE
from hardware.design import GND, PARTS, V33, model_name
from hardware.fanout import AREAS, ORIGIN, PLANES, Fanout, back, inside
from hardware.rules import CLEARANCE, HOLE, PAIR_WIDTH, VIA, width
from hardware.schematic import ident

FOOTPRINTS = Path(os.environ.get("KICAD9_FOOTPRINT_DIR", "/usr/share/kicad/footprints"))

# USB: D- and D+ from the receptacle through the protection to the module, in the order of the drawing
USB = {
    "USB_D_N": (
        ((6.2, 61.25), (7.35, 61.25), (7.35, 62.25), (6.2, 62.25)),
        (
            (7.35, 62.25),
            (7.9, 62.25),
            (8.6, 61.55),
            (15.6, 61.55),
            (16.35, 62.3),
            (25.6, 62.3),
            (26.27, 62.97),
            (26.27, 68.0),
            (26.5, 68.23),
            (26.5, 69.25),
        ),
    ),
    "USB_D_P": (
        ((6.2, 61.75), (5.1, 61.75), (5.1, 62.75), (6.2, 62.75)),
        (
            (6.2, 62.75),
            (7.9, 62.75),
            (8.6, 63.45),
            (15.6, 63.45),
            (16.35, 62.7),
            (25.43, 62.7),
            (25.87, 63.14),
            (25.87, 68.0),
            (25.65, 68.22),
            (25.65, 69.25),
        ),
    ),
}


def mm(value: float) -> int:
    """Millimetres in KiCad's units."""
    return pcbnew.FromMM(value)


def at(x: float, y: float) -> pcbnew.VECTOR2I:
    """A point of the board on KiCad's page."""
    return pcbnew.VECTOR2I(mm(ORIGIN + x), mm(ORIGIN + y))


def motor_footprint(folder: Path) -> None:
    """Our only own footprint: the motor's place, and pads for its two wires."""
    lines = [
        '(footprint "LRA_8mm" (version 20241229) (generator "tocsin") (generator_version "9.0") (layer "F.Cu")',
        '(descr "Coin LRA, 8 mm, glued to the board, wires soldered") (attr smd)',
    ]
    for name, x, y, layer in (("REF**", -2.6, 5.2, "F.SilkS"), ("LRA_8mm", 0, 0, "F.Fab")):
        kind = "Reference" if layer == "F.SilkS" else "Value"
        lines.append(
            f'(property "{kind}" "{name}" (at {x} {y} 0) (layer "{layer}") '
            "(effects (font (size 0.8 0.8) (thickness 0.12))))"
        )
    for layer, radius, line in (("F.SilkS", 4.1, 0.12), ("F.Fab", 4.0, 0.1)):
        lines.append(
            f"(fp_circle (center 0 0) (end {radius} 0) (stroke (width {line}) (type solid)) "
            f'(fill no) (layer "{layer}"))'
        )
    lines.append(
        '(fp_rect (start -4.35 -4.35) (end 6.6 4.35) (stroke (width 0.05) (type solid)) (fill no) (layer "F.CrtYd"))'
    )
    for number, y in ((1, -1.2), (2, 1.2)):
        lines.append(
            f'(pad "{number}" smd roundrect (at 5.5 {y}) (size 1.6 1.6) '
            '(layers "F.Cu" "F.Mask") (roundrect_rratio 0.2))'
        )
    lines.append(")")
    target = folder / "tocsin.pretty"
    target.mkdir(exist_ok=True)
    (target / "LRA_8mm.kicad_mod").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Board:
    """The board while it is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = str(folder / "badge.kicad_pcb")
        self.nets: dict[str, pcbnew.NETINFO_ITEM] = {}

    def net(self, name: str) -> pcbnew.NETINFO_ITEM:
        """The net of this name, made when it is new."""
        if name not in self.nets:
            self.nets[name] = pcbnew.NETINFO_ITEM(self.board, name)
            self.board.Add(self.nets[name])
        return self.nets[name]

    def new(self) -> None:
        """An empty four-layer board of 0.8 mm."""
        Path(self.file).unlink(missing_ok=True)
        self.board = pcbnew.NewBoard(self.file)
        self.board.SetCopperLayerCount(4)
        self.board.GetDesignSettings().SetBoardThickness(mm(0.8))
        for layer in (pcbnew.In1_Cu, pcbnew.In2_Cu):
            self.board.SetLayerType(layer, pcbnew.LT_POWER)

    def load(self) -> None:
        """The board as `place` left it."""
        self.board = pcbnew.LoadBoard(self.file)
        self.nets = {str(name): net for name, net in self.board.GetNetInfo().NetsByName().items()}

    def parts(self) -> None:
        """All parts at their places, with nets and sheet paths, so that parity can be checked."""
        text = (self.folder / "badge.net").read_text(encoding="utf-8")
        spare = {
            (m[2], m[3]): m[1]
            for m in re.finditer(
                r'\(name "(unconnected-[^"]+)"\)[^\n]*\n\s*\(node \(ref "([^"]+)"\) \(pin "([^"]+)"\)', text
            )
        }
        for ref, placed in PARTS.items():
            library, name = placed.part.footprint.split(":")
            source = self.folder / "tocsin.pretty" if library == "tocsin" else FOOTPRINTS / f"{library}.pretty"
            part = pcbnew.FootprintLoad(str(source), name)
            if part is None:
                raise FileNotFoundError(f"footprint {placed.part.footprint} for {ref} is not installed")
            part.SetFPID(pcbnew.LIB_ID(library, name))
            part.SetReference(ref)
            part.SetValue(placed.value)
            part.SetPath(pcbnew.KIID_PATH(f"/{ident('sheet' + placed.sheet)}/{ident(ref)}"))
            part.SetSheetname(f"/{placed.sheet.capitalize()}/")
            part.SetSheetfile(f"{placed.sheet}.kicad_sch")
            for key, words in (
                ("Datasheet", placed.part.datasheet),
                ("Description", placed.part.about),
                ("Manufacturer", placed.part.maker),
                ("MPN", placed.part.number),
                ("Alternate", placed.part.alternate),
            ):
                part.SetField(key, words)
            for one in part.GetFields():
                if one.GetName() != "Reference":
                    one.SetVisible(False)
            part.Models().clear()
            if placed.part.body:
                for file in sorted((self.folder / "models").glob(f"{model_name(placed)}.*.step")):
                    model = pcbnew.FP_3DMODEL()
                    model.m_Filename = f"${{KIPRJMOD}}/models/{file.name}"
                    part.Models().push_back(model)
            self.board.Add(part)
            x, y, turn = placed.board
            part.SetPosition(at(x, y))
            if placed.side == "B":
                part.Flip(part.GetPosition(), pcbnew.FLIP_DIRECTION_LEFT_RIGHT)
            part.SetOrientationDegrees(turn)
            corners = tuple((px, py) for px, py, _ in OUTLINE)
            for shape in list(part.GraphicalItems()):
                if shape.GetLayer() == pcbnew.F_SilkS:
                    box = shape.GetBoundingBox()
                    ends = [
                        (back(bx), back(by))
                        for bx in (box.GetLeft(), box.GetRight())
                        for by in (box.GetTop(), box.GetBottom())
                    ]
                    if not all(inside(bx, by, corners, 0.1) for bx, by in ends):
                        part.Delete(shape)  # the library draws beyond our edge
            known = {pin.number for pin in symbols.pins(placed.part.symbol)}
            for pad in part.Pads():
                number = pad.GetNumber()
                if number in placed.nets:
                    pad.SetNet(self.net(placed.nets[number]))
                elif number in known:
                    pad.SetNet(self.net(spare[(ref, number)]))
                if ref == "J3":
                    pad.SetLocalSolderMaskMargin(0)
            if placed.kind == "pad":
                part.SetExcludedFromBOM(True)
                part.SetExcludedFromPosFiles(True)

    def extras(self) -> None:
        """Locating holes and fiducials, which are on no sheet."""
        for number, (x, y, hole) in enumerate(HOLES, 1):
            kind = f"MountingHole_{hole}mm" if hole == 2.2 else None
            part = pcbnew.FootprintLoad(str(FOOTPRINTS / "MountingHole.pretty"), kind or "MountingHole_2.2mm_M2")
            if part is None:
                part = pcbnew.FootprintLoad(str(FOOTPRINTS / "MountingHole.pretty"), "MountingHole_2.2mm_M2")
            for shape in list(part.GraphicalItems()):
                part.Delete(shape)
            for pad in part.Pads():
                pad.SetSize(pcbnew.VECTOR2I(mm(hole), mm(hole)))
                pad.SetDrillSize(pcbnew.VECTOR2I(mm(hole), mm(hole)))
                pad.SetAttribute(pcbnew.PAD_ATTRIB_NPTH)
            ring = pcbnew.PCB_SHAPE(part, pcbnew.SHAPE_T_CIRCLE)
            ring.SetLayer(pcbnew.F_CrtYd)
            ring.SetCenter(pcbnew.VECTOR2I(0, 0))
            ring.SetEnd(pcbnew.VECTOR2I(mm(hole / 2 + 0.3), 0))
            ring.SetWidth(mm(0.05))
            part.Add(ring)
            self._extra(part, f"H{number}", x, y)
        for number, (x, y) in enumerate(FIDUCIALS, 1):
            part = pcbnew.FootprintLoad(str(FOOTPRINTS / "Fiducial.pretty"), "Fiducial_0.75mm_Mask1.5mm")
            self._extra(part, f"FID{number}", x, y)

    def _extra(self, part: pcbnew.FOOTPRINT, ref: str, x: float, y: float) -> None:
        part.SetReference(ref)
        part.SetAttributes(pcbnew.FP_BOARD_ONLY | pcbnew.FP_EXCLUDE_FROM_BOM | pcbnew.FP_EXCLUDE_FROM_POS_FILES)
        for one in part.GetFields():
            one.SetVisible(False)
        part.Models().clear()
        self.board.Add(part)
        part.SetPosition(at(x, y))

    def outline(self) -> None:
        """Edge of the board, with round corners."""
        count = len(OUTLINE)
        tangents = []
        for place in range(count):
            (x0, y0, _), (x, y, radius), (x1, y1, _) = (OUTLINE[(place + step) % count] for step in (-1, 0, 1))
            ux, uy = _unit(x0 - x, y0 - y)
            vx, vy = _unit(x1 - x, y1 - y)
            start, end = (x + ux * radius, y + uy * radius), (x + vx * radius, y + vy * radius)
            centre = (x + (ux + vx) * radius, y + (uy + vy) * radius)
            gx, gy = _unit(x - centre[0], y - centre[1])
            tangents.append((start, (centre[0] + gx * radius, centre[1] + gy * radius), end))
        for place, (start, middle, end) in enumerate(tangents):
            arc = pcbnew.PCB_SHAPE(self.board, pcbnew.SHAPE_T_ARC)
            arc.SetArcGeometry(at(*start), at(*middle), at(*end))
            line = pcbnew.PCB_SHAPE(self.board, pcbnew.SHAPE_T_SEGMENT)
            line.SetStart(at(*end))
            line.SetEnd(at(*tangents[(place + 1) % count][0]))
            for shape in (arc, line):
                shape.SetLayer(pcbnew.Edge_Cuts)
                shape.SetWidth(mm(0.1))
                self.board.Add(shape)

    def track(self, net: str, layer: int, x1: float, y1: float, x2: float, y2: float, wide: float) -> None:
        """A straight piece of copper."""
        track = pcbnew.PCB_TRACK(self.board)
        track.SetStart(at(x1, y1))
        track.SetEnd(at(x2, y2))
        track.SetWidth(mm(wide))
        track.SetLayer(layer)
        track.SetNet(self.nets[net])
        self.board.Add(track)

    def via(self, net: str, x: float, y: float) -> None:
        """A through via, covered by mask on both sides."""
        via = pcbnew.PCB_VIA(self.board)
        via.SetPosition(at(x, y))
        via.SetWidth(mm(VIA))
        via.SetDrill(mm(HOLE))
        via.SetNet(self.nets[net])
        self.board.Add(via)

    def save(self) -> None:
        """Writes the file."""
        pcbnew.SaveBoard(self.file, self.board)


def _unit(x: float, y: float) -> tuple[float, float]:
    size = math.hypot(x, y)
    return x / size, y / size


def place(folder: Path) -> None:
    """First half: see above."""
    motor_footprint(folder)
    board = Board(folder)
    board.new()
    board.parts()
    board.extras()
    board.outline()
    fanout = Fanout(board)
    for net, lines in USB.items():
        for line in lines:
            for (x1, y1), (x2, y2) in itertools.pairwise(line):
                fanout.track(net, 0, x1, y1, x2, y2, PAIR_WIDTH)
    failed = fanout.run()
    board.save()
    routes = {
        "outline": [list(point) for point in OUTLINE],
        "pads": fanout.pads,
        "vias": fanout.vias,
        "tracks": fanout.tracks,
        "keep": fanout.keep,
        "planes": list(PLANES),
        "done": list(USB),
        "widths": {pad["net"]: width(pad["net"]) for pad in fanout.pads if pad["net"] and pad["net"] not in PLANES},
        "via": VIA,
        "clearance": CLEARANCE,
    }
    (folder / "board.json").write_text(json.dumps(routes), encoding="utf-8")
    if failed:
        sys.exit(f"board: no via for {', '.join(failed)}")


def pour(board: Board, net: str, layer: int, corners: tuple[tuple[float, float], ...], priority: int) -> None:
    """A copper area."""
    zone = pcbnew.ZONE(board.board)
    zone.SetLayer(layer)
    zone.SetNet(board.nets[net])
    outline = zone.Outline()
    outline.NewOutline()
    for x, y in corners:
        outline.Append(at(x, y))
    zone.SetLocalClearance(mm(0.2 if layer in (pcbnew.In1_Cu, pcbnew.In2_Cu) else CLEARANCE))
    zone.SetMinThickness(mm(0.25))
    zone.SetThermalReliefGap(mm(0.2))
    zone.SetThermalReliefSpokeWidth(mm(0.25))
    zone.SetIslandRemovalMode(pcbnew.ISLAND_REMOVAL_MODE_ALWAYS)
    zone.SetAssignedPriority(priority)
    zone.SetZoneName(f"{net} {board.board.GetLayerName(layer)}")
    board.board.Add(zone)


def legend(board: Board) -> None:
    """What is printed: which board this is, polarity of the battery, references where there is room."""

    def words(text: str, x: float, y: float, size: float, layer: int = pcbnew.F_SilkS, turn: float = 0) -> None:
        item = pcbnew.PCB_TEXT(board.board)
        item.SetText(text)
        item.SetPosition(at(x, y))
        item.SetTextSize(pcbnew.VECTOR2I(mm(size), mm(size)))
        item.SetTextThickness(mm(max(0.12, size * 0.15)))
        item.SetLayer(layer)
        item.SetTextAngleDegrees(turn)
        item.SetMirrored(layer == pcbnew.B_SilkS)
        board.board.Add(item)

    words("TOCSIN BADGE", 33.0, 57.2 - 1.0, 0.9)
    words("+", 11.7, 18.6, 1.0)
    words("TOCSIN badge rev A  DRAFT  CERN-OHL-P-2.0", 8.6, 28.5, 1.0, pcbnew.B_SilkS, 90)
    taken: list[tuple[float, float, float, float]] = []
    for part in board.board.GetFootprints():
        for pad in part.Pads():
            box = pad.GetBoundingBox()
            taken.append(
                (
                    back(box.GetLeft()) - 0.1,
                    back(box.GetTop()) - 0.1,
                    back(box.GetRight()) + 0.1,
                    back(box.GetBottom()) + 0.1,
                )
            )
        for item in part.GraphicalItems():
            if item.GetLayer() in (pcbnew.F_SilkS, pcbnew.F_CrtYd) and part.GetLayer() == pcbnew.F_Cu:
                box = item.GetBoundingBox()
                if item.GetLayer() == pcbnew.F_CrtYd and part.GetReference() in ("U1", "J3"):
                    continue
                taken.append((back(box.GetLeft()), back(box.GetTop()), back(box.GetRight()), back(box.GetBottom())))
    module = PARTS["U1"].board
    taken.append((module[0] - 7.9, module[1] - 10.4, module[0] + 7.9, HEIGHT))
    motor = PARTS["J3"].board
    taken.append((motor[0] - 4.3, motor[1] - 4.3, motor[0] + 4.3, motor[1] + 4.3))
    taken.append((27.0, 55.4, 39.0, 57.0))
    for item in board.board.GetTracks():
        if item.Type() == pcbnew.PCB_VIA_T:
            x, y = back(item.GetPosition().x), back(item.GetPosition().y)
            taken.append((x - 0.2, y - 0.2, x + 0.2, y + 0.2))
    for part in sorted(
        board.board.GetFootprints(), key=lambda one: (one.GetReference()[0] in "RC", one.GetReference())
    ):
        text = part.Reference()
        text.SetVisible(False)
        ref = part.GetReference()
        if part.GetLayer() != pcbnew.F_Cu or ref[0] in "HF":
            continue
        text.SetTextSize(pcbnew.VECTOR2I(mm(0.75), mm(0.75)))
        text.SetTextThickness(mm(0.12))
        text.SetKeepUpright(True)
        text.SetTextAngleDegrees(0)
        box = part.GetBoundingBox(False)
        left, top, right, bottom = (back(v) for v in (box.GetLeft(), box.GetTop(), box.GetRight(), box.GetBottom()))
        if ref == "U1":
            left, top, right, bottom = module[0] - 7.7, module[1] - 10.3, module[0] + 7.7, HEIGHT
        wide, high = len(ref) * 0.72, 0.95
        spots = [
            ((left + right) / 2, top - high / 2 - 0.05),
            ((left + right) / 2, bottom + high / 2 + 0.05),
            (left - wide / 2 - 0.1, (top + bottom) / 2),
            (right + wide / 2 + 0.1, (top + bottom) / 2),
        ]
        corners = tuple((px, py) for px, py, _ in OUTLINE)
        for x, y in spots:
            area = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
            if all(inside(px, py, corners, 0.3) for px in area[::2] for py in area[1::2]) and not any(
                a[0] < area[2] and area[0] < a[2] and a[1] < area[3] and area[1] < a[3] for a in taken
            ):
                text.SetPosition(at(x, y))
                text.SetVisible(True)
                taken.append(area)
                break
    for placed in PARTS.values():
        if placed.kind == "pad":
            x, y, _ = placed.board
            words(placed.label, x, y + 1.3, 0.75, pcbnew.B_SilkS)


def finish(folder: Path) -> None:
    """Second half: see above."""
    board = Board(folder)
    board.load()
    routes = json.loads((folder / "routes.json").read_text(encoding="utf-8"))
    for net, layer, x1, y1, x2, y2, wide in routes["tracks"]:
        board.track(net, pcbnew.B_Cu if layer else pcbnew.F_Cu, x1, y1, x2, y2, wide)
    for net, x, y in routes["vias"]:
        board.via(net, x, y)
    edge = tuple((x + (0.3 if x == 0 else -0.3), y + (0.3 if y == 0 else -0.3)) for x, y, _ in OUTLINE)
    edge = tuple((x, y if (x, y) != (ARM - 0.3, INNER - 0.3) else INNER + 0.3) for x, y in edge)
    edge = tuple((x, INNER + 0.3 if abs(y - (INNER - 0.3)) < 1e-6 else y) for x, y in edge)
    for layer in (pcbnew.F_Cu, pcbnew.In1_Cu, pcbnew.B_Cu):
        pour(board, GND, layer, edge, 0)
    pour(board, V33, pcbnew.In2_Cu, edge, 0)
    for net, corners in AREAS.items():
        pour(board, net, pcbnew.In2_Cu, corners, 1)
    legend(board)
    board.save()


def fill(folder: Path) -> None:
    """Pours the copper. Apart, and after `canon.board`: the filler's rounding follows the order of the identifiers."""
    board = Board(folder)
    board.load()
    pcbnew.ZONE_FILLER(board.board).Fill(board.board.Zones())
    board.save()


if __name__ == "__main__":
    {"place": place, "finish": finish, "fill": fill}[sys.argv[1]](Path(sys.argv[2]))
