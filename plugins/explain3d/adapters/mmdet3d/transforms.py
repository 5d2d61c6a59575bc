"""Data transforms that MMDetection3D lacks."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from explain3d.registry import TRANSFORMS

from ...core.override import override

if 'long' not in vars(np):
    # MMDetection3D's DataBaseSampler names numpy.long, which numpy 1.24 to 1.26 do not have.
    np.long = np.int64


@TRANSFORMS.register_module()
class AppendZeroVelocity(BaseTransform):
    """Gives boxes without a velocity the velocity (0, 0), which CenterHead's training asks for.

    ``gt_bboxes_3d`` of 7 columns (x, y, z, l, w, h, yaw) gets 9 (..., vx, vy); boxes that have a
    velocity stay as they are.
    """

    @override
    def transform(self, results: dict) -> dict:
        """Appends the two columns to ``results['gt_bboxes_3d']``."""
        boxes = results['gt_bboxes_3d']
        if boxes.box_dim == 7:
            tensor = boxes.tensor
            wide = tensor.new_zeros((len(tensor), 9))
            wide[:, :7] = tensor
            # The stored centre is already the bottom centre: origin says so.
            results['gt_bboxes_3d'] = type(boxes)(wide, box_dim=9, origin=(0.5, 0.5, 0))
        return results
