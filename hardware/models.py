"""3D bodies of the parts, made here from the package's size, so that the board's STEP needs nobody else's files.

They are as large as the part may be (makers' maximum height, the footprint's own body outline), and as plain as
that allows: what they are for is clearance. `models.py FOLDER` writes one STEP file a body. Needs build123d.
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from build123d import Align, Axis, Box, Color, Cylinder, Pos, export_step, fillet

from hardware.design import PARTS, Placed, model_name
from hardware.sexpr import child, children, load

FOOTPRINTS = Path(os.environ.get("KICAD9_FOOTPRINT_DIR", "/usr/share/kicad/footprints"))
BLACK, METAL, CERAMIC, TIN = (
    Color(0.08, 0.08, 0.09),
    Color(0.55, 0.56, 0.58),
    Color(0.72, 0.6, 0.45),
    Color(0.86, 0.86, 0.84),
)
WHITE, BOARD, GOLD = Color(0.72, 0.7, 0.64), Color(0.05, 0.22, 0.14), Color(0.8, 0.66, 0.3)
_LOW = (Align.CENTER, Align.CENTER, Align.MIN)


def _coloured(shape: object, color: Color, label: str) -> object:
    shape.color = color  # type: ignore[attr-defined]
    shape.label = label  # type: ignore[attr-defined]
    return shape


def fab_box(footprint: str) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the body in the footprint's fabrication layer (mm, y up)."""
    library, name = footprint.split(":")
    node = load(FOOTPRINTS / f"{library}.pretty" / f"{name}.kicad_mod")
    xs, ys = [], []
    for kind in ("fp_line", "fp_rect", "fp_poly"):
        for shape in children(node, kind):
            if child(shape, "layer")[1] != '"F.Fab"':
                continue
            points = [child(shape, "start"), child(shape, "end"), *children(child(shape, "pts") or [], "xy")]
            xs += [float(point[1]) for point in points if point]
            ys += [-float(point[2]) for point in points if point]
    return min(xs), min(ys), max(xs), max(ys)


def _block(left: float, bottom: float, right: float, top: float, low: float, high: float) -> object:
    return Pos((left + right) / 2, (bottom + top) / 2, low) * Box(right - left, top - bottom, high - low, align=_LOW)


def bodies(placed: Placed) -> dict[str, object]:
    """The pieces of a part by colour, standing on z = 0 with the footprint's origin. One file each: several colours
    in one
    STEP file come out in another order every time."""
    wide, deep, high = placed.part.body or (1, 1, 1)
    name = model_name(placed)
    if name == "module":
        # Board 0.8 mm; can over the chip; the antenna end (y > 5) stays bare
        can = _block(-wide / 2 + 0.6, -deep / 2 + 0.6, wide / 2 - 0.6, 5.0, 0.8, high)
        return {
            "board": _coloured(_block(-wide / 2, -deep / 2, wide / 2, deep / 2, 0, 0.8), BOARD, "board"),
            "can": _coloured(fillet(can.edges().filter_by(Axis.Z), 0.5), METAL, "can"),
        }
    if name == "usb":
        shell = _block(-wide / 2, -3.65, wide / 2, deep - 3.65, 0, high)
        shell = fillet(shell.edges().filter_by(Axis.Y), 1.2)
        mouth = _block(-wide / 2 + 0.35, -3.65, wide / 2 - 0.35, 2.2, 0.35, high - 0.35)
        shell -= fillet(mouth.edges().filter_by(Axis.Y), 0.9)
        tongue = _block(-3.3, -3.0, 3.3, 2.2, high / 2 - 0.35, high / 2 + 0.35)
        return {"shell": _coloured(shell, METAL, "shell"), "tongue": _coloured(tongue, BLACK, "tongue")}
    if name == "motor_pads":
        return {"motor": _coloured(Cylinder(wide / 2, high, align=_LOW), METAL, "motor")}
    if name == "sos":
        body = _block(-wide / 2, -deep / 2, wide / 2, deep / 2, 0, 1.2)
        return {
            "body": _coloured(body, BLACK, "body"),
            "plunger": _coloured(Pos(0, 0, 1.2) * Cylinder(0.75, high - 1.2, align=_LOW), WHITE, "plunger"),
        }
    if name == "side":
        return {
            "body": _coloured(_block(-wide / 2, -deep / 2, wide / 2, deep / 2, 0, high), BLACK, "body"),
            "plunger": _coloured(_block(-0.8, deep / 2, 0.8, 2.05, 0.3, 1.3), WHITE, "plunger"),
        }
    left, bottom, right, top = fab_box(placed.part.footprint)
    if name.startswith(("r_", "c_")):
        cap = (right - left) * 0.25
        ends = _block(left, bottom, right, top, 0, high)
        ends -= _block(left + cap, bottom - 1, right - cap, top + 1, high * 0.6, high + 1)
        ends -= _block(left + cap, bottom - 1, right - cap, top + 1, -1, high * 0.4)
        ends -= _block(left + cap, bottom - 1, right - cap, bottom + 0.1, -1, high + 1)
        ends -= _block(left + cap, top - 0.1, right - cap, top + 1, -1, high + 1)
        middle = _block(left + cap, bottom, right - cap, top, 0, high)
        return {
            "ends": _coloured(ends, TIN, "ends"),
            "body": _coloured(middle - ends, CERAMIC if name.startswith("c_") else BLACK, "body"),
        }
    color = {"crystal": METAL, "microphone": METAL, "battery_socket": WHITE}.get(name, BLACK)
    return {"body": _coloured(_block(left, bottom, right, top, 0, high), color, "body")}


def plain(text: str) -> str:
    """A STEP file without the date and the names of the programs that wrote it."""
    text = re.sub(r"FILE_NAME\(.*?\);", "FILE_NAME('','',(''),(''),'','','');", text, count=1, flags=re.S)
    return re.sub(r"FILE_DESCRIPTION\(.*?\);", "FILE_DESCRIPTION((''),'2;1');", text, count=1, flags=re.S)


def write(folder: Path) -> None:
    """All bodies, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    done = set()
    for placed in PARTS.values():
        name = model_name(placed)
        if placed.part.body and name not in done:
            done.add(name)
            for piece, shape in bodies(placed).items():
                file = folder / f"{name}.{piece}.step"
                export_step(shape, file)
                file.write_text(plain(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
