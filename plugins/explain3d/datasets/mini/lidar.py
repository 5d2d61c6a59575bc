"""A spinning LiDAR: beam table, range noise, drop-out and intensity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .materials import DIFFUSE, LIDAR_LOSS, REFLECTIVITY
from .scene import Pose, Snapshot
from .tracing import Tracer


def hdl64e_elevations() -> np.ndarray:
    """(64,) elevations of the Velodyne HDL-64E's beams in radians, from the top down.

    The upper block has 32 beams from +2 degrees at one third of a degree, the lower one 32 beams
    at half a degree down to -24.8 degrees.
    """
    upper = 2.0 - np.arange(32) / 3
    lower = -24.8 + np.arange(31, -1, -1) / 2
    return np.deg2rad(np.concatenate([upper, lower]))


@dataclass
class Sweep:
    """One turn of a LiDAR, points in the sensor's frame.

    Attributes:
        points: (M, 4) float32 x, y, z in metres, intensity 0..1.
        object_index: (M,) index into the snapshot's objects, -1 for scenery.
        beam: (M,) index into the beam table.
        column: (M,) number of the firing.
        material: (M,) of the surface.
        cosine: (M,) of the angle of incidence.
    """

    points: np.ndarray
    object_index: np.ndarray
    beam: np.ndarray
    column: np.ndarray
    material: np.ndarray
    cosine: np.ndarray


@dataclass
class Lidar:
    """A spinning LiDAR.

    Attributes:
        pose: Sensor frame (x forward, y left, z up) in the ego frame.
        elevations: (B,) beam elevations, radians.
        columns: Firings per turn; 2083 gives 0.173 degrees.
        noise: Standard deviation of the range, metres.
        reach: Largest range, metres.
        blind: Smallest range, metres.
    """

    pose: Pose
    elevations: np.ndarray = field(default_factory=hdl64e_elevations)
    columns: int = 2083
    noise: float = 0.02
    reach: float = 100.0
    blind: float = 1.5

    def directions(self) -> np.ndarray:
        """(B * columns, 3) unit directions in the sensor's frame, beam by beam."""
        azimuth = np.pi - 2 * np.pi * (np.arange(self.columns) + 0.5) / self.columns
        elevation = self.elevations[:, None]
        rays = np.stack(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.broadcast_to(np.sin(elevation), (len(elevation), self.columns)),
            ],
            -1,
        )
        return rays.reshape(-1, 3)

    def scan(self, tracer: Tracer, snapshot: Snapshot, rng: np.random.Generator) -> Sweep:
        """Takes one turn.

        Every ray draws its random numbers whether it returns or not, so that a change of the
        scene in one place leaves the noise elsewhere as it was.

        Args:
            tracer: Of ``snapshot.mesh``.
            snapshot: The world, frozen for the turn (no motion distortion).
            rng: Draws noise and drop-out.
        """
        local = self.directions()
        pose = snapshot.ego.compose(self.pose)
        direction = local @ pose.rotation.T
        hits = tracer.cast(pose.translation, direction)
        noise = rng.standard_normal((2, len(local)))
        luck = rng.random(len(local))

        kept = np.flatnonzero((hits.distance < self.reach) & (hits.distance > self.blind))
        face, distance = hits.face[kept], hits.distance[kept]
        material = snapshot.mesh.material[face]
        normal = tracer.facing(face, direction[kept])
        cosine = np.clip(-(normal * direction[kept]).sum(1), 0, 1)
        returned = luck[kept] > self._loss(material, distance, cosine)

        range_ = distance + self.noise * noise[0, kept]
        xyz = local[kept] * range_[:, None]
        intensity = self._intensity(snapshot, face, material, cosine, noise[1, kept])
        points = np.concatenate([xyz, intensity[:, None]], 1).astype(np.float32)
        return Sweep(
            points[returned],
            snapshot.face_object[face][returned],
            (kept // self.columns)[returned],
            (kept % self.columns)[returned],
            material[returned],
            cosine[returned],
        )

    def _loss(self, material, distance, cosine) -> np.ndarray:
        """(M,) probability that a ray which met a surface gives no return."""
        stays = 1 - LIDAR_LOSS[material]
        strength = REFLECTIVITY[material] * (0.25 + 0.75 * cosine)
        # Half of the rays are lost where the echo is as weak as 8 % reflectivity at 80 m.
        threshold = 0.08 * (distance / 80.0) ** 2
        return 1 - stays * (strength / (strength + threshold)) * (1 - np.exp(-cosine / 0.012))

    @staticmethod
    def _intensity(snapshot: Snapshot, face, material, cosine, noise) -> np.ndarray:
        """(M,) intensity 0..1 in steps of 0.01: material, shade of its colour, incidence."""
        brightness = snapshot.mesh.colour[face].mean(1)
        incidence = DIFFUSE[material] + (1 - DIFFUSE[material]) * cosine
        value = REFLECTIVITY[material] * (0.55 + 0.9 * brightness) * incidence
        return np.round(np.clip(value + 0.04 * noise, 0, 0.99), 2)
