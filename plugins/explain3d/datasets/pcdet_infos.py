"""OpenPCDet's info files for a KITTI layout, written without OpenPCDet.

Its own ``create_kitti_infos`` writes ``kitti_infos_val.pkl``, as MMDetection3D's converter does in
another format: these are called ``pcdet_infos_val.pkl``, so that one folder serves both. Name them
in ``DATA_CONFIG.INFO_PATH``.

A box in KITTI's rectified camera frame has its bottom centre t, size (h, w, l) and turn ry about
the camera's y. In the LiDAR frame (x forward, z up) its centre is T^-1 t + (0, 0, h/2) and its
heading -ry - pi/2, where T = R0_rect * Tr_velo_to_cam.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..core.boxes import points_in_boxes
from ..core.errors import InputError
from ..core.results_atomic import atomic_write
from .kitti_layout import REMEDY, SPLITS, check_frames, check_kitti, members

#: Name of a split's file.
NAME = 'pcdet_infos_{split}.pkl'

# KITTI's levels: height of the 2D box in pixels, truncation, occlusion.
_LEVELS = ((40, 0.15, 0), (25, 0.30, 1), (25, 0.50, 2))
_MATRICES = {'P2': (3, 4), 'R0_rect': (3, 3), 'Tr_velo_to_cam': (3, 4)}


def make_pcdet_infos(root: str | Path) -> Path:
    """Writes ``pcdet_infos_{train,val,trainval}.pkl`` of a KITTI-format data set.

    They are what OpenPCDet's KittiDataset reads to run and evaluate a detector. The ground-truth
    database, which only training with pasted objects needs, is not made. Files that are there are
    replaced.

    Args:
        root: Writable folder with ``ImageSets`` and ``training``.

    Returns:
        ``root``.

    Raises:
        InputError: If ``root`` lacks a part of the KITTI layout, or a file is damaged.
    """
    root = Path(root)
    check_kitti(root)
    check_frames(root)
    frames: dict[str, dict] = {}
    for split in SPLITS:
        if split == 'test':  # its frames are in another folder, and have no labels
            continue
        for name in members(root, split):
            if name not in frames:
                frames[name] = frame_info(root / 'training', name)
        infos = [frames[name] for name in members(root, split)]
        with atomic_write(root / NAME.format(split=split), 'OpenPCDet info file') as file:
            pickle.dump(infos, file)
    return root


def frame_info(folder: Path, name: str) -> dict[str, Any]:
    """Returns the record of one frame.

    Args:
        folder: With ``velodyne``, ``image_2``, ``calib`` and ``label_2``.
        name: Of the frame.

    Raises:
        InputError: If its calibration or labels are not KITTI's.
    """
    from PIL import Image

    path = folder / 'image_2' / f'{name}.png'
    try:
        with Image.open(path) as picture:
            shape = np.array(picture.size[::-1], np.int32)
    except OSError as error:
        raise InputError(
            f'{path} is no picture ({error}): expected a PNG file. {REMEDY}'
        ) from error
    calib = _calibration(folder / 'calib' / f'{name}.txt')
    points = np.fromfile(folder / 'velodyne' / f'{name}.bin', np.float32).reshape(-1, 4)
    annos = _annotations(folder / 'label_2' / f'{name}.txt', calib)
    _count_points(annos, points, calib, shape)
    return {
        'point_cloud': {'num_features': 4, 'lidar_idx': name},
        'image': {'image_idx': name, 'image_shape': shape},
        'calib': {key: _square(matrix, key) for key, matrix in calib.items()},
        'annos': annos,
    }


def _calibration(path: Path) -> dict[str, np.ndarray]:
    rows = dict(line.split(':', 1) for line in path.read_text().splitlines() if ':' in line)
    try:
        # float32, as OpenPCDet reads them.
        return {
            key: np.array(rows[key].split(), np.float32).reshape(shape)
            for key, shape in _MATRICES.items()
        }
    except (KeyError, ValueError) as error:
        raise InputError(
            f"Expected KITTI's calibration with {list(_MATRICES)} in {path}, received {error}."
        ) from error


def _square(matrix: np.ndarray, key: str) -> np.ndarray:
    # OpenPCDet's rectification stays float32, the others become float64.
    full = np.eye(4, dtype=np.float32 if key == 'R0_rect' else np.float64)
    full[: matrix.shape[0], : matrix.shape[1]] = matrix
    return full


def _annotations(path: Path, calib: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    names = np.array([line[0] for line in lines], dtype='<U10' if not lines else None)
    try:
        table = np.array([line[1:15] for line in lines], np.float64).reshape(-1, 14)
    except ValueError as error:
        raise InputError(
            f"Expected KITTI's labels, 15 columns, in {path}, received {error}."
        ) from error
    truncated, occluded, alpha = table[:, 0], table[:, 1], table[:, 2]
    boxes, (height, width, length) = table[:, 3:7].astype(np.float32), table[:, 7:10].T
    location, turn = table[:, 10:13].astype(np.float32), table[:, 13]
    objects = names != 'DontCare'
    count = int(objects.sum())
    if not objects[:count].all():
        raise InputError(f'Expected DontCare regions after all objects in {path}: sort its lines.')
    sizes = np.stack([length, height, width], 1)
    return {
        'name': names,
        'truncated': truncated,
        'occluded': occluded,
        'alpha': alpha,
        'bbox': boxes,
        'dimensions': sizes,
        'location': location,
        'rotation_y': turn,
        'score': np.array([float(line[15]) if len(line) > 15 else -1.0 for line in lines]),
        'difficulty': _levels(boxes, truncated, occluded),
        'index': np.where(objects, np.arange(len(names)), -1).astype(np.int32),
        'gt_boxes_lidar': _lidar_boxes(location[:count], sizes[:count], turn[:count], calib),
    }


def _levels(boxes: np.ndarray, truncated: np.ndarray, occluded: np.ndarray) -> np.ndarray:
    """0 easy, 1 moderate, 2 hard, -1 none of them."""
    height = boxes[:, 3] - boxes[:, 1] + 1
    levels = np.full(len(boxes), -1, np.int32)
    for level, (least, cut, hidden) in reversed(list(enumerate(_LEVELS))):
        levels[(height >= least) & (truncated <= cut) & (occluded <= hidden)] = level
    return levels


def _lidar_boxes(
    location: np.ndarray, sizes: np.ndarray, turn: np.ndarray, calib: dict[str, np.ndarray]
) -> np.ndarray:
    rotation, shift = _to_camera(calib)
    centre = (location.astype(np.float64) - shift) @ np.linalg.inv(rotation).T
    length, height, width = sizes.T
    centre[:, 2] += height / 2
    return np.column_stack([centre, length, width, height, -(np.pi / 2 + turn)])


def _to_camera(calib: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and shift (3,) from the LiDAR to the rectified camera frame."""
    rectification = calib['R0_rect'].astype(np.float64)
    velo = calib['Tr_velo_to_cam'].astype(np.float64)
    return rectification @ velo[:, :3], rectification @ velo[:, 3]


def _count_points(
    annos: dict[str, np.ndarray], points: np.ndarray, calib: dict, shape: np.ndarray
) -> None:
    """Adds the LiDAR points in the image that lie in each box; -1 for DontCare."""
    import torch

    rotation, shift = _to_camera(calib)
    camera = points[:, :3].astype(np.float64) @ rotation.T + shift
    p2 = calib['P2'].astype(np.float64)
    image = camera @ p2[:, :3].T + p2[:, 3]
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels = image[:, :2] / camera[:, 2:]
    seen = ((pixels >= 0) & (pixels < shape[::-1])).all(1) & (image[:, 2] - p2[2, 3] >= 0)
    boxes = torch.from_numpy(annos['gt_boxes_lidar'])
    inside = points_in_boxes(torch.from_numpy(points[seen, :3]).double(), boxes)
    counts = np.full(len(annos['name']), -1, np.int32)
    counts[: len(boxes)] = inside.sum(dim=1).numpy()
    annos['num_points_in_gt'] = counts
