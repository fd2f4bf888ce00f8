"""Vias beside the pads of the supplies, before anything is routed: part of `board.py`, in KiCad's own Python."""

import math
from typing import TYPE_CHECKING

import pcbnew

from hardware.board_shape import HEIGHT, OUTLINE, WIDTH
from hardware.design import GND, PARTS, V33, VBAT, VBUS, VSYS
from hardware.rules import CLEARANCE, NECK, VIA, width

if TYPE_CHECKING:
    from hardware.board import Board

ORIGIN = 50.0  # where the board's corner lies on KiCad's page, mm
# Supplies share the third layer, each its own area; +3V3 has the rest
AREAS = {
    VBAT: (
        (0.4, 14.6),
        (13.2, 14.6),
        (13.2, 19.4),
        (4.8, 19.4),
        (4.8, 56.0),
        (4.2, 57.0),
        (4.2, 67.9),
        (6.2, 70.0),
        (6.2, 79.0),
        (0.4, 79.0),
    ),
    VBUS: ((6.6, 57.2), (15.3, 57.2), (15.3, 66.6), (11.5, 67.6), (11.5, 72.3), (6.7, 72.3), (6.7, 69.6), (6.6, 69.0)),
    VSYS: ((9.3, 72.8), (14.8, 72.8), (14.8, 80.6), (6.7, 80.6), (6.7, 76.0), (9.3, 75.9)),
}
PLANES = (GND, V33, VBUS, VSYS, VBAT)
FINE = {"U1", "U2", "U4", "U5", "U6", "U9"}
HEAVY = {"J1", "J2", "U2", "U3", "J3"}  # pads here get two vias


def back(value: int) -> float:
    """KiCad's units in board millimetres."""
    return round(pcbnew.ToMM(value) - ORIGIN, 4)


def inside(x: float, y: float, polygon: tuple[tuple[float, float], ...], margin: float) -> bool:
    """Whether the point lies in the polygon, at least `margin` from its border."""
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            odd = not odd
        if _distance(x, y, x1, y1, x2, y2) < margin:
            return False
    return odd


def _distance(x: float, y: float, x1: float, y1: float, x2: float, y2: float) -> float:
    dx, dy = x2 - x1, y2 - y1
    along = max(0.0, min(1.0, ((x - x1) * dx + (y - y1) * dy) / ((dx * dx + dy * dy) or 1)))
    return math.hypot(x - x1 - along * dx, y - y1 - along * dy)


class Fanout:
    """Puts a via beside each pad of a supply, so that the inner layers carry all current and signals have the outer
    ones."""

    def __init__(self, board: "Board") -> None:
        self.board = board
        self.pads = []  # net, ref, number, left, top, right, bottom, on the front, on the back, drill
        self.vias: list[tuple[str, float, float]] = []
        self.tracks: list[tuple[str, int, float, float, float, float, float]] = []
        self.keep = []
        for part in board.board.GetFootprints():
            for zone in part.Zones():
                box = zone.GetBoundingBox()
                self.keep.append((back(box.GetLeft()), back(box.GetTop()), back(box.GetRight()), back(box.GetBottom())))
            for pad in part.Pads():
                box = pad.GetBoundingBox()
                self.pads.append(
                    {
                        "net": pad.GetNetname(),
                        "ref": part.GetReference(),
                        "number": pad.GetNumber(),
                        "box": [back(box.GetLeft()), back(box.GetTop()), back(box.GetRight()), back(box.GetBottom())],
                        "at": [back(pad.GetPosition().x), back(pad.GetPosition().y)],
                        "F": pad.IsOnLayer(pcbnew.F_Cu),
                        "B": pad.IsOnLayer(pcbnew.B_Cu),
                        "hole": pcbnew.ToMM(pad.GetDrillSize().x),
                        "bare": pad.GetAttribute() == pcbnew.PAD_ATTRIB_NPTH,
                        "paste_only": not (pad.IsOnLayer(pcbnew.F_Cu) or pad.IsOnLayer(pcbnew.B_Cu))
                        and pad.GetAttribute() != pcbnew.PAD_ATTRIB_NPTH,
                    }
                )
        self.pads = [pad for pad in self.pads if not pad["paste_only"]]
        for pad in self.pads:
            if pad["ref"].startswith("FID"):  # a camera wants nothing near it
                pad["box"] = [v + (-0.35 if place < 2 else 0.35) for place, v in enumerate(pad["box"])]
        # Signals at fine pitch keep a way out between their neighbours' vias
        self.reserved = []
        for pad in self.pads:
            left, top, right, bottom = pad["box"]
            if pad["net"] in PLANES or pad["ref"] not in FINE or min(right - left, bottom - top) > 0.5 or pad["bare"]:
                continue
            part = PARTS[pad["ref"]].board
            x, y = pad["at"]
            if right - left > bottom - top:
                self.reserved.append((pad["net"], 0, x, y, x + math.copysign(1.3, x - part[0]), y, 0.2))
            else:
                self.reserved.append((pad["net"], 0, x, y, x, y + math.copysign(1.3, y - part[1]), 0.2))

    def track(self, net: str, layer: int, x1: float, y1: float, x2: float, y2: float, wide: float) -> None:
        """A track that later vias keep away from."""
        self.tracks.append((net, layer, x1, y1, x2, y2, wide))
        self.board.track(net, pcbnew.F_Cu if layer == 0 else pcbnew.B_Cu, x1, y1, x2, y2, wide)

    def free(self, x: float, y: float, radius: float, net: str, layers: str) -> bool:
        """Whether copper of this radius may lie here on the layers named by "F", "B" or both ("FB" is a via)."""
        if not inside(x, y, tuple((px, py) for px, py, _ in OUTLINE), radius + 0.35):
            return False
        if any(k[0] - radius < x < k[2] + radius and k[1] - radius < y < k[3] + radius for k in self.keep):
            return False
        via = layers == "FB"
        for pad in self.pads:
            if not any(pad[layer] for layer in layers) and not pad["bare"]:
                continue
            left, top, right, bottom = pad["box"]
            gap = math.hypot(max(left - x, 0, x - right), max(top - y, 0, y - bottom))
            if pad["bare"]:
                if gap < radius + 0.25:
                    return False
            elif pad["net"] != net:
                if gap < radius + CLEARANCE + 0.01:
                    return False
            elif via and gap < radius + 0.02:
                return False  # no via in a pad: solder would run away
            if via and pad["hole"] and gap < radius + 0.15:
                return False
        for other, vx, vy in self.vias:
            apart = math.hypot(vx - x, vy - y)
            if apart < VIA / 2 + radius + (CLEARANCE + 0.01 if other != net else 0.06 if via else -1):
                return False
        for other, layer, x1, y1, x2, y2, wide in self.tracks + self.reserved:
            if (
                other != net
                and "FB"[layer] in layers
                and _distance(x, y, x1, y1, x2, y2) < radius + wide / 2 + CLEARANCE + 0.01
            ):
                return False
        return True

    def pad(self, pad: dict, reach: float = 2.4) -> bool:
        """A via for one pad, as near as it can be, by the widest neck that fits."""
        net = pad["net"]
        layer = 0 if pad["F"] else 1
        left, top, right, bottom = pad["box"]
        x, y = pad["at"]
        smallest = min(right - left, bottom - top)
        want = width(net) if net in (VBUS, VSYS, VBAT) else 0.3
        for wide in sorted({want, min(want, 0.3), NECK if net in (VBUS, VSYS, VBAT) else 0.2}, reverse=True):
            if wide > smallest + 0.01 and wide > NECK:
                continue
            for step in range(2, int(reach / 0.05)):
                for angle in range(0, 360, 15):
                    ux, uy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                    half = min(
                        (right - left) / 2 / abs(ux) if abs(ux) > 1e-6 else 1e9,
                        (bottom - top) / 2 / abs(uy) if abs(uy) > 1e-6 else 1e9,
                    )
                    far = half + VIA / 2 + step * 0.05
                    vx, vy = round(x + ux * far, 2), round(y + uy * far, 2)
                    if net in AREAS and not inside(vx, vy, AREAS[net], VIA / 2 + 0.1):
                        continue
                    if net == V33 and any(inside(vx, vy, area, -9) for area in AREAS.values()):
                        continue
                    if not self.free(vx, vy, VIA / 2, net, "FB"):
                        continue
                    count = int(far / 0.05)
                    if all(
                        self.free(x + (vx - x) * k / count, y + (vy - y) * k / count, wide / 2, net, "FB"[layer])
                        for k in range(count + 1)
                    ):
                        self.vias.append((net, vx, vy))
                        self.board.via(net, vx, vy)
                        self.track(net, layer, x, y, vx, vy, wide)
                        return True
        return False

    def run(self) -> list[str]:
        """All pads; returns those that found no place."""
        failed = []
        order = sorted(
            self.pads,
            key=lambda pad: (
                min(pad["box"][2] - pad["box"][0], pad["box"][3] - pad["box"][1]),
                pad["ref"],
                pad["number"],
                pad["at"],
            ),
        )
        for pad in order:
            if pad["net"] not in PLANES or pad["hole"] or not pad["number"]:
                continue
            big = min(pad["box"][2] - pad["box"][0], pad["box"][3] - pad["box"][1])
            if pad["ref"] == "U2" and pad["number"] == "17":
                for dx in (-0.5, 0, 0.5):
                    for dy in (-0.5, 0, 0.5):
                        self.vias.append((GND, pad["at"][0] + dx, pad["at"][1] + dy))
                        self.board.via(GND, pad["at"][0] + dx, pad["at"][1] + dy)
                continue
            if pad["ref"] == "U1" and pad["net"] == GND and big > 0.9:
                self.vias.append((GND, *pad["at"]))  # the module's ground plate: heat and ground go straight down
                self.board.via(GND, *pad["at"])
                continue
            for number in range(2 if pad["ref"] in HEAVY and pad["net"] != GND else 1):
                if not self.pad(pad) and number == 0:
                    failed.append(f"{pad['ref']}.{pad['number']} {pad['net']}")
        for x in range(3, int(WIDTH), 5):  # stitches between the ground areas
            for y in range(3, int(HEIGHT), 5):
                if self.free(x, y, VIA / 2, GND, "FB") and self.free(x, y, VIA / 2 + 0.25, "", "FB"):
                    self.vias.append((GND, float(x), float(y)))
                    self.board.via(GND, x, y)
        return failed
