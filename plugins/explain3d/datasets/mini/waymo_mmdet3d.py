"""MMDetection3D's converted Waymo layout (1.4): what ``tools/create_data.py waymo`` leaves."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from ..contents import replace_file
from .nuscenes_files import write_picture
from .waymo import (
    CYCLIST,
    PEDESTRIAN,
    SPLITS,
    VEHICLE,
    Box,
    FrameRecord,
    Reading,
    Recipe,
    SegmentId,
)
from .waymo_rig import CAMERA_NAMES, cameras

FOLDER = 'kitti_format'
_LABELS = {VEHICLE: 0, PEDESTRIAN: 1, CYCLIST: 2}  # Car, Pedestrian, Cyclist
_MOST_SWEEPS = 10  # earlier frames that a frame's info names
_META = {'dataset': 'waymo', 'version': 'waymo_v1.4', 'info_version': 'mmdet3d_v1.4'}


def sample_name(segment: SegmentId, frame: int) -> str:
    """Name of a frame's files: one digit for the split, three for the segment, three more."""
    return f'{SPLITS.index(segment.split)}{segment.number:03d}{frame:03d}'


def write_reading(root: Path, segment: SegmentId, frame: int, reading: Reading) -> None:
    """Writes one frame's points, and its pictures if there are any.

    Points are (N, 6): x, y, z, intensity, elongation, place in the range image.
    """
    training, name = root / FOLDER / 'training', sample_name(segment, frame)
    (training / 'velodyne').mkdir(parents=True, exist_ok=True)
    points = np.column_stack([reading.points, reading.cell]).astype('<f4')
    replace_file(training / 'velodyne' / f'{name}.bin', points.tofile)
    for camera, picture in reading.pictures.items():
        folder = training / f'image_{CAMERA_NAMES.index(camera)}'
        folder.mkdir(exist_ok=True)
        write_picture(folder / f'{name}.jpg', picture)


def write_tables(root: Path, segments: dict[SegmentId, list[FrameRecord]], recipe: Recipe) -> None:
    """Writes the info files and the lists of frames of both splits and of both together.

    Args:
        root: Folder of the data set.
        segments: Labels of each segment.
        recipe: What was made.
    """
    infos: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for segment, records in segments.items():
        own: list[dict] = []
        for frame, record in enumerate(records):
            own.append(frame_info(segment, frame, record, recipe, own))
        infos[segment.split] += own
    infos['trainval'] = infos['train'] + infos['val']
    folder = root / FOLDER
    (folder / 'ImageSets').mkdir(parents=True, exist_ok=True)
    for split, members in infos.items():
        data = pickle.dumps({'metainfo': dict(_META), 'data_list': members}, protocol=4)
        replace_file(
            folder / f'waymo_infos_{split}.pkl', lambda path, data=data: path.write_bytes(data)
        )
        text = ''.join(f'{info["sample_idx"]:07d}\n' for info in members)
        replace_file(
            folder / 'ImageSets' / f'{split}.txt', lambda path, text=text: path.write_text(text)
        )


def frame_info(
    segment: SegmentId, frame: int, record: FrameRecord, recipe: Recipe, earlier: list[dict]
) -> dict:
    """The info of one frame in MMDetection3D's second format, as its Waymo converter makes it.

    Args:
        segment: Which segment.
        frame: Number of the frame in it.
        record: Its labels.
        recipe: What was made.
        earlier: Infos of the segment's frames before this one.
    """
    name = sample_name(segment, frame)
    info = {
        'sample_idx': int(name),
        'timestamp': record.timestamp,
        'ego2global': _float32(record.pose),
        'context_name': segment.context,
        'images': _images(name, recipe),
        'lidar_points': {'lidar_path': f'{name}.bin', 'num_pts_feats': 6},
    }
    before = earlier[: -_MOST_SWEEPS - 1 : -1]
    if before:
        info['lidar_sweeps'] = [_sweep(other) for other in before]
    info['instances'] = [_instance(k, box) for k, box in enumerate(_labelled(record), 1)]
    # All sensors measure at the same moment.
    info['cam_sync_instances'] = [_instance(k, box) for k, box in enumerate(_labelled(record), 1)]
    return info


def _labelled(record: FrameRecord) -> list[Box]:
    """The converter drops boxes without a point."""
    return [box for box in record.boxes if box.points]


def _instance(number: int, box: Box) -> dict:
    x, y, z, length, width, height, yaw = box.box
    label = _LABELS[box.kind]
    return {
        'group_id': number,
        # What the converter writes where there is no 2D box.
        'camera_id': 0,
        'bbox': [0.0, 0.0, 0.0, 0.0],
        'bbox_label': label,
        'bbox_3d': _float32([x, y, z - height / 2, length, width, height, yaw]),
        'bbox_label_3d': label,
        'num_lidar_pts': box.points,
    }


def _sweep(info: dict) -> dict:
    """What a later frame's info keeps of an earlier one."""
    return {
        'timestamp': info['timestamp'],
        'ego2global': info['ego2global'],
        'lidar_points': {'lidar_path': info['lidar_points']['lidar_path']},
    }


def _images(name: str, recipe: Recipe) -> dict[str, dict]:
    """Size and calibration of each camera, and its picture if there is one."""
    out = {}
    for camera, sensor in cameras(recipe.image_size).items():
        to_camera = np.eye(4)
        to_camera[:3, :3] = sensor.pose.rotation.T
        to_camera[:3, 3] = sensor.pose.invert(np.zeros((1, 3)))[0]
        to_image = np.concatenate([sensor.matrix, np.zeros((3, 1))], 1)
        width, height = sensor.size
        out[f'CAM_{camera}'] = {
            'height': height,
            'width': width,
            'lidar2cam': _float32(to_camera + 0.0),
            'cam2img': _float32(to_image),
            'lidar2img': _float32(to_image @ to_camera + 0.0),
        }
        if recipe.images:
            out[f'CAM_{camera}']['img_path'] = f'{name}.jpg'
    return out


def _float32(values) -> list:
    return np.asarray(values, np.float32).tolist()
