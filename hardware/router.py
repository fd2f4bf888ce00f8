"""Routes what the vias beside the pads leave: two outer layers, a grid of 0.1 mm, each net with its own width.

`board.json` (from `board.py place`) in, `routes.json` out. The idea is PathFinder (McMurchie and Ebeling, 1995):
every net takes its cheapest way as if alone, ways that lie too near each other cost more in the next round, and
places that were fought over stay expensive, until nobody is in anybody's way. All costs are whole numbers, so that
the same board gives the same tracks on every machine.
"""

import heapq
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from numba import njit

GRID = 0.1
SLACK = 0.012  # the grid's own rounding
STRAIGHT, DIAGONAL, CHANGE = 10, 14, 130  # cost of a step, of a slanted step, of a via
ROUNDS = 80


@njit(cache=True)
def search(
    tracks: np.ndarray,
    vias: np.ndarray,
    busy: np.ndarray,
    busy_via: np.ndarray,
    past: np.ndarray,
    press: int,
    net: int,
    source: np.ndarray,
    target: np.ndarray,
    box: np.ndarray,
) -> list:
    """Cells of the cheapest way from any source to any target, target first; [-1] when there is none."""
    layers, nx, ny = tracks.shape
    far = np.int64(1) << 60
    cost = np.full((layers, nx, ny), far)
    came = np.full((layers, nx, ny), np.int64(-1))
    closed = np.zeros((layers, nx, ny), np.bool_)
    heap = [(np.int64(0), np.int64(0))]
    heap.pop()
    x0, x1, y0, y1 = box
    for layer in range(layers):
        for x in range(nx):
            for y in range(ny):
                if source[layer, x, y]:
                    cost[layer, x, y] = 0
                    guess = 10 * max(max(x0 - x, 0, x - x1), max(y0 - y, 0, y - y1))
                    heapq.heappush(heap, (np.int64(guess), np.int64((layer * nx + x) * ny + y)))
    while len(heap):
        _, cell = heapq.heappop(heap)
        y = cell % ny
        x = (cell // ny) % nx
        layer = cell // (nx * ny)
        if closed[layer, x, y]:
            continue
        closed[layer, x, y] = True
        if target[layer, x, y]:
            way = [cell]
            while came[layer, x, y] >= 0:
                cell = came[layer, x, y]
                way.append(cell)
                y = cell % ny
                x = (cell // ny) % nx
                layer = cell // (nx * ny)
            return way
        for move in range(9):
            if move == 8:
                to, tx, ty = 1 - layer, x, y
                if vias[x, y] != 0 and vias[x, y] != net:
                    continue
                step = CHANGE + press * 3 * busy_via[x, y]
            else:
                to = layer
                tx = x + (1 if move in (0, 1, 7) else (-1 if move in (3, 4, 5) else 0))
                ty = y + (1 if move in (1, 2, 3) else (-1 if move in (5, 6, 7) else 0))
                if tx < 0 or ty < 0 or tx >= nx or ty >= ny:
                    continue
                step = STRAIGHT if move % 2 == 0 else DIAGONAL
            if closed[to, tx, ty]:
                continue
            owner = tracks[to, tx, ty]
            if owner != 0 and owner != net:
                continue
            new = cost[layer, x, y] + step + step * past[to, tx, ty] // 8 + press * busy[to, tx, ty]
            if new < cost[to, tx, ty]:
                cost[to, tx, ty] = new
                came[to, tx, ty] = (layer * nx + x) * ny + y
                guess = 10 * max(max(x0 - tx, 0, tx - x1), max(y0 - ty, 0, ty - y1))
                heapq.heappush(heap, (np.int64(new + guess), np.int64((to * nx + tx) * ny + ty)))
    return [np.int64(-1)]


def disk(radius: float) -> np.ndarray:
    """Grid offsets nearer than `radius`."""
    reach = int(np.ceil(radius / GRID))
    span = np.arange(-reach, reach + 1)
    dx, dy = np.meshgrid(span, span, indexing="ij")
    near = np.hypot(dx, dy) * GRID < radius - 1e-6
    return np.stack([dx[near], dy[near]], axis=1)


class Router:
    """The board as a grid, and the nets' ways over it."""

    def __init__(self, job: dict) -> None:
        self.job = job
        corners = np.array([point[:2] for point in job["outline"]])
        self.nx, self.ny = (int(v / GRID) + 1 for v in corners.max(axis=0))
        self.x, self.y = np.meshgrid(np.arange(self.nx) * GRID, np.arange(self.ny) * GRID, indexing="ij")
        self.gap, self.via = job["clearance"] + SLACK, job["via"]
        planes = set(job["planes"]) | set(job["done"])
        nets: dict[str, list[dict]] = {}
        for pad in job["pads"]:
            if pad["net"] and pad["net"] not in planes and not pad["net"].startswith("unconnected"):
                nets.setdefault(pad["net"], []).append(pad)
        self.nets = {name: pads for name, pads in sorted(nets.items()) if len(pads) > 1}
        self.number = {
            name: place + 1 for place, name in enumerate(sorted({p["net"] for p in job["pads"] if p["net"]}))
        }
        self.width = {name: job["widths"][name] for name in self.nets}
        self.classes = sorted(set(self.width.values()))
        self.fixed = {wide: self._obstacles(wide) for wide in self.classes}
        self.busy = {wide: np.zeros((2, self.nx, self.ny), np.int64) for wide in self.classes}
        self.busy_via = np.zeros((self.nx, self.ny), np.int64)
        self.past = np.zeros((2, self.nx, self.ny), np.int64)
        self.ways: dict[str, list[list[tuple[int, int, int]]]] = {}
        self.claims: dict[str, list] = {}

    def _edge(self) -> np.ndarray:
        """Distance of each grid point from the outline, negative outside."""
        points = [point[:2] for point in self.job["outline"]]
        odd = np.zeros(self.x.shape, bool)
        least = np.full(self.x.shape, 1e9)
        for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
            if y1 != y2:
                odd ^= ((y1 > self.y) != (y2 > self.y)) & (self.x < (x2 - x1) * (self.y - y1) / (y2 - y1) + x1)
            least = np.minimum(least, self._line(x1, y1, x2, y2))
        return np.where(odd, least, -least)

    def _line(self, x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
        square = (x2 - x1) ** 2 + (y2 - y1) ** 2 or 1
        along = np.clip(((self.x - x1) * (x2 - x1) + (self.y - y1) * (y2 - y1)) / square, 0, 1)
        return np.hypot(self.x - x1 - along * (x2 - x1), self.y - y1 - along * (y2 - y1))

    def _box(self, box: list[float]) -> np.ndarray:
        dx = np.maximum(np.maximum(box[0] - self.x, 0), self.x - box[2])
        dy = np.maximum(np.maximum(box[1] - self.y, 0), self.y - box[3])
        return np.hypot(dx, dy)

    def _obstacles(self, wide: float) -> tuple[np.ndarray, np.ndarray]:
        """Whose copper (number, 0 nobody, -1 several or none) forbids a track of this width, and a via, at each
        point."""
        tracks = np.zeros((2, self.nx, self.ny), np.int32)
        vias = np.zeros((self.nx, self.ny), np.int32)

        def mark(area: np.ndarray, where: np.ndarray, owner: int) -> None:
            area[where & (area != 0) & (area != owner)] = -1
            area[where & (area == 0)] = owner

        def add(distance: np.ndarray, layers: list[int], owner: int) -> None:
            for layer in layers:
                mark(tracks[layer], distance < wide / 2 + self.gap, owner)
            mark(vias, distance < self.via / 2 + self.gap, owner)

        for pad in self.job["pads"]:
            owner = self.number.get(pad["net"], -1)
            distance = self._box(pad["box"])
            layers = [layer for layer, key in ((0, "F"), (1, "B")) if pad[key]]
            if pad["bare"]:
                layers, owner = [0, 1], -1
                for layer in layers:
                    tracks[layer][distance < wide / 2 + 0.25] = -1
                vias[distance < self.via / 2 + 0.3] = -1
                continue
            add(distance, layers, owner)
            vias[distance < self.via / 2 + (0.15 if pad["hole"] else 0.02)] = -1  # no via in a pad
        for net, x, y in self.job["vias"]:
            add(np.hypot(self.x - x, self.y - y) - self.via / 2, [0, 1], self.number[net])
            vias[np.hypot(self.x - x, self.y - y) < self.via + 0.06] = -1
        for net, layer, x1, y1, x2, y2, other in self.job["tracks"]:
            add(self._line(x1, y1, x2, y2) - other / 2, [layer], self.number[net])
        for keep in self.job["keep"]:
            distance = self._box(keep)
            tracks[:, distance < wide / 2 + SLACK] = -1
            vias[distance < self.via / 2 + SLACK] = -1
        edge = self._edge()
        tracks[:, edge < wide / 2 + 0.27] = -1
        vias[edge < self.via / 2 + 0.3] = -1
        return tracks, vias

    def _cells(self, pad: dict) -> list[tuple[int, int, int]]:
        left, top, right, bottom = pad["box"]
        layers = [layer for layer, key in ((0, "F"), (1, "B")) if pad[key]]
        cells = [
            (layer, i, j)
            for i in range(int(np.ceil((left + 0.06) / GRID)), int((right - 0.06) / GRID) + 1)
            for j in range(int(np.ceil((top + 0.06) / GRID)), int((bottom - 0.06) / GRID) + 1)
            for layer in layers
        ]
        return cells or [(layers[0], round(pad["at"][0] / GRID), round(pad["at"][1] / GRID))]

    def _claim(self, name: str) -> list:
        """Points that a net's copper forbids to others: by width class per layer, and for vias."""
        mine = self.width[name]
        taken = {wide: np.zeros((2, self.nx, self.ny), bool) for wide in self.classes}
        vias = np.zeros((self.nx, self.ny), bool)

        def stamp(area: np.ndarray, points: np.ndarray, around: np.ndarray) -> None:
            cells = (points[:, None, :] + around[None, :, :]).reshape(-1, 2)
            good = (cells[:, 0] >= 0) & (cells[:, 1] >= 0) & (cells[:, 0] < self.nx) & (cells[:, 1] < self.ny)
            area[cells[good, 0], cells[good, 1]] = True

        for way in self.ways[name]:
            for layer in (0, 1):
                points = np.array([cell[1:] for cell in way if cell[0] == layer])
                if len(points):
                    for wide in self.classes:
                        stamp(taken[wide][layer], points, disk(mine / 2 + self.gap + wide / 2))
                    stamp(vias, points, disk(mine / 2 + self.gap + self.via / 2))
            holes = np.array([cell[1:] for cell, after in itertools.pairwise(way) if cell[0] != after[0]])
            if len(holes):
                for wide in self.classes:
                    for layer in (0, 1):
                        stamp(taken[wide][layer], holes, disk(self.via / 2 + self.gap + wide / 2))
                stamp(vias, holes, disk(self.via + self.gap))
        return [taken, vias]

    def _count(self, name: str, sign: int) -> None:
        if name in self.claims:
            taken, vias = self.claims[name]
            for wide in self.classes:
                self.busy[wide] += sign * taken[wide]
            self.busy_via += sign * vias

    def _route(self, name: str, press: int) -> None:
        self._count(name, -1)
        wide, pads = self.width[name], self.nets[name]
        tracks, vias = self.fixed[wide]
        tree = self._cells(pads[0])
        rest = list(range(1, len(pads)))
        ways = []
        while rest:
            spots = np.array([cell[1:] for cell in tree]) * GRID
            near = min(rest, key=lambda n: (np.abs(spots - np.array(pads[n]["at"])).sum(axis=1).min(), n))
            rest.remove(near)
            source = np.zeros(tracks.shape, np.bool_)
            target = np.zeros(tracks.shape, np.bool_)
            cells = self._cells(pads[near])
            for cell in tree:
                source[cell] = True
            for cell in cells:
                target[cell] = True
            xs, ys = [c[1] for c in cells], [c[2] for c in cells]
            box = np.array([min(xs), max(xs), min(ys), max(ys)])
            found = search(
                tracks, vias, self.busy[wide], self.busy_via, self.past, press, self.number[name], source, target, box
            )
            if found[0] == -1:
                raise SystemExit(f"router: no way for {name} to {pads[near]['ref']}.{pads[near]['number']}")
            way = [(int(c // self.ny // self.nx), int(c // self.ny % self.nx), int(c % self.ny)) for c in found]
            ways.append(way)
            tree = tree + way + cells
        self.ways[name] = ways
        self.claims[name] = self._claim(name)
        self._count(name, 1)

    def _fought(self) -> set[str]:
        """Nets whose copper lies too near another's; makes those places dearer."""
        bad = set()
        for name, ways in self.ways.items():
            busy = self.busy[self.width[name]]
            for way in ways:
                for place, (layer, x, y) in enumerate(way):
                    if busy[layer, x, y] > 1:
                        bad.add(name)
                        self.past[layer, x, y] += 3
                    if place and way[place - 1][0] != layer and self.busy_via[x, y] > 1:
                        bad.add(name)
                        self.past[:, x, y] += 3
        return bad

    def run(self) -> dict:
        """Routes everything; leaves with a message when it cannot."""

        def spread(name: str) -> float:
            xs, ys = [p["at"][0] for p in self.nets[name]], [p["at"][1] for p in self.nets[name]]
            return max(xs) - min(xs) + max(ys) - min(ys)

        order = sorted(self.nets, key=lambda name: (spread(name), name))
        bad, press = set(order), 6
        for turn in range(ROUNDS):
            for name in [name for name in order if name in bad]:
                self._route(name, press)
            bad = self._fought()
            print(f"router: round {turn + 1}, {len(bad)} of {len(order)} nets in conflict", flush=True)
            if not bad:
                return self._copper()
            press = press * 5 // 4 + 1
        raise SystemExit(f"router: still in conflict after {ROUNDS} rounds: {', '.join(sorted(bad))}")

    def _copper(self) -> dict:
        out: dict = {"tracks": [], "vias": []}
        for name, ways in sorted(self.ways.items()):
            holes = set()
            for way in ways:
                start = 0
                while start < len(way) - 1:
                    if way[start][0] != way[start + 1][0]:
                        holes.add((round(way[start][1] * GRID, 3), round(way[start][2] * GRID, 3)))
                        start += 1
                        continue
                    step = (way[start + 1][1] - way[start][1], way[start + 1][2] - way[start][2])
                    end = start + 1
                    while (
                        end < len(way) - 1
                        and way[end + 1][0] == way[start][0]
                        and (way[end + 1][1] - way[end][1], way[end + 1][2] - way[end][2]) == step
                    ):
                        end += 1
                    ends = [round(way[k][axis] * GRID, 3) for k in (start, end) for axis in (1, 2)]
                    out["tracks"].append([name, way[start][0], *ends, self.width[name]])
                    start = end
            out["vias"] += [[name, x, y] for x, y in sorted(holes)]
        return out


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    routed = Router(json.loads((folder / "board.json").read_text(encoding="utf-8"))).run()
    (folder / "routes.json").write_text(json.dumps(routed), encoding="utf-8")
