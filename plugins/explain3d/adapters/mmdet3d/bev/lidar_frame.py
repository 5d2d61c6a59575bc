"""Cameras in MMDetection3D's LiDAR frame, after its own augmentation of points and boxes."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from explain3d.core.errors import InputError
from explain3d.registry import TRANSFORMS

from ....core.override import override
from .geometry import rigid_inverse

_FLIPS = {'HF': [1.0, -1.0, 1.0, 1.0], 'VF': [-1.0, 1.0, 1.0, 1.0]}


@TRANSFORMS.register_module()
class CamerasToLidar(BaseTransform):
    """Places the cameras where the points are.

    Follows `LoadSurroundCameras` and MMDetection3D's ``GlobalRotScaleTrans`` and ``RandomFlip3D``,
    whose turns, shifts and mirrors it applies to the cameras. Writes ``cam2lidar`` (S, 4, 4), from
    camera to the LiDAR frame in which points and boxes are now.
    """

    @override
    def transform(self, results: dict) -> dict:
        """Adds ``cam2lidar``.

        Raises:
            InputError: If points were scaled, which no pose of a camera can follow.
        """
        ego2lidar = rigid_inverse(np.asarray(results['lidar_points']['lidar2ego'], np.float64))
        results['cam2lidar'] = _augmentation(results) @ ego2lidar @ results['cam2ego']
        return results


def _augmentation(results: dict) -> np.ndarray:
    """Returns what was done to the points, (4, 4), in the order that MMDetection3D noted."""
    total = np.eye(4)
    for step in results.get('transformation_3d_flow', ()):
        matrix = np.eye(4)
        if step == 'R':
            # MMDetection3D notes the matrix that multiplies rows of points from the right.
            matrix[:3, :3] = np.asarray(results['pcd_rotation']).T
        elif step == 'T':
            matrix[:3, 3] = np.asarray(results['pcd_trans']).reshape(3)
        elif step in _FLIPS:
            matrix = np.diag(_FLIPS[step])
        elif step == 'S' and results['pcd_scale_factor'] != 1:
            raise InputError(
                f'Expected points that were not scaled, received a factor of '
                f'{results["pcd_scale_factor"]}: set scale_ratio_range=[1, 1].'
            )
        total = matrix @ total
    return total
