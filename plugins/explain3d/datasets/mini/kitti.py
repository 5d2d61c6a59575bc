"""One frame of the mini world in the KITTI object format: sensors, labels, files.

KITTI's rectified camera frame has x right, y down, z forward; boxes stand on their bottom centre
and turn about y. The LiDAR frame has x forward, y left, z up, 1.73 m above the ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contents import replace_file
from .camera import Camera
from .lidar import Lidar
from .scene import ObjectState, Pose, Snapshot
from .silhouette import NEAR, extent_in_image, visible_share
from .street import random_street
from .tracing import Tracer

LIDAR_HEIGHT = 1.73
IMAGE_SIZE = (1242, 375)
_FOCAL, _CENTRE = 720.0, (620.0, 180.0)
# Offsets of cameras 0 to 3 along x of the rectified frame, metres.
_CAMERA_X = (0.0, 0.54, -0.0625, 0.475)
_FURTHEST_LABEL = 85.0
# Visible shares above which an object counts as fully visible, partly and largely occluded.
_OCCLUSION_SHARES = (0.80, 0.45, 0.05)


@dataclass(frozen=True)
class Calibration:
    """KITTI's calibration of one frame.

    Attributes:
        projections: (4, 3, 4) P0 to P3: rectified frame to pixels.
        rectification: (3, 3) R0_rect.
        velo_to_cam: (3, 4) LiDAR frame to the unrectified camera frame.
        imu_to_velo: (3, 4) IMU frame to the LiDAR frame.
    """

    projections: np.ndarray
    rectification: np.ndarray
    velo_to_cam: np.ndarray
    imu_to_velo: np.ndarray

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Takes points (N, 3) from the LiDAR to the rectified camera frame."""
        moved = points @ self.velo_to_cam[:, :3].T + self.velo_to_cam[:, 3]
        return moved @ self.rectification.T

    def project(self, camera_points: np.ndarray) -> np.ndarray:
        """(N, 3) u, v and depth in image 2 of points (N, 3) in the rectified frame."""
        p2 = self.projections[2]
        image = camera_points @ p2[:, :3].T + p2[:, 3]
        return np.concatenate([image[:, :2] / image[:, 2:], image[:, 2:]], 1)

    def text(self) -> str:
        """The calibration as KITTI writes it."""
        rows = [(f'P{i}', p) for i, p in enumerate(self.projections)]
        rows += [
            ('R0_rect', self.rectification),
            ('Tr_velo_to_cam', self.velo_to_cam),
            ('Tr_imu_to_velo', self.imu_to_velo),
        ]
        lines = [f'{name}: ' + ' '.join(f'{v:.12e}' for v in value.ravel()) for name, value in rows]
        return '\n'.join(lines) + '\n\n'


def calibration() -> Calibration:
    """The mini world's one calibration: round numbers close to KITTI's."""
    matrix = np.array([[_FOCAL, 0, _CENTRE[0]], [0, _FOCAL, _CENTRE[1]], [0, 0, 1.0]])
    projections = np.stack(
        [np.concatenate([matrix, [[-_FOCAL * x], [0], [0]]], 1) for x in _CAMERA_X]
    )
    axes = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0.0]])
    return Calibration(
        projections + 0.0,  # no negative zeros in the files
        np.eye(3),
        np.concatenate([axes, [[0.0], [-0.08], [-0.27]]], 1),
        np.concatenate([np.eye(3), [[-0.81], [0.32], [-0.80]]], 1),
    )


def sensors(calib: Calibration) -> tuple[Lidar, Camera]:
    """The LiDAR on the ego vehicle's roof and camera 2, placed as ``calib`` says."""
    lidar = Lidar(Pose(np.eye(3), np.array([0.0, 0.0, LIDAR_HEIGHT])))
    p2 = calib.projections[2]
    rotation = (calib.rectification @ calib.velo_to_cam[:, :3]).T
    origin = -calib.rectification @ calib.velo_to_cam[:, 3] - np.linalg.inv(p2[:, :3]) @ p2[:, 3]
    in_lidar = Pose(rotation, rotation @ origin)
    return lidar, Camera(p2[:, :3], IMAGE_SIZE, lidar.pose.compose(in_lidar))


@dataclass
class Label:
    """One line of label_2; see the module's note on the frame.

    Attributes:
        type: Class name.
        truncated: Share of the object outside the image, 0..1; -1 for DontCare.
        occluded: 0 fully visible to 3 unknown; -1 for DontCare.
        alpha: Observation angle, radians.
        bbox: (4,) left, top, right, bottom in pixels.
        size: (3,) height, width, length, metres.
        location: (3,) bottom centre in the rectified camera frame, metres.
        rotation_y: Yaw about the camera's y axis, radians.
        points: LiDAR points on the object; not part of the file.
        object_index: Into the snapshot's objects; not part of the file.
    """

    type: str
    truncated: float
    occluded: int
    alpha: float
    bbox: np.ndarray
    size: np.ndarray
    location: np.ndarray
    rotation_y: float
    points: int = 0
    object_index: int = -1

    def text(self) -> str:
        """The line as KITTI writes it."""
        numbers = [*self.bbox, *self.size, *self.location, self.rotation_y]
        if self.type == 'DontCare':
            head = 'DontCare -1 -1 -10'
        else:
            head = f'{self.type} {self.truncated:.2f} {self.occluded} {self.alpha:.2f}'
        return f'{head} ' + ' '.join(f'{v:.2f}' for v in numbers)


@dataclass
class Frame:
    """Everything a KITTI frame holds.

    Attributes:
        points: (N, 4) float32 in the LiDAR frame, intensity last.
        object_index: (N,) index into the snapshot's objects, -1 for scenery.
        image: (375, 1242, 3) uint8.
        labels: Objects and DontCare regions.
        calib: The calibration.
        snapshot: The world it was taken from.
    """

    points: np.ndarray
    object_index: np.ndarray
    image: np.ndarray
    labels: list[Label]
    calib: Calibration
    snapshot: Snapshot


def simulate(seed: int, index: int, fov_only: bool = True, step: int = 2) -> Frame:
    """Simulates frame ``index`` of the data set ``seed``, whatever other frames are made.

    Args:
        seed: Of the data set.
        index: Of the frame.
        fov_only: Keep only the points that fall into image 2, as both toolboxes do.
        step: Rays of the picture are cast for ``step`` x ``step`` pixels.
    """
    snapshot = random_street(np.random.default_rng([seed, index, 0])).at(0.0)
    tracer = Tracer(snapshot.mesh)
    calib = calibration()
    lidar, camera = sensors(calib)
    sweep = lidar.scan(tracer, snapshot, np.random.default_rng([seed, index, 1]))
    seen = in_image(sweep.points[:, :3], calib)
    hits = np.bincount(sweep.object_index[seen] + 1, minlength=len(snapshot.objects) + 1)[1:]
    labels = label_objects(snapshot, tracer, camera, lidar, calib, hits)
    kept = seen if fov_only else np.ones_like(seen)
    image = camera.render(tracer, snapshot, step)
    return Frame(sweep.points[kept], sweep.object_index[kept], image, labels, calib, snapshot)


def in_image(points: np.ndarray, calib: Calibration) -> np.ndarray:
    """(N,) whether LiDAR points (N, 3) project into image 2."""
    u, v, depth = calib.project(calib.to_camera(points.astype(np.float64))).T
    width, height = IMAGE_SIZE
    return (depth > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)


# ---- labels ------------------------------------------------------------------------------------


def label_objects(
    snapshot: Snapshot,
    tracer: Tracer,
    camera: Camera,
    lidar: Lidar,
    calib: Calibration,
    hits: np.ndarray,
) -> list[Label]:
    """Labels every object that the camera may see; those without LiDAR points are DontCare.

    Args:
        snapshot: The world.
        tracer: Of ``snapshot.mesh``.
        camera: Camera 2.
        lidar: Gives the LiDAR frame.
        calib: LiDAR to camera.
        hits: (O,) LiDAR points in the image on each object.
    """
    lidar_pose = snapshot.ego.compose(lidar.pose)
    labels = []
    for index, state in enumerate(snapshot.objects):
        box = state.box_in(lidar_pose)
        if box[0] < -box[3] or np.hypot(*box[:2]) > _FURTHEST_LABEL:
            continue
        label = _label(state, box, snapshot, tracer, camera, calib, int(hits[index]), index)
        if label is not None:
            labels.append(label)
    return sorted(labels, key=lambda item: item.type == 'DontCare')


def _label(
    state: ObjectState,
    box: np.ndarray,
    snapshot: Snapshot,
    tracer: Tracer,
    camera: Camera,
    calib: Calibration,
    hits: int,
    index: int,
) -> Label | None:
    """The label of one object, None if it is outside the image or hidden altogether."""
    world = camera.world_pose(snapshot)
    alone = Tracer(state.mesh)
    bbox = extent_in_image(alone, camera, world)
    if bbox is None or min(bbox[2] - bbox[0], bbox[3] - bbox[1]) < 2:
        return None
    share = visible_share(alone, index, bbox, snapshot, tracer, camera, world)
    truncated = _truncation(state, camera, world)
    if hits == 0 or truncated > 0.95:
        return _dont_care(bbox) if share > 0 else None
    occluded = next((i for i, s in enumerate(_OCCLUSION_SHARES) if share >= s), 3)
    bottom = np.array([[box[0], box[1], box[2] - box[5] / 2]])
    location = calib.to_camera(bottom)[0]
    rotation_y = _wrap(-box[6] - np.pi / 2)
    alpha = _wrap(rotation_y - np.arctan2(location[0], location[2]))
    return Label(
        state.label, truncated, occluded, alpha, bbox, box[[5, 4, 3]], location, rotation_y,
        hits, index,
    )  # fmt: skip


def _dont_care(bbox: np.ndarray) -> Label:
    return Label('DontCare', -1, -1, -10, bbox, np.full(3, -1.0), np.full(3, -1000.0), -10.0)


def _wrap(angle: float) -> float:
    """``angle`` in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _truncation(state: ObjectState, camera: Camera, world: Pose, samples: int = 12) -> float:
    """Share of an object's 3D box that lies outside the image.

    By volume: the 2D box of something beside the camera grows without bound.
    """
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3) + [0, 0, 0.5]
    points = world.invert(state.pose.apply(grid * state.size))
    front = points[points[:, 2] >= NEAR]
    pixels, _ = camera.project(front)
    inside = ((pixels >= 0) & (pixels <= np.array(camera.size) - 1)).all(1)
    return float(1 - inside.sum() / len(grid))


# ---- files -------------------------------------------------------------------------------------


def frame_files(root: Path, name: str) -> dict[str, Path]:
    """Paths of one frame's files, the one that is written last at the end."""
    training = Path(root) / 'training'
    return {
        'velodyne': training / 'velodyne' / f'{name}.bin',
        'image_2': training / 'image_2' / f'{name}.png',
        'calib': training / 'calib' / f'{name}.txt',
        'label_2': training / 'label_2' / f'{name}.txt',
    }


def write_frame(root: Path, name: str, frame: Frame) -> None:
    """Writes one frame's four files, each under a temporary name first."""
    from PIL import Image

    files = frame_files(root, name)
    labels = ''.join(label.text() + '\n' for label in frame.labels)
    replace_file(files['velodyne'], lambda path: frame.points.astype('<f4').tofile(path))
    picture = Image.fromarray(frame.image)
    replace_file(files['image_2'], lambda path: picture.save(path, 'PNG', compress_level=4))
    replace_file(files['calib'], lambda path: path.write_text(frame.calib.text()))
    replace_file(files['label_2'], lambda path: path.write_text(labels))
