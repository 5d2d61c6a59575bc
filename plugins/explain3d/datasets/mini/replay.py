"""A scene over time: what stands is made ready for ray casting once, what moves at each moment."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, merge
from .scene import STATIC, ObjectState, Scene, Snapshot, rest_pose
from .tracing import Hits, Tracer


class LayeredTracer(Tracer):
    """Two meshes that are cast against as one; the first keeps its tracer.

    Args:
        base: Tracer of the mesh whose faces come first.
        mesh: Both meshes, merged.
    """

    def __init__(self, base: Tracer, mesh: Mesh) -> None:
        first, corners = len(base.mesh.faces), len(base.mesh.vertices)
        self._first, self._base = first, base
        self._top = None
        self.mesh, self.normal = mesh, base.normal
        if len(mesh.faces) > first:
            moving = Mesh(
                mesh.vertices[corners:], mesh.faces[first:] - corners,
                mesh.material[first:], mesh.colour[first:],
            )  # fmt: skip
            self._top = Tracer(moving)
            self.normal = np.concatenate([base.normal, self._top.normal])

    def cast(self, origin: np.ndarray, direction: np.ndarray) -> Hits:
        """Casts rays; see `Tracer.cast`."""
        below = self._base.cast(origin, direction)
        if self._top is None:
            return below
        above = self._top.cast(origin, direction)
        nearer = above.distance < below.distance
        return Hits(
            np.where(nearer, above.distance, below.distance),
            np.where(nearer, above.face + self._first, below.face),
        )

    def occluded(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """(N,) whether anything lies on each ray; see `Tracer.occluded`."""
        blocked = self._base.occluded(origin, direction)
        if self._top is not None:
            origin = np.broadcast_to(origin, direction.shape)
            blocked[~blocked] = self._top.occluded(origin[~blocked], direction[~blocked])
        return blocked


class Replay:
    """Snapshots of a scene at many moments, each with its tracer.

    The faces are in another order than those of `Scene.at`: first all that stands.

    Args:
        scene: The scene.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        standing = [i for i, actor in enumerate(scene.actors) if actor.motion.speed == 0]
        self._moving = [i for i in range(len(scene.actors)) if i not in set(standing)]
        self._states = {i: scene.state(scene.actors[i], 0.0) for i in standing}
        meshes = [scene.scenery, *(self._states[i].mesh for i in standing)]
        self._base = Tracer(merge(meshes))
        self._owner = np.repeat([STATIC, *standing], [len(m.faces) for m in meshes])

    def objects(self, t: float) -> list[ObjectState]:
        """The actors' states ``t`` seconds after the scene's start."""
        scene = self.scene
        states = self._states | {i: scene.state(scene.actors[i], t) for i in self._moving}
        return [states[i] for i in range(len(scene.actors))]

    def at(self, t: float) -> tuple[Snapshot, Tracer]:
        """The scene ``t`` seconds after its start, and a tracer of it."""
        scene, states = self.scene, self.objects(t)
        meshes = [self._base.mesh, *(states[i].mesh for i in self._moving)]
        owner = np.repeat(self._moving, [len(m.faces) for m in meshes[1:]]).astype(int)
        ego = rest_pose(scene.ground, *scene.ego.at(t), scene.ego_size, upright=False)
        snapshot = Snapshot(
            merge(meshes),
            np.concatenate([self._owner, owner]),
            states,
            ego,
            scene.sun,
        )
        return snapshot, LayeredTracer(self._base, snapshot.mesh)
