"""nuScenes for bird's-eye-view segmentation, and a few of its keyframes as plain files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmengine.dataset import BaseDataset

from explain3d.core.errors import InputError
from explain3d.registry import DATASETS

from ....core.override import override
from .cameras import CAMERAS

#: nuScenes' levels of visibility by their names in the keyframes' files.
_VISIBILITY = {
    'mostly_occluded': 1,
    'partially_visible': 2,
    'mostly_visible': 3,
    'fully_visible': 4,
}
#: MMDetection3D's classes whose nuScenes categories begin with ``vehicle.``.
_VEHICLES = (
    *('car', 'truck', 'bus', 'trailer', 'construction_vehicle', 'bicycle', 'motorcycle'),
    'emergency_vehicle',
)


@DATASETS.register_module()
class NuScenesBEVDataset(NuScenesDataset):
    """MMDetection3D's nuScenes with radars and every vehicle's visibility.

    ``ann_file`` is one that ``tools/add_bev_infos.py`` made out of MMDetection3D's info file.
    ``vehicles`` of a sample (size (K, 3): length, width, height; ``box2ego`` (K, 4, 4);
    ``visibility`` (K,)) are there in training and in test.

    Args:
        data_root: Folder of the data set.
        ann_file: Info file, relative to ``data_root``.
        pipeline: Transforms.
        modality: As for ``NuScenesDataset``; all sensors by default.
        data_prefix: As for ``NuScenesDataset``; nuScenes' folders by default.
        blank_sensors: Sensors that every sample lacks: ``['camera']``, see `BlankSensor`.
        **kwargs: As for ``NuScenesDataset``.

    Raises:
        InputError: If the info file holds no radars and vehicles.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        pipeline: Sequence[dict | Callable] = (),
        modality: dict | None = None,
        data_prefix: dict | None = None,
        blank_sensors: Sequence[str] = (),
        **kwargs,
    ) -> None:
        folders = {name: f'samples/{name}' for name in CAMERAS}
        super().__init__(
            data_root=data_root,
            ann_file=ann_file,
            pipeline=_with_blanks(pipeline, blank_sensors),
            modality=modality or dict(use_lidar=True, use_camera=True),
            data_prefix=data_prefix
            or dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', **folders),
            filter_empty_gt=kwargs.pop('filter_empty_gt', False),
            **kwargs,
        )

    @override
    def parse_data_info(self, info: dict) -> dict:
        """As the base class; keeps radars and vehicles, drops what no transform here reads."""
        if 'vehicles' not in info or 'radars' not in info:
            raise InputError(
                f'Expected radars and vehicles in {self.ann_file}, received keys {sorted(info)}: '
                f'run tools/add_bev_infos.py and name its file as ann_file.'
            )
        info.pop('cam_instances', None)
        info.setdefault('instances', [])
        info = super().parse_data_info(info)
        for key in ('instances', 'ann_info', 'eval_ann_info'):
            info.pop(key, None)
        for radar in info['radars'].values():
            radar['paths'] = [str(Path(self.data_root) / path) for path in radar['paths']]
        return info


@DATASETS.register_module()
class NuScenesKeyframes(BaseDataset):
    """nuScenes keyframes as plain files: one folder a scene, no tables.

    A folder holds six ``CAM_*.jpg``, ``radar_points.npy`` (ego frame, `LoadRadarArray` reads it),
    ``calib.json`` (``K`` and ``sensor2ego`` of each sensor), ``detections.json`` (annotated boxes,
    ego frame), ``metadata.json`` and for some scenes ``LIDAR_TOP.bin`` (x, y, z, intensity, ring).
    A sample looks as `NuScenesBEVDataset`'s, with one sweep of each sensor. Cameras stand where
    the calibration says: the motion between LiDAR keyframe and image is not known.

    Args:
        data_root: Folder of the scenes' folders.
        pipeline: Transforms.
        with_lidar: Keep only the scenes with a LiDAR sweep.
        blank_sensors: Sensors that every sample lacks, see `BlankSensor`.
        **kwargs: As for ``BaseDataset``.

    Raises:
        InputError: If there are no such keyframes.
    """

    METAINFO = dict(classes=('vehicle',))

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[dict | Callable] = (),
        with_lidar: bool = False,
        blank_sensors: Sequence[str] = (),
        **kwargs,
    ) -> None:
        self.with_lidar = with_lidar
        super().__init__(
            data_root=data_root, pipeline=_with_blanks(pipeline, blank_sensors), **kwargs
        )

    @override
    def load_data_list(self) -> list[dict]:
        """Reads the folders, sorted by name."""
        needed = 'LIDAR_TOP.bin' if self.with_lidar else 'radar_points.npy'
        folders = sorted(path.parent for path in Path(self.data_root).glob(f'*/{needed}'))
        if not folders:
            raise InputError(
                f'Expected folders with {needed} in {self.data_root}, received none: set '
                f'EXPLAIN3D_REAL_DATA to the folder that holds nuscenes-keyframes/.'
            )
        return [_keyframe(folder, index) for index, folder in enumerate(folders)]


def _with_blanks(pipeline: Sequence, sensors: Sequence[str]) -> list:
    """The pipeline with a `BlankSensor` before its last transform, which packs."""
    if not sensors or not pipeline:
        return list(pipeline)
    blank = dict(type='explain3d.BlankSensor', sensors=sensors)
    return [*pipeline[:-1], blank, pipeline[-1]]


def _keyframe(folder: Path, index: int) -> dict:
    meta = json.loads((folder / 'metadata.json').read_text())
    sensors = json.loads((folder / 'calib.json').read_text())['sensors']
    images = {
        name: dict(
            img_path=str(folder / f'{name}.jpg'),
            cam2img=sensors[name]['K'],
            cam2ego=sensors[name]['sensor2ego'],
        )
        for name in CAMERAS
    }
    info = dict(
        sample_idx=index,
        token=meta['sample_token'],
        scene=meta['scene_name'],
        timestamp=meta['timestamp'] / 1e6,
        images=images,
        radar_path=str(folder / 'radar_points.npy'),
        vehicles=_vehicles(json.loads((folder / 'detections.json').read_text())),
    )
    if (folder / 'LIDAR_TOP.bin').exists():
        info['lidar_points'] = dict(
            lidar_path=str(folder / 'LIDAR_TOP.bin'), lidar2ego=sensors['LIDAR_TOP']['sensor2ego']
        )
    return info


def _vehicles(boxes: list[dict]) -> dict:
    boxes = [box for box in boxes if box['class'] in _VEHICLES]
    yaw = np.array([box['yaw_rad'] for box in boxes], np.float64)
    poses = np.tile(np.eye(4), (len(boxes), 1, 1))
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(yaw)
    poses[:, 0, 1], poses[:, 1, 0] = -np.sin(yaw), np.sin(yaw)
    for axis, name in enumerate('xyz'):
        poses[:, axis, 3] = [box[name] for box in boxes]
    sizes = [[box['length_m'], box['width_m'], box['height_m']] for box in boxes]
    return dict(
        box2ego=poses,
        size=np.array(sizes, np.float64).reshape(-1, 3),
        visibility=np.array([_VISIBILITY[box['visibility']] for box in boxes], np.int64),
    )
