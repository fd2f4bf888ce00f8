"""The way of the sound through the case: from the opening in its wall, by a slot in the gasket under the board, to the
microphone's hole. How it resonates, and the gasket to cut. Lengths in mm, in the case's coordinates (enclosure.py).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hardware.board_shape import from_board
from hardware.design import PARTS

if TYPE_CHECKING:
    from hardware.enclosure import Case

SOUND = 343.0  # m/s at 20 degrees C
PORT = (0.5, 0.8)  # the microphone's hole in the board: diameter (its footprint) and length (the board), mm
FRONT = (0.5, 2.0)  # mm3 of air before the membrane, inside the package: not in the datasheet, an estimate


def sound_port() -> tuple[float, float]:
    """Where the microphone's hole is on the board: 0.71 mm from its middle, turned with it."""
    x, y, turn = PARTS["U6"].board
    angle = math.radians(turn)
    return x + 0.71 * math.sin(angle), y + 0.71 * math.cos(angle)


def sound(case: Case) -> dict[str, float]:
    """The way of the sound: a channel of constant section, closed by a volume (the hole in the board and the air before
    the membrane). It resonates where k L tan(k L) = A L / V; below that it lifts the level by 1 / (cos k L - k V / A
    sin k L) (plane waves, no loss; Kinsler and others, Fundamentals of Acoustics, 4th edition, chapter 10)."""
    mouth = case.half_inside + case.wall
    length = mouth - from_board(*sound_port())[0]
    area = case.sound_wide * case.seat
    effective = length + 0.6 * math.sqrt(area / math.pi)  # the air before the mouth moves with it
    hole = math.pi / 4 * PORT[0] ** 2 * PORT[1]
    found = {"length mm": round(length, 1), "section mm2": round(area, 2)}
    for name, front in zip(("most", "least"), FRONT, strict=True):
        volume = hole + front

        def gain(hertz: float, volume: float = volume) -> float:
            """Pressure at the membrane over pressure outside."""
            k = 2 * math.pi * hertz / (SOUND * 1e3)  # per mm
            return 1 / (math.cos(k * effective) - k * volume / area * math.sin(k * effective))

        low, high = 100.0, 30000.0
        while high - low > 1:  # the gain is positive below the resonance
            middle = (low + high) / 2
            low, high = (middle, high) if 0 < gain(middle) < 1e6 and gain(middle) >= gain(100.0) else (low, middle)
        found[f"resonance kHz, {name}"] = round(low / 1000, 1)
        found[f"lift at 4 kHz dB, {name}"] = round(20 * math.log10(gain(4000.0)), 1)
    skin = math.sqrt(2 * 1.5e-5 / (2 * math.pi * 300.0)) * 1e3
    found["viscous layer at 300 Hz mm"] = round(skin, 2)
    found["gasket pressed by %"] = round(100 * (1 - case.seat / GASKET))
    return found


GASKET = 0.79  # mm, the foam as bought


def gasket(case: Case) -> str:
    """The sound gasket as SVG in millimetres, port at the origin: foam with its slot on the left, film on the right."""
    far = case.half_inside - 0.2 - from_board(*sound_port())[0]
    slot = case.sound_wide / 2
    edge = slot + case.sound_foam

    def outline(half: float) -> str:
        return f"M {far:.2f} {-half:.2f} H 0 A {half:.2f} {half:.2f} 0 0 0 0 {half:.2f} H {far:.2f}"

    foam = f"{outline(edge)} V {slot:.2f} H 0 A {slot:.2f} {slot:.2f} 0 0 1 0 {-slot:.2f} H {far:.2f} Z"
    hole = "M 0.8 0 A 0.8 0.8 0 1 0 -0.8 0 A 0.8 0.8 0 1 0 0.8 0 Z"
    step = far + 2 * edge
    words = 'font-size="0.9" font-family="sans-serif" fill="#1c2733"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * step + 1:.2f}mm" height="{2 * edge + 3:.2f}mm" '
        f'viewBox="{-edge - 0.5:.2f} {-edge - 0.5:.2f} {2 * step + 1:.2f} {2 * edge + 3:.2f}">\n'
        f'<g fill="#dfeae4" stroke="#1c2733" stroke-width="0.05" fill-rule="evenodd"><path d="{foam}"/>'
        f'<path transform="translate({step:.2f} 0)" d="{outline(edge)} Z {hole}"/></g>\n'
        f'<text x="{-edge:.2f}" y="{edge + 1.5:.2f}" {words}>foam {GASKET} mm</text>'
        f'<text x="{step - edge:.2f}" y="{edge + 1.5:.2f}" {words}>film 0.05 mm</text>\n</svg>\n'
    )
