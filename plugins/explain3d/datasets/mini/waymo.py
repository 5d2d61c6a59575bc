"""One segment of the mini world in Waymo's terms: sweeps of the roof LiDAR, boxes, ego poses.

Nothing here knows a host's files: `waymo_pcdet` and `waymo_mmdet3d` write those. All sensors
measure at the same moment, ten times a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from .drive import random_drive
from .mesh import yaw_matrix
from .replay import Replay
from .scene import ObjectState, Pose, Scene, Snapshot, inside_box
from .waymo_rig import cameras, elongation, top_lidar

FRAME_INTERVAL = 0.1  # seconds
SPLITS = ('train', 'val')
VEHICLE, PEDESTRIAN, CYCLIST = 'Vehicle', 'Pedestrian', 'Cyclist'
_KIND = {
    'Car': VEHICLE, 'Van': VEHICLE, 'Truck': VEHICLE, 'Bus': VEHICLE,
    'Pedestrian': PEDESTRIAN, 'Cyclist': CYCLIST,
}  # fmt: skip
_FURTHEST_LABEL = 80.0  # metres from the ego vehicle
_EPOCH = 1_550_000_000_000_000  # microseconds; segments begin a hundred seconds apart
_FEW_POINTS = 5  # up to so many points a box is of LEVEL_2


@dataclass(frozen=True)
class Recipe:
    """What decides the data of a segment, apart from its split and number.

    Attributes:
        seed: Of all random numbers.
        frames: Frames a segment, a tenth of a second apart.
        columns: Firings per turn of the LiDAR; Waymo's has 2650.
        images: Whether the five cameras take pictures.
        image_size: (width, height) in pixels.
    """

    seed: int = 0
    frames: int = 10
    columns: int = 1325
    images: bool = False
    image_size: tuple[int, int] = (480, 320)


@dataclass(frozen=True)
class SegmentId:
    """Which segment.

    Attributes:
        split: ``train`` or ``val``.
        number: In the split, from 0.
    """

    split: str
    number: int

    @property
    def context(self) -> str:
        """Waymo's ``context.name``; with the seed it decides what is in the segment."""
        return f'{1 + SPLITS.index(self.split):02d}{self.number:018d}_0000_000_0020_000'

    @property
    def name(self) -> str:
        """Name of the segment's file, without its suffix."""
        return f'segment-{self.context}_with_camera_labels'

    def key(self, seed: int) -> list[int]:
        """Seeds a generator for this segment."""
        return [seed, SPLITS.index(self.split), self.number]


@dataclass
class Reading:
    """What the sensors measure at one frame, in the vehicle frame.

    Attributes:
        points: (N, 5) float32 x, y, z in metres, intensity before the hosts' tanh, elongation.
        cell: (N,) place in the range image: row * columns + column, the top row first.
        pictures: (H, W, 3) uint8 by camera name; empty if there are none.
    """

    points: np.ndarray
    cell: np.ndarray
    pictures: dict[str, np.ndarray]


@dataclass
class Box:
    """A labelled object at one frame.

    Attributes:
        kind: ``Vehicle``, ``Pedestrian`` or ``Cyclist``.
        id: Of the object, the same in all frames of the segment.
        box: x, y, z (geometric centre), l, w, h, yaw in the vehicle frame.
        points: LiDAR points in the box.
        speed: x, y over ground in the global frame, metres per second.
        acceleration: The same, per second.
    """

    kind: str
    id: str
    box: list[float]
    points: int
    speed: list[float]
    acceleration: list[float]

    @property
    def difficulty(self) -> int:
        """Waymo's level: 2 for at most five points, else 1."""
        return 2 if self.points <= _FEW_POINTS else 1


@dataclass
class FrameRecord:
    """The labels of one frame.

    Attributes:
        timestamp: Microseconds.
        pose: 4 x 4, vehicle to global frame.
        points: LiDAR points in all.
        boxes: Labelled objects.
    """

    timestamp: int
    pose: list[list[float]]
    points: int
    boxes: list[Box]

    @classmethod
    def load(cls, values: dict) -> FrameRecord:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**values | {'boxes': [Box(**box) for box in values['boxes']]})

    def dump(self) -> dict:
        """As a dictionary of plain values."""
        return asdict(self)


def segment_world(segment: SegmentId, recipe: Recipe) -> tuple[Scene, Pose]:
    """The scene of a segment, and the pose of its world frame in the global frame."""
    key, end = segment.key(recipe.seed), FRAME_INTERVAL * (recipe.frames - 1)
    scene = random_drive(np.random.default_rng([*key, 0]), 0.0, end)
    rng = np.random.default_rng([*key, 1])
    turn = yaw_matrix(rng.uniform(-np.pi, np.pi))
    return scene, Pose(turn, np.array([*rng.uniform(-1000, 1000, 2), rng.uniform(-50, 50)]))


class Segment:
    """Takes the readings of one segment.

    Args:
        segment: Which one.
        recipe: What to make.
    """

    def __init__(self, segment: SegmentId, recipe: Recipe) -> None:
        self.segment, self.recipe = segment, recipe
        self.scene, self.map_pose = segment_world(segment, recipe)
        self._replay = Replay(self.scene)
        # Limbs swing, boxes do not: the largest extent of all frames.
        times = [FRAME_INTERVAL * k for k in range(recipe.frames)]
        sizes = [[o.size for o in self._replay.objects(t)] for t in times]
        self._sizes = np.max(np.array(sizes).reshape(len(times), -1, 3), 0)
        self._records: list[FrameRecord] = []

    def readings(self) -> Iterator[Reading]:
        """Takes one frame after the other; `records` is complete when all are taken."""
        lidar = top_lidar(self.recipe.columns)
        for frame in range(self.recipe.frames):
            snapshot, tracer = self._replay.at(FRAME_INTERVAL * frame)
            rng = np.random.default_rng([*self.segment.key(self.recipe.seed), 2, frame])
            sweep = lidar.scan(tracer, snapshot, rng)
            xyz = lidar.pose.apply(sweep.points[:, :3].astype(np.float64))
            # The hosts take the tanh of Waymo's intensity: of this they get the mini world's.
            intensity = np.arctanh(sweep.points[:, 3].astype(np.float64))
            points = np.column_stack([xyz, intensity, elongation(sweep, rng)]).astype('<f4')
            pictures = {}
            if self.recipe.images:
                rig = cameras(self.recipe.image_size)
                pictures = {name: c.render(tracer, snapshot) for name, c in rig.items()}
            self._records.append(self._label(frame, snapshot, points))
            yield Reading(points, sweep.beam * lidar.columns + sweep.column, pictures)

    def records(self) -> list[FrameRecord]:
        """The labels of all frames.

        An object has a box at every frame from the first to the last at which it has a point.
        """
        seen: dict[str, list[int]] = {}
        for frame, record in enumerate(self._records):
            for box in record.boxes:
                if box.points:
                    seen.setdefault(box.id, []).append(frame)
        return [
            replace(
                record,
                boxes=[
                    b for b in record.boxes if b.id in seen and seen[b.id][0] <= k <= seen[b.id][-1]
                ],
            )
            for k, record in enumerate(self._records)
        ]

    def _label(self, frame: int, snapshot: Snapshot, points: np.ndarray) -> FrameRecord:
        """All objects that are near enough, seen or not."""
        ego = self.map_pose.compose(snapshot.ego)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = ego.rotation, ego.translation
        xyz, boxes = points[:, :3].astype(np.float64), []
        for index, (state, size) in enumerate(zip(snapshot.objects, self._sizes, strict=True)):
            box = replace(state, size=size).box_in(snapshot.ego)
            if np.hypot(*box[:2]) < _FURTHEST_LABEL:
                boxes.append(self._box(index, state, box, xyz))
        start = _EPOCH + 100_000_000 * (
            1000 * SPLITS.index(self.segment.split) + self.segment.number
        )
        stamp = start + round(1e6 * FRAME_INTERVAL * frame)
        return FrameRecord(stamp, pose.tolist(), len(points), boxes)

    def _box(self, index: int, state: ObjectState, box: np.ndarray, xyz: np.ndarray) -> Box:
        motion = self.scene.actors[index].motion
        speed = (self.map_pose.rotation @ state.velocity)[:2]
        # Constant speed along a circle: a = turn rate x v.
        acceleration = motion.turn_rate * np.array([-speed[1], speed[0]])
        held = inside_box(xyz, box[:3], box[6], box[3:6])
        return Box(
            _KIND[state.label],
            f'{self.segment.context}-{index:04d}',
            box.tolist(),
            int(held.sum()),
            speed.tolist(),
            (acceleration + 0.0).tolist(),
        )
