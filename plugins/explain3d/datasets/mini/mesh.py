"""Triangle meshes with a material and a colour per face, and the primitives all shapes are made of.

Every mesh is in metres, x forward, y left, z up. The winding of faces carries no meaning: the
sensors turn normals towards the ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Colour = Sequence[float]


@dataclass
class Mesh:
    """A triangle soup with surface attributes.

    Attributes:
        vertices: (V, 3) float64, metres.
        faces: (F, 3) int64 indices into ``vertices``.
        material: (F,) uint8, values of `Material`.
        colour: (F, 3) float32 linear RGB, 0..1.
    """

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    colour: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """(3,) length, width, height of the axis-aligned bounds, metres."""
        return self.vertices.max(0) - self.vertices.min(0)

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> Mesh:
        """Returns the mesh under ``rotation @ v + translation``."""
        return Mesh(
            self.vertices @ np.asarray(rotation).T + translation,
            self.faces,
            self.material,
            self.colour,
        )

    def shifted(self, offset: Sequence[float]) -> Mesh:
        """Returns the mesh moved by ``offset`` (3,), metres."""
        return Mesh(self.vertices + np.asarray(offset), self.faces, self.material, self.colour)

    def grounded(self) -> Mesh:
        """Returns the mesh with the bottom centre of its bounds at the origin."""
        low, high = self.vertices.min(0), self.vertices.max(0)
        middle = (low + high) / 2
        return self.shifted((-middle[0], -middle[1], -low[2]))


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """Joins meshes into one, faces in the order given."""
    offsets = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]),
        np.concatenate([m.material for m in meshes]),
        np.concatenate([m.colour for m in meshes]),
    )


def uniform(vertices: np.ndarray, faces: np.ndarray, material: int, colour: Colour) -> Mesh:
    """A mesh of one material and colour."""
    count = len(faces)
    return Mesh(
        vertices,
        faces,
        np.full(count, material, np.uint8),
        np.broadcast_to(np.asarray(colour, np.float32), (count, 3)).copy(),
    )


_BOX_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
_BOX_FACES = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


def box(size: Sequence[float], centre: Sequence[float], material: int, colour: Colour) -> Mesh:
    """An axis-aligned box of ``size`` (3,) about ``centre`` (3,)."""
    vertices = _BOX_CORNERS * np.asarray(size) + np.asarray(centre)
    return uniform(vertices, _BOX_FACES, material, colour)


@lru_cache(maxsize=32)
def _tube_faces(stations: int, points: int) -> np.ndarray:
    """Quads between consecutive rings, two triangles each, then a fan at either end."""
    s, p = np.meshgrid(np.arange(stations - 1), np.arange(points), indexing='ij')
    a, b = s * points + p, s * points + (p + 1) % points
    quads = np.stack([a, b, b + points, a, b + points, a + points], -1).reshape(-1, 3)
    k = np.arange(1, points - 1)
    first = np.stack([np.zeros_like(k), k, k + 1], -1)
    return np.concatenate([quads, first, first + (stations - 1) * points])


def loft(
    rings: np.ndarray,
    material: int,
    colour: Colour,
    quad_material: np.ndarray | None = None,
    quad_colour: np.ndarray | None = None,
) -> Mesh:
    """A closed skin over a row of rings.

    Args:
        rings: (S, P, 3) points; each ring is closed, its points in order.
        material: Material of quads and end caps.
        colour: Colour of quads and end caps.
        quad_material: (S - 1, P) materials that replace ``material`` on the quads.
        quad_colour: (S - 1, P, 3) colours that replace ``colour`` on the quads.
    """
    stations, points = rings.shape[:2]
    mesh = uniform(rings.reshape(-1, 3), _tube_faces(stations, points), material, colour)
    count = 2 * (stations - 1) * points
    if quad_material is not None:
        mesh.material[:count] = np.repeat(quad_material.reshape(-1), 2)
    if quad_colour is not None:
        mesh.colour[:count] = np.repeat(quad_colour.reshape(-1, 3), 2, axis=0)
    return mesh


def _frame(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that complete ``direction`` (3,) to a right-handed frame."""
    helper = np.array([0.0, 0.0, 1.0]) if abs(direction[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    u = np.cross(direction, helper)
    u /= np.linalg.norm(u)
    return u, np.cross(direction, u)


def limb(
    start: Sequence[float],
    end: Sequence[float],
    radius: float,
    end_radius: float,
    material: int,
    colour: Colour,
    sides: int = 8,
) -> Mesh:
    """A tapered cylinder from ``start`` to ``end`` (3,)."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = end - start
    u, v = _frame(axis / np.linalg.norm(axis))
    angle = np.arange(sides) * (2 * np.pi / sides)
    circle = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v
    return loft(np.stack([start + radius * circle, end + end_radius * circle]), material, colour)


@lru_cache(maxsize=8)
def _unit_sphere(rows: int, sides: int) -> np.ndarray:
    polar = np.linspace(-np.pi / 2, np.pi / 2, rows + 2)
    # The poles are tiny rings, so that a sphere is a loft like any other.
    radius = np.maximum(np.cos(polar), 1e-3)
    angle = np.arange(sides) * (2 * np.pi / sides)
    return np.stack(
        [
            radius[:, None] * np.cos(angle),
            radius[:, None] * np.sin(angle),
            np.repeat(np.sin(polar)[:, None], sides, 1),
        ],
        -1,
    )


def ellipsoid(
    centre: Sequence[float],
    radii: Sequence[float],
    material: int,
    colour: Colour,
    detail: int = 5,
    bumps: np.ndarray | None = None,
) -> Mesh:
    """An ellipsoid; ``bumps`` (detail + 2, 2 * detail) scales the radius at each vertex."""
    sphere = _unit_sphere(detail, 2 * detail)
    if bumps is not None:
        sphere = sphere * bumps[..., None]
    return loft(sphere * np.asarray(radii) + np.asarray(centre), material, colour)


def ring(
    centre: Sequence[float], radius: float, width: float, material: int, colour: Colour
) -> Mesh:
    """A wheel's tyre: a thin torus of square section in the x-z plane."""
    angle = np.linspace(0, 2 * np.pi, 17)
    out = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], -1)
    side = np.array([0.0, width / 2, 0.0])
    inner, outer = (radius - width) * out, radius * out
    rings = np.stack([outer - side, outer + side, inner + side, inner - side], 1)
    return loft(rings + np.asarray(centre), material, colour)


def yaw_matrix(yaw: float) -> np.ndarray:
    """(3, 3) rotation by ``yaw`` radians counter-clockwise about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
