"""A small software renderer for pictures of the case: triangles in, PNG out, the same picture on every machine.

Orthographic, with a depth buffer, two lights and dark outlines where depth or direction of a surface jumps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

SUPER = 2  # each point of the picture is the mean of SUPER x SUPER


@dataclass
class Thing:
    """Triangles of shape (n, 3, 3) in mm, with a colour of three numbers in 0..1."""

    triangles: np.ndarray
    color: tuple[float, float, float]


@njit(cache=True)
def _fill(
    points: np.ndarray,
    normals: np.ndarray,
    owners: np.ndarray,
    depth: np.ndarray,
    facing: np.ndarray,
    owner: np.ndarray,
) -> None:
    high, wide = depth.shape
    for k in range(points.shape[0]):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[k]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if abs(area) < 1e-12:
            continue
        x0, x1 = max(0, int(min(ax, bx, cx))), min(wide - 1, int(max(ax, bx, cx)) + 1)
        y0, y1 = max(0, int(min(ay, by, cy))), min(high - 1, int(max(ay, by, cy)) + 1)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                u = ((bx - px) * (cy - py) - (cx - px) * (by - py)) / area
                v = ((cx - px) * (ay - py) - (ax - px) * (cy - py)) / area
                w = 1.0 - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                z = u * az + v * bz + w * cz
                if z > depth[y, x]:
                    depth[y, x] = z
                    facing[y, x] = normals[k]
                    owner[y, x] = owners[k]


def picture(
    things: list[Thing],
    file: Path,
    size: tuple[int, int] = (1400, 1000),
    turn: tuple[float, float] = (25.0, -55.0),
    words: list[tuple[tuple[float, float, float], str]] = (),  # type: ignore[assignment]
) -> None:
    """Draws from a viewpoint turned by `turn` degrees about the vertical and tipped; `words` stand beside points of
    the scene."""
    from PIL import Image, ImageDraw, ImageFont

    spin, tip = np.radians(turn)
    about = np.array([[np.cos(spin), -np.sin(spin), 0], [np.sin(spin), np.cos(spin), 0], [0, 0, 1]])
    over = np.array([[1, 0, 0], [0, np.cos(tip), -np.sin(tip)], [0, np.sin(tip), np.cos(tip)]])
    view = over @ about
    corners = np.concatenate([thing.triangles for thing in things]) @ view.T
    wide, high = size[0] * SUPER, size[1] * SUPER
    low, top = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    room = 0.76 if words else 0.92
    scale = min(wide * room / (top[0] - low[0]), high * 0.92 / (top[1] - low[1]))
    shift = np.array([wide * (0.40 if words else 0.5), high / 2]) - scale * (low[:2] + top[:2]) / 2 * np.array([1, 1])
    points = corners.copy()
    points[..., 0] = corners[..., 0] * scale + shift[0]
    points[..., 1] = high - (corners[..., 1] * scale + shift[1])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    owners = np.concatenate([np.full(len(thing.triangles), place) for place, thing in enumerate(things)])
    depth = np.full((high, wide), -1e9)
    facing = np.zeros((high, wide, 3))
    owner = np.full((high, wide), -1)
    _fill(points, normals, owners, depth, facing, owner)
    colors = np.array([thing.color for thing in things] + [(1.0, 1.0, 1.0)])
    key, fill = np.array([-0.45, 0.55, 0.70]), np.array([0.7, 0.1, 0.5])
    light = (
        0.38
        + 0.5 * np.clip(facing @ (key / np.linalg.norm(key)), 0, 1)
        + 0.16 * np.clip(facing @ (fill / np.linalg.norm(fill)), 0, 1)
    )
    shown = colors[owner] * np.where(owner >= 0, light, 1.0)[..., None]
    edge = np.zeros((high, wide), bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(depth, axis=axis)) > 0.9
        bend = (
            np.take(facing, range(1, facing.shape[axis]), axis) * np.take(facing, range(facing.shape[axis] - 1), axis)
        ).sum(axis=2) < 0.85
        change = np.diff(owner, axis=axis) != 0
        seen = (np.take(owner, range(1, owner.shape[axis]), axis) >= 0) & (
            np.take(owner, range(owner.shape[axis] - 1), axis) >= 0
        )
        bend &= seen
        mark = jump | (bend & ~jump) | change
        if axis == 0:
            edge[1:] |= mark
        else:
            edge[:, 1:] |= mark
    shown[edge] *= 0.45
    image = np.clip(shown, 0, 1).reshape(size[1], SUPER, size[0], SUPER, 3).mean(axis=(1, 3))
    out = Image.fromarray((image * 255 + 0.5).astype(np.uint8))
    pen = ImageDraw.Draw(out)
    font = ImageFont.load_default(size=22)
    for spot, text in words:
        x, y, _ = view @ np.array(spot)
        px, py = (x * scale + shift[0]) / SUPER, (high - (y * scale + shift[1])) / SUPER
        tx = size[0] * 0.81
        pen.line([(px, py), (tx - 8, py)], fill=(91, 107, 122), width=1)
        pen.text((tx, py - 13), text, fill=(28, 39, 51), font=font)
    out.save(file, optimize=True)
