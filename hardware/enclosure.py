"""The case: a tray, a front that holds the ID card, a plug for the lanyard. Made, checked and drawn with build123d.

Coordinates: x to the right, y up, z from the back (the wearer's chest) to the front (the card); millimetres.
`board_shape.from_board()` turns the board's coordinates into these. Every number that somebody may want to change is
in `Case`.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build123d import (
    Align,
    Box,
    Circle,
    Cylinder,
    Location,
    Part,
    Pos,
    RectangleRounded,
    Rot,
    Shape,
    SlotOverall,
    export_step,
    export_stl,
    extrude,
    import_step,
)

from hardware import models
from hardware.acoustics import gasket, sound, sound_port
from hardware.board_shape import HOLES, WIDTH, from_board
from hardware.design import PARTS

_LOW = (Align.CENTER, Align.CENTER, Align.MIN)


@dataclass(frozen=True)
class Case:
    """Sizes in mm. The stack from back to front: back, seat, board, space, floor, card, lip."""

    back: float = 0.9
    seat: float = 0.5  # under the board: through-hole legs, the sound's way
    board: float = 0.8
    cavity: float = 4.7  # from the back's inside to the floor under the card
    floor: float = 0.9
    bay: float = 0.9  # a CR80 card is 0.68 to 0.84 (ISO/IEC 7810)
    lip: float = 0.6
    wall: float = 1.2
    half_inside: float = 27.4
    top: float = -8.5  # the outer top edge, in board coordinates
    cavity_top: float = -0.7
    cavity_bottom: float = 89.8
    card_wide: float = 54.6  # bay; the card is 53.98 x 85.60
    card_top: float = -3.7
    card_bottom: float = 82.5
    rail: float = 2.2  # how far the lips reach over the card
    battery: tuple[float, float, float] = (34.5, 52.0, 4.2)  # as large as the pack may be, with its protection and tape
    battery_at: tuple[float, float] = (34.9, 27.1)  # middle, in board coordinates
    tongue: tuple[float, float] = (30.0, 32.0)  # of the floor over the SOS switch
    slot: float = 0.6
    dip: float = 0.25  # the floor lies this much lower round the tongue, so that the card bends over a wide span
    dip_at: tuple[float, float, float] = (49.0, 32.0, 80.0)  # its width, and from where to where in board coordinates
    boss: float = 7.5  # radius of the spot on the tongue that stays high: there the card pushes
    press_gap: float = 0.2  # between the SOS plunger and the switch
    stop_gap: float = 0.6  # a squeeze harder than the switch bears ends on the board after this
    sound_wide: float = 2.0  # the sound's channel: a slot in the gasket between the back and the board
    sound_foam: float = 1.0  # foam beside it
    motor_room: float = 0.25  # pocket in the floor over the motor
    min_wall: float = 0.6  # lips; MJF in PA12 prints 0.5 mm walls, everything that bears load here has 0.8
    thickness: float = 8.0

    @property
    def total(self) -> float:
        """Thickness of the whole badge."""
        return self.back + self.cavity + self.floor + self.bay + self.lip

    @property
    def split(self) -> float:
        """Height of the plane between tray and front."""
        return self.back + self.cavity

    @property
    def board_top(self) -> float:
        """Height of the board's front."""
        return self.back + self.seat + self.board


CARD = (53.98, 85.60, 0.84)
PA12 = 1.70e9  # Pa, flexural modulus of printed PA12 (HP 3D High Reusability PA 12 datasheet)
PVC = 2.9e9  # Pa, card body (typical of rigid PVC)


def _prism(shape: object, low: float, high: float, x: float = 0, y: float = 0) -> Part:
    return Pos(x, y, low) * extrude(shape, high - low)


def _slab(left: float, bottom: float, right: float, top: float, low: float, high: float) -> Part:
    return Pos((left + right) / 2, (bottom + top) / 2, low) * Box(right - left, top - bottom, high - low, align=_LOW)


def _rect(
    case: Case, board_top: float, board_bottom: float, half: float, radius: float, low: float, high: float
) -> Part:
    """A rounded plate between two heights of the board's coordinates."""
    upper, lower = 42.0 - board_top, 42.0 - board_bottom
    return _prism(RectangleRounded(2 * half, upper - lower, radius), low, high, 0, (upper + lower) / 2)


MAGNET = (11.0, 5.25)  # of the plug: left and right of the middle, above the board's top edge
SCREWS = ((-24.0, -3.0), (24.0, -3.0), (-24.0, 86.9), (24.0, 86.9))  # x of the case, y of the board
POSTS = ((7.4, 3.8), (8.6, 47.0), (6.0, 54.2), (46.5, 62.8), (49.4, 79.4))  # hold the board down, board coordinates


def tray(case: Case) -> Part:
    """The back: walls, seats for the board, pins, the battery's fence, openings at the sides."""
    half, outer = case.half_inside, case.half_inside + case.wall
    bottom = case.cavity_bottom + case.wall
    body = _rect(case, case.top, bottom, outer, 4.5, 0, case.split)
    body -= _rect(case, case.cavity_top, case.cavity_bottom, half, 3.4, case.back, case.split)
    # Seats: a rim under the board's edge and an island under the squeeze
    seat = (case.back, case.back + case.seat)
    for left, top, right, low in (
        (-0.5, 0.4, 1.0, 55.0),
        (-0.5, 69.0, 1.0, 83.6),
        (52.0, 63.5, 53.5, 70.5),
        (17.0, 54.6, 48.0, 55.6),
        (0.5, 82.8, 18.0, 83.9),
        (35.0, 82.8, 52.0, 83.9),
        (15.4, 4.0, 16.4, 50.0),
    ):
        (x0, y0), (x1, y1) = from_board(left, low), from_board(right, top)
        body += _slab(x0, y0, x1, y1, *seat)
    sos = from_board(*PARTS["SW1"].board[:2])
    body += _prism(Circle(4.5), *seat, *sos)
    for x, y in POSTS:
        body += _prism(Circle(1.6), *seat, *from_board(x, y))
    for x, y, hole in HOLES:
        body += _prism(Circle(hole / 2 - 0.1), case.back, case.board_top + 0.5, *from_board(x, y))
    # The battery's fence
    left, low = from_board(case.battery_at[0] - case.battery[0] / 2, case.battery_at[1] + case.battery[1] / 2)
    body += _slab(left - 1.05, low + 3, left - 0.25, low + case.battery[1] - 6, case.back, case.back + 2.6)
    body += _slab(left + 3, low - 1.05, left + case.battery[0] - 2, low - 0.25, case.back, case.back + 2.6)
    # Screw bosses: pilot holes for M1.6 in plastic
    for x, y in SCREWS:
        cx, cy = x, 42.0 - y
        body += _prism(Circle(2.4), case.back, case.split - 1.0, cx, cy)
    for x, y in SCREWS:
        cx, cy = x, 42.0 - y
        body -= _prism(Circle(0.65), case.back + 0.6, case.split, cx, cy)
        body -= _prism(Circle(2.55), case.split - 1.0, case.split, cx, cy)
    # Lanyard: the plug's bay, open at the top
    body -= _slab(-15.0, 42 + 1.9, 15.0, 42.0 - case.top, 1.1, case.split)
    for side in (-1, 1):  # bumps that hold the plug until it is torn out
        body += Pos(side * 15.0, 42.0 - case.top - 1.6, 1.1) * Cylinder(0.45, case.split - 1.1 - 1.0, align=_LOW)
    # USB-C at the left, with room for the plug's collar
    x, y = from_board(0, PARTS["J1"].board[1])
    z = case.board_top + 3.16 / 2
    body -= Pos(-half - 2, y, z) * Rot(0, 90, 0) * extrude(RectangleRounded(3.7, 9.5, 1.6), 6)
    body -= collar(case)
    # Button at the right: a tongue of the wall with a thumb's bump
    x, y = from_board(0, PARTS["SW2"].board[1])
    low, high = case.board_top - 0.7, case.board_top + 2.1
    inner = half - 0.01
    body -= _slab(inner, y - 4.2, outer + 1, y - 3.6, low - 0.5, high + 0.5)
    for z0, z1 in ((low - 0.5, low), (high, high + 0.5)):
        body -= _slab(inner, y - 4.2, outer + 1, y + 11.0, z0, z1)
    body += _slab(half - 0.25, y - 1.2, half + 0.2, y + 1.2, case.board_top + 0.1, case.board_top + 1.5)
    body += Pos(outer - 0.3, y, (low + high) / 2) * Rot(0, 90, 0) * extrude(SlotOverall(5, 1.6), 0.7)
    # Sound: a slot in the gasket leads from the port to the right side. A low fence holds the gasket, a ledge beside
    # the board's edge presses it where there is no board
    px, py = from_board(*sound_port())
    reach = case.sound_wide / 2 + case.sound_foam
    fence = (case.back, case.back + 0.35)
    body += _prism(Circle(reach + 0.7), *fence, px, py) + _slab(px, py - reach - 0.7, half, py + reach + 0.7, *fence)
    body -= _prism(Circle(reach + 0.1), *fence, px, py) + _slab(px, py - reach - 0.1, half, py + reach + 0.1, *fence)
    edge = from_board(WIDTH, 0)[0] + 0.15
    body += _slab(edge, py - reach - 0.7, half + 0.01, py + reach + 0.7, seat[1], case.board_top)
    body -= _slab(half - 0.01, py - case.sound_wide / 2, outer + 1, py + case.sound_wide / 2, *seat)
    return body


def collar(case: Case) -> Part:
    """Room in the left wall for the moulded end of a USB plug, 6.2 x 12.4 mm; 0.8 mm of wall stay behind it."""
    y = from_board(0, PARTS["J1"].board[1])[1]
    left = -case.half_inside - case.wall
    return (
        Pos(left - 0.01, y, case.board_top + 3.16 / 2)
        * Rot(0, 90, 0)
        * extrude(RectangleRounded(PLUG[2], PLUG[1], 2.4), COLLAR)
    )


def front(case: Case) -> Part:
    """The front: floor under the card with the SOS tongue, rails, a rim into the tray, pads for the screws."""
    outer = case.half_inside + case.wall
    bottom = case.cavity_bottom + case.wall
    body = _rect(case, case.top, bottom, outer, 4.5, case.split, case.total)
    floor = case.split + case.floor
    # The card's bay, open at the top; lips left, right and below
    half = case.card_wide / 2
    y0, y1 = 42.0 - case.card_bottom, 42.0 - case.top + 1
    body -= _slab(-half, y0, half, y1, floor, floor + case.bay)
    body -= _slab(-half + case.rail, y0 + case.rail, half - case.rail, y1, floor, case.total + 1)
    body -= _slab(-outer - 1, 42.0 - case.card_top + 1.0, outer + 1, y1, floor, case.total + 1)
    # The floor is lower round the tongue, but for the spot that the card pushes, and hollow over the motor
    sx, sy = from_board(*PARTS["SW1"].board[:2])
    dip = _rect(case, *case.dip_at[1:], case.dip_at[0] / 2, 3.0, floor - case.dip, floor + 0.01)
    body -= dip - _prism(Circle(case.boss), floor - 1, floor + 1, sx, sy)
    body -= _prism(Circle(4.6), case.split - 0.01, case.split + case.motor_room, *from_board(*PARTS["J3"].board[:2]))
    for side in (-1, 1):  # the card clicks behind these
        body += Pos(side * 18, 42.0 - case.card_top + 0.55, floor) * Rot(0, 90, 0) * Cylinder(0.32, 6)
    # Rim into the tray, but not where parts are
    rim = _rect(
        case, case.cavity_top + 0.1, case.cavity_bottom - 0.1, case.half_inside - 0.1, 3.3, case.split - 0.9, case.split
    )
    rim -= _rect(
        case,
        case.cavity_top + 0.95,
        case.cavity_bottom - 0.95,
        case.half_inside - 0.95,
        2.5,
        case.split - 1,
        case.split + 1,
    )
    for ref, reach in (("J1", 7.0), ("SW2", 6.0)):
        y = from_board(*PARTS[ref].board[:2])[1]
        side = -1 if ref == "J1" else 1
        x0, x1 = sorted((side * 22.0, side * 30.0))
        rim -= _slab(x0, y - reach, x1, y + reach + (6 if ref == "SW2" else 0), case.split - 1, case.split)
    body += rim
    for x, y in SCREWS:
        body += _prism(Circle(2.4), case.split - 0.98, case.split, x, 42.0 - y)
    # Tongue over the SOS switch: cut free on three sides, its root above
    wide, long = case.tongue
    low, high = sy - 10, sy - 10 + long
    for x0, x1, b, t in (
        (sx - wide / 2 - case.slot, sx - wide / 2, low, high),
        (sx + wide / 2, sx + wide / 2 + case.slot, low, high),
        (sx - wide / 2 - case.slot, sx + wide / 2 + case.slot, low - case.slot, low),
    ):
        body -= _slab(x0, b, x1, t, case.split - 0.01, floor)
    tip = case.board_top + PARTS["SW1"].part.body[2] + case.press_gap  # type: ignore[index]
    body += _prism(Circle(1.5), tip, case.split + 0.1, sx, sy)
    for dx in (-5.5, 4.5):
        body += _prism(Circle(1.0), case.board_top + case.stop_gap, case.split + 0.1, sx + dx, sy)
    for x, y in POSTS:
        body += _prism(Circle(1.0), case.board_top + 0.1, case.split + 0.1, *from_board(x, y))
    body -= collar(case)
    # Screws from the front: through holes and countersinks
    for x, y in SCREWS:
        cx, cy = x, 42.0 - y
        body -= _prism(Circle(0.9), case.split - 2, case.total + 1, cx, cy)
        seat = floor if y < 40 else case.total
        body -= _prism(Circle(1.6), seat - 0.9, case.total + 1, cx, cy)
    return body


def plug(case: Case) -> Part:
    """The end of the lanyard: two magnets, an eye; tears out of the tray's bay."""
    high = case.split - 1.1 - 0.3
    body = _slab(-14.7, 42 + 2.1, 14.7, 42.0 - case.top - 0.1, 1.25, 1.25 + high)
    y = 42.0 - case.top
    body += _prism(RectangleRounded(20, 10, 3), 1.25, 1.25 + high, 0, y + 2.5)
    body -= _prism(SlotOverall(14, 3.4), 0, 9, 0, y + 4.0)
    for side in (-1, 1):
        body -= _prism(Circle(2.55), 1.25 + 0.85, 9, side * MAGNET[0], 42 + MAGNET[1])
        body -= Pos(side * 14.95, y - 1.6, 0) * Cylinder(0.55, 9, align=_LOW)
    return body


def contents(case: Case, board_step: Path) -> dict[str, Shape]:
    """What has to fit: the board as KiCad exports it, with all its bodies, the battery, the card."""
    whole = import_step(board_step)
    # KiCad's STEP has the board's page position; its top left corner is ours, its back is z = 0
    solids = list(whole.solids())
    plate = max(solids, key=lambda solid: solid.bounding_box().size.X * solid.bounding_box().size.Y)
    at = plate.bounding_box()
    move = Location((-26.5 - at.min.X, 42.0 - at.max.Y, case.back + case.seat - at.min.Z))
    things: dict[str, Shape] = {}
    for place, solid in enumerate(solids):
        name = "board" if solid is plate else f"part {place}"
        things[name] = solid.moved(move)
    bx, by = from_board(*case.battery_at)
    wide, long, thick = case.battery
    things["battery"] = Pos(bx, by, case.back + 0.1) * Box(wide, long, thick, align=_LOW)
    middle = 42.0 - (case.card_top + case.card_bottom) / 2
    things["card"] = _prism(RectangleRounded(CARD[0], CARD[1], 3.18), 0, CARD[2], 0, middle).moved(
        Location((0, 0, case.split + case.floor + 0.02))
    )
    return things


def _overlap(one: Shape, other: Shape) -> float:
    """Common volume in mm3."""
    a, b = one.bounding_box(), other.bounding_box()
    if any(getattr(a.max, k) <= getattr(b.min, k) or getattr(b.max, k) <= getattr(a.min, k) for k in "XYZ"):
        return 0.0
    common = one & other
    if not common:
        return 0.0
    return float(sum(solid.volume for solid in (common.solids() if hasattr(common, "solids") else [])))


def clashes(parts: dict[str, Shape], things: dict[str, Shape]) -> list[str]:
    """Everything that would have to be in one place twice (more than 0.01 mm3)."""
    found = []
    for name, shape in parts.items():
        for other, thing in things.items():
            volume = _overlap(shape, thing)
            if volume > 0.01:
                found.append(f"{other} and {name} overlap by {volume:.2f} mm3")
    names = ["battery", "card"]
    for name in names:
        for other, thing in things.items():
            if other != name and not (other in names and names.index(other) < names.index(name)):
                volume = _overlap(things[name], thing)
                if volume > 0.01:
                    found.append(f"{other} and {name} overlap by {volume:.2f} mm3")
    listed = list(parts)
    for place, name in enumerate(listed):
        for other in listed[place + 1 :]:
            volume = _overlap(parts[name], parts[other])
            if volume > 0.01:
                found.append(f"{name} and {other} overlap by {volume:.2f} mm3")
    return found


def mesh(shape: Shape, tolerance: float = 0.05) -> np.ndarray:
    """Triangles of a shape, (n, 3, 3) in mm."""
    points, faces = shape.tessellate(tolerance, 0.3)
    corners = np.array([(p.X, p.Y, p.Z) for p in points])
    return corners[np.array(faces)]


def open_edges(triangles: np.ndarray) -> int:
    """Edges that do not belong to exactly two triangles in opposite directions: 0 for a closed part."""
    _, ids = np.unique(np.round(triangles.reshape(-1, 3), 4), axis=0, return_inverse=True)
    faces = ids.reshape(-1, 3)
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ways: dict[tuple[int, int], int] = {}
    for a, b in edges.tolist():
        ways[(min(a, b), max(a, b))] = ways.get((min(a, b), max(a, b)), 0) + (1 if a < b else -1)
    return sum(1 for count in ways.values() if count)


def thinnest(triangles: np.ndarray, samples: int = 3000) -> tuple[float, tuple[float, float, float]]:
    """Least wall found by rays from the surface straight inward (mm), and where. Rays that leave through an edge's
    other side, within 25 degrees of parallel, count; grazing ones do not."""
    edges1, edges2 = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    normals = np.cross(edges1, edges2)
    areas = np.linalg.norm(normals, axis=1) / 2
    normals = normals / (2 * areas[:, None] + 1e-15)
    chance = np.random.default_rng(7)
    chosen = chance.choice(len(triangles), samples, p=areas / areas.sum())
    u, v = chance.random(samples), chance.random(samples)
    swap = u + v > 1
    u[swap], v[swap] = 1 - u[swap], 1 - v[swap]
    start = triangles[chosen, 0] + u[:, None] * edges1[chosen] + v[:, None] * edges2[chosen]
    least, where = 1e9, (0.0, 0.0, 0.0)
    for point, inward in zip(start, -normals[chosen], strict=True):
        # Moeller and Trumbore, one ray against all triangles
        cross = np.cross(inward, edges2)
        det = (edges1 * cross).sum(axis=1)
        opposite = np.abs(normals @ inward) > 0.9
        good = (np.abs(det) > 1e-9) & opposite
        inverse = np.where(good, 1 / np.where(good, det, 1), 0)
        offset = point - triangles[:, 0]
        a = (offset * cross).sum(axis=1) * inverse
        other = np.cross(offset, edges1)
        b = (other @ inward) * inverse
        far = (edges2 * other).sum(axis=1) * inverse
        hit = good & (a >= 0) & (b >= 0) & (a + b <= 1) & (far > 1e-3)
        if hit.any() and far[hit].min() < least:
            least, where = float(far[hit].min()), tuple(float(k) for k in point)
    return least, where


def plate(short: float, long: float, clamped: bool) -> float:
    """Deflection factor of a rectangular plate under a force in its middle, w = factor * F * short^2 / D (Timoshenko
    and Woinowsky-Krieger, Theory of Plates and Shells, 2nd edition, tables 23 and 37, for 1 <= long/short <= 2)."""
    free = (0.01160, 0.01265, 0.01353, 0.01484, 0.01570, 0.01620, 0.01651)
    fixed = (0.00560, 0.00610, 0.00647, 0.00691, 0.00712, 0.00720, 0.00722)
    return float(np.interp(long / short, (1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0), fixed if clamped else free))


HARDEST = 10.0  # N, what a control may ask of a hand (University of Arizona, design of controls: below 2.25 lbf)
SWITCH = ((1.01, 0.05), (1.99, 0.35))  # B3U-1000P: 1.5 +- 0.49 N at 0.15 +0.2 -0.1 mm; newton and mm, least and most


def squeeze(case: Case) -> dict[str, float]:
    """Force on the card that presses the SOS switch, in newton. The card is a rectangular plate over the dip in the
    floor, the tongue a cantilever. Least: the thinnest card (0.68 mm), its edges free to turn, an early switch. Most:
    the thickest card (0.84 mm), its edges clamped between ledge and lips, a late switch, and its play used up."""
    spans = sorted((case.dip_at[0], case.dip_at[2] - case.dip_at[1]))
    short, long = (span * 1e-3 for span in spans)

    def card(thick: float, clamped: bool) -> float:
        """Newton a metre in the middle."""
        return PVC * (thick * 1e-3) ** 3 / (12 * (1 - 0.38**2)) / (plate(short, long, clamped) * short**2)

    arm, thick = (case.tongue[1] - 10) * 1e-3, (case.floor - case.dip) * 1e-3
    tongue = PA12 * case.tongue[0] * 1e-3 * thick**3 / (4 * arm**3)
    early, late = ((case.press_gap + way) * 1e-3 for _, way in SWITCH)
    usual = (case.press_gap + 0.15) * 1e-3
    play = (case.bay - 0.84) * 1e-3
    middle = (card(0.76, False) + card(0.76, True)) / 2
    return {
        "tongue N/mm": round(tongue / 1000, 2),
        "card N/mm, free to clamped": round(middle / 1000, 1),
        "least N": round((card(0.68, False) + tongue) * early + SWITCH[0][0], 1),
        "usual N": round((middle + tongue) * usual + 1.5, 1),
        "most N": round((card(0.84, True) + tongue) * (late + play) + SWITCH[1][0], 1),
        "strain of the tongue at its stop %": round(150 * thick * case.stop_gap * 1e-3 / arm**2, 2),
    }


# USB-C: most force to push a plug in or pull it out (N; makers' specifications say 5 to 20 N), and the moulded end
# that the collar takes (mm)
PLUG = (20.0, 12.4, 6.2)
COLLAR = 0.4


def usb_hold(case: Case) -> dict[str, float]:
    """What holds the receptacle against a plug: its four legs in solder, the board's pins in the case; and how far it
    stands back. Stresses in MPa for the specification's 20 N, beside what the material bears."""
    force = PLUG[0]
    legs = 2 * (2 * (1.1 + 0.3) + 2 * (0.7 + 0.3)) * case.board  # solder along two front and two rear legs, mm2
    pins = [hole - 0.2 for _, _, hole in HOLES]
    shear = force / sum(math.pi / 4 * pin**2 for pin in pins)
    arm = case.seat + case.board / 2
    bend = 32 * force * arm / (math.pi * max(pins) ** 3)  # all on one pin
    front = from_board(PARTS["J1"].board[0] - 3.65, 0)[0]
    return {
        "solder of the legs MPa (of 20)": round(force / legs, 1),
        "pins in shear MPa (of 25)": round(shear, 1),
        "one pin alone in bending MPa (of 48)": round(bend, 1),
        "receptacle behind the case mm": round(front + case.half_inside + case.wall, 2),
        "collar mm deep": COLLAR,
    }


def magnet_field(case: Case) -> float:
    """Field of the plug's nearer magnet at the Hall switch in millitesla: a dipole beside its axis (N42, 1.29 T, 5 x
    2 mm)."""
    volume = math.pi * 2.5e-3**2 * 2e-3
    x, y = from_board(*PARTS["U7"].board[:2])
    far = math.hypot(x + MAGNET[0], y - (42 + MAGNET[1])) * 1e-3
    return 1.29 * volume / (4 * math.pi * far**3) * 1e3


def problems(case: Case, parts: dict[str, Shape], things: dict[str, Shape]) -> list[str]:
    """All that forbids making this case; empty when it may be ordered for a first print."""
    found = clashes(parts, things)
    if case.total > case.thickness + 1e-9:
        found.append(f"the badge is {case.total:.2f} mm thick, more than {case.thickness} mm")
    for name, part in parts.items():
        if len(part.solids()) != 1:
            found.append(f"{name} is in {len(part.solids())} pieces")
        triangles = mesh(part)
        if open_edges(triangles):
            found.append(f"{name} is not closed: {open_edges(triangles)} open edges")
        least, where = thinnest(triangles)
        if least < case.min_wall - 0.06:
            found.append(f"{name} is only {least:.2f} mm thick at {', '.join(f'{k:.1f}' for k in where)}")
    sx, sy = from_board(*PARTS["SW1"].board[:2])
    for px, py in (from_board(*post) for post in POSTS):
        if abs(px - sx) < case.tongue[0] / 2 + case.slot + 1 and sy - 11 < py < sy - 10 + case.tongue[1] + 1:
            found.append(f"a post at {px:.1f}, {py:.1f} would block the SOS tongue")
    if squeeze(case)["most N"] > HARDEST:
        found.append(f"the SOS button may need {squeeze(case)['most N']} N, more than {HARDEST} N")
    if sound(case)["resonance kHz, least"] < 8.0:
        found.append(f"the sound channel rings at {sound(case)['resonance kHz, least']} kHz, within what is recorded")
    if magnet_field(case) < 1.5 * 4.8:
        found.append(
            f"the lanyard's magnet gives {magnet_field(case):.1f} mT at the switch, less than 1.5 times its 4.8 mT"
        )
    return found


STACK = ("back", "cavity", "floor", "bay", "lip")


def build(out: Path, pictures: bool = True, case: Case | None = None) -> None:
    """STL, STEP, report and pictures of the case into `out`; ValueError when a check fails."""
    case = case or Case()
    parts: dict[str, Shape] = {"tray": tray(case), "front": front(case), "plug": plug(case)}
    things = contents(case, out / "badge-board.step")
    found = problems(case, parts, things)
    if found:
        raise ValueError("case: " + "; ".join(found[:5]))
    folder = out / "case"
    folder.mkdir(exist_ok=True)
    report: dict[str, object] = {
        "outside mm": [round(v, 2) for v in _size(parts)],
        "stack mm": {name: getattr(case, name) for name in STACK} | {"total": round(case.total, 2)},
        "squeeze": squeeze(case),
        "sound": sound(case),
        "usb": usb_hold(case),
        "magnet at the switch mT": round(magnet_field(case), 1),
        "room over the battery mm": round(case.cavity - 0.1 - case.battery[2], 2),
        "parts": {},
    }
    for name, part in parts.items():
        step, stl = folder / f"{name}.step", folder / f"{name}.stl"
        export_step(part, step)
        step.write_text(models.plain(step.read_text(encoding="utf-8")), encoding="utf-8")
        export_stl(part, stl, tolerance=0.02, angular_tolerance=0.2)
        least, _ = thinnest(mesh(part))
        report["parts"][name] = {
            "cm3": round(part.volume / 1000, 2),
            "g in PA12": round(part.volume / 1000 * 1.01, 1),
            "thinnest mm": round(least, 2),
        }  # type: ignore[index]
    (folder / "gasket.svg").write_text(gasket(case), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if pictures:
        draw(case, parts, things, out)


def _size(parts: dict[str, Shape]) -> tuple[float, ...]:
    boxes = [parts[name].bounding_box() for name in ("tray", "front")]
    return tuple(max(getattr(b.max, k) for b in boxes) - min(getattr(b.min, k) for b in boxes) for k in "XYZ")


def draw(case: Case, parts: dict[str, Shape], things: dict[str, Shape], out: Path) -> None:
    """Exploded view, the tray from the front, the whole."""
    from hardware.render import Thing, picture

    dark, grey, green, blue, cream = (
        (0.34, 0.38, 0.44),
        (0.55, 0.59, 0.65),
        (0.12, 0.42, 0.28),
        (0.25, 0.45, 0.68),
        (0.95, 0.93, 0.86),
    )
    metal, gold = (0.68, 0.69, 0.71), (0.8, 0.66, 0.3)
    meshes = {name: mesh(shape) for name, shape in {**parts, **things}.items()}

    def thing(name: str, color: tuple[float, float, float], lift: float = 0, up: float = 0) -> Thing:
        return Thing(meshes[name] + np.array([0, up, lift]), color)

    small = [name for name in things if name.startswith("part")]
    scene = [
        thing("tray", dark),
        thing("board", green, 26),
        *(thing(n, metal, 26) for n in small),
        thing("battery", blue, 16),
        thing("front", grey, 58),
        thing("card", cream, 78),
        thing("plug", gold, 0, 22),
    ]
    words = [
        ((28, 20, 79), "ID card (not supplied)"),
        ((28, -10, 64), "front with SOS tongue"),
        ((26, -30, 28), "board"),
        ((26, 0, 20), "battery"),
        ((28, -45, 3), "tray"),
        ((12, 72, 4), "lanyard plug, tears out"),
    ]
    picture(scene, out / "case-exploded.png", (1400, 1500), (28, -62), words)
    inside = [
        thing("tray", dark),
        thing("board", green),
        *(thing(n, metal) for n in small),
        thing("battery", blue),
        thing("plug", gold),
    ]
    picture(inside, out / "case-inside.png", (1000, 1500), (0, -12))
    closed = [thing("tray", dark), thing("front", grey), thing("card", cream), thing("plug", gold)]
    picture(closed, out / "case.png", (1100, 1400), (24, -40))
