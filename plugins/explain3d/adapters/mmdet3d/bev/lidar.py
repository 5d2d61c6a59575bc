"""LiDAR sweeps in the ego frame."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from explain3d.registry import TRANSFORMS

from ....core.override import override
from .geometry import move, rigid_inverse


@TRANSFORMS.register_module()
class LoadLidarSweeps(BaseTransform):
    """Loads the LiDAR keyframe and earlier sweeps into the ego frame of the keyframe.

    Reads MMDetection3D's ``lidar_points`` and ``lidar_sweeps``. Writes ``points`` (N, 5) float32:
    x, y, z, intensity, seconds before the keyframe. MMDetection3D's ``LoadPointsFromMultiSweeps``
    shifts a sweep along the axes of the earlier scan; this one inverts ``lidar2sensor``.

    Args:
        sweeps: Number of sweeps, the keyframe among them; fewer at the beginning of a scene.
        min_distance: Points with |x| and |y| below this from the LiDAR are left out, metres.
    """

    def __init__(self, sweeps: int = 1, min_distance: float = 2.2) -> None:
        self.sweeps = sweeps
        self.min_distance = min_distance

    @override
    def transform(self, results: dict) -> dict:
        """Adds ``points``."""
        key = results['lidar_points']
        clouds = [self._load(key['lidar_path'], np.eye(4), 0.0)]
        for sweep in results.get('lidar_sweeps', [])[: self.sweeps - 1]:
            lidar = sweep['lidar_points']
            back = rigid_inverse(np.asarray(lidar['lidar2sensor'], np.float64))
            time = results['timestamp'] - sweep['timestamp']
            clouds.append(self._load(lidar['lidar_path'], back, time))
        points = np.concatenate(clouds)
        points[:, :3] = move(points[:, :3], np.asarray(key['lidar2ego']))
        results['points'] = points.astype(np.float32)
        return results

    def _load(self, path: str, to_keyframe: np.ndarray, time: float) -> np.ndarray:
        points = np.fromfile(path, np.float32).reshape(-1, 5).astype(np.float64)
        points = points[(np.abs(points[:, :2]) >= self.min_distance).any(1)]
        points[:, :3] = move(points[:, :3], to_keyframe)
        points[:, 4] = time
        return points
