"""An automotive radar: detections with range, azimuth, radar cross section and radial velocity.

A fan of rays finds the surfaces. What falls into one cell of range, azimuth and Doppler is one
target, as strong as its surfaces together; a target is detected if its echo is strong enough.
Surfaces reflect by material and incidence, so that a car shows its rear, its corners and its
wheel arches, a wall only where it faces the sensor, and the road next to nothing.

Not simulated: second bounces, side lobes, beams that go below a vehicle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .materials import Material
from .scene import STATIC, Pose, Snapshot
from .tracing import Tracer

# Radar cross section per square metre seen square on, dB.
GAIN = np.zeros(len(Material))
for _material, _gain in {
    Material.ASPHALT: -20, Material.MARKING: -20, Material.PAVEMENT: -18, Material.GRASS: -10,
    Material.PAINT: 15, Material.GLASS: 0, Material.TYRE: 1, Material.METAL: 17,
    Material.PLATE: 20, Material.CLOTH: 1, Material.SKIN: 1, Material.WOOD: 3,
    Material.LEAF: -4, Material.WALL: 6, Material.PLASTIC: 0, Material.LAMP: 10,
}.items():  # fmt: skip
    GAIN[_material] = _gain
_DIFFUSE, _SHARPNESS = 0.15, 5  # what remains at grazing incidence, power of the cosine


@dataclass
class RadarSweep:
    """Detections of one measurement, in the sensor's plane (x forward, y left).

    Attributes:
        xy: (N, 2) metres.
        velocity: (N,) radial velocity against the sensor, m/s, positive away from it.
        compensated: (N,) the same without the sensor's own motion: over ground.
        rcs: (N,) radar cross section, dBsm.
        object_index: (N,) index into the snapshot's objects, -1 for scenery, `FALSE_ALARM`.
        tangential: (N,) speed across the line of sight of what was hit, m/s; not measured.
    """

    xy: np.ndarray
    velocity: np.ndarray
    compensated: np.ndarray
    rcs: np.ndarray
    object_index: np.ndarray
    tangential: np.ndarray

    def take(self, index: np.ndarray) -> RadarSweep:
        """The detections ``index``."""
        return RadarSweep(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @property
    def line_of_sight(self) -> np.ndarray:
        """(N, 2) unit vectors from the sensor."""
        return self.xy / np.linalg.norm(self.xy, axis=1, keepdims=True)


FALSE_ALARM = STATIC - 1


@dataclass
class Radar:
    """A radar that measures range, azimuth and radial velocity in its own plane.

    Attributes:
        pose: Sensor frame (x forward, y left, z up) in the ego frame.
        half_view: Half the opening angle, radians.
        reach: Largest range, metres.
        cell: Size of a cell: range in metres, azimuth in radians, radial velocity in m/s.
        noise: Standard deviations of the same three, and of the cross section in dB.
        weakest: Cross section, dBsm, that is found half of the time up to `knee` metres.
        knee: From here on the weakest cross section grows with the fourth power of the range.
        drop_out: Share of detectable targets that are missed all the same.
        false_alarms: Mean number of detections of nothing.
        most: Largest number of detections, the strongest ones.
        rays: Number of rays in azimuth, in elevation.
        elevations: (lowest, highest) ray, radians.
    """

    pose: Pose
    half_view: float = np.deg2rad(60)
    reach: float = 100.0
    cell: tuple[float, float, float] = (0.9, np.deg2rad(3.2), 0.4)
    noise: tuple[float, float, float, float] = (0.12, np.deg2rad(0.5), 0.08, 3.0)
    weakest: float = -5.0
    knee: float = 45.0
    drop_out: float = 0.12
    false_alarms: float = 5.0
    most: int = 125
    rays: tuple[int, int] = (240, 16)
    elevations: tuple[float, float] = field(default=(np.deg2rad(-5), np.deg2rad(7)))

    def sensor_velocity(self, snapshot: Snapshot, speed: float, turn_rate: float) -> np.ndarray:
        """(3,) velocity of the sensor in the world, m/s.

        Args:
            snapshot: The world.
            speed: Of the ego frame's origin along its x axis, m/s.
            turn_rate: Of the ego frame about its z axis, rad/s.
        """
        spin = np.cross([0.0, 0.0, turn_rate], self.pose.translation)
        return snapshot.ego.rotation @ (np.array([speed, 0.0, 0.0]) + spin)

    def scan(
        self,
        tracer: Tracer,
        snapshot: Snapshot,
        sensor_velocity: np.ndarray,
        rng: np.random.Generator,
    ) -> RadarSweep:
        """Takes one measurement.

        Args:
            tracer: Of ``snapshot.mesh``.
            snapshot: The world at the moment of the measurement.
            sensor_velocity: (3,) of this sensor in the world, m/s.
            rng: Draws noise, drop-out and false alarms.
        """
        targets = self._targets(tracer, snapshot, sensor_velocity)
        found = self._detected(self._noisy(targets, rng), rng)
        alarms = self._false_alarms(snapshot, sensor_velocity, rng)
        return RadarSweep(
            *(
                np.concatenate([getattr(found, name), getattr(alarms, name)])
                for name in RadarSweep.__dataclass_fields__
            )
        )

    def _targets(self, tracer: Tracer, snapshot: Snapshot, sensor_velocity) -> RadarSweep:
        """One target per cell, strongest surfaces first in say, without noise."""
        azimuth, elevation, solid = self._fan()
        local = np.stack(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ],
            -1,
        )
        pose = snapshot.ego.compose(self.pose)
        ray = local @ pose.rotation.T
        hits = tracer.cast(pose.translation, ray)
        met = np.flatnonzero((hits.distance > 0.3) & (hits.distance < self.reach))
        face, ray, distance = hits.face[met], ray[met], hits.distance[met]
        cosine = -(tracer.facing(face, ray) * ray).sum(1)
        gain = 10 ** (GAIN[snapshot.mesh.material[face]] / 10)
        power = gain * (_DIFFUSE + cosine**_SHARPNESS) * distance**2 * solid[met]

        owner = snapshot.face_object[face]
        speeds = np.array([o.velocity for o in snapshot.objects] + [np.zeros(3)]).reshape(-1, 3)
        over_ground = speeds[owner]  # the last row, index -1, is scenery
        radial = (over_ground * ray).sum(1)
        relative = radial - ray @ sensor_velocity
        across = np.linalg.norm(over_ground - radial[:, None] * ray, axis=1)
        return self._merged(distance, azimuth[met], relative, radial, across, power, owner)

    def _fan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(R,) azimuth, elevation and solid angle of each ray."""
        wide, tall = self.rays
        low, high = self.elevations
        azimuth = ((np.arange(wide) + 0.5) / wide * 2 - 1) * self.half_view
        elevation = low + (np.arange(tall) + 0.5) / tall * (high - low)
        azimuth, elevation = (a.ravel() for a in np.meshgrid(azimuth, elevation))
        solid = 2 * self.half_view / wide * (high - low) / tall * np.cos(elevation)
        return azimuth, elevation, solid

    def _merged(self, distance, azimuth, relative, radial, across, power, owner) -> RadarSweep:
        """Joins the surfaces in each cell; place and velocity are weighed by their echo."""
        sizes = np.array(self.cell)
        values = np.stack([distance, azimuth, relative], 1)
        _, member = np.unique(np.floor(values / sizes), axis=0, return_inverse=True)
        member = member.reshape(-1)
        count = member.max() + 1 if len(member) else 0
        total = np.bincount(member, power, count)

        def mean(value):
            return np.bincount(member, power * value, count) / total

        # The owner of a target is the one of its strongest surface.
        order = np.lexsort((-power, member))
        strongest = order[np.searchsorted(member[order], np.arange(count))]
        distance, azimuth = mean(distance), mean(azimuth)
        xy = distance[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
        rcs = 10 * np.log10(np.maximum(total, 1e-9))
        return RadarSweep(xy, mean(relative), mean(radial), rcs, owner[strongest], mean(across))

    def _noisy(self, targets: RadarSweep, rng: np.random.Generator) -> RadarSweep:
        noise = rng.standard_normal((4, len(targets.rcs))) * np.array(self.noise)[:, None]
        distance = np.linalg.norm(targets.xy, axis=1) + noise[0]
        azimuth = np.arctan2(targets.xy[:, 1], targets.xy[:, 0]) + noise[1]
        return RadarSweep(
            distance[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], 1),
            targets.velocity + noise[2],
            targets.compensated + noise[2],
            targets.rcs + noise[3],
            targets.object_index,
            targets.tangential,
        )

    def _detected(self, targets: RadarSweep, rng: np.random.Generator) -> RadarSweep:
        """Those whose echo is above the threshold, the strongest ones first."""
        distance = np.linalg.norm(targets.xy, axis=1)
        bearing = np.arctan2(targets.xy[:, 1], targets.xy[:, 0])
        loss = 40 * np.log10(np.maximum(distance / self.knee, 1))
        # The antenna's gain, there and back, falls towards the edge of the view.
        loss = loss + 9 * (bearing / self.half_view) ** 2
        margin = targets.rcs - self.weakest - loss
        luck = rng.random(len(distance)) > self.drop_out
        kept = np.flatnonzero((margin > 0) & luck & (distance > 0.5))
        return targets.take(kept[np.argsort(-margin[kept], kind='stable')][: self.most])

    def _false_alarms(self, snapshot, sensor_velocity, rng: np.random.Generator) -> RadarSweep:
        """Detections of nothing: most seem to stand still, some to move."""
        count = rng.poisson(self.false_alarms)
        distance = rng.uniform(1.0, self.reach, count)
        azimuth = rng.uniform(-1, 1, count) * self.half_view
        over_ground = np.where(rng.random(count) < 0.7, 0.0, rng.normal(0, 4, count))
        over_ground = over_ground + self.noise[2] * rng.standard_normal(count)
        sight = np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
        pose = snapshot.ego.compose(self.pose)
        own = sight @ (pose.rotation.T @ sensor_velocity)[:2]
        rcs = self.weakest + rng.exponential(3.0, count)
        nothing = np.full(count, FALSE_ALARM)
        return RadarSweep(
            distance[:, None] * sight, over_ground - own, over_ground, rcs, nothing, np.zeros(count)
        )
