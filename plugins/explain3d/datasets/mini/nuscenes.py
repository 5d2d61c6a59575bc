"""One scene of the mini world in nuScenes's form: readings of all sensors, boxes, table rows.

All sensors measure at the same moment: keyframes every half second, radar sweeps evenly between
them, LiDAR sweeps at some of the moments of radar sweeps. Global coordinates are those of the
scene's own map; x and y are a few hundred metres.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contents import replace_file
from . import nuscenes_files as files
from . import nuscenes_schema as schema
from .drive import random_drive
from .mesh import yaw_matrix
from .replay import Replay
from .rig import CHANNELS, Rig, nuscenes_rig
from .scene import ObjectState, Pose, Scene, Snapshot, inside_box
from .silhouette import extent_in_image, silhouette
from .tracing import Tracer

KEYFRAME_INTERVAL = 0.5  # seconds
_FURTHEST_LABEL = 80.0  # metres from the ego vehicle
_SUFFIX = {'camera': 'jpg', 'lidar': 'pcd.bin', 'radar': 'pcd'}
_FORMAT = {'camera': 'jpg', 'lidar': 'pcd', 'radar': 'pcd'}
_EPOCH = 1_500_000_000_000_000  # microseconds; scenes begin a hundred seconds apart


@dataclass(frozen=True)
class Recipe:
    """What decides the data of a scene, apart from its name.

    Attributes:
        seed: Of all random numbers.
        keyframes: Keyframes a scene.
        radar_sweeps: Radar sweeps before each keyframe.
        lidar_sweeps: LiDAR sweeps before each keyframe, at most as many.
        image_size: (width, height) in pixels.
        image_step: One ray of the pictures per ``image_step`` x ``image_step`` pixels.
    """

    seed: int = 0
    keyframes: int = 8
    radar_sweeps: int = 5
    lidar_sweeps: int = 0
    image_size: tuple[int, int] = (400, 225)
    image_step: int = 1

    def moments(self) -> list[Moment]:
        """When something is measured, in order."""
        parts = self.radar_sweeps + 1
        with_lidar = {
            round(k * parts / (self.lidar_sweeps + 1)) for k in range(1, self.lidar_sweeps + 1)
        }
        return [
            Moment(KEYFRAME_INTERVAL * (k - 1 + part / parts), k, part == parts, part in with_lidar)
            for k in range(self.keyframes)
            for part in range(1, parts + 1)
        ]


@dataclass(frozen=True)
class Moment:
    """One moment of a scene.

    Attributes:
        time: Seconds after the first keyframe.
        keyframe: Number of the keyframe that is the next one, or this one.
        is_key: Whether it is a keyframe.
        lidar: Whether the LiDAR measures, on other moments than keyframes.
    """

    time: float
    keyframe: int
    is_key: bool
    lidar: bool


@dataclass
class Sighting:
    """An object at a keyframe.

    Attributes:
        centre: (3,) of its box in the map frame, metres.
        yaw: About z in the map frame, radians.
        lidar: LiDAR points in the box.
        radar: Radar detections over its footprint, those the devkit's standard filters keep.
        visible: Share of its silhouette in the six pictures that nothing else hides.
        near: Whether it is near enough to be labelled.
    """

    centre: np.ndarray
    yaw: float
    lidar: int
    radar: int
    visible: float
    near: bool

    @property
    def seen(self) -> bool:
        """Whether LiDAR or radar have seen it, which is what nuScenes asks for."""
        return self.near and self.lidar + self.radar > 0


def scene_world(name: str, recipe: Recipe) -> tuple[Scene, Pose]:
    """The scene called ``name``, and the pose of its world frame in the map frame."""
    number, moments = int(name.removeprefix('scene-')), recipe.moments()
    scene = random_drive(
        np.random.default_rng([recipe.seed, number, 0]), moments[0].time, moments[-1].time
    )
    turn = yaw_matrix(np.random.default_rng([recipe.seed, number, 1]).uniform(-np.pi, np.pi))
    half_way = np.array([scene.ego.speed * moments[-1].time / 2, 0, 0])
    middle = np.array([files.MAP_SIZE / 2, files.MAP_SIZE / 2, 0])
    return scene, Pose(turn, middle - turn @ half_way)


def make_scene(root: Path, name: str, split: str, recipe: Recipe) -> None:
    """Simulates one scene: writes its sensor files, then its table rows.

    Args:
        root: Folder of the data set.
        name: Scene name; with ``recipe`` it decides everything.
        split: ``train``, ``val`` or ``test``; there are no boxes in the last.
        recipe: What to make.
    """
    maker = _SceneMaker(Path(root), name, recipe)
    maker.run()
    tables = maker.tables(with_boxes=split != 'test')
    rows = rows_file(root, name)
    rows.parent.mkdir(exist_ok=True)
    replace_file(rows, lambda path: path.write_text(json.dumps(tables)))


def rows_file(root: Path, name: str) -> Path:
    """Where a scene's table rows are kept; it is there when the scene is complete."""
    return Path(root) / 'mini_scenes' / f'{name}.json'


class _SceneMaker:
    """Takes the readings of one scene, moment by moment, and keeps its table rows."""

    def __init__(self, root: Path, name: str, recipe: Recipe) -> None:
        self.root, self.name, self.recipe = root, name, recipe
        self.number = int(name.removeprefix('scene-'))
        self.scene, self.map_pose = scene_world(name, recipe)
        self.rig: Rig = nuscenes_rig(recipe.image_size)
        self.rows: dict[str, list[dict]] = {'sample_data': [], 'ego_pose': []}
        self.sightings: list[list[Sighting]] = []  # per keyframe, per actor
        self.log = f'mini-{self.number:04d}'
        replay = Replay(self.scene)
        # Limbs swing, boxes do not: the largest extent of all keyframes.
        times = [m.time for m in recipe.moments() if m.is_key]
        self.sizes = np.max([[o.size for o in replay.objects(t)] for t in times], 0)
        self.replay = replay

    def token(self, *parts: object) -> str:
        """A token of this scene."""
        return schema.token(self.recipe.seed, self.name, *parts)

    def timestamp(self, time: float) -> int:
        """Microseconds of a moment."""
        return _EPOCH + 100_000_000 * self.number + round(1e6 * time)

    def run(self) -> None:
        """Takes all readings."""
        for channel in CHANNELS:
            for kind in ('samples', 'sweeps'):
                (self.root / kind / channel).mkdir(parents=True, exist_ok=True)
        (self.root / 'maps').mkdir(exist_ok=True)
        files.write_map(self.root / self._map_file(), self.scene.ground, self.map_pose)
        for index, moment in enumerate(self.recipe.moments()):
            snapshot, tracer = self.replay.at(moment.time)
            ego = self.map_pose.compose(snapshot.ego)
            radar = self._radars(index, moment, snapshot, tracer, ego)
            if not (moment.is_key or moment.lidar):
                continue
            lidar = self._lidar(index, moment, snapshot, tracer, ego)
            if moment.is_key:
                self._cameras(index, moment, snapshot, tracer, ego)
                self.sightings.append(self._sightings(snapshot, tracer, ego, lidar, radar))

    # ---- sensors -------------------------------------------------------------------------

    def _rng(self, index: int, channel: str) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, self.number, 2, index, _ORDER[channel]])

    def _radars(self, index, moment, snapshot, tracer, ego: Pose) -> np.ndarray:
        """(N, 2) places in the map frame of the detections that the standard filters keep."""
        motion, places = self.scene.ego, []
        for channel, radar in self.rig.radars.items():
            rng = self._rng(index, channel)
            own = radar.sensor_velocity(snapshot, motion.speed, motion.turn_rate)
            records = files.radar_records(radar.scan(tracer, snapshot, own, rng), rng)
            files.write_radar(self._add(channel, index, moment, ego), records)
            kept = records[files.kept_by_default(records)]
            local = np.stack([kept['x'], kept['y'], kept['z']], -1).astype(np.float64)
            places.append(ego.compose(radar.pose).apply(local)[:, :2])
        return np.concatenate(places)

    def _lidar(self, index, moment, snapshot, tracer, ego: Pose) -> np.ndarray:
        """(N, 3) points in the map frame."""
        sweep = self.rig.lidar.scan(tracer, snapshot, self._rng(index, 'LIDAR_TOP'))
        points = files.lidar_points(sweep)
        files.write_lidar(self._add('LIDAR_TOP', index, moment, ego), points)
        return ego.compose(self.rig.lidar.pose).apply(points[:, :3].astype(np.float64))

    def _cameras(self, index, moment, snapshot, tracer, ego: Pose) -> None:
        for channel, camera in self.rig.cameras.items():
            picture = camera.render(tracer, snapshot, self.recipe.image_step)
            files.write_picture(self._add(channel, index, moment, ego), picture)

    def _add(self, channel: str, index: int, moment: Moment, ego: Pose) -> Path:
        """Adds the table rows of one reading; returns the path of its file."""
        kind, stamp = schema.modality(channel), self.timestamp(moment.time)
        folder = 'samples' if moment.is_key else 'sweeps'
        name = f'{folder}/{channel}/{self.log}__{channel}__{stamp}.{_SUFFIX[kind]}'
        token = self.token('sample_data', channel, index)
        width, height = self.recipe.image_size if kind == 'camera' else (0, 0)
        self.rows['sample_data'].append(
            {
                'token': token,
                'sample_token': self.token('sample', moment.keyframe),
                'ego_pose_token': token,
                'calibrated_sensor_token': self.token('calibrated_sensor', channel),
                'timestamp': stamp,
                'fileformat': _FORMAT[kind],
                'is_key_frame': moment.is_key,
                'height': height,
                'width': width,
                'filename': name,
                'prev': '',
                'next': '',
                'channel': channel,  # only to link the rows; not part of the schema
            }
        )
        self.rows['ego_pose'].append({'token': token, 'timestamp': stamp, **_pose_fields(ego)})
        return self.root / name

    def _map_file(self) -> str:
        return f'maps/{self.token("map")}.png'

    # ---- labels --------------------------------------------------------------------------

    def _sightings(self, snapshot, tracer, ego: Pose, lidar, radar) -> list[Sighting]:
        cameras = [(c, c.world_pose(snapshot)) for c in self.rig.cameras.values()]
        out = []
        for index, (state, size) in enumerate(zip(snapshot.objects, self.sizes, strict=True)):
            pose = self.map_pose.compose(state.pose)
            centre = pose.apply(np.array([[0, 0, size[2] / 2]]))[0]
            yaw = float(np.arctan2(pose.rotation[1, 0], pose.rotation[0, 0]))
            near = bool(np.hypot(*(centre - ego.translation)[:2]) < _FURTHEST_LABEL)
            out.append(
                Sighting(
                    centre,
                    yaw,
                    int(inside_box(lidar, centre, yaw, size).sum()),
                    int(inside_box(radar, centre[:2], yaw, size[:2]).sum()),
                    visible_share(index, state, snapshot, tracer, cameras) if near else 0.0,
                    near,
                )
            )
        return out

    # ---- tables --------------------------------------------------------------------------

    def tables(self, with_boxes: bool) -> dict[str, list[dict]]:
        """The rows of the scene in all tables that are not the same for every scene."""
        data = self.rows['sample_data']
        for channel in CHANNELS:
            _link([row for row in data if row['channel'] == channel])
        count, speed = self.recipe.keyframes, self.scene.ego.speed
        samples = [
            {
                'token': self.token('sample', k),
                'timestamp': self.timestamp(KEYFRAME_INTERVAL * k),
                'prev': '',
                'next': '',
                'scene_token': self.token('scene'),
            }
            for k in range(count)
        ]
        _link(samples)
        instances, annotations = self._annotations() if with_boxes else ([], [])
        return {
            'log': [
                {
                    'token': self.token('log'),
                    'logfile': self.log,
                    'vehicle': 'mini',
                    'date_captured': '2017-07-14',
                    'location': 'mini-world',
                }
            ],
            'map': [
                {
                    'token': self.token('map'),
                    'log_tokens': [self.token('log')],
                    'category': 'semantic_prior',
                    'filename': self._map_file(),
                }
            ],
            'scene': [
                {
                    'token': self.token('scene'),
                    'log_token': self.token('log'),
                    'nbr_samples': count,
                    'first_sample_token': samples[0]['token'],
                    'last_sample_token': samples[-1]['token'],
                    'name': self.name,
                    'description': f'Simulated street, ego vehicle at {speed:.1f} m/s',
                }
            ],
            'sample': samples,
            'sample_data': [{k: v for k, v in row.items() if k != 'channel'} for row in data],
            'ego_pose': self.rows['ego_pose'],
            'calibrated_sensor': [self._calibration(channel) for channel in CHANNELS],
            'instance': instances,
            'sample_annotation': annotations,
        }

    def _calibration(self, channel: str) -> dict:
        camera = self.rig.cameras.get(channel)
        return {
            'token': self.token('calibrated_sensor', channel),
            'sensor_token': schema.token('sensor', channel),
            **_pose_fields(self.rig.pose(channel)),
            'camera_intrinsic': camera.matrix.tolist() if camera else [],
        }

    def _annotations(self) -> tuple[list[dict], list[dict]]:
        """Rows of the tables instance and sample_annotation.

        An object has a box at every keyframe from the first to the last one that has seen it.
        """
        instances, annotations = [], []
        for index in range(len(self.scene.actors)):
            seen = [k for k, row in enumerate(self.sightings) if row[index].seen]
            if not seen:
                continue
            chain = [self._annotation(index, k) for k in range(seen[0], seen[-1] + 1)]
            _link(chain)
            annotations += chain
            category = schema.category(self.scene.actors[index].label, self.sizes[index][2])
            instances.append(
                {
                    'token': self.token('instance', index),
                    'category_token': schema.category_token(category),
                    'nbr_annotations': len(chain),
                    'first_annotation_token': chain[0]['token'],
                    'last_annotation_token': chain[-1]['token'],
                }
            )
        return instances, annotations

    def _annotation(self, index: int, keyframe: int) -> dict:
        actor, sighting = self.scene.actors[index], self.sightings[keyframe][index]
        length, width, height = self.sizes[index].tolist()
        moving = actor.motion.speed > 0
        return {
            'token': self.token('annotation', index, keyframe),
            'sample_token': self.token('sample', keyframe),
            'instance_token': self.token('instance', index),
            'visibility_token': schema.visibility_token(sighting.visible),
            'attribute_tokens': [schema.attribute_token(actor.label, moving, actor.parked)],
            'translation': sighting.centre.tolist(),
            'size': [width, length, height],
            'rotation': schema.quaternion(yaw_matrix(sighting.yaw)),
            'prev': '',
            'next': '',
            'num_lidar_pts': sighting.lidar,
            'num_radar_pts': sighting.radar,
        }


_ORDER = {channel: k for k, channel in enumerate(CHANNELS)}


def visible_share(
    index: int, state: ObjectState, snapshot: Snapshot, tracer: Tracer, cameras, samples: int = 20
) -> float:
    """Share of an object's silhouette in all pictures that nothing else hides.

    Args:
        index: Of the object in the snapshot.
        state: The object.
        snapshot: The world.
        tracer: Of ``snapshot.mesh``.
        cameras: Pairs of a camera and its pose in the world.
        samples: Rays along either side of the 2D box.
    """
    alone, seen, whole = None, 0.0, 0.0
    for camera, world in cameras:
        local = world.invert(state.pose.translation[None])[0]
        # Half the diagonal of the view is below 60 degrees; the object reaches further.
        if local[2] < 0.5 * np.linalg.norm(local) - 1.5 * np.linalg.norm(state.size):
            continue
        alone = alone or Tracer(state.mesh)
        box = extent_in_image(alone, camera, world)
        if box is None or min(box[2] - box[0], box[3] - box[1]) < 0.5:
            continue
        hits = silhouette(alone, index, box, snapshot, tracer, camera, world, samples)
        area = (box[2] - box[0]) * (box[3] - box[1])
        seen, whole = seen + area * hits.sum(), whole + area * len(hits)
    return float(seen / whole) if whole else 0.0


def _pose_fields(pose: Pose) -> dict:
    return {
        'translation': pose.translation.tolist(),
        'rotation': schema.quaternion(pose.rotation),
    }


def _link(rows: list[dict]) -> None:
    """Sets ``prev`` and ``next`` of rows in order."""
    for before, after in zip(rows[:-1], rows[1:], strict=True):
        before['next'], after['prev'] = after['token'], before['token']
