"""A longer street in motion: traffic on all sides of an ego vehicle that drives along it.

Unlike in a `random_street`, nothing runs into anything for as long as the scene lasts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .ground import Ground, Road
from .mesh import Mesh, merge
from .scene import Motion, Scene
from .street import Occupancy, Street, any_overlap, corners, random_sun
from .vehicles import bus, car, truck, van

_STEP = 0.2  # seconds between the moments at which footprints are compared
_FURTHEST = 65.0  # metres the ego vehicle drives at most
_AROUND = 78.0  # metres of street before and after its way
_STEEPEST = 1 / 350  # largest curvature, 1/m: the plan is a parabola
# The simulator's cars are European ones; those of nuScenes are about an eighth larger.
_CAR_SCALE, _CAR_SPREAD = 1.12, 0.03


class TimedOccupancy(Occupancy):
    """Footprints over time; what moves may be where another was or will be.

    Args:
        times: (T,) seconds at which footprints are compared.
    """

    def __init__(self, times: np.ndarray) -> None:
        self._times = times
        self._rects: list[np.ndarray] = []  # (T, 4, 2) each

    def take(self, x: float, y: float, yaw: float, length: float, width: float) -> None:
        """Marks a rectangle as taken, always."""
        self.follow(Motion(x, y, yaw), length, width)

    def follow(self, motion: Motion, length: float, width: float) -> None:
        """Marks a moving rectangle as taken."""
        self._rects.append(self._along(motion, length, width))

    def try_take(self, x, y, yaw, length, width, margin: float = 0.25) -> bool:
        """Takes the rectangle for good if nothing ever comes within about ``margin`` metres."""
        return self.try_follow(Motion(x, y, yaw), length, width, margin)

    def try_follow(self, motion: Motion, length: float, width: float, margin: float) -> bool:
        """Takes a moving rectangle's way if nothing is near it at the same time."""
        way = self._along(motion, length + 2 * margin, width + 2 * margin)
        if self._rects:
            others = np.stack(self._rects)
            reach = np.linalg.norm(others.mean(2) - way.mean(1), axis=-1).min(1)
            size = np.linalg.norm(others[:, 0] - others[:, 0].mean(1, keepdims=True), axis=-1)
            # Only those whose circles meet, at whatever time.
            near = others[reach < size.max(1) + np.hypot(length, width) / 2 + 2 * margin]
            if any(len(near) and any_overlap(w, near[:, k]) for k, w in enumerate(way)):
                return False
        self.follow(motion, length, width)
        return True

    def _along(self, motion: Motion, length: float, width: float) -> np.ndarray:
        """(T, 4, 2) corners of a rectangle on its way."""
        return np.stack([corners(*motion.at(t), length, width) for t in self._times])


class DriveStreet(Street):
    """A street under construction, for a drive.

    Args:
        rng: Draws everything.
        start: Seconds at which the scene begins, 0 or before.
        end: Seconds at which it ends.
    """

    def __init__(self, rng: np.random.Generator, start: float, end: float) -> None:
        self.rng = rng
        speed = 0.0 if rng.random() < 0.12 else rng.uniform(2, 12)
        speed = min(speed, _FURTHEST / max(end - start, 1e-6))
        self.travel = speed * end
        self.behind, self.ahead = _AROUND - 38, self.travel + _AROUND - 65
        self.road = self._plan()
        self.ground = Ground.random(self.road, rng)
        self.ground.behind, self.ground.ahead = self.behind, self.ahead
        self.taken = TimedOccupancy(np.arange(start, end + _STEP, _STEP))
        self.actors = []
        self.scenery = [self.ground.mesh(rng)]
        lane = self.road.lane_centres(1)[rng.integers(self.road.lanes)]
        offset = lane + rng.normal(0, 0.15)
        self.ego = Motion(0, offset, rng.normal(0, 0.008), speed, speed * self.road.curvature)
        self._lane_speed = {lane: speed}
        # The ego frame's origin is below the rear axle: 1.4 m behind the vehicle's middle.
        self.taken.follow(self.ego, 8.5, 2.4)

    def _plan(self) -> Road:
        road = Road.random(self.rng)
        road.curvature = float(np.clip(road.curvature, -_STEEPEST, _STEEPEST))
        if road.crossing is not None:
            road.crossing = self.rng.uniform(-25, self.travel + 45)
        return road

    # ---- traffic -------------------------------------------------------------------------

    def _vehicle(self, parked: bool) -> tuple[str, Callable[[float], Mesh]]:
        rng, kind = self.rng, self.rng.random()
        if kind < 0.07:
            label, mesh = 'Van', van(rng)
        elif kind < 0.12:
            label, mesh = 'Truck', truck(rng)
        elif kind < (0.12 if parked else 0.16):
            label, mesh = 'Bus', bus(rng)
        else:
            label, mesh = 'Car', car(rng)
        if label in ('Car', 'Van'):
            scale = _CAR_SCALE + _CAR_SPREAD * np.clip(rng.normal(size=3), -2, 2)
            mesh = Mesh(mesh.vertices * scale, mesh.faces, mesh.material, mesh.colour)
        return label, lambda t: mesh

    def park(self) -> None:
        """Fills the parking strips; see `Street.park`."""
        first = len(self.actors)
        super().park()
        for actor in self.actors[first:]:
            actor.parked = True

    def drive(self) -> None:
        """Puts vehicles on the lanes, each lane at its speed, some waiting."""
        rng, road = self.rng, self.road
        for direction in (1, -1):
            for lane in road.lane_centres(direction):
                common = self._lane_speed.get(lane, rng.uniform(3, 12))
                waits = rng.random() < 0.12
                x = rng.uniform(-75, -62)
                while x < self.travel + 75:
                    stands = waits or rng.random() < 0.04
                    speed = 0.0 if stands else common * rng.uniform(0.93, 1.07)
                    yaw = road.heading(x) + (0 if direction > 0 else np.pi) + rng.normal(0, 0.01)
                    y = road.centre(x) + lane + rng.normal(0, 0.15)
                    motion = Motion(x, y, yaw, speed, direction * speed * road.curvature)
                    self._add(*self._vehicle(parked=False), motion, 0.4)
                    x += rng.uniform(7, 12) if speed == 0 else rng.uniform(9, 32)

    def cross(self) -> None:
        """Vehicles on the crossing street."""
        rng, road = self.rng, self.road
        if road.crossing is None:
            return
        for direction in (1, -1):
            speed, y = rng.uniform(2, 9), rng.uniform(-60, -50)
            while y < 60:
                x = road.crossing + direction * road.crossing_half / 2 + rng.normal(0, 0.1)
                yaw = direction * np.pi / 2 + rng.normal(0, 0.01)
                motion = Motion(x, road.centre(x) + y, yaw, speed if rng.random() < 0.8 else 0.0)
                if rng.random() < 0.6:
                    self._add(*self._vehicle(parked=False), motion, 0.4)
                y += rng.uniform(8, 20)

    def _spot(self, ahead: bool) -> float:
        return self.rng.uniform(-50, self.travel + 55)


def random_drive(rng: np.random.Generator, start: float, end: float) -> Scene:
    """Draws a scene of an ego vehicle that drives along a street, from x = 0 at time 0.

    Args:
        rng: Its state decides everything: the same state gives the same scene.
        start: Seconds at which the scene begins, 0 or before.
        end: Seconds at which it ends.
    """
    street = DriveStreet(rng, start, end)
    street.park()
    street.drive()
    street.cross()
    street.build()
    street.ride(int(rng.poisson(4.5)), ahead=True)
    street.walk(int(rng.poisson(13)), ahead=True)
    street.furnish()
    return Scene(street.ground, merge(street.scenery), street.actors, street.ego, random_sun(rng))
