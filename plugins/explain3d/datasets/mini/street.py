"""Draws a random street: who parks, drives and walks where, and what stands beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import street_objects as things
from .ground import Ground, Road
from .mesh import Mesh, merge, yaw_matrix
from .people import Cyclist, Pedestrian
from .scene import Actor, Motion, Scene
from .vehicles import car, truck, van


class Occupancy:
    """Footprints taken so far; keeps objects from overlapping."""

    def __init__(self) -> None:
        self._rects: list[np.ndarray] = []

    def take(self, x: float, y: float, yaw: float, length: float, width: float) -> None:
        """Marks a rectangle as taken."""
        self._rects.append(corners(x, y, yaw, length, width))

    def try_take(self, x, y, yaw, length, width, margin: float = 0.25) -> bool:
        """Takes the rectangle if nothing is within about ``margin`` metres of it."""
        rect = corners(x, y, yaw, length + 2 * margin, width + 2 * margin)
        if self._rects and any_overlap(rect, np.stack(self._rects)):
            return False
        self.take(x, y, yaw, length, width)
        return True

    def try_follow(self, motion: Motion, length: float, width: float, margin: float) -> bool:
        """Takes the place of something that moves; here, where it is at time 0."""
        return self.try_take(motion.x, motion.y, motion.yaw, length, width, margin)


def corners(x, y, yaw, length, width) -> np.ndarray:
    """(4, 2) corners of a rectangle."""
    local = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * [length / 2, width / 2]
    return local @ yaw_matrix(yaw)[:2, :2].T + [x, y]


def any_overlap(rect: np.ndarray, others: np.ndarray) -> bool:
    """Whether ``rect`` (4, 2) meets any of ``others`` (R, 4, 2): separating axes."""
    apart = np.zeros(len(others), bool)
    own = (rect[1:3] - rect[:2])[None].repeat(len(others), 0)
    for axes in (own, others[:, 1:3] - others[:, :2]):
        a = np.einsum('ci,rki->rkc', rect, axes)
        b = np.einsum('rci,rki->rkc', others, axes)
        apart |= ((a.max(-1) < b.min(-1)) | (b.max(-1) < a.min(-1))).any(-1)
    return bool((~apart).any())


class Street:
    """A street under construction.

    Args:
        rng: Draws everything.
    """

    #: Metres by which the street goes on behind and ahead of the piece that one frame needs.
    behind, ahead = 0.0, 0.0

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.road = Road.random(rng)
        self.ground = Ground.random(self.road, rng)
        self.taken = Occupancy()
        self.actors: list[Actor] = []
        self.scenery: list[Mesh] = [self.ground.mesh(rng)]
        lane = self.road.lane_centres(1)[rng.integers(self.road.lanes)] + rng.normal(0, 0.15)
        speed = rng.uniform(0, 13)
        self.ego = Motion(0, lane, rng.normal(0, 0.015), speed, speed * self.road.curvature)
        self.taken.take(2.0, lane, 0.0, 13.0, 2.2)

    # ---- helpers -------------------------------------------------------------------------

    def _in_crossing(self, x: float, margin: float = 0.0) -> bool:
        crossing = self.road.crossing
        return crossing is not None and abs(x - crossing) < self.road.crossing_half + margin

    def _add(
        self,
        label: str,
        shape: Callable[[float], Mesh],
        motion: Motion,
        margin: float = 0.25,
        upright: bool = False,
    ) -> bool:
        length, width, _ = shape(0.0).extent
        if not self.taken.try_follow(motion, length, width, margin):
            return False
        self.actors.append(Actor(label, motion, shape, upright))
        return True

    def _vehicle(self, parked: bool) -> tuple[str, Callable[[float], Mesh]]:
        kind = self.rng.random()
        if kind < 0.055:
            label, mesh = 'Van', van(self.rng)
        elif kind < (0.055 if parked else 0.12):
            label, mesh = 'Truck', truck(self.rng)
        else:
            label, mesh = 'Car', car(self.rng)
        return label, lambda t: mesh

    def _place(self, mesh: Mesh, x: float, d: float, yaw: float = 0.0, margin: float = 0.2) -> bool:
        """Puts a piece of scenery at (x, d), turned with the street."""
        y = self.road.centre(x) + d
        yaw = yaw + self.road.heading(x)
        low, high = mesh.vertices.min(0), mesh.vertices.max(0)
        # Crowns and arms reach over others: the footprint is what stands below 2 m.
        foot = mesh.vertices[mesh.vertices[:, 2] < low[2] + 2.0]
        low, high = foot.min(0), foot.max(0)
        middle = yaw_matrix(yaw) @ ((low + high) / 2)
        length, width = high[:2] - low[:2]
        if not self.taken.try_take(x + middle[0], y + middle[1], yaw, length, width, margin):
            return False
        foot = corners(x + middle[0], y + middle[1], yaw, length, width)
        z = self.ground.height(foot[:, 0], foot[:, 1]).min()
        self.scenery.append(mesh.moved(yaw_matrix(yaw), (x, y, z)))
        return True

    # ---- traffic -------------------------------------------------------------------------

    def park(self) -> None:
        """Fills the parking strips, along the kerb or, where they are deep, across."""
        rng, road = self.rng, self.road
        for side, strip, edge in zip((-1, 1), road.parking, road.edges, strict=True):
            if not strip:
                continue
            across = strip > 4
            density = rng.uniform(0.1, 0.62) * (0.6 if across else 1.0)
            d = edge - side * (strip / 2 if across else 1.05)
            x = rng.uniform(-30 - self.behind, -25 - self.behind)
            while x < 54 + self.ahead:
                x += rng.uniform(2.6, 3.0) if across else rng.uniform(5.2, 6.4)
                if rng.random() > density or self._in_crossing(x, 5.0):
                    continue
                yaw = road.heading(x) + rng.choice([0, np.pi], p=[0.85, 0.15]) + rng.normal(0, 0.02)
                if side > 0:
                    yaw += np.pi
                if across:
                    yaw += np.pi / 2
                y = road.centre(x) + d + rng.normal(0, 0.06)
                self._add(*self._vehicle(parked=True), Motion(x, y, yaw), 0.15)

    def drive(self) -> None:
        """Puts vehicles on the lanes in both directions."""
        rng, road = self.rng, self.road
        for direction in (1, -1):
            for lane in road.lane_centres(direction):
                x = rng.uniform(-32, -8)
                while x < 58:
                    speed = rng.uniform(3, 13)
                    yaw = road.heading(x) + (0 if direction > 0 else np.pi) + rng.normal(0, 0.02)
                    turn = direction * speed * road.curvature
                    motion = Motion(
                        x, road.centre(x) + lane + rng.normal(0, 0.15), yaw, speed, turn
                    )
                    self._add(*self._vehicle(parked=False), motion, 0.4)
                    x += rng.uniform(9, 34)

    def cross(self) -> None:
        """Vehicles on the crossing street and turning ones in the junction."""
        rng, road = self.rng, self.road
        if road.crossing is None:
            return
        for direction in (1, -1):
            y = rng.uniform(-26, -20)
            while y < 26:
                x = road.crossing + direction * road.crossing_half / 2 + rng.normal(0, 0.1)
                yaw = direction * np.pi / 2 + rng.normal(0, 0.03)
                if abs(y - road.centre(x)) < 6 and rng.random() < 0.5:
                    yaw += rng.uniform(-0.9, 0.9)
                motion = Motion(x, y + road.centre(x), yaw, rng.uniform(0, 8))
                if rng.random() < 0.6:
                    self._add(*self._vehicle(parked=False), motion, 0.4)
                y += rng.uniform(6.5, 14)

    # ---- people --------------------------------------------------------------------------

    def _spot(self, ahead: bool) -> float:
        """X of somebody on the street, ahead of the ego vehicle or behind."""
        return self.rng.uniform(5, 50) ** 0.95 if ahead else self.rng.uniform(-30, 4)

    def _pedestrian_d(self, x: float) -> float:
        """Offset of somebody on foot: mostly on the footways, near the view's axis."""
        rng, road = self.rng, self.road
        kind = rng.random()
        if kind < 0.2 or self._in_crossing(x):
            return rng.uniform(*road.edges)
        right, left = zip(road.edges, road.outer, strict=True)
        near, far = right if rng.random() < 0.5 else left
        if kind > 0.92:
            far += np.sign(far) * 4
        near += 0.3 * np.sign(near)
        return near + rng.random() * (far - near)

    def walk(self, count: int, ahead: bool) -> None:
        """Adds up to ``count`` pedestrians, alone and in groups."""
        rng = self.rng
        placed = 0
        for _ in range(8 * count):
            if placed >= count:
                return
            x = self._spot(ahead)
            d = self._pedestrian_d(x)
            group = int(rng.choice([1, 2, 3], p=[0.7, 0.22, 0.08]))
            yaw = self._walking_yaw(x, d)
            for k in range(min(group, count - placed)):
                placed += self._pedestrian(
                    x + 0.3 * rng.normal() * (k > 0),
                    self.road.centre(x) + d + 0.8 * k,
                    yaw + rng.normal(0, 0.15),
                )

    def _walking_yaw(self, x: float, d: float) -> float:
        """Along the footway for most, across for those on the carriageway, any for the rest."""
        rng, (right, left) = self.rng, self.road.edges
        if rng.random() < 0.25:
            return rng.uniform(-np.pi, np.pi)
        if right < d < left:
            return self.road.heading(x) + rng.choice([1, -1]) * np.pi / 2 + rng.normal(0, 0.25)
        return self.road.heading(x) + rng.choice([0, np.pi]) + rng.normal(0, 0.15)

    def _pedestrian(self, x: float, y: float, yaw: float) -> bool:
        rng = self.rng
        speed = rng.uniform(0.8, 1.7) if rng.random() < 0.72 else 0.0
        body = Pedestrian(rng, walking=speed > 0)
        start = rng.uniform(0, 2 * np.pi)
        # A full gait cycle covers about 1.5 m.
        rate = 2 * np.pi * speed / 1.5
        motion = Motion(x, y, yaw, speed)
        return self._add('Pedestrian', lambda t: body.mesh(start + rate * t), motion, 0.12, True)

    def ride(self, count: int, ahead: bool) -> None:
        """Adds up to ``count`` cyclists: on the lanes' edges, on the footway, crossing."""
        rng, road = self.rng, self.road
        placed = 0
        for _ in range(10 * count):
            if placed >= count:
                return
            x = self._spot(ahead)
            side, kind = rng.choice([-1, 1]), rng.random()
            yaw = road.heading(x) + (0 if side < 0 else np.pi) + rng.normal(0, 0.08)
            if kind < 0.6:
                d = side * (road.lane * road.lanes - rng.uniform(0.4, 0.9))
            elif kind < 0.85:
                edge, outer = (abs(v[0 if side < 0 else 1]) for v in (road.edges, road.outer))
                d, yaw = side * rng.uniform(edge + 0.5, outer), yaw + rng.choice([0, np.pi])
            else:
                d, yaw = rng.uniform(*road.edges), rng.uniform(-np.pi, np.pi)
            placed += self._cyclist(x, road.centre(x) + d, yaw)

    def _cyclist(self, x: float, y: float, yaw: float) -> bool:
        rng = self.rng
        body, start, speed = Cyclist(rng), rng.uniform(0, 2 * np.pi), rng.uniform(2, 7)
        motion = Motion(x, y, yaw, speed)
        # One turn of the cranks covers about 5 m; they turn clockwise seen from the left.
        rate = -2 * np.pi * speed / 5.0
        return self._add('Cyclist', lambda t: body.mesh(start + rate * t), motion, 0.15, True)

    # ---- scenery -------------------------------------------------------------------------

    def build(self) -> None:
        """House fronts, walls, fences and hedges on both sides."""
        rng, road = self.rng, self.road
        for side, outer in zip((-1, 1), road.outer, strict=True):
            setback = rng.choice([0.1, rng.uniform(2, 7)], p=[0.45, 0.55])
            x = rng.uniform(-45 - self.behind, -38 - self.behind)
            while x < 75 + self.ahead:
                length = rng.uniform(7, 17)
                middle = x + length / 2
                if not self._in_crossing(middle, length / 2 + road.pavement):
                    self._plot(middle, length, side, outer, setback + rng.uniform(0, 1.0))
                x += length + rng.choice([0.1, rng.uniform(1, 7)])

    def _plot(self, x: float, length: float, side: int, outer: float, setback: float) -> None:
        """A house, mostly, and what bounds its garden."""
        rng = self.rng
        turn = 0.0 if side > 0 else np.pi
        if rng.random() < 0.85:
            self._place(
                things.house(rng, length, rng.uniform(7, 11)), x, outer + side * setback, turn, 0
            )
        if setback > 1.5:
            maker = (things.fence, things.wall, None)[rng.choice(3, p=[0.4, 0.3, 0.3])]
            if maker:
                self._place(
                    maker(rng, length * rng.uniform(0.5, 1.0)), x, outer + side * 0.2, turn, 0.05
                )
            for _ in range(rng.integers(0, 4)):
                plant = (things.bush, things.bush, things.hedge, things.tree)[rng.integers(4)](rng)
                at = x + rng.uniform(-0.4, 0.4) * length
                self._place(
                    plant, at, outer + side * rng.uniform(0.9, setback), rng.normal(0, 0.3), 0.1
                )

    def furnish(self) -> None:
        """Trees, lamps, signs, bins, mailboxes and the like along the kerbs."""
        rng, road = self.rng, self.road
        behind, ahead = self.behind, self.ahead
        makers = (
            things.sign, things.bin_, things.mailbox, things.bollard, things.bush,
            things.advertising_column,
        )  # fmt: skip
        for side, edge, outer in zip((-1, 1), road.edges, road.outer, strict=True):
            turn = 0.0 if side < 0 else np.pi
            if rng.random() < 0.6:
                step = rng.uniform(7, 13)
                for x in np.arange(rng.uniform(-40 - behind, -34 - behind), 70 + ahead, step):
                    if not self._in_crossing(x, 1.0):
                        self._place(things.tree(rng), x, edge + side * rng.uniform(0.7, 1.0))
            first = rng.uniform(-40 - behind, -20 - behind)
            for x in np.arange(first, 75 + ahead, rng.uniform(18, 28)):
                if not self._in_crossing(x, 1.0):
                    self._place(things.lamp_post(rng), x, edge + side * 0.5, turn)
            pieces = rng.integers(6, 16) * (1 + (behind + ahead) / 90)
            for _ in range(int(pieces)):
                x = rng.uniform(-30 - behind, 60 + ahead)
                if self._in_crossing(x, 0.7):
                    continue
                d = rng.choice([edge + side * rng.uniform(0.4, 0.8), outer - side * 0.6])
                thing = makers[rng.choice(6, p=[0.27, 0.23, 0.16, 0.17, 0.12, 0.05])](rng)
                self._place(
                    thing, x, d, rng.choice([0, np.pi / 2, np.pi]) + rng.normal(0, 0.2), 0.1
                )


def random_street(rng: np.random.Generator) -> Scene:
    """Draws a street scene around an ego vehicle near the world's origin.

    Args:
        rng: Its state decides everything: the same state gives the same scene.
    """
    street = Street(rng)
    street.park()
    street.drive()
    street.cross()
    street.build()
    street.ride(int(rng.poisson(3.4)), ahead=True)
    street.walk(int(rng.poisson(5.6)), ahead=True)
    street.ride(int(rng.poisson(0.8)), ahead=False)
    street.walk(int(rng.poisson(2.0)), ahead=False)
    street.furnish()
    return Scene(street.ground, merge(street.scenery), street.actors, street.ego, random_sun(rng))


def random_sun(rng: np.random.Generator) -> np.ndarray:
    """(3,) unit vector towards a sun well above the horizon."""
    elevation, azimuth = rng.uniform(0.5, 1.1), rng.uniform(-np.pi, np.pi)
    return np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
