"""What exists and how it moves: poses, actors and the scene that sensors look at.

The world frame has x along the street, y left, z up, metres. The ego frame is the same in the
vehicle: origin on the ground below its LiDAR. Nothing here knows of a sensor or a file format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .ground import Ground
from .mesh import Mesh, merge

STATIC = -1  # object index of faces that belong to no actor


@dataclass
class Pose:
    """A rigid motion: ``rotation @ p + translation`` takes local points to the parent frame."""

    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def identity(cls) -> Pose:
        """The pose that changes nothing."""
        return cls(np.eye(3), np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Takes points (N, 3) from the local to the parent frame."""
        return points @ self.rotation.T + self.translation

    def invert(self, points: np.ndarray) -> np.ndarray:
        """Takes points (N, 3) from the parent to the local frame."""
        return (points - self.translation) @ self.rotation

    def compose(self, inner: Pose) -> Pose:
        """The pose of ``inner``, given in this pose's local frame, in this pose's parent."""
        return Pose(self.rotation @ inner.rotation, self.apply(inner.translation[None])[0])


@dataclass
class Motion:
    """Constant speed and turn rate from a start on the plane.

    Attributes:
        x, y: Position at time 0, metres.
        yaw: Heading at time 0, radians counter-clockwise about z from x.
        speed: Metres per second along the heading.
        turn_rate: Radians per second.
    """

    x: float
    y: float
    yaw: float
    speed: float = 0.0
    turn_rate: float = 0.0

    def at(self, t: float) -> tuple[float, float, float]:
        """(x, y, yaw) after ``t`` seconds."""
        yaw = self.yaw + self.turn_rate * t
        if abs(self.turn_rate) < 1e-9:
            run = self.speed * t
            return self.x + run * np.cos(yaw), self.y + run * np.sin(yaw), yaw
        radius = self.speed / self.turn_rate
        return (
            self.x + radius * (np.sin(yaw) - np.sin(self.yaw)),
            self.y - radius * (np.cos(yaw) - np.cos(self.yaw)),
            yaw,
        )


@dataclass
class Actor:
    """An object that may move.

    Attributes:
        label: Class name in KITTI's words.
        motion: Where it is and where it goes.
        shape: Time in seconds -> mesh in its own frame (x forward, bottom centre at the origin).
        upright: Whether it stays vertical on a slope (people) or follows it (vehicles).
        parked: Whether it is a vehicle that was left, unlike one that waits.
    """

    label: str
    motion: Motion
    shape: Callable[[float], Mesh]
    upright: bool = False
    parked: bool = False


@dataclass
class ObjectState:
    """An actor at one moment.

    Attributes:
        label: Class name.
        pose: Object frame (bottom centre) in the world.
        size: (3,) length, width, height, metres: the bounds of its mesh.
        velocity: (3,) metres per second in the world.
        mesh: Its surface in the world.
    """

    label: str
    pose: Pose
    size: np.ndarray
    velocity: np.ndarray
    mesh: Mesh

    def box_in(self, frame: Pose) -> np.ndarray:
        """(7,) x, y, z (geometric centre), l, w, h, yaw in the frame with pose ``frame``."""
        centre = self.pose.apply(np.array([[0, 0, self.size[2] / 2]]))
        ahead = frame.rotation.T @ self.pose.rotation[:, 0]
        yaw = np.arctan2(ahead[1], ahead[0])
        return np.concatenate([frame.invert(centre)[0], self.size, [yaw]])


@dataclass
class Snapshot:
    """The world at one moment, as sensors see it.

    Attributes:
        mesh: All surfaces in the world frame.
        face_object: (F,) index into ``objects``, `STATIC` for scenery.
        objects: The actors' states.
        ego: Pose of the ego frame in the world.
        sun: (3,) unit vector towards the sun.
    """

    mesh: Mesh
    face_object: np.ndarray
    objects: list[ObjectState]
    ego: Pose
    sun: np.ndarray


def inside_box(points: np.ndarray, centre: np.ndarray, yaw: float, size: np.ndarray) -> np.ndarray:
    """Whether points near a box lie in it.

    Args:
        points: (N, 3), or (N, 2) for a footprint.
        centre: (3,) or (2,) of the box, in the same frame.
        yaw: About z, radians.
        size: (3,) or (2,) length, width, height.

    Returns:
        (M,) of those points whose x and y are less than a footprint's diagonal away.
    """
    offset = points - centre
    offset = offset[(np.abs(offset[:, :2]) <= np.hypot(size[0], size[1])).all(1)]
    c, s = np.cos(yaw), np.sin(yaw)
    offset[:, :2] = offset[:, :2] @ np.array([[c, -s], [s, c]])
    return (np.abs(offset) <= size / 2).all(1)


def rest_pose(ground: Ground, x: float, y: float, yaw: float, size, upright: bool) -> Pose:
    """Pose of an object whose footprint of length and width ``size`` rests on the ground."""
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    left = np.array([-ahead[1], ahead[0]])
    # Contact is near the wheels, not at the bumpers.
    run, span = 0.6 * size[0], 0.8 * size[1]
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    feet = np.array([x, y]) + signs[:, :1] * run / 2 * ahead + signs[:, 1:] * span / 2 * left
    z = ground.height(feet[:, 0], feet[:, 1])
    up = np.array([0.0, 0.0, 1.0])
    forward = np.array([*ahead, 0.0])
    if not upright:
        forward = np.array([*ahead, (z[0] + z[1] - z[2] - z[3]) / 2 / run])
        forward /= np.linalg.norm(forward)
        sideways = np.array([*left, (z[0] + z[2] - z[1] - z[3]) / 2 / span])
        up = np.cross(forward, sideways)
        up /= np.linalg.norm(up)
    rotation = np.stack([forward, np.cross(up, forward), up], 1)
    return Pose(rotation, np.array([x, y, z.mean()]))


@dataclass
class Scene:
    """A piece of street with everything in it.

    Attributes:
        ground: The height field that objects stand on.
        scenery: Everything that never moves, in the world frame, the ground included.
        actors: Labelled objects.
        ego: Motion of the ego vehicle.
        sun: (3,) unit vector towards the sun.
        ego_size: Length and width of the ego vehicle, metres.
    """

    ground: Ground
    scenery: Mesh
    actors: list[Actor]
    ego: Motion
    sun: np.ndarray
    ego_size: tuple[float, float] = (4.2, 1.8)

    def at(self, t: float) -> Snapshot:
        """The scene ``t`` seconds after its start."""
        objects = [self.state(actor, t) for actor in self.actors]
        meshes = [self.scenery, *(o.mesh for o in objects)]
        counts = [len(m.faces) for m in meshes]
        ego_pose = rest_pose(self.ground, *self.ego.at(t), self.ego_size, upright=False)
        return Snapshot(
            merge(meshes),
            np.repeat(np.arange(STATIC, len(objects)), counts),
            objects,
            ego_pose,
            self.sun,
        )

    def state(self, actor: Actor, t: float) -> ObjectState:
        """One actor ``t`` seconds after the scene's start."""
        mesh = actor.shape(t)
        size = mesh.extent
        pose = rest_pose(self.ground, *actor.motion.at(t), size, actor.upright)
        velocity = actor.motion.speed * pose.rotation[:, 0]
        return ObjectState(
            actor.label, pose, size, velocity, mesh.moved(pose.rotation, pose.translation)
        )
