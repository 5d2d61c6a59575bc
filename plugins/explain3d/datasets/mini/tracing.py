"""Ray casting against a snapshot, on Embree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .mesh import Mesh

_FAR = 1e36  # Embree reports 1e37 for a ray that meets nothing


@dataclass
class Hits:
    """First surface on each ray.

    Attributes:
        distance: (N,) metres along the unit direction, inf where nothing was met.
        face: (N,) face index, -1 where nothing was met.
    """

    distance: np.ndarray
    face: np.ndarray


class Tracer:
    """A mesh made ready for ray casting.

    Args:
        mesh: Surfaces in any frame; rays are given in the same.
    """

    def __init__(self, mesh: Mesh) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise ImportError(
                'The mini world casts its rays with embreex, which is not installed: '
                'run "pip install embreex".'
            ) from error
        self.mesh = mesh
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))
        corners = mesh.vertices[mesh.faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)

    def cast(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        """Casts rays.

        Args:
            origin: (3,) or (N, 3), metres.
            direction: (N, 3) unit vectors.
        """
        origin = np.ascontiguousarray(np.broadcast_to(origin, direction.shape), np.float32)
        result = self._scene.run(origin, np.ascontiguousarray(direction, np.float32), output=1)
        distance = result['tfar'].astype(np.float64)
        distance[distance > _FAR] = np.inf
        return Hits(distance, result['primID'].astype(np.int64))

    def occluded(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) whether anything lies on each ray; arguments as in `cast`."""
        origin = np.ascontiguousarray(np.broadcast_to(origin, direction.shape), np.float32)
        direction = np.ascontiguousarray(direction, np.float32)
        return self._scene.run(origin, direction, query='OCCLUDED') >= 0

    def facing(self, face: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N, 3) normals of ``face`` (N,), turned against ``direction`` (N, 3)."""
        normal = self.normal[face]
        return np.where((normal * direction).sum(1, keepdims=True) > 0, -normal, normal)
