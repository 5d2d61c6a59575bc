"""OpenPCDet's processed Waymo layout: what its converter leaves and its ``WaymoDataset`` reads."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from ..contents import replace_file
from .waymo import Box, FrameRecord, Reading, Recipe, SegmentId
from .waymo_rig import cameras

TAG = 'waymo_processed_data_v0_5_0'
_OUTSIDE_NLZ = -1  # the flag of points that lie in no zone without labels


def write_reading(root: Path, segment: SegmentId, frame: int, reading: Reading) -> None:
    """Writes one frame's points (N, 6): x, y, z, intensity, elongation, no-label-zone flag."""
    path = root / TAG / segment.name / f'{frame:04d}.npy'
    path.parent.mkdir(parents=True, exist_ok=True)
    flag = np.full((len(reading.points), 1), _OUTSIDE_NLZ, np.float32)
    points = np.concatenate([reading.points, flag], 1)

    def write(temporary: Path) -> None:
        with temporary.open('wb') as file:  # numpy would add a suffix to a path
            np.save(file, points)

    replace_file(path, write)


def write_tables(root: Path, segments: dict[SegmentId, list[FrameRecord]], recipe: Recipe) -> None:
    """Writes one info file a segment, one a split, and the lists of segments.

    Args:
        root: Folder of the data set.
        segments: Labels of each segment.
        recipe: What was made.
    """
    splits: dict[str, list[SegmentId]] = {'train': [], 'val': []}
    infos: dict[str, list[dict]] = {'train': [], 'val': []}
    for segment, records in segments.items():
        own = [frame_info(segment, k, record, recipe) for k, record in enumerate(records)]
        _pickle(root / TAG / segment.name / f'{segment.name}.pkl', own)
        splits[segment.split].append(segment)
        infos[segment.split] += own
    (root / 'ImageSets').mkdir(exist_ok=True)
    for split, members in splits.items():
        _pickle(root / f'{TAG}_infos_{split}.pkl', infos[split])
        text = ''.join(f'{segment.name}.tfrecord\n' for segment in members)
        replace_file(
            root / 'ImageSets' / f'{split}.txt', lambda path, text=text: path.write_text(text)
        )


def frame_info(segment: SegmentId, frame: int, record: FrameRecord, recipe: Recipe) -> dict:
    """The info of one frame, with the keys and types of OpenPCDet's converter."""
    sizes = [camera.size for camera in cameras(recipe.image_size).values()]
    return {
        'point_cloud': {
            'num_features': 5, 'lidar_sequence': segment.name, 'sample_idx': frame,
        },
        'frame_id': f'{segment.name}_{frame:03d}',
        'metadata': {
            'context_name': segment.context, 'timestamp_micros': record.timestamp,
        },
        'image': {f'image_shape_{k}': (height, width) for k, (width, height) in enumerate(sizes)},
        'pose': np.array(record.pose, np.float32),
        'annos': annotations(record.boxes, np.array(record.pose)),
        # Of the LiDARs on the roof, in front, left, right and behind.
        'num_points_of_each_lidar': [record.points, 0, 0, 0, 0],
    }  # fmt: skip


def annotations(boxes: list[Box], pose: np.ndarray) -> dict[str, np.ndarray]:
    """The ``annos`` of a frame of M boxes: arrays of length M.

    ``gt_boxes_lidar`` (M, 9) are x, y, z (geometric centre), l, w, h, heading and the velocity over
    ground along the vehicle's x and y.

    Args:
        boxes: The frame's boxes.
        pose: (4, 4) vehicle to global frame.
    """
    geometry = np.array([b.box for b in boxes], float).reshape(-1, 7)
    speed = np.array([b.speed for b in boxes], float).reshape(-1, 2)
    level = np.array([b.difficulty for b in boxes], int)
    along = np.pad(speed, ((0, 0), (0, 1))) @ pose[:3, :3]
    return {
        'name': np.array([b.kind for b in boxes], dtype=str),
        'difficulty': level,
        'dimensions': geometry[:, 3:6],
        'location': geometry[:, :3],
        'heading_angles': geometry[:, 6],
        'obj_ids': np.array([b.id for b in boxes], dtype=str),
        'tracking_difficulty': level.copy(),
        'num_points_in_gt': np.array([b.points for b in boxes], int),
        'speed_global': speed,
        'accel_global': np.array([b.acceleration for b in boxes], float).reshape(-1, 2),
        'gt_boxes_lidar': np.concatenate([geometry, along[:, :2]], 1),
    }


def _pickle(path: Path, infos: list[dict]) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(pickle.dumps(infos, protocol=4)))
