"""The street's plan and the ground it lies on: lanes, kerbs, slopes and bumps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .materials import Material
from .mesh import Mesh

_ASPHALT, _CONCRETE = np.array([0.20, 0.20, 0.21]), np.array([0.47, 0.46, 0.44])
_LAWN, _WHITE = np.array([0.19, 0.28, 0.11]), np.array([0.80, 0.80, 0.78])
_KERB_STEP = 0.02  # half the width of the kerb's face, metres


@dataclass
class Road:
    """A street along x, right-hand traffic.

    ``d`` is the offset to the left of the centre line y = curvature / 2 * x**2, metres.

    Attributes:
        curvature: Of the centre line, 1/m.
        lane: Width of a lane.
        lanes: Lanes per direction.
        parking: Width of the strip at (right, left), 0 where there is none.
        pavement: Width of the footways.
        kerb: Height of the footways over the carriageway.
        crossing: x of a crossing street's centre line, or None.
        crossing_half: Half the width of the crossing street.
    """

    curvature: float = 0.0
    lane: float = 3.4
    lanes: int = 1
    parking: tuple[float, float] = (2.1, 2.1)
    pavement: float = 3.0
    kerb: float = 0.12
    crossing: float | None = None
    crossing_half: float = 3.5

    @classmethod
    def random(cls, rng: np.random.Generator) -> Road:
        """Draws a street."""
        strips = rng.choice([0.0, 2.15, 5.0], size=2, p=[0.18, 0.67, 0.15])
        return cls(
            curvature=float(rng.normal(0, 1 / 500)) if rng.random() < 0.6 else 0.0,
            lane=rng.uniform(3.0, 3.6),
            lanes=int(rng.choice([1, 2], p=[0.75, 0.25])),
            parking=(float(strips[0]), float(strips[1])),
            pavement=rng.uniform(2.4, 4.5),
            kerb=rng.uniform(0.08, 0.15),
            crossing=rng.uniform(14, 38) if rng.random() < 0.4 else None,
            crossing_half=rng.uniform(3.2, 4.5),
        )

    def centre(self, x: np.ndarray | float) -> np.ndarray | float:
        """Y of the centre line."""
        return 0.5 * self.curvature * np.asarray(x) ** 2

    def heading(self, x: float) -> float:
        """Direction of the centre line, radians."""
        return float(np.arctan(self.curvature * x))

    @property
    def edges(self) -> tuple[float, float]:
        """(right, left) offset of the kerbs, metres."""
        half = self.lane * self.lanes
        return -half - self.parking[0], half + self.parking[1]

    @property
    def outer(self) -> tuple[float, float]:
        """(right, left) offset of the footways' far sides, metres."""
        right, left = self.edges
        return right - self.pavement, left + self.pavement

    def lane_centres(self, direction: int) -> list[float]:
        """Offsets of the lanes that run along +x (``direction`` 1) or -x (-1)."""
        return [-direction * (k + 0.5) * self.lane for k in range(self.lanes)]


@dataclass
class Ground:
    """A height field over the plan; `height` is exact, `mesh` its triangulation.

    Attributes:
        road: The plan.
        slope: (2,) of the whole field, along x and y.
        waves: (W, 4) amplitude, two wave numbers (1/m), phase.
        bumps: (B, 4) x, y, height, radius of mounds beside the street.
        ridges: (R,) x of speed bumps across the carriageway.
        behind: Metres by which the mesh goes on behind the piece that one frame needs.
        ahead: The same ahead.
    """

    road: Road
    slope: np.ndarray = field(default_factory=lambda: np.zeros(2))
    waves: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    bumps: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    ridges: np.ndarray = field(default_factory=lambda: np.zeros(0))
    behind: float = 0.0
    ahead: float = 0.0

    @classmethod
    def random(cls, road: Road, rng: np.random.Generator) -> Ground:
        """Draws gentle slopes (about one per cent), mounds and sometimes a speed bump."""
        angle, wave = rng.uniform(0, 2 * np.pi, 3), 2 * np.pi / rng.uniform(35, 110, 3)
        waves = np.stack(
            [
                rng.uniform(0.0, 0.007, 3) / wave,
                wave * np.cos(angle), wave * np.sin(angle), rng.uniform(0, 2 * np.pi, 3),
            ],
            -1,
        )  # fmt: skip
        count = 30
        bumps = np.stack(
            [
                rng.uniform(-50, 80, count), rng.uniform(-40, 40, count),
                rng.uniform(-0.1, 0.3, count), rng.uniform(0.8, 3.5, count),
            ],
            -1,
        )  # fmt: skip
        ridges = rng.uniform(8, 50, 1) if rng.random() < 0.15 else np.zeros(0)
        return cls(road, rng.normal(0, [0.005, 0.003]), waves, bumps, ridges)

    def _kerb(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """0 on carriageways, 1 on everything raised above them."""
        right, left = self.road.edges
        d = y - self.road.centre(x)
        beyond = np.maximum(d - left, right - d)
        if self.road.crossing is not None:
            side = np.abs(x - self.road.crossing) - self.road.crossing_half
            beyond = np.minimum(beyond, side)
        return np.clip(beyond / (2 * _KERB_STEP) + 0.5, 0, 1)

    def on_carriageway(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether (x, y) is on a carriageway or parking strip, any shape."""
        return self._kerb(x, y) < 0.5

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Ground height z at (x, y), any shape, metres."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        z = self.slope[0] * x + self.slope[1] * y
        for amplitude, kx, ky, phase in self.waves:
            z = z + amplitude * np.sin(kx * x + ky * y + phase)
        kerb = self._kerb(x, y)
        z = z + self.road.kerb * kerb
        right, left = self.road.outer
        d = y - self.road.centre(x)
        garden = kerb * np.clip(np.maximum(d - left, right - d), 0, 1)
        for bx, by, size, radius in self.bumps:
            z = z + garden * size * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / radius**2)
        for ridge in self.ridges:
            z = z + (1 - kerb) * 0.07 * np.exp(-(((x - ridge) / 0.6) ** 2))
        return z

    def _lines(self) -> tuple[np.ndarray, np.ndarray]:
        """Grid lines in x and d, finer near the street, doubled at kerbs and markings."""
        back, front = -20 - self.behind, 60 + self.ahead
        x = [
            np.arange(back - 60, back, 2.5),
            np.arange(back, front, 1.0),
            np.arange(front, front + 71, 2.5),
        ]
        if self.road.crossing is not None:
            for edge in (-self.road.crossing_half, self.road.crossing_half):
                x.append(self.road.crossing + edge + np.array([-_KERB_STEP, _KERB_STEP]))
        for ridge in self.ridges:
            x.append(ridge + np.linspace(-1.2, 1.2, 9))
        d = [np.arange(-70, -24, 4.0), np.arange(-24, 25, 1.0), np.arange(26, 71, 4.0)]
        for edge in self.road.edges:
            d.append(edge + np.array([-_KERB_STEP, _KERB_STEP]))
        d.append(np.array(self.road.outer))
        d += [line + np.array([-0.06, 0.06]) for line in self._markings()]
        return np.unique(np.concatenate(x)), np.unique(np.concatenate(d))

    def _markings(self) -> list[float]:
        road = self.road
        lines = [k * road.lane for k in range(-road.lanes + 1, road.lanes)]
        for side, strip in zip((-1, 1), road.parking, strict=True):
            if strip:
                lines.append(side * road.lane * road.lanes)
        return lines

    def mesh(self, rng: np.random.Generator) -> Mesh:
        """The triangulated ground; ``rng`` varies the shade."""
        x_lines, d_lines = self._lines()
        x, d = np.meshgrid(x_lines, d_lines, indexing='ij')
        y = d + self.road.centre(x)
        vertices = np.stack([x, y, self.height(x, y)], -1).reshape(-1, 3)
        rows, columns = len(x_lines), len(d_lines)
        i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing='ij')
        a = (i * columns + j).ravel()
        faces = np.stack([a, a + columns, a + columns + 1, a, a + columns + 1, a + 1], -1).reshape(
            -1, 3
        )
        xm = np.repeat((x_lines[1:] + x_lines[:-1]) / 2, columns - 1)
        dm = np.tile((d_lines[1:] + d_lines[:-1]) / 2, rows - 1)
        material, colour = self._surface(xm, dm)
        colour *= rng.uniform(0.93, 1.07, (len(colour), 1))
        return Mesh(
            vertices, faces, np.repeat(material, 2), np.repeat(colour, 2, 0).astype(np.float32)
        )

    def _surface(self, x: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Material (C,) and colour (C, 3) of the grid cells with centres (x, d)."""
        y = d + self.road.centre(x)
        right, left = self.road.outer
        kerb = self._kerb(x, y) > 0.25
        near_crossing = np.zeros(len(x), bool)
        if self.road.crossing is not None:
            gap = np.abs(x - self.road.crossing) - self.road.crossing_half
            near_crossing = gap < self.road.pavement
        paved = ((d < left) & (d > right)) | near_crossing
        material = np.where(
            kerb, np.where(paved, Material.PAVEMENT, Material.GRASS), Material.ASPHALT
        )
        dashed = (np.floor(x) % 6 < 3) & ~(near_crossing)
        for line in self._markings():
            marked = dashed & (np.abs(d - line) < 0.05) & ~kerb
            material = np.where(marked, Material.MARKING, material)
        table = {
            Material.ASPHALT: _ASPHALT, Material.MARKING: _WHITE,
            Material.PAVEMENT: _CONCRETE, Material.GRASS: _LAWN,
        }  # fmt: skip
        colour = np.zeros((len(x), 3))
        for key, value in table.items():
            colour[material == key] = value
        return material.astype(np.uint8), colour
