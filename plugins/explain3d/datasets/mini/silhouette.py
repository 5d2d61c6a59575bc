"""What of an object a camera sees: its extent in the image and the share that nothing hides."""

from __future__ import annotations

import numpy as np

from .camera import Camera
from .scene import Pose, Snapshot
from .tracing import Tracer

NEAR = 0.1  # metres before the optical centre at which everything is cut


def extent_in_image(alone: Tracer, camera: Camera, world: Pose) -> np.ndarray | None:
    """The 2D box (4,) of the part of a mesh that projects into the image, None if there is none.

    Its extremes are at edges of the mesh, clipped to the view, or at corners of the image.
    """
    points = world.invert(alone.mesh.vertices)
    edges = alone.mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    start, end = _clip_to_view(points[edges[:, 0]], points[edges[:, 1]], camera)
    pixels, _ = camera.project(np.concatenate([start, end]))
    right, bottom = np.array(camera.size, float) - 1
    corners = np.array([[0, 0], [right, 0], [0, bottom], [right, bottom]])
    covered = alone.cast(world.translation, camera.rays(corners, world)).face >= 0
    pixels = np.concatenate([pixels, corners[covered]])
    if not len(pixels):
        return None
    bbox = np.concatenate([pixels.min(0), pixels.max(0)])
    return np.clip(bbox, 0, [right, bottom, right, bottom])


def _clip_to_view(
    start: np.ndarray, end: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Clips segments (N, 3) in the optical frame to the view (Liang-Barsky), drops others."""
    (row_u, row_v, row_z), (width, height) = camera.matrix, camera.size
    planes = np.stack(
        [row_z, row_u, (width - 1) * row_z - row_u, row_v, (height - 1) * row_z - row_v]
    )
    offset = np.array([NEAR, 0, 0, 0, 0])
    before, after = start @ planes.T - offset, end @ planes.T - offset
    with np.errstate(divide='ignore', invalid='ignore'):
        crossing = before / (before - after)
    enter = np.where((before < 0) & (after >= 0), crossing, 0.0).max(1)
    leave = np.where((before >= 0) & (after < 0), crossing, 1.0).min(1)
    kept = (enter <= leave) & ~((before < 0) & (after < 0)).any(1)
    way = (end - start)[kept]
    return start[kept] + enter[kept, None] * way, start[kept] + leave[kept, None] * way


def visible_share(
    alone: Tracer,
    index: int,
    bbox: np.ndarray,
    snapshot: Snapshot,
    tracer: Tracer,
    camera: Camera,
    world: Pose,
    samples: int = 32,
) -> float:
    """Share of an object's silhouette in the image that nothing else hides.

    Args:
        alone: Of the object's mesh.
        index: Of the object in the snapshot.
        bbox: (4,) its extent in the image.
        snapshot: The world.
        tracer: Of ``snapshot.mesh``.
        camera: The camera.
        world: The camera's pose in the world.
        samples: Rays along either side of ``bbox``.
    """
    seen = silhouette(alone, index, bbox, snapshot, tracer, camera, world, samples)
    return float(np.mean(seen)) if len(seen) else 0.0


def silhouette(
    alone: Tracer,
    index: int,
    bbox: np.ndarray,
    snapshot: Snapshot,
    tracer: Tracer,
    camera: Camera,
    world: Pose,
    samples: int,
) -> np.ndarray:
    """(S,) of those of ``samples``² rays in ``bbox`` that meet the object: is it seen?

    Arguments as in `visible_share`.
    """
    steps = (np.arange(samples) + 0.5) / samples
    u, v = np.meshgrid(bbox[0] + steps * (bbox[2] - bbox[0]), bbox[1] + steps * (bbox[3] - bbox[1]))
    direction = camera.rays(np.stack([u, v], -1).reshape(-1, 2), world)
    rays = direction[alone.cast(world.translation, direction).face >= 0]
    face = tracer.cast(world.translation, rays).face
    # A ray through the crack between two triangles may miss the merged mesh: that is not hidden.
    return (face < 0) | (snapshot.face_object[face] == index)
