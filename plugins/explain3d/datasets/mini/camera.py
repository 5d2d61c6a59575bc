"""A pinhole camera: shaded pictures by ray casting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .materials import Material
from .scene import Pose, Snapshot
from .tracing import Tracer

_ZENITH, _HORIZON = np.array([0.30, 0.50, 0.85]), np.array([0.78, 0.84, 0.90])
_SUNLIGHT = np.array([1.0, 0.95, 0.86])


@dataclass
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        matrix: (3, 3) intrinsics in pixels; the centre of the top left pixel is (0, 0).
        size: (width, height) in pixels.
        pose: Optical frame (x right, y down, z forward) in the ego frame.
    """

    matrix: np.ndarray
    size: tuple[int, int]
    pose: Pose

    def world_pose(self, snapshot: Snapshot) -> Pose:
        """The optical frame's pose in the world."""
        return snapshot.ego.compose(self.pose)

    def rays(self, pixels: np.ndarray, world: Pose) -> np.ndarray:
        """(N, 3) unit directions in the world through ``pixels`` (N, 2)."""
        homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
        local = homogeneous @ np.linalg.inv(self.matrix).T
        local /= np.linalg.norm(local, axis=1, keepdims=True)
        return local @ world.rotation.T

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) and depths (N,) of ``points`` (N, 3) in the optical frame."""
        image = points @ self.matrix.T
        return image[:, :2] / image[:, 2:], image[:, 2]

    def pixel_grid(self, step: int) -> np.ndarray:
        """(H, W, 2) pixel coordinates of the centres of ``step`` x ``step`` blocks."""
        width, height = (int(np.ceil(s / step)) for s in self.size)
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        return np.stack([u, v], -1) * step + (step - 1) / 2

    def render(self, tracer: Tracer, snapshot: Snapshot, step: int = 2) -> np.ndarray:
        """(height, width, 3) uint8 picture.

        Args:
            tracer: Of ``snapshot.mesh``.
            snapshot: The world.
            step: Rays are cast for blocks of ``step`` x ``step`` pixels and interpolated.
        """
        grid = self.pixel_grid(step)
        world = self.world_pose(snapshot)
        direction = self.rays(grid.reshape(-1, 2), world)
        light = _shade(tracer, snapshot, world.translation, direction)
        picture = np.clip(light, 0, 1) ** (1 / 2.2)
        picture = (picture * 255 + 0.5).astype(np.uint8).reshape(*grid.shape[:2], 3)
        return self._enlarged(picture, step)

    def _enlarged(self, picture: np.ndarray, step: int) -> np.ndarray:
        if step == 1:
            return picture
        from PIL import Image

        size = (picture.shape[1] * step, picture.shape[0] * step)
        large = np.asarray(Image.fromarray(picture).resize(size, Image.BICUBIC))
        return large[: self.size[1], : self.size[0]]


def _sky(direction: np.ndarray) -> np.ndarray:
    """(N, 3) light from the sky along ``direction`` (N, 3); haze below the horizon."""
    height = np.clip(direction[:, 2:], 0, 1) ** 0.5
    return _HORIZON * (1 - height) + _ZENITH * height


def _shade(tracer: Tracer, snapshot: Snapshot, origin, direction: np.ndarray) -> np.ndarray:
    """(N, 3) linear light along rays: Lambert, sun with shadows, sky, gloss and haze."""
    hits = tracer.cast(origin, direction)
    light = _sky(direction)
    seen = np.flatnonzero(hits.face >= 0)
    face, way, distance = hits.face[seen], direction[seen], hits.distance[seen]
    normal = tracer.facing(face, way)
    point = origin + way * distance[:, None]

    sun = np.clip(normal @ snapshot.sun, 0, None)
    lit = np.flatnonzero(sun > 0)
    start = point[lit] + 0.01 * normal[lit]
    shadow = tracer.occluded(start, np.broadcast_to(snapshot.sun, start.shape))
    sun[lit[shadow]] = 0

    material = snapshot.mesh.material[face]
    albedo = snapshot.mesh.colour[face].astype(np.float64) * _texture(point, material)[:, None]
    sky = 0.42 * (0.55 + 0.45 * normal[:, 2:]) * np.array([0.92, 0.97, 1.05])
    surface = albedo * (sky + 0.95 * sun[:, None] * _SUNLIGHT)

    gloss = _gloss(material, -(way * normal).sum(1))
    mirrored = way - 2 * (way * normal).sum(1, keepdims=True) * normal
    surface = surface * (1 - gloss) + gloss * 0.8 * _sky(mirrored)
    haze = 1 - np.exp(-distance[:, None] / 350)
    light[seen] = surface * (1 - haze) + _HORIZON * haze
    return light


def _gloss(material: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """(N, 1) share of mirrored sky: Schlick's approximation for glass and paint."""
    base = np.where(
        material == Material.GLASS, 0.10, np.where(material == Material.PAINT, 0.03, 0.0)
    )
    return np.where(base > 0, base + 0.6 * base**0.5 * (1 - np.clip(cosine, 0, 1)) ** 5, 0.0)[
        :, None
    ]


def _texture(point: np.ndarray, material: np.ndarray) -> np.ndarray:
    """(N,) brightness from a fixed pattern in the world, coarse and fine."""
    value = np.ones(len(point))
    amount = np.zeros(len(REFINED))
    amount[list(REFINED)] = list(REFINED.values())
    rough = amount[material] if len(point) else value
    for cell, share in ((0.06, 0.6), (0.5, 0.4)):
        value += rough * share * (_hash(np.floor(point / cell)) - 0.5)
    return value


# Contrast of the pattern per material.
REFINED = dict.fromkeys(range(len(Material)), 0.0) | {
    int(Material.ASPHALT): 0.30, int(Material.PAVEMENT): 0.25, int(Material.GRASS): 0.7,
    int(Material.LEAF): 0.8, int(Material.WALL): 0.18, int(Material.WOOD): 0.4,
    int(Material.CLOTH): 0.15,
}  # fmt: skip


def _hash(cell: np.ndarray) -> np.ndarray:
    """(N,) a fixed pseudo-random number in 0..1 for each integer cell (N, 3)."""
    wave = np.sin(cell @ np.array([12.9898, 78.233, 37.719])) * 43758.5453
    return wave - np.floor(wave)
